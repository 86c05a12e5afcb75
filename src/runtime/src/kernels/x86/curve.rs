//! Activation curves eight values at a time: the arithmetic of [`Curve`], with points gathered from the table.
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

use crate::numerics::{self, Curve};
use core::arch::x86_64::*;

/// 1.5 · 2^23: see [`numerics::round`].
const ROUNDER: f32 = 12_582_912.0;

/// curve(x) of eight values.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn eight(curve: &Curve<'_>, x: __m256) -> __m256 {
    // SAFETY: the caller has AVX2; an index is at most 511, and 513 points are there.
    unsafe {
        let u = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
        // The second operand where the first is NaN.
        let steps = _mm256_min_ps(_mm256_mul_ps(u, _mm256_set1_ps(curve.steps())), _mm256_set1_ps(2_097_151.0));
        let rounder = _mm256_set1_ps(ROUNDER);
        let bits = _mm256_castps_si256(_mm256_add_ps(steps, rounder));
        let z = _mm256_sub_epi32(bits, _mm256_castps_si256(rounder));
        let index = _mm256_and_si256(_mm256_srli_epi32(z, 12), _mm256_set1_epi32(511));
        let points = curve.points().as_ptr();
        let here = _mm256_i32gather_epi32::<4>(points.cast(), index);
        let next = _mm256_i32gather_epi32::<4>(points.add(4).cast(), index);
        let fraction = _mm256_and_si256(z, _mm256_set1_epi32(4095));
        let fall = _mm256_mullo_epi32(_mm256_sub_epi32(here, next), fraction);
        let fall = _mm256_srai_epi32(_mm256_add_epi32(fall, _mm256_set1_epi32(2048)), 12);
        let tail = _mm256_sub_epi32(here, fall);
        let rest = _mm256_sub_epi32(_mm256_set1_epi32(1 << 24), tail);
        let negative = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps()));
        let share = _mm256_cvtepi32_ps(_mm256_blendv_epi8(rest, tail, negative));
        _mm256_mul_ps(x, _mm256_mul_ps(share, _mm256_set1_ps(1.0 / 16_777_216.0)))
    }
}

/// See [`super::super::Kernels::activate`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn activate(curve: &Curve<'_>, x: &mut [f32]) {
    let (blocks, rest) = x.as_chunks_mut::<8>();
    for block in blocks {
        // SAFETY: the caller's promise; eight values.
        unsafe { _mm256_storeu_ps(block.as_mut_ptr(), eight(curve, _mm256_loadu_ps(block.as_ptr()))) };
    }
    numerics::activate(curve, rest);
}

/// See [`super::super::Kernels::gate`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn gate(curve: &Curve<'_>, gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len());
    let (blocks, rest) = gate.as_chunks_mut::<8>();
    let (up_blocks, up_rest) = up.as_chunks::<8>();
    for (block, up) in blocks.iter_mut().zip(up_blocks) {
        // SAFETY: the caller's promise; eight values each.
        unsafe {
            let curved = eight(curve, _mm256_loadu_ps(block.as_ptr()));
            _mm256_storeu_ps(block.as_mut_ptr(), _mm256_mul_ps(curved, _mm256_loadu_ps(up.as_ptr())));
        }
    }
    numerics::gate(curve, rest, up_rest);
}
