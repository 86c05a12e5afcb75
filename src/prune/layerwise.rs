//! Layer-by-layer pruning with correlated inputs: every matrix is masked and refitted with the second moments of its
//! inputs in the model as pruned so far, towards the original's outputs, so that later matrices compensate for the
//! errors of earlier ones.

use super::{MatrixReport, Method, PruneError, in_four_bits, refit, scores, sparsegpt};
use crate::calibrate::CalibrateError;
use crate::calibrate::layerwise::{Change, Changed, Layerwise};
use crate::calibrate::linear_algebra::{Factored, corrected, inverse_factor};
use crate::calibrate::moments::Moments;
use crate::model::id::{LinearId, ParameterId};
use crate::model::matrix::{into_values, row_major};
use crate::model::transform::{Mask, NmPattern};
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::Device;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Options and inputs of a pass.
pub struct Pass<'a> {
    /// The linears to prune.
    pub selected: &'a [LinearId],
    /// The pattern.
    pub pattern: NmPattern,
    /// The method that finds the masks.
    pub method: Method,
    /// Whether the remaining weights are refitted.
    pub refit: bool,
    /// A linear stays dense where pruning it would give a larger relative output error.
    pub most_missed: Option<f64>,
    /// Calibration, each sequence run on its own.
    pub sequences: &'a [Vec<u32>],
    /// The device.
    pub device: &'a Device,
}

/// Prunes the selected linears of a dense model.
///
/// # Errors
/// Columns that the pattern does not divide; weights that cannot be read; a calibration run that fails.
pub fn prune(model: Model, pass: &Pass<'_>, progress: &dyn Progress) -> Result<(Model, Vec<MatrixReport>), PruneError> {
    let shapes = super::check(&model.spec, pass.selected, pass.pattern)?;
    let shapes = shapes.into_iter().map(|(id, rows, columns)| (id, (rows, columns))).collect();
    let mut pruner = Pruner { model: &model, pass, shapes, done: BTreeMap::new() };
    let (sequences, device) = (pass.sequences, pass.device);
    let layers = Layerwise { model: &model, sequences, device, with_original: pass.refit, with_lookups: false };
    layers.run(&mut pruner, progress, "pruning")?;
    let (mut values, mut reports) = (BTreeMap::new(), Vec::new());
    for (id, (weights, report)) in pruner.done {
        values.insert(ParameterId::weight(id), into_values(weights));
        reports.push(report);
    }
    Ok((model.with_values(values)?, reports))
}

struct Pruner<'a> {
    model: &'a Model,
    pass: &'a Pass<'a>,
    /// (rows, columns)
    shapes: BTreeMap<LinearId, (usize, usize)>,
    done: BTreeMap<LinearId, (Array2<f32>, MatrixReport)>,
}

impl Change for Pruner<'_> {
    type Error = PruneError;

    fn kept(&mut self, ids: &[LinearId]) -> Result<Option<Changed>, PruneError> {
        // Matrices that stay dense need no moments.
        Ok(ids.iter().all(|id| !self.shapes.contains_key(id)).then(Changed::new))
    }

    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, PruneError> {
        // Tables have no inputs, and are never selected.
        let Some(moments) = moments else { return Ok(Changed::new()) };
        let mut changed = Changed::new();
        for &id in ids.iter().filter(|id| self.shapes.contains_key(id)) {
            let weights = self.model.matrix(id)?;
            let (mut pruned, mut report) = self.prune_matrix(id, weights.view(), &moments)?;
            let missed = report.output_error.unwrap_or(0.0);
            if self.pass.most_missed.is_some_and(|most| missed > most) {
                let dense_error = report.dense_error;
                report = MatrixReport::new(id, weights.view(), weights.view(), None);
                (report.output_error, report.dense_error) = (Some(missed), dense_error);
                report.left_dense = true;
                pruned = weights;
            }
            changed.push((id, pruned.clone()));
            self.done.insert(id, (pruned, report));
        }
        Ok(changed)
    }
}

impl Pruner<'_> {
    fn prune_matrix(
        &self,
        id: LinearId,
        weights: ArrayView2<'_, f32>,
        moments: &Moments,
    ) -> Result<(Array2<f32>, MatrixReport), PruneError> {
        let &Pass { pattern, method, .. } = self.pass;
        let gram = moments.gram.view();
        let mean_square = moments.mean_square();
        let mut fallback = None;
        // The weights that give the original's outputs on the pruned model's inputs.
        let target = match &moments.difference {
            Some(difference) => corrected(weights, gram, difference.view()),
            None => Ok(weights.to_owned()),
        };
        let target = target.unwrap_or_else(|reason| {
            fallback = Some(format!("aimed at its own weights: {reason}"));
            weights.to_owned()
        });
        let by_score = |importance: Option<&[f64]>| -> Result<(Array2<bool>, Array2<f32>), PruneError> {
            let mask = Mask::of_largest(id, pattern, scores(target.view(), importance).view())?;
            let mut pruned = target.clone();
            mask.apply(&mut pruned)?;
            Ok((mask.keep().to_owned(), pruned))
        };
        let order: Vec<usize> = (0..moments.columns()).collect();
        let (keep, mut pruned) = match method {
            Method::Magnitude => by_score(None)?,
            Method::Wanda => by_score(Some(&mean_square))?,
            Method::SparseGpt => match inverse_factor(gram, &order) {
                Ok(factor) => {
                    let pruned = sparsegpt::prune(target.view(), pattern, factor.upper.view());
                    (pruned.keep, pruned.weights)
                }
                Err(reason) => {
                    fallback = Some(format!("masked by wanda: {reason}"));
                    by_score(Some(&mean_square))?
                }
            },
        };
        if self.pass.refit {
            match Factored::new(gram) {
                Ok(factored) => {
                    let (refitted, failed) =
                        refit::refit(pruned.view(), target.view(), keep.view(), gram, factored.added);
                    pruned = refitted;
                    if failed > 0 {
                        fallback = Some(format!("{failed} rows not refitted: their systems are singular"));
                    }
                }
                Err(reason) => fallback = Some(format!("not refitted: {reason}")),
            }
        }
        let mut report = MatrixReport::new(id, weights, pruned.view(), Some(&mean_square));
        report.output_error = Some(output_error(target.view(), pruned.view(), gram));
        let rounded = in_four_bits(target.view(), Some(&mean_square));
        report.dense_error = output_error(target.view(), rounded.view(), gram);
        report.fallback = fallback;
        Ok((pruned, report))
    }
}

impl From<CalibrateError> for PruneError {
    fn from(error: CalibrateError) -> Self {
        PruneError::Calibrate(error)
    }
}

/// Relative output error tr(E G Eᵀ) / tr(T G Tᵀ), E = T − Ŵ.
pub(super) fn output_error(target: ArrayView2<'_, f32>, pruned: ArrayView2<'_, f32>, gram: ArrayView2<'_, f64>) -> f64 {
    let (columns, gram) = (target.ncols(), row_major(gram));
    let energies: Vec<(f64, f64)> = row_major(target)
        .par_chunks_exact(columns)
        .zip(row_major(pruned).par_chunks_exact(columns))
        .map(|(target, pruned)| {
            let (mut miss, mut size) = (0.0, 0.0);
            for (i, of_row) in gram.chunks_exact(columns).enumerate() {
                let (mut with_miss, mut with_target) = (0.0, 0.0);
                for ((h, t), p) in of_row.iter().zip(target).zip(pruned) {
                    with_miss += h * f64::from(t - p);
                    with_target += h * f64::from(*t);
                }
                miss += f64::from(target[i] - pruned[i]) * with_miss;
                size += f64::from(target[i]) * with_target;
            }
            (miss, size)
        })
        .collect();
    // Summed in order, so that the result does not depend on threads.
    let (miss, size) = energies.iter().fold((0.0, 0.0), |(a, b), (miss, size)| (a + miss, b + size));
    if size > 0.0 { miss / size } else { 0.0 }
}
