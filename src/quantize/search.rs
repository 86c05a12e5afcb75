//! Rounding one row of weights to a scheme's grid with scales searched to minimise Σ_j h_j (w_j − ŵ_j)², h_j the mean
//! square of input j. Rows are independent.
//!
//! Without groups, the scale is tried from largest/high downward, high the largest integer. With groups, every group first
//! finds its best real-valued step d on a grid of both signs around largest/low (the signed maximum at low, the least
//! integer), refitted by least squares; the row scale is the largest |d| over 127; then every group picks its multiplier among
//! the integers near d / row_scale, of either sign, by the same error with the step that the artifact will hold.

use super::vector::{nearest, sum_of, wide};
use crate::model::matrix::{from_rows, row_major};
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{QuantScheme, SchemeDef};
use ndarray::ArrayView2;
use pulp::NullaryFnOnce;
use rayon::prelude::*;
use slm_runtime::layout::MAX_MULTIPLIER;

/// Factors on the step that puts the signed maximum at the least integer.
const STEPS: usize = 17;
const SMALLEST_FACTOR: f32 = 0.75;
const LARGEST_FACTOR: f32 = 1.15;
/// Multipliers tried on each side of the nearest.
const NEIGHBOURS: i32 = 3;
/// Scales tried for a row without groups, each 1 % below the one before.
const ROW_SCALES: usize = 12;

/// Quantizes a matrix; `importance` (columns) weighs columns, `None` weighs them alike.
///
/// # Panics
/// If the importance is not that of as many columns.
pub fn quantize_matrix(
    weights: ArrayView2<'_, f32>,
    scheme: QuantScheme,
    importance: Option<&[f64]>,
) -> QuantizedMatrix {
    let (rows, columns) = weights.dim();
    let importance = normalised(importance, columns);
    let rounded: Vec<Row> = row_major(weights)
        .par_chunks_exact(columns)
        .enumerate()
        .map(|(index, row)| wide(RowSearch { row, importance: &importance, def: scheme.of_row(index).def() }))
        .collect();
    let mut values = Vec::with_capacity(rows * columns);
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
    for row in rounded {
        values.extend(row.values);
        row_scale.push(row.scale);
        multiplier.extend(row.multipliers);
    }
    QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier)
}

/// Importance with mean 1, and a floor: a channel the calibration never saw still has weights worth keeping.
fn normalised(importance: Option<&[f64]>, columns: usize) -> Vec<f32> {
    let Some(importance) = importance else { return vec![1.0; columns] };
    assert_eq!(importance.len(), columns);
    let mean = importance.iter().sum::<f64>() / columns as f64;
    if !(mean.is_finite() && mean > 0.0) {
        return vec![1.0; columns];
    }
    importance.iter().map(|value| (value / mean).max(1e-4) as f32).collect()
}

struct Row {
    values: Vec<i8>,
    scale: f32,
    multipliers: Vec<i8>,
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |most, weight| weight.abs().max(most))
}

/// Σ h (w − step · q)² with q = round(w / step) clamped to the range.
#[inline(always)]
fn error(weights: &[f32], importance: &[f32], step: f32, low: f32, high: f32) -> f32 {
    let inverse = 1.0 / step;
    sum_of(weights, importance, |weight, h| {
        let miss = weight - step * nearest(weight * inverse, low, high);
        h * miss * miss
    })
}

/// A row to be rounded.
struct RowSearch<'w> {
    /// (columns)
    row: &'w [f32],
    /// (columns)
    importance: &'w [f32],
    def: &'static SchemeDef,
}

impl NullaryFnOnce for RowSearch<'_> {
    type Output = Row;

    #[inline(always)]
    fn call(self) -> Row {
        let RowSearch { row, importance, def } = self;
        match def.group {
            None => whole_row(row, importance, def.limits()),
            Some(group) => grouped_row(row, importance, group, def.limits()),
        }
    }
}

/// A row of one scale.
#[inline(always)]
fn whole_row(row: &[f32], importance: &[f32], (low, high): (f32, f32)) -> Row {
    let widest = largest(row) / high;
    if widest < f32::MIN_POSITIVE {
        return Row { values: vec![0; row.len()], scale: 0.0, multipliers: Vec::new() };
    }
    let scales = (0..ROW_SCALES).map(|n| widest * (1.0 - 0.01 * n as f32)).map(|scale| (scale, scale));
    let scale = smallest_error(scales, row, importance, (low, high)).unwrap_or(widest);
    let inverse = 1.0 / scale;
    let values = row.iter().map(|weight| (weight * inverse).round_ties_even().clamp(low, high) as i8);
    Row { values: values.collect(), scale, multipliers: Vec::new() }
}

/// A row whose groups of columns have multipliers.
#[inline(always)]
fn grouped_row(row: &[f32], importance: &[f32], group: usize, (low, high): (f32, f32)) -> Row {
    let groups: Vec<(&[f32], &[f32])> = row.chunks(group).zip(importance.chunks(group)).collect();
    // Loops, not adapters with closures: see [`super::vector::wide`].
    let mut steps = Vec::with_capacity(groups.len());
    for (weights, h) in &groups {
        steps.push(real_step(weights, h, (low, high)));
    }
    let scale = largest(&steps) / f32::from(MAX_MULTIPLIER);
    if scale < f32::MIN_POSITIVE {
        return Row { values: vec![0; row.len()], scale: 0.0, multipliers: vec![1; groups.len()] };
    }
    let most = i32::from(MAX_MULTIPLIER);
    let mut values = Vec::with_capacity(row.len());
    let mut multipliers = Vec::with_capacity(groups.len());
    for ((weights, h), step) in groups.into_iter().zip(steps) {
        let centre = (step / scale).round_ties_even() as i32;
        let near = |centre: i32| (centre - NEIGHBOURS..=centre + NEIGHBOURS).filter(|m| *m != 0 && m.abs() <= most);
        let step_of = |multiplier: i32| scale * multiplier as f32;
        let candidates = near(centre).chain(near(-centre)).map(|multiplier| (multiplier, step_of(multiplier)));
        let multiplier = smallest_error(candidates, weights, h, (low, high)).unwrap_or(1);
        let inverse = 1.0 / step_of(multiplier);
        values.extend(weights.iter().map(|weight| (weight * inverse).round_ties_even().clamp(low, high) as i8));
        multipliers.push(multiplier as i8);
    }
    Row { values, scale, multipliers }
}

/// The step of least error for one group, of either sign; 0 for a group of zeros.
#[inline(always)]
fn real_step(weights: &[f32], importance: &[f32], (low, high): (f32, f32)) -> f32 {
    let signed = weights.iter().fold(0.0f32, |most, &weight| if weight.abs() > most.abs() { weight } else { most });
    if signed.abs() < f32::MIN_POSITIVE * 1024.0 {
        return 0.0;
    }
    let mut candidates = [(0.0, 0.0); 4 * STEPS];
    for n in 0..STEPS {
        let factor = SMALLEST_FACTOR + (LARGEST_FACTOR - SMALLEST_FACTOR) * n as f32 / (STEPS - 1) as f32;
        let step = factor * signed / low;
        for (sign, step) in [step, -step].into_iter().enumerate() {
            let refitted = refit(weights, importance, step, (low, high));
            candidates[4 * n + 2 * sign] = (step, step);
            candidates[4 * n + 2 * sign + 1] = (refitted, refitted);
        }
    }
    smallest_error(candidates.into_iter(), weights, importance, (low, high)).unwrap_or(signed / low)
}

/// The least-squares step for the integers that `step` gives: Σ h w q / Σ h q².
#[inline(always)]
fn refit(weights: &[f32], importance: &[f32], step: f32, (low, high): (f32, f32)) -> f32 {
    let inverse = 1.0 / step;
    let value = |weight: f32| nearest(weight * inverse, low, high);
    let product = sum_of(weights, importance, |weight, h| h * weight * value(weight));
    let square = sum_of(weights, importance, |weight, h| h * value(weight) * value(weight));
    let fitted = product / square;
    if fitted.is_finite() && fitted != 0.0 { fitted } else { step }
}

/// The first of smallest finite error among candidates with their steps.
#[inline(always)]
fn smallest_error<T: Copy>(
    candidates: impl Iterator<Item = (T, f32)>,
    weights: &[f32],
    importance: &[f32],
    (low, high): (f32, f32),
) -> Option<T> {
    let mut best: Option<(T, f32)> = None;
    for (candidate, step) in candidates {
        let miss = error(weights, importance, step, low, high);
        if miss.is_finite() && best.is_none_or(|(_, least)| miss < least) {
            best = Some((candidate, miss));
        }
    }
    best.map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matrix::view_rows;
    use crate::model::scheme::SCHEMES;
    use ndarray::Array2;
    use proptest::prelude::*;
    use slm_runtime::sample::random_u64;

    /// Sums of uniform draws: bell-shaped weights.
    fn bell(seed: u64, rows: usize, columns: usize) -> Array2<f32> {
        let unit = |n: u64| (random_u64(seed, n) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let draw = |n: u64| (0..6).map(|k| unit(n * 6 + k)).sum();
        Array2::from_shape_fn((rows, columns), |(row, column)| draw((row * columns + column) as u64))
    }

    fn relative_error(weights: &Array2<f32>, matrix: &QuantizedMatrix) -> f64 {
        let miss = weights.iter().zip(matrix.dequantize()).map(|(w, q)| f64::from(w - q).powi(2)).sum::<f64>();
        miss / weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()
    }

    #[test]
    fn rows_of_a_split_are_those_of_their_schemes() {
        let (rows, columns, split) = (75, 70, QuantScheme::Split { wide_rows: 64 });
        let weights = bell(3, rows, columns);
        let in_scheme = |scheme| quantize_matrix(weights.view(), scheme, None);
        let part = |rows, scheme| in_scheme(scheme).part(rows, scheme);
        let matrix = in_scheme(split);
        assert_eq!(matrix, QuantizedMatrix::of_parts(split, (rows, columns), part));
    }

    #[test]
    fn errors_are_those_of_the_formats() {
        let weights = bell(1, 64, 256);
        let bytes = quantize_matrix(weights.view(), QuantScheme::W8, None);
        let nibbles = quantize_matrix(weights.view(), QuantScheme::W4G32, None);
        assert!(relative_error(&weights, &bytes) < 6e-5, "{}", relative_error(&weights, &bytes));
        assert!(relative_error(&weights, &nibbles) < 6.6e-3, "{}", relative_error(&weights, &nibbles));
        // Wider groups and fewer bits cost more, in this order.
        let [wide, three] = [QuantScheme::W4G64, QuantScheme::W3G32]
            .map(|scheme| relative_error(&weights, &quantize_matrix(weights.view(), scheme, None)));
        assert!((6.6e-3..9e-3).contains(&wide) && (2.2e-2..3.2e-2).contains(&three), "{wide} {three}");
    }

    #[test]
    fn importance_moves_error_to_where_it_costs_less() {
        let weights = bell(2, 32, 64);
        let importance: Vec<f64> = (0..64).map(|n| if n % 2 == 0 { 25.0 } else { 0.04 }).collect();
        let cost = |matrix: &QuantizedMatrix| -> f64 {
            let errors = weights.iter().zip(matrix.dequantize()).enumerate();
            errors.map(|(n, (w, q))| importance[n % 64] * f64::from(w - q).powi(2)).sum()
        };
        let plain = quantize_matrix(weights.view(), QuantScheme::W4G32, None);
        let weighted = quantize_matrix(weights.view(), QuantScheme::W4G32, Some(&importance));
        assert!(cost(&weighted) < 0.85 * cost(&plain), "{} {}", cost(&weighted), cost(&plain));
    }

    proptest! {
        #[test]
        fn integers_stay_in_range_whatever_the_weights(
            row in proptest::collection::vec(-1e30f32..1e30, 1..100),
            tiny: bool,
        ) {
            let row: Vec<f32> = if tiny { row.iter().map(|w| w * 1e-38 * 1e-32).collect() } else { row };
            for SchemeDef { scheme, range: (low, high), .. } in SCHEMES {
                let matrix = quantize_matrix(view_rows(&row, row.len()), scheme, None);
                prop_assert!(matrix.values.iter().all(|value| (low..=high).contains(value)));
                prop_assert!(matrix.multiplier.iter().all(|m| *m != 0 && *m != -128));
                prop_assert!(matrix.row_scale[0].is_finite() && matrix.row_scale[0] >= 0.0);
                prop_assert_eq!(matrix.multiplier.len(), matrix.multiplied_rows() * matrix.groups());
            }
        }
    }
}
