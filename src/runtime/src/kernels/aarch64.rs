//! AArch64 with the dot product instructions (`dotprod`, layout r8k4.2c), and with the int8 matrix multiply
//! instructions too (`i8mm`, layout r8k8.2c). Nibbles stay sixteen times too large in the high half of their bytes, and
//! the sum of a group is shifted back, which is exact. For 2:4 matrices a table lookup selects the activations of the
//! kept columns.
//!
//! `sdot` and `smmla` are written as assembly: their intrinsics are not stable.

#![expect(unsafe_code, reason = "instructions and vector loads; `tiles::multiply` checks the bounds")]

mod dotprod;
mod i8mm;

pub(super) use dotprod::DOTPROD;
pub(super) use i8mm::I8MM;

use super::{Kernels, Rows, SCALAR, scalar};
use core::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddvq_s32, vandq_u8, vdupq_n_s32, vdupq_n_u8, vld1q_s8, vorrq_u8,
    vreinterpretq_s8_u8, vreinterpretq_u8_s8, vshlq_n_u8,
};
use core::arch::asm;

/// The table of `dotprod` where the CPU has it.
pub(super) fn dotprod() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let there = std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(feature = "std"))]
    let there = cfg!(target_feature = "dotprod");
    there.then_some(const { &DOTPROD })
}

/// The table of `i8mm` where the CPU has it.
pub(super) fn i8mm() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let there = std::arch::is_aarch64_feature_detected!("i8mm") && std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(feature = "std"))]
    let there = cfg!(all(target_feature = "i8mm", target_feature = "dotprod"));
    there.then_some(const { &I8MM })
}

/// The entries that both tables share: all but products.
const SHARED: Kernels = Kernels { scores, ..SCALAR };

/// Each lane: sum += Σ of four products.
#[inline(always)]
fn sdot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only; reached through tables of CPUs that have the instruction.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Each lane: sum += Σ of four products with the four bytes of lane LANE of b.
#[inline(always)]
fn sdot_lane<const LANE: usize>(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only; reached through tables of CPUs that have the instruction.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) sum, in(vreg) a,
            in(vreg) b, const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// 16 bytes of a slice from `at`.
///
/// # Safety
/// The slice has them.
#[inline(always)]
unsafe fn load(bytes: &[i8], at: usize) -> int8x16_t {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: the caller's promise.
    unsafe { vld1q_s8(bytes.as_ptr().add(at)) }
}

/// [`load`] of a tile's bytes.
///
/// # Safety
/// The slice has 16 bytes from `at`.
#[inline(always)]
unsafe fn load_tile(bytes: &[u8], at: usize) -> int8x16_t {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: the caller's promise.
    unsafe { vld1q_s8(bytes.as_ptr().add(at).cast()) }
}

/// The low and the high nibbles as bytes, sixteen times their values.
#[inline(always)]
fn nibbles(bytes: int8x16_t) -> (int8x16_t, int8x16_t) {
    // SAFETY: NEON is part of AArch64.
    unsafe {
        let bytes = vreinterpretq_u8_s8(bytes);
        (vreinterpretq_s8_u8(vshlq_n_u8::<4>(bytes)), vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(0xf0))))
    }
}

/// Indices into a table of activations: two bits of each byte of a plane, added to the first index of its four columns.
#[inline(always)]
fn places(shifted: uint8x16_t, base: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vorrq_u8(vandq_u8(shifted, vdupq_n_u8(3)), base) }
}

/// See [`Kernels::scores`].
fn scores(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 {
    let width = query.len();
    if !width.is_multiple_of(16) || width == 0 {
        return scalar::scores(keys, query, scale, scores);
    }
    assert!(keys.scales.len() >= scores.len() && keys.values.len() >= scores.len() * width);
    let mut top = f32::NEG_INFINITY;
    for ((slot, key), &key_scale) in scores.iter_mut().zip(keys.values.chunks_exact(width)).zip(keys.scales) {
        // SAFETY: both slices have `width` values, a multiple of 16; NEON is part of AArch64.
        let sum = unsafe {
            let mut sum = vdupq_n_s32(0);
            for at in (0..width).step_by(16) {
                sum = sdot(sum, load(query, at), load(key, at));
            }
            vaddvq_s32(sum)
        };
        let score = sum as f32 * key_scale * scale;
        top = if score > top { score } else { top };
        *slot = score.to_bits();
    }
    top
}
