//! GPTQ over a whole model: every group of matrices that share an input is rounded with the second moments of that
//! input in the model as rounded so far, towards the outputs of the original (see [`crate::calibrate::layerwise`]), so that
//! later matrices compensate for errors of earlier ones. A matrix that cannot be solved, or that plain rounding serves
//! better, is rounded plainly and its report says so.

use super::error::RoundingError;
use super::gptq::{self, Hessian};
use super::resume::GptqResume;
use super::{Grids, MatrixReport, search};
use crate::calibrate::Statistics;
use crate::calibrate::layerwise::{Change, Changed, Layerwise};
use crate::calibrate::moments::Moments;
use crate::model::id::{LinearId, ParameterId};
use crate::model::quantized::QuantizedMatrix;
use crate::model::size::scheme_of;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use burn::tensor::Device;
use std::collections::BTreeMap;

/// A model that was solved.
pub struct Solved {
    /// Every matrix rounded; no key maps yet.
    pub model: Model,
    /// Every matrix, in forward order.
    pub reports: BTreeMap<LinearId, MatrixReport>,
    /// Statistics of the rounded model's activations.
    pub statistics: Statistics,
}

/// Rounds every matrix of a dense model by its scheme. Zeros of the matrices in `sparsity` stay zero. Groups that are
/// done are saved in `resume`, and those that it has already are taken from it.
///
/// # Errors
/// [`RoundingError`].
pub fn solve(
    model: &Model,
    grids: Grids<'_>,
    sparsity: &Sparsity,
    sequences: &[Vec<u32>],
    resume: Option<&GptqResume>,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Solved, RoundingError> {
    let shapes = model.spec.matrices().into_iter().map(|(id, rows, columns)| (id, (rows, columns))).collect();
    let done = BTreeMap::new();
    let mut solver = Solver { model, grids, sparsity, shapes, resume, groups: 0, progress, done };
    let pass = Layerwise { model, sequences, device, with_original: true, with_lookups: true };
    let statistics = pass.run(&mut solver, progress, "quantizing")?;
    let mut parameters = model.parameters.clone();
    let mut reports = BTreeMap::new();
    for (id, (matrix, report)) in solver.done {
        parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
        reports.insert(id, report);
    }
    let model = Model {
        spec: model.spec.clone(),
        config: model.config.clone(),
        parameters,
        companions: model.companions.clone(),
        path: model.path.clone(),
    };
    Ok(Solved { model, reports, statistics })
}

struct Solver<'a> {
    model: &'a Model,
    grids: Grids<'a>,
    sparsity: &'a Sparsity,
    /// (rows, columns)
    shapes: BTreeMap<LinearId, (usize, usize)>,
    resume: Option<&'a GptqResume>,
    /// Groups that are done.
    groups: u64,
    progress: &'a dyn Progress,
    done: BTreeMap<LinearId, (QuantizedMatrix, MatrixReport)>,
}

impl Change for Solver<'_> {
    type Error = RoundingError;

    fn kept(&mut self, ids: &[LinearId]) -> Result<Option<Changed>, RoundingError> {
        let Some(resume) = self.resume else { return Ok(None) };
        let Some(done) = resume.load(ids, &self.shapes)? else { return Ok(None) };
        for (id, matrix, _) in &done {
            // A search that ended elsewhere: what was rounded for another scheme is rounded anew.
            if matrix.scheme != scheme_of(self.grids.assignment, *id).map_err(ModelError::from)? {
                return Ok(None);
            }
        }
        let mut changed = Changed::new();
        for (id, matrix, report) in done {
            changed.push((id, matrix.dequantize()));
            self.done.insert(id, (matrix, report));
        }
        self.groups += 1;
        Ok(Some(changed))
    }

    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, RoundingError> {
        self.groups += 1;
        let hessian = moments.as_ref().map(Hessian::new);
        let rows = ids.iter().map(|id| self.shapes[id].0).sum();
        let correction = match (&hessian, moments.as_ref().and_then(|moments| moments.difference.as_ref())) {
            (Some(Ok(hessian)), Some(difference)) => hessian.factor.correction(difference.view(), rows).ok(),
            _ => None,
        };
        let mut changed = Changed::new();
        for &id in ids {
            let whole = self.model.matrix(id)?;
            let scheme = scheme_of(self.grids.assignment, id).map_err(ModelError::from)?;
            let weights = whole.view();
            let held = self.sparsity.contains_key(&id).then(|| weights.mapv(|weight| weight == 0.0));
            let held = held.as_ref().map(|held| held.view());
            let (matrix, report) = match &hessian {
                Some(Ok(hessian)) => {
                    let target = correction.as_ref().map(|correction| correction.apply(weights));
                    let target = target.as_ref().map_or(weights, |target| target.view());
                    let rounded = gptq::quantize_matrix(target, (scheme, self.grids.scales), hessian, held);
                    let report = MatrixReport::solved(id, weights, hessian, &rounded);
                    (rounded.matrix, report)
                }
                factor => {
                    let importance = moments.as_ref().map(Moments::mean_square);
                    let importance = importance.as_deref();
                    let matrix = search::quantize_matrix_on(weights, (scheme, self.grids.scales), importance);
                    let mut report = MatrixReport::new(id, weights, &matrix, importance);
                    if let Some(Err(reason)) = factor {
                        report.fallback = Some(format!("rounded plainly: {reason}"));
                    }
                    (matrix, report)
                }
            };
            changed.push((id, matrix.dequantize()));
            self.done.insert(id, (matrix, report));
        }
        if let Some(resume) = self.resume {
            let done = ids.iter().filter_map(|id| self.done.get(id).map(|(matrix, report)| (*id, matrix, report)));
            resume.save(&done.collect::<Vec<_>>())?;
            self.progress.saved(self.groups);
        }
        Ok(changed)
    }
}
