//! `slmc quantize`: a dense directory in, a quantized directory out, and a report of what was done to every matrix.

use super::calibration::{self, Calibration, CalibrationError, Source};
use super::method::Method;
use super::policy::{self, Keep, PolicyError};
use super::qat::FakeQuantize;
use super::solver::{self, SolverError};
use super::training_data::{Retrain, TrainingDataError, training_samples};
use super::{MatrixReport, mark_sparse, quantize, with_key_maps};
use crate::calibrate::{CalibrateError, collect};
use crate::checkpoint::atomic::{self, AtomicError};
use crate::checkpoint::hash::{HashError, directory_sha256, file_sha256, hex};
use crate::checkpoint::{ConfigError, DenseTensor};
use crate::data::tokenizer::{Tokenizer, TokenizerError};
use crate::machine::{cpu_features, tool};
use crate::model::dense_directory::{recorded_sparsity, sparsity_json};
use crate::model::id::{ParameterId, Part};
use crate::model::quantized_directory;
use crate::model::scheme::Preset;
use crate::model::size::{SizeError, WeightSize, stored_tensors};
use crate::model::transform::{HeldMasks, NmPattern, Sparsity};
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped};
use crate::train;
use crate::train::command::TrainReport;
use crate::train::retrain::Retraining;
use burn::tensor::Device;
use serde::Serialize;
use serde_json::json;
use slm_runtime::layout::Layout;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dense directory.
    pub model: PathBuf,
    /// Where to.
    pub out: PathBuf,
    /// Mix of schemes.
    pub preset: Preset,
    /// Exceptions from it, the last match winning.
    pub keeps: Vec<Keep>,
    /// How integers are found.
    pub method: Method,
    /// What to calibrate with; `rtn` needs nothing.
    pub source: Source,
    /// Name of the target whose packing the sizes are for.
    pub target: String,
    /// Its layout.
    pub layout: Layout,
    /// Training on the grid, where it is asked for.
    pub qat: Option<Retrain>,
}

/// Why nothing was quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The input holds integers already.
    #[error("{}: is already quantized; quantize the dense checkpoint it was made from", path.display())]
    AlreadyQuantized {
        /// The input.
        path: PathBuf,
    },
    /// Of the input's slmc.json.
    #[error(transparent)]
    Provenance(#[from] ConfigError),
    /// Of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of the schemes.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Of the sizes.
    #[error(transparent)]
    Size(#[from] SizeError),
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
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of the training text.
    #[error(transparent)]
    TrainingData(#[from] TrainingDataError),
    /// Of the training run.
    #[error(transparent)]
    Train(Box<train::command::CommandError>),
}

impl From<SolverError> for QuantizeError {
    fn from(error: SolverError) -> Self {
        match error {
            SolverError::Calibrate(error) => error.into(),
            SolverError::Model(error) => error.into(),
        }
    }
}

impl From<train::command::CommandError> for QuantizeError {
    fn from(error: train::command::CommandError) -> Self {
        QuantizeError::Train(Box::new(error))
    }
}

/// Result of `slmc quantize`.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizeReport {
    /// The mix.
    pub scheme: &'static str,
    /// Exceptions.
    pub keep: Vec<String>,
    /// `rtn`, `search`, `gptq`, or `qat`.
    pub method: &'static str,
    /// Whose packing the sizes are for.
    pub target: String,
    /// What it was calibrated with.
    pub calibration: String,
    /// Tokens of that.
    pub calibration_tokens: u64,
    /// Sequences of that.
    pub calibration_sequences: u64,
    /// Sizes.
    #[serde(flatten)]
    pub size: WeightSize,
    /// Of quantization-aware training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainReport>,
    /// Every matrix.
    pub matrices: Vec<MatrixReport>,
}

impl Report for QuantizeReport {
    const SCHEMA: &'static str = "slmc.quantize/1";

    fn text(&self) -> String {
        let (left, sparse) = (Align::Left, self.matrices.iter().any(|matrix| matrix.sparsity.is_some()));
        let sparsity = if sparse { "sparsity" } else { "" };
        let mut table =
            Table::new([("matrix", left), ("scheme", left), ("relative error", Align::Right), (sparsity, left)]);
        for matrix in &self.matrices {
            let compressed = |text: &String| text.parse().is_ok_and(NmPattern::is_two_of_four);
            let sparsity = match &matrix.sparsity {
                Some(pattern) if compressed(pattern) => format!("{pattern}, compressed"),
                Some(pattern) => format!("{pattern}, stored dense"),
                None => String::new(),
            };
            table.row([matrix.name.as_str(), &matrix.scheme, &format!("{:.2e}", matrix.relative_error), &sparsity]);
        }
        let mut sums = Table::pairs();
        sums.row(["method", self.method]);
        sums.row(["calibration", &self.calibration]);
        sums.row(["calibration_tokens", &grouped(self.calibration_tokens)]);
        if let Some(training) = &self.training {
            sums.row(["trained on", &format!("{} tokens, loss {:.4}", grouped(training.tokens), training.loss)]);
        }
        sums.row(["weight_bytes", &grouped(self.size.weight_bytes)]);
        sums.row(["parameters", &grouped(self.size.parameters)]);
        sums.row(["bits_per_weight", &format!("{:.3}", self.size.bits_per_weight)]);
        format!("{table}\n\n{sums}")
    }
}

/// Quantizes a directory. Everything that can be refused without work is refused first.
pub fn quantize_directory(
    options: &Options,
    device: &Device,
    progress: &dyn Progress,
) -> Result<QuantizeReport, QuantizeError> {
    atomic::check_directory(&options.out)?;
    let model = Model::open(&options.model)?;
    if model.is_quantized() {
        return Err(QuantizeError::AlreadyQuantized { path: options.model.clone() });
    }
    let assignment = policy::assign(&model.spec, options.preset, &options.keeps)?;
    match Tokenizer::open(&options.model) {
        // It travels with the model; what it cannot be used for later is refused now.
        Ok(tokenizer) => drop(tokenizer.check(model.spec.vocabulary)?),
        Err(TokenizerError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let sparsity = recorded_sparsity(&options.model, &model.spec)?;
    model.check_sparsity(&sparsity)?;
    let tensors = stored_tensors(&model.spec, &assignment, &sparsity, options.layout, model.spec.context, true)?;
    let calibration = match (options.method, &options.qat) {
        (Method::Rtn, None) => Calibration { sequences: Vec::new(), description: "none".to_owned() },
        _ => calibration::calibration(&model, &options.source, progress)?,
    };
    let sequences = &calibration.sequences;
    let mut training = None;
    let (mut quantized, mut matrices) = match (&options.qat, options.method) {
        (None, Method::Rtn) => quantize(&model, &assignment, None, progress)?,
        (None, Method::Search) => {
            let statistics = collect(&model, sequences, device, progress)?;
            quantize(&model, &assignment, Some(&statistics), progress)?
        }
        (None, Method::Gptq) => {
            let solved = solver::solve(&model, &assignment, &sparsity, sequences, device, progress)?;
            (with_key_maps(solved.model, &solved.statistics)?, solved.reports)
        }
        (Some(qat), _) => {
            let statistics = collect(&model, sequences, device, progress)?;
            let masks = HeldMasks::of(&model, &sparsity)?;
            let mut grid = FakeQuantize::new(&model.spec, &assignment, &statistics, masks);
            let (trained, report) = train_on_grid(options, qat, &model, &mut grid, device, progress)?;
            let statistics = collect(&trained.0, sequences, device, progress)?;
            training = Some(report);
            (with_key_maps(trained.0, &statistics)?, trained.1)
        }
    };
    mark_sparse(&mut quantized, &sparsity);
    for (id, pattern) in &sparsity {
        let of_it = matrices.iter_mut().find(|matrix| matrix.name == id.to_string());
        of_it.into_iter().for_each(|matrix| matrix.sparsity = Some(pattern.to_string()));
    }
    let report = QuantizeReport {
        scheme: options.preset.name(),
        keep: options.keeps.iter().map(ToString::to_string).collect(),
        method: if options.qat.is_some() { "qat" } else { options.method.name() },
        target: options.target.clone(),
        calibration: calibration.description.clone(),
        calibration_tokens: calibration.tokens() as u64,
        calibration_sequences: calibration.sequences.len() as u64,
        size: WeightSize::of(&model.spec, &tensors),
        training,
        matrices,
    };
    quantized_directory::write(&quantized, &provenance(options, &report, &sparsity)?, &options.out)?;
    if options.qat.is_some() {
        train::command::forget_checkpoint(&options.out)?;
    }
    Ok(report)
}

/// A quantized model and what was done to its matrices.
type Rounded = (Model, Vec<MatrixReport>);

/// Trains the weights on the grid of their schemes, the model itself as it was being the teacher.
fn train_on_grid(
    options: &Options,
    qat: &Retrain,
    model: &Model,
    grid: &mut FakeQuantize,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(Rounded, TrainReport), QuantizeError> {
    let settings = &qat.settings;
    let samples = training_samples(model, qat, progress)?;
    let run = json!({
        "tool": tool(),
        "stage": "qat",
        "inputs": inputs(options)?,
        "scheme": options.preset.name(),
        "keep": options.keeps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "training": qat.identity(device),
    });
    let retraining = Retraining {
        model,
        samples: &samples,
        settings,
        fingerprint: train::checkpoint::fingerprint(&run),
        out: &options.out,
    };
    let (trained, report) = retraining.run(grid, device, progress)?;
    let mut parameters = model.parameters.clone();
    let mut matrices = Vec::new();
    for (id, values) in &trained.parameters {
        let rounded = match id {
            ParameterId::Linear(linear, Part::Weight) => grid.round(*linear, values).map(|matrix| (*linear, matrix)),
            _ => None,
        };
        let parameter = match rounded {
            Some((linear, matrix)) => {
                matrices.push(MatrixReport::new(linear, values, &matrix, None));
                Parameter::Quantized(matrix)
            }
            None => {
                let shape = model.spec.parameters().into_iter().find(|parameter| parameter.id == *id);
                let shape = shape.map(|parameter| parameter.shape).unwrap_or_default();
                Parameter::Dense(DenseTensor::from_f32(shape, values).map_err(ModelError::from)?)
            }
        };
        parameters.insert(*id, parameter);
    }
    if let Some(path) = &qat.metrics {
        train::command::write_log(path, &trained.log)?;
    }
    let quantized = Model {
        spec: model.spec.clone(),
        config: model.config.clone(),
        parameters,
        directory: model.directory.clone(),
    };
    Ok(((quantized, matrices), report))
}

fn provenance(options: &Options, report: &QuantizeReport, sparsity: &Sparsity) -> Result<serde_json::Value, HashError> {
    Ok(json!({
        "schema": "slmc.provenance/1",
        "tool": tool(),
        "inputs": inputs(options)?,
        "stage": "quantize",
        "settings": {
            "scheme": report.scheme,
            "keep": report.keep,
            "method": report.method,
            "target": report.target,
            "calibration": report.calibration,
            "calibration_tokens": report.calibration_tokens,
            "qat": options.qat.as_ref().map(|qat| &qat.settings),
        },
        "sparsity": sparsity_json(sparsity),
        "cpu_features": cpu_features(),
        "metrics": {
            "weight_bytes": report.size.weight_bytes,
            "bits_per_weight": report.size.bits_per_weight,
            "training": report.training.as_ref().map(TrainReport::metrics),
        },
    }))
}

/// Hashes of everything read.
fn inputs(options: &Options) -> Result<Vec<serde_json::Value>, HashError> {
    let mut inputs = vec![json!({"role": "model", "sha256": hex(&directory_sha256(&options.model)?)})];
    if let Source::File { path, .. } = &options.source {
        inputs.push(json!({"role": "calibration", "sha256": hex(&file_sha256(path)?)}));
    }
    for file in options.qat.iter().flat_map(|qat| &qat.data).flat_map(|data| &data.files) {
        inputs.push(json!({"role": "data", "sha256": hex(&file_sha256(file)?)}));
    }
    Ok(inputs)
}

/// Bytes of memory that quantizing takes at most, by rule of thumb: the f32 model of the calibration, the integers, one
/// matrix of each kind in work.
pub fn memory_estimate(path: &Path) -> Result<u64, ModelError> {
    let outline = crate::model::weights::Outline::open(path)?;
    let largest = outline.spec.matrices().iter().map(|(_, rows, columns)| (rows * columns) as u64).max().unwrap_or(0);
    let parameters = outline.spec.parameter_count();
    Ok(5 * parameters + 10 * largest + outline.spec.vocabulary as u64 * 256 * 4 + (64 << 20))
}
