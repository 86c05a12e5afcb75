//! What a stage will take, told before its work from shapes, settings and the lengths of files: bytes that it writes, memory
//! at the peak, and its work as multiply-accumulates, which a rate turns into time. All of it is an estimate but the bytes of
//! artifacts, which follow from the schemes.
//!
//! ```text
//! forward          parameters that are multiplied + window · width of the queries of every layer, per token
//! training         tokens · (3 forward + 1 with recomputation + forwards of the teachers)
//! second moments   tokens · columns² of every input
//! gptq, sparsegpt  rows · columns² of every matrix
//! ```

use crate::compile::estimate::macs_per_token;
use crate::model::spec::ModelSpec;
use crate::quantize::method::Method;
use crate::train::settings::Settings;
use serde::Serialize;
use std::path::PathBuf;

/// Bytes of a weight in a directory.
const DENSE_BYTES: u64 = 4;
/// Products of a weight that a search for its scale takes.
const SEARCH: u64 = 400;
/// Work per parameter of what only moves weights: importing, packing.
const MOVED: u64 = 60;

/// What a stage will take.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Bytes of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes on disk beside it while it runs: the state to go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// Memory at the peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Multiply-accumulates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_macs: Option<u64>,
    /// How the work is done, where a kind has several ways with rates of their own.
    #[serde(skip)]
    pub way: Option<&'static str>,
    /// What an artifact takes of its device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceNeed>,
}

/// What an artifact takes of its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceNeed {
    /// The target's name.
    pub target: String,
    /// Bytes in the memory that holds the artifact.
    pub flash_bytes: u64,
    /// Arena, cache and stack.
    pub ram_bytes: u64,
    /// Why it does not fit, and what would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub does_not_fit: Option<String>,
}

/// Multiply-accumulates of a token in a sequence of `window`.
pub fn forward_macs(spec: &ModelSpec, window: usize) -> u64 {
    let window = window.min(spec.context) as u64;
    let queries = |layer: &crate::model::spec::LayerSpec| layer.attention().map_or(0, |own| own.query_width() as u64);
    macs_per_token(spec) + window * spec.layers.iter().map(queries).sum::<u64>()
}

/// Bytes of a dense directory.
pub fn dense_bytes(spec: &ModelSpec) -> u64 {
    DENSE_BYTES * spec.parameter_count()
}

/// A training run.
pub fn training(student: &ModelSpec, teachers: &[&ModelSpec], settings: &Settings) -> Prediction {
    Prediction {
        output_bytes: Some(dense_bytes(student)),
        // Values and both moments.
        state_bytes: Some(3 * dense_bytes(student)),
        work_macs: Some(training_macs(student, teachers, settings)),
        ..Prediction::default()
    }
}

/// Multiply-accumulates of a training run.
pub fn training_macs(student: &ModelSpec, teachers: &[&ModelSpec], settings: &Settings) -> u64 {
    let passes = if settings.recompute { 4 } else { 3 };
    let of_teachers = teachers.iter().map(|teacher| forward_macs(teacher, settings.window)).sum::<u64>();
    settings.tokens.saturating_mul(passes * forward_macs(student, settings.window) + of_teachers)
}

/// Calibration, and the second moments of inputs where they are asked for.
pub fn calibration_macs(spec: &ModelSpec, tokens: u64, moments: bool, sampled: bool) -> u64 {
    let squares = |columns: usize| (columns as u64).pow(2);
    let of_inputs =
        if moments { spec.matrices().iter().map(|(_, _, columns)| squares(*columns)).sum::<u64>() / 2 } else { 0 };
    // Samples of the model itself are a forward more, one token after the other.
    let forwards = if sampled { 3 } else { 2 };
    tokens.saturating_mul(forwards * forward_macs(spec, 256) + of_inputs)
}

/// The solver of matrices that compensates errors column by column.
pub fn solver_macs(spec: &ModelSpec) -> u64 {
    let of_matrix =
        |rows: usize, columns: usize| rows as u64 * columns as u64 * columns as u64 + (columns as u64).pow(3) / 3;
    let linears = spec.matrices().into_iter().filter(|(id, ..)| id.role.in_layer());
    linears.map(|(_, rows, columns)| of_matrix(rows, columns)).fold(0, u64::saturating_add)
}

/// Rounding to integers, without training.
pub fn rounding_macs(spec: &ModelSpec, method: Method, tokens: u64, sampled: bool) -> u64 {
    let search = SEARCH * spec.parameter_count();
    match method {
        Method::Keep => MOVED * spec.parameter_count(),
        Method::Rtn => search,
        Method::Search => search + calibration_macs(spec, tokens, false, sampled),
        Method::Gptq => search + solver_macs(spec) + calibration_macs(spec, tokens, true, sampled),
    }
}

/// Work that only moves weights.
pub fn moved_macs(spec: &ModelSpec) -> u64 {
    MOVED * spec.parameter_count()
}

/// Bytes of a quantized directory: a byte a weight whatever the scheme, and its scales.
pub fn quantized_bytes(spec: &ModelSpec) -> u64 {
    let scales: u64 =
        spec.matrices().iter().map(|(_, rows, columns)| 4 * *rows as u64 + (rows * columns / 32) as u64).sum();
    spec.parameter_count() + scales
}

/// About how many tokens files have, by their lengths: a token is longer where the vocabulary is larger.
pub fn tokens_of(files: &[PathBuf], vocabulary: usize) -> u64 {
    let bytes: u64 = files.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len())).sum();
    let bytes_per_token = ((vocabulary.max(2) as f64).log2() / 4.0).clamp(1.0, 4.5);
    (bytes as f64 / bytes_per_token) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_follow_the_length_of_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.txt");
        std::fs::write(&file, vec![b'a'; 9000]).expect("written");
        let files = [file.clone(), directory.path().join("gone.txt")];
        assert_eq!(tokens_of(&files, 16), 9000);
        assert_eq!(tokens_of(&files, 1 << 12), 3000);
        assert_eq!(tokens_of(&files, 1 << 20), 2000);
        assert_eq!(tokens_of(&[], 10), 0);
    }
}
