//! How much memory quantizing needs at most, by rule of thumb.

use crate::calibrate::{lookups, samples};
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::quantize::calibration::WINDOW;
use crate::quantize::method::Method;
use crate::quantize::training_data::TOKENS_OF_STEP;
use crate::train::loss::table::{LossKind, LossWeights};
use crate::train::settings::Settings;

/// Bytes of memory that quantizing takes at most before any training, by rule of thumb: the integers, and the working memory
/// of the method. Checkpoints are mapped, and mapped pages can be given back.
pub(super) fn memory_estimate(spec: &ModelSpec, method: Method, calibration_tokens: usize) -> u64 {
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
    match method {
        Method::Keep | Method::Rtn => integers,
        Method::Search => sampled.max(integers + layer + states),
        Method::Gptq => {
            // Moments and their factors; one layer in f32 twice; before there are integers, gradients by looked-up rows.
            let moments = 56 * widest * widest;
            let gradients = layer + lookups::memory_bytes(spec);
            sampled.max(integers + moments + layer + states).max(gradients + states)
        }
    }
}

/// Columns of the linears of layers.
fn linears_of_layers(spec: &ModelSpec) -> impl Iterator<Item = u64> {
    let linears = spec.matrices().into_iter().filter(|(id, ..)| id.role.in_layer());
    linears.map(|(_, _, columns)| columns as u64)
}

/// The settings of tuning, on sequences that are as long as they can be.
pub(super) fn tuning_settings(spec: &ModelSpec) -> Settings {
    let mut loss = LossWeights::RECOVER;
    if let Head::Hidden = spec.head {
        loss = LossWeights::NONE.with(LossKind::Hidden, 1.0);
    }
    let window = Settings::TUNE.window.min(spec.context);
    let batch = (TOKENS_OF_STEP / window.max(1) as f64).ceil() as usize;
    Settings { window, batch, pieces: Settings::TUNE.pieces.min(batch), loss, ..Settings::TUNE }
}
