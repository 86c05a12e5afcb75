//! Rounding with the second moments of the inputs (GPTQ, Frantar et al. 2023): the matrix Q on the format's grid that
//! makes tr(E H Eᵀ) small, E = W − Q, H = G + λ I ([`Hessian`]). Scales are those that [`super::search`] finds for
//! contiguous groups, so the order of columns is free: they are rounded in the order of falling H_jj, and the columns not
//! yet rounded compensate for the error of each, w_k −= (w_j − q_j) · U_jk / U_jj with H⁻¹ = Uᵀ U. Then, as long as the
//! weighted error falls, row scale, multipliers and single integers move to where H has its minimum along them (coordinate
//! descent; CDQuant 2024). Of all results a row takes the best, that of [`super::search`] (plain rounding) included.
//!
//! Rows are independent and run in blocks that share every row of U and H that they load. Nothing depends on the number
//! of threads.

mod descend;
mod hessian;

pub use hessian::Hessian;

use super::search;
use super::vector::{add, nearest, wide};
use crate::model::matrix::{blocks, from_rows, row_major, row_major_mut};
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{QuantScheme, SPLIT_ROWS};
use descend::descend;
use ndarray::{Array2, ArrayView2};
use pulp::NullaryFnOnce;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that share every loaded row of U and H.
const BLOCK: usize = 16;
/// Rounds of refitting scales and moving integers.
const ROUNDS: usize = 4;

/// A rounded matrix and its errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// The integers.
    pub matrix: QuantizedMatrix,
    /// tr(E H Eᵀ) / tr(W H Wᵀ).
    pub error: f64,
    /// The same of plain rounding.
    pub plain_error: f64,
    /// Rows for which plain rounding was better, and stayed.
    pub plain_rows: usize,
}

/// Rounds a matrix to a scheme. Where `held`, (rows, columns), is true, the result is 0.
///
/// # Panics
/// If the shapes do not match.
pub fn quantize_matrix(
    weights: ArrayView2<'_, f32>,
    scheme: QuantScheme,
    hessian: &Hessian,
    held: Option<ArrayView2<'_, bool>>,
) -> Rounded {
    let (rows, columns) = weights.dim();
    assert_eq!(columns, hessian.columns());
    assert!(held.is_none_or(|held| held.dim() == weights.dim()));
    let masked = held.map(|held| {
        let mut masked = weights.to_owned();
        masked.zip_mut_with(&held, |weight, held| *weight = if *held { 0.0 } else { *weight });
        masked
    });
    let searched = masked.as_ref().map_or(weights, |masked| masked.view());
    let plain = search::quantize_matrix(searched, scheme, Some(&hessian.importance));
    let held: Vec<_> = held.map_or_else(Vec::new, |held| blocks(held, BLOCK));
    let rounded: Vec<Vec<Row>> = blocks(weights, BLOCK)
        .into_par_iter()
        .enumerate()
        .map(|(index, weights)| round_block(weights, index * BLOCK, &plain, hessian, held.get(index).copied()))
        .collect();
    let mut values = Vec::with_capacity(rows * columns);
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
    let (mut error, mut plain_error, mut plain_rows) = (0.0, 0.0, 0);
    for row in rounded.into_iter().flatten() {
        values.extend(row.values.iter().map(|value| *value as i8));
        row_scale.push(row.scale);
        multiplier.extend(row.multipliers.iter().map(|multiplier| *multiplier as i8));
        error += row.error;
        plain_error += row.plain_error;
        plain_rows += usize::from(row.plain);
    }
    let matrix = QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier);
    let size = hessian.energy(weights);
    let share = |error: f64| if size > 0.0 { error / size } else { 0.0 };
    Rounded { matrix, error: share(error), plain_error: share(plain_error), plain_rows }
}

/// One row on the grid. Integers are held as f32, which is exact.
#[derive(Clone)]
struct Row {
    scale: f32,
    /// By group of columns; none for a scheme without multipliers.
    multipliers: Vec<f32>,
    /// Base 2 logarithm of the columns of a group.
    group_shift: u32,
    values: Vec<f32>,
    /// E H Eᵀ.
    error: f64,
    plain_error: f64,
    /// Whether it is the plain rounding.
    plain: bool,
}

impl Row {
    fn of(matrix: &QuantizedMatrix, row: usize) -> Self {
        Row {
            scale: matrix.row_scale[row],
            multipliers: matrix.multipliers(row).iter().map(|m| f32::from(*m)).collect(),
            group_shift: matrix.scheme.def().group.map_or(0, usize::trailing_zeros),
            values: matrix.values.row(row).iter().map(|v| f32::from(*v)).collect(),
            error: 0.0,
            plain_error: 0.0,
            plain: true,
        }
    }

    /// Distance of neighbouring weights at a column.
    #[inline(always)]
    fn step(&self, column: usize) -> f32 {
        self.multipliers.get(column >> self.group_shift).map_or(self.scale, |multiplier| self.scale * multiplier)
    }

    /// The columns of a group, of so many in all.
    fn columns_of(&self, group: usize, columns: usize) -> Range<usize> {
        group << self.group_shift..((group + 1) << self.group_shift).min(columns)
    }

    fn weights(&self) -> impl Iterator<Item = f32> {
        self.values.iter().enumerate().map(|(column, value)| self.step(column) * value)
    }
}

/// Ŵ of rows, (rows, columns).
fn weights_of(rows: &[Row], columns: usize) -> Array2<f32> {
    from_rows(rows.iter().flat_map(Row::weights).collect(), columns)
}

fn round_block(
    weights: ArrayView2<'_, f32>,
    first: usize,
    plain: &QuantizedMatrix,
    hessian: &Hessian,
    held: Option<ArrayView2<'_, bool>>,
) -> Vec<Row> {
    const { assert!(SPLIT_ROWS.is_multiple_of(BLOCK as u32), "parts of a matrix begin with a block") };
    let range = plain.scheme.limits(first);
    let mut best: Vec<Row> = (first..first + weights.nrows()).map(|row| Row::of(plain, row)).collect();
    let measured = errors(weights, &best, hessian);
    for (row, error) in best.iter_mut().zip(measured) {
        (row.error, row.plain_error) = (error, error);
    }
    let mut rows = best.clone();
    for _ in 0..ROUNDS {
        compensate(weights, &mut rows, hessian, held, range);
        descend(weights, &mut rows, hessian, held, range);
        let mut fell = false;
        for (best, row) in best.iter_mut().zip(&rows) {
            if row.error.is_finite() && row.error < best.error {
                fell |= row.error < 0.999 * best.error;
                *best = Row { plain: false, plain_error: best.plain_error, ..row.clone() };
            }
        }
        if !fell {
            break;
        }
    }
    best
}

/// E H Eᵀ by row.
fn errors(weights: ArrayView2<'_, f32>, rows: &[Row], hessian: &Hessian) -> Vec<f64> {
    let miss = &weights - &weights_of(rows, hessian.columns());
    let products = hessian.products(miss.view());
    let pairs = miss.outer_iter().zip(products.outer_iter());
    pairs.map(|(e, g)| e.iter().zip(g).map(|(e, g)| f64::from(e * g)).sum()).collect()
}

/// Rounds the columns in order on the scales of `rows`; the columns after each compensate for its error.
fn compensate(
    weights: ArrayView2<'_, f32>,
    rows: &mut [Row],
    hessian: &Hessian,
    held: Option<ArrayView2<'_, bool>>,
    bounds: (f32, f32),
) {
    let in_order = |(row, place): (usize, usize)| weights[[row, hessian.order[place]]];
    let mut remainder = Array2::from_shape_fn(weights.dim(), in_order);
    let held = held.map(row_major);
    let upper = row_major(hessian.upper.view());
    wide(Remainder { rows, weights: row_major_mut(&mut remainder), upper, order: &hessian.order, held, bounds });
}

/// The weights that [`compensate`] has still to round.
struct Remainder<'w> {
    rows: &'w mut [Row],
    /// (rows, columns) in the order of rounding: the weights with the compensation so far.
    weights: &'w mut [f32],
    /// U, (columns, columns)
    upper: &'w [f32],
    /// (columns)
    order: &'w [usize],
    /// (rows, columns)
    held: Option<&'w [bool]>,
    bounds: (f32, f32),
}

impl NullaryFnOnce for Remainder<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Remainder { rows, weights, upper, order, held, bounds: (low, high) } = self;
        let columns = order.len();
        for (place, &column) in order.iter().enumerate() {
            let upper = &upper[place * columns..][..columns];
            let inverse = 1.0 / upper[place];
            for (n, (row, weights)) in rows.iter_mut().zip(weights.chunks_exact_mut(columns)).enumerate() {
                let (step, weight) = (row.step(column), weights[place]);
                let zero = step == 0.0 || held.is_some_and(|held| held[n * columns + column]);
                let value = if zero { 0.0 } else { nearest(weight / step, low, high) };
                row.values[column] = value;
                let error = (weight - step * value) * inverse;
                add(&mut weights[place + 1..], -error, &upper[place + 1..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::moments::Moments;
    use crate::model::scheme::SCHEMES;
    use ndarray::s;
    use slm_runtime::sample::random_u64;

    fn random(seed: u64, rows: usize, columns: usize) -> Array2<f32> {
        let draw = |n: usize| (random_u64(seed, n as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        Array2::from_shape_fn((rows, columns), |(row, column)| draw(row * columns + column))
    }

    /// Moments of inputs whose neighbouring channels move together.
    fn moments(columns: usize, tokens: usize) -> Moments {
        let noise = random(9, tokens, columns + 3);
        let mut moments = Moments::new(columns, false);
        for token in row_major(noise.view()).chunks_exact(columns + 3) {
            let x: Vec<f64> = (0..columns).map(|j| token[j..j + 4].iter().map(|v| f64::from(*v)).sum()).collect();
            (0..columns * columns)
                .for_each(|n| moments.gram[[n / columns, n % columns]] += x[n / columns] * x[n % columns]);
            moments.rows += 1;
        }
        moments
    }

    #[test]
    fn compensation_beats_plain_rounding_and_rows_take_the_better() {
        let (rows, columns) = (37, 80);
        let weights = random(1, rows, columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        for scheme in SCHEMES.map(|def| def.scheme) {
            let rounded = quantize_matrix(weights.view(), scheme, &hessian, None);
            assert!(rounded.error < 0.5 * rounded.plain_error, "{scheme}: {rounded:?}");
            let measured = hessian.relative_error(weights.view(), &rounded.matrix);
            assert!((measured / rounded.error - 1.0).abs() < 1e-3, "{scheme}: {measured} {}", rounded.error);
            let id = crate::model::id::LinearId::layer(0, crate::model::id::Role::Up);
            rounded.matrix.validate(id).expect("it is on the grid");
            // The threads of one pool or of another: the same bits.
            let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
            assert_eq!(rounded, single.install(|| quantize_matrix(weights.view(), scheme, &hessian, None)));
        }
    }

    /// The rows of a split are those of the matrix in their schemes, bit for bit.
    #[test]
    fn rows_of_a_split_are_rounded_as_in_their_schemes() {
        let (rows, columns, split) = (90, 80, QuantScheme::Split { wide_rows: 64 });
        let weights = random(7, rows, columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        let in_scheme = |scheme| quantize_matrix(weights.view(), scheme, &hessian, None).matrix;
        let part = |rows, scheme| in_scheme(scheme).part(rows, scheme);
        assert_eq!(in_scheme(split), QuantizedMatrix::of_parts(split, (rows, columns), part));
    }

    #[test]
    fn what_is_held_stays_zero() {
        let (rows, columns) = (5, 64);
        let weights = random(3, rows, columns);
        let held = Array2::from_shape_fn((rows, columns), |(_, column)| column % 4 < 2);
        let hessian = Hessian::new(&moments(columns, 300)).expect("it is positive definite");
        let rounded = quantize_matrix(weights.view(), QuantScheme::W4G32, &hessian, Some(held.view()));
        assert!(rounded.matrix.values.iter().zip(&held).all(|(value, held)| !held || *value == 0));
        assert!(rounded.error < rounded.plain_error);
    }

    #[test]
    fn rows_of_zeros_and_channels_that_never_move_do_no_harm() {
        let (rows, columns) = (3, 32);
        let mut weights = random(5, rows, columns);
        weights.row_mut(0).fill(0.0);
        let mut moments = moments(columns, 100);
        moments.gram.row_mut(7).fill(0.0);
        moments.gram.column_mut(7).fill(0.0);
        let hessian = Hessian::new(&moments).expect("damping makes it definite");
        assert_eq!(hessian.dead, 1);
        let rounded = quantize_matrix(weights.view(), QuantScheme::W4G32, &hessian, None);
        assert!(rounded.matrix.values.slice(s![0, ..]).iter().all(|value| *value == 0));
        assert!(rounded.error.is_finite() && rounded.matrix.row_scale.iter().all(|scale| scale.is_finite()));
    }
}
