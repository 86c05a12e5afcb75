//! The operations in which the x86 instruction sets differ, so that products are written once: four-way dot products of
//! bytes, the sums of a group of w4, and 256- or 512-bit vectors of rows. The operations of products with several
//! tokens are in `several`, those of products with a few rows of activations in `few`.
//!
//! With VNNI, `dpbusd` multiplies unsigned by signed bytes and adds in i32, so weights become unsigned: w8 with 128
//! added, nibbles as stored, with 8 added; the excess is the same for every row and follows from the sums of the
//! activations. Without VNNI, `maddubs` adds pairs in i16, which saturates: signs move to the activations, and the
//! products of nibbles are small enough for a group to be summed in i16.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

mod few;
mod several;

pub(super) use few::Few;
pub(super) use several::Prefill;

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Largest number of groups of a w4 matrix.
pub(super) const MOST_GROUPS: usize = crate::layout::Storage::W4G32.max_columns() / crate::layout::BLOCK_COLUMNS;

/// Minus what weights stored with `excess` added put into the sums of a row of activations, from the offsets of its
/// groups: -8 · Σ a each, so that 128 more is 16 times their sum.
#[inline(always)]
pub(super) fn excess_of(excess: i32, offsets: &[i32]) -> i32 {
    offsets.iter().fold(0i32, |sum, &offset| sum.wrapping_add(offset)).wrapping_mul(excess / 8)
}

/// 8 rows of a tile against one token: 256-bit vectors.
///
/// # Safety
/// Every function needs the CPU extensions of its implementation, and pointers that are valid for the bytes it reads.
pub(super) trait Decode {
    /// Excess of [`Decode::dot8`] of prepared weights, per unit of activation.
    const EXCESS: i32;

    /// Signed weights as [`Decode::dot8`] takes them.
    unsafe fn prepare8(w: __m256i) -> __m256i;
    /// acc + Σ of four products, i32.
    unsafe fn dot8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i;
    /// (sums, excess) with four products of signed weights and activations chosen for each row.
    unsafe fn dot8_chosen(sums: (__m256i, __m256i), w: __m256i, a: __m256i) -> (__m256i, __m256i);

    /// Per group, four bytes that the sums of every row start from: minus the excess of nibbles stored with 8 added.
    unsafe fn offsets(
        values: *const i8,
        offsets: *const i32,
        groups: usize,
        buffer: &mut [MaybeUninit<i32>; MOST_GROUPS],
    ) -> *const i32;
    /// Group sum of nibbles, in lanes of the implementation's choice.
    unsafe fn dot4(acc: __m256i, n: __m256i, a: __m256i) -> __m256i;
    /// The same with activations chosen for each row: (sums, excess).
    unsafe fn dot4_chosen(sums: (__m256i, __m256i), n: __m256i, a: __m256i) -> (__m256i, __m256i);
    /// The sum of two group sums.
    unsafe fn join(a: __m256i, b: __m256i) -> __m256i;
    /// The difference of two group sums.
    unsafe fn less(a: __m256i, b: __m256i) -> __m256i;
    /// total + multiplier · group sum, i32; the multipliers are 8 signed bytes.
    unsafe fn fold(total: __m256i, group: __m256i, multipliers: *const u8) -> __m256i;
}

/// Sums of 8 nibbles in i16 lanes, two a row.
pub(super) struct Avx2;

impl Decode for Avx2 {
    const EXCESS: i32 = 0;

    #[inline(always)]
    unsafe fn prepare8(w: __m256i) -> __m256i {
        w
    }

    #[inline(always)]
    unsafe fn dot8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            // |w| ≤ 128 and |a| ≤ 127: a pair is at most 32,512.
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn dot8_chosen((sum, excess): (__m256i, __m256i), w: __m256i, a: __m256i) -> (__m256i, __m256i) {
        // SAFETY: the caller has AVX2.
        unsafe { (<Self as Decode>::dot8(sum, w, a), excess) }
    }

    #[inline(always)]
    unsafe fn offsets(
        values: *const i8,
        _: *const i32,
        groups: usize,
        buffer: &mut [MaybeUninit<i32>; MOST_GROUPS],
    ) -> *const i32 {
        // SAFETY: the caller has AVX2, and 32 values a group.
        unsafe {
            for (group, slot) in buffer[..groups].iter_mut().enumerate() {
                // -8 · a in pairs of columns; lanes 4 apart belong to the same two columns of four.
                let a = _mm256_loadu_si256(values.add(group * 32).cast());
                let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(8), a);
                let half = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
                let quarter = _mm_add_epi16(half, _mm_srli_si128(half, 8));
                let both = _mm_add_epi16(quarter, _mm_srli_si128(quarter, 4));
                slot.write(_mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), both)));
            }
        }
        buffer.as_ptr().cast()
    }

    #[inline(always)]
    unsafe fn dot4(acc: __m256i, n: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(n, a)) }
    }

    #[inline(always)]
    unsafe fn dot4_chosen((sum, excess): (__m256i, __m256i), n: __m256i, a: __m256i) -> (__m256i, __m256i) {
        // SAFETY: the caller has AVX2.
        unsafe {
            let excess = _mm256_add_epi16(excess, _mm256_maddubs_epi16(_mm256_set1_epi8(8), a));
            (<Self as Decode>::dot4(sum, n, a), excess)
        }
    }

    #[inline(always)]
    unsafe fn join(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn less(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_sub_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn fold(total: __m256i, group: __m256i, multipliers: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and 8 multipliers.
        unsafe {
            let bytes = _mm_loadl_epi64(multipliers.cast());
            let pairs = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(bytes, bytes));
            _mm256_add_epi32(total, _mm256_madd_epi16(group, pairs))
        }
    }
}

/// The two encodings of 256-bit VNNI.
macro_rules! vnni {
    ($name:ident, $dpbusd:ident, $about:literal) => {
        #[doc = $about]
        pub(super) struct $name;

        impl Decode for $name {
            const EXCESS: i32 = 128;

            #[inline(always)]
            unsafe fn prepare8(w: __m256i) -> __m256i {
                // SAFETY: the caller has AVX2.
                unsafe { _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN)) }
            }

            #[inline(always)]
            unsafe fn dot8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the caller has VNNI.
                unsafe { $dpbusd(acc, w, a) }
            }

            #[inline(always)]
            unsafe fn dot8_chosen((sum, excess): (__m256i, __m256i), w: __m256i, a: __m256i) -> (__m256i, __m256i) {
                // SAFETY: the caller has VNNI.
                unsafe { ($dpbusd(sum, Self::prepare8(w), a), $dpbusd(excess, _mm256_set1_epi8(i8::MIN), a)) }
            }

            #[inline(always)]
            unsafe fn offsets(
                _: *const i8,
                offsets: *const i32,
                _: usize,
                _: &mut [MaybeUninit<i32>; MOST_GROUPS],
            ) -> *const i32 {
                offsets
            }

            #[inline(always)]
            unsafe fn dot4(acc: __m256i, n: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the caller has VNNI.
                unsafe { $dpbusd(acc, n, a) }
            }

            #[inline(always)]
            unsafe fn dot4_chosen((sum, excess): (__m256i, __m256i), n: __m256i, a: __m256i) -> (__m256i, __m256i) {
                // SAFETY: the caller has VNNI.
                unsafe { ($dpbusd(sum, n, a), $dpbusd(excess, _mm256_set1_epi8(8), a)) }
            }

            #[inline(always)]
            unsafe fn join(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: the caller has AVX2.
                unsafe { _mm256_add_epi32(a, b) }
            }

            #[inline(always)]
            unsafe fn less(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: the caller has AVX2.
                unsafe { _mm256_sub_epi32(a, b) }
            }

            #[inline(always)]
            unsafe fn fold(total: __m256i, group: __m256i, multipliers: *const u8) -> __m256i {
                // SAFETY: the caller has AVX2, and 8 multipliers.
                unsafe {
                    let multipliers = _mm256_cvtepi8_epi32(_mm_loadl_epi64(multipliers.cast()));
                    _mm256_add_epi32(total, _mm256_mullo_epi32(group, multipliers))
                }
            }
        }
    };
}
vnni!(AvxVnni, _mm256_dpbusd_avx_epi32, "VNNI with AVX2's encoding.");
vnni!(Avx512Vnni, _mm256_dpbusd_epi32, "VNNI with AVX-512's encoding, on 256-bit vectors.");
vnni!(Narrow, _mm256_dpbusd_epi32, "The bodies of [`AvxVnni`] in AVX-512's encoding.");
