//! Products with several tokens: tiles are unpacked to bytes, a block of columns at a time, and multiplied with all
//! tokens, which share the cost of unpacking. A block of weights, its multipliers and the running sums of 64 rows of
//! activations stay on the stack and in the L1 cache.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use super::super::columns::Columns;
use super::super::{Activations, VectorStorage, scalar};
use super::vectors::{Prefill, excess_of};
use crate::format::artifact::Matrix;
use crate::format::spec::MAX_CHUNK;
use crate::layout::{BLOCK_COLUMNS, TileShape};
use core::arch::x86_64::*;
use core::ops::Range;

/// Groups of 32 columns unpacked together.
const GROUPS: usize = 8;
/// Rows of activations whose sums are held together.
const ROWS: usize = 64;
/// Bytes of a group of 8 rows.
const TILE_GROUP: usize = 8 * BLOCK_COLUMNS;

/// Unpacked groups of one or two tiles, in steps of four columns: 8 or 16 rows of four bytes.
#[repr(C, align(64))]
struct Weights {
    bytes: [u8; 2 * GROUPS * TILE_GROUP],
    /// (groups, rows)
    multipliers: [i32; GROUPS * 16],
}

/// (rows of activations, rows of weights)
#[repr(C, align(64))]
struct Sums([i32; ROWS * 16]);

/// Rows of `tiles` for all tokens.
///
/// # Safety
/// The CPU has the extensions of `I`; the caller has called [`Activations::check`], and the layout is r8k4 with
/// offset-8 nibbles.
#[inline(always)]
pub(super) unsafe fn multiply<I: Prefill>(
    matrix: &Matrix<'_>,
    storage: VectorStorage,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let shape = &matrix.shape;
    let planes = input.width.planes();
    let first_column = output.range().start;
    let mut weights = Weights { bytes: [0; 2 * GROUPS * TILE_GROUP], multipliers: [0; GROUPS * 16] };
    let mut sums = Sums([0; ROWS * 16]);
    // The excess of weights stored with an offset, for each row of activations.
    let mut excess = [0i32; 2 * MAX_CHUNK];
    if !storage.is_nibbles() {
        for (excess, offsets) in excess[..input.rows()].iter_mut().zip(input.offsets.chunks_exact(shape.blocks)) {
            *excess = excess_of(I::EXCESS, offsets);
        }
    }
    let mut tile = tiles.start;
    while tile < tiles.end {
        let count = I::TILES.min(tiles.end - tile);
        let mut row = 0;
        while row < input.rows() {
            let rows = ROWS.min(input.rows() - row);
            sums.0.fill(0);
            let mut group = 0;
            while group < shape.blocks {
                let groups = GROUPS.min(shape.blocks - group);
                for part in 0..count {
                    let bytes = &matrix.bytes[(tile + part) * shape.stride..][..shape.stride];
                    // SAFETY: the caller's promise; the tile is whole.
                    unsafe { unpack::<I>((shape, storage), bytes, group..group + groups, part, &mut weights) };
                    // Prefetch the next groups while these are multiplied.
                    let next = if group + groups < shape.blocks { 0 } else { I::TILES * shape.stride };
                    fetch(shape, bytes.as_ptr().wrapping_add(next), if next == 0 { group + groups } else { 0 });
                }
                // SAFETY: the caller's promise; rows and groups are those of the activations.
                unsafe { add_products::<I>(storage, input, row..row + rows, group, groups, &weights, &mut sums) };
                group += groups;
            }
            for token in 0..rows / planes {
                let scale = input.scales[row / planes + token];
                let out = output.row(row / planes + token);
                for part in 0..count {
                    let bytes = &matrix.bytes[(tile + part) * shape.stride..][..shape.stride];
                    let sum = |plane: usize| &sums.0[(token * planes + plane) * 8 * I::TILES + part * 8..][..8];
                    let out = &mut out[(tile + part) * 8 - first_column..];
                    if planes == 1 && out.len() >= 8 {
                        let (excess, scales) = (excess[row + token], bytes[shape.scale_offset(0)..].as_ptr());
                        // SAFETY: AVX2 is there; eight sums, scales and places.
                        unsafe {
                            let sum = _mm256_loadu_si256(sum(0).as_ptr().cast());
                            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, _mm256_set1_epi32(excess)));
                            let scaled = _mm256_mul_ps(sum, _mm256_loadu_ps(scales.cast()));
                            _mm256_storeu_ps(out[..8].as_mut_ptr(), _mm256_mul_ps(scaled, _mm256_set1_ps(scale)));
                        }
                        continue;
                    }
                    for (within, out) in out.iter_mut().take(8).enumerate() {
                        let mut both = [0; 2];
                        for (plane, found) in both[..planes].iter_mut().enumerate() {
                            *found = sum(plane)[within].wrapping_add(excess[row + token * planes + plane]);
                        }
                        *out = scalar::total(input.width, &both) * scalar::row_scale(shape, bytes, within) * scale;
                    }
                }
            }
            row += rows;
        }
        tile += count;
    }
}

/// Prefetches some groups of a tile, from `group` on; addresses past the end have no effect.
#[inline(always)]
fn fetch(shape: &TileShape, tile: *const u8, group: usize) {
    let ask = |start: usize, bytes: usize| {
        for line in 0..bytes.div_ceil(64) {
            // SAFETY: a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(start + line * 64).cast()) };
        }
    };
    let per_group = shape.value_bytes / shape.blocks;
    ask(group * per_group, GROUPS * per_group);
    if shape.storage.is_sparse() {
        ask(shape.value_bytes + group * 32, GROUPS * 32);
    }
    if shape.storage.is_nibbles() {
        ask(shape.multiplier_offset(0, group), GROUPS * 8);
    }
}

/// Unpacks groups of one tile into its part of the weights.
///
/// # Safety
/// The CPU has AVX2, and the tile is whole.
#[inline(always)]
unsafe fn unpack<I: Prefill>(
    (shape, storage): (&TileShape, VectorStorage),
    tile: &[u8],
    groups: Range<usize>,
    part: usize,
    weights: &mut Weights,
) {
    let step_bytes = 32 * I::TILES;
    for (index, group) in groups.enumerate() {
        // SAFETY: there is room for `GROUPS` groups of both tiles.
        let out = unsafe { weights.bytes.as_mut_ptr().add(index * 8 * step_bytes + part * 32) };
        let put = |step: usize, v: __m256i| {
            // SAFETY: a group has eight steps.
            unsafe { _mm256_storeu_si256(out.add(step * step_bytes).cast(), v) }
        };
        // SAFETY: the tile is whole, and the CPU has AVX2.
        unsafe {
            let low = _mm256_set1_epi8(15);
            let eight = if I::STORED_NIBBLES { _mm256_setzero_si256() } else { _mm256_set1_epi8(8) };
            let sign = if I::EXCESS == 128 { _mm256_set1_epi8(i8::MIN) } else { _mm256_setzero_si256() };
            let load = |at: usize| _mm256_loadu_si256(tile.as_ptr().add(at).cast());
            match storage {
                VectorStorage::W4G32 => {
                    for step in 0..4 {
                        let both = load(group * 4 * BLOCK_COLUMNS + step * 32);
                        put(step, _mm256_sub_epi8(_mm256_and_si256(both, low), eight));
                        let high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
                        put(4 + step, _mm256_sub_epi8(high, eight));
                    }
                }
                VectorStorage::W8S24 => {
                    let indices = load(shape.value_bytes + group * 32);
                    for step in 0..4 {
                        let [first, second] = expand(load(group * 4 * BLOCK_COLUMNS + step * 32), step, indices);
                        put(2 * step, _mm256_xor_si256(first, sign));
                        put(2 * step + 1, _mm256_xor_si256(second, sign));
                    }
                }
                VectorStorage::W4G32S24 => {
                    let indices = load(shape.value_bytes + group * 32);
                    for step in 0..4 {
                        let both = load(group / 2 * 4 * BLOCK_COLUMNS + step * 32);
                        let n = if group % 2 == 0 { both } else { _mm256_srli_epi16(both, 4) };
                        let values = _mm256_sub_epi8(_mm256_and_si256(n, low), _mm256_set1_epi8(8));
                        let back = _mm256_sub_epi8(_mm256_set1_epi8(8), eight);
                        let [first, second] = expand(values, step, indices);
                        put(2 * step, _mm256_add_epi8(first, back));
                        put(2 * step + 1, _mm256_add_epi8(second, back));
                    }
                }
                VectorStorage::W8 => {
                    for step in 0..8 {
                        put(step, _mm256_xor_si256(load(group * TILE_GROUP + step * 32), sign));
                    }
                }
            }
        }
        if storage.is_nibbles() {
            let multipliers = &tile[shape.multiplier_offset(0, group)..][..8];
            let out = &mut weights.multipliers[index * 8 * I::TILES + part * 8..][..8];
            for (out, &multiplier) in out.iter_mut().zip(multipliers) {
                *out = I::multiplier(multiplier as i8);
            }
        }
    }
}

/// Scatters the four kept values of each of eight rows to their eight columns: the first four, and the other four. Two
/// values of one column, which only a damaged file has, are combined bitwise.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn expand(values: __m256i, step: usize, indices: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let shift = _mm_cvtsi32_si128(2 * step as i32);
        let index = _mm256_and_si256(_mm256_srl_epi16(indices, shift), _mm256_set1_epi8(3));
        let columns = _mm256_set1_epi32(0x0302_0100);
        let repeat = |byte: i32| {
            let rows =
                _mm256_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c, 0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            _mm256_add_epi8(rows, _mm256_set1_epi8(byte as i8))
        };
        let one = |byte: i32| {
            let mask = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(index, repeat(byte)), columns);
            _mm256_and_si256(_mm256_shuffle_epi8(values, repeat(byte)), mask)
        };
        [_mm256_or_si256(one(0), one(1)), _mm256_or_si256(one(2), one(3))]
    }
}

/// Adds the products of groups with rows of activations.
///
/// # Safety
/// The CPU has the extensions of `I`; rows and groups are there.
#[inline(always)]
unsafe fn add_products<I: Prefill>(
    storage: VectorStorage,
    input: &Activations<'_>,
    rows: Range<usize>,
    group: usize,
    groups: usize,
    weights: &Weights,
    sums: &mut Sums,
) {
    let (mut row, mut slot) = (rows.start, 0);
    macro_rules! block {
        ($count:literal) => {
            while rows.end - row >= $count {
                // SAFETY: the caller's promise.
                unsafe {
                    if storage.is_nibbles() {
                        block4::<I, $count>(input, row, group, groups, weights, &mut sums.0[slot..]);
                    } else {
                        block8::<I, $count>(input, row, group, groups, weights, &mut sums.0[slot..]);
                    }
                }
                row += $count;
                slot += $count * 8 * I::TILES;
            }
        };
    }
    block!(8);
    block!(4);
    block!(1);
}

#[inline(always)]
unsafe fn block8<I: Prefill, const T: usize>(
    input: &Activations<'_>,
    row: usize,
    group: usize,
    groups: usize,
    weights: &Weights,
    sums: &mut [i32],
) {
    let sums = sums[..T * 8 * I::TILES].as_mut_ptr();
    // SAFETY: the caller has the extensions, rows and groups; `sums` has room for `T` vectors.
    unsafe {
        let rows: [*const i8; T] = core::array::from_fn(|t| input.row(row + t).as_ptr().add(group * BLOCK_COLUMNS));
        let mut acc: [I::V; T] = core::array::from_fn(|t| I::load_sums(sums.add(t * 8 * I::TILES)));
        for step in 0..groups * 8 {
            let w = I::load(weights.bytes.as_ptr().add(step * 32 * I::TILES));
            for t in 0..T {
                acc[t] = I::dot8(acc[t], w, I::spread(rows[t].add(step * 4)));
            }
        }
        for (t, &acc) in acc.iter().enumerate() {
            I::store_sums(sums.add(t * 8 * I::TILES), acc);
        }
    }
}

#[inline(always)]
unsafe fn block4<I: Prefill, const T: usize>(
    input: &Activations<'_>,
    row: usize,
    group: usize,
    groups: usize,
    weights: &Weights,
    sums: &mut [i32],
) {
    let sums = sums[..T * 8 * I::TILES].as_mut_ptr();
    let all_groups = input.stride / BLOCK_COLUMNS;
    let offsets = input.offsets[row * all_groups + group..][..(T - 1) * all_groups + groups].as_ptr();
    // SAFETY: the caller has the extensions, rows and groups; `sums` has room for `T` vectors.
    unsafe {
        let rows: [*const i8; T] = core::array::from_fn(|t| input.row(row + t).as_ptr().add(group * BLOCK_COLUMNS));
        let mut total: [I::V; T] = core::array::from_fn(|t| I::load_sums(sums.add(t * 8 * I::TILES)));
        for index in 0..groups {
            let mut acc: [I::V; T] = core::array::from_fn(|t| I::begin(offsets.add(t * all_groups + index)));
            for step in index * 8..index * 8 + 8 {
                let w = I::load(weights.bytes.as_ptr().add(step * 32 * I::TILES));
                for t in 0..T {
                    acc[t] = I::dot4(acc[t], w, I::spread(rows[t].add(step * 4)));
                }
            }
            let multipliers = I::load_sums(weights.multipliers.as_ptr().add(index * 8 * I::TILES));
            for t in 0..T {
                total[t] = I::fold(total[t], acc[t], multipliers);
            }
        }
        for (t, &total) in total.iter().enumerate() {
            I::store_sums(sums.add(t * 8 * I::TILES), total);
        }
    }
}
