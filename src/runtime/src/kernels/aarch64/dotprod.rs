//! Layout r8k4.2c: a step of 4 columns is two vectors of 4 rows each, multiplied with the step's four activations by
//! lane, so that a lane is a row.

use super::{SHARED, load, load_tile, nibbles, places, sdot, sdot_lane};
use crate::format::artifact::Matrix;
use crate::kernels::columns::Columns;
use crate::kernels::tiles::{self, TileSums};
use crate::kernels::{Activations, Kernels, scalar};
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, TileShape};
use core::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddq_s32, vdupq_n_s8, vdupq_n_s32, vget_high_s16, vget_low_s16, vld1_s8,
    vld1q_u8, vmlaq_s32, vmovl_s8, vmovl_s16, vqtbl1q_s8, vreinterpretq_u8_s8, vshlq_u8, vshrq_n_s32, vst1q_s32,
};
use core::ops::Range;

/// The table for CPUs with the dot product instructions.
pub(in crate::kernels) const DOTPROD: Kernels =
    Kernels { name: "dotprod", layout: Some(Layout::R8K4), multiply, ..SHARED };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R8K4 => tiles::multiply::<ROWS, Dot>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 8;
/// Bytes of a step: 8 rows of 4 columns.
const STEP: usize = ROWS * 4;

struct Dot;

type Sums = [int32x4_t; 2];

/// First index, in 16 activations, of the four columns of each kept value of a step of eight dense columns: even step,
/// odd step.
const EVEN: [u8; 16] = [0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4];
const ODD: [u8; 16] = [8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12];

#[inline(always)]
fn zero<const M: usize>() -> [Sums; M] {
    // SAFETY: NEON is part of AArch64.
    [[unsafe { vdupq_n_s32(0) }; 2]; M]
}

/// Four steps of 4 columns: `weights(step, half)` with 16 activations of each row.
#[inline(always)]
fn four_steps<const M: usize>(sums: &mut [Sums; M], rows: [int8x16_t; M], weights: impl Fn(usize, usize) -> int8x16_t) {
    for half in 0..2 {
        let steps: [int8x16_t; 4] = core::array::from_fn(|step| weights(step, half));
        for (sums, &row) in sums.iter_mut().zip(&rows) {
            sums[half] = sdot_lane::<0>(sums[half], steps[0], row);
            sums[half] = sdot_lane::<1>(sums[half], steps[1], row);
            sums[half] = sdot_lane::<2>(sums[half], steps[2], row);
            sums[half] = sdot_lane::<3>(sums[half], steps[3], row);
        }
    }
}

/// Adds the sums of a group, sixteen times too large, times its multipliers.
///
/// # Safety
/// The tile has 8 bytes from `at`.
#[inline(always)]
unsafe fn add_group<const M: usize>(totals: &mut [Sums; M], group: &[Sums; M], tile: &[u8], at: usize) {
    debug_assert!(at + ROWS <= tile.len());
    // SAFETY: the caller's promise; NEON is part of AArch64.
    unsafe {
        let multipliers = vmovl_s8(vld1_s8(tile.as_ptr().add(at).cast()));
        let multipliers = [vmovl_s16(vget_low_s16(multipliers)), vmovl_s16(vget_high_s16(multipliers))];
        for (total, group) in totals.iter_mut().zip(group) {
            for half in 0..2 {
                total[half] = vmlaq_s32(total[half], vshrq_n_s32::<4>(group[half]), multipliers[half]);
            }
        }
    }
}

#[inline(always)]
fn store<const M: usize>(sums: [Sums; M]) -> [[i32; ROWS]; M] {
    sums.map(|[low, high]| {
        let mut out = [0; ROWS];
        // SAFETY: eight places.
        unsafe {
            vst1q_s32(out.as_mut_ptr(), low);
            vst1q_s32(out.as_mut_ptr().add(4), high);
        }
        out
    })
}

/// The two halves of a group's index planes.
///
/// # Safety
/// The tile has 32 bytes from `at`.
#[inline(always)]
unsafe fn planes(tile: &[u8], at: usize) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [vreinterpretq_u8_s8(load_tile(tile, at)), vreinterpretq_u8_s8(load_tile(tile, at + 16))] }
}

/// A group of a 2:4 matrix, 32 dense columns of each row: `weights(step, half)` are its kept values.
///
/// # Safety
/// Rows have 32 values from `column`.
#[inline(always)]
unsafe fn sparse_group<const M: usize>(
    sums: &mut [Sums; M],
    planes: [uint8x16_t; 2],
    rows: [&[i8]; M],
    column: usize,
    weights: impl Fn(usize, usize) -> int8x16_t,
) {
    // SAFETY: the caller's promise for rows; NEON is part of AArch64.
    unsafe {
        let bases = [vld1q_u8(EVEN.as_ptr()), vld1q_u8(ODD.as_ptr())];
        for step in 0..4 {
            let down = vdupq_n_s8(-2 * step as i8);
            for half in 0..2 {
                let places = places(vshlq_u8(planes[half], down), bases[step % 2]);
                let weights = weights(step, half);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let selected = vqtbl1q_s8(load(row, column + step / 2 * 16), places);
                    sums[half] = sdot(sums[half], weights, selected);
                }
            }
        }
    }
}

impl TileSums<ROWS> for Dot {
    const THREE: bool = true;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        // Two sets of sums, for shorter dependency chains.
        let mut sums = [zero::<M>(); 2];
        for group in 0..shape.blocks {
            for (part, sums) in sums.iter_mut().enumerate() {
                let (column, start) = (group * BLOCK_COLUMNS + part * 16, (group * 8 + part * 4) * STEP);
                // SAFETY: a group has 32 columns and 256 bytes.
                unsafe {
                    let values = rows.map(|row| load(row, column));
                    four_steps(sums, values, |step, half| load_tile(tile, start + step * STEP + half * 16));
                }
            }
        }
        let [mut sums, others] = sums;
        for (sums, others) in sums.iter_mut().zip(others) {
            for half in 0..2 {
                // SAFETY: NEON is part of AArch64.
                sums[half] = unsafe { vaddq_s32(sums[half], others[half]) };
            }
        }
        store(sums)
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut totals = zero::<M>();
        for group in 0..shape.blocks {
            let (column, start) = (group * BLOCK_COLUMNS, group * 4 * STEP);
            let mut sums = zero::<M>();
            // SAFETY: a group has 32 columns, 128 bytes of values and 8 multipliers.
            unsafe {
                let bytes = |step: usize, half: usize| nibbles(load_tile(tile, start + step * STEP + half * 16));
                four_steps(&mut sums, rows.map(|row| load(row, column)), |step, half| bytes(step, half).0);
                four_steps(&mut sums, rows.map(|row| load(row, column + 16)), |step, half| bytes(step, half).1);
                add_group(&mut totals, &sums, tile, shape.multiplier_offset(0, group));
            }
        }
        store(totals)
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut sums = zero::<M>();
        for group in 0..shape.blocks {
            let start = group * 4 * STEP;
            // SAFETY: a group has 32 columns, 128 bytes of kept values and 32 of planes.
            unsafe {
                let planes = planes(tile, shape.value_bytes + group * KEPT / 4 * ROWS);
                sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, half| {
                    load_tile(tile, start + step * STEP + half * 16)
                });
            }
        }
        store(sums)
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut totals = zero::<M>();
        for group in 0..shape.blocks {
            // Groups 2 g and 2 g + 1 share bytes: low nibbles, high nibbles.
            let start = group / 2 * 4 * STEP;
            let mut sums = zero::<M>();
            // SAFETY: a group has 32 columns, 32 bytes of planes and 8 multipliers, a pair 128 bytes of values.
            unsafe {
                let planes = planes(tile, shape.value_bytes + group * KEPT / 4 * ROWS);
                let bytes = |step: usize, half: usize| nibbles(load_tile(tile, start + step * STEP + half * 16));
                match group % 2 {
                    0 => sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, half| bytes(step, half).0),
                    _ => sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, half| bytes(step, half).1),
                }
                add_group(&mut totals, &sums, tile, shape.multiplier_offset(0, group));
            }
        }
        store(totals)
    }
}
