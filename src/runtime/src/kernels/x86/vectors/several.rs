//! The operations of products with several tokens: one or two tiles of rows as a 256- or 512-bit vector of i32.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

#[cfg(test)]
use super::Narrow;
use super::{Avx2, Avx512Vnni, AvxVnni, Decode};
use core::arch::x86_64::*;

/// One or two tiles of rows against several tokens.
///
/// # Safety
/// As for [`Decode`].
pub(in crate::kernels::x86) trait Prefill {
    /// i32 of all rows.
    type V: Copy;
    /// Tiles of 8 rows.
    const TILES: usize;
    /// See [`Decode::EXCESS`].
    const EXCESS: i32;
    /// Whether nibbles stay as stored, with 8 added.
    const STORED_NIBBLES: bool;

    unsafe fn load(from: *const u8) -> Self::V;
    unsafe fn load_sums(from: *const i32) -> Self::V;
    unsafe fn store_sums(to: *mut i32, v: Self::V);
    /// Four bytes of a token, the same for every row.
    unsafe fn spread(from: *const i8) -> Self::V;
    /// acc + Σ of four products with bytes of w8, i32.
    unsafe fn dot8(acc: Self::V, w: Self::V, a: Self::V) -> Self::V;
    /// acc + Σ of four products with nibbles, in lanes of the implementation's choice.
    unsafe fn dot4(acc: Self::V, n: Self::V, a: Self::V) -> Self::V;
    /// The value that the sums of a group begin with.
    unsafe fn begin(offset: *const i32) -> Self::V;
    /// total + multiplier · group sum, with multipliers from [`Prefill::multiplier`].
    unsafe fn fold(total: Self::V, group: Self::V, multipliers: Self::V) -> Self::V;
    /// Four bytes that multiply a row's group sum.
    fn multiplier(byte: i8) -> i32;
}

impl Prefill for Avx2 {
    type V = __m256i;
    const TILES: usize = 1;
    const EXCESS: i32 = 0;
    const STORED_NIBBLES: bool = false;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2 and 32 bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> __m256i {
        // SAFETY: the caller has AVX2 and 8 sums.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_sums(to: *mut i32, v: __m256i) {
        // SAFETY: the caller has AVX2 and room for 8 sums.
        unsafe { _mm256_storeu_si256(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const i8) -> __m256i {
        // SAFETY: the caller has AVX2 and 4 bytes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { <Avx2 as Decode>::dot8(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot4(acc: __m256i, n: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2. 16 products of at most 8 · 127 stay in i16.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(_mm256_abs_epi8(n), _mm256_sign_epi8(a, n))) }
    }
    #[inline(always)]
    unsafe fn begin(_: *const i32) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn fold(total: __m256i, group: __m256i, multipliers: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi32(total, _mm256_madd_epi16(group, multipliers)) }
    }
    #[inline(always)]
    fn multiplier(byte: i8) -> i32 {
        // For both lanes of a row.
        (u32::from(byte as i16 as u16) * 0x1_0001) as i32
    }
}

/// 256-bit VNNI in either encoding.
macro_rules! narrow {
    ($name:ident, $dpbusd:ident, $dpwssd:ident) => {
        impl Prefill for $name {
            type V = __m256i;
            const TILES: usize = 1;
            const EXCESS: i32 = 128;
            const STORED_NIBBLES: bool = true;

            #[inline(always)]
            unsafe fn load(from: *const u8) -> __m256i {
                // SAFETY: the caller has AVX2 and 32 bytes.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn load_sums(from: *const i32) -> __m256i {
                // SAFETY: the caller has AVX2 and 8 sums.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_sums(to: *mut i32, v: __m256i) {
                // SAFETY: the caller has AVX2 and room for 8 sums.
                unsafe { _mm256_storeu_si256(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn spread(from: *const i8) -> __m256i {
                // SAFETY: the caller has AVX2 and 4 bytes.
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn dot8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the caller has VNNI.
                unsafe { $dpbusd(acc, w, a) }
            }
            #[inline(always)]
            unsafe fn dot4(acc: __m256i, n: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the caller has VNNI.
                unsafe { $dpbusd(acc, n, a) }
            }
            #[inline(always)]
            unsafe fn begin(offset: *const i32) -> __m256i {
                // SAFETY: the caller has AVX2 and an offset.
                unsafe { _mm256_set1_epi32(offset.read()) }
            }
            #[inline(always)]
            unsafe fn fold(total: __m256i, group: __m256i, multipliers: __m256i) -> __m256i {
                // SAFETY: the caller has VNNI.
                unsafe { $dpwssd(total, group, multipliers) }
            }
            #[inline(always)]
            fn multiplier(byte: i8) -> i32 {
                // |group sum| ≤ 32,512 fits the low half; the high half, the sign, is multiplied by 0.
                i32::from(byte as i16 as u16)
            }
        }
    };
}
narrow!(AvxVnni, _mm256_dpbusd_avx_epi32, _mm256_dpwssd_avx_epi32);
#[cfg(test)]
narrow!(Narrow, _mm256_dpbusd_epi32, _mm256_dpwssd_epi32);

impl Prefill for Avx512Vnni {
    type V = __m512i;
    const TILES: usize = 2;
    const EXCESS: i32 = 128;
    const STORED_NIBBLES: bool = true;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 and 64 bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> __m512i {
        // SAFETY: the caller has AVX-512 and 16 sums.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_sums(to: *mut i32, v: __m512i) {
        // SAFETY: the caller has AVX-512 and room for 16 sums.
        unsafe { _mm512_storeu_si512(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const i8) -> __m512i {
        // SAFETY: the caller has AVX-512 and 4 bytes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot8(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        // SAFETY: the caller has VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot4(acc: __m512i, n: __m512i, a: __m512i) -> __m512i {
        // SAFETY: the caller has VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, n, a) }
    }
    #[inline(always)]
    unsafe fn begin(offset: *const i32) -> __m512i {
        // SAFETY: the caller has AVX-512 and an offset.
        unsafe { _mm512_set1_epi32(offset.read()) }
    }
    #[inline(always)]
    unsafe fn fold(total: __m512i, group: __m512i, multipliers: __m512i) -> __m512i {
        // SAFETY: the caller has VNNI.
        unsafe { _mm512_dpwssd_epi32(total, group, multipliers) }
    }
    #[inline(always)]
    fn multiplier(byte: i8) -> i32 {
        i32::from(byte as i16 as u16)
    }
}
