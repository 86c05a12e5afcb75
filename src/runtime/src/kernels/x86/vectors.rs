//! The few operations in which the x86 instruction sets differ, so that products are written once: four-way dot products
//! of bytes, the sums of a group of w4, and 256- or 512-bit vectors of rows.
//!
//! With VNNI, `dpbusd` multiplies unsigned by signed bytes and adds in i32, so weights become unsigned: w8 by 128 more,
//! nibbles as they are stored, 8 more than their value; the excess is the same for every row and known from the sums of the
//! activations. Without, `maddubs` adds pairs in i16, which saturates: signs go to the activations, and a nibble times
//! an activation is small enough for a group to be summed up in i16.
#![expect(unsafe_code, reason = "vector instructions; the tables are handed out where the CPU has them")]

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Most groups of a matrix in w4.
pub(super) const MOST_GROUPS: usize = crate::layout::Storage::W4G32.max_columns() / crate::layout::BLOCK_COLUMNS;

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

    /// Per group, four bytes that [`Decode::group`] spreads: the excess of nibbles stored as 8 more.
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
    /// A group sum less another.
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
vnni!(Avx512Vnni, _mm256_dpbusd_epi32, "VNNI with AVX-512's encoding, 256 bits wide.");

/// One or two tiles of rows against several tokens.
///
/// # Safety
/// As for [`Decode`].
pub(super) trait Prefill {
    /// i32 of all rows.
    type V: Copy;
    /// Tiles of 8 rows.
    const TILES: usize;
    /// See [`Decode::EXCESS`].
    const EXCESS: i32;
    /// Whether nibbles are kept as stored, 8 more than their value.
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
    /// total + multiplier · group sum, with multipliers as [`Prefill::multipliers`] left them.
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
                // The low half of a group sum is all of it, |sum| ≤ 32,512; its high half, the sign, counts nothing.
                i32::from(byte as i16 as u16)
            }
        }
    };
}
narrow!(AvxVnni, _mm256_dpbusd_avx_epi32, _mm256_dpwssd_avx_epi32);
#[cfg(test)]
vnni!(Narrow, _mm256_dpbusd_epi32, "The bodies of [`AvxVnni`] in AVX-512's encoding, for CPUs that have only that.");
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
