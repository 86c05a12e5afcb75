//! Portable kernels from the address formula of [`crate::layout`]: any layout, any shape, the oracle of every other
//! kernel. Each group of 32 columns of a row is decoded once and multiplied with all tokens of the chunk.

use super::Activations;
use crate::format::artifact::Matrix;
use crate::format::spec::MAX_CHUNK;
use crate::layout::{GROUP, NibbleCode, Storage, TileShape};

/// See [`super::Kernels::multiply`].
///
/// # Panics
/// If the slices are shorter than the shapes say.
pub fn multiply(matrix: &Matrix<'_>, activations: Activations<'_>, output: &mut [f32]) {
    match matrix.shape.layout.run() {
        1 => multiply_run::<1>(matrix, activations, output),
        4 => multiply_run::<4>(matrix, activations, output),
        8 => multiply_run::<8>(matrix, activations, output),
        _ => multiply_run::<16>(matrix, activations, output),
    }
}

fn multiply_run<const RUN: usize>(matrix: &Matrix<'_>, activations: Activations<'_>, output: &mut [f32]) {
    let tokens = activations.scales.len();
    assert!(tokens <= MAX_CHUNK && output.len() == tokens * matrix.rows);
    assert!(activations.stride >= matrix.shape.groups * GROUP);
    let shape = &matrix.shape;
    let interleaved = shape.layout.rows();
    for (tile_index, tile) in matrix.bytes.chunks_exact(shape.stride).enumerate() {
        let first = tile_index * interleaved;
        for row in 0..interleaved.min(matrix.rows - first) {
            let mut sums = [0i32; MAX_CHUNK];
            for group in 0..shape.groups {
                let values = decode_group::<RUN>(shape, tile, row, group);
                let multiplier = match shape.storage {
                    Storage::W4G32 => i32::from(tile[shape.multiplier_offset(row, group)] as i8),
                    _ => 1,
                };
                let column = group * GROUP;
                for (token, sum) in sums[..tokens].iter_mut().enumerate() {
                    let at = token * activations.stride + column;
                    // Wrapping: only a file that breaks the bounds of docs/numerics.md gets there, and it must not panic.
                    *sum = sum.wrapping_add(multiplier * dot(&values, &activations.values[at..at + GROUP]));
                }
            }
            let scale = row_scale(shape, tile, row);
            for (token, (&sum, &token_scale)) in sums.iter().zip(activations.scales).enumerate() {
                output[token * matrix.rows + first + row] = sum as f32 * scale * token_scale;
            }
        }
    }
}

/// The f32 scale of a row within a tile.
fn row_scale(shape: &TileShape, tile: &[u8], row: usize) -> f32 {
    let at = shape.scale_offset(row);
    f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]])
}

/// The 32 values of one group of a row, before the multiplier.
#[inline]
fn decode_group<const RUN: usize>(shape: &TileShape, tile: &[u8], row: usize, group: usize) -> [i8; GROUP] {
    let mut out = [0i8; GROUP];
    let step = shape.layout.rows() * RUN;
    match shape.storage {
        Storage::W4G32 => {
            let start = group * shape.layout.rows() * (GROUP / 2) + row * RUN;
            for part in 0..16 / RUN {
                let bytes = &tile[start + part * step..][..RUN];
                for (i, &byte) in bytes.iter().enumerate() {
                    let (low, high) = match shape.layout.nibbles() {
                        NibbleCode::Offset8 => ((byte & 15) as i8 - 8, (byte >> 4) as i8 - 8),
                        NibbleCode::TwosComplement => ((byte << 4) as i8 >> 4, byte as i8 >> 4),
                    };
                    out[part * RUN + i] = low;
                    out[16 + part * RUN + i] = high;
                }
            }
        }
        _ => {
            let start = group * shape.layout.rows() * GROUP + row * RUN;
            for part in 0..GROUP / RUN {
                let bytes = &tile[start + part * step..][..RUN];
                for (value, &byte) in out[part * RUN..].iter_mut().zip(bytes) {
                    *value = byte as i8;
                }
            }
        }
    }
    out
}

/// One row as f32: integer (multiplier · value) to f32, times the row scale. The gather of embedding tables.
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
    for (group, values) in out.chunks_mut(GROUP).enumerate() {
        let decoded = match shape.layout.run() {
            1 => decode_group::<1>(shape, tile, within, group),
            4 => decode_group::<4>(shape, tile, within, group),
            8 => decode_group::<8>(shape, tile, within, group),
            _ => decode_group::<16>(shape, tile, within, group),
        };
        let multiplier = match shape.storage {
            Storage::W4G32 => i32::from(tile[shape.multiplier_offset(within, group)] as i8),
            _ => 1,
        };
        for (value, &integer) in values.iter_mut().zip(&decoded) {
            *value = (multiplier * i32::from(integer)) as f32 * scale;
        }
    }
}

/// See [`super::Kernels::dot`].
#[inline]
pub fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// See [`super::Kernels::accumulate`].
#[inline]
pub fn accumulate(weight: i32, row: &[i8], sums: &mut [i32]) {
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += weight * i32::from(value);
    }
}
