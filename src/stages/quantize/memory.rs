//! How much memory quantizing needs at most, by rule of thumb.

use crate::model::spec::{LayerSpec, ModelSpec};
use crate::quantize::method::Method;
use crate::quantize::training_data::default_tuning;

/// Bytes of memory that quantizing takes at most, by rule of thumb: the integers, and the working memory of the method.
/// Checkpoints are mapped, and mapped pages can be given back. `tune` is that of [`super::QuantizeOptions`], `qat` says
/// that there is training.
pub fn memory_estimate(
    spec: &ModelSpec,
    method: Method,
    calibration_tokens: usize,
    tune: Option<usize>,
    qat: bool,
) -> u64 {
    let of_matrices =
        |f: fn(usize, usize) -> usize| spec.matrices().iter().map(|(_, rows, columns)| f(*rows, *columns) as u64).max();
    let largest = of_matrices(|rows, columns| rows * columns).unwrap_or(0);
    let parameters = spec.parameter_count();
    let integers = parameters + parameters / 32 + 10 * largest + (64 << 20);
    let tuned = method == Method::Gptq && tune.unwrap_or_else(|| default_tuning(spec)) > 0;
    let trained = if tuned || qat { memory_of_training(spec) } else { 0 };
    trained.max(match method {
        Method::Rtn => integers,
        Method::Search => integers + 4 * parameters + spec.vocabulary as u64 * 256 * 4,
        Method::Gptq => {
            let linears = spec.matrices().into_iter().filter(|(id, ..)| id.role.in_layer());
            let widest = linears.map(|(_, _, columns)| columns as u64).max().unwrap_or(0);
            // Moments and their factors; one layer in f32 twice; hidden states of two models and the inputs of a layer.
            let moments = 56 * widest * widest;
            let layer = 8 * parameters / spec.layers.len().max(1) as u64;
            let states = calibration_tokens as u64 * 4 * (5 * spec.hidden as u64 + widest);
            // The gradients by looked-up rows take the whole model in f32, before there are integers.
            let gradients = 4 * parameters + spec.vocabulary as u64 * 256 * 12;
            (integers + moments + layer + states).max(gradients)
        }
    })
}

/// Memory of training on the grid: values, both moments, the gradients of every micro-batch, teacher and student; and a
/// step's activations as the gradient graph keeps them.
fn memory_of_training(spec: &ModelSpec) -> u64 {
    let of_layer = |layer: &LayerSpec| {
        let scores = layer.attention().map_or(0, |attention| 4 * attention.heads * 256);
        12 * spec.hidden + 4 * layer.ffn.width + scores
    };
    let of_token: usize = 10 * spec.output_width() + spec.layers.iter().map(of_layer).sum::<usize>();
    96 * spec.parameter_count() + 2048 * 4 * of_token as u64
}
