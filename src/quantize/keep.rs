//! Integers that a source already holds, taken over instead of rounding again. The integers stay; what changes are the
//! scales of groups, which become multiples of one scale a row:
//!
//! ```text
//! source   w[o, i] = scale[o, g] · q[o, i]
//! w8       row_scale[o] · q[o, i]                        where all groups of a row have one scale
//! others   row_scale[o] · (multiplier[o, h] · q[o, i])   h = i / group, a source's group being one or several of these
//! ```
//!
//! Row scale and multipliers minimise Σ_h e_h (scale_h − row_scale · multiplier_h)², e_h the sum of the squared integers of
//! group h: over the row scales that give the largest group a multiplier from 64 to 127, each refitted by least squares. The
//! error that is reported is that of the weights.

use super::method::Method;
use super::{Grids, MatrixReport, Scales, each_matrix, search};
use crate::model::id::LinearId;
use crate::model::integers::{GroupedIntegers, Unfit};
use crate::model::matrix::from_rows;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::size::scheme_of;
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use rayon::prelude::*;
use slm_runtime::layout::MAX_MULTIPLIER;
use std::collections::BTreeMap;

/// Least multiplier of the largest group of a row that is tried.
const LEAST_MULTIPLIER: i32 = 64;

/// Every matrix of a dense model by its scheme: with the integers that `integers` gives where they fit it, else rounded plainly,
/// which the report says with the reason. Which fit is known before, by the source's grid.
///
/// # Errors
/// Weights or integers that cannot be read.
pub fn keep<E: From<ModelError>>(
    model: &Model,
    grids: Grids<'_>,
    integers: &mut dyn FnMut(LinearId, QuantScheme) -> Result<Result<GroupedIntegers, Unfit>, E>,
    progress: &dyn Progress,
) -> Result<(Model, BTreeMap<LinearId, MatrixReport>), E> {
    each_matrix(model, progress, |id, weights| {
        let (scheme, scales) = (scheme_of(grids.assignment, id).map_err(ModelError::from)?, grids.scales);
        match integers(id, scheme)?.and_then(|integers| taken_over(&integers, (scheme, scales))) {
            Ok(matrix) => {
                let report = MatrixReport::new(id, weights, &matrix, None);
                Ok((matrix, MatrixReport { method: Method::Keep, ..report }))
            }
            Err(reason) => {
                let matrix = search::quantize_matrix_on(weights, (scheme, scales), None);
                let report = MatrixReport::new(id, weights, &matrix, None);
                Ok((matrix, MatrixReport { fallback: Some(format!("rounded: {reason}")), ..report }))
            }
        }
    })
}

/// A row of a matrix in its scheme.
struct Row {
    integers: Vec<i8>,
    scale: f32,
    multipliers: Vec<i8>,
}

/// Integers in a scheme, or why they do not fit it.
///
/// # Errors
/// The reason.
pub fn taken_over(
    integers: &GroupedIntegers,
    (scheme, row_scales): (QuantScheme, Scales),
) -> Result<QuantizedMatrix, Unfit> {
    integers.grid().fit(scheme)?;
    let columns = integers.values.ncols();
    let rows: Vec<Row> = (0..integers.values.nrows())
        .into_par_iter()
        .map(|row| {
            let values = integers.values.row(row);
            let scales = integers.scales.row(row);
            let (values, scales) = (values.as_slice().unwrap_or_default(), scales.as_slice().unwrap_or_default());
            row_of(values, scales, integers.group, (scheme.of_row(row), row_scales))
        })
        .collect();
    let mut values = Vec::with_capacity(integers.values.len());
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        values.extend(row.integers);
        row_scale.push(row.scale);
        multiplier.extend(row.multipliers);
    }
    Ok(QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier))
}

/// One row, which fits: (columns) integers, (groups) scales of `source_group` columns each.
fn row_of(values: &[i8], scales: &[f32], source_group: usize, (scheme, row_scales): (QuantScheme, Scales)) -> Row {
    match scheme.def().group {
        // −128 is the one integer of 8 bits that w8 lacks.
        None => {
            let low = scheme.def().range.0;
            let scale = scales.first().copied().unwrap_or(0.0);
            let exact = row_scales.nearest(scale.abs(), false).copysign(scale);
            signed(values.iter().map(|value| (*value).max(low)).collect(), exact)
        }
        Some(group) => grouped(values.to_vec(), (scales, source_group), group, row_scales),
    }
}

/// A row of one scale; row scales are not negative.
fn signed(mut integers: Vec<i8>, scale: f32) -> Row {
    if scale < 0.0 {
        integers.iter_mut().for_each(|value| *value = -*value);
    }
    Row { integers, scale: scale.abs(), multipliers: Vec::new() }
}

/// A row whose groups of `group` columns have multipliers.
fn grouped(mut integers: Vec<i8>, (scales, source_group): (&[f32], usize), group: usize, row_scales: Scales) -> Row {
    let targets: Vec<(f64, f64)> = integers
        .chunks(group)
        .enumerate()
        .map(|(index, values)| {
            let scale = scales[(index * group / source_group).min(scales.len() - 1)];
            (values.iter().map(|value| f64::from(*value).powi(2)).sum(), f64::from(scale))
        })
        .collect();
    let largest =
        targets.iter().filter(|(energy, _)| *energy > 0.0).fold(0f64, |most, (_, scale)| most.max(scale.abs()));
    if largest < f64::from(f32::MIN_POSITIVE) * f64::from(MAX_MULTIPLIER) {
        return Row { integers: vec![0; integers.len()], scale: 0.0, multipliers: vec![1; targets.len()] };
    }
    let candidates = (LEAST_MULTIPLIER..=i32::from(MAX_MULTIPLIER))
        .map(|most| refitted(&targets, largest / f64::from(most), row_scales));
    let scale =
        candidates.fold((f64::INFINITY, largest), |best, next| if next.0 < best.0 { next } else { best }).1 as f32;
    let mut multipliers = Vec::with_capacity(targets.len());
    for ((_, target), values) in targets.iter().zip(integers.chunks_mut(group)) {
        let multiplier = nearest(*target, f64::from(scale));
        // Zeros are nearer than one step.
        if (target - f64::from(scale) * f64::from(multiplier)).abs() > target.abs() {
            values.fill(0);
        }
        multipliers.push(multiplier as i8);
    }
    Row { integers, scale, multipliers }
}

/// The multiplier nearest to a scale, never 0.
fn nearest(target: f64, scale: f64) -> i32 {
    let most = i32::from(MAX_MULTIPLIER);
    match ((target / scale).round_ties_even() as i32).clamp(-most, most) {
        0 if target < 0.0 => -1,
        0 => 1,
        multiplier => multiplier,
    }
}

/// Error and row scale of the multipliers that a row scale gives, refitted to them.
fn refitted(targets: &[(f64, f64)], scale: f64, row_scales: Scales) -> (f64, f64) {
    let multipliers: Vec<f64> = targets.iter().map(|(_, target)| f64::from(nearest(*target, scale))).collect();
    let sum = |term: &dyn Fn(f64, f64, f64) -> f64| -> f64 {
        targets.iter().zip(&multipliers).map(|((energy, target), multiplier)| term(*energy, *target, *multiplier)).sum()
    };
    let refit = sum(&|energy, target, multiplier| energy * target * multiplier)
        / sum(&|energy, _, multiplier| energy * multiplier * multiplier);
    let error = |scale: f64| sum(&|energy, target, multiplier| energy * (target - scale * multiplier).powi(2));
    let refit = if refit.is_finite() && refit > 0.0 { refit } else { scale };
    let refit = match row_scales {
        Scales::Any => refit,
        Scales::Half => f64::from(row_scales.nearest(refit as f32, true)),
    };
    (error(refit), refit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matrix::row_major;
    use ndarray::Array2;

    /// A matrix in w8 or w4 as a source that has its integers would hand them over, for tests.
    fn as_source(matrix: &QuantizedMatrix) -> GroupedIntegers {
        let group = matrix.scheme.def().group.unwrap_or(matrix.columns());
        let scales = Array2::from_shape_fn((matrix.rows(), matrix.columns().div_ceil(group)), |(row, index)| {
            let multiplier = matrix.multipliers(row).get(index).map_or(1.0, |multiplier| f32::from(*multiplier));
            matrix.row_scale[row] * multiplier
        });
        let values = from_rows(row_major(matrix.values.view()).to_vec(), matrix.columns());
        GroupedIntegers { values, scales, group }
    }

    fn weights(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(row, column)| ((row * 37 + column * 11) % 61) as f32 / 30.0 - 1.0)
    }

    #[test]
    fn own_integers_come_back_with_the_values_they_stand_for() {
        for scheme in [QuantScheme::W8, QuantScheme::W4G32, QuantScheme::W4G64, QuantScheme::W3G32] {
            let matrix = search::quantize_matrix(weights(9, 160).view(), scheme, None);
            let again = taken_over(&as_source(&matrix), (scheme, Scales::Any)).expect("they fit");
            assert_eq!(again.values, matrix.values, "{scheme}");
            for (a, b) in again.dequantize().iter().zip(&matrix.dequantize()) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{scheme}: {a} and {b}");
            }
        }
    }

    #[test]
    fn scales_of_groups_lose_less_than_a_half_of_a_multiplier() {
        let values = Array2::from_shape_fn((4, 256), |(row, column)| ((row * 5 + column * 7) % 16) as i8 - 8);
        let scales =
            Array2::from_shape_fn((4, 8), |(row, group)| (1.0 + ((row * 3 + group * 5) % 7) as f32 / 9.0) * -0.01);
        let integers = GroupedIntegers { values, scales, group: 32 };
        let matrix = taken_over(&integers, (QuantScheme::W4G32, Scales::Any)).expect("they fit");
        assert_eq!(matrix.values, integers.values);
        let (mut miss, mut size) = (0f64, 0f64);
        for ((row, column), weight) in matrix.dequantize().indexed_iter() {
            let original = integers.scales[[row, column / 32]] * f32::from(integers.values[[row, column]]);
            miss += f64::from(weight - original).powi(2);
            size += f64::from(original).powi(2);
        }
        assert!(miss / size < 1e-5, "{}", miss / size);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let integers = |value: i8, groups: usize, group: usize| GroupedIntegers {
            values: Array2::from_elem((2, 64), value),
            scales: Array2::from_shape_fn((2, groups), |(_, group)| 1.0 + group as f32),
            group,
        };
        let reason = |integers: &GroupedIntegers, scheme| {
            taken_over(integers, (scheme, Scales::Any)).expect_err("it does not fit").to_string()
        };
        assert!(reason(&integers(9, 2, 32), QuantScheme::W4G32).contains("[-8, 7], and its own reach 9"));
        assert!(reason(&integers(1, 4, 16), QuantScheme::W4G32).contains("groups of 16"));
        assert!(reason(&integers(1, 2, 32), QuantScheme::W8).contains("one scale a row"));
        assert!(reason(&integers(1, 2, 32), QuantScheme::W4G64).contains("groups of 64 columns"));
        let whole = taken_over(&integers(-128, 1, 64), (QuantScheme::W8, Scales::Any)).expect("it fits");
        assert!(whole.values.iter().all(|value| *value == -127));
        assert_eq!(
            taken_over(&integers(1, 1, 64), (QuantScheme::W4G32, Scales::Any)).expect("it fits").multiplier.ncols(),
            2
        );
    }
}
