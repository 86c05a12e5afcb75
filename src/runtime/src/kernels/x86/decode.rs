//! Products with one token: every byte of a tile is read once, and 32 of them are eight rows of four columns. The
//! artifact's tiles lie one after another, so the next ones are fetched while a tile is multiplied.
#![expect(unsafe_code, reason = "vector instructions; the tables are handed out where the CPU has them")]

use super::super::columns::Columns;
use super::super::{Activations, scalar};
use super::vectors::{Decode, MOST_GROUPS};
use crate::format::artifact::Matrix;
use crate::layout::{GROUP, Storage, TileShape};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

/// How far ahead of what is read the memory is asked for: in tiles of at least so many bytes, and in shorter ones.
const AHEAD: usize = 4096;
const AHEAD_OF_SHORT: usize = 8192;
/// Tiles that are read side by side, so that several streams are fetched at once: where values arrive faster by the hardware's
/// own fetching than by asking, which takes its place.
const TOGETHER: usize = 4;
/// Bytes of values up to which tiles are read one after another and asked for ahead: measured on Zen 4, where long tiles are
/// fetched best by the hardware alone.
const SHORT: usize = 8192;

/// Rows of `tiles` for one token, of `PLANES` rows of activations.
///
/// # Safety
/// The CPU has the extensions of `I`; the caller has called [`Activations::check`], the layout is r8k4 with offset-8
/// nibbles, and there is one token of `PLANES` planes.
#[inline(always)]
pub(super) unsafe fn multiply<I: Decode, const PLANES: usize>(
    matrix: &Matrix<'_>,
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
        let of_plane = &input.offsets[plane * shape.groups..][..shape.groups];
        // -8 · Σ a, 16 times, is what weights that are 128 more have too much.
        let sum = of_plane.iter().fold(0i32, |sum, &offset| sum.wrapping_add(offset));
        excess[plane] = sum.wrapping_mul(I::EXCESS / 8);
        offsets[plane] = of_plane.as_ptr();
        if shape.storage == Storage::W4G32 {
            // SAFETY: the caller's promise; a w4 matrix has no more groups than the buffer.
            offsets[plane] = unsafe { I::offsets(rows[plane], offsets[plane], shape.groups, &mut buffers[plane]) };
        }
    }
    let first = output.range().start;
    let out = output.row(0);
    let side_by_side = shape.storage.is_sparse() || shape.value_bytes > SHORT;
    let mut tile = tiles.start;
    // SAFETY: the caller's promise; the tiles are those of the range.
    unsafe {
        if side_by_side {
            while tiles.end - tile >= TOGETHER {
                some_tiles::<I, PLANES, TOGETHER>(
                    matrix,
                    tile,
                    rows,
                    offsets,
                    excess,
                    input,
                    &mut out[tile * 8 - first..],
                );
                tile += TOGETHER;
            }
        }
        while tile < tiles.end {
            some_tiles::<I, PLANES, 1>(matrix, tile, rows, offsets, excess, input, &mut out[tile * 8 - first..]);
            tile += 1;
        }
    }
}

/// The outputs of `TILES` tiles from `tile` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a loop's body, which is there twice")]
unsafe fn some_tiles<I: Decode, const PLANES: usize, const TILES: usize>(
    matrix: &Matrix<'_>,
    tile: usize,
    rows: [*const i8; PLANES],
    offsets: [*const i32; PLANES],
    excess: [i32; PLANES],
    input: &Activations<'_>,
    out: &mut [f32],
) {
    let shape = &matrix.shape;
    let bytes = &matrix.bytes[tile * shape.stride..][..TILES * shape.stride];
    // SAFETY: the caller's promise; the tiles are whole, and each row of activations has 32 values a group.
    unsafe {
        let found = sums::<I, PLANES, TILES>(shape, bytes.as_ptr(), rows, offsets, excess);
        for (t, found) in found.into_iter().enumerate() {
            put::<PLANES>(shape, &bytes[t * shape.stride..][..shape.stride], found, input, &mut out[t * 8..]);
        }
    }
}

/// Sums of some tiles one after another.
#[inline(always)]
unsafe fn sums<I: Decode, const PLANES: usize, const TILES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    offsets: [*const i32; PLANES],
    excess: [i32; PLANES],
) -> [[__m256i; PLANES]; TILES] {
    // SAFETY: the caller's promise.
    unsafe {
        match shape.storage {
            Storage::W4G32 => dense4::<I, PLANES, TILES>(shape, tile, rows, offsets),
            Storage::W8S24 => sparse8::<I, PLANES, TILES>(shape, tile, rows),
            Storage::W4G32S24 => sparse4::<I, PLANES, TILES>(shape, tile, rows),
            _ => {
                let mut found = [[_mm256_setzero_si256(); PLANES]; TILES];
                for (t, found) in found.iter_mut().enumerate() {
                    *found = dense8::<I, PLANES>(shape, tile.add(t * shape.stride), rows, excess);
                }
                found
            }
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

/// Where the values stand that are some bytes of values further than some place in a tile, where tiles are read that
/// are `next` bytes apart.
#[derive(Clone, Copy)]
struct Ahead {
    values: usize,
    /// Whole tiles, in bytes.
    tiles: usize,
    within: usize,
    /// From a tile's last value to the next one's first.
    gap: usize,
}

impl Ahead {
    #[inline(always)]
    fn new(shape: &TileShape, next: usize) -> Self {
        let values = shape.value_bytes;
        let bytes = if shape.storage == Storage::W4G32 && values < AHEAD { AHEAD_OF_SHORT } else { AHEAD };
        Ahead { values, tiles: bytes / values * next, within: bytes % values, gap: next - values }
    }

    /// Asks for `lines` lines there.
    #[inline(always)]
    fn ask(self, tile: *const u8, offset: usize, lines: usize) {
        let at = offset + self.within;
        let at = self.tiles + if at < self.values { at } else { at + self.gap };
        for line in 0..lines {
            ask(tile.wrapping_add(at + line * 64));
        }
    }
}

/// Asks for a line; an address past the end is asked for in vain.
#[inline(always)]
fn ask(address: *const u8) {
    // SAFETY: a prefetch reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[inline(always)]
unsafe fn spread(from: *const i8) -> __m256i {
    // SAFETY: the caller has AVX2 and four bytes.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

#[inline(always)]
unsafe fn spread_eight(from: *const i8) -> __m256i {
    // SAFETY: the caller has AVX2 and eight bytes.
    unsafe { _mm256_set1_epi64x(from.cast::<i64>().read_unaligned()) }
}

#[inline(always)]
unsafe fn dense8<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    excess: [i32; PLANES],
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 4]; PLANES];
        let ahead = Ahead::new(shape, shape.stride);
        let short = shape.value_bytes <= SHORT;
        for group in 0..shape.groups {
            let bytes = tile.add(group * 8 * GROUP);
            if short {
                ahead.ask(tile, group * 8 * GROUP, 4);
            }
            for step in 0..8 {
                let w = I::prepare8(_mm256_loadu_si256(bytes.add(step * 32).cast()));
                for plane in 0..PLANES {
                    let a = spread(rows[plane].add(group * GROUP + step * 4));
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
unsafe fn dense4<I: Decode, const PLANES: usize, const TILES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    offsets: [*const i32; PLANES],
) -> [[__m256i; PLANES]; TILES] {
    // SAFETY: the caller has the extensions, tiles, rows and offsets of that shape.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let next = TILES * shape.stride;
        let ahead = Ahead::new(shape, next);
        let mut totals = [[_mm256_setzero_si256(); PLANES]; TILES];
        for group in 0..shape.groups {
            for t in 0..TILES {
                let tile = tile.add(t * shape.stride);
                let bytes = tile.add(group * 4 * GROUP);
                if TILES == 1 {
                    ahead.ask(tile, group * 4 * GROUP, 2);
                }
                let multipliers = tile.add(shape.value_bytes + group * 8);
                ask(multipliers.wrapping_add(next));
                let mut first = [_mm256_setzero_si256(); PLANES];
                let mut second = [_mm256_setzero_si256(); PLANES];
                for plane in 0..PLANES {
                    first[plane] = _mm256_set1_epi32(offsets[plane].add(group).read());
                }
                for step in 0..4 {
                    let both = _mm256_loadu_si256(bytes.add(step * 32).cast());
                    let (n, high) = (_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
                    for plane in 0..PLANES {
                        let a = rows[plane].add(group * GROUP + step * 4);
                        first[plane] = I::dot4(first[plane], n, spread(a));
                        second[plane] = I::dot4(second[plane], high, spread(a.add(16)));
                    }
                }
                for plane in 0..PLANES {
                    let sum = I::join(first[plane], second[plane]);
                    totals[t][plane] = I::fold(totals[t][plane], sum, multipliers);
                }
            }
        }
        totals
    }
}

/// For each row, the activations of its four kept columns among eight: of step `STEP` of a group's plane.
#[inline(always)]
unsafe fn choose<const SHIFT: i32>(a: __m256i, plane: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let index = _mm256_and_si256(_mm256_srli_epi16(plane, SHIFT), _mm256_set1_epi8(3));
        _mm256_shuffle_epi8(a, _mm256_or_si256(index, _mm256_set1_epi32(0x0404_0000)))
    }
}

/// [`choose`] of a step that is not known when it is compiled.
#[inline(always)]
unsafe fn choose_at(step: usize, a: __m256i, plane: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        match step {
            0 => choose::<0>(a, plane),
            1 => choose::<2>(a, plane),
            2 => choose::<4>(a, plane),
            _ => choose::<6>(a, plane),
        }
    }
}

#[inline(always)]
unsafe fn sparse8<I: Decode, const PLANES: usize, const TILES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
) -> [[__m256i; PLANES]; TILES] {
    // SAFETY: the caller has the extensions, tiles and rows of that shape.
    unsafe {
        let zero = _mm256_setzero_si256();
        let next = TILES * shape.stride;
        let mut sums = [[(zero, zero); PLANES]; TILES];
        for group in 0..shape.groups {
            for t in 0..TILES {
                let tile = tile.add(t * shape.stride);
                let bytes = tile.add(group * 4 * GROUP);
                let indices = tile.add(shape.value_bytes + group * 32);
                ask(indices.wrapping_add(next));
                let indices = _mm256_loadu_si256(indices.cast());
                for step in 0..4 {
                    let w = _mm256_loadu_si256(bytes.add(step * 32).cast());
                    for plane in 0..PLANES {
                        let a = spread_eight(rows[plane].add(group * GROUP + step * 8));
                        let a = choose_at(step, a, indices);
                        sums[t][plane] = I::dot8_chosen(sums[t][plane], w, a);
                    }
                }
            }
        }
        sums.map(|sums| sums.map(|(sum, excess)| _mm256_sub_epi32(sum, excess)))
    }
}

#[inline(always)]
unsafe fn sparse4<I: Decode, const PLANES: usize, const TILES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
) -> [[__m256i; PLANES]; TILES] {
    // SAFETY: the caller has the extensions, tiles and rows of that shape.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let zero = _mm256_setzero_si256();
        let next = TILES * shape.stride;
        let ahead = Ahead::new(shape, next);
        let mut totals = [[zero; PLANES]; TILES];
        let mut group = 0;
        while group < shape.groups {
            for t in 0..TILES {
                let tile = tile.add(t * shape.stride);
                let planes = tile.add(shape.value_bytes);
                let multipliers = planes.add(shape.plane_bytes);
                // Low nibbles are of this group, high ones of the next; of an odd number the last has no next.
                let bytes = tile.add(group / 2 * 4 * GROUP);
                ahead.ask(tile, group / 2 * 4 * GROUP, 2);
                ask(planes.wrapping_add(next + group * 32));
                ask(multipliers.wrapping_add(next + group * 8));
                let values: [__m256i; 4] = core::array::from_fn(|step| _mm256_loadu_si256(bytes.add(step * 32).cast()));
                for part in 0..2.min(shape.groups - group) {
                    let indices = _mm256_loadu_si256(planes.add((group + part) * 32).cast());
                    let mut sums = [(zero, zero); PLANES];
                    for (step, &value) in values.iter().enumerate() {
                        let n = _mm256_and_si256(if part == 0 { value } else { _mm256_srli_epi16(value, 4) }, low);
                        for plane in 0..PLANES {
                            let a = spread_eight(rows[plane].add((group + part) * GROUP + step * 8));
                            sums[plane] = I::dot4_chosen(sums[plane], n, choose_at(step, a, indices));
                        }
                    }
                    for plane in 0..PLANES {
                        let sum = I::less(sums[plane].0, sums[plane].1);
                        totals[t][plane] = I::fold(totals[t][plane], sum, multipliers.add((group + part) * 8));
                    }
                }
            }
            group += 2;
        }
        totals
    }
}
