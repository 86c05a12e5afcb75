//! `slmc prune`: a dense directory in, a dense directory with zeros out, and a report of what went from every matrix.
//! The result is a plain Hugging Face directory; only its slmc.json says which matrices are sparse.

use crate::calibrate::{CalibrateError, collect};
use crate::disk::ConfigError;
use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::{HashError, file_sha256, hex};
use crate::formats::provenance::sparsity_json;
use crate::formats::{self, ModelFormatError, ModelSink, hugging_face};
use crate::machine::{cpu_features, tool};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::transform::{HeldMasks, MaskError, NmPattern, Sparsity};
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::prune::layerwise::{self, Pass};
use crate::prune::{MatrixReport, Method, PruneError, SelectionError, check, prune, select};
use crate::quantize::calibration::{CALIBRATION_TOKENS, CalibrationError, Source, calibration};
use crate::quantize::training_data::{Retrain, TrainingDataError, training_samples};
use crate::report::{Align, Report, Table, grouped};
use crate::stages::train::TrainReport;
use crate::train;
use crate::train::retrain::{Retraining, values_of};
use burn::tensor::Device;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dense directory.
    pub model: PathBuf,
    /// Where to.
    pub out: PathBuf,
    /// How many weights stay of how many.
    pub pattern: NmPattern,
    /// How they are scored.
    pub method: Method,
    /// Whether what stays is fitted anew.
    pub refit: bool,
    /// Leave a linear dense where more than this share of its output's energy would be missed; layer by layer only.
    pub most_missed: Option<f64>,
    /// Which linears: globs, ffn, attention, all.
    pub only: Vec<String>,
    /// What to calibrate with; magnitude needs none, and with one reports importance as well.
    pub source: Option<Source>,
    /// Training of what is left, where it is asked for.
    pub recover: Option<Retrain>,
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The input holds integers.
    #[error(
        "{}: is quantized; prune the dense checkpoint it was made from, then quantize the result",
        path.display()
    )]
    Quantized {
        /// The input.
        path: PathBuf,
    },
    /// Of the selection.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// Of the pattern.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// Of the model's files.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// Of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of the input's slmc.json.
    #[error(transparent)]
    Provenance(#[from] ConfigError),
    /// Of the calibration text.
    #[error(transparent)]
    Source(#[from] CalibrationError),
    /// Of the calibration run.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Of the output path.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Of the inputs' hashes.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Of the training text.
    #[error(transparent)]
    TrainingData(#[from] TrainingDataError),
    /// Of the training run.
    #[error(transparent)]
    Train(Box<crate::stages::train::CommandError>),
}

impl From<crate::stages::train::CommandError> for DirectoryError {
    fn from(error: crate::stages::train::CommandError) -> Self {
        DirectoryError::Train(Box::new(error))
    }
}

impl From<PruneError> for DirectoryError {
    fn from(error: PruneError) -> Self {
        match error {
            PruneError::Model(error) => error.into(),
            PruneError::Mask(error) => error.into(),
            PruneError::Calibrate(error) => error.into(),
        }
    }
}

/// Result of `slmc prune`.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// `2:4`.
    pub pattern: String,
    /// `magnitude`, `wanda` or `sparsegpt`.
    pub method: &'static str,
    /// Whether what stays was fitted anew.
    pub refit: bool,
    /// The selection.
    pub only: Vec<String>,
    /// Whether artifacts hold matrices of this pattern compressed; others take the bytes of dense ones.
    pub compressed_in_artifacts: bool,
    /// What it was calibrated with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Tokens of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_tokens: Option<u64>,
    /// Linears that were selected and stayed dense, since pruning them would have missed more than was allowed.
    pub left_dense: u64,
    /// Weights of the pruned matrices.
    pub weights: u64,
    /// Of those, zero before.
    pub zeros_before: u64,
    /// Of those, zero now.
    pub zeros_after: u64,
    /// Of the recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainReport>,
    /// Every matrix that was pruned.
    pub matrices: Vec<MatrixReport>,
}

impl Report for PruneReport {
    const SCHEMA: &'static str = "slmc.prune/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("matrix", Align::Left),
            ("shape", right),
            ("zeros before", right),
            ("zeros after", right),
            ("energy removed", right),
            ("weighted", right),
            ("output missed", right),
            ("dense w4 misses", right),
            ("", Align::Left),
        ]);
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        for matrix in &self.matrices {
            table.row([
                matrix.name.as_str(),
                &format!("{} x {}", matrix.rows, matrix.columns),
                &grouped(matrix.zeros_before),
                &grouped(matrix.zeros_after),
                &percent(matrix.energy_removed),
                &matrix.weighted_energy_removed.map_or_else(|| "-".to_owned(), percent),
                &matrix.output_error.map_or_else(|| "-".to_owned(), percent),
                &percent(matrix.dense_error),
                matrix.fallback.as_deref().unwrap_or(if matrix.left_dense { "left dense" } else { "" }),
            ]);
        }
        let mut sums = Table::pairs();
        let refitted = if self.refit { ", what stays fitted anew" } else { "" };
        sums.row(["pattern", &format!("{} by {}{refitted}", self.pattern, self.method)]);
        if let (Some(calibration), Some(tokens)) = (&self.calibration, self.calibration_tokens) {
            sums.row(["calibration", &format!("{calibration}, {} tokens", grouped(tokens))]);
        }
        sums.row(["weights", &grouped(self.weights)]);
        sums.row(["zeros", &format!("{}, {} before", grouped(self.zeros_after), grouped(self.zeros_before))]);
        if let Some(training) = &self.training {
            sums.row(["recovered on", &format!("{} tokens, loss {:.4}", grouped(training.tokens), training.loss)]);
        }
        let stored =
            if self.compressed_in_artifacts { "compressed" } else { "as dense matrices: only 2:4 is compressed" };
        sums.row(["in artifacts", stored]);
        if self.compressed_in_artifacts {
            let better = self.matrices.iter().filter(|matrix| matrix.missed() < matrix.dense_error).count();
            sums.row([
                "beside dense",
                &format!(
                    "dense w4 takes 4.25 bits a weight, 2:4 5 (8-bit values) or 3.25 (4-bit); 2:4 misses less in {better} of {}",
                    self.matrices.len()
                ),
            ]);
        }
        format!("{table}\n\n{sums}")
    }
}

/// Prunes a directory. Everything that can be refused without work is refused first.
///
/// # Errors
/// Every variant of [`DirectoryError`].
pub fn prune_directory(
    options: &Options,
    device: &Device,
    progress: &dyn Progress,
) -> Result<PruneReport, DirectoryError> {
    atomic::check_directory(&options.out)?;
    let path = &options.model;
    let input = formats::open(path)?;
    let outline = input.outline();
    if outline.schemes.is_some() {
        return Err(DirectoryError::Quantized { path: path.clone() });
    }
    let selected = select(&outline.spec, &options.only)?;
    let shapes = check(&outline.spec, &selected, options.pattern)?;
    let mut sparsity = input.recorded_sparsity()?;
    sparsity.retain(|id, _| !selected.contains(id));
    let model = input.model()?;
    // What slmc.json said of other matrices it will say again.
    model.check_sparsity(&sparsity)?;
    let calibration = match &options.source {
        None => None,
        Some(source) => Some(calibration(&model, source, CALIBRATION_TOKENS, progress)?),
    };
    let dense = model.clone();
    let layer_by_layer = options.refit || options.method == Method::SparseGpt;
    let (mut pruned, matrices) = match &calibration {
        Some(calibration) if layer_by_layer => {
            let (selected, sequences) = (&selected[..], &calibration.sequences[..]);
            let Options { pattern, method, refit, most_missed, .. } = *options;
            let pass = Pass { selected, pattern, method, refit, most_missed, sequences, device };
            layerwise::prune(model, &pass, progress)?
        }
        calibration => {
            let statistics = match calibration {
                None => None,
                Some(calibration) => Some(collect(&model, &calibration.sequences, device, progress)?),
            };
            prune(model, &selected, options.pattern, options.method, statistics.as_ref(), progress)?
        }
    };
    let left = |id: &LinearId| matrices.iter().any(|matrix| matrix.left_dense && matrix.name == id.to_string());
    sparsity.extend(selected.iter().filter(|id| !left(id)).map(|id| (*id, options.pattern)));
    let training = match &options.recover {
        None => None,
        Some(retrain) => {
            let (values, report) = recover(options, retrain, &dense, &pruned, &sparsity, device, progress)?;
            pruned = pruned.with_values(values)?;
            Some(report)
        }
    };
    let calibration = calibration.as_ref();
    let report = PruneReport {
        pattern: options.pattern.to_string(),
        method: options.method.name(),
        refit: options.refit,
        only: options.only.clone(),
        compressed_in_artifacts: options.pattern.is_two_of_four(),
        calibration: calibration.map(|calibration| calibration.description.clone()),
        calibration_tokens: calibration.map(|calibration| calibration.tokens() as u64),
        weights: shapes.iter().filter(|(id, ..)| !left(id)).map(|(_, rows, columns)| (rows * columns) as u64).sum(),
        left_dense: matrices.iter().filter(|matrix| matrix.left_dense).count() as u64,
        zeros_before: matrices.iter().map(|matrix| matrix.zeros_before).sum(),
        zeros_after: matrices.iter().map(|matrix| matrix.zeros_after).sum(),
        training,
        matrices,
    };
    hugging_face::Directory(&options.out).write(&pruned, &provenance(options, &report, &sparsity)?)?;
    if options.recover.is_some() {
        crate::stages::train::forget_checkpoint(&options.out)?;
    }
    Ok(report)
}

/// Trains the weights that are left, the model before pruning being the teacher; masks of every sparse matrix are held.
fn recover(
    options: &Options,
    retrain: &Retrain,
    dense: &Model,
    pruned: &Model,
    sparsity: &Sparsity,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(BTreeMap<ParameterId, Vec<f32>>, TrainReport), DirectoryError> {
    let samples = training_samples(dense, retrain, progress)?;
    let masks = HeldMasks::of(pruned, sparsity)?;
    let run = json!({
        "tool": tool(),
        "stage": "recover",
        "inputs": inputs(options)?,
        "pattern": options.pattern.to_string(),
        "method": options.method.name(),
        "refit": options.refit,
        "most_missed": options.most_missed,
        "only": options.only,
        "training": retrain.identity(device),
    });
    let retraining = Retraining {
        model: dense,
        start: values_of(dense)?,
        samples: &samples,
        settings: &retrain.settings,
        fingerprint: train::checkpoint::fingerprint(&run),
        out: &options.out,
    };
    let (mut trained, report) = retraining.run(&masks, device, progress)?;
    for (id, values) in &mut trained.parameters {
        if let ParameterId::Linear(linear, Part::Weight) = id {
            masks.clear(*linear, values);
        }
    }
    if let Some(path) = &retrain.metrics {
        crate::stages::train::write_log(path, &trained.log)?;
    }
    Ok((trained.parameters, report))
}

/// Hashes of everything read.
fn inputs(options: &Options) -> Result<Vec<Value>, HashError> {
    let mut inputs = vec![json!({"role": "model", "sha256": hex(&formats::sha256(&options.model)?)})];
    if let Some(Source::File { path, .. }) = &options.source {
        inputs.push(json!({"role": "calibration", "sha256": hex(&file_sha256(path)?)}));
    }
    for file in options.recover.iter().flat_map(|retrain| &retrain.data).flat_map(|data| &data.files) {
        inputs.push(json!({"role": "data", "sha256": hex(&file_sha256(file)?)}));
    }
    Ok(inputs)
}

fn provenance(options: &Options, report: &PruneReport, sparsity: &Sparsity) -> Result<Value, HashError> {
    Ok(json!({
        "schema": "slmc.provenance/1",
        "tool": tool(),
        "inputs": inputs(options)?,
        "stage": "prune",
        "settings": {
            "pattern": report.pattern,
            "method": report.method,
            "refit": report.refit,
            "most_missed": options.most_missed,
            "only": report.only,
            "calibration": report.calibration,
            "calibration_tokens": report.calibration_tokens,
            "recover": options.recover.as_ref().map(|retrain| &retrain.settings),
        },
        "sparsity": sparsity_json(sparsity),
        "cpu_features": cpu_features(),
        "metrics": {"weights": report.weights, "zeros": report.zeros_after, "training": report.training.as_ref().map(TrainReport::metrics)},
    }))
}

/// Bytes of memory that pruning takes at most, by rule of thumb: the f32 model of the calibration, the pruned weights, one
/// matrix of each kind in work.
///
/// # Errors
/// Those of opening the directory.
pub fn memory_estimate(path: &Path) -> Result<u64, ModelFormatError> {
    let spec = formats::open_outline(path)?.spec;
    let largest = spec.matrices().iter().map(|(_, rows, columns)| (rows * columns) as u64).max().unwrap_or(0);
    Ok(8 * spec.parameter_count() + 16 * largest + spec.vocabulary as u64 * 256 * 4 + (64 << 20))
}
