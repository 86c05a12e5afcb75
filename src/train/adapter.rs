//! The arithmetic of adapters (LoRA, Hu et al. 2021): a matrix W that stays as it is, and two thin ones that are trained.
//!
//! ```text
//! forward   W' = W + s · B · A             B (out, rank) from 0, A (rank, in) uniform in ± 1/√in, s = alpha / rank
//! backward  dB = s · dW' · Aᵀ              dA = s · Bᵀ · dW'
//! ```
//!
//! B · A is one chain of fused multiply-adds an element, then multiplied by s, then added to W: the arithmetic with which adapters
//! are merged (`formats/adapter/merge.rs`), so that the trained model is the merged one to the bit.

use super::parameters::{Parameters, TrainedId};
use super::scope::{AdapterShape, Scope};
use rayon::prelude::*;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_runtime::sample::random_u64;

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// A and B of every adapter at the start: A as PEFT draws it, B zero, so that the first forward is the base's.
pub(super) fn initialise(scope: &Scope, seed: u64) -> Parameters {
    let mut parameters = Parameters::new();
    for (number, (id, shape)) in scope.adapters().iter().enumerate() {
        let bound = 1.0 / (shape.columns as f64).sqrt();
        let stream = random_u64(seed ^ 0xada9, number as u64);
        let unit = |index: u64| (random_u64(stream, index) >> 11) as f64 / (1u64 << 53) as f64;
        let a = (0..(shape.rank * shape.columns) as u64).map(|index| ((2.0 * unit(index) - 1.0) * bound) as f32);
        parameters.insert(TrainedId::AdapterA(*id), a.collect());
        parameters.insert(TrainedId::AdapterB(*id), vec![0.0; shape.rows * shape.rank]);
    }
    parameters
}

/// W + s · B · A, row-major.
pub(super) fn effective(base: &[f32], a: &[f32], b: &[f32], shape: AdapterShape) -> Vec<f32> {
    let mut sum = vec![0.0; base.len()];
    let thin = (Left::Rows(Matrix::new(b, shape.rank)), Right::Rows(Matrix::new(a, shape.columns)));
    multiply(Output::over(&mut sum, shape.columns), thin.0, thin.1);
    sum.par_chunks_mut(BLOCK).zip(base.par_chunks(BLOCK)).for_each(|(sum, base)| {
        sum.iter_mut().zip(base).for_each(|(sum, base)| *sum = base + *sum * shape.scale);
    });
    sum
}

/// The gradients by A and by B, of that by the matrix the forward sees.
pub(super) fn pull_back(gradient: &[f32], a: &[f32], b: &[f32], shape: AdapterShape) -> (Vec<f32>, Vec<f32>) {
    let of_matrix = Matrix::new(gradient, shape.columns);
    let (mut of_a, mut of_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    let (left, right) = (Left::Columns(Matrix::new(b, shape.rank)), Right::Rows(of_matrix));
    multiply(Output::over(&mut of_a, shape.columns), left, right);
    let (left, right) = (Left::Rows(of_matrix), Right::Columns(Matrix::new(a, shape.columns)));
    multiply(Output::over(&mut of_b, shape.rank), left, right);
    of_a.iter_mut().chain(&mut of_b).for_each(|value| *value *= shape.scale);
    (of_a, of_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::parameters::normals;

    #[test]
    fn gradients_are_those_of_differences() {
        let shape = AdapterShape { rows: 5, columns: 7, rank: 2, scale: 1.5 };
        let base = normals(1, 35, 1.0);
        let (a, b) = (normals(2, 14, 1.0), normals(3, 10, 1.0));
        // The loss is Σ weights · W', whose gradient by W' is `weights`.
        let weights = normals(4, 35, 1.0);
        let loss = |a: &[f32], b: &[f32]| -> f64 {
            let seen = effective(&base, a, b, shape);
            seen.iter().zip(&weights).map(|(seen, weight)| f64::from(*seen) * f64::from(*weight)).sum()
        };
        let (of_a, of_b) = pull_back(&weights, &a, &b, shape);
        let step = 1.0 / 64.0;
        let moved = |values: &[f32], index: usize, by: f32| -> Vec<f32> {
            let mut values = values.to_vec();
            values[index] += by;
            values
        };
        for (index, gradient) in of_a.iter().enumerate() {
            let slope =
                (loss(&moved(&a, index, step), &b) - loss(&moved(&a, index, -step), &b)) / f64::from(2.0 * step);
            assert!((slope - f64::from(*gradient)).abs() < 1e-4, "A {index}: {slope}, {gradient}");
        }
        for (index, gradient) in of_b.iter().enumerate() {
            let slope =
                (loss(&a, &moved(&b, index, step)) - loss(&a, &moved(&b, index, -step))) / f64::from(2.0 * step);
            assert!((slope - f64::from(*gradient)).abs() < 1e-4, "B {index}: {slope}, {gradient}");
        }
    }
}
