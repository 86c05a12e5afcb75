//! Coordinate descent on tr(E H Eᵀ) of rows that are rounded: row scale, multipliers and single integers each move to where
//! it has its minimum along them (CDQuant 2024).

use super::super::vector::{add, dot, nearest, wide};
use super::{Hessian, Row, errors, weights_of};
use crate::model::matrix::{row_major, row_major_mut};
use ndarray::ArrayView2;
use pulp::NullaryFnOnce;
use slm_runtime::layout::MAX_MULTIPLIER;
use std::ops::Range;

/// Passes over the integers of a row in one round.
const SWEEPS: usize = 3;

/// Moves row scale, multipliers and integers to the minimum along each, and measures.
pub(super) fn descend(
    weights: ArrayView2<'_, f32>,
    rows: &mut [Row],
    hessian: &Hessian,
    held: Option<ArrayView2<'_, bool>>,
    bounds: (f32, f32),
) {
    let columns = hessian.columns();
    let gram = row_major(hessian.gram.view());
    let rounded = weights_of(rows, columns);
    let mut gradients = hessian.products((&weights - &rounded).view());
    let of_rounded = hessian.products(rounded.view());
    let (rounded, of_rounded) = (row_major(rounded.view()), row_major(of_rounded.view()));
    let gradients = row_major_mut(&mut gradients).chunks_exact_mut(columns);
    for (n, (row, gradient)) in rows.iter_mut().zip(gradients).enumerate() {
        let at = n * columns..(n + 1) * columns;
        let held = held.map(|held| &row_major(held)[at.clone()]);
        let rounded = [&rounded[at.clone()], &of_rounded[at]];
        wide(Descent { row, gradient, rounded, gram, held, bounds });
    }
    // Sums of many small moves drift; the errors that are compared are computed anew.
    let measured = errors(weights, rows, hessian);
    rows.iter_mut().zip(measured).for_each(|(row, error)| row.error = error);
}

/// One row in [`descend`].
struct Descent<'w> {
    row: &'w mut Row,
    /// (columns): (w − ŵ) H
    gradient: &'w mut [f32],
    /// (columns): ŵ, and ŵ H.
    rounded: [&'w [f32]; 2],
    /// H, (columns, columns)
    gram: &'w [f32],
    held: Option<&'w [bool]>,
    bounds: (f32, f32),
}

impl NullaryFnOnce for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Descent { row, gradient, rounded: [weights, product], gram, held, bounds: (low, high) } = self;
        let columns = gradient.len();
        // The row scale: along ŵ, the minimum is at (g · ŵ) / (ŵ H ŵ).
        let factor = dot(gradient, weights) / dot(product, weights);
        let scale = row.scale * (1.0 + factor);
        if factor.is_finite() && factor > -0.5 && scale.is_finite() {
            row.scale = scale;
            add(gradient, -factor, product);
        }
        for _ in 0..SWEEPS {
            let mut moved = false;
            for group in 0..row.multipliers.len() {
                moved |= move_multiplier(row, group, gradient, gram, columns);
            }
            for (column, of_column) in gram.chunks_exact(columns).enumerate() {
                let step = row.step(column);
                if step == 0.0 || held.is_some_and(|held| held[column]) {
                    continue;
                }
                let value = row.values[column];
                let target = nearest(value + gradient[column] / (step * of_column[column]), low, high);
                if target != value {
                    add(gradient, -step * (target - value), of_column);
                    row.values[column] = target;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    }
}

/// Along v = scale · q of one group the minimum is at (g · v) / (v H v) more of the multiplier.
#[inline(always)]
fn move_multiplier(row: &mut Row, group: usize, gradient: &mut [f32], gram: &[f32], columns: usize) -> bool {
    let Range { start, end } = row.columns_of(group, columns);
    let most = f32::from(MAX_MULTIPLIER);
    let direction: Vec<f32> = row.values[start..end].iter().map(|value| row.scale * value).collect();
    let mut curvature = 0.0;
    for (k, along) in direction.iter().enumerate() {
        curvature += along * dot(&gram[(start + k) * columns + start..][..end - start], &direction);
    }
    let change = nearest(dot(&gradient[start..end], &direction) / curvature, -2.0 * most, 2.0 * most);
    let multiplier = row.multipliers[group] + change;
    if !change.is_finite() || change == 0.0 || multiplier == 0.0 || multiplier.abs() > most {
        return false;
    }
    row.multipliers[group] = multiplier;
    for (k, along) in direction.iter().enumerate() {
        add(gradient, -change * along, &gram[(start + k) * columns..][..columns]);
    }
    true
}
