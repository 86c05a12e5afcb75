//! Weights to integers, row by row: ŵ_j = scale · multiplier(j) · q_j, where columns that lie together share a multiplier, or
//! none has one. Rows are independent of each other: what a row becomes depends on nothing but its own weights and the
//! moments of its inputs, however many rows are rounded side by side.
//!
//! | module | what it is |
//! |---|---|
//! | [`search`] | scales by search, weights to the nearest integer: plain rounding |
//! | [`compensate`] | one column after the other, the rest making up for its error (GPTQ) |
//! | [`descend`] | coordinate descent on what is rounded |
//! | [`layerwise`] | both in turn, from plain rounding, as long as the error of the outputs falls |

pub mod compensate;
pub mod descend;
pub mod layerwise;
mod scales;
pub mod search;

pub use scales::Scales;

use pulp::Simd;
use std::ops::Range;

/// Rows that are rounded side by side, one in each lane of a vector.
pub(crate) const LANES: usize = 16;
/// Columns whose effect on each other is computed at once; on all others it is a product of matrices.
pub(crate) const BLOCK: usize = 128;

/// A value of each of the rows that are rounded side by side.
pub(crate) type Lanes = [f32; LANES];

/// What a row's weights may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Least and largest integer.
    pub limits: (f32, f32),
    /// Columns that share a multiplier, a power of two; `None` where there are no multipliers.
    pub group: Option<usize>,
    /// Largest magnitude of a multiplier.
    pub most: f32,
    /// Which row scales there are.
    pub scales: Scales,
}

/// Rows on a grid. Integers and multipliers are held as f32, which is exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The grid.
    pub grid: Grid,
    /// Columns of a row.
    pub columns: usize,
    /// (rows)
    pub scales: Vec<f32>,
    /// (rows, groups)
    pub multipliers: Vec<f32>,
    /// (rows, columns)
    pub integers: Vec<f32>,
}

impl Rows {
    /// How many.
    pub fn count(&self) -> usize {
        self.scales.len()
    }

    /// Multipliers of a row.
    pub fn groups(&self) -> usize {
        self.grid.group.map_or(0, |group| self.columns.div_ceil(group))
    }

    /// Distance of neighbouring weights of a row at a column.
    #[inline(always)]
    pub(crate) fn step(&self, row: usize, column: usize) -> f32 {
        match self.grid.group {
            Some(group) => {
                let groups = self.columns.div_ceil(group);
                self.scales[row] * self.multipliers[row * groups + (column >> group.trailing_zeros())]
            }
            None => self.scales[row],
        }
    }

    /// Writes ŵ, (rows, columns).
    pub fn weights(&self, out: &mut [f32]) {
        let group = self.grid.group.unwrap_or(self.columns.max(1));
        for (row, (out, integers)) in
            out.chunks_exact_mut(self.columns).zip(self.integers.chunks_exact(self.columns)).enumerate()
        {
            for (first, (out, integers)) in out.chunks_mut(group).zip(integers.chunks(group)).enumerate() {
                let step = self.step(row, first * group);
                out.iter_mut().zip(integers).for_each(|(out, integer)| *out = step * integer);
            }
        }
    }

    /// Some of the rows.
    pub(crate) fn selected(&self, rows: &[usize]) -> Rows {
        fn gather(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
            rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
        }
        Rows {
            grid: self.grid,
            columns: self.columns,
            scales: gather(&self.scales, 1, rows),
            multipliers: gather(&self.multipliers, self.groups(), rows),
            integers: gather(&self.integers, self.columns, rows),
        }
    }

    /// Makes a row that of others.
    pub(crate) fn take_row(&mut self, row: usize, others: &Rows, other: usize) {
        let (columns, groups) = (self.columns, self.groups());
        let part = |row: usize, width: usize| -> Range<usize> { row * width..(row + 1) * width };
        self.scales[row] = others.scales[other];
        self.multipliers[part(row, groups)].copy_from_slice(&others.multipliers[part(other, groups)]);
        self.integers[part(row, columns)].copy_from_slice(&others.integers[part(other, columns)]);
    }
}

/// The nearest integer within two integers below 2^22, ties to even: by adding and taking away 1.5 · 2^23, which every
/// CPU has a fast instruction for.
#[inline(always)]
pub fn nearest(value: f32, (low, high): (f32, f32)) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value.max(low).min(high) + SHIFT) - SHIFT
}

/// The vectors of lanes.
#[inline(always)]
pub(crate) fn vectors<S: Simd, const V: usize>(lanes: &Lanes) -> [S::f32s; V] {
    let mut vectors = [S::as_simd_f32s(lanes).0[0]; V];
    vectors.copy_from_slice(&S::as_simd_f32s(lanes).0[..V]);
    vectors
}

/// t_k += f_k · s for every k. Vectors lie along the lanes, of which they have `V`: left to the compiler, they may lie along
/// k, with lanes gathered from memory.
#[inline(always)]
pub(crate) fn add_multiples<S: Simd, const V: usize>(simd: S, targets: &mut [Lanes], factors: &[f32], scale: &Lanes) {
    let scale: [S::f32s; V] = vectors::<S, V>(scale);
    for (target, factor) in targets.iter_mut().zip(factors) {
        let factor = simd.splat_f32s(*factor);
        let (target, _) = S::as_mut_simd_f32s(target);
        for v in 0..V {
            target[v] = simd.mul_add_f32s(factor, scale[v], target[v]);
        }
    }
}

/// Σ_k f_k · s_k
#[inline(always)]
pub(crate) fn sum_multiples<S: Simd, const V: usize>(simd: S, factors: &[f32], scales: &[Lanes]) -> Lanes {
    let mut sums = [simd.splat_f32s(0.0); V];
    for (scale, factor) in scales.iter().zip(factors) {
        let factor = simd.splat_f32s(*factor);
        let scale: [S::f32s; V] = vectors::<S, V>(scale);
        for v in 0..V {
            sums[v] = simd.mul_add_f32s(factor, scale[v], sums[v]);
        }
    }
    let mut lanes = [0.0; LANES];
    S::as_mut_simd_f32s(&mut lanes).0[..V].copy_from_slice(&sums);
    lanes
}

/// The columns of some rows as (columns, lanes); rows past the last are zero.
pub(crate) fn to_lanes(rows: &[f32], stride: usize, columns: Range<usize>, lanes: &mut [Lanes]) {
    let count = rows.len().div_ceil(stride).min(LANES);
    if count < LANES {
        lanes.fill([0.0; LANES]);
    }
    for lane in 0..count {
        let row = &rows[lane * stride..][columns.clone()];
        lanes.iter_mut().zip(row).for_each(|(lanes, value)| lanes[lane] = *value);
    }
}

/// Writes (columns, lanes) back to rows.
pub(crate) fn from_lanes(lanes: &[Lanes], rows: &mut [f32], stride: usize, columns: Range<usize>) {
    for (lane, row) in rows.chunks_mut(stride).enumerate() {
        row[columns.clone()].iter_mut().zip(lanes).for_each(|(value, lanes)| *value = lanes[lane]);
    }
}

#[cfg(test)]
mod tests;
