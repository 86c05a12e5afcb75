//! What products are made of: f32 and f64, and their vectors.

use super::{Left, Output, Panels, Right, multiply_packed_values, multiply_values, pack_values};
use crate::scratch::Unused;
use pulp::Simd;
use std::sync::Mutex;

/// f32 or f64.
pub trait Value: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Columns of a panel: 128 bytes of them.
    const WIDTH: usize;
    /// 0
    const ZERO: Self;
    /// As many values as a register holds.
    type Vector<S: Simd>: Copy;

    /// Values of a vector.
    fn lanes<S: Simd>() -> usize;
    /// A vector of this value.
    fn splat<S: Simd>(self, simd: S) -> Self::Vector<S>;
    /// a · b + c, rounded once.
    fn mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// The whole vectors of a slice.
    fn vectors<S: Simd>(values: &[Self]) -> &[Self::Vector<S>];
    /// The whole vectors of a slice, to be written.
    fn vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Vector<S>];
    /// Memory that nobody uses.
    fn unused() -> &'static Mutex<Unused<Self>>;
    /// [`multiply`](super::multiply) for this type. A function of the trait, since what is generic is compiled in the crates
    /// that call it, where the kernel's registers may be spilled.
    fn multiply(out: Output<'_, Self>, left: Left<'_, Self>, right: Right<'_, Self>);
    /// [`multiply_packed`](super::multiply_packed) for this type.
    fn multiply_packed(out: Output<'_, Self>, left: Left<'_, Self>, packed: Panels<'_, Self>, tiles: &mut [Self]);
    /// What [`Panels::new`] does for this type.
    fn pack(right: Right<'_, Self>, memory: &mut [Self]);
}

macro_rules! value {
    ($type:ty, $vector:ident, $lanes:ident, $splat:ident, $mul_add:ident, $vectors:ident, $vectors_mut:ident) => {
        impl Value for $type {
            const WIDTH: usize = 128 / size_of::<$type>();
            const ZERO: Self = 0.0;
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(self, simd: S) -> S::$vector {
                simd.$splat(self)
            }

            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn vectors<S: Simd>(values: &[Self]) -> &[S::$vector] {
                S::$vectors(values).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [S::$vector] {
                S::$vectors_mut(values).0
            }

            fn unused() -> &'static Mutex<Unused<Self>> {
                static UNUSED: Mutex<Unused<$type>> = Mutex::new(Unused::new());
                &UNUSED
            }

            fn multiply(out: Output<'_, Self>, left: Left<'_, Self>, right: Right<'_, Self>) {
                multiply_values(out, left, right);
            }

            fn multiply_packed(
                out: Output<'_, Self>,
                left: Left<'_, Self>,
                packed: Panels<'_, Self>,
                tiles: &mut [Self],
            ) {
                multiply_packed_values(out, left, packed, tiles);
            }

            fn pack(right: Right<'_, Self>, memory: &mut [Self]) {
                pack_values(right, memory);
            }
        }
    };
}

value!(f32, f32s, F32_LANES, splat_f32s, mul_add_f32s, as_simd_f32s, as_mut_simd_f32s);
value!(f64, f64s, F64_LANES, splat_f64s, mul_add_f64s, as_simd_f64s, as_mut_simd_f64s);
