//! The arithmetic of merging, in f32 whatever the types, one row of the weights at a time:
//!
//! ```text
//! delta[o, i] = (Σ_k B[o, k] · A[k, i]) · scale      k ascending, one fused multiply-add a term, from 0
//! LoRA        w'[o, i] = w[o, i] + delta[o, i]
//! DoRA        w'[o, i] = magnitude[o] / ‖w[o] + delta[o]‖ · (w'[o, i] + delta[o, i])     the norm is of the base's w
//! table       w'[v, h] = w[v, h] + (Σ_k B[h, k] · A[k, v]) · scale
//! ```
//!
//! That order of summing is PyTorch's on CPUs (its products of f32 are one chain of fused multiply-adds for ranks as adapters
//! have them), so that merged weights are PEFT's bit for bit, but with DoRA, whose norms are summed here in f64. After every adapter
//! the result is rounded to the type of the base, as PEFT's is that merges one after the other.

use crate::disk::{DenseTensor, DenseType};
use half::{bf16, f16};
use pulp::NullaryFnOnce;
use rayon::prelude::*;

/// One change of a parameter.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// B·A, of a matrix of (rows, columns).
    LowRank(LowRank),
    /// Added, scaled.
    Add(Vec<f32>, f32),
    /// Rows in the place of others: (row, values).
    Rows(Vec<(usize, Vec<f32>)>),
}

/// A product of two thin matrices.
#[derive(Clone, Debug)]
pub(super) struct LowRank {
    /// (rows, rank)
    pub(super) left: Vec<f32>,
    /// (rank, columns)
    pub(super) right: Vec<f32>,
    pub(super) rank: usize,
    /// What the product is multiplied by.
    pub(super) scale: f32,
    /// (rows), with DoRA.
    pub(super) magnitude: Option<Vec<f32>>,
}

/// The bytes of a tensor of (rows, columns) after all changes, in a type.
pub(super) fn merged(base: &DenseTensor, dtype: DenseType, changes: &[Change]) -> Vec<u8> {
    let columns = base.shape().last().copied().unwrap_or(1).max(1);
    let size = dtype.bytes();
    let (of_base, from) = (base.bytes(), base.dtype());
    let rows = base.shape().iter().product::<usize>() / columns;
    let mut out = vec![0; rows * columns * size];
    out.par_chunks_exact_mut(columns * size).enumerate().for_each(|(row, out)| {
        // With infinities and NaN, which are found in what is merged.
        let original = from.decode(&of_base[row * columns * from.bytes()..][..columns * from.bytes()]);
        let mut values = original.clone();
        for change in changes {
            change.apply(row, &original, &mut values);
            values.iter_mut().for_each(|value| *value = rounded(dtype, *value));
        }
        out.copy_from_slice(&dtype.encode(&values));
    });
    out
}

fn rounded(dtype: DenseType, value: f32) -> f32 {
    match dtype {
        DenseType::F32 => value,
        DenseType::F16 => f16::from_f32(value).to_f32(),
        DenseType::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

impl Change {
    /// Bytes of its numbers.
    pub(super) fn bytes(&self) -> usize {
        size_of::<f32>()
            * match self {
                Change::LowRank(change) => {
                    change.left.len() + change.right.len() + change.magnitude.as_ref().map_or(0, Vec::len)
                }
                Change::Add(added, _) => added.len(),
                Change::Rows(rows) => rows.iter().map(|(_, values)| values.len()).sum(),
            }
    }

    /// Changes a row; `original` is the base's.
    fn apply(&self, row: usize, original: &[f32], values: &mut [f32]) {
        match self {
            Change::LowRank(change) => change.apply(row, original, values),
            Change::Add(added, scale) => {
                for (value, added) in values.iter_mut().zip(added) {
                    *value += added * scale;
                }
            }
            Change::Rows(rows) => {
                for (_, new) in rows.iter().filter(|(index, _)| *index == row) {
                    values.copy_from_slice(new);
                }
            }
        }
    }
}

impl LowRank {
    fn apply(&self, row: usize, original: &[f32], values: &mut [f32]) {
        let mut delta = vec![0.0; values.len()];
        let left = &self.left[row * self.rank..][..self.rank];
        pulp::Arch::new().dispatch(Chain { left, right: &self.right, out: &mut delta });
        delta.iter_mut().for_each(|delta| *delta *= self.scale);
        values.iter_mut().zip(&delta).for_each(|(value, delta)| *value += delta);
        if let Some(magnitude) = &self.magnitude {
            let square = |(w, delta): (&f32, &f32)| f64::from(w + delta).powi(2);
            let norm = original.iter().zip(&delta).map(square).sum::<f64>().sqrt() as f32;
            let factor = magnitude[row] / norm;
            values.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// out[i] = Σ_k left[k] · right[k, i]
struct Chain<'c> {
    left: &'c [f32],
    right: &'c [f32],
    out: &'c mut [f32],
}

impl NullaryFnOnce for Chain<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let columns = self.out.len();
        for (left, right) in self.left.iter().zip(self.right.chunks_exact(columns.max(1))) {
            for (out, right) in self.out.iter_mut().zip(right) {
                *out = left.mul_add(*right, *out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], columns: usize) -> DenseTensor {
        DenseTensor::from_f32(vec![values.len() / columns, columns], values).expect("its shape")
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn changes_are_those_worked_out_by_hand() {
        let base = tensor(&[1.0, 2.0, 3.0, 4.0], 2);
        let plain = LowRank {
            left: vec![1.0, 0.0, 0.0, 2.0],
            right: vec![1.0, -1.0, 0.5, 0.5],
            rank: 2,
            scale: 2.0,
            magnitude: None,
        };
        assert_eq!(floats(&merged(&base, base.dtype(), &[Change::LowRank(plain.clone())])), [3.0, 0.0, 5.0, 6.0]);
        let dora = LowRank { magnitude: Some(vec![6.0, 0.0]), ..plain };
        assert_eq!(floats(&merged(&base, base.dtype(), &[Change::LowRank(dora)])), [6.0, 0.0, 0.0, 0.0]);
        let others = [Change::Add(vec![1.0, 2.0], 0.5), Change::Rows(vec![(1, vec![7.0, 8.0])])];
        assert_eq!(floats(&merged(&base, base.dtype(), &others)), [1.5, 3.0, 7.0, 8.0]);
    }

    #[test]
    fn every_adapter_is_rounded_to_the_type_of_the_base() {
        let base = DenseTensor::rounded(DenseType::Bf16, vec![1, 1], &[1.0]);
        let step = Change::Add(vec![1.0], 1.0 / 512.0);
        // A half of the last place is lost, twice.
        assert_eq!(merged(&base, base.dtype(), &[step.clone(), step.clone()]), DenseType::Bf16.encode(&[1.0]));
        let wide = tensor(&[1.0], 1);
        assert_eq!(floats(&merged(&wide, wide.dtype(), &[step.clone(), step])), [1.0 + 1.0 / 256.0]);
    }
}
