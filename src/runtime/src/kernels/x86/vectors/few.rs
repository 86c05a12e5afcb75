//! The operations of products with a few rows of activations: eight rows of eight columns of weights at a time, as one
//! 512-bit vector or two of 256 bits, unpacked in registers.
//!
//! In 512 bits, the eight columns of a row are next to each other, so that eight activations are the same for every row;
//! a row's sum is in two lanes.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use super::{Avx2, Avx512Vnni, AvxVnni, Decode, Narrow};
use core::arch::x86_64::*;

/// 8 rows of a tile against a few rows of activations.
///
/// # Safety
/// As for [`Decode`].
pub(in crate::kernels::x86) trait Few: Decode {
    /// 8 rows of 8 columns.
    type Weights: Copy;
    /// Sums of 8 rows.
    type Sums: Copy;
    /// 256-bit vectors of the same CPU, and the most rows of activations that dense w8 multiplies with them.
    type Narrow: Few;
    const NARROW_ROWS: usize;

    /// 64 bytes: two steps of four columns.
    unsafe fn load(from: *const u8) -> Self::Weights;
    /// Low and high nibbles.
    unsafe fn nibbles(both: Self::Weights) -> [Self::Weights; 2];
    /// Bytes of w8 as [`Few::dot8`] takes them.
    unsafe fn prepare(weights: Self::Weights) -> Self::Weights;
    unsafe fn zero() -> Self::Sums;
    /// The sums of a group of w4 at its begin: minus the excess of nibbles stored with 8 added, from the group's 32
    /// activations or from -8 times their sum, as [`Activations::offsets`] has it.
    ///
    /// [`Activations::offsets`]: crate::kernels::Activations::offsets
    unsafe fn begin(values: *const i8, offset: *const i32) -> Self::Sums;
    /// sums + Σ of products with eight activations, i32.
    unsafe fn dot8(sums: Self::Sums, weights: Self::Weights, a: *const i8) -> Self::Sums;
    /// The same with nibbles as stored, in lanes of the implementation's choice.
    unsafe fn dot4(sums: Self::Sums, weights: Self::Weights, a: *const i8) -> Self::Sums;
    /// 8 multipliers, for [`Few::fold`].
    unsafe fn multipliers(from: *const u8) -> Self::Sums;
    /// total + multipliers · group sums, i32.
    unsafe fn fold(total: Self::Sums, group: Self::Sums, multipliers: Self::Sums) -> Self::Sums;
    /// The sums of 8 rows.
    unsafe fn of_rows(sums: Self::Sums) -> __m256i;
}

/// Four activations, for every row.
#[inline(always)]
unsafe fn spread(from: *const i8) -> __m256i {
    // SAFETY: the caller has AVX2 and four bytes.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

/// The begin of a group's sums in i32 lanes.
#[inline(always)]
unsafe fn begin_of_offset(_: *const i8, offset: *const i32) -> __m256i {
    // SAFETY: the caller has AVX2 and an offset.
    unsafe { _mm256_set1_epi32(offset.read()) }
}

/// The begin of a group's sums in pairs of i16 lanes: -8 · a in pairs of columns; lanes 4 apart belong to the same two
/// columns of four.
#[inline(always)]
unsafe fn begin_of_values(values: *const i8, _: *const i32) -> __m256i {
    // SAFETY: the caller has AVX2 and 32 activations.
    unsafe {
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(8), _mm256_loadu_si256(values.cast()));
        let half = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        let quarter = _mm_add_epi16(half, _mm_srli_si128(half, 8));
        let both = _mm_add_epi16(quarter, _mm_srli_si128(quarter, 4));
        _mm256_broadcastd_epi32(_mm_sub_epi16(_mm_setzero_si128(), both))
    }
}

/// The operations that all 256-bit implementations share.
macro_rules! narrow {
    ($name:ident, $fold:expr, $multipliers:expr, $begin:ident) => {
        impl Few for $name {
            type Weights = [__m256i; 2];
            type Sums = __m256i;
            type Narrow = Self;
            const NARROW_ROWS: usize = 0;

            #[inline(always)]
            unsafe fn load(from: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller has AVX2 and 64 bytes.
                unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
            }
            #[inline(always)]
            unsafe fn nibbles([a, b]: [__m256i; 2]) -> [[__m256i; 2]; 2] {
                // SAFETY: the caller has AVX2.
                unsafe {
                    let low = _mm256_set1_epi8(15);
                    [
                        [_mm256_and_si256(a, low), _mm256_and_si256(b, low)],
                        [
                            _mm256_and_si256(_mm256_srli_epi16(a, 4), low),
                            _mm256_and_si256(_mm256_srli_epi16(b, 4), low),
                        ],
                    ]
                }
            }
            #[inline(always)]
            unsafe fn prepare([a, b]: [__m256i; 2]) -> [__m256i; 2] {
                // SAFETY: the caller has the extensions.
                unsafe { [Self::prepare8(a), Self::prepare8(b)] }
            }
            #[inline(always)]
            unsafe fn zero() -> __m256i {
                // SAFETY: the caller has AVX2.
                unsafe { _mm256_setzero_si256() }
            }
            #[inline(always)]
            unsafe fn begin(values: *const i8, offset: *const i32) -> __m256i {
                // SAFETY: the caller has the extensions, a group and its offset.
                unsafe { $begin(values, offset) }
            }
            #[inline(always)]
            unsafe fn dot8(sums: __m256i, weights: [__m256i; 2], a: *const i8) -> __m256i {
                // SAFETY: the caller has the extensions and 8 activations.
                unsafe {
                    let sums = <Self as Decode>::dot8(sums, weights[0], spread(a));
                    <Self as Decode>::dot8(sums, weights[1], spread(a.add(4)))
                }
            }
            #[inline(always)]
            unsafe fn dot4(sums: __m256i, weights: [__m256i; 2], a: *const i8) -> __m256i {
                // SAFETY: the caller has the extensions and 8 activations.
                unsafe {
                    let sums = <Self as Decode>::dot4(sums, weights[0], spread(a));
                    <Self as Decode>::dot4(sums, weights[1], spread(a.add(4)))
                }
            }
            #[inline(always)]
            unsafe fn multipliers(from: *const u8) -> __m256i {
                // SAFETY: the caller has AVX2 and 8 multipliers.
                unsafe { $multipliers(_mm_loadl_epi64(from.cast())) }
            }
            #[inline(always)]
            unsafe fn fold(total: __m256i, group: __m256i, multipliers: __m256i) -> __m256i {
                // SAFETY: the caller has the extensions.
                unsafe { $fold(total, group, multipliers) }
            }
            #[inline(always)]
            unsafe fn of_rows(sums: __m256i) -> __m256i {
                sums
            }
        }
    };
}

/// Both lanes of a row.
#[inline(always)]
unsafe fn pairs(multipliers: __m128i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(multipliers, multipliers)) }
}

#[inline(always)]
unsafe fn add_products(total: __m256i, group: __m256i, multipliers: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_add_epi32(total, _mm256_madd_epi16(group, multipliers)) }
}

/// The low half of each lane: a group sum fits i16, and its high half, the sign, is multiplied by 0.
#[inline(always)]
unsafe fn halves(multipliers: __m128i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_and_si256(_mm256_cvtepi8_epi32(multipliers), _mm256_set1_epi32(0xffff)) }
}

narrow!(Avx2, add_products, pairs, begin_of_values);
narrow!(AvxVnni, _mm256_dpwssd_avx_epi32, halves, begin_of_offset);

narrow!(Narrow, _mm256_dpwssd_epi32, halves, begin_of_offset);

impl Few for Avx512Vnni {
    type Weights = __m512i;
    type Sums = __m512i;
    type Narrow = Narrow;
    // So few rows take less time than the memory, and then 512-bit loads, which run further ahead, slow its reads down.
    const NARROW_ROWS: usize = 5;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 and 64 bytes.
        unsafe {
            let rows = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
            _mm512_permutexvar_epi32(rows, _mm512_loadu_si512(from.cast()))
        }
    }
    #[inline(always)]
    unsafe fn nibbles(both: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16(both, 4), low)]
        }
    }
    #[inline(always)]
    unsafe fn prepare(weights: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn begin(_: *const i8, offset: *const i32) -> __m512i {
        // SAFETY: the caller has AVX-512 and an offset, a multiple of 8: half of it for each lane of a row.
        unsafe { _mm512_srai_epi32::<1>(_mm512_set1_epi32(offset.read())) }
    }
    #[inline(always)]
    unsafe fn dot8(sums: __m512i, weights: __m512i, a: *const i8) -> __m512i {
        // SAFETY: the caller has VNNI and 8 activations.
        unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi64(a.cast::<i64>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn dot4(sums: __m512i, weights: __m512i, a: *const i8) -> __m512i {
        // SAFETY: likewise.
        unsafe { <Self as Few>::dot8(sums, weights, a) }
    }
    #[inline(always)]
    unsafe fn multipliers(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 and 8 multipliers.
        unsafe {
            let bytes = _mm_loadl_epi64(from.cast());
            _mm512_and_si512(_mm512_cvtepi8_epi32(_mm_unpacklo_epi8(bytes, bytes)), _mm512_set1_epi32(0xffff))
        }
    }
    #[inline(always)]
    unsafe fn fold(total: __m512i, group: __m512i, multipliers: __m512i) -> __m512i {
        // SAFETY: the caller has VNNI. A lane's group sum is at most 16 · (15 - 4) · 127 + 16 · 4 · 127, which fits i16.
        unsafe { _mm512_dpwssd_epi32(total, group, multipliers) }
    }
    #[inline(always)]
    unsafe fn of_rows(sums: __m512i) -> __m256i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_cvtepi64_epi32(_mm512_add_epi32(sums, _mm512_srli_epi64(sums, 32))) }
    }
}
