//! How much memory quantizing needs at most, by rule of thumb.

use crate::calibrate::{lookups, samples};
use crate::model::spec::{LayerSpec, ModelKind, ModelSpec};
use crate::quantize::calibration::WINDOW;
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
    let parameters = spec.parameter_count();
    // Decoders sample from themselves: text to calibrate with, or to judge a text by.
    let sampled =
        if spec.kind == ModelKind::Decoder { samples::memory_bytes(spec, WINDOW.min(spec.context)) } else { 0 };
    let layer = 8 * parameters / spec.layers.len().max(1) as u64;
    // Hidden states and one input of a layer, of two models.
    let widest = linears_of_layers(spec).max().unwrap_or(0);
    let states = calibration_tokens as u64 * 8 * (spec.hidden as u64 + widest);
    let largest = of_matrices(|rows, columns| rows * columns).unwrap_or(0);
    let integers = parameters + parameters / 32 + 10 * largest + (64 << 20);
    let tuned = method == Method::Gptq && tune.unwrap_or_else(|| default_tuning(spec)) > 0;
    let trained = if tuned || qat { memory_of_training(spec) } else { 0 };
    trained.max(match method {
        Method::Keep | Method::Rtn => integers,
        Method::Search => sampled.max(integers + layer + states),
        Method::Gptq => {
            // Moments and their factors; one layer in f32 twice; before there are integers, gradients by looked-up rows.
            let moments = 56 * widest * widest;
            let gradients = layer + lookups::memory_bytes(spec);
            sampled.max(integers + moments + layer + states).max(gradients + states)
        }
    })
}

/// Columns of the linears of layers.
fn linears_of_layers(spec: &ModelSpec) -> impl Iterator<Item = u64> {
    let linears = spec.matrices().into_iter().filter(|(id, ..)| id.role.in_layer());
    linears.map(|(_, _, columns)| columns as u64)
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
