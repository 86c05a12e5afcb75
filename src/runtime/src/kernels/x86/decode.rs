//! Products with one token: every byte of a tile is read once, and 32 of them are eight rows of four columns. Tiles are
//! taken from the last to the first, and groups likewise: see [`stream`](super::stream).

#![expect(clippy::needless_range_loop, reason = "arrays of registers are indexed in step with pointers")]
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use super::super::columns::Columns;
use super::super::{Activations, VectorStorage, scalar};
use super::stream::{GROUP4, GROUP4_SPARSE, GROUP8, GROUP8_SPARSE, Stream, TilePrefetch};
use super::vectors::{Decode, MOST_GROUPS, excess_of};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, TileShape};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

/// Rows of `tiles` for one token with `PLANES` rows of activations.
///
/// # Safety
/// The CPU has the extensions of `I`; the caller has called [`Activations::check`], the layout is r8k4 with offset-8
/// nibbles, and there is one token of `PLANES` planes.
#[inline(always)]
pub(super) unsafe fn multiply<I: Decode, const PLANES: usize>(
    matrix: &Matrix<'_>,
    storage: VectorStorage,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let shape = &matrix.shape;
    let mut rows = [input.values.as_ptr(); PLANES];
    let mut offsets = [input.offsets.as_ptr(); PLANES];
    let mut excess = [0i32; PLANES];
    let mut buffers = [[const { MaybeUninit::<i32>::uninit() }; MOST_GROUPS]; PLANES];
    for plane in 0..PLANES {
        rows[plane] = input.row(plane).as_ptr();
        let of_plane = &input.offsets[plane * shape.blocks..][..shape.blocks];
        excess[plane] = excess_of(I::EXCESS, of_plane);
        offsets[plane] = of_plane.as_ptr();
        if storage == VectorStorage::W4G32 {
            // SAFETY: the caller's promise; a w4 matrix has no more groups than the buffer.
            offsets[plane] = unsafe { I::offsets(rows[plane], offsets[plane], shape.blocks, &mut buffers[plane]) };
        }
    }
    let first = output.range().start;
    let out = output.row(0);
    let stream = Stream::new(shape, &matrix.bytes[..tiles.end * shape.stride]);
    for tile in tiles.rev() {
        let bytes = &matrix.bytes[tile * shape.stride..][..shape.stride];
        let start = bytes.as_ptr();
        let prefetch = stream.tile(shape, start);
        // SAFETY: the caller's promise; the tile is whole, and each row of activations has 32 values a group.
        unsafe {
            let found = match storage {
                VectorStorage::W8 => dense8::<I, PLANES>(shape, start, rows, excess, prefetch),
                VectorStorage::W4G32 => dense4::<I, PLANES>(shape, start, rows, offsets, prefetch),
                VectorStorage::W8S24 => sparse8::<I, PLANES>(shape, start, rows, prefetch),
                VectorStorage::W4G32S24 => sparse4::<I, PLANES>(shape, start, rows, prefetch),
            };
            put::<PLANES>(shape, bytes, found, input, &mut out[tile * 8 - first..]);
        }
    }
}

/// The outputs of one tile from its sums.
#[inline(always)]
unsafe fn put<const PLANES: usize>(
    shape: &TileShape,
    tile: &[u8],
    found: [__m256i; PLANES],
    input: &Activations<'_>,
    out: &mut [f32],
) {
    if PLANES == 1 && out.len() >= 8 {
        // SAFETY: AVX2 is there; eight scales and eight places.
        unsafe {
            let scales = _mm256_loadu_ps(tile[shape.scale_offset(0)..][..32].as_ptr().cast());
            let y = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(found[0]), scales), _mm256_set1_ps(input.scales[0]));
            _mm256_storeu_ps(out[..8].as_mut_ptr(), y);
        }
        return;
    }
    let mut sums = [[0i32; 8]; PLANES];
    for (sums, found) in sums.iter_mut().zip(found) {
        // SAFETY: AVX2 is there; eight places.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), found) };
    }
    for (row, out) in out.iter_mut().take(8).enumerate() {
        let planes: [i32; PLANES] = core::array::from_fn(|plane| sums[plane][row]);
        *out = scalar::total(input.width, &planes) * scalar::row_scale(shape, tile, row) * input.scales[0];
    }
}

#[inline(always)]
unsafe fn spread(from: *const i8) -> __m256i {
    // SAFETY: the caller has AVX2 and four bytes.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

/// Sixteen bytes in both halves.
#[inline(always)]
unsafe fn spread_sixteen(from: *const i8) -> __m256i {
    // SAFETY: the caller has AVX2 and sixteen bytes.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) }
}

#[inline(always)]
unsafe fn dense8<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    excess: [i32; PLANES],
    prefetch: TilePrefetch,
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 4]; PLANES];
        for group in (0..shape.blocks).rev() {
            prefetch.lines::<GROUP8>(group * GROUP8);
            let bytes = tile.add(group * 8 * BLOCK_COLUMNS);
            for step in (0..8).rev() {
                let w = I::prepare8(_mm256_loadu_si256(bytes.add(step * 32).cast()));
                for plane in 0..PLANES {
                    let a = spread(rows[plane].add(group * BLOCK_COLUMNS + step * 4));
                    sums[plane][step % 4] = I::dot8(sums[plane][step % 4], w, a);
                }
            }
        }
        let mut out = [_mm256_setzero_si256(); PLANES];
        for plane in 0..PLANES {
            let [a, b, c, d] = sums[plane];
            let sum = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
            out[plane] = _mm256_add_epi32(sum, _mm256_set1_epi32(excess[plane]));
        }
        out
    }
}

#[inline(always)]
unsafe fn dense4<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    offsets: [*const i32; PLANES],
    prefetch: TilePrefetch,
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile, rows and offsets of that shape.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut totals = [_mm256_setzero_si256(); PLANES];
        for group in (0..shape.blocks).rev() {
            prefetch.lines::<GROUP4>(group * GROUP4);
            let bytes = tile.add(group * 4 * BLOCK_COLUMNS);
            let mut first = [_mm256_setzero_si256(); PLANES];
            let mut second = [_mm256_setzero_si256(); PLANES];
            for plane in 0..PLANES {
                first[plane] = _mm256_set1_epi32(offsets[plane].add(group).read());
            }
            for step in (0..4).rev() {
                let both = _mm256_loadu_si256(bytes.add(step * 32).cast());
                let (n, high) = (_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
                for plane in 0..PLANES {
                    let a = rows[plane].add(group * BLOCK_COLUMNS + step * 4);
                    first[plane] = I::dot4(first[plane], n, spread(a));
                    second[plane] = I::dot4(second[plane], high, spread(a.add(16)));
                }
            }
            let multipliers = tile.add(shape.value_bytes + group * 8);
            for plane in 0..PLANES {
                totals[plane] = I::fold(totals[plane], I::join(first[plane], second[plane]), multipliers);
            }
        }
        totals
    }
}

/// Selects for each row the activations of its four kept columns among the eight of a step, which are in both halves of
/// `a` from byte `EIGHT`.
#[inline(always)]
unsafe fn pick<const EIGHT: i32>(a: __m256i, indices: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        // Kept columns 2 and 3 are among the second four.
        let index = _mm256_and_si256(indices, _mm256_set1_epi8(3));
        _mm256_shuffle_epi8(a, _mm256_or_si256(index, _mm256_set1_epi32(0x0404_0000 + EIGHT * 0x0101_0101)))
    }
}

/// [`pick`] for the four steps of a group: 32 activations, and the plane of their indices.
#[inline(always)]
unsafe fn choose(a: *const i8, plane: __m256i) -> [__m256i; 4] {
    // SAFETY: the caller has AVX2 and 32 activations.
    unsafe {
        let (front, back) = (spread_sixteen(a), spread_sixteen(a.add(16)));
        [
            pick::<0>(front, plane),
            pick::<8>(front, _mm256_srli_epi16(plane, 2)),
            pick::<0>(back, _mm256_srli_epi16(plane, 4)),
            pick::<8>(back, _mm256_srli_epi16(plane, 6)),
        ]
    }
}

#[inline(always)]
pub(super) unsafe fn sparse8<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    prefetch: TilePrefetch,
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut even = [(zero, zero); PLANES];
        let mut odd = [(zero, zero); PLANES];
        for group in (0..shape.blocks).rev() {
            prefetch.lines::<GROUP8_SPARSE>(group * GROUP8_SPARSE);
            let bytes = tile.add(group * 4 * BLOCK_COLUMNS);
            let indices = _mm256_loadu_si256(tile.add(shape.value_bytes + group * 32).cast());
            for plane in 0..PLANES {
                let chosen = choose(rows[plane].add(group * BLOCK_COLUMNS), indices);
                for half in (0..2).rev() {
                    let values = bytes.add(half * 64);
                    let (first, second) =
                        (_mm256_loadu_si256(values.cast()), _mm256_loadu_si256(values.add(32).cast()));
                    even[plane] = I::dot8_chosen(even[plane], first, chosen[2 * half]);
                    odd[plane] = I::dot8_chosen(odd[plane], second, chosen[2 * half + 1]);
                }
            }
        }
        let mut out = [zero; PLANES];
        for plane in 0..PLANES {
            let sum = _mm256_add_epi32(even[plane].0, odd[plane].0);
            out[plane] = _mm256_sub_epi32(sum, _mm256_add_epi32(even[plane].1, odd[plane].1));
        }
        out
    }
}

/// Adds a group to the totals, from its activations, index plane, nibbles of four steps and multipliers.
#[inline(always)]
unsafe fn sparse4_group<I: Decode>(
    total: __m256i,
    a: *const i8,
    indices: *const u8,
    nibbles: [__m256i; 4],
    multipliers: *const u8,
) -> __m256i {
    // SAFETY: the caller has the extensions, 32 activations, a plane and multipliers.
    unsafe {
        let chosen = choose(a, _mm256_loadu_si256(indices.cast()));
        let mut sums = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for step in 0..4 {
            sums = I::dot4_chosen(sums, _mm256_and_si256(nibbles[step], _mm256_set1_epi8(15)), chosen[step]);
        }
        I::fold(total, I::less(sums.0, sums.1), multipliers)
    }
}

#[inline(always)]
pub(super) unsafe fn sparse4<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    prefetch: TilePrefetch,
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let indices = tile.add(shape.value_bytes);
        let multipliers = indices.add(shape.plane_bytes);
        let mut totals = [_mm256_setzero_si256(); PLANES];
        // Low nibbles belong to an even group, high ones to the next; the last of an odd number of groups has no next.
        let mut group = shape.blocks;
        if group % 2 == 1 {
            group -= 1;
            prefetch.lines::<{ 2 * GROUP4_SPARSE }>(group * GROUP4_SPARSE);
            let bytes = tile.add(group * 2 * BLOCK_COLUMNS);
            let mut low = [_mm256_setzero_si256(); 4];
            for step in 0..4 {
                low[step] = _mm256_loadu_si256(bytes.add(step * 32).cast());
            }
            for plane in 0..PLANES {
                let a = rows[plane].add(group * BLOCK_COLUMNS);
                let (i, m) = (indices.add(group * 32), multipliers.add(group * 8));
                totals[plane] = sparse4_group::<I>(totals[plane], a, i, low, m);
            }
        }
        while group > 0 {
            group -= 2;
            prefetch.lines::<{ 2 * GROUP4_SPARSE }>(group * GROUP4_SPARSE);
            let bytes = tile.add(group * 2 * BLOCK_COLUMNS);
            let mut low = [_mm256_setzero_si256(); 4];
            let mut high = [_mm256_setzero_si256(); 4];
            for step in 0..4 {
                low[step] = _mm256_loadu_si256(bytes.add(step * 32).cast());
                high[step] = _mm256_srli_epi16(low[step], 4);
            }
            for plane in 0..PLANES {
                let a = rows[plane].add(group * BLOCK_COLUMNS);
                let (i, m) = (indices.add(group * 32), multipliers.add(group * 8));
                totals[plane] = sparse4_group::<I>(totals[plane], a, i, low, m);
                totals[plane] = sparse4_group::<I>(totals[plane], a.add(BLOCK_COLUMNS), i.add(32), high, m.add(8));
            }
        }
        totals
    }
}
