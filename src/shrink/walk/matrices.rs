//! Matrices fitted by least squares: those that others read, and those that write into the residual stream.

use super::{At, GroupFit};
use crate::calibrate::batches::with_values;
use crate::model::forward::Halted;
use crate::model::graph::Input;
use crate::model::id::{LinearId, ParameterId};
use crate::model::matrix::{from_rows, into_values, row_major};
use crate::model::spec::NormPlacement;
use crate::shrink::ShrinkError;
use crate::shrink::least_squares::Residuals;
use burn::tensor::Tensor;
use ndarray::Array2;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// Relative squared errors that are the rounding of f32 and no error.
const ROUNDING: f64 = 1e-10;

impl At<'_, '_> {
    /// Matrices that share an input and do not write into the stream.
    pub(in crate::shrink) fn readers(
        &mut self,
        ids: &[LinearId],
        teacher: &[Tensor<3>],
        student: &[Tensor<3>],
    ) -> Result<(), ShrinkError> {
        if !self.of.refit || ids.is_empty() {
            return Ok(());
        }
        let targets: Vec<(Array2<f32>, Option<Vec<f32>>)> =
            ids.iter().map(|id| self.of.teachers(*id)).collect::<Result<_, _>>()?;
        let rows: Vec<usize> = targets.iter().map(|(matrix, _)| matrix.nrows()).collect();
        let (all, columns) = (rows.iter().sum::<usize>(), student.first().map_or(0, |input| input.dims()[2]));
        let bias = targets.iter().any(|(_, bias)| bias.is_some());
        let own = self.stacked(ids);
        let matrix: Vec<f32> = targets.iter().flat_map(|(matrix, _)| row_major(matrix.view()).to_vec()).collect();
        let bias_of = |(matrix, bias): &(Array2<f32>, Option<Vec<f32>>)| {
            bias.clone().unwrap_or_else(|| vec![0.0; matrix.nrows()])
        };
        let biases: Vec<f32> = targets.iter().flat_map(bias_of).collect();
        let mut residuals = Residuals::new(all, columns, bias);
        for (teacher, student) in teacher.iter().zip(student) {
            with_values(teacher, |x| {
                with_values(student, |changed| {
                    let mut target = outputs(x, &matrix, &biases);
                    let energy = energy(&target);
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy);
                })
            })??;
        }
        self.apply(ids, &rows, columns, &residuals)
    }

    /// A matrix that writes into the stream, from the teacher's states before its step; `later` is what the stream should be
    /// instead.
    pub(super) fn writer(
        &mut self,
        input: &Input,
        placement: NormPlacement,
        teacher: &[Halted<Tensor<3>>],
        later: Option<Vec<Tensor<3>>>,
    ) -> Result<(), ShrinkError> {
        if !self.of.refit {
            return Ok(());
        }
        let (ids, basis) = (input.ids(), &self.of.cut.selection.hidden);
        let (matrix, bias) = self.of.teachers(ids[0])?;
        let rows = matrix.nrows();
        let own = self.stacked(&ids);
        let columns = self.student.states.first().map_or(0, |halted| halted.input.dims()[2]);
        let biases = bias.clone().unwrap_or_else(|| vec![0.0; rows]);
        let matrix = row_major(matrix.view()).to_vec();
        let mut residuals = Residuals::new(rows, columns, bias.is_some());
        let kept = |states: &Tensor<3>| {
            let width = states.dims()[2];
            with_values(states, |values| into_values(basis.columns(from_rows(values.to_vec(), width))))
        };
        for (number, (teacher, student)) in teacher.iter().zip(&self.student.states).enumerate() {
            let mut target = match &later {
                Some(later) => kept(&later[number])?,
                None => with_values(&teacher.input, |x| outputs(x, &matrix, &biases))?,
            };
            if !placement.is_on_added() {
                if later.is_none() {
                    add(&mut target, &kept(&teacher.hidden)?);
                }
                let energy_of_rest = with_values(&student.hidden, |hidden| {
                    target.iter_mut().zip(hidden).for_each(|(target, hidden)| *target -= hidden);
                    energy(&target)
                })?;
                with_values(&student.input, |changed| {
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy_of_rest);
                })?;
            } else {
                let energy = energy(&target);
                with_values(&student.input, |changed| {
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy);
                })?;
            }
        }
        self.apply(&ids, &[rows], columns, &residuals)
    }

    /// Matrices of the student one below the other, with their biases.
    fn stacked(&self, ids: &[LinearId]) -> Stacked {
        let mut stacked = Stacked { weights: Vec::new(), biases: Vec::new() };
        let columns = |id: &LinearId| self.of.cut.spec.matrices().into_iter().find(|(other, ..)| other == id);
        for id in ids {
            let Some((_, rows, _)) = columns(id) else { continue };
            stacked.weights.extend(self.values.get(&ParameterId::weight(*id)).into_iter().flatten());
            match self.values.get(&ParameterId::bias(*id)) {
                Some(bias) => stacked.biases.extend(bias),
                None => stacked.biases.extend(vec![0.0; rows]),
            }
        }
        stacked
    }

    /// Adds the change that the sums ask for.
    pub(in crate::shrink) fn apply(
        &mut self,
        ids: &[LinearId],
        rows: &[usize],
        inputs: usize,
        residuals: &Residuals,
    ) -> Result<(), ShrinkError> {
        let Some((delta, fitted)) = residuals.solve() else { return Ok(()) };
        let width = delta.len() / rows.iter().sum::<usize>().max(1);
        let mut first = 0;
        for (id, rows) in ids.iter().zip(rows) {
            let delta = delta[first * width..(first + rows) * width].chunks_exact(width);
            first += rows;
            let (weight, bias) = (ParameterId::weight(*id), ParameterId::bias(*id));
            for (row, delta) in delta.enumerate() {
                if let Some(values) = self.values.get_mut(&weight) {
                    let own = &mut values[row * inputs..][..inputs];
                    own.iter_mut().zip(delta).for_each(|(own, delta)| *own = (f64::from(*own) + delta) as f32);
                }
                if let (Some(values), Some(delta)) = (self.values.get_mut(&bias), delta.get(inputs)) {
                    values[row] = (f64::from(values[row]) + delta) as f32;
                }
            }
            let finite = |id: &ParameterId| self.values.get(id).into_iter().flatten().all(|value| value.is_finite());
            if let Some(id) = [weight, bias].iter().find(|id| !finite(id)) {
                return Err(ShrinkError::NotFinite(*id));
            }
        }
        if let Some(id) = ids.first().filter(|_| fitted.before > ROUNDING) {
            self.fits.push(GroupFit { matrix: id.to_string(), fitted });
        }
        Ok(())
    }
}

/// Matrices one below the other.
struct Stacked {
    weights: Vec<f32>,
    biases: Vec<f32>,
}

/// x Wᵀ + b, (tokens, rows).
fn outputs(inputs: &[f32], weights: &[f32], biases: &[f32]) -> Vec<f32> {
    let rows = biases.len();
    let columns = weights.len() / rows.max(1);
    let tokens = inputs.len() / columns.max(1);
    let mut out = vec![0.0; tokens * rows];
    let left = Left::Rows(Matrix::new(inputs, columns));
    multiply(Output::over(&mut out, rows), left, Right::Columns(Matrix::new(weights, columns)));
    for row in out.chunks_exact_mut(rows) {
        row.iter_mut().zip(biases).for_each(|(out, bias)| *out += bias);
    }
    out
}

/// Takes x Wᵀ + b from rows.
fn subtract(target: &mut [f32], inputs: &[f32], own: &Stacked) {
    let made = outputs(inputs, &own.weights, &own.biases);
    target.iter_mut().zip(made).for_each(|(target, made)| *target -= made);
}

fn add(target: &mut [f32], other: &[f32]) {
    target.iter_mut().zip(other).for_each(|(target, other)| *target += other);
}

fn energy(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum()
}
