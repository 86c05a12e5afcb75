//! Rounding with the second moments of the inputs (GPTQ, Frantar et al. 2023): the matrix Q on the format's grid that
//! makes tr(E H Eᵀ) small, E = W − Q, H = G + λ I ([`Hessian`]). Scales are those that [`super::search`] finds for
//! contiguous groups, so the order of columns is free: they are rounded in the order of falling H_jj. What rounds and moves
//! the rows is [`slm_numerics::rounding::layerwise`]; of all results a row takes the best, that of plain rounding included.

mod hessian;

pub use hessian::Hessian;

use super::search::{self, grid_of};
use crate::model::matrix::{from_rows, row_major};
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use ndarray::{ArrayView2, s};
use slm_numerics::rounding::layerwise::{TILE, round};
use slm_numerics::rounding::{Rows, Scales};
use std::ops::Range;

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

/// Rounds a matrix to a scheme, with the row scales that there are. Where `held`, (rows, columns), is true, the result is 0.
///
/// # Panics
/// If the shapes do not match.
pub fn quantize_matrix(
    weights: ArrayView2<'_, f32>,
    (scheme, scales): (QuantScheme, Scales),
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
    let plain = search::quantize_matrix_on(searched, (scheme, scales), Some(&hessian.importance));
    let mut values = Vec::with_capacity(rows * columns);
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
    let (mut error, mut plain_error, mut size, mut plain_rows) = (0.0, 0.0, 0.0, 0);
    for range in tiles(scheme, rows) {
        let of_tile = s![range.clone(), ..];
        let held = held.map(|held| held.slice_move(of_tile));
        let weights = row_major(weights.slice_move(of_tile));
        let tile = round(weights, rows_of(&plain, range, scales), hessian.inputs(), held.map(row_major));
        values.extend(tile.rows.integers.iter().map(|integer| *integer as i8));
        row_scale.extend(tile.rows.scales);
        multiplier.extend(tile.rows.multipliers.iter().map(|multiplier| *multiplier as i8));
        error += tile.errors.iter().sum::<f64>();
        plain_error += tile.plain_errors.iter().sum::<f64>();
        size += tile.sizes.iter().sum::<f64>();
        plain_rows += tile.errors.iter().zip(&tile.plain_errors).filter(|(error, plain)| error == plain).count();
    }
    let matrix = QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier);
    let share = |error: f64| if size > 0.0 { error / size } else { 0.0 };
    Rounded { matrix, error: share(error), plain_error: share(plain_error), plain_rows }
}

/// Ranges of rows that share a scheme and are rounded at once.
fn tiles(scheme: QuantScheme, rows: usize) -> Vec<Range<usize>> {
    let parts = scheme.parts(rows).map(|(part, _)| part);
    parts.flat_map(|part| part.clone().step_by(TILE).map(move |first| first..(first + TILE).min(part.end))).collect()
}

/// Rows of a matrix that share a scheme.
fn rows_of(matrix: &QuantizedMatrix, rows: Range<usize>, scales: Scales) -> Rows {
    Rows {
        grid: grid_of(matrix.scheme.of_row(rows.start).def(), scales),
        columns: matrix.columns(),
        scales: matrix.row_scale[rows.clone()].to_vec(),
        multipliers: rows.clone().flat_map(|row| matrix.multipliers(row)).map(|m| f32::from(*m)).collect(),
        integers: matrix.values.slice(s![rows, ..]).iter().map(|value| f32::from(*value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::moments::Moments;
    use crate::model::scheme::SCHEMES;
    use ndarray::Array2;
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
            let rounded = quantize_matrix(weights.view(), (scheme, Scales::Any), &hessian, None);
            assert!(rounded.error < 0.5 * rounded.plain_error, "{scheme}: {rounded:?}");
            let measured = hessian.relative_error(weights.view(), &rounded.matrix);
            assert!((measured / rounded.error - 1.0).abs() < 1e-3, "{scheme}: {measured} {}", rounded.error);
            let id = crate::model::id::LinearId::layer(0, crate::model::id::Role::Up);
            rounded.matrix.validate(id).expect("it is on the grid");
            // The threads of one pool or of another: the same bits.
            let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
            assert_eq!(
                rounded,
                single.install(|| quantize_matrix(weights.view(), (scheme, Scales::Any), &hessian, None))
            );
        }
    }

    #[test]
    fn exact_scales_cost_little() {
        let (rows, columns) = (37, 128);
        let weights = random(11, rows, columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        for scheme in SCHEMES.map(|def| def.scheme) {
            let free = quantize_matrix(weights.view(), (scheme, Scales::Any), &hessian, None);
            let exact = quantize_matrix(weights.view(), (scheme, Scales::Half), &hessian, None);
            assert!(exact.error < 1.05 * free.error, "{scheme}: {} {}", exact.error, free.error);
            for row in 0..rows {
                let scale = f64::from(exact.matrix.row_scale[row]);
                let multipliers = exact.matrix.multipliers(row);
                let products =
                    multipliers.iter().map(|m| scale * f64::from(*m)).chain(multipliers.is_empty().then_some(scale));
                for product in products {
                    assert_eq!(half::f16::from_f64(product).to_f64(), product, "{scheme}, row {row}");
                }
            }
        }
    }

    /// The rows of a split are those of the matrix in their schemes, bit for bit.
    #[test]
    fn rows_of_a_split_are_rounded_as_in_their_schemes() {
        let (rows, columns, split) = (90, 80, QuantScheme::Split { wide_rows: 64 });
        let weights = random(7, rows, columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        let in_scheme = |scheme| quantize_matrix(weights.view(), (scheme, Scales::Any), &hessian, None).matrix;
        let part = |rows, scheme| in_scheme(scheme).part(rows, scheme);
        assert_eq!(in_scheme(split), QuantizedMatrix::of_parts(split, (rows, columns), part));
    }

    #[test]
    fn what_is_held_stays_zero() {
        let (rows, columns) = (5, 64);
        let weights = random(3, rows, columns);
        let held = Array2::from_shape_fn((rows, columns), |(_, column)| column % 4 < 2);
        let hessian = Hessian::new(&moments(columns, 300)).expect("it is positive definite");
        let rounded = quantize_matrix(weights.view(), (QuantScheme::W4G32, Scales::Any), &hessian, Some(held.view()));
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
        assert_eq!(hessian.factor.dead, [7]);
        let rounded = quantize_matrix(weights.view(), (QuantScheme::W4G32, Scales::Any), &hessian, None);
        assert!(rounded.matrix.values.slice(s![0, ..]).iter().all(|value| *value == 0));
        assert!(rounded.error.is_finite() && rounded.matrix.row_scale.iter().all(|scale| scale.is_finite()));
    }
}
