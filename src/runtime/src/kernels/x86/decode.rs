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

/// How far ahead of what is read the memory is asked for.
const AHEAD: usize = 8192;

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
    for tile in tiles {
        let bytes = &matrix.bytes[tile * shape.stride..][..shape.stride];
        let mut sums = [[0i32; 8]; PLANES];
        // SAFETY: a tile holds what its shape says, and each row of activations 32 values a group.
        let found = unsafe {
            match shape.storage {
                Storage::W4G32 => dense4::<I, PLANES>(shape, bytes.as_ptr(), rows, offsets),
                Storage::W8S24 => sparse8::<I, PLANES>(shape, bytes.as_ptr(), rows),
                Storage::W4G32S24 => sparse4::<I, PLANES>(shape, bytes.as_ptr(), rows),
                _ => dense8::<I, PLANES>(shape, bytes.as_ptr(), rows, excess),
            }
        };
        let at = tile * 8 - first;
        let scales = bytes[shape.scale_offset(0)..].as_ptr();
        if PLANES == 1 && out.len() >= at + 8 {
            // SAFETY: AVX2 is there; eight scales and eight places.
            unsafe {
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(found[0]), _mm256_loadu_ps(scales.cast()));
                let y = _mm256_mul_ps(scaled, _mm256_set1_ps(input.scales[0]));
                _mm256_storeu_ps(out[at..at + 8].as_mut_ptr(), y);
            }
            continue;
        }
        for (sums, found) in sums.iter_mut().zip(found) {
            // SAFETY: AVX2 is there; eight places.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), found) };
        }
        for (row, out) in out[at..].iter_mut().take(8).enumerate() {
            let mut planes = [0; PLANES];
            planes.iter_mut().zip(&sums).for_each(|(plane, sums)| *plane = sums[row]);
            *out = scalar::total(input.width, &planes) * scalar::row_scale(shape, bytes, row) * input.scales[0];
        }
    }
}

/// Asks for what lies `AHEAD` after some bytes; an address past the end is asked for in vain.
#[inline(always)]
fn fetch(bytes: *const u8) {
    // SAFETY: a prefetch reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast()) }
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
        for group in 0..shape.groups {
            let bytes = tile.add(group * 8 * GROUP);
            for line in 0..4 {
                fetch(bytes.add(line * 64));
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
unsafe fn dense4<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
    offsets: [*const i32; PLANES],
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile, rows and offsets of that shape.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let multipliers = tile.add(shape.value_bytes);
        let mut totals = [_mm256_setzero_si256(); PLANES];
        for group in 0..shape.groups {
            let bytes = tile.add(group * 4 * GROUP);
            fetch(bytes);
            fetch(bytes.add(64));
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
                totals[plane] = I::fold(totals[plane], sum, multipliers.add(group * 8));
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
unsafe fn sparse8<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let planes = tile.add(shape.value_bytes);
        let zero = _mm256_setzero_si256();
        let mut sums = [[(zero, zero); 2]; PLANES];
        for group in 0..shape.groups {
            let bytes = tile.add(group * 4 * GROUP);
            fetch(bytes);
            fetch(bytes.add(64));
            let indices = planes.add(group * 32);
            fetch(indices);
            let indices = _mm256_loadu_si256(indices.cast());
            for step in 0..4 {
                let w = _mm256_loadu_si256(bytes.add(step * 32).cast());
                for plane in 0..PLANES {
                    let a = spread_eight(rows[plane].add(group * GROUP + step * 8));
                    let a = choose_at(step, a, indices);
                    sums[plane][step % 2] = I::dot8_chosen(sums[plane][step % 2], w, a);
                }
            }
        }
        sums.map(|[a, b]| _mm256_sub_epi32(_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)))
    }
}

#[inline(always)]
unsafe fn sparse4<I: Decode, const PLANES: usize>(
    shape: &TileShape,
    tile: *const u8,
    rows: [*const i8; PLANES],
) -> [__m256i; PLANES] {
    // SAFETY: the caller has the extensions, a tile and rows of that shape.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let planes = tile.add(shape.value_bytes);
        let multipliers = planes.add(shape.plane_bytes);
        let zero = _mm256_setzero_si256();
        let mut totals = [zero; PLANES];
        let mut group = 0;
        while group < shape.groups {
            // Low nibbles are of this group, high ones of the next; of an odd number of groups the last has no next.
            let bytes = tile.add(group / 2 * 4 * GROUP);
            fetch(bytes);
            fetch(bytes.add(64));
            fetch(planes.add(group * 32));
            let mut values = [zero; 4];
            for (step, value) in values.iter_mut().enumerate() {
                *value = _mm256_loadu_si256(bytes.add(step * 32).cast());
            }
            for part in 0..2 {
                if group + part == shape.groups {
                    break;
                }
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
                    totals[plane] = I::fold(totals[plane], sum, multipliers.add((group + part) * 8));
                }
            }
            group += 2;
        }
        totals
    }
}
