//! WebAssembly with simd128, layout r8k4.off8. A vector of weights is 4 rows of 4 columns. 8-bit products use
//! `i32x4.dot_i16x8` on bytes widened to 16 bits. The sums of a group of nibbles fit in 16 bits, so the `dot` that
//! joins pairs applies the multiplier as well. For 2:4 matrices a swizzle selects the activations of the kept columns.
//!
//! Nibbles of dense matrices are multiplied as they are stored, n = w + 8, with sums that begin at -8 Σ a. A vector of sums
//! has two 16-bit lanes for each of 4 rows, those of columns 0 1 and 2 3 of every step. Each begins at -4 Σ a, and what is in
//! it at any time is at most 15 · 16 · 127 = 30,480. One token is multiplied with two tiles at a time.
//!
//! With relaxed-simd the products are `i16x8.relaxed_dot_i8x16_i7x16`. Its result is one and the same on every machine here:
//! the second operand has 7 bits, and no pair, at most 2 · 15 · 127, saturates. Only such uses of relaxed-simd keep the bits.

#![expect(unsafe_code, reason = "vector loads; bounds are those that `tiles::multiply` checks")]

use super::columns::Columns;
use super::scalar::{self, row_scale};
use super::tiles::{self, TileSums};
use super::{Activations, Kernels, Rows, SCALAR};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, Storage, TileShape};
#[cfg(target_feature = "relaxed-simd")]
use core::arch::wasm32::i16x8_relaxed_dot_i8x16_i7x16;
use core::arch::wasm32::{
    i8x16_shuffle, i8x16_sub, i8x16_swizzle, i16x8_add, i16x8_extadd_pairwise_i8x16, i16x8_extend_high_i8x16,
    i16x8_extend_low_i8x16, i16x8_extmul_high_i8x16, i16x8_extmul_low_i8x16, i16x8_load_extend_i8x8,
    i16x8_narrow_i32x4, i16x8_splat, i32x4_add, i32x4_dot_i16x8, i32x4_extract_lane, i32x4_shr, i32x4_shuffle,
    i32x4_splat, i64x2_shuffle, u8x16, u8x16_shr, u8x16_splat, u16x8_shr, v128, v128_and, v128_load, v128_load32_splat,
    v128_or,
};
#[cfg(not(target_feature = "relaxed-simd"))]
use core::arch::wasm32::{i16x8_mul, i16x8_shl, i16x8_shr};
use core::ops::Range;

/// The table of simd128, which a module has as a whole or not at all: nothing is detected at run time.
pub(super) fn simd128() -> Option<&'static Kernels> {
    Some(const { &SIMD128 })
}

const NAME: &str = if cfg!(target_feature = "relaxed-simd") { "relaxed-simd" } else { "simd128" };
const SIMD128: Kernels = Kernels { name: NAME, layout: Some(Layout::R8K4Offset8), multiply, scores, ..SCALAR };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R8K4Offset8 if matrix.shape.storage == Storage::W4G32 && input.rows() == 1 => {
            decode4(matrix, input, tiles, output);
        }
        Layout::R8K4Offset8 => tiles::multiply::<ROWS, Simd128>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 8;
/// Bytes of a step: 8 rows of 4 columns.
const STEP: usize = ROWS * 4;

struct Simd128;

/// Sums of pairs of rows 0 1, 2 3, 4 5, 6 7: a row has two lanes, which are added at the end.
type Sums = [v128; 4];

/// 16 bytes of a tile from `at`.
///
/// # Safety
/// The tile has them.
#[inline(always)]
unsafe fn load(bytes: &[u8], at: usize) -> v128 {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { v128_load(bytes.as_ptr().add(at).cast()) }
}

/// 8 bytes of a tile from `at`, as 16 bits.
///
/// # Safety
/// The tile has them.
#[inline(always)]
unsafe fn load_widened(bytes: &[u8], at: usize) -> v128 {
    debug_assert!(at + 8 <= bytes.len());
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { i16x8_load_extend_i8x8(bytes.as_ptr().add(at).cast()) }
}

/// [`load`] of a row of activations.
///
/// # Safety
/// The row has 16 values from `at`.
#[inline(always)]
unsafe fn load_row(row: &[i8], at: usize) -> v128 {
    debug_assert!(at + 16 <= row.len());
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { v128_load(row.as_ptr().add(at).cast()) }
}

/// Four values of a row, four times.
///
/// # Safety
/// The row has them from `at`.
#[inline(always)]
unsafe fn splat_four(row: &[i8], at: usize) -> v128 {
    debug_assert!(at + 4 <= row.len());
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { v128_load32_splat(row.as_ptr().add(at).cast()) }
}

/// The low and the high nibbles as values in [-8, 7].
#[inline(always)]
fn nibbles(bytes: v128) -> (v128, v128) {
    let eight = u8x16_splat(8);
    (i8x16_sub(v128_and(bytes, u8x16_splat(15)), eight), i8x16_sub(u8x16_shr(bytes, 4), eight))
}

/// Four activations, four times, as [`add_nibbles`] takes them.
#[cfg(target_feature = "relaxed-simd")]
type Columns4 = v128;
/// Four activations, four times, as [`add_nibbles`] takes them: those of even and of odd columns, widened.
#[cfg(not(target_feature = "relaxed-simd"))]
type Columns4 = [v128; 2];
/// Nibbles n of 4 rows and 4 columns.
#[cfg(target_feature = "relaxed-simd")]
type Nibbles = v128;
/// Nibbles n of 4 rows and 4 columns: those of even and of odd columns, in 16 bits each.
#[cfg(not(target_feature = "relaxed-simd"))]
type Nibbles = [v128; 2];

/// The activations of four columns.
///
/// # Safety
/// The row has them from `at`.
#[inline(always)]
unsafe fn columns4(row: &[i8], at: usize) -> Columns4 {
    // SAFETY: the caller's promise.
    let values = unsafe { splat_four(row, at) };
    #[cfg(target_feature = "relaxed-simd")]
    return values;
    #[cfg(not(target_feature = "relaxed-simd"))]
    return [i16x8_shr(i16x8_shl(values, 8), 8), i16x8_shr(values, 8)];
}

/// The low and the high nibbles of 16 bytes.
#[inline(always)]
fn unsigned_nibbles(bytes: v128) -> [Nibbles; 2] {
    #[cfg(target_feature = "relaxed-simd")]
    {
        let mask = u8x16_splat(15);
        // Bits of the neighbour that a shift of 16 bits brings are cut off.
        [v128_and(bytes, mask), v128_and(u16x8_shr(bytes, 4), mask)]
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    {
        let mask = i16x8_splat(15);
        let nibble = |shift: u32| v128_and(u16x8_shr(bytes, shift), mask);
        [[v128_and(bytes, mask), nibble(8)], [nibble(4), u16x8_shr(bytes, 12)]]
    }
}

/// Adds Σ n · a to the sums of 4 rows.
#[inline(always)]
fn add_nibbles(sums: v128, nibbles: Nibbles, values: Columns4) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    return i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(values, nibbles));
    #[cfg(not(target_feature = "relaxed-simd"))]
    return i16x8_add(sums, i16x8_add(i16x8_mul(nibbles[0], values[0]), i16x8_mul(nibbles[1], values[1])));
}

/// Where the sums of a group begin, by -8 Σ a in every lane of 32 bits: the half of it in every lane of 16, which it fits, being
/// at most 16,256.
#[inline(always)]
fn begin(offset: v128) -> v128 {
    let half = i32x4_shr(offset, 1);
    i16x8_narrow_i32x4(half, half)
}

/// -8 Σ a of a group of 32 activations, in every lane.
///
/// # Safety
/// The row has them from `at`.
#[inline(always)]
unsafe fn offset(row: &[i8], at: usize) -> v128 {
    // SAFETY: the caller's promise.
    let halves = unsafe { (load_row(row, at), load_row(row, at + 16)) };
    let pairs = i16x8_add(i16x8_extadd_pairwise_i8x16(halves.0), i16x8_extadd_pairwise_i8x16(halves.1));
    let sums = i32x4_dot_i16x8(pairs, i16x8_splat(-8));
    let sums = i32x4_add(sums, i64x2_shuffle::<1, 0>(sums, sums));
    i32x4_add(sums, i32x4_shuffle::<1, 0, 3, 2>(sums, sums))
}

/// The eight multipliers of a group, as [`add_scaled`] takes them: rows 0 to 3, rows 4 to 7.
///
/// # Safety
/// The tile has 8 bytes from `at`.
#[inline(always)]
unsafe fn multipliers_of_fours(tile: &[u8], at: usize) -> [v128; 2] {
    // SAFETY: the caller's promise.
    let m = unsafe { load_widened(tile, at) };
    [
        i8x16_shuffle::<0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7>(m, m),
        i8x16_shuffle::<8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 15, 14, 15>(m, m),
    ]
}

/// Adds the sums of a group times its multipliers, both lanes of a row in one.
#[inline(always)]
fn add_scaled(total: v128, sums: v128, multipliers: v128) -> v128 {
    i32x4_add(total, i32x4_dot_i16x8(sums, multipliers))
}

/// Sums of T dense tiles of nibbles with M rows of activations; `offset` gives -8 Σ a of a group of a row.
///
/// # Safety
/// The tiles and the rows are of that shape.
#[inline(always)]
unsafe fn dense4<const T: usize, const M: usize>(
    shape: &TileShape,
    tiles: [&[u8]; T],
    rows: [&[i8]; M],
    offset: impl Fn(usize, usize) -> v128,
) -> [[[i32; ROWS]; M]; T] {
    let mut totals = [[[i32x4_splat(0); 2]; M]; T];
    for group in 0..shape.blocks {
        // SAFETY: a group has 32 columns, 128 bytes of values and 8 multipliers.
        unsafe {
            let first: [v128; M] = core::array::from_fn(|m| begin(offset(m, group)));
            let mut sums = [first.map(|first| [first; 2]); T];
            for step in 0..4 {
                let column = group * BLOCK_COLUMNS + step * 4;
                let low = rows.map(|row| columns4(row, column));
                let high = rows.map(|row| columns4(row, column + 16));
                for (tile, sums) in tiles.iter().zip(&mut sums) {
                    for half in 0..2 {
                        let weights = unsigned_nibbles(load(tile, (group * 4 + step) * STEP + half * 16));
                        for (m, sums) in sums.iter_mut().enumerate() {
                            sums[half] = add_nibbles(sums[half], weights[0], low[m]);
                            sums[half] = add_nibbles(sums[half], weights[1], high[m]);
                        }
                    }
                }
            }
            for ((tile, totals), sums) in tiles.iter().zip(&mut totals).zip(&sums) {
                let multipliers = multipliers_of_fours(tile, shape.multiplier_offset(0, group));
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for half in 0..2 {
                        totals[half] = add_scaled(totals[half], sums[half], multipliers[half]);
                    }
                }
            }
        }
    }
    totals.map(|totals| totals.map(rows_of))
}

/// [`Kernels::multiply`] of one token with a dense matrix of nibbles, by two tiles at a time: its activations are widened and
/// repeated for both, and the offsets of its groups are those that are at hand.
fn decode4(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    input.check(matrix, &tiles, output);
    let (shape, first) = (&matrix.shape, output.range().start);
    let (row, offsets, token_scale) = (input.row(0), &input.offsets[..shape.blocks], input.scales[0]);
    let tile = |index: usize| &matrix.bytes[index * shape.stride..][..shape.stride];
    let offset = |_, group: usize| i32x4_splat(offsets[group]);
    let mut write = |index: usize, sums: &[i32; ROWS]| {
        let count = ROWS.min(matrix.rows - index * ROWS);
        let out = &mut output.row(0)[index * ROWS - first..][..count];
        for (r, out) in out.iter_mut().enumerate() {
            *out = sums[r] as f32 * row_scale(shape, tile(index), r) * token_scale;
        }
    };
    let mut index = tiles.start;
    while index + 2 <= tiles.end {
        // SAFETY: `check` has seen that the row is of this shape; a tile has its bytes.
        let [a, b] = unsafe { dense4(shape, [tile(index), tile(index + 1)], [row], offset) };
        write(index, &a[0]);
        write(index + 1, &b[0]);
        index += 2;
    }
    if index < tiles.end {
        // SAFETY: as above.
        let [sums] = unsafe { dense4(shape, [tile(index)], [row], offset) };
        write(index, &sums[0]);
    }
}

/// The sums of eight rows as they are in the lanes of two vectors.
#[inline(always)]
fn rows_of(totals: [v128; 2]) -> [i32; ROWS] {
    let mut out = [0; ROWS];
    for (out, four) in out.chunks_exact_mut(4).zip(totals) {
        out[0] = i32x4_extract_lane::<0>(four);
        out[1] = i32x4_extract_lane::<1>(four);
        out[2] = i32x4_extract_lane::<2>(four);
        out[3] = i32x4_extract_lane::<3>(four);
    }
    out
}

/// The eight multipliers of a group, repeated for the 16-bit lanes of a row: rows 0 1, 2 3, 4 5, 6 7.
///
/// # Safety
/// The tile has 8 bytes from `at`.
#[inline(always)]
unsafe fn multipliers(tile: &[u8], at: usize) -> [v128; 4] {
    debug_assert!(at + ROWS <= tile.len());
    // SAFETY: the caller's promise; loads need no alignment.
    let m = unsafe { i16x8_load_extend_i8x8(tile.as_ptr().add(at).cast()) };
    [
        i8x16_shuffle::<0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3>(m, m),
        i8x16_shuffle::<4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7>(m, m),
        i8x16_shuffle::<8, 9, 8, 9, 8, 9, 8, 9, 10, 11, 10, 11, 10, 11, 10, 11>(m, m),
        i8x16_shuffle::<12, 13, 12, 13, 12, 13, 12, 13, 14, 15, 14, 15, 14, 15, 14, 15>(m, m),
    ]
}

/// Adds the 8-bit products of one vector, rows 4 h to 4 h + 3, to the sums of their pairs.
#[inline(always)]
fn add_products(sums: &mut Sums, half: usize, weights: (v128, v128), values: (v128, v128)) {
    sums[2 * half] = i32x4_add(sums[2 * half], i32x4_dot_i16x8(weights.0, values.0));
    sums[2 * half + 1] = i32x4_add(sums[2 * half + 1], i32x4_dot_i16x8(weights.1, values.1));
}

/// The two halves of a vector of bytes as 16 bits.
#[inline(always)]
fn widen(bytes: v128) -> (v128, v128) {
    (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes))
}

/// Adds the nibble products of one vector to 16-bit sums: at most 8 of 8 · 127 per lane.
#[inline(always)]
fn add_small(sums: &mut Sums, half: usize, weights: v128, values: v128) {
    sums[2 * half] = i16x8_add(sums[2 * half], i16x8_extmul_low_i8x16(weights, values));
    sums[2 * half + 1] = i16x8_add(sums[2 * half + 1], i16x8_extmul_high_i8x16(weights, values));
}

/// Adds the 16-bit sums of a group times its multipliers.
#[inline(always)]
fn add_group(totals: &mut Sums, group: &Sums, multipliers: &[v128; 4]) {
    for ((total, &group), &multipliers) in totals.iter_mut().zip(group).zip(multipliers) {
        *total = i32x4_add(*total, i32x4_dot_i16x8(group, multipliers));
    }
}

/// First index, in 16 activations, of the four columns of each kept value of a step: even steps, odd steps.
#[inline(always)]
fn bases() -> [v128; 2] {
    [
        u8x16(0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4),
        u8x16(8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12),
    ]
}

/// Indices into 16 activations for the kept values of a step, for one half of the rows.
#[inline(always)]
fn places(planes: v128, step: usize, bases: &[v128; 2]) -> v128 {
    v128_or(v128_and(u8x16_shr(planes, 2 * step as u32), u8x16_splat(3)), bases[step % 2])
}

#[inline(always)]
fn zero<const M: usize>() -> [Sums; M] {
    [[i32x4_splat(0); 4]; M]
}

/// Adds the two lanes of every row.
#[inline(always)]
fn join<const M: usize>(sums: [Sums; M]) -> [[i32; ROWS]; M] {
    sums.map(|sums| {
        let mut out = [0; ROWS];
        for (out, pair) in out.chunks_exact_mut(4).zip(sums.chunks_exact(2)) {
            let even = i32x4_shuffle::<0, 2, 4, 6>(pair[0], pair[1]);
            let odd = i32x4_shuffle::<1, 3, 5, 7>(pair[0], pair[1]);
            let rows = i32x4_add(even, odd);
            out[0] = i32x4_extract_lane::<0>(rows);
            out[1] = i32x4_extract_lane::<1>(rows);
            out[2] = i32x4_extract_lane::<2>(rows);
            out[3] = i32x4_extract_lane::<3>(rows);
        }
        out
    })
}

impl TileSums<ROWS> for Simd128 {
    const THREE: bool = false;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let mut sums = zero::<M>();
        for step in 0..shape.blocks * BLOCK_COLUMNS / 4 {
            // SAFETY: a step has 4 columns and 32 bytes.
            unsafe {
                let values = rows.map(|row| i16x8_extend_low_i8x16(splat_four(row, step * 4)));
                for half in 0..2 {
                    let at = step * STEP + half * 16;
                    let weights = (load_widened(tile, at), load_widened(tile, at + 8));
                    for (sums, &values) in sums.iter_mut().zip(&values) {
                        add_products(sums, half, weights, (values, values));
                    }
                }
            }
        }
        join(sums)
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        // SAFETY: `tiles::multiply` has seen that tile and rows are of this shape, whose groups have 32 columns.
        let [sums] = unsafe { dense4(shape, [tile], rows, |m, group| offset(rows[m], group * BLOCK_COLUMNS)) };
        sums
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let (mut sums, bases) = (zero::<M>(), bases());
        for group in 0..shape.blocks {
            let planes = shape.value_bytes + group * KEPT / 4 * ROWS;
            for half in 0..2 {
                // SAFETY: a group has 32 columns, 128 bytes of kept values and 32 of planes.
                unsafe {
                    let planes = load(tile, planes + half * 16);
                    for step in 0..4 {
                        let weights = widen(load(tile, (group * 4 + step) * STEP + half * 16));
                        let places = places(planes, step, &bases);
                        for (sums, row) in sums.iter_mut().zip(rows) {
                            let values = i8x16_swizzle(load_row(row, group * BLOCK_COLUMNS + step / 2 * 16), places);
                            add_products(sums, half, weights, widen(values));
                        }
                    }
                }
            }
        }
        join(sums)
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let (mut totals, bases) = (zero::<M>(), bases());
        for group in 0..shape.blocks {
            let mut sums = zero::<M>();
            let planes = shape.value_bytes + group * KEPT / 4 * ROWS;
            // SAFETY: a group has 32 columns, 32 bytes of planes and 8 multipliers, a pair of groups 128 bytes of values:
            // low nibbles, high nibbles.
            unsafe {
                for half in 0..2 {
                    let planes = load(tile, planes + half * 16);
                    for step in 0..4 {
                        let weights = nibbles(load(tile, (group / 2 * 4 + step) * STEP + half * 16));
                        let weights = if group % 2 == 0 { weights.0 } else { weights.1 };
                        let places = places(planes, step, &bases);
                        for (sums, row) in sums.iter_mut().zip(rows) {
                            let values = i8x16_swizzle(load_row(row, group * BLOCK_COLUMNS + step / 2 * 16), places);
                            add_small(sums, half, weights, values);
                        }
                    }
                }
                let multipliers = multipliers(tile, shape.multiplier_offset(0, group));
                totals.iter_mut().zip(&sums).for_each(|(total, group)| add_group(total, group, &multipliers));
            }
        }
        join(totals)
    }
}

/// See [`Kernels::scores`].
fn scores(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 {
    let width = query.len();
    if !width.is_multiple_of(16) || width == 0 {
        return scalar::scores(keys, query, scale, scores);
    }
    assert!(keys.scales.len() >= scores.len() && keys.values.len() >= scores.len() * width);
    let mut top = f32::NEG_INFINITY;
    for ((slot, key), &key_scale) in scores.iter_mut().zip(keys.values.chunks_exact(width)).zip(keys.scales) {
        let mut sums = i32x4_splat(0);
        for at in (0..width).step_by(16) {
            // SAFETY: both slices have `width` values, a multiple of 16.
            let (query, key) = unsafe { (widen(load_row(query, at)), widen(load_row(key, at))) };
            sums = i32x4_add(sums, i32x4_add(i32x4_dot_i16x8(query.0, key.0), i32x4_dot_i16x8(query.1, key.1)));
        }
        let sums = i32x4_add(sums, i64x2_shuffle::<1, 0>(sums, sums));
        let sum = i32x4_extract_lane::<0>(sums).wrapping_add(i32x4_extract_lane::<1>(sums));
        let score = sum as f32 * key_scale * scale;
        top = if score > top { score } else { top };
        *slot = score.to_bits();
    }
    top
}
