//! SHA-256's compression with the SHA-2 instructions of ARMv8: four rounds a pair of instructions.

#![expect(unsafe_code, reason = "loads and stores of arrays, and a call of code for CPUs with the instructions")]

use super::ROUND;
use core::arch::aarch64::{
    uint32x4_t, vaddq_u32, vld1q_u8, vld1q_u32, vreinterpretq_u32_u8, vrev32q_u8, vsha256h2q_u32, vsha256hq_u32,
    vsha256su0q_u32, vsha256su1q_u32, vst1q_u32,
};

/// Appends whole blocks to a state; false, and nothing done, where the CPU lacks the instructions.
#[inline]
pub(super) fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) -> bool {
    #[cfg(feature = "std")]
    let there = std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(feature = "std"))]
    let there = cfg!(target_feature = "sha2");
    if there {
        // SAFETY: the CPU has the instructions.
        unsafe { compress_with_instructions(state, blocks) };
    }
    there
}

/// Four words of the message schedule from the sixteen before them.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn schedule(w0: uint32x4_t, w1: uint32x4_t, w2: uint32x4_t, w3: uint32x4_t) -> uint32x4_t {
    vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3)
}

/// Four rounds, from round `first`, with four words of the schedule.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn four_rounds(abcd: &mut uint32x4_t, efgh: &mut uint32x4_t, words: uint32x4_t, first: usize) {
    let constants: &[u32; 4] = ROUND[first..].first_chunk().expect("four constants from every fourth round");
    // SAFETY: an array of four words.
    let constants = unsafe { vld1q_u32(constants.as_ptr()) };
    let sums = vaddq_u32(words, constants);
    let before = *abcd;
    *abcd = vsha256hq_u32(before, *efgh, sums);
    *efgh = vsha256h2q_u32(*efgh, before, sums);
}

#[target_feature(enable = "neon,sha2")]
fn compress_with_instructions(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    // SAFETY: the state is an array of eight words.
    let (mut abcd, mut efgh) = unsafe { (vld1q_u32(state.as_ptr()), vld1q_u32(state.as_ptr().add(4))) };
    for block in blocks {
        let words = |n: usize| {
            let words: &[u8; 16] = block[16 * n..].first_chunk().expect("four words in each quarter of a block");
            // SAFETY: an array of 16 bytes.
            vreinterpretq_u32_u8(vrev32q_u8(unsafe { vld1q_u8(words.as_ptr()) }))
        };
        let (before, before_too) = (abcd, efgh);
        let (mut w0, mut w1, mut w2, mut w3) = (words(0), words(1), words(2), words(3));
        for sixteen in 0..4 {
            if sixteen > 0 {
                w0 = schedule(w0, w1, w2, w3);
                w1 = schedule(w1, w2, w3, w0);
                w2 = schedule(w2, w3, w0, w1);
                w3 = schedule(w3, w0, w1, w2);
            }
            four_rounds(&mut abcd, &mut efgh, w0, 16 * sixteen);
            four_rounds(&mut abcd, &mut efgh, w1, 16 * sixteen + 4);
            four_rounds(&mut abcd, &mut efgh, w2, 16 * sixteen + 8);
            four_rounds(&mut abcd, &mut efgh, w3, 16 * sixteen + 12);
        }
        (abcd, efgh) = (vaddq_u32(abcd, before), vaddq_u32(efgh, before_too));
    }
    // SAFETY: the state is an array of eight words.
    unsafe {
        vst1q_u32(state.as_mut_ptr(), abcd);
        vst1q_u32(state.as_mut_ptr().add(4), efgh);
    }
}
