//! Products with a few rows of activations: every byte of a tile is read from memory once, unpacked in registers and
//! multiplied with up to eight rows, whose sums stay in registers; a second eight take the tile from the cache. Tiles are
//! taken from the last to the first, and groups likewise: see [`stream`](super::stream). 2:4 storages take the products
//! of [`decode`], which select activations for each row.

#![expect(clippy::needless_range_loop, reason = "arrays of registers are indexed in step with pointers")]
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use super::super::columns::Columns;
use super::super::{Activations, VectorStorage, scalar};
use super::decode;
use super::stream::{GROUP4, GROUP8, Stream, TilePrefetch};
use super::vectors::{Few, excess_of};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, TileShape};
use core::arch::x86_64::*;
use core::ops::Range;

/// Most rows of activations.
pub(super) const MOST_ROWS: usize = 16;
/// Most rows whose sums are in registers together.
const BLOCK: usize = 8;

/// A tile and the prefetch during it.
#[derive(Clone, Copy)]
struct Tile {
    start: *const u8,
    prefetch: TilePrefetch,
}

/// Rows of activations.
#[derive(Clone, Copy)]
struct Inputs<const K: usize> {
    rows: [*const i8; K],
    /// [`Activations::offsets`] of each.
    offsets: [*const i32; K],
}

/// Rows of `tiles` for up to [`MOST_ROWS`] rows of activations.
///
/// # Safety
/// The CPU has the extensions of `I`; the caller has called [`Activations::check`], the layout is r8k4 with offset-8
/// nibbles, and there are 2 to [`MOST_ROWS`] rows of activations.
#[inline(always)]
pub(super) unsafe fn multiply<I: Few>(
    matrix: &Matrix<'_>,
    storage: VectorStorage,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let shape = &matrix.shape;
    let mut rows = [input.values.as_ptr(); MOST_ROWS];
    let mut excess = [0; MOST_ROWS];
    let mut offsets = [input.offsets.as_ptr(); MOST_ROWS];
    for k in 0..input.rows() {
        rows[k] = input.row(k).as_ptr();
        let of_row = &input.offsets[k * shape.blocks..][..shape.blocks];
        offsets[k] = of_row.as_ptr();
        if storage == VectorStorage::W8 {
            excess[k] = excess_of(I::EXCESS, of_row);
        }
    }
    // Blocks of about the same number of rows.
    let block = input.rows().div_ceil(input.rows().div_ceil(BLOCK));
    let stream = Stream::new(shape, &matrix.bytes[..tiles.end * shape.stride]);
    let first = output.range().start;
    for tile in tiles.rev() {
        let bytes = &matrix.bytes[tile * shape.stride..][..shape.stride];
        let here = Tile { start: bytes.as_ptr(), prefetch: stream.tile(shape, bytes.as_ptr()) };
        let mut sums = [[0; 8]; MOST_ROWS];
        let mut row = 0;
        while row < input.rows() {
            let count = block.min(input.rows() - row);
            let (rows, offsets, sums) = (&rows[row..], &offsets[row..], &mut sums[row..]);
            macro_rules! rows {
                ($($k:literal)*) => {
                    match count {
                        // SAFETY: the caller's promise; the tile is whole.
                        $($k => unsafe { products::<I, $k>(shape, storage, here, rows, offsets, sums) },)*
                        _ => unreachable!("a block of {count} rows"),
                    }
                };
            }
            rows!(1 2 3 4 5 6 7 8);
            row += count;
        }
        put(shape, bytes, &sums, &excess, input, tile * 8 - first, output);
    }
}

/// The outputs of one tile from its sums.
#[inline(always)]
fn put(
    shape: &TileShape,
    tile: &[u8],
    sums: &[[i32; 8]; MOST_ROWS],
    excess: &[i32; MOST_ROWS],
    input: &Activations<'_>,
    first: usize,
    output: &mut Columns<'_>,
) {
    let planes = input.width.planes();
    for (token, &scale) in input.scales.iter().enumerate() {
        let out = &mut output.row(token)[first..];
        if planes == 1 && out.len() >= 8 {
            // SAFETY: AVX2 is there; eight sums, scales and places.
            unsafe {
                let sum = _mm256_loadu_si256(sums[token].as_ptr().cast());
                let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, _mm256_set1_epi32(excess[token])));
                let scales = _mm256_loadu_ps(tile[shape.scale_offset(0)..][..32].as_ptr().cast());
                let y = _mm256_mul_ps(_mm256_mul_ps(sum, scales), _mm256_set1_ps(scale));
                _mm256_storeu_ps(out[..8].as_mut_ptr(), y);
            }
            continue;
        }
        for (row, out) in out.iter_mut().take(8).enumerate() {
            let mut both = [0; 2];
            for (plane, found) in both[..planes].iter_mut().enumerate() {
                let k = token * planes + plane;
                *found = sums[k][row].wrapping_add(excess[k]);
            }
            *out = scalar::total(input.width, &both) * scalar::row_scale(shape, tile, row) * scale;
        }
    }
}

/// Sums of a tile with the first `K` rows of activations.
#[inline(always)]
unsafe fn products<I: Few, const K: usize>(
    shape: &TileShape,
    storage: VectorStorage,
    tile: Tile,
    rows: &[*const i8],
    offsets: &[*const i32],
    out: &mut [[i32; 8]],
) {
    let inputs = Inputs::<K> { rows: core::array::from_fn(|k| rows[k]), offsets: core::array::from_fn(|k| offsets[k]) };
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        match storage {
            VectorStorage::W8 if K <= I::NARROW_ROWS => {
                store::<I::Narrow, K>(dense8::<I::Narrow, K>(shape, tile, inputs), out)
            }
            VectorStorage::W8 => store::<I, K>(dense8::<I, K>(shape, tile, inputs), out),
            VectorStorage::W4G32 => store::<I, K>(dense4::<I, K>(shape, tile, inputs), out),
            VectorStorage::W8S24 => write(decode::sparse8::<I, K>(shape, tile.start, inputs.rows, tile.prefetch), out),
            VectorStorage::W4G32S24 => {
                write(decode::sparse4::<I, K>(shape, tile.start, inputs.rows, tile.prefetch), out)
            }
        }
    }
}

#[inline(always)]
unsafe fn write<const K: usize>(sums: [__m256i; K], out: &mut [[i32; 8]]) {
    for k in 0..K {
        // SAFETY: the caller has the extensions; eight places.
        unsafe { _mm256_storeu_si256(out[k].as_mut_ptr().cast(), sums[k]) };
    }
}

#[inline(always)]
unsafe fn store<I: Few, const K: usize>(sums: [I::Sums; K], out: &mut [[i32; 8]]) {
    for k in 0..K {
        // SAFETY: the caller has the extensions; eight places.
        unsafe { _mm256_storeu_si256(out[k].as_mut_ptr().cast(), I::of_rows(sums[k])) };
    }
}

#[inline(always)]
unsafe fn dense8<I: Few, const K: usize>(shape: &TileShape, tile: Tile, inputs: Inputs<K>) -> [I::Sums; K] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let mut sums = [I::zero(); K];
        for group in (0..shape.blocks).rev() {
            tile.prefetch.lines::<GROUP8>(group * GROUP8);
            for part in (0..4).rev() {
                let weights = I::prepare(I::load(tile.start.add(group * GROUP8 + part * 64)));
                for k in 0..K {
                    let a = inputs.rows[k].add(group * BLOCK_COLUMNS + part * 8);
                    sums[k] = <I as Few>::dot8(sums[k], weights, a);
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn dense4<I: Few, const K: usize>(shape: &TileShape, tile: Tile, inputs: Inputs<K>) -> [I::Sums; K] {
    // SAFETY: the caller has the extensions, a tile, rows and offsets of that shape.
    unsafe {
        let mut totals = [I::zero(); K];
        for group in (0..shape.blocks).rev() {
            tile.prefetch.lines::<GROUP4>(group * GROUP4);
            let mut sums = [I::zero(); K];
            for k in 0..K {
                sums[k] = I::begin(inputs.rows[k].add(group * BLOCK_COLUMNS), inputs.offsets[k].add(group));
            }
            for part in (0..2).rev() {
                let [low, high] = I::nibbles(I::load(tile.start.add(group * 4 * BLOCK_COLUMNS + part * 64)));
                for k in 0..K {
                    let a = inputs.rows[k].add(group * BLOCK_COLUMNS + part * 8);
                    sums[k] = <I as Few>::dot4(sums[k], low, a);
                    sums[k] = <I as Few>::dot4(sums[k], high, a.add(16));
                }
            }
            let multipliers = I::multipliers(tile.start.add(shape.value_bytes + group * 8));
            for k in 0..K {
                totals[k] = <I as Few>::fold(totals[k], sums[k], multipliers);
            }
        }
        totals
    }
}
