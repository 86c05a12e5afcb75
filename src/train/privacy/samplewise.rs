//! Gradients of single samples from one backward pass over many of them (book-keeping, Bu et al. 2023). A matrix's gradient is a sum
//! over rows of products, so that of a sample is the sum over its own rows, its norm follows from products of vectors, and the sum
//! of all samples, each by its factor, is one product of matrices: no sample's gradient is ever made.
//!
//! ```text
//! gradient of sample s      G_s = Σ over its rows r of dy_rᵀ · x_r
//! its norm                  ‖G_s‖² = Σ over its rows r, r′ of (dy_r · dy_r′) (x_r · x_r′)
//! sum                       Σ_s c_s G_s = Σ_r (c_s(r) · dy_r)ᵀ · x_r
//! ```

use crate::train::optimizer::Gradients;
use crate::train::parameters::TrainedId;
use rayon::prelude::*;
use slm_fused::weights::{TermKind, Terms};
use slm_numerics::lanes::{dot, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use std::collections::BTreeMap;

/// The terms of every trained tensor over some samples.
pub(in crate::train) struct Samplewise {
    tensors: BTreeMap<TrainedId, Vec<OfOperation>>,
    samples: usize,
}

/// The terms of one operation, and the sample of every row.
struct OfOperation {
    kind: TermKind,
    sample_of: Vec<usize>,
}

impl OfOperation {
    /// (dy, x) of a row; of a vector's terms x is nothing.
    fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let rows = self.sample_of.len().max(1);
        let part = |values: &'_ [f32]| values.len() / rows;
        match &self.kind {
            TermKind::Products { dy, x, inputs } => (&dy[row * part(dy)..][..part(dy)], &x[row * inputs..][..*inputs]),
            TermKind::Vectors(values) => (&values[row * part(values)..][..part(values)], &[]),
            TermKind::Unknown => (&[], &[]),
        }
    }
}

impl Samplewise {
    /// `None` where some tensor's gradient has parts that are no terms, or rows that belong to no single sample: `dims` are the
    /// samples and the rows of each in the batch.
    pub(in crate::train) fn new(kept: BTreeMap<TrainedId, Vec<Terms>>, [samples, length]: [usize; 2]) -> Option<Self> {
        let of_operation = |Terms { first, rows, of, kind }: Terms| {
            let rows_of_sample = match of {
                of if of == samples * length => length,
                of if of == samples => 1,
                _ => return None,
            };
            if matches!(kind, TermKind::Unknown) {
                return None;
            }
            let sample_of = (first..first + rows).map(|row| row / rows_of_sample).collect();
            Some(OfOperation { kind, sample_of })
        };
        let of_tensor = |(id, terms): (TrainedId, Vec<Terms>)| {
            let operations: Option<Vec<OfOperation>> = terms.into_iter().map(of_operation).collect();
            operations.map(|operations| (id, operations))
        };
        let tensors: Option<BTreeMap<_, _>> = kept.into_iter().map(of_tensor).collect();
        tensors.map(|tensors| Samplewise { tensors, samples })
    }

    /// The norm of every sample's gradient over all tensors.
    pub(in crate::train) fn norms(&self) -> Vec<f64> {
        (0..self.samples).into_par_iter().map(|sample| self.norm(sample)).collect()
    }

    fn norm(&self, sample: usize) -> f64 {
        let of_tensor = |operations: &Vec<OfOperation>| {
            let rows_of = |operation| rows_of_sample(operation, sample);
            let rows: Vec<(&[f32], &[f32])> = operations.iter().flat_map(rows_of).collect();
            vectorised(
                #[inline(always)]
                || square_of(&rows),
            )
        };
        self.tensors.values().map(of_tensor).sum::<f64>().sqrt()
    }

    /// Adds the gradients of all samples, each by its factor.
    pub(in crate::train) fn add_to(self, sum: &mut Gradients, factors: &[f32]) {
        for (id, operations) in self.tensors {
            let Some(sum) = sum.get_mut(&id) else { continue };
            for OfOperation { kind, sample_of } in operations {
                match kind {
                    TermKind::Products { mut dy, x, inputs } => {
                        let outputs = dy.len() / sample_of.len().max(1);
                        scale(&mut dy, outputs, &sample_of, factors);
                        let output = Output::onto(sum, inputs);
                        let left = Left::Columns(Matrix::new(&dy, outputs));
                        multiply(output, left, Right::Rows(Matrix::new(&x, inputs)));
                    }
                    TermKind::Vectors(mut values) => {
                        let width = sum.len();
                        scale(&mut values, width, &sample_of, factors);
                        for row in values.chunks_exact(width) {
                            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                        }
                    }
                    TermKind::Unknown => {}
                }
            }
        }
    }
}

/// The rows of one sample.
fn rows_of_sample(operation: &OfOperation, sample: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
    let first = operation.sample_of.partition_point(|of| *of < sample);
    let last = operation.sample_of.partition_point(|of| *of <= sample);
    (first..last).map(|row| operation.row(row))
}

/// Σ over pairs of rows of (dy · dy′) (x · x′); of vectors, which have no x, (dy · dy′).
#[inline(always)]
fn square_of(rows: &[(&[f32], &[f32])]) -> f64 {
    let mut square = 0.0;
    for (place, (dy, x)) in rows.iter().enumerate() {
        for (other, (other_dy, other_x)) in rows[..=place].iter().enumerate() {
            let of_inputs = if x.is_empty() { 1.0 } else { f64::from(dot(x, other_x)) };
            let twice = if other == place { 1.0 } else { 2.0 };
            square += twice * f64::from(dot(dy, other_dy)) * of_inputs;
        }
    }
    square.max(0.0)
}

/// Every row times the factor of its sample.
fn scale(values: &mut [f32], width: usize, sample_of: &[usize], factors: &[f32]) {
    for (row, sample) in values.chunks_exact_mut(width.max(1)).zip(sample_of) {
        row.iter_mut().for_each(|value| *value *= factors[*sample]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, ParameterId, Role};
    use crate::train::optimizer::global_norm;
    use crate::train::parameters::normals;

    fn id(role: Role) -> TrainedId {
        TrainedId::Parameter(ParameterId::weight(LinearId::layer(0, role)))
    }

    /// Two operations on one matrix, and a vector: norms and sums are those of the gradients made one by one.
    #[test]
    fn norms_and_sums_are_those_of_single_gradients() {
        let (samples, length, inputs, outputs) = (5, 3, 7, 4);
        let rows = samples * length;
        let values = |seed, count| normals(seed, count, 1.0);
        let (dy, x) = (
            [values(1, rows * outputs), values(2, rows * outputs)],
            [values(3, rows * inputs), values(4, rows * inputs)],
        );
        let vector = values(5, samples * outputs);
        let products = |number: usize| Terms {
            first: 0,
            rows,
            of: rows,
            kind: TermKind::Products { dy: dy[number].clone(), x: x[number].clone(), inputs },
        };
        let kept = BTreeMap::from([
            (id(Role::Up), vec![products(0), products(1)]),
            (
                id(Role::Query),
                vec![Terms { first: 0, rows: samples, of: samples, kind: TermKind::Vectors(vector.clone()) }],
            ),
        ]);
        let of_sample = |sample: usize| -> Gradients {
            let mut matrix = vec![0.0f32; outputs * inputs];
            for number in 0..2 {
                for row in sample * length..(sample + 1) * length {
                    for (place, value) in matrix.iter_mut().enumerate() {
                        *value += dy[number][row * outputs + place / inputs] * x[number][row * inputs + place % inputs];
                    }
                }
            }
            Gradients::from([(id(Role::Up), matrix), (id(Role::Query), vector[sample * outputs..][..outputs].to_vec())])
        };
        let samplewise = Samplewise::new(kept, [samples, length]).expect("terms alone");
        for (sample, norm) in samplewise.norms().into_iter().enumerate() {
            let expected = global_norm(&of_sample(sample));
            assert!((norm / expected - 1.0).abs() < 1e-5, "{norm}, {expected}");
        }
        let factors = [1.0, 0.5, 0.0, 2.0, 0.25];
        let mut sum =
            Gradients::from([(id(Role::Up), vec![0.0; outputs * inputs]), (id(Role::Query), vec![0.0; outputs])]);
        samplewise.add_to(&mut sum, &factors);
        for (id, sum) in sum {
            for (place, value) in sum.iter().enumerate() {
                let expected: f32 = (0..samples).map(|sample| factors[sample] * of_sample(sample)[&id][place]).sum();
                assert!((value - expected).abs() < 1e-4, "{id} {place}: {value}, {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_left_as_terms_is_seen() {
        let of = |of, kind| BTreeMap::from([(id(Role::Up), vec![Terms { first: 0, rows: of, of, kind }])]);
        assert!(Samplewise::new(of(0, TermKind::Unknown), [2, 3]).is_none());
        assert!(Samplewise::new(of(5, TermKind::Vectors(vec![0.0; 5])), [2, 3]).is_none());
        assert!(Samplewise::new(of(6, TermKind::Vectors(vec![0.0; 6])), [2, 3]).is_some());
    }
}
