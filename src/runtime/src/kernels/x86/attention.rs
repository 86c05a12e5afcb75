//! Attention's two products, several positions at a time. Keys are multiplied eight positions together, whose sums form
//! one vector; values four positions together, their 14-bit weights as two planes of 7 bits.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use super::super::scalar::BLOCK;
use super::super::{Factors, Rows, Sums};
use super::vectors::Decode;
use crate::numerics;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Largest head_dim whose query is padded on the stack; larger ones go through the scalar kernel.
pub(super) const MAX_HEAD: usize = 256;

/// See [`super::super::Kernels::scores`].
///
/// # Safety
/// The CPU has the extensions of `I`; the query has at most [`MAX_HEAD`] values.
#[inline(always)]
pub(super) unsafe fn scores<I: Decode>(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 {
    let width = query.len();
    let seen = scores.len();
    assert!(keys.scales.len() >= seen && keys.values.len() >= seen * width && width <= MAX_HEAD);
    // The last vector of a key reaches into the next key, where the query has zeros; the last keys are copied, since
    // theirs would reach past the end.
    let vectors = width.div_ceil(32);
    let mut padded = [MaybeUninit::<i8>::uninit(); MAX_HEAD];
    let padded = copy_padded(query, vectors, &mut padded);
    let sum: i32 = query.iter().map(|&value| i32::from(value)).sum();
    let excess = sum.wrapping_mul(-I::EXCESS);
    // SAFETY: AVX2 is there.
    let mut top = unsafe { _mm256_set1_ps(f32::NEG_INFINITY) };
    // Eights of keys whose last vectors stay within the array.
    let whole = (keys.values.len().saturating_sub(32) / width).min(seen) / 8 * 8;
    let mut position = 0;
    while position < whole {
        // SAFETY: the caller's promise; `whole` keys are followed by as many bytes as their last vectors reach further.
        unsafe {
            let first = keys.values.as_ptr().add(position * width);
            let scales = _mm256_loadu_ps(keys.scales.as_ptr().add(position));
            let rows = core::array::from_fn(|index| first.add(index * width));
            let score = eight::<I>(padded, rows, vectors, excess, scales, scale);
            _mm256_storeu_ps(scores.as_mut_ptr().add(position).cast(), score);
            // The second operand where the first is not larger, also for NaN.
            top = _mm256_max_ps(score, top);
        }
        position += 8;
    }
    let mut copies = [[MaybeUninit::<i8>::uninit(); MAX_HEAD]; 8];
    while position < seen {
        let count = (seen - position).min(8);
        let mut rows = [padded; 8];
        for (index, (row, copy)) in rows.iter_mut().zip(&mut copies).enumerate().take(count) {
            let key = &keys.values[(position + index) * width..];
            *row = if key.len() >= vectors * 32 { key.as_ptr() } else { copy_padded(&key[..width], vectors, copy) };
        }
        let mut key_scales = [0f32; 8];
        key_scales[..count].copy_from_slice(&keys.scales[position..position + count]);
        let mut bits = [0u32; 8];
        // SAFETY: the caller's promise; the copies are whole vectors, and rows past the last are the query.
        unsafe {
            let scales = _mm256_loadu_ps(key_scales.as_ptr());
            let score = eight::<I>(padded, rows, vectors, excess, scales, scale);
            _mm256_storeu_ps(bits.as_mut_ptr().cast(), score);
            // Lanes past the last position repeat it.
            let last = bits[count - 1];
            bits[count..].fill(last);
            top = _mm256_max_ps(_mm256_loadu_ps(bits.as_ptr().cast()), top);
        }
        scores[position..position + count].copy_from_slice(&bits[..count]);
        position += count;
    }
    let mut lanes = [0f32; 8];
    // SAFETY: AVX2 is there; eight places.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), top) };
    lanes.into_iter().fold(f32::NEG_INFINITY, |top, lane| if lane > top { lane } else { top })
}

/// Scores of eight keys.
#[inline(always)]
unsafe fn eight<I: Decode>(
    query: *const i8,
    rows: [*const i8; 8],
    vectors: usize,
    excess: i32,
    key_scales: __m256,
    scale: f32,
) -> __m256 {
    // SAFETY: the caller has the extensions, and as many vectors of each row.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); 8];
        for vector in 0..vectors {
            let q = _mm256_loadu_si256(query.add(vector * 32).cast());
            for (sum, row) in sums.iter_mut().zip(rows) {
                let key = I::prepare8(_mm256_loadu_si256(row.add(vector * 32).cast()));
                *sum = I::dot8(*sum, key, q);
            }
        }
        let sums = _mm256_add_epi32(gather_sums(sums), _mm256_set1_epi32(excess));
        _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), key_scales), _mm256_set1_ps(scale))
    }
}

/// Some bytes with zeros up to whole vectors.
#[inline(always)]
fn copy_padded(from: &[i8], vectors: usize, to: &mut [MaybeUninit<i8>; MAX_HEAD]) -> *const i8 {
    let to = &mut to[..vectors * 32];
    assert!(from.len() <= to.len());
    // SAFETY: there is room for both, and the places are not those of `from`.
    unsafe {
        to.as_mut_ptr().write_bytes(0, to.len());
        to.as_mut_ptr().cast::<i8>().copy_from_nonoverlapping(from.as_ptr(), from.len());
    }
    to.as_ptr().cast()
}

/// The sum of each of eight vectors.
#[inline(always)]
unsafe fn gather_sums(v: [__m256i; 8]) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let [a, b, c, d, e, f, g, h] = v;
        let low = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let high = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
        _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31))
    }
}

/// See [`super::super::Kernels::mix`]. `dot` is acc + Σ of four products of unsigned and signed bytes, exact for values
/// of up to 127 and -127 … 127.
///
/// # Safety
/// The CPU has AVX2 and the extensions of `dot`.
#[inline(always)]
pub(super) unsafe fn mix(
    values: Rows<'_>,
    weights: &[u32],
    factors: Factors,
    sums: Sums<'_>,
    out: &mut [f32],
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    let width = out.len();
    let seen = weights.len();
    assert!(values.scales.len() >= seen && values.values.len() >= seen * width);
    let (block_sums, totals) = (&mut sums.block[..width], &mut sums.total[..width]);
    let several = seen > BLOCK;
    if several {
        totals.fill(0);
    }
    let mut first = 0;
    while first < seen {
        let count = BLOCK.min(seen - first);
        // Planes of the weights: 7 high and 7 low bits, zero past the last position.
        let mut planes = [[0u8; BLOCK]; 2];
        let [high, low] = &mut planes;
        let with_scales = weights[first..first + count].iter().zip(&values.scales[first..first + count]);
        for ((high, low), (&weight, &scale)) in high.iter_mut().zip(low.iter_mut()).zip(with_scales) {
            let weight = numerics::probability(weight, scale, factors.ratio);
            *high = (weight >> 7) as u8;
            *low = (weight & 127) as u8;
        }
        let rows = &values.values[first * width..][..count * width];
        let mut column = 0;
        while column + 32 <= width {
            // SAFETY: the caller's promise.
            unsafe { mix_columns::<32>(rows, width, column, &planes, count, block_sums, &dot) };
            column += 32;
        }
        if column + 16 <= width {
            // SAFETY: the caller's promise.
            unsafe { mix_columns::<16>(rows, width, column, &planes, count, block_sums, &dot) };
            column += 16;
        }
        if column < width {
            block_sums[column..].fill(0);
            for (row, (&high, &low)) in rows.chunks_exact(width).zip(planes[0].iter().zip(&planes[1])) {
                let weight = i32::from(high) * 128 + i32::from(low);
                for (sum, &value) in block_sums[column..].iter_mut().zip(&row[column..]) {
                    *sum += weight * i32::from(value);
                }
            }
        }
        if several {
            totals.iter_mut().zip(block_sums.iter()).for_each(|(total, &sum)| *total += i64::from(sum));
        }
        first += count;
    }
    if several {
        out.iter_mut().zip(totals.iter()).for_each(|(out, &total)| *out = total as f32 * factors.back);
    } else {
        out.iter_mut().zip(block_sums.iter()).for_each(|(out, &sum)| *out = sum as f32 * factors.back);
    }
}

/// Sums of `N` columns, 32 or 16, over the rows of a block.
#[inline(always)]
unsafe fn mix_columns<const N: usize>(
    rows: &[i8],
    width: usize,
    column: usize,
    planes: &[[u8; BLOCK]; 2],
    count: usize,
    sums: &mut [i32],
    dot: &impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    assert!(column + N <= width && width <= sums.len() && rows.len() == count * width && count <= BLOCK);
    // SAFETY: AVX2 is there; rows past the last are the last one, with weights of zero.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut acc = [[zero; 4]; 2];
        let last = count - 1;
        let mut row = 0;
        while row < count {
            let weights = planes.each_ref().map(|plane| plane.as_ptr().add(row).cast::<i32>().read_unaligned());
            if weights == [0, 0] {
                row += 4;
                continue;
            }
            let [high, low] = weights.map(|four| _mm256_set1_epi32(four));
            let load = |index: usize| {
                let from = rows.as_ptr().add((row + index).min(last) * width + column);
                if N == 32 {
                    _mm256_loadu_si256(from.cast())
                } else {
                    // With 16 columns, four in each 128-bit half are interleaved: both halves hold the same.
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()))
                }
            };
            let (a, b, c, d) = (load(0), load(1), load(2), load(3));
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            let fours = [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(ab_high, cd_high),
                _mm256_unpackhi_epi16(ab_high, cd_high),
            ];
            for (index, four) in fours.into_iter().enumerate() {
                acc[0][index] = dot(acc[0][index], high, four);
                acc[1][index] = dot(acc[1][index], low, four);
            }
            row += 4;
        }
        let sum = |index: usize| _mm256_add_epi32(_mm256_slli_epi32(acc[0][index], 7), acc[1][index]);
        let out = sums[column..column + N].as_mut_ptr();
        for pair in 0..2 {
            let (a, b) = (sum(2 * pair), sum(2 * pair + 1));
            _mm256_storeu_si256(out.add(8 * pair).cast(), _mm256_permute2x128_si256(a, b, 0x20));
            if N == 32 {
                _mm256_storeu_si256(out.add(16 + 8 * pair).cast(), _mm256_permute2x128_si256(a, b, 0x31));
            }
        }
    }
}
