//! Layout r8k8.2c: a vector is two rows of 8 columns. Two tokens give a 2 × 2 block of sums with `smmla`; one token
//! uses `sdot`, whose lanes are halves of rows, joined at the end. So do 2:4 matrices, since every row selects its own
//! activations.

use super::{SHARED, load, load_tile, nibbles, places, sdot};
use crate::format::artifact::Matrix;
use crate::kernels::columns::Columns;
use crate::kernels::tiles::{self, TileSums};
use crate::kernels::{Activations, Kernels, scalar};
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, TileShape};
use core::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vcombine_s8, vdupq_n_s32, vget_high_s16, vget_low_s16, vld1_s8, vld1q_s8,
    vld1q_u8, vmlaq_s32, vmovl_s8, vmovl_s16, vpaddq_s32, vqtbl1q_s8, vreinterpretq_u8_s8, vreinterpretq_u8_u32,
    vreinterpretq_u32_u8, vshlq_u8, vshrq_n_s32, vst1q_s32, vuzp1q_s32, vuzp2q_s32, vzip1q_u32, vzip2q_u32,
};
use core::arch::asm;
use core::ops::Range;

/// The table for CPUs with the int8 matrix multiply instructions.
pub(in crate::kernels) const I8MM: Kernels = Kernels { name: "i8mm", layout: Some(Layout::R8K8), multiply, ..SHARED };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R8K8 => tiles::multiply::<ROWS, MatrixMultiply>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 8;
/// Bytes of a step: 8 rows of 8 columns.
const STEP: usize = ROWS * 8;

/// [[a0·b0, a0·b1], [a1·b0, a1·b1]] is added to the sums, with two rows of eight in a and in b.
#[inline(always)]
fn smmla(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only; reached through tables of CPUs that have the instruction.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

struct MatrixMultiply;

/// Sums of the four pairs of rows. With `smmla`, for two tokens: lanes are (row, token). With `sdot`, for one: lanes
/// are (row, half of its columns).
type Sums = [int32x4_t; 4];

#[inline(always)]
fn zero<const N: usize>() -> [Sums; N] {
    // SAFETY: NEON is part of AArch64.
    [[unsafe { vdupq_n_s32(0) }; 4]; N]
}

/// Eight activations of two rows, or of one row twice.
///
/// # Safety
/// Both have eight values from `at`.
#[inline(always)]
unsafe fn pair(a: &[i8], b: &[i8], at: usize) -> int8x16_t {
    debug_assert!(at + 8 <= a.len() && at + 8 <= b.len());
    // SAFETY: the caller's promise.
    unsafe { vcombine_s8(vld1_s8(a.as_ptr().add(at)), vld1_s8(b.as_ptr().add(at))) }
}

/// One token's `sdot` sums with rows 0 to 3 and 4 to 7 as lanes.
#[inline(always)]
fn join([a, b, c, d]: Sums) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of AArch64.
    unsafe { [vpaddq_s32(a, b), vpaddq_s32(c, d)] }
}

/// Two tokens' `smmla` sums with rows 0 to 3 and 4 to 7 as lanes.
#[inline(always)]
fn part([a, b, c, d]: Sums) -> [[int32x4_t; 2]; 2] {
    // SAFETY: NEON is part of AArch64.
    unsafe { [[vuzp1q_s32(a, b), vuzp1q_s32(c, d)], [vuzp2q_s32(a, b), vuzp2q_s32(c, d)]] }
}

/// M rows of sums, lanes as rows, from sums in pairs of tokens (and a last one alone).
#[inline(always)]
fn by_rows<const M: usize>(sums: [Sums; M]) -> [[int32x4_t; 2]; M] {
    if M == 1 {
        return sums.map(join);
    }
    core::array::from_fn(|m| part(sums[m / 2])[m % 2])
}

/// One vector of weights, two rows, with M rows of activations: `inputs[i]` is rows 2 i and 2 i + 1, or, where M is 1,
/// one row twice.
#[inline(always)]
fn step<const M: usize>(sums: &mut [Sums; M], pair: usize, weights: int8x16_t, inputs: &[int8x16_t; M]) {
    if M == 1 {
        sums[0][pair] = sdot(sums[0][pair], weights, inputs[0]);
        return;
    }
    for two in 0..M / 2 {
        sums[two][pair] = smmla(sums[two][pair], weights, inputs[two]);
    }
}

/// Eight activations of M rows, in the form [`step`] takes.
///
/// # Safety
/// Rows have eight values from `at`.
#[inline(always)]
unsafe fn inputs<const M: usize>(rows: [&[i8]; M], at: usize) -> [int8x16_t; M] {
    // SAFETY: the caller's promise; the second half of the array is not used where M is not 1.
    core::array::from_fn(|i| unsafe {
        match M {
            1 => pair(rows[0], rows[0], at),
            _ => pair(rows[2 * i % M], rows[(2 * i + 1) % M], at),
        }
    })
}

/// Adds the sums of a group, sixteen times too large, times its multipliers.
///
/// # Safety
/// The tile has 8 bytes from `at`.
#[inline(always)]
unsafe fn add_group<const M: usize>(
    totals: &mut [[int32x4_t; 2]; M],
    group: [[int32x4_t; 2]; M],
    tile: &[u8],
    at: usize,
) {
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
fn store<const M: usize>(sums: [[int32x4_t; 2]; M]) -> [[i32; ROWS]; M] {
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

/// First index of the four columns of each kept value of 16 dense columns: two rows of eight.
const BASE: [u8; 16] = [0, 0, 4, 4, 8, 8, 12, 12, 0, 0, 4, 4, 8, 8, 12, 12];
/// Shifts of the indices of 8 kept columns: the first and the second eight of a group.
const DOWN: [[i8; 16]; 2] = [
    [0, 0, 0, 0, -2, -2, -2, -2, 0, 0, 0, 0, -2, -2, -2, -2],
    [-4, -4, -4, -4, -6, -6, -6, -6, -4, -4, -4, -4, -6, -6, -6, -6],
];

/// The planes of a group, four bytes a row, each row's twice: one vector for a pair of rows.
///
/// # Safety
/// The tile has 32 bytes from `at`.
#[inline(always)]
unsafe fn planes(tile: &[u8], at: usize) -> [uint8x16_t; 4] {
    // SAFETY: the caller's promise; NEON is part of AArch64.
    unsafe {
        let [low, high] = [at, at + 16].map(|at| vreinterpretq_u32_u8(vreinterpretq_u8_s8(load_tile(tile, at))));
        [vzip1q_u32(low, low), vzip2q_u32(low, low), vzip1q_u32(high, high), vzip2q_u32(high, high)]
            .map(|planes| vreinterpretq_u8_u32(planes))
    }
}

/// A group of a 2:4 matrix, 32 dense columns of each row: `weights(step, pair)` are its kept values, 8 of two rows.
///
/// # Safety
/// Rows have 32 values from `column`.
#[inline(always)]
unsafe fn sparse_group<const M: usize>(
    sums: &mut [Sums; M],
    planes: [uint8x16_t; 4],
    rows: [&[i8]; M],
    column: usize,
    weights: impl Fn(usize, usize) -> int8x16_t,
) {
    // SAFETY: the caller's promise for rows; NEON is part of AArch64.
    unsafe {
        let base = vld1q_u8(BASE.as_ptr());
        for (step, down) in DOWN.iter().enumerate() {
            let down = vld1q_s8(down.as_ptr());
            for (pair, &planes) in planes.iter().enumerate() {
                let places = places(vshlq_u8(planes, down), base);
                let weights = weights(step, pair);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let selected = vqtbl1q_s8(load(row, column + step * 16), places);
                    sums[pair] = sdot(sums[pair], weights, selected);
                }
            }
        }
    }
}

impl TileSums<ROWS> for MatrixMultiply {
    const THREE: bool = false;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut sums = zero::<M>();
        for eight in 0..shape.blocks * BLOCK_COLUMNS / 8 {
            // SAFETY: eight columns of a row, 64 bytes of the tile.
            unsafe {
                let inputs = inputs(rows, eight * 8);
                for pair in 0..4 {
                    step(&mut sums, pair, load_tile(tile, eight * STEP + pair * 16), &inputs);
                }
            }
        }
        store(by_rows(sums))
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut totals = by_rows(zero::<M>());
        for group in 0..shape.blocks {
            let mut sums = zero::<M>();
            // SAFETY: a group has 32 columns, 128 bytes of values and 8 multipliers.
            unsafe {
                for eight in 0..2 {
                    let column = group * BLOCK_COLUMNS + eight * 8;
                    let (low, high) = (inputs(rows, column), inputs(rows, column + 16));
                    for pair in 0..4 {
                        let weights = nibbles(load_tile(tile, (group * 2 + eight) * STEP + pair * 16));
                        step(&mut sums, pair, weights.0, &low);
                        step(&mut sums, pair, weights.1, &high);
                    }
                }
                add_group(&mut totals, by_rows(sums), tile, shape.multiplier_offset(0, group));
            }
        }
        store(totals)
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut sums = zero::<M>();
        for group in 0..shape.blocks {
            // SAFETY: a group has 32 columns, 128 bytes of kept values and 32 of planes.
            unsafe {
                let planes = planes(tile, shape.value_bytes + group * KEPT / 4 * ROWS);
                sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, pair| {
                    load_tile(tile, (group * 2 + step) * STEP + pair * 16)
                });
            }
        }
        store(sums.map(join))
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut totals = by_rows(zero::<M>());
        for group in 0..shape.blocks {
            let mut sums = zero::<M>();
            // SAFETY: a group has 32 columns, 32 bytes of planes and 8 multipliers, a pair of groups 128 bytes of values:
            // low nibbles, high nibbles.
            unsafe {
                let planes = planes(tile, shape.value_bytes + group * KEPT / 4 * ROWS);
                let bytes =
                    |step: usize, pair: usize| nibbles(load_tile(tile, (group / 2 * 2 + step) * STEP + pair * 16));
                match group % 2 {
                    0 => sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, pair| bytes(step, pair).0),
                    _ => sparse_group(&mut sums, planes, rows, group * BLOCK_COLUMNS, |step, pair| bytes(step, pair).1),
                }
                add_group(&mut totals, sums.map(join), tile, shape.multiplier_offset(0, group));
            }
        }
        store(totals)
    }
}
