//! Training on the grid: the rounded model is trained end to end so that its distribution comes nearest to the
//! original's, in the same number of bytes. Of a matrix, integers move by rounding a trained value straight through
//! (Bengio et al. 2013) and row scales by a factor (EfficientQAT, Chen et al. 2024); multipliers stay. Norms, biases and
//! convolution kernels are trained as they are.
//!
//! ```text
//! integer  q = clamp(round(u · v))     v is trained, u = 8 · rms(q) of the rows of one scheme: one rate suits 4 and 8 bits
//! scale    s = s₀ · (1 + t)            t is trained, one a row, from 0
//! ```
//!
//! It begins at the rounded model, with every integer in the middle of its step, so that without a step nothing changes.
//! The matrix that the forward sees is the one that is written ([`OnGrid::matrix`]).

use super::Scales;
use super::error::RoundingError;
use super::training_data::Follows;
use crate::calibrate::probe::{Probe, ProbeError};
use crate::disk::DenseTensor;
use crate::divergence::mean_and_error;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::matrix::{from_rows, into_values, row_major};
use crate::model::quantized::QuantizedMatrix;
use crate::model::transform::{HeldMasks, Transform};
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use crate::train::data::Samples;
use crate::train::report::TrainReport;
use crate::train::retrain::Retraining;
use crate::train::settings::Settings;
use crate::workers::TrainingDevices;
use ndarray::{Array2, s};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// u over the root mean square of a matrix's integers.
const UNITS: f32 = 8.0;

/// A run.
pub struct Tuning<'t> {
    /// The model before it was rounded: the teacher.
    pub original: &'t Model,
    /// Zeros that stay zero.
    pub masks: HeldMasks,
    /// The samples to train on.
    pub samples: &'t Samples,
    /// Settings of the loop.
    pub settings: Settings,
    /// Which settings follow from the divergence on the held-out texts.
    pub follows: Follows,
    /// Texts that are not trained on, or none: they judge the result.
    pub held_out: &'t [Vec<u32>],
    /// Fingerprint of settings and inputs.
    pub fingerprint: String,
    /// Beside it is the checkpoint.
    pub out: &'t Path,
    /// Row scales that there are.
    pub scales: Scales,
}

/// Divergence from the original, in nats or for embeddings 1 − cosine, at which the rate is that of the settings. Below, it
/// falls with the root of the divergence: the noise that steps of one size put on a model costs as the square of their size.
pub const FAR: f64 = 0.006;

/// The result of a run.
pub struct Tuned {
    /// As trained, or as it was where that is nearer to the original.
    pub model: Model,
    /// One JSON line per step.
    pub log: Vec<String>,
    /// Report of the run.
    pub training: TrainReport,
    /// On the held-out texts, where there are any.
    pub judged: Option<Judged>,
}

/// Divergence from the original on texts that were not trained on, before and after, weights alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Judged {
    /// As rounded.
    pub before: f64,
    /// As trained.
    pub after: f64,
    /// Whether the trained model was taken.
    pub taken: bool,
}

/// Matrices as they were rounded, with the trained values they are seen through.
pub struct OnGrid {
    matrices: BTreeMap<LinearId, Rounded>,
    masks: HeldMasks,
    scales: Scales,
}

/// One matrix as it was rounded.
struct Rounded {
    matrix: QuantizedMatrix,
    /// u by row.
    units: Vec<f32>,
}

impl OnGrid {
    /// The grid of a model's quantized matrices.
    pub fn new(model: &Model, masks: HeldMasks) -> Self {
        OnGrid::with_scales(model, masks, Scales::Any)
    }

    /// Likewise, with the row scales that there are. Those of rows with multipliers are too far apart to be trained, and stay.
    pub fn with_scales(model: &Model, masks: HeldMasks, scales: Scales) -> Self {
        let mut matrices = BTreeMap::new();
        for (id, parameter) in &model.parameters {
            if let (ParameterId::Linear(linear, Part::Weight), Parameter::Quantized(matrix)) = (id, parameter) {
                let mut units = Vec::with_capacity(matrix.rows());
                for (rows, _) in matrix.scheme.parts(matrix.rows()) {
                    let values = matrix.values.slice(s![rows.clone(), ..]);
                    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
                    let rms = (squares / values.len().max(1) as f64).sqrt().max(1.0) as f32;
                    units.extend(rows.map(|_| UNITS * rms));
                }
                matrices.insert(*linear, Rounded { matrix: matrix.clone(), units });
            }
        }
        OnGrid { matrices, masks, scales }
    }

    /// The trained values of a matrix at the start: v of every weight, row-major, then t of every row.
    pub fn start(&self, id: LinearId) -> Option<Vec<f32>> {
        let Rounded { matrix, units } = self.matrices.get(&id)?;
        let rows = row_major(matrix.values.view()).chunks_exact(matrix.columns()).zip(units);
        let values = rows.flat_map(|(row, unit)| row.iter().map(move |value| f32::from(*value) / unit));
        Some(values.chain(std::iter::repeat_n(0.0, matrix.rows())).collect())
    }

    /// The matrix that trained values stand for.
    pub fn matrix(&self, id: LinearId, trained: &[f32]) -> Option<QuantizedMatrix> {
        let Rounded { matrix, units } = self.matrices.get(&id)?;
        let (values, factors) = trained.split_at(matrix.values.len());
        let rows = values.par_chunks_exact(matrix.columns()).zip(units).enumerate();
        let rounded = rows.flat_map_iter(|(row, (values, unit))| {
            let (low, high) = matrix.scheme.limits(row);
            values.iter().map(move |v| (unit * v).round_ties_even().clamp(low, high) as i8)
        });
        let scales = matrix.row_scale.iter().zip(factors).enumerate().map(|(row, (scale, t))| match self.scales {
            Scales::Any => scale * (1.0 + t).max(0.0),
            Scales::Half if has_multipliers(matrix, row) => *scale,
            Scales::Half => Scales::Half.nearest(scale * (1.0 + t).max(0.0), false),
        });
        let values = from_rows(rounded.collect(), matrix.columns());
        Some(QuantizedMatrix { values, row_scale: scales.collect(), ..matrix.clone() })
    }
}

/// Whether the columns of a row have multipliers beside its scale.
fn has_multipliers(matrix: &QuantizedMatrix, row: usize) -> bool {
    matrix.scheme.of_row(row).def().group.is_some()
}

impl Transform for OnGrid {
    fn changes(&self, id: LinearId) -> bool {
        self.matrices.contains_key(&id)
    }

    fn apply(&self, id: LinearId, trained: &[f32]) -> Vec<f32> {
        self.matrix(id, trained).map_or_else(|| trained.to_vec(), |matrix| into_values(matrix.dequantize()))
    }

    /// ∂/∂v = u · step · g, and 0 where the integer is held or at the end of its range; ∂/∂t = Σ g w / (1 + t).
    fn pull_back(&self, id: LinearId, trained: &[f32], gradient: Vec<f32>) -> Vec<f32> {
        let (Some(rounded), Some(seen)) = (self.matrices.get(&id), self.matrix(id, trained)) else { return gradient };
        let Rounded { matrix, units } = rounded;
        let columns = matrix.columns();
        let (values, factors) = trained.split_at(matrix.values.len());
        let weights = into_values(seen.dequantize());
        let steps = QuantizedMatrix { values: Array2::ones(matrix.values.dim()), ..seen }.dequantize();
        let steps = row_major(steps.view());
        let rows = gradient.par_chunks_exact(columns).zip(weights.par_chunks_exact(columns)).zip(factors);
        let by_factor = rows.map(|((gradient, weights), t)| {
            let along: f32 = gradient.iter().zip(weights).map(|(g, w)| g * w).sum();
            if 1.0 + t > 0.0 { along / (1.0 + t) } else { 0.0 }
        });
        let mut by_factor: Vec<f32> = by_factor.collect();
        if self.scales == Scales::Half {
            let held = by_factor.iter_mut().enumerate().filter(|(row, _)| has_multipliers(matrix, *row));
            held.for_each(|(_, gradient)| *gradient = 0.0);
        }
        let rows = gradient.par_chunks_exact(columns).zip(steps.par_chunks_exact(columns));
        let rows = rows.zip(values.par_chunks_exact(columns)).zip(units).enumerate();
        let by_value = rows.flat_map_iter(|(row, (((gradient, steps), values), unit))| {
            let (low, high) = matrix.scheme.limits(row);
            let within = move |v: f32| unit * v > low - 0.5 && unit * v < high + 0.5;
            let each = gradient.iter().zip(steps).zip(values);
            each.map(move |((g, step), v)| if within(*v) { g * step * unit } else { 0.0 })
        });
        let mut out: Vec<f32> = by_value.collect();
        self.masks.clear(id, &mut out);
        out.extend(by_factor);
        out
    }
}

impl Tuning<'_> {
    /// The rounded model as trained.
    ///
    /// # Errors
    /// The errors of training.
    pub fn run(
        self,
        quantized: Model,
        devices: &TrainingDevices,
        progress: &dyn Progress,
    ) -> Result<Tuned, RoundingError> {
        let Tuning { original, masks, samples, mut settings, follows, held_out, fingerprint, out, scales } = self;
        let probe = (!held_out.is_empty()).then(|| Probe::new(original, held_out, &devices.device)).transpose()?;
        let divergence = |model: &Model| -> Result<Option<f64>, ProbeError> {
            probe.as_ref().map(|probe| Ok(mean_and_error(&probe.model(model)?).0)).transpose()
        };
        let before = divergence(&quantized)?;
        if let Some(before) = before {
            let share = (before / FAR).sqrt().min(1.0);
            if follows.rate {
                settings.learning_rate *= share;
            }
            if follows.tokens {
                settings.tokens = ((settings.tokens as f64 * share) as u64).max(1);
            }
        }
        let grid = OnGrid::with_scales(&quantized, masks, scales);
        let mut start = BTreeMap::new();
        for parameter in quantized.spec.parameters() {
            let of_matrix = match parameter.id {
                ParameterId::Linear(id, Part::Weight) => grid.start(id),
                _ => None,
            };
            let values = of_matrix.map_or_else(|| quantized.values_f32(parameter.id), Ok)?;
            start.insert(parameter.id, values);
        }
        let retraining = Retraining { model: original, start, samples, settings: &settings, fingerprint, out };
        let (trained, training) = retraining.run(&grid, devices, progress)?;
        let mut tuned = quantized.clone();
        for (id, values) in &trained.parameters {
            match (id, tuned.parameters.get_mut(id)) {
                (ParameterId::Linear(linear, Part::Weight), Some(Parameter::Quantized(matrix))) => {
                    if let Some(tuned) = grid.matrix(*linear, values) {
                        *matrix = tuned;
                    }
                }
                (_, Some(Parameter::Dense(dense))) => {
                    *dense = DenseTensor::from_f32(dense.shape().to_vec(), values).map_err(ModelError::from)?;
                }
                _ => {}
            }
        }
        let judged = match (before, divergence(&tuned)?) {
            (Some(before), Some(after)) => Some(Judged { before, after, taken: after < before }),
            _ => None,
        };
        let model = if judged.is_none_or(|judged| judged.taken) { tuned } else { quantized };
        Ok(Tuned { model, log: trained.log, training, judged })
    }
}
