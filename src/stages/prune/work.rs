//! The work of `slmc prune`: a dense directory in, a dense directory with zeros out, and a report of the zeros of every
//! matrix. The result is a plain Hugging Face directory; only its slmc.json says which matrices are sparse.

use super::report::PruneReport;
use crate::calibrate::collect;
use crate::disk::atomic;
use crate::disk::hash::HashError;
use crate::formats::{self, ModelSink, hugging_face};
use crate::machine::tool;
use crate::model::id::LinearId;
use crate::model::spec::ModelSpec;
use crate::model::transform::{HeldMasks, NmPattern, Sparsity};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::prune::layerwise::{self, Pass};
use crate::prune::moving::MovingMasks;
use crate::prune::order::{Ordered, order_channels};
use crate::prune::{MatrixReport, Method, check, prune, select};
use crate::quantize::calibration::{CALIBRATION_TOKENS, Calibration, CalibrationText, calibration};
use crate::quantize::training_data::{Retrain, training_samples};
use crate::stages::StageError;
use crate::stages::backend::by_workers;
use crate::stages::invocation::Invocation;
use crate::stages::numerics::class_of;
use crate::stages::provenance::{Inputs, of_weights};
use crate::stages::resume::Resume;
use crate::train::report::{TrainReport, write_log};
use crate::train::retrain::{Retraining, values_of};
use crate::train::samples::ReadSamples;
use crate::workers::TrainingDevices;
use burn::tensor::Device;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Options of `slmc prune`, checked.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Dense directory.
    pub model: PathBuf,
    /// Directory to write.
    pub out: PathBuf,
    /// N:M pattern.
    pub pattern: NmPattern,
    /// Score of the weights.
    pub method: Method,
    /// Whether the remaining weights are refitted.
    pub refit: bool,
    /// Whether channels of feed-forward networks may change places.
    pub reorder: bool,
    /// Leave a linear dense where more than this share of its output's energy would be missed; layer by layer only.
    pub most_missed: Option<f64>,
    /// Which linears: globs, ffn, attention, all.
    pub only: Vec<String>,
    /// Calibration text; magnitude needs none, and with one reports importance as well.
    pub source: Option<CalibrationText>,
    /// Training of the remaining weights, where asked for.
    pub recover: Option<Retrain>,
    /// Share of the training in which masks move.
    pub masks_move: f64,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Prunes a directory. Everything that can be refused without work is refused first.
///
/// # Errors
/// [`StageError`].
pub fn prune_directory(
    options: &PruneOptions,
    devices: &TrainingDevices,
    progress: &dyn Progress,
) -> Result<PruneReport, StageError> {
    atomic::check_directory(&options.out)?;
    let mut work = Work::open(options)?;
    let of_run = |retrain: &Retrain| -> Result<Resume, StageError> {
        Ok(Resume::of(&options.out, &identity(options, retrain, devices)?))
    };
    if let Some(retrain) = options.recover.as_ref().filter(|_| Resume::is_left(&options.out)) {
        // The state of another run is refused now, not after the work that comes before it is read.
        of_run(retrain)?.check()?;
    }
    // Data that cannot be read is refused before the long work, too.
    let recovery = match &options.recover {
        None => None,
        Some(retrain) => {
            let samples = training_samples(&work.model, retrain, progress)?;
            Some(Recovery { retrain, samples, resume: of_run(retrain)? })
        }
    };
    work.calibrate(progress)?;
    let mut pruned = work.prune(&devices.device, progress)?;
    let training = match &recovery {
        None => None,
        Some(recovery) => Some(work.recover(recovery, &mut pruned, devices, progress)?),
    };
    let report = work.report(&pruned, training);
    hugging_face::Directory(&options.out)
        .write(&pruned.model, &provenance(options, &report, &pruned.sparsity, devices)?)?;
    if let Some(recovery) = recovery {
        recovery.resume.finished()?;
    }
    Ok(report)
}

/// What trains a pruned model back.
struct Recovery<'o> {
    retrain: &'o Retrain,
    samples: ReadSamples,
    resume: Resume,
}

/// The model to prune, and everything that decides how.
struct Work<'o> {
    options: &'o PruneOptions,
    /// The model as it came.
    model: Model,
    /// Patterns of the matrices that are not pruned.
    sparsity: Sparsity,
    selected: Vec<LinearId>,
    /// Selected linears with their (rows, columns).
    shapes: Vec<(LinearId, usize, usize)>,
    calibration: Option<Calibration>,
}

/// The model with its zeros.
struct Pruned {
    model: Model,
    /// The model before, its channels in their new order.
    ordered: Model,
    /// What that order did.
    orders: Vec<Ordered>,
    sparsity: Sparsity,
    matrices: Vec<MatrixReport>,
}

impl Pruned {
    /// Whether a linear was selected and stayed dense.
    fn left_dense(&self, id: LinearId) -> bool {
        !self.sparsity.contains_key(&id)
    }
}

impl<'o> Work<'o> {
    /// Opens the model and selects.
    fn open(options: &'o PruneOptions) -> Result<Self, StageError> {
        let path = &options.model;
        let input = formats::open(path)?;
        let outline = input.outline();
        if outline.schemes.is_some() {
            return Err(StageError::PruneQuantized { path: path.clone() });
        }
        let selected = select(&outline.spec, &options.only)?;
        let shapes = check(&outline.spec, &selected, options.pattern)?;
        let mut sparsity = input.recorded_sparsity()?;
        sparsity.retain(|id, _| !selected.contains(id));
        let model = input.model()?;
        // Sparsity that slmc.json records for other matrices is recorded again.
        model.check_sparsity(&sparsity)?;
        Ok(Work { options, model, sparsity, selected, shapes, calibration: None })
    }

    /// Reads or samples the calibration text, where there is to be one.
    fn calibrate(&mut self, progress: &dyn Progress) -> Result<(), StageError> {
        if let Some(source) = &self.options.source {
            self.calibration = Some(calibration(&self.model, source, CALIBRATION_TOKENS, progress)?);
        }
        Ok(())
    }

    /// Sets weights to zero, layer by layer where the others compensate.
    fn prune(&self, device: &Device, progress: &dyn Progress) -> Result<Pruned, StageError> {
        let PruneOptions { pattern, method, refit, reorder, most_missed, .. } = *self.options;
        let selected = &self.selected[..];
        let layer_by_layer = refit || method == Method::SparseGpt;
        let statistics = match &self.calibration {
            Some(calibration) if reorder || !layer_by_layer => {
                Some(collect(&self.model, &calibration.sequences, device, progress)?)
            }
            _ => None,
        };
        let (ordered, orders) = match reorder {
            true => order_channels(self.model.clone(), selected, pattern, statistics.as_ref())?,
            false => (self.model.clone(), Vec::new()),
        };
        let model = ordered.clone();
        let (model, matrices) = match &self.calibration {
            Some(calibration) if layer_by_layer => {
                let sequences = &calibration.sequences[..];
                let pass = Pass { selected, pattern, method, refit, most_missed, sequences, device };
                layerwise::prune(model, &pass, progress)?
            }
            calibration => {
                // The inputs of what was reordered stand in another order.
                let statistics = match calibration {
                    Some(calibration) if !orders.is_empty() => {
                        Some(collect(&model, &calibration.sequences, device, progress)?)
                    }
                    _ => statistics,
                };
                prune(model, selected, pattern, method, statistics.as_ref(), progress)?
            }
        };
        let left: BTreeSet<LinearId> =
            matrices.iter().filter(|matrix| matrix.left_dense).map(|matrix| matrix.id).collect();
        let mut sparsity = self.sparsity.clone();
        let taken = selected.iter().filter(|id| !left.contains(id));
        sparsity.extend(taken.map(|id| (*id, pattern)));
        Ok(Pruned { model, ordered, orders, sparsity, matrices })
    }

    /// Trains the remaining weights, the model before pruning being the teacher; masks of every sparse matrix are held.
    fn recover(
        &self,
        recovery: &Recovery<'_>,
        pruned: &mut Pruned,
        devices: &TrainingDevices,
        progress: &dyn Progress,
    ) -> Result<TrainReport, StageError> {
        let (options, device) = (self.options, &devices.device);
        let Recovery { retrain, samples, resume } = recovery;
        let masks = HeldMasks::of(&pruned.model, &pruned.sparsity)?;
        let moving =
            (options.masks_move > 0.0).then(|| self.moving(pruned, masks.clone(), device, progress)).transpose()?;
        let retraining = Retraining {
            model: &self.model,
            // Masks that move choose among all weights; where they stand, the others go on from what was fitted to them.
            start: values_of(if moving.is_some() { &pruned.ordered } else { &pruned.model })?,
            samples: &samples.samples,
            settings: &retrain.settings,
            fingerprint: resume.fingerprint(),
            out: &options.out,
        };
        let (mut trained, mut report) = match &moving {
            Some(moving) => retraining.run(moving, devices, progress)?,
            None => retraining.run(&masks, devices, progress)?,
        };
        report.files_read = samples.files.clone();
        match moving {
            Some(moving) => moving.clear_all(&mut trained.parameters),
            None => masks.clear_all(&mut trained.parameters),
        }
        if let Some(path) = &retrain.metrics {
            write_log(path, &trained.log)?;
        }
        pruned.model = pruned.model.clone().with_values(trained.parameters)?;
        Ok(report)
    }

    /// The pruned matrices' masks, free to move; those of other sparse matrices are held.
    fn moving(
        &self,
        pruned: &Pruned,
        mut masks: HeldMasks,
        device: &Device,
        progress: &dyn Progress,
    ) -> Result<MovingMasks, StageError> {
        let options = self.options;
        let statistics = match &self.calibration {
            Some(calibration) => Some(collect(&pruned.ordered, &calibration.sequences, device, progress)?),
            None => None,
        };
        let mut moving = BTreeMap::new();
        for (id, _, columns) in self.shapes.iter().filter(|(id, ..)| !pruned.left_dense(*id)) {
            let of = statistics.as_ref().and_then(|statistics| statistics.linears.get(id));
            let roots =
                of.map_or_else(|| vec![1.0; *columns], |of| of.mean_square.iter().map(|h| h.sqrt() as f32).collect());
            moving.insert(*id, (options.pattern, roots));
            masks.0.remove(id);
        }
        Ok(MovingMasks::new(moving, masks, options.masks_move))
    }

    fn report(&self, pruned: &Pruned, training: Option<TrainReport>) -> PruneReport {
        let (options, calibration, matrices) = (self.options, self.calibration.as_ref(), &pruned.matrices);
        let sparse = self.shapes.iter().filter(|(id, ..)| !pruned.left_dense(*id));
        PruneReport {
            pattern: options.pattern.to_string(),
            method: options.method.name(),
            refit: options.refit,
            orders: pruned.orders.clone(),
            only: options.only.clone(),
            compressed_in_artifacts: options.pattern.is_two_of_four(),
            calibration: calibration.map(|calibration| calibration.description.clone()),
            calibration_tokens: calibration.map(|calibration| calibration.tokens() as u64),
            weights: sparse.map(|(_, rows, columns)| (rows * columns) as u64).sum(),
            left_dense: matrices.iter().filter(|matrix| matrix.left_dense).count() as u64,
            zeros_before: matrices.iter().map(|matrix| matrix.zeros_before).sum(),
            zeros_after: matrices.iter().map(|matrix| matrix.zeros_after).sum(),
            files_read: calibration.map(|calibration| calibration.files_read.clone()).unwrap_or_default(),
            training,
            matrices: matrices.clone(),
        }
    }
}

/// Everything that decides the values of a recovery.
fn identity(options: &PruneOptions, retrain: &Retrain, devices: &TrainingDevices) -> Result<Value, HashError> {
    Ok(json!({
        "tool": tool(),
        "stage": "recover",
        "inputs": inputs(options)?.json(),
        "pattern": options.pattern.to_string(),
        "method": options.method.name(),
        "refit": options.refit,
        "reorder": options.reorder,
        "most_missed": options.most_missed,
        "only": options.only,
        "masks_move": options.masks_move,
        "training": retrain.identity(devices.kind()),
        "numerics": class_of(&devices.device, by_workers(devices)),
    }))
}

/// Everything read.
fn inputs(options: &PruneOptions) -> Result<Inputs, HashError> {
    let inputs = Inputs::default().made("model", &options.model)?;
    let calibration = match &options.source {
        Some(CalibrationText::File { path, .. }) => Some(path),
        _ => None,
    };
    let data = options.recover.iter().flat_map(|retrain| &retrain.data).flat_map(|data| &data.files);
    inputs.files("calibration", calibration)?.files("data", data)
}

fn provenance(
    options: &PruneOptions,
    report: &PruneReport,
    sparsity: &Sparsity,
    devices: &TrainingDevices,
) -> Result<Value, HashError> {
    let settings = json!({
        "pattern": report.pattern,
        "method": report.method,
        "refit": report.refit,
        "reorder": options.reorder,
        "most_missed": options.most_missed,
        "only": report.only,
        "calibration": report.calibration,
        "calibration_tokens": report.calibration_tokens,
        "recover": options.recover.as_ref().map(|retrain| &retrain.settings),
    });
    let training = report.training.as_ref().map(TrainReport::metrics);
    let metrics = json!({"weights": report.weights, "zeros": report.zeros_after, "training": training});
    let class = class_of(&devices.device, by_workers(devices));
    let settings = (settings, &options.invocation);
    Ok(of_weights(("prune", class), &inputs(options)?, settings, sparsity, metrics))
}

/// Bytes of memory that pruning takes at most, by rule of thumb: the f32 model of the calibration, the pruned weights,
/// one matrix of each kind in work.
pub fn memory_estimate(spec: &ModelSpec) -> u64 {
    let largest = spec.matrices().iter().map(|(_, rows, columns)| (rows * columns) as u64).max().unwrap_or(0);
    8 * spec.parameter_count() + 16 * largest + spec.vocabulary as u64 * 256 * 4 + (64 << 20)
}
