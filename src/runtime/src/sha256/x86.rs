//! SHA-256's compression with the SHA extensions of x86-64: two rounds an instruction. The state stands in two registers,
//! words A B E F and C D G H from the highest lane to the lowest, as `sha256rnds2` wants them.

#![expect(
    unsafe_code,
    reason = "unaligned loads and stores of arrays, and a call of code for CPUs with the extensions"
)]

use super::ROUND;
use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

/// Appends whole blocks to a state; false, and nothing done, where the CPU lacks the extensions.
#[inline]
pub(super) fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) -> bool {
    #[cfg(any(feature = "std", test))]
    let there = std::arch::is_x86_feature_detected!("sha") && std::arch::is_x86_feature_detected!("sse4.1");
    #[cfg(not(any(feature = "std", test)))]
    let there = cfg!(all(target_feature = "sha", target_feature = "sse4.1"));
    if there {
        // SAFETY: the CPU has the extensions; `ssse3` is part of `sse4.1`.
        unsafe { compress_with_extensions(state, blocks) };
    }
    there
}

/// Four words of the message schedule from the sixteen before them.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn schedule(w0: __m128i, w1: __m128i, w2: __m128i, w3: __m128i) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    _mm_sha256msg2_epu32(sum, w3)
}

/// Four rounds, from round `first`, with four words of the schedule.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four_rounds(abef: &mut __m128i, cdgh: &mut __m128i, words: __m128i, first: usize) {
    let constants: &[u32; 4] = ROUND[first..].first_chunk().expect("four constants from every fourth round");
    // SAFETY: an array of 16 bytes.
    let constants = unsafe { _mm_loadu_si128(constants.as_ptr().cast()) };
    let sums = _mm_add_epi32(words, constants);
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sums);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sums));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_with_extensions(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    // Reverses the bytes of each word: the message is big-endian.
    let reversal = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // SAFETY: the state is an array of 32 bytes.
    let (low, high) =
        unsafe { (_mm_loadu_si128(state.as_ptr().cast()), _mm_loadu_si128(state.as_ptr().add(4).cast())) };
    let (low, high) = (_mm_shuffle_epi32::<0xb1>(low), _mm_shuffle_epi32::<0x1b>(high));
    let (mut abef, mut cdgh) = (_mm_alignr_epi8::<8>(low, high), _mm_blend_epi16::<0xf0>(high, low));
    for block in blocks {
        let words = |n: usize| {
            let words: &[u8; 16] = block[16 * n..].first_chunk().expect("four words in each quarter of a block");
            // SAFETY: an array of 16 bytes.
            unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
        };
        let (before, before_too) = (abef, cdgh);
        let mut w0 = _mm_shuffle_epi8(words(0), reversal);
        let mut w1 = _mm_shuffle_epi8(words(1), reversal);
        let mut w2 = _mm_shuffle_epi8(words(2), reversal);
        let mut w3 = _mm_shuffle_epi8(words(3), reversal);
        for sixteen in 0..4 {
            if sixteen > 0 {
                w0 = schedule(w0, w1, w2, w3);
                w1 = schedule(w1, w2, w3, w0);
                w2 = schedule(w2, w3, w0, w1);
                w3 = schedule(w3, w0, w1, w2);
            }
            four_rounds(&mut abef, &mut cdgh, w0, 16 * sixteen);
            four_rounds(&mut abef, &mut cdgh, w1, 16 * sixteen + 4);
            four_rounds(&mut abef, &mut cdgh, w2, 16 * sixteen + 8);
            four_rounds(&mut abef, &mut cdgh, w3, 16 * sixteen + 12);
        }
        (abef, cdgh) = (_mm_add_epi32(abef, before), _mm_add_epi32(cdgh, before_too));
    }
    let (high, low) = (_mm_shuffle_epi32::<0x1b>(abef), _mm_shuffle_epi32::<0xb1>(cdgh));
    // SAFETY: the state is an array of 32 bytes.
    unsafe {
        _mm_storeu_si128(state.as_mut_ptr().cast(), _mm_blend_epi16::<0xf0>(high, low));
        _mm_storeu_si128(state.as_mut_ptr().add(4).cast(), _mm_alignr_epi8::<8>(low, high));
    }
}
