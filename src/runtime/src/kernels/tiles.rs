//! Products tile by tile, for tables whose kernels keep the sums of a whole tile in registers: a tile is multiplied
//! with four rows of activations at once, then two, then one, so that its weights are read and unpacked once for four
//! tokens, and from the cache for the rest. An instruction set implements [`TileSums`] only.
//!
//! Blocks by table, from a count of its registers, not from a measurement; more than four rows would leave too few for
//! weights and activations in every table.
//!
//! | table | three rows | reason |
//! |---|---|---|
//! | dot product instructions | together | sums and totals of 3 rows in w4 take 12 registers of 32 |
//! | int8 matrix multiply | 2 + 1 | an instruction takes two rows; one alone has an instruction of its own |
//! | simd128 | 2 + 1 | 4 vectors a row: those of 3 rows in w4 exceed the 16 registers of most hosts |
//! | Arm DSP | 2 + 1 | two rows at a time at most |
//! | Helium, RISC-V vectors | 1 + 1 + 1 | the loops in assembly take one row |

use super::columns::Columns;
use super::scalar::{self, row_scale, total};
use super::{Activations, VectorStorage, Width};
use crate::format::artifact::Matrix;
use crate::layout::TileShape;
use core::ops::Range;

/// Sums of one tile of R rows with M rows of activations: `sums[m][r] = Σ_i w[r,i] · a[m,i]` in i32, wrapping. Rows of
/// activations have 32 · `shape.blocks` values, the tile has `shape.stride` bytes: [`multiply`] checks both.
pub(super) trait TileSums<const R: usize> {
    /// Whether three rows are best multiplied together.
    const THREE: bool;

    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; R]; M];
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; R]; M];
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; R]; M];
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; R]; M];
}

/// See [`super::Kernels::multiply`]; the layout of the matrix has R rows per tile.
///
/// # Panics
/// If a slice is shorter than its shape.
#[inline(always)]
pub(super) fn multiply<const R: usize, T: TileSums<R>>(
    matrix: &Matrix<'_>,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let Some(storage) = VectorStorage::of(matrix.shape.storage) else {
        return scalar::multiply(matrix, input, tiles, output);
    };
    input.check(matrix, &tiles, output);
    let (shape, first) = (&matrix.shape, output.range().start);
    assert!(shape.layout.rows() == R);
    for index in tiles {
        let tile = &matrix.bytes[index * shape.stride..][..shape.stride];
        let scales: [f32; R] = core::array::from_fn(|row| row_scale(shape, tile, row));
        // Rows that pad the last tile are not written.
        let place = (index * R - first, R.min(matrix.rows - index * R));
        let mut row = 0;
        if T::THREE && input.width == Width::Bits8 && input.rows() % 4 == 3 {
            block::<R, 3, T>((shape, storage), tile, &scales, input, row, place, output);
            row += 3;
        }
        while input.rows() - row >= 4 {
            block::<R, 4, T>((shape, storage), tile, &scales, input, row, place, output);
            row += 4;
        }
        if input.rows() - row >= 2 {
            block::<R, 2, T>((shape, storage), tile, &scales, input, row, place, output);
            row += 2;
        }
        if input.rows() > row {
            block::<R, 1, T>((shape, storage), tile, &scales, input, row, place, output);
        }
    }
}

/// Rows `row..row + M` of activations. M is even for 16-bit activations, so that both planes of a token are in one
/// block.
#[inline(always)]
fn block<const R: usize, const M: usize, T: TileSums<R>>(
    (shape, storage): (&TileShape, VectorStorage),
    tile: &[u8],
    scales: &[f32; R],
    input: &Activations<'_>,
    row: usize,
    (first, count): (usize, usize),
    output: &mut Columns<'_>,
) {
    let rows: [&[i8]; M] = core::array::from_fn(|m| input.row(row + m));
    let sums = match storage {
        VectorStorage::W8 => T::w8(shape, tile, rows),
        VectorStorage::W4G32 => T::w4(shape, tile, rows),
        VectorStorage::W8S24 => T::w8_sparse(shape, tile, rows),
        VectorStorage::W4G32S24 => T::w4_sparse(shape, tile, rows),
    };
    let planes = input.width.planes();
    for (token, sums) in sums.chunks(planes).enumerate() {
        let token = row / planes + token;
        let token_scale = input.scales[token];
        let out = &mut output.row(token)[first..first + count];
        for (r, out) in out.iter_mut().enumerate() {
            let sum = match input.width {
                Width::Bits8 => sums[0][r] as f32,
                Width::Bits16 => total(Width::Bits16, &[sums[0][r], sums[1][r]]),
            };
            *out = sum * scales[r] * token_scale;
        }
    }
}
