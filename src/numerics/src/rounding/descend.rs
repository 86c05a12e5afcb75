//! Coordinate descent on tr(E H Eᵀ) of rows that are rounded, E = W − Ŵ: row scale, multipliers and single integers each
//! move to where it has its minimum along them (CDQuant 2024). With P = E H, the minimum along a direction v of ŵ is at
//! (P · v) / (v H v).
//!
//! Columns are visited in order. Within a block of them P is kept up to date after every move, sixteen rows side by side;
//! what the moves of a block, Δ, do to P elsewhere is one product Δ · H.

use super::{BLOCK, Grid, LANES, Lanes, Rows, Scales, add_multiples, from_lanes, nearest, sum_multiples, to_lanes};
use crate::lanes::vectorised;
use crate::product::{Left, Matrix, Output, Right, multiply};
use crate::scratch::Scratch;
use pulp::Simd;
use rayon::prelude::*;

/// Passes over the integers of a row.
const SWEEPS: usize = 3;

/// Moves row scale, multipliers and integers to the minimum along each. `weights` is W and `weights_gram` W H, (rows,
/// columns) each; `gram` is H, (columns, columns). Where `held` is true, the integer stays. Leaves P in `product`.
pub(super) fn descend(
    weights: &[f32],
    weights_gram: &[f32],
    rows: &mut Rows,
    gram: &[f32],
    held: Option<&[bool]>,
    product: &mut [f32],
) {
    let (columns, count) = (rows.columns, rows.count());
    assert!(rows.grid.group.is_none_or(|group| BLOCK.is_multiple_of(group)), "a block of columns is whole groups");
    refit_scales(weights, weights_gram, rows, gram, product);
    let mut deltas = Scratch::take(count * BLOCK);
    for _ in 0..SWEEPS {
        let mut moved = false;
        for first in (0..columns).step_by(BLOCK) {
            let width = BLOCK.min(columns - first);
            let deltas = &mut deltas.values()[..count * width];
            if !sweep(rows, product, deltas, gram, first, held) {
                continue;
            }
            moved = true;
            let right = Matrix::new(&gram[first * columns..(first + width) * columns], columns);
            multiply(Output::onto(product, columns), Left::Rows(Matrix::new(&*deltas, width)), Right::Rows(right));
        }
        if !moved {
            break;
        }
    }
}

/// P = E H anew, and every row's scale at the minimum along ŵ.
fn refit_scales(weights: &[f32], weights_gram: &[f32], rows: &mut Rows, gram: &[f32], product: &mut [f32]) {
    let (columns, grid) = (rows.columns, rows.grid);
    let mut rounded = Scratch::take(product.len());
    let rounded = rounded.values();
    rows.weights(rounded);
    let mut miss = Scratch::take(product.len());
    let miss = miss.values();
    miss.iter_mut().zip(weights.iter().zip(&*rounded)).for_each(|(miss, (w, r))| *miss = w - r);
    let right = Right::Rows(Matrix::new(gram, columns));
    multiply(Output::over(product, columns), Left::Rows(Matrix::new(miss, columns)), right);
    let of_rows = product.par_chunks_exact_mut(columns).zip(rounded.par_chunks_exact(columns));
    let of_rows = of_rows.zip(weights_gram.par_chunks_exact(columns)).zip(rows.scales.par_iter_mut());
    of_rows.for_each(|(((product, rounded), weights_gram), scale)| {
        vectorised(
            #[inline(always)]
            || {
                // Ŵ H = W H − P
                let (mut along, mut curvature) = ([0.0f32; LANES], [0.0f32; LANES]);
                for (k, ((p, r), wh)) in product.iter().zip(rounded).zip(weights_gram).enumerate() {
                    along[k % LANES] = p.mul_add(*r, along[k % LANES]);
                    curvature[k % LANES] = (wh - p).mul_add(*r, curvature[k % LANES]);
                }
                let factor = along.iter().sum::<f32>() / curvature.iter().sum::<f32>();
                let moved = *scale * (1.0 + factor);
                // Along a line the nearest to the minimum is the least of those that there are.
                let (moved, factor) = match grid.scales {
                    Scales::Any => (moved, factor),
                    Scales::Half => {
                        let nearest = Scales::Half.nearest(moved, grid.group.is_some());
                        (nearest, nearest / *scale - 1.0)
                    }
                };
                if factor.is_finite() && factor > -0.5 && moved.is_finite() {
                    *scale = moved;
                    for (p, wh) in product.iter_mut().zip(weights_gram) {
                        *p = (-factor).mul_add(wh - *p, *p);
                    }
                }
            },
        );
    });
}

/// One pass over the columns of a block from `first`; writes what ŵ loses, (rows, columns of the block), and says whether
/// anything moved.
fn sweep(
    rows: &mut Rows,
    product: &[f32],
    deltas: &mut [f32],
    gram: &[f32],
    first: usize,
    held: Option<&[bool]>,
) -> bool {
    let (columns, groups, grid) = (rows.columns, rows.groups(), rows.grid);
    let width = deltas.len() / rows.count();
    let group = grid.group.unwrap_or(columns);
    // Multipliers of the block; none where rows have none.
    let of_block = if groups == 0 { 0..0 } else { first / group..(first + width).div_ceil(group) };
    let diagonal = &gram[first * columns + first..];
    let mut unused: Vec<[f32; 0]> = vec![[]; rows.count().div_ceil(LANES)];
    let multipliers: Vec<&mut [f32]> = match groups {
        0 => unused.iter_mut().map(<[f32; 0]>::as_mut_slice).collect(),
        _ => rows.multipliers.chunks_mut(LANES * groups).collect(),
    };
    let tiles = rows.integers.par_chunks_mut(LANES * columns).zip(product.par_chunks(LANES * columns));
    let tiles = tiles.zip(deltas.par_chunks_mut(LANES * width)).zip(multipliers).enumerate();
    let scales = &rows.scales;
    let moved = tiles.map(|(tile, (((integers, product), deltas), multipliers))| {
        let mut block = Block::zeros();
        to_lanes(product, columns, first..first + width, &mut block.product[..width]);
        to_lanes(integers, columns, first..first + width, &mut block.integers[..width]);
        let count = deltas.len() / width;
        block.scales[..count].copy_from_slice(&scales[tile * LANES..][..count]);
        for lane in 0..count {
            let held = held.map(|held| &held[(tile * LANES + lane) * columns..][..columns]);
            for (index, multiplier) in of_block.clone().enumerate() {
                block.multipliers[index][lane] = multipliers[lane * groups + multiplier];
            }
            for (place, steps) in block.steps[..width].iter_mut().enumerate() {
                let multiplier = if groups == 0 { 1.0 } else { block.multipliers[place / group][lane] };
                let held = held.is_some_and(|held| held[first + place]);
                steps[lane] = if held { 0.0 } else { block.scales[lane] * multiplier };
            }
        }
        let visit =
            Visit { block: &mut block, gram: diagonal, stride: columns, width, group, groups: of_block.len(), grid };
        let moved = pulp::Arch::new().dispatch(visit);
        from_lanes(&block.integers[..width], integers, columns, first..first + width);
        from_lanes(&block.deltas[..width], deltas, width, 0..width);
        for lane in 0..count {
            for (index, multiplier) in of_block.clone().enumerate() {
                multipliers[lane * groups + multiplier] = block.multipliers[index][lane];
            }
        }
        moved
    });
    moved.reduce(|| false, |a, b| a | b)
}

/// A block of columns of rows side by side.
struct Block {
    /// P
    product: [Lanes; BLOCK],
    integers: [Lanes; BLOCK],
    /// 0 where the integer is to stay.
    steps: [Lanes; BLOCK],
    /// What ŵ lost so far.
    deltas: [Lanes; BLOCK],
    scales: Lanes,
    /// By group, of which the least has 16 columns.
    multipliers: [Lanes; BLOCK / 16],
}

impl Block {
    fn zeros() -> Self {
        let zeros = [[0.0; LANES]; BLOCK];
        let multipliers = [[0.0; LANES]; BLOCK / 16];
        Block { product: zeros, integers: zeros, steps: zeros, deltas: zeros, scales: [0.0; LANES], multipliers }
    }
}

/// The moves of a block.
struct Visit<'a> {
    block: &'a mut Block,
    /// H from the block's diagonal.
    gram: &'a [f32],
    /// Between rows of H.
    stride: usize,
    /// Columns of the block.
    width: usize,
    /// Columns of a group.
    group: usize,
    /// Groups of the block.
    groups: usize,
    grid: Grid,
}

impl pulp::WithSimd for Visit<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> bool {
        match S::F32_LANES {
            16 => self.visit::<S, 1>(simd),
            8 => self.visit::<S, 2>(simd),
            4 => self.visit::<S, 4>(simd),
            _ => self.visit::<S, 16>(simd),
        }
    }
}

impl Visit<'_> {
    /// Moves everything once; whether anything moved.
    #[inline(always)]
    fn visit<S: Simd, const V: usize>(&mut self, simd: S) -> bool {
        let mut moved = false;
        for index in 0..self.groups {
            moved |= self.move_multiplier::<S, V>(simd, index);
        }
        moved | self.move_integers::<S, V>(simd)
    }

    /// Moves the multiplier of a group along v = scale · q of its columns.
    #[inline(always)]
    fn move_multiplier<S: Simd, const V: usize>(&mut self, simd: S, index: usize) -> bool {
        let Visit { block, gram, stride, width, group, grid: Grid { most, .. }, .. } = self;
        let (start, end) = (index * *group, ((index + 1) * *group).min(*width));
        let mut directions = [[0.0; LANES]; BLOCK];
        let directions = &mut directions[..end - start];
        let (mut along, mut curvature) = ([0.0f32; LANES], [0.0f32; LANES]);
        for (place, direction) in directions.iter_mut().enumerate() {
            let (integers, product) = (&block.integers[start + place], &block.product[start + place]);
            for lane in 0..LANES {
                direction[lane] = block.scales[lane] * integers[lane];
                along[lane] = product[lane].mul_add(direction[lane], along[lane]);
            }
        }
        for (place, direction) in directions.iter().enumerate() {
            let factors = &gram[(start + place) * *stride + start..][..end - start];
            let product = sum_multiples::<S, V>(simd, factors, directions);
            for lane in 0..LANES {
                curvature[lane] = product[lane].mul_add(direction[lane], curvature[lane]);
            }
        }
        let mut change = [0.0f32; LANES];
        for lane in 0..LANES {
            let wanted = nearest(along[lane] / curvature[lane], (-2.0 * *most, 2.0 * *most));
            let multiplier = block.multipliers[index][lane] + wanted;
            let possible = curvature[lane] > 0.0 && multiplier != 0.0 && multiplier.abs() <= *most;
            change[lane] = if possible { -wanted } else { 0.0 };
            block.multipliers[index][lane] -= change[lane];
        }
        if change == [0.0; LANES] {
            return false;
        }
        for (place, direction) in directions.iter().enumerate() {
            let column = start + place;
            let mut delta = [0.0; LANES];
            for lane in 0..LANES {
                delta[lane] = change[lane] * direction[lane];
                block.deltas[column][lane] += delta[lane];
                let step = block.scales[lane] * block.multipliers[index][lane];
                block.steps[column][lane] = if block.steps[column][lane] == 0.0 { 0.0 } else { step };
            }
            add_multiples::<S, V>(simd, &mut block.product[..*width], &gram[column * *stride..], &delta);
        }
        true
    }

    /// Moves every integer.
    #[inline(always)]
    fn move_integers<S: Simd, const V: usize>(&mut self, simd: S) -> bool {
        let Visit { block, gram, stride, width, grid: Grid { limits, .. }, .. } = self;
        let mut moved = false;
        for column in 0..*width {
            let of_column = &gram[column * *stride..][..*width];
            let (step, value, product) = (block.steps[column], block.integers[column], block.product[column]);
            let (mut integers, mut delta) = (value, [0.0; LANES]);
            for lane in 0..LANES {
                let wanted = nearest(value[lane] + product[lane] / (step[lane] * of_column[column]), *limits);
                integers[lane] = if step[lane] == 0.0 { value[lane] } else { wanted };
                delta[lane] = step[lane] * (value[lane] - integers[lane]);
            }
            if integers == value {
                continue;
            }
            moved = true;
            block.integers[column] = integers;
            block.deltas[column].iter_mut().zip(delta).for_each(|(sum, delta)| *sum += delta);
            add_multiples::<S, V>(simd, &mut block.product[..*width], of_column, &delta);
        }
        moved
    }
}
