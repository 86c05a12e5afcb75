//! How much memory quantizing needs at most, by rule of thumb.

use crate::calibrate::{lookups, probe, samples};
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::quantize::calibration::WINDOW;
use crate::quantize::method::Method;
use crate::quantize::training_data::TOKENS_OF_STEP;
use crate::train::loss::table::{LossKind, LossWeights};
use crate::train::settings::Settings;

/// What is done beside rounding.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    /// Schemes are chosen by measurement.
    pub measured: bool,
    /// Outliers are moved from inputs into weights.
    pub equalized: bool,
    /// A calibration text is judged by other text.
    pub judged: bool,
}

/// Bytes of memory that quantizing takes at most before any training, by rule of thumb: the integers, and the working memory
/// of the method. Checkpoints are mapped, and mapped pages can be given back.
pub(super) fn memory_estimate(spec: &ModelSpec, method: Method, calibration_tokens: usize, beside: Beside) -> u64 {
    let of_matrices =
        |f: fn(usize, usize) -> usize| spec.matrices().iter().map(|(_, rows, columns)| f(*rows, *columns) as u64).max();
    let parameters = spec.parameter_count();
    // Decoders sample from themselves: text to calibrate with, or to judge a text by.
    let sampled =
        if spec.kind == ModelKind::Decoder { samples::memory_bytes(spec, WINDOW.min(spec.context)) } else { 0 };
    let layer = 8 * parameters / spec.layers.len().max(1) as u64;
    // Hidden states and one input of a layer, of two models.
    let widest = linears_of_layers(spec).max().unwrap_or(0);
    let states = (calibration_tokens as u64).saturating_mul(8 * (spec.hidden as u64 + widest));
    let largest = of_matrices(|rows, columns| rows * columns).unwrap_or(0);
    let base = 64 << 20;
    let integers = parameters + parameters / 32 + 10 * largest;
    // What there is beside the integers, and before there are any.
    let (rounding, before) = match method {
        Method::Keep | Method::Rtn => (0, 0),
        Method::Search => (layer.saturating_add(states), sampled),
        Method::Gptq => {
            // Moments and their factors; one layer in f32 twice; gradients by looked-up rows.
            let moments = 56 * widest * widest;
            let gradients = layer + lookups::memory_bytes(spec);
            ((moments + layer).saturating_add(states), sampled.max(gradients.saturating_add(states)))
        }
    };
    // The model in f32.
    let floats = 4 * parameters;
    let (mut peak, mut kept) = (before, 0);
    if beside.equalized {
        peak = peak.max(sampled.max(floats));
    }
    if beside.judged {
        peak = peak.max(base + integers + sampled.max(integers));
    }
    if beside.measured {
        // Every matrix in 8 and in 4 bits, while they are rounded and while they are measured beside the original, which
        // the probe keeps until the end; gradients are taken on weights of their own.
        let all = 2 * integers;
        kept = floats + probe::KEPT_OUTPUTS.min(MEASURED_TOKENS * 4 * spec.output_width()) as u64;
        peak = peak.max((base + all).saturating_add(rounding)).max(base + all + kept + 2 * floats);
    }
    peak.max((base + integers).saturating_add(rounding).saturating_add(kept))
}

/// Tokens that schemes are measured on, about.
const MEASURED_TOKENS: usize = 8192;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use std::path::Path;

    #[test]
    fn what_is_done_beside_rounding_counts_and_nothing_overflows() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/llama-mha");
        let spec = open_model(&golden).expect("a golden checkpoint opens").spec;
        let need = |method, beside| memory_estimate(&spec, method, 16_384, beside);
        let none = Beside::default();
        for method in [Method::Rtn, Method::Search, Method::Gptq] {
            let measured = need(method, Beside { measured: true, ..none });
            assert!(measured >= need(method, none) + 4 * spec.parameter_count(), "{method:?}: {measured}");
            assert!(need(method, Beside { equalized: true, ..none }) >= need(method, none));
            assert!(need(method, Beside { judged: true, ..none }) > need(Method::Rtn, none));
        }
        assert_eq!(memory_estimate(&spec, Method::Gptq, usize::MAX, none), u64::MAX);
    }
}
