//! `slmc quantize`: a dense directory in, a quantized directory out, and a report of what was done to every matrix.

use crate::allocate::database::database;
use crate::allocate::items::Items;
use crate::allocate::plan::{AllocationError, Found, Plan};
use crate::allocate::sweep::{Sweep, SweepReport};
use crate::calibrate::{CalibrateError, collect};
use crate::disk::ConfigError;
use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::{HashError, file_sha256, hex};
use crate::formats::provenance::sparsity_json;
use crate::formats::{self, ModelFormatError, ModelSink, slmc_quantized};
use crate::machine::{cpu_features, tool};
use crate::model::scheme::{Preset, width_name};
use crate::model::size::{Assignment, SizeError, WeightSize, stored_tensors};
use crate::model::spec::{LayerSpec, ModelKind, ModelSpec};
use crate::model::transform::{HeldMasks, Sparsity};
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::quantize::calibration::{self, Calibration, CalibrationError, Source};
use crate::quantize::equalize::{EqualizeError, equalize};
use crate::quantize::input_width::{InputWidth, InputWidthError};
use crate::quantize::kept::Kept;
use crate::quantize::method::Method;
use crate::quantize::policy::{self, Activations, Keep, Mix, PolicyError};
pub use crate::quantize::report::QuantizeReport;
use crate::quantize::solver::{self, SolverError};
use crate::quantize::training_data::{Retrain, Training, TrainingDataError, default_tuning};
use crate::quantize::tune::{TuneError, Tuning};
use crate::quantize::{mark_sparse, mark_wide, quantize, with_key_maps};
use crate::report::chart::CHART_MAGIC;
use crate::stages::train::TrainReport;
use crate::text::chat_template::{ChatTemplate, ChatTemplateError};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::train;
use burn::tensor::Device;
use serde_json::json;
use slm_runtime::layout::Layout;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dense directory.
    pub model: PathBuf,
    /// Where to.
    pub out: PathBuf,
    /// Mix of schemes.
    pub mix: Mix,
    /// Exceptions from it, the last match winning.
    pub keeps: Vec<Keep>,
    /// Linears whose inputs are wider than 8 bits on a device, the last match winning.
    pub activations: Vec<Activations>,
    /// Whether outliers are moved from inputs into weights where the graph allows it.
    pub equalize: bool,
    /// How integers are found.
    pub method: Method,
    /// What to calibrate with; `rtn` needs nothing.
    pub source: Source,
    /// Of the draws of an allocation.
    pub seed: u64,
    /// Tokens of it.
    pub calibration_tokens: usize,
    /// Name of the target whose packing the sizes are for.
    pub target: String,
    /// Its layout.
    pub layout: Layout,
    /// Tokens per token of the calibration that tune what gptq has rounded; by [`default_tuning`] if absent.
    pub tune: Option<usize>,
    /// Training on the grid, where it is asked for; it takes the place of tuning.
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
    /// Of the model's files.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// Of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of the schemes.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Of the allocation.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Of the sizes.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Of the calibration text.
    #[error(transparent)]
    Source(#[from] CalibrationError),
    /// Of training on the grid.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// Of the calibration run.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Of the output path.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Of the inputs' hashes.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The inputs of the linears could not be measured.
    #[error(transparent)]
    InputWidth(#[from] InputWidthError),
    /// The chat template is refused.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of what an interrupted run has left.
    #[error(transparent)]
    Kept(#[from] train::checkpoint::CheckpointError),
    /// Of the training text.
    #[error(transparent)]
    TrainingData(#[from] TrainingDataError),
    /// Of the training run.
    #[error(transparent)]
    Train(Box<crate::stages::train::CommandError>),
}

impl From<EqualizeError> for QuantizeError {
    fn from(error: EqualizeError) -> Self {
        match error {
            EqualizeError::Calibrate(error) => error.into(),
            EqualizeError::Model(error) => error.into(),
        }
    }
}

impl From<SolverError> for QuantizeError {
    fn from(error: SolverError) -> Self {
        match error {
            SolverError::Calibrate(error) => error.into(),
            SolverError::Model(error) => error.into(),
            SolverError::Kept(error) => error.into(),
        }
    }
}

impl From<crate::stages::train::CommandError> for QuantizeError {
    fn from(error: crate::stages::train::CommandError) -> Self {
        QuantizeError::Train(Box::new(error))
    }
}

/// Quantizes a directory. Everything that can be refused without work is refused first.
pub fn quantize_directory(
    options: &Options,
    device: &Device,
    progress: &dyn Progress,
) -> Result<QuantizeReport, QuantizeError> {
    atomic::check_directory(&options.out)?;
    let input = formats::open(&options.model)?;
    let model = input.model()?;
    if model.is_quantized() {
        return Err(QuantizeError::AlreadyQuantized { path: options.model.clone() });
    }
    let sparsity = input.recorded_sparsity()?;
    let spec = model.spec.clone();
    let stored = |mix: &Assignment| stored_tensors(&spec, mix, &sparsity, options.layout, spec.context, true);
    let plan = match options.mix {
        Mix::Preset(_) => None,
        Mix::Auto(budget) => {
            Some(Plan::new(&model.spec, &options.keeps, budget, &sparsity, (&options.target, options.layout))?)
        }
    };
    let preset = match options.mix {
        Mix::Preset(preset) => policy::assign(&model.spec, preset, &options.keeps)?,
        Mix::Auto(_) => Assignment::new(),
    };
    if plan.is_none() {
        stored(&preset)?;
    }
    policy::widths(&model.spec, &options.activations)?;
    match Tokenizer::of(&model.companions) {
        // It travels with the model; what it cannot be used for later is refused now.
        Ok(tokenizer) => drop(tokenizer.check(model.spec.vocabulary)?),
        Err(TokenizerError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if model.spec.kind == ModelKind::Decoder {
        // So does the chat template.
        ChatTemplate::usable(&model.companions)?;
    }
    model.check_sparsity(&sparsity)?;
    if options.method == Method::Gptq {
        // Read once, so that values that are not finite are refused before the long work.
        model.parameters.keys().try_for_each(|id| model.values_f32(*id).map(drop))?;
    }
    let calibration = match (options.method, &options.qat, &plan) {
        (Method::Rtn, None, None) if !options.equalize => {
            Calibration { sequences: Vec::new(), description: "none".to_owned() }
        }
        _ => calibration::calibration(&model, &options.source, options.calibration_tokens, progress)?,
    };
    let sequences = &calibration.sequences;
    let input_width = match (options.activations.is_empty(), &plan) {
        (true, None) => InputWidth::measure(&model, sequences, device)?,
        _ => None,
    };
    let activations = input_width.map_or_else(|| options.activations.clone(), |width| width.activations());
    let widths = policy::widths(&model.spec, &activations)?;
    let (model, equalized) = match (options.equalize, &plan) {
        (true, None) => equalize(model, &preset, sequences, device, progress)?,
        // What is chosen later is not known yet: outliers are weighed as 4 bits would feel them.
        (true, Some(_)) => equalize(model, &Preset::W4.assign(&spec), sequences, device, progress)?,
        (false, _) => (model, Vec::new()),
    };
    let found = match &plan {
        None => None,
        Some(plan) => {
            let (items, method, seed) = (&plan.items.items, options.method, options.seed);
            let database = database(&model, items, &sparsity, method, sequences, device, progress)?;
            let source = &options.source;
            Some(Found::search(plan, &model, source, &calibration, &database, seed, device, progress)?)
        }
    };
    let assignment = found.as_ref().map_or(preset.clone(), |found| found.assignment.clone());
    let tensors = stored(&assignment)?;
    let training = Training::of(options, &model, &calibration, progress)?;
    let kept = match options.method == Method::Gptq || training.is_some() {
        true => Some(Kept::open(&options.out, &train::checkpoint::fingerprint(&run_identity(options, device)?))?),
        false => None,
    };
    let (mut quantized, mut matrices) = match options.method {
        Method::Rtn => quantize(&model, &assignment, None, progress)?,
        Method::Search => {
            let statistics = collect(&model, sequences, device, progress)?;
            quantize(&model, &assignment, Some(&statistics), progress)?
        }
        Method::Gptq => {
            warn_of_few_tokens(&model, calibration.tokens(), progress);
            if let Some(kept) = kept.as_ref().filter(|kept| kept.resumed > 0) {
                progress.warn(&format_args!("{} groups of matrices are done, from an interrupted run", kept.resumed));
            }
            let solved = solver::solve(&model, &assignment, &sparsity, sequences, kept.as_ref(), device, progress);
            // A refusal would come again at the same place, so what is saved serves nothing; a state that could not be
            // saved (a full disk) leaves the groups before it, from which the same command goes on.
            if solved.as_ref().is_err_and(|error| !matches!(error, SolverError::Kept(_))) {
                drop(crate::stages::train::forget_checkpoint(&options.out));
            }
            let solved = solved?;
            (with_key_maps(solved.model, &solved.statistics)?, solved.reports)
        }
    };
    let (mut training_report, mut tuning_report) = (None, None);
    if let Some(training) = training {
        let tuning = Tuning {
            original: &model,
            masks: HeldMasks::of(&model, &sparsity)?,
            samples: &training.samples,
            settings: training.settings,
            held_out: &training.held_out,
            // The directory it lies in belongs to this run alone.
            fingerprint: String::new(),
            out: &train::checkpoint::path_beside(&options.out).join("training"),
        };
        let tuned = tuning.run(quantized, device, progress)?;
        if let Some(path) = options.qat.as_ref().and_then(|qat| qat.metrics.as_ref()) {
            crate::stages::train::write_log(path, &tuned.log)?;
        }
        let statistics = collect(&tuned.model, sequences, device, progress)?;
        quantized = with_key_maps(tuned.model, &statistics)?;
        tuning_report = tuned.judged;
        training_report = Some(tuned.training);
    }
    mark_sparse(&mut quantized, &sparsity);
    mark_wide(&mut quantized, &widths);
    for (id, pattern) in &sparsity {
        let of_it = matrices.iter_mut().find(|matrix| matrix.name == id.to_string());
        of_it.into_iter().for_each(|matrix| matrix.sparsity = Some(pattern.to_string()));
    }
    let allocation = match (found, &plan) {
        (Some(found), Some(plan)) => {
            let pinned = |id| policy::names_width(&model.spec, &options.activations, id);
            Some(found.complete(plan, &pinned, &mut quantized, options.layout, progress)?)
        }
        _ => None,
    };
    for (id, width) in quantized.activations() {
        let of_it = matrices.iter_mut().find(|matrix| matrix.name == id.to_string());
        of_it.into_iter().for_each(|matrix| matrix.activations = Some(width_name(width).to_owned()));
    }
    let report = QuantizeReport {
        scheme: options.mix.name(),
        keep: options.keeps.iter().map(ToString::to_string).collect(),
        activations: activations.iter().map(ToString::to_string).collect(),
        input_width,
        method: if options.qat.is_some() { "qat" } else { options.method.name() },
        target: options.target.clone(),
        calibration: calibration.description.clone(),
        calibration_tokens: calibration.tokens() as u64,
        calibration_sequences: calibration.sequences.len() as u64,
        size: WeightSize::of(&model.spec, &tensors),
        allocation,
        training: training_report,
        tuning: tuning_report,
        equalized,
        matrices,
    };
    slmc_quantized::Directory(&options.out).write(&quantized, &provenance(options, &report, &sparsity)?)?;
    if kept.is_some() {
        crate::stages::train::forget_checkpoint(&options.out)?;
    }
    Ok(report)
}

/// Measures the whole frontier of a directory's mixes and draws it; no model is written.
///
/// # Errors
/// As [`quantize_directory`].
pub fn sweep_directory(
    options: &Options,
    chart: &Path,
    device: &Device,
    progress: &dyn Progress,
) -> Result<SweepReport, QuantizeError> {
    atomic::check_file(chart, CHART_MAGIC)?;
    let input = formats::open(&options.model)?;
    let model = input.model()?;
    if model.is_quantized() {
        return Err(QuantizeError::AlreadyQuantized { path: options.model.clone() });
    }
    let sparsity = input.recorded_sparsity()?;
    let items = Items::of(&model.spec, &options.keeps, &sparsity, options.layout).map_err(AllocationError::from)?;
    model.check_sparsity(&sparsity)?;
    let calibration = calibration::calibration(&model, &options.source, options.calibration_tokens, progress)?;
    let sequences = &calibration.sequences;
    let statistics = collect(&model, sequences, device, progress)?;
    let database = database(&model, &items.items, &sparsity, options.method, sequences, device, progress)?;
    let sweep = Sweep {
        items: &items,
        database: &database,
        sparsity: &sparsity,
        source: &options.source,
        calibration: &calibration,
        statistics: &statistics,
        seed: options.seed,
        target: (&options.target, options.layout),
        device,
    };
    let report = sweep.run(&model, options.method.name(), progress)?;
    atomic::write_file(chart, CHART_MAGIC, |file| file.write_all(report.chart().svg().as_bytes()))?;
    Ok(report)
}

/// What decides the integers of a run.
fn run_identity(options: &Options, device: &Device) -> Result<serde_json::Value, HashError> {
    Ok(json!({
        "tool": tool(),
        "stage": "quantize",
        "method": options.method.name(),
        "inputs": inputs(options)?,
        "scheme": format!("{:?}", options.mix),
        "keep": options.keeps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "equalize": options.equalize,
        "activations": options.activations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "target": [options.target.as_str(), options.layout.name()],
        "seed": options.seed,
        "calibration": format!("{:?}", options.source),
        "calibration_tokens": options.calibration_tokens,
        "tune": options.tune,
        "qat": options.qat.as_ref().map(|qat| qat.identity(device)),
        "device": format!("{device:?}"),
        "cpu_features": cpu_features(),
    }))
}

/// Says before the work which linears have more columns than there are calibration tokens: their Gram matrices are
/// singular, and only damping decides what the tokens do not.
fn warn_of_few_tokens(model: &Model, tokens: usize, progress: &dyn Progress) {
    let linears = model.spec.matrices().into_iter().filter(|(id, ..)| model.spec.multiplies(*id));
    let wide: Vec<_> = linears.filter(|(_, _, columns)| *columns > tokens).collect();
    if let Some((id, _, columns)) = wide.first() {
        progress.warn(&format_args!(
            "{} linears have more inputs than the calibration has tokens, such as `{id}` with {columns} inputs against \
             {tokens} tokens; what was not seen is decided by damping: pass a longer --calibration text",
            wide.len()
        ));
    }
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
            "activations": report.activations,
            "method": report.method,
            "equalize": options.equalize,
            "target": report.target,
            "budget_bytes": report.allocation.as_ref().map(|allocation| allocation.budget_bytes),
            "calibration": report.calibration,
            "calibration_tokens": report.calibration_tokens,
            "tune": options.tune,
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
    let mut inputs = vec![json!({"role": "model", "sha256": hex(&formats::sha256(&options.model)?)})];
    if let Source::File { path, .. } | Source::Mixed { path, .. } = &options.source {
        inputs.push(json!({"role": "calibration", "sha256": hex(&file_sha256(path)?)}));
    }
    for file in options.qat.iter().flat_map(|qat| &qat.data).flat_map(|data| &data.files) {
        inputs.push(json!({"role": "data", "sha256": hex(&file_sha256(file)?)}));
    }
    Ok(inputs)
}

/// Bytes of memory that quantizing takes at most, by rule of thumb: the integers, and by method what stands beside them.
/// Checkpoints are mapped, and what is mapped can be given back. `tune` is that of [`Options`], `qat` says that there is training.
///
/// # Errors
/// Those of opening the directory.
pub fn memory_estimate(
    path: &Path,
    method: Method,
    calibration_tokens: usize,
    tune: Option<usize>,
    qat: bool,
) -> Result<u64, ModelFormatError> {
    let spec = formats::open_outline(path)?.spec;
    let of_matrices =
        |f: fn(usize, usize) -> usize| spec.matrices().iter().map(|(_, rows, columns)| f(*rows, *columns) as u64).max();
    let largest = of_matrices(|rows, columns| rows * columns).unwrap_or(0);
    let parameters = spec.parameter_count();
    let integers = parameters + parameters / 32 + 10 * largest + (64 << 20);
    let tuned = method == Method::Gptq && tune.unwrap_or_else(|| default_tuning(&spec)) > 0;
    let trained = if tuned || qat { memory_of_training(&spec) } else { 0 };
    Ok(trained.max(match method {
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
    }))
}

/// Of training on the grid: values, both moments, the gradients of every piece, teacher and student; and a step's activations
/// as the gradient graph keeps them.
fn memory_of_training(spec: &ModelSpec) -> u64 {
    let of_layer = |layer: &LayerSpec| {
        let scores = layer.attention().map_or(0, |attention| 4 * attention.heads * 256);
        12 * spec.hidden + 4 * layer.ffn.width + scores
    };
    let of_token: usize = 10 * spec.output_width() + spec.layers.iter().map(of_layer).sum::<usize>();
    96 * spec.parameter_count() + 2048 * 4 * of_token as u64
}
