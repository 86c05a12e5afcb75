//! Rounding one row of weights to a grid with scales searched to minimise Σ_j h_j (w_j − ŵ_j)², h_j the importance of
//! column j.
//!
//! Without groups, the scale is tried from largest/high downward, high the largest integer. With groups, every group first
//! finds its best real-valued step d on a grid of both signs around largest/low (the signed maximum at low, the least
//! integer), refitted by least squares; the row scale is the largest |d| over that of a multiplier; then every group picks its
//! multiplier among the integers near d / row scale, of either sign, by the same error with the step that the artifact will
//! hold.
//!
//! Sums have eight parts in a fixed order and nothing is contracted: the same bits for every width of vectors.

use super::{Grid, nearest};
use pulp::NullaryFnOnce;

/// Factors on the step that puts the signed maximum at the least integer.
const STEPS: usize = 17;
const SMALLEST_FACTOR: f32 = 0.75;
const LARGEST_FACTOR: f32 = 1.15;
/// Multipliers tried on each side of the nearest.
const NEIGHBOURS: i32 = 3;
/// Scales tried for a row without groups, each 1 % below the one before.
const ROW_SCALES: usize = 12;

/// A rounded row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// (columns)
    pub integers: Vec<i8>,
    /// One for the row.
    pub scale: f32,
    /// (groups)
    pub multipliers: Vec<i8>,
}

/// Rounds a row; `importance` weighs its columns.
///
/// # Panics
/// If there is not an importance for every column.
pub fn round_row(row: &[f32], importance: &[f32], grid: Grid) -> Row {
    assert_eq!(row.len(), importance.len());
    pulp::Arch::new().dispatch(Search { row, importance, grid })
}

/// A row to be rounded.
struct Search<'w> {
    /// (columns)
    row: &'w [f32],
    /// (columns)
    importance: &'w [f32],
    grid: Grid,
}

impl NullaryFnOnce for Search<'_> {
    type Output = Row;

    #[inline(always)]
    fn call(self) -> Row {
        let Search { row, importance, grid } = self;
        match grid.group {
            None => whole_row(row, importance, grid),
            Some(group) => grouped_row(row, importance, group, grid),
        }
    }
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |most, weight| weight.abs().max(most))
}

/// Σ f(a, b)
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let (whole_a, whole_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(a, b)| f(*a, *b)).sum();
    for (a, b) in whole_a.zip(whole_b) {
        for k in 0..8 {
            sums[k] += f(a[k], b[k]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Σ h (w − step · q)² with q = round(w / step) clamped to the limits.
#[inline(always)]
fn error(weights: &[f32], importance: &[f32], step: f32, limits: (f32, f32)) -> f32 {
    let inverse = 1.0 / step;
    sum_of(weights, importance, |weight, h| {
        let miss = weight - step * nearest(weight * inverse, limits);
        h * miss * miss
    })
}

/// A row of one scale.
#[inline(always)]
fn whole_row(row: &[f32], importance: &[f32], grid: Grid) -> Row {
    let (low, high) = grid.limits;
    let widest = largest(row) / high;
    if widest < f32::MIN_POSITIVE {
        return Row { integers: vec![0; row.len()], scale: 0.0, multipliers: Vec::new() };
    }
    let scales = (0..ROW_SCALES).map(|n| grid.scales.nearest(widest * (1.0 - 0.01 * n as f32), false));
    let scales = scales.map(|scale| (scale, scale));
    let scale = smallest_error(scales, row, importance, (low, high)).unwrap_or(grid.scales.nearest(widest, false));
    let inverse = 1.0 / scale;
    let integers = row.iter().map(|weight| (weight * inverse).round_ties_even().clamp(low, high) as i8);
    Row { integers: integers.collect(), scale, multipliers: Vec::new() }
}

/// A row whose groups of columns have multipliers. Loops, not adapters with closures: a closure's body handed to a function
/// of the standard library stays a function of its own, compiled for any CPU.
#[inline(always)]
fn grouped_row(row: &[f32], importance: &[f32], group: usize, grid: Grid) -> Row {
    let (low, high) = grid.limits;
    let groups: Vec<(&[f32], &[f32])> = row.chunks(group).zip(importance.chunks(group)).collect();
    let mut steps = Vec::with_capacity(groups.len());
    for (weights, h) in &groups {
        steps.push(real_step(weights, h, (low, high)));
    }
    // Not below: the largest step has a multiplier.
    let scale = grid.scales.above(largest(&steps) / grid.most, true);
    if scale < f32::MIN_POSITIVE {
        return Row { integers: vec![0; row.len()], scale: 0.0, multipliers: vec![1; groups.len()] };
    }
    let most = grid.most as i32;
    let mut integers = Vec::with_capacity(row.len());
    let mut multipliers = Vec::with_capacity(groups.len());
    for ((weights, h), step) in groups.into_iter().zip(steps) {
        let centre = (step / scale).round_ties_even() as i32;
        let near = |centre: i32| (centre - NEIGHBOURS..=centre + NEIGHBOURS).filter(|m| *m != 0 && m.abs() <= most);
        let step_of = |multiplier: i32| scale * multiplier as f32;
        let candidates = near(centre).chain(near(-centre)).map(|multiplier| (multiplier, step_of(multiplier)));
        let multiplier = smallest_error(candidates, weights, h, (low, high)).unwrap_or(1);
        let inverse = 1.0 / step_of(multiplier);
        integers.extend(weights.iter().map(|weight| (weight * inverse).round_ties_even().clamp(low, high) as i8));
        multipliers.push(multiplier as i8);
    }
    Row { integers, scale, multipliers }
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
fn refit(weights: &[f32], importance: &[f32], step: f32, limits: (f32, f32)) -> f32 {
    let inverse = 1.0 / step;
    let value = |weight: f32| nearest(weight * inverse, limits);
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
    limits: (f32, f32),
) -> Option<T> {
    let mut best: Option<(T, f32)> = None;
    for (candidate, step) in candidates {
        let miss = error(weights, importance, step, limits);
        if miss.is_finite() && best.is_none_or(|(_, least)| miss < least) {
            best = Some((candidate, miss));
        }
    }
    best.map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::Scales;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wide_vectors_change_no_bit(row in proptest::collection::vec(-3f32..3.0, 1..100), grouped: bool) {
            let importance: Vec<f32> = (0..row.len()).map(|n| 0.5 + (n % 7) as f32).collect();
            let grid = Grid { limits: (-8.0, 7.0), group: grouped.then_some(32), most: 127.0, scales: Scales::Any };
            let narrow = Search { row: &row, importance: &importance, grid }.call();
            prop_assert_eq!(round_row(&row, &importance, grid), narrow);
        }
    }
}
