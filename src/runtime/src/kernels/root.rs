//! The square root: the instruction where every CPU of the architecture has it with IEEE rounding, integers elsewhere.

/// The correctly rounded square root of a finite, non-negative f32.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(crate) fn square_root(x: f32) -> f32 {
    use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
    #[expect(unsafe_code, reason = "an instruction that `core` only offers as an intrinsic")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)))
    }
}

/// The correctly rounded square root of a finite, non-negative f32.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn square_root(x: f32) -> f32 {
    crate::numerics::sqrt_by_integers(x)
}
