//! GPTQ (Frantar et al. 2023): columns are rounded in an order, and those not yet rounded make up for the error of each,
//! w_k −= (w_j − ŵ_j) · U_jk / U_jj with H⁻¹ = Uᵀ U. Within a block of columns one after the other, sixteen rows side by side;
//! a block's errors on all columns after it are one product E · U.

use super::{BLOCK, LANES, Lanes, Rows, add_multiples, nearest, to_lanes};
use crate::product::{Left, Matrix, Output, Right, multiply};
use crate::scratch::Scratch;
use pulp::Simd;
use rayon::prelude::*;

/// Rounds weights, (rows, columns), on the scales and multipliers of `rows`. Where `held` is true, the integer is 0. `upper`
/// is U in the order of rounding.
pub(super) fn compensate(weights: &[f32], rows: &mut Rows, (upper, order): (&[f32], &[usize]), held: Option<&[bool]>) {
    let (columns, count) = (rows.columns, rows.count());
    let mut remainder = Scratch::take(count * columns);
    let remainder = remainder.values();
    remainder.par_chunks_exact_mut(columns).zip(weights.par_chunks_exact(columns)).for_each(|(remainder, weights)| {
        remainder.iter_mut().zip(order).for_each(|(value, &column)| *value = weights[column]);
    });
    let mut errors = Scratch::take(count * BLOCK);
    let mut integers = std::mem::take(&mut rows.integers);
    for first in (0..columns).step_by(BLOCK) {
        let width = BLOCK.min(columns - first);
        let errors = &mut errors.values()[..count * width];
        let of_block = &order[first..first + width];
        let diagonal = &upper[first * columns + first..];
        let lanes = remainder.par_chunks(LANES * columns).zip(integers.par_chunks_mut(LANES * columns));
        lanes.zip(errors.par_chunks_mut(LANES * width)).enumerate().for_each(
            |(tile, ((weights, integers), errors))| {
                let mut block = Block::zeros();
                to_lanes(weights, columns, first..first + width, &mut block.weights[..width]);
                for lane in 0..errors.len() / width {
                    let row = tile * LANES + lane;
                    for (steps, &column) in block.steps.iter_mut().zip(of_block) {
                        let held = held.is_some_and(|held| held[row * columns + column]);
                        steps[lane] = if held { 0.0 } else { rows.step(row, column) };
                    }
                }
                let limits = rows.grid.limits;
                pulp::Arch::new().dispatch(Round {
                    block: &mut block,
                    upper: diagonal,
                    stride: columns,
                    width,
                    limits,
                });
                for (lane, (integers, errors)) in
                    integers.chunks_exact_mut(columns).zip(errors.chunks_exact_mut(width)).enumerate()
                {
                    for (place, &column) in of_block.iter().enumerate() {
                        integers[column] = block.integers[place][lane];
                        errors[place] = block.errors[place][lane];
                    }
                }
            },
        );
        let after = first + width;
        if after < columns {
            let right = Matrix::strided(&upper[first * columns..], columns, width).columns(after, columns - after);
            let left = Left::Rows(Matrix::new(&*errors, width));
            multiply(Output::onto(remainder, columns).at(after), left, Right::Rows(right));
        }
    }
    rows.integers = integers;
}

/// A block of columns of rows side by side.
struct Block {
    weights: [Lanes; BLOCK],
    /// 0 where the integer is to be 0.
    steps: [Lanes; BLOCK],
    integers: [Lanes; BLOCK],
    /// −(w − ŵ) / U_jj
    errors: [Lanes; BLOCK],
}

impl Block {
    fn zeros() -> Self {
        let zeros = [[0.0; LANES]; BLOCK];
        Block { weights: zeros, steps: zeros, integers: zeros, errors: zeros }
    }
}

/// The rounding of a block.
struct Round<'a> {
    block: &'a mut Block,
    /// U from the block's diagonal.
    upper: &'a [f32],
    /// Between rows of U.
    stride: usize,
    /// Columns of the block.
    width: usize,
    limits: (f32, f32),
}

impl pulp::WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.round::<S, 1>(simd),
            8 => self.round::<S, 2>(simd),
            4 => self.round::<S, 4>(simd),
            _ => self.round::<S, 16>(simd),
        }
    }
}

impl Round<'_> {
    #[inline(always)]
    fn round<S: Simd, const V: usize>(self, simd: S) {
        let Round { block, upper, stride, width, limits } = self;
        for column in 0..width {
            let upper = &upper[column * stride..][..width];
            let inverse = 1.0 / upper[column];
            let (weight, step) = (block.weights[column], block.steps[column]);
            let (mut integer, mut error) = ([0.0; LANES], [0.0; LANES]);
            for lane in 0..LANES {
                let value = nearest(weight[lane] / step[lane], limits);
                integer[lane] = if step[lane] == 0.0 { 0.0 } else { value };
                error[lane] = -((weight[lane] - step[lane] * integer[lane]) * inverse);
            }
            block.integers[column] = integer;
            block.errors[column] = error;
            add_multiples::<S, V>(simd, &mut block.weights[column + 1..width], &upper[column + 1..], &error);
        }
    }
}
