//! The elementary operations of the exact arithmetic (docs/numerics.md). Every sum is a sum of integers, and the
//! remaining f32 arithmetic is one IEEE operation at a time, so the results are the same bits on every target. No fused
//! multiply-add, no libm.
//!
//! Loops are written for auto-vectorization and always inlined: the table of an instruction set compiles the same
//! definition again with its own instructions.
//!
//! | file | contents |
//! |---|---|
//! | `activations` | quantization of rows to 8 or 16 bits |
//! | `nibbles` | values of attention in 4 bits |
//! | `norms` | RMS norm, layer norm, pooling |
//! | `root` | square roots |
//! | `softmax` | exp2, softmax weights, shares of experts |
//! | `curves` | activation curves |
//! | `keys` | rotary positions, key maps |

mod activations;
mod curves;
mod keys;
mod nibbles;
mod norms;
mod root;
mod softmax;

pub use activations::{A16_MAX, quantize, quantize_a16, quantize_a16_row, quantize_row};
pub use curves::{CURVE_POINTS, Curve, activate, gate};
pub use keys::{ROTARY_BLOCK, Rotary, map_key, map_query};
pub(crate) use nibbles::unpack_nibbles;
pub use nibbles::{hadamard, quantize_nibbles};
pub use norms::{integers, layer_norm, maximum, mean, rms_norm, unit_length, unit_mean};
pub use root::sqrt;
#[cfg(any(miri, not(target_arch = "x86_64")))]
pub(crate) use root::sqrt_by_integers;
pub use softmax::{LOG2E_Q15, PROBABILITY_MAX, exp2_q24, probability, shares, softmax_weights};

/// A value reached 2^50 or is NaN: the model is broken, not the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericRange;

/// A row whose largest magnitude is below this counts as zero: 2^-50.
const TINY_BITS: u32 = 0x2680_0000;
/// From this magnitude on, or for NaN, a row is an error: 2^50.
const HUGE_BITS: u32 = 0x5880_0000;
/// 1.5 · 2^23: adding and subtracting it rounds |x| ≤ 2^22 to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// Round to the nearest integer, ties to even; |x| ≤ 2^22.
#[inline]
pub fn round(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// [`round`] as an integer: adding the rounder leaves it in the low bits of the mantissa, in two's complement.
#[inline(always)]
fn round_to_integer(x: f32) -> i32 {
    (x + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}

/// Bits of max |x|, an integer maximum, so the order does not matter.
#[inline(always)]
fn max_abs_bits(x: &[f32]) -> Result<u32, NumericRange> {
    let bits = x.iter().fold(0u32, |most, value| most.max(value.to_bits() & 0x7fff_ffff));
    if bits >= HUGE_BITS { Err(NumericRange) } else { Ok(bits) }
}

/// The power of two 2^exponent; exponent in [-126, 127].
#[inline]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// x + y, in place.
#[inline(always)]
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// An f32 vector as stored in the artifact: little-endian bytes, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct F32Bytes<'a>(&'a [u8]);

impl<'a> F32Bytes<'a> {
    /// A view of as many values as the bytes hold.
    pub fn new(bytes: &'a [u8]) -> Self {
        F32Bytes(bytes)
    }

    /// The values in order.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.words().iter().map(|&word| f32::from_le_bytes(word))
    }

    /// The bytes of each value.
    #[inline(always)]
    fn words(self) -> &'a [[u8; 4]] {
        self.0.as_chunks().0
    }

    /// Values `start .. start + length`.
    ///
    /// # Panics
    /// If they are out of range.
    #[inline]
    pub fn slice(self, start: usize, length: usize) -> F32Bytes<'a> {
        F32Bytes(&self.0[start * 4..(start + length) * 4])
    }

    /// Number of values.
    #[inline]
    pub fn len(self) -> usize {
        self.0.len() / 4
    }

    /// Whether it is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}
