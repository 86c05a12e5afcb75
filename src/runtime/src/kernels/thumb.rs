//! Arm M-profile cores with the DSP extension (Cortex-M4, M7, M33), layout r4k4.2c: four bytes become two pairs of 16
//! bits (`sxtb16`), and a pair is multiplied and added in one instruction (`smlad`). Activations are widened once for
//! the four rows of a tile, weights once for two tokens. Nibbles stay sixteen times too large, which a shift of the
//! group's sum undoes exactly. Without a byte shuffle, the activations of 2:4 matrices are loaded one by one.

#![expect(unsafe_code, reason = "instructions and word loads; bounds are those that `tiles::multiply` checks")]

use super::columns::Columns;
use super::tiles::{self, TileSums};
use super::{Activations, Kernels, Rows, SCALAR, scalar};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, TileShape};
use core::arch::asm;
use core::ops::Range;

/// The table of the DSP extension, enabled by the feature `dsp`.
pub(super) fn dsp() -> Option<&'static Kernels> {
    Some(const { &DSP })
}

const DSP: Kernels = Kernels { name: "dsp", layout: Some(Layout::R4K4), multiply, scores, ..SCALAR };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R4K4 => tiles::multiply::<ROWS, Dsp>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 4;
/// Bytes of a step: 4 rows of 4 columns.
const STEP: usize = ROWS * 4;

struct Dsp;

/// Two pairs of 16 bits: bytes 0 and 2, bytes 1 and 3.
type Pairs = [u32; 2];

#[inline(always)]
fn widen(bytes: u32) -> Pairs {
    let (even, odd);
    // SAFETY: registers only, on cores that the feature `dsp` is for; the assembler refuses others.
    unsafe {
        asm!("sxtb16 {0}, {1}", lateout(reg) even, in(reg) bytes, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {0}, {1}, ror #8", lateout(reg) odd, in(reg) bytes, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// sum + Σ of the four products.
#[inline(always)]
fn add_products(sum: i32, a: Pairs, b: Pairs) -> i32 {
    let mut sum = sum;
    // SAFETY: registers only, on cores that the feature `dsp` is for; the assembler refuses others.
    unsafe {
        asm!("smlad {0}, {1}, {2}, {0}", inlateout(reg) sum, in(reg) a[0], in(reg) b[0], options(pure, nomem, nostack));
        asm!("smlad {0}, {1}, {2}, {0}", inlateout(reg) sum, in(reg) a[1], in(reg) b[1], options(pure, nomem, nostack));
    }
    sum
}

/// Four bytes of a tile from `at`.
///
/// # Safety
/// The tile has them.
#[inline(always)]
unsafe fn load(tile: &[u8], at: usize) -> u32 {
    debug_assert!(at + 4 <= tile.len());
    // SAFETY: the caller's promise.
    unsafe { tile.as_ptr().add(at).cast::<u32>().read_unaligned() }
}

/// Four activations of a row from `at`.
///
/// # Safety
/// The row has them.
#[inline(always)]
unsafe fn load_row(row: &[i8], at: usize) -> u32 {
    debug_assert!(at + 4 <= row.len());
    // SAFETY: the caller's promise.
    unsafe { row.as_ptr().add(at).cast::<u32>().read_unaligned() }
}

/// A signed byte of a tile.
///
/// # Safety
/// The tile has it.
#[inline(always)]
unsafe fn byte(tile: &[u8], at: usize) -> i32 {
    debug_assert!(at < tile.len());
    // SAFETY: the caller's promise.
    i32::from(unsafe { *tile.as_ptr().add(at) } as i8)
}

/// Sums of M rows, two at a time: more would not stay in registers.
#[inline(always)]
fn by_two<const M: usize>(
    rows: [&[i8]; M],
    one: impl Fn([&[i8]; 1]) -> [[i32; ROWS]; 1],
    two: impl Fn([&[i8]; 2]) -> [[i32; ROWS]; 2],
) -> [[i32; ROWS]; M] {
    let mut out = [[0; ROWS]; M];
    for (out, rows) in out.chunks_mut(2).zip(rows.chunks(2)) {
        match *rows {
            [a, b] => out.copy_from_slice(&two([a, b])),
            [a] => out.copy_from_slice(&one([a])),
            _ => {}
        }
    }
    out
}

#[inline(always)]
fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
    let mut sums = [[0; ROWS]; M];
    for step in 0..shape.blocks * BLOCK_COLUMNS / 4 {
        // SAFETY: a step has 4 columns and 16 bytes.
        unsafe {
            let values = rows.map(|row| widen(load_row(row, step * 4)));
            for r in 0..ROWS {
                let weights = widen(load(tile, step * STEP + r * 4));
                for (sums, &values) in sums.iter_mut().zip(&values) {
                    sums[r] = add_products(sums[r], weights, values);
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
    let mut totals = [[0i32; ROWS]; M];
    for group in 0..shape.blocks {
        let mut sums = [[0; ROWS]; M];
        for step in 0..4 {
            let column = group * BLOCK_COLUMNS + step * 4;
            // SAFETY: a group has 32 columns and 64 bytes of values.
            unsafe {
                let low = rows.map(|row| widen(load_row(row, column)));
                let high = rows.map(|row| widen(load_row(row, column + 16)));
                for r in 0..ROWS {
                    let bytes = load(tile, (group * 4 + step) * STEP + r * 4);
                    let (first, second) = (widen(bytes << 4 & 0xf0f0_f0f0), widen(bytes & 0xf0f0_f0f0));
                    for (m, sums) in sums.iter_mut().enumerate() {
                        sums[r] = add_products(sums[r], first, low[m]);
                        sums[r] = add_products(sums[r], second, high[m]);
                    }
                }
            }
        }
        add_group(&mut totals, &sums, 4, shape, tile, group);
    }
    totals
}

/// Adds the sums of a group, 2^SHIFT times too large, times its multipliers.
#[inline(always)]
fn add_group<const M: usize>(
    totals: &mut [[i32; ROWS]; M],
    sums: &[[i32; ROWS]; M],
    shift: u32,
    shape: &TileShape,
    tile: &[u8],
    group: usize,
) {
    let at = shape.multiplier_offset(0, group);
    for r in 0..ROWS {
        // SAFETY: a group has a multiplier for each row.
        let multiplier = unsafe { byte(tile, at + r) };
        for (totals, sums) in totals.iter_mut().zip(sums) {
            totals[r] = totals[r].wrapping_add((sums[r] >> shift).wrapping_mul(multiplier));
        }
    }
}

/// Adds a group of a 2:4 matrix; `weight(bytes, h)` is the value of a kept column from the bytes at `start`.
///
/// # Safety
/// Rows have 32 values from `column`; the tile has 64 bytes from `start` and 16 from `planes`.
#[inline(always)]
unsafe fn sparse_group<const M: usize>(
    sums: &mut [[i32; ROWS]; M],
    tile: &[u8],
    (start, planes): (usize, usize),
    rows: [&[i8]; M],
    column: usize,
    weight: impl Fn(i32) -> i32,
) {
    for r in 0..ROWS {
        // SAFETY: the caller's promise; two bits select one of four activations.
        unsafe {
            let plane = load(tile, planes + r * 4);
            for step in 0..4 {
                for kept in 0..4 {
                    let place = (plane >> (8 * kept + 2 * step) & 3) as usize + column + 8 * step + kept / 2 * 4;
                    let weight = weight(byte(tile, start + step * STEP + r * 4 + kept));
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        sums[r] = sums[r].wrapping_add(weight * i32::from(*row.as_ptr().add(place)));
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
    let mut sums = [[0; ROWS]; M];
    for group in 0..shape.blocks {
        let planes = shape.value_bytes + group * KEPT / 4 * ROWS;
        // SAFETY: a group has 32 columns, 64 bytes of kept values and 16 of planes.
        unsafe {
            sparse_group(&mut sums, tile, (group * 4 * STEP, planes), rows, group * BLOCK_COLUMNS, |weight| weight)
        }
    }
    sums
}

#[inline(always)]
fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
    let mut totals = [[0; ROWS]; M];
    for group in 0..shape.blocks {
        let mut sums = [[0; ROWS]; M];
        let places = (group / 2 * 4 * STEP, shape.value_bytes + group * KEPT / 4 * ROWS);
        // SAFETY: a group has 32 columns and 16 bytes of planes, a pair of groups 64 bytes of values: low nibbles, high
        // nibbles.
        unsafe {
            match group % 2 {
                0 => sparse_group(&mut sums, tile, places, rows, group * BLOCK_COLUMNS, |weight| weight << 28 >> 28),
                _ => sparse_group(&mut sums, tile, places, rows, group * BLOCK_COLUMNS, |weight| weight >> 4),
            }
        }
        add_group(&mut totals, &sums, 0, shape, tile, group);
    }
    totals
}

impl TileSums<ROWS> for Dsp {
    const THREE: bool = false;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        by_two(rows, |rows| w8(shape, tile, rows), |rows| w8(shape, tile, rows))
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        by_two(rows, |rows| w4(shape, tile, rows), |rows| w4(shape, tile, rows))
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        by_two(rows, |rows| w8_sparse(shape, tile, rows), |rows| w8_sparse(shape, tile, rows))
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        by_two(rows, |rows| w4_sparse(shape, tile, rows), |rows| w4_sparse(shape, tile, rows))
    }
}

/// See [`Kernels::scores`].
fn scores(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 {
    let width = query.len();
    if !width.is_multiple_of(4) || width == 0 {
        return scalar::scores(keys, query, scale, scores);
    }
    assert!(keys.scales.len() >= scores.len() && keys.values.len() >= scores.len() * width);
    let mut top = f32::NEG_INFINITY;
    for ((slot, key), &key_scale) in scores.iter_mut().zip(keys.values.chunks_exact(width)).zip(keys.scales) {
        let mut sum = 0;
        for at in (0..width).step_by(4) {
            // SAFETY: both slices have `width` values, a multiple of 4.
            let (query, key) = unsafe { (load_row(query, at), load_row(key, at)) };
            sum = add_products(sum, widen(query), widen(key));
        }
        let score = sum as f32 * key_scale * scale;
        top = if score > top { score } else { top };
        *slot = score.to_bits();
    }
    top
}
