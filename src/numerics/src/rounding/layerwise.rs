//! The matrix on a grid that makes the outputs' error small: tr(E H Eᵀ), E = W − Ŵ, H the damped second moments of the inputs.
//! From plain rounding on, columns are rounded with compensation ([`compensate`](super::compensate)) and then moved
//! ([`descend`](super::descend)), which leaves other scales, for some rounds or as long as the error of the row falls. A row
//! takes the best of all it went through, plain rounding among them.

use super::Rows;
use super::compensate::compensate;
use super::descend::descend;
use crate::lanes::vectorised;
use crate::product::{Left, Matrix, Output, Right, multiply};
use crate::scratch::Scratch;
use rayon::prelude::*;

/// Rounds of refitting scales and moving integers.
const ROUNDS: usize = 4;
/// A row whose error falls by less in a round is done.
const LEAST_FALL: f64 = 0.001;
/// Rows that are rounded at once, which bounds the memory.
pub const TILE: usize = 1024;

/// The second moments of the inputs, as rounding uses them.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// H, (columns, columns).
    pub gram: &'a [f32],
    /// U in the order of rounding, (columns, columns): H⁻¹ = Uᵀ U.
    pub upper: &'a [f32],
    /// Columns in the order of rounding.
    pub order: &'a [usize],
}

/// Rounded rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// The best of every row.
    pub rows: Rows,
    /// E H Eᵀ by row.
    pub errors: Vec<f64>,
    /// The same of plain rounding.
    pub plain_errors: Vec<f64>,
    /// W H Wᵀ by row.
    pub sizes: Vec<f64>,
}

/// Rounds at most [`TILE`] rows; `plain` is their plain rounding. Where `held`, (rows, columns), is true, the result is 0, if
/// that of `plain` is.
///
/// # Panics
/// If the shapes do not match.
pub fn round(weights: &[f32], plain: Rows, inputs: Inputs<'_>, held: Option<&[bool]>) -> Rounded {
    let columns = plain.columns;
    assert_eq!([weights.len(), inputs.order.len()], [plain.count() * columns, columns]);
    let mut weights_gram = Scratch::take(weights.len());
    let weights_gram = weights_gram.values();
    times_gram(weights, inputs.gram, weights_gram);
    let sizes = energies(weights, weights_gram, columns);
    let plain_errors = errors(weights, &plain, inputs.gram);
    let mut result = Rounded { errors: plain_errors.clone(), plain_errors, sizes, rows: plain };
    // Rows that go on.
    let mut active: Vec<usize> = (0..result.rows.count()).collect();
    let mut rows = result.rows.clone();
    let mut of_active = [weights.to_vec(), weights_gram.to_vec()];
    let mut of_held = held.map(<[bool]>::to_vec);
    let mut product = Scratch::take(weights.len());
    for _ in 0..ROUNDS {
        let [weights, weights_gram] = &of_active;
        compensate(weights, &mut rows, (inputs.upper, inputs.order), of_held.as_deref());
        let product = &mut product.values()[..weights.len()];
        descend(weights, weights_gram, &mut rows, inputs.gram, of_held.as_deref(), product);
        let errors = energies(&miss(weights, &rows), product, columns);
        let mut falling = Vec::new();
        for (place, (&row, error)) in active.iter().zip(errors).enumerate() {
            let best = &mut result.errors[row];
            if error.is_finite() && error < *best {
                if error < (1.0 - LEAST_FALL) * *best {
                    falling.push(place);
                }
                *best = error;
                result.rows.take_row(row, &rows, place);
            }
        }
        if falling.is_empty() {
            break;
        }
        if falling.len() < active.len() {
            rows = rows.selected(&falling);
            of_active = of_active.map(|values| selected(&values, columns, &falling));
            of_held = of_held.map(|held| selected(&held, columns, &falling));
            active = falling.into_iter().map(|place| active[place]).collect();
        }
    }
    result
}

fn selected<T: Copy>(values: &[T], columns: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &values[row * columns..][..columns]).copied().collect()
}

/// E H
pub(super) fn times_gram(rows: &[f32], gram: &[f32], out: &mut [f32]) {
    let columns = gram.len().isqrt();
    let right = Right::Rows(Matrix::new(gram, columns));
    multiply(Output::over(out, columns), Left::Rows(Matrix::new(rows, columns)), right);
}

/// E H Eᵀ by row.
fn errors(weights: &[f32], rows: &Rows, gram: &[f32]) -> Vec<f64> {
    energy(&miss(weights, rows), gram)
}

/// E
fn miss(weights: &[f32], rows: &Rows) -> Vec<f32> {
    let mut miss = vec![0.0; weights.len()];
    rows.weights(&mut miss);
    miss.iter_mut().zip(weights).for_each(|(miss, weight)| *miss = weight - *miss);
    miss
}

/// E H Eᵀ by row of E, (rows, columns).
///
/// # Panics
/// If H is not square, of as many columns.
pub fn energy(rows: &[f32], gram: &[f32]) -> Vec<f64> {
    let columns = gram.len().isqrt();
    assert_eq!(gram.len(), columns * columns);
    let mut product = Scratch::take(rows.len());
    let product = product.values();
    times_gram(rows, gram, product);
    energies(rows, product, columns)
}

/// Σ e · g by row, value i in lane i mod 8.
fn energies(rows: &[f32], products: &[f32], columns: usize) -> Vec<f64> {
    let of_rows = rows.par_chunks_exact(columns).zip(products.par_chunks_exact(columns));
    let energy = of_rows.map(|(row, product)| {
        vectorised(
            #[inline(always)]
            || {
                let mut lanes = [0.0f64; 8];
                for (k, (e, g)) in row.iter().zip(product).enumerate() {
                    lanes[k % 8] = f64::from(*e).mul_add(f64::from(*g), lanes[k % 8]);
                }
                lanes.iter().sum()
            },
        )
    });
    energy.collect()
}
