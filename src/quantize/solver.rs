//! GPTQ over a whole model: every group of matrices that share an input is rounded with the second moments of what the
//! model as rounded so far feeds it, towards what the original does there (see [`crate::calibrate::layerwise`]), so that
//! later matrices make up for errors of earlier ones. A matrix that cannot be solved, or that plain rounding serves
//! better, is rounded plainly and its report says so.

use super::gptq::{self, Hessian};
use super::kept::Kept;
use super::{MatrixReport, search};
use crate::calibrate::layerwise::{Change, Changed, Layerwise};
use crate::calibrate::linear_algebra::corrected;
use crate::calibrate::moments::Moments;
use crate::calibrate::{CalibrateError, Statistics};
use crate::model::id::{LinearId, ParameterId};
use crate::model::matrix::{from_rows, row_major};
use crate::model::quantized::QuantizedMatrix;
use crate::model::size::{Assignment, scheme_of};
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use crate::train::checkpoint::CheckpointError;
use burn::tensor::Device;
use std::collections::BTreeMap;

/// Why a model was not solved.
#[derive(Debug, thiserror::Error)]
pub enum SolverError {
    /// Of the calibration run.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Of the weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of what an interrupted run has left.
    #[error(transparent)]
    Kept(#[from] CheckpointError),
}

/// What was done to a model.
pub struct Solved {
    /// Every matrix rounded; no key maps yet.
    pub model: Model,
    /// Every matrix, in forward order.
    pub reports: BTreeMap<LinearId, MatrixReport>,
    /// What the activations of the rounded model look like.
    pub statistics: Statistics,
}

/// Rounds every matrix of a dense model by its scheme. Zeros of the matrices in `sparsity` stay zero. What is done is put
/// into `kept`, and what is there already is taken from it.
///
/// # Errors
/// [`SolverError`].
pub fn solve(
    model: &Model,
    assignment: &Assignment,
    sparsity: &Sparsity,
    sequences: &[Vec<u32>],
    kept: Option<&Kept>,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Solved, SolverError> {
    let shapes = model.spec.matrices().into_iter().map(|(id, rows, columns)| (id, (rows, columns))).collect();
    let done = BTreeMap::new();
    let mut solver = Solver { model, assignment, sparsity, shapes, kept, groups: 0, progress, done };
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
    assignment: &'a Assignment,
    sparsity: &'a Sparsity,
    /// (rows, columns)
    shapes: BTreeMap<LinearId, (usize, usize)>,
    kept: Option<&'a Kept>,
    /// Groups that are done.
    groups: u64,
    progress: &'a dyn Progress,
    done: BTreeMap<LinearId, (QuantizedMatrix, MatrixReport)>,
}

impl Change for Solver<'_> {
    type Error = SolverError;

    fn kept(&mut self, ids: &[LinearId]) -> Result<Option<Changed>, SolverError> {
        let Some(kept) = self.kept else { return Ok(None) };
        let Some(done) = kept.load(ids, &self.shapes)? else { return Ok(None) };
        let mut changed = Changed::new();
        for (id, matrix, report) in done {
            changed.push((id, from_rows(matrix.dequantize(), matrix.columns)));
            self.done.insert(id, (matrix, report));
        }
        self.groups += 1;
        Ok(Some(changed))
    }

    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, SolverError> {
        self.groups += 1;
        let hessian = moments.as_ref().map(Hessian::new);
        let mut changed = Changed::new();
        for &id in ids {
            let whole = self.model.matrix(id)?;
            let scheme = scheme_of(self.assignment, id).map_err(ModelError::from)?;
            let ((rows, columns), weights) = (whole.dim(), row_major(whole.view()));
            let held: Option<Vec<bool>> =
                self.sparsity.contains_key(&id).then(|| weights.iter().map(|weight| *weight == 0.0).collect());
            let (matrix, report) = match (&hessian, &moments) {
                (Some(Ok(hessian)), Some(moments)) => {
                    let target = match &moments.cross {
                        Some(cross) => corrected(whole.view(), moments.gram.view(), cross.view()).ok(),
                        None => None,
                    };
                    let target = target.as_ref().map_or(weights, |target| row_major(target.view()));
                    let rounded = gptq::quantize_matrix(target, rows, scheme, hessian, held.as_deref());
                    let report = MatrixReport::solved(id, weights, hessian, &rounded);
                    (rounded.matrix, report)
                }
                (factor, moments) => {
                    let importance = moments.as_ref().map(Moments::mean_square);
                    let importance = importance.as_deref();
                    let matrix = search::quantize_matrix(weights, rows, columns, scheme, importance);
                    let mut report = MatrixReport::new(id, weights, &matrix, importance);
                    if let Some(Err(reason)) = factor {
                        report.fallback = Some(format!("rounded plainly: {reason}"));
                    }
                    (matrix, report)
                }
            };
            changed.push((id, from_rows(matrix.dequantize(), matrix.columns)));
            self.done.insert(id, (matrix, report));
        }
        if let Some(kept) = self.kept {
            let done = ids.iter().filter_map(|id| self.done.get(id).map(|(matrix, report)| (*id, matrix, report)));
            kept.save(&done.collect::<Vec<_>>())?;
            self.progress.saved(self.groups);
        }
        Ok(changed)
    }
}
