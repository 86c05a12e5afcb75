//! Portable kernels from the address formula of [`crate::layout`]: any layout, any shape, the oracle of every other
//! kernel. Each block of 32 columns of a row is decoded once and multiplied with all tokens of the chunk. The 16 kept
//! values of a 2:4 block are first scattered to their columns: products of whole blocks are faster than selecting
//! activations.

use super::columns::Columns;
use super::{Activations, Factors, Rows, Sums, Width};
use crate::format::artifact::Matrix;
use crate::format::spec::MAX_CHUNK;
use crate::layout::{BLOCK_COLUMNS, Coding, KEPT, TileShape, three_bits};
use crate::numerics::{self, Rotary};
use core::ops::Range;

/// See [`super::Kernels::multiply`].
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout.run() {
        1 => multiply_run::<1>(matrix, input, tiles, output),
        4 => multiply_run::<4>(matrix, input, tiles, output),
        8 => multiply_run::<8>(matrix, input, tiles, output),
        _ => multiply_run::<16>(matrix, input, tiles, output),
    }
}

fn multiply_run<const RUN: usize>(
    matrix: &Matrix<'_>,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    input.check(matrix, &tiles, output);
    let shape = &matrix.shape;
    let interleaved = shape.layout.rows();
    let (first, rows) = (output.range().start, output.range().len());
    for row in 0..rows {
        let (tile, within) = ((first + row) / interleaved, (first + row) % interleaved);
        let tile = &matrix.bytes[tile * shape.stride..][..shape.stride];
        let mut sums = [0i32; 2 * MAX_CHUNK];
        let sums = &mut sums[..input.rows()];
        for block in 0..shape.blocks {
            let multiplier = multiplier(shape, tile, within, block);
            let tokens = sums.iter_mut().zip(input.values[block * BLOCK_COLUMNS..].chunks(input.stride));
            // Wrapping: only a damaged file exceeds the bounds of docs/numerics.md, and it must not panic.
            if shape.storage.is_sparse() {
                let values = decode_kept::<RUN>(shape, tile, within, block);
                for (sum, token) in tokens {
                    *sum = sum.wrapping_add(multiplier * dot_i16(&values, &token[..BLOCK_COLUMNS]));
                }
            } else {
                let values = decode_block::<RUN>(shape, tile, within, block);
                for (sum, token) in tokens {
                    *sum = sum.wrapping_add(multiplier * dot(&values, &token[..BLOCK_COLUMNS]));
                }
            }
        }
        let scale = row_scale(shape, tile, within);
        for (token, &token_scale) in input.scales.iter().enumerate() {
            output.row(token)[row] = total(input.width, &sums[token * input.width.planes()..]) * scale * token_scale;
        }
    }
}

/// The f32 of a token's sum, one per plane.
#[inline(always)]
pub(crate) fn total(width: Width, sums: &[i32]) -> f32 {
    match width {
        Width::Bits8 => sums[0] as f32,
        Width::Bits16 => (128 * i64::from(sums[0]) + i64::from(sums[1])) as f32,
    }
}

/// The f32 scale of a row within a tile.
#[inline(always)]
pub(crate) fn row_scale(shape: &TileShape, tile: &[u8], row: usize) -> f32 {
    let at = shape.scale_offset(row);
    f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]])
}

/// The multiplier of a block of a row: that of its group; 1 where the storage has none.
#[inline]
fn multiplier(shape: &TileShape, tile: &[u8], row: usize, block: usize) -> i32 {
    match shape.storage.def().group {
        Some(group) => i32::from(tile[shape.multiplier_offset(row, block / (group / BLOCK_COLUMNS))] as i8),
        None => 1,
    }
}

/// The 32 values of one block of a row, before the multiplier.
#[inline]
fn decode_block<const RUN: usize>(shape: &TileShape, tile: &[u8], row: usize, block: usize) -> [i8; BLOCK_COLUMNS] {
    let mut out = [0i8; BLOCK_COLUMNS];
    let rows = shape.layout.rows();
    let (coding, step) = (shape.storage.def().coding, rows * RUN);
    let start = block * rows * coding.block_bytes() + row * RUN;
    match coding {
        Coding::Nibble => {
            let code = shape.layout.nibbles();
            for part in 0..16 / RUN {
                let bytes = &tile[start + part * step..][..RUN];
                for (i, &byte) in bytes.iter().enumerate() {
                    out[part * RUN + i] = code.decode(byte);
                    out[16 + part * RUN + i] = code.decode(byte >> 4);
                }
            }
        }
        Coding::Byte => {
            for part in 0..BLOCK_COLUMNS / RUN {
                let bytes = &tile[start + part * step..][..RUN];
                for (value, &byte) in out[part * RUN..].iter_mut().zip(bytes) {
                    *value = byte as i8;
                }
            }
        }
        Coding::ThreeBits => {
            // As `TileShape::plane_offsets`, for a constant run.
            let run = const { if RUN < 4 { RUN } else { 4 } };
            let low = &tile[block * rows * Coding::ThreeBits.block_bytes() + row * run..];
            let signs = &low[rows * (BLOCK_COLUMNS / 4)..];
            for (step, values) in out.chunks_exact_mut(run).enumerate() {
                let bits = &low[step / 4 * rows * run..][..run];
                let sign = &signs[step / 8 * rows * run..][..run];
                for (value, (&bits, &sign)) in values.iter_mut().zip(bits.iter().zip(sign)) {
                    *value = three_bits(bits >> (2 * (step % 4)) & 3, sign >> (step % 8) & 1);
                }
            }
        }
        Coding::F32 => {}
    }
    out
}

/// The 32 values of one block of a row of a 2:4 matrix, before the multiplier: the 16 kept ones in their columns. Two
/// bits select one of four, so any byte of a plane gives a column of the block; where indices of a damaged file
/// coincide, values are added, as in a product with selected activations.
#[inline]
fn decode_kept<const RUN: usize>(shape: &TileShape, tile: &[u8], row: usize, block: usize) -> [i16; BLOCK_COLUMNS] {
    let mut kept = [0i8; KEPT];
    let (rows, nibble, high) = (shape.layout.rows(), shape.storage.is_nibbles(), block % 2 == 1);
    for (part, kept) in kept.chunks_exact_mut(RUN).enumerate() {
        // Kept columns 16 apart share a byte of nibbles: blocks 2 g and 2 g + 1 read the same bytes.
        let step = if nibble { block / 2 } else { block } * (KEPT / RUN) + part;
        let bytes = &tile[(step * rows + row) * RUN..][..RUN];
        for (value, &byte) in kept.iter_mut().zip(bytes) {
            *value = match nibble {
                true => shape.layout.nibbles().decode(if high { byte >> 4 } else { byte }),
                false => byte as i8,
            };
        }
    }
    // As `TileShape::index_offset`, for a constant run.
    let run = const { if RUN < 4 { RUN } else { 4 } };
    let planes = &tile[shape.value_bytes + block * (KEPT / 4) * rows..];
    let mut out = [0; BLOCK_COLUMNS];
    for (j, &value) in kept.iter().enumerate() {
        let byte = planes[j / (4 * run) * rows * run + row * run + j % run];
        let index = byte >> (2 * (j / run % 4)) & 3;
        out[4 * (j / 2) + usize::from(index)] += i16::from(value);
    }
    out
}

/// Σ a · b in i32, equal lengths.
#[inline]
fn dot_i16(a: &[i16; BLOCK_COLUMNS], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// One row as f32: integer (multiplier · value) to f32, times the row scale. The lookup in embedding tables.
///
/// # Panics
/// If `row` is outside the matrix or `out` is not one row.
pub fn row(matrix: &Matrix<'_>, row: usize, out: &mut [f32]) {
    scaled_row(matrix, row, 1.0, out);
}

/// [`row`] with the row scale first multiplied by `factor`.
///
/// # Panics
/// If `row` is outside the matrix or `out` is not one row.
pub fn scaled_row(matrix: &Matrix<'_>, row: usize, factor: f32, out: &mut [f32]) {
    assert!(row < matrix.rows && out.len() == matrix.columns);
    let shape = &matrix.shape;
    let interleaved = shape.layout.rows();
    let tile = &matrix.bytes[row / interleaved * shape.stride..][..shape.stride];
    let within = row % interleaved;
    let scale = row_scale(shape, tile, within) * factor;
    for (block, values) in out.chunks_mut(BLOCK_COLUMNS).enumerate() {
        let decoded = match shape.layout.run() {
            1 => integers::<1>(shape, tile, within, block),
            4 => integers::<4>(shape, tile, within, block),
            8 => integers::<8>(shape, tile, within, block),
            _ => integers::<16>(shape, tile, within, block),
        };
        let multiplier = multiplier(shape, tile, within, block);
        for (value, &integer) in values.iter_mut().zip(&decoded) {
            *value = (multiplier * integer) as f32 * scale;
        }
    }
}

/// The 32 values of one block of a row, dense, before the multiplier.
fn integers<const RUN: usize>(shape: &TileShape, tile: &[u8], row: usize, block: usize) -> [i32; BLOCK_COLUMNS] {
    if !shape.storage.is_sparse() {
        return decode_block::<RUN>(shape, tile, row, block).map(i32::from);
    }
    decode_kept::<RUN>(shape, tile, row, block).map(i32::from)
}

/// Σ a · b in i32, equal lengths.
#[inline]
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// See [`super::Kernels::rotate`].
pub fn rotate(rotary: &Rotary<'_>, head: &mut [f32], position: usize) {
    rotary.rotate(head, position);
}

/// See [`super::Kernels::scores`].
///
/// # Panics
/// If there are fewer keys than scores.
pub fn scores(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 {
    assert!(keys.scales.len() >= scores.len() && keys.values.len() >= scores.len() * query.len());
    let mut top = f32::NEG_INFINITY;
    for ((slot, key), &key_scale) in scores.iter_mut().zip(keys.values.chunks_exact(query.len())).zip(keys.scales) {
        let score = dot(query, key) as f32 * key_scale * scale;
        top = if score > top { score } else { top };
        *slot = score.to_bits();
    }
    top
}

/// Positions whose products of a 14-bit weight and an int8 value sum up in i32: 16383 · 128 · 1024 < 2^31.
pub const BLOCK: usize = 1024;

/// See [`super::Kernels::mix`].
///
/// # Panics
/// If there are fewer values than weights.
pub fn mix(values: Rows<'_>, weights: &[u32], factors: Factors, sums: Sums<'_>, out: &mut [f32]) {
    let width = out.len();
    assert!(values.scales.len() >= weights.len() && values.values.len() >= weights.len() * width);
    let (block_sums, totals) = (&mut sums.block[..width], &mut sums.total[..width]);
    totals.fill(0);
    let blocks = weights.chunks(BLOCK).zip(values.scales.chunks(BLOCK)).zip(values.values.chunks(BLOCK * width));
    for ((weights, scales), values) in blocks {
        block_sums.fill(0);
        for ((&weight, &value_scale), value) in weights.iter().zip(scales).zip(values.chunks_exact(width)) {
            let weight = numerics::probability(weight, value_scale, factors.ratio);
            if weight != 0 {
                for (sum, &value) in block_sums.iter_mut().zip(value) {
                    *sum += weight * i32::from(value);
                }
            }
        }
        for (total, &sum) in totals.iter_mut().zip(block_sums.iter()) {
            *total += i64::from(sum);
        }
    }
    for (out, &total) in out.iter_mut().zip(totals.iter()) {
        *out = total as f32 * factors.back;
    }
}
