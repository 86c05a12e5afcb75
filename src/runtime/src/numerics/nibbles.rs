//! Values of attention in 4 bits: a rotation that spreads an outlier over the head, then sixteen levels, closer to each
//! other where values are many, with one f32 scale a value and a share of it for each quarter of the head:
//!
//! ```text
//! v = 2 n − 15                                         n the nibble, v odd in [-15, 15]
//! integer = (v · (20808 + 31 · v²) · (5 + share) + 2^15) >> 16            in [-127, 127]
//! rotated value ≈ integer · scale
//! ```
//!
//! Coordinate i of a head is in quarter ⌊4 i / width⌋. The shares, in [0, 15], are the low 16 bits of the scale itself,
//! the first quarter's the lowest four: they take no memory of their own, and the scale is what its bits say, shares
//! included. The levels are 0.75 t + 0.25 t³ of the largest, t = v / 15, and a share is 1/4 to 1 of the scale.

use super::activations::ONE_OVER_127;
use super::{NumericRange, TINY_BITS, max_abs_bits};

// Functions here are kept apart and not copied into their callers: on a small device their code is what 4 bits cost.

/// Parts of a head with a share of the scale each.
const QUARTERS: usize = 4;
/// The bits of a scale that are shares.
const SHARES: u32 = 0xffff;
/// Shares that are tried for a quarter: the smallest that reaches its largest magnitude, and those below.
const TRIED: u32 = 4;

/// Rotates a vector in place ([`hadamard`]) and packs it: for every quarter the share with the smallest squared error, the
/// largest of equal ones, then the nearest levels, the upper of two as near. Byte i has `n[i]` in its low half and
/// `n[i + width / 2]` in its high half; the width is even.
#[inline(never)]
pub fn quantize_nibbles(value: &mut [f32], out: &mut [i8]) -> Result<f32, NumericRange> {
    hadamard(value);
    let bits = max_abs_bits(value)?;
    if bits < TINY_BITS {
        // Any number: the scale is 0.
        out.fill(0);
        return Ok(0.0);
    }
    let quarter_start = |quarter: usize| (quarter * value.len()).div_ceil(QUARTERS);
    let high = (f32::from_bits(bits) * ONE_OVER_127).to_bits() & !SHARES;
    // Shares are chosen for the middle of the scales that they can make.
    let inverse = 1.0 / f32::from_bits(high | 0x8000);
    let shares = (0..QUARTERS).fold(0, |shares, quarter| {
        let part = &value[quarter_start(quarter)..quarter_start(quarter + 1)];
        shares | best_share(part, inverse) << (4 * quarter)
    });
    let scale = f32::from_bits(high | shares);
    let inverse = 1.0 / scale;
    let levels: [Levels; QUARTERS] = core::array::from_fn(|quarter| Levels::of(share(scale, quarter)));
    let half = value.len() / 2;
    for (i, byte) in out[..half].iter_mut().enumerate() {
        let quarter = QUARTERS * i / value.len();
        let low = levels[quarter].nibble(value[i] * inverse);
        let high = levels[quarter + 2].nibble(value[i + half] * inverse);
        *byte = (high << 4 | low) as i8;
    }
    Ok(scale)
}

/// The integers that packed nibbles stand for, by the value's scale; twice as many as bytes.
#[inline(never)]
pub(crate) fn unpack_nibbles(bytes: &[i8], scale: f32, out: &mut [i8]) {
    let (low, high) = out.split_at_mut(bytes.len());
    let boundary = bytes.len().div_ceil(2);
    for (quarter, run) in [0..boundary, boundary..bytes.len()].into_iter().enumerate() {
        let factors = [quarter, quarter + 2].map(|quarter| factor(share(scale, quarter)));
        let places = low[run.clone()].iter_mut().zip(&mut high[run.clone()]);
        for ((low, high), &byte) in places.zip(&bytes[run]) {
            *low = integer(i32::from(byte as u8 & 15), factors[0]);
            *high = integer(i32::from(byte as u8 >> 4), factors[1]);
        }
    }
}

/// The share of a quarter.
fn share(scale: f32, quarter: usize) -> u32 {
    scale.to_bits() >> (4 * quarter) & 15
}

/// A share in twentieths.
fn factor(share: u32) -> i32 {
    5 + share as i32
}

#[inline(always)]
fn integer(nibble: i32, factor: i32) -> i8 {
    let v = 2 * nibble - 15;
    ((v * (20_808 + 31 * v * v) * factor + (1 << 15)) >> 16) as i8
}

/// The magnitudes of a share's levels, which are the same on both sides of 0, and the middles between them.
struct Levels {
    magnitudes: [f32; 8],
    middles: [f32; 7],
}

impl Levels {
    #[inline(never)]
    fn of(share: u32) -> Self {
        let magnitudes = core::array::from_fn(|step| f32::from(integer(8 + step as i32, factor(share))));
        Levels { magnitudes, middles: core::array::from_fn(|step| 0.5 * (magnitudes[step] + magnitudes[step + 1])) }
    }

    /// The number of the level nearest to a magnitude.
    #[inline(never)]
    fn step(&self, magnitude: f32) -> usize {
        self.middles.iter().map(|middle| usize::from(magnitude >= *middle)).sum()
    }

    fn nibble(&self, value: f32) -> u8 {
        let step = self.step(value.abs()) as u8;
        if value < 0.0 { 7 - step } else { 8 + step }
    }
}

/// The share of the scale with which a quarter's values have the smallest squared error.
#[inline(never)]
fn best_share(part: &[f32], inverse: f32) -> u32 {
    let largest = part.iter().fold(0.0, |largest: f32, value| largest.max(value.abs())) * inverse;
    let reaching = (0..15).find(|&share| f32::from(integer(15, factor(share))) >= largest).unwrap_or(15);
    let (mut best, mut least) = (reaching, f32::INFINITY);
    for share in (reaching.saturating_sub(TRIED - 1)..=reaching).rev() {
        let levels = Levels::of(share);
        let error = part.iter().fold(0.0, |error, value| {
            let magnitude = (value * inverse).abs();
            let apart = magnitude - levels.magnitudes[levels.step(magnitude)];
            error + apart * apart
        });
        if error < least {
            (best, least) = (share, error);
        }
    }
    best
}

/// Multiplies a vector by an orthogonal matrix that is its own inverse: the Hadamard matrix within blocks of n values, n
/// the largest power of two that divides the width, and a reflection between the blocks.
///
/// ```text
/// within a block      (a, b) ← (a + b, a − b) at distances 1, 2, 4, … n / 2, then a product with f32(1 / √n)
/// between m blocks    x[j] ← x[j] − (Σ over blocks of x[j]) · f32(2 / m), where m > 1
/// ```
#[inline(never)]
pub fn hadamard(vector: &mut [f32]) {
    let n = 1 << vector.len().trailing_zeros().min(31);
    let factor = 1.0 / root_of_power(n);
    for block in vector.chunks_exact_mut(n) {
        let mut distance = 1;
        while distance < n {
            for pair in block.chunks_exact_mut(2 * distance) {
                let (a, b) = pair.split_at_mut(distance);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            distance *= 2;
        }
        block.iter_mut().for_each(|value| *value *= factor);
    }
    let blocks = vector.len().checked_div(n).unwrap_or(0);
    if blocks > 1 {
        let twice = 2.0 / blocks as f32;
        for place in 0..n {
            let column = |block: usize| block * n + place;
            let sum = (0..blocks).fold(0.0, |sum, block| sum + vector[column(block)]);
            (0..blocks).for_each(|block| vector[column(block)] -= sum * twice);
        }
    }
}

/// √n of a power of two: exact, or the f32 nearest to √2 times a power of two.
fn root_of_power(n: usize) -> f32 {
    let exponent = n.trailing_zeros();
    let whole = (1u64 << (exponent / 2)) as f32;
    if exponent.is_multiple_of(2) { whole } else { whole * core::f32::consts::SQRT_2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::random_u64;
    use std::vec::Vec;

    fn draw(seed: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|n| (random_u64(seed, n) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    #[test]
    fn levels_are_odd_functions_that_grow_and_fit_a_byte() {
        for share in 0..16 {
            let levels: Vec<i8> = (0..16).map(|nibble| integer(nibble, factor(share))).collect();
            assert!(levels.windows(2).all(|pair| pair[0] < pair[1]), "{share}: {levels:?}");
            assert!((0..8).all(|n| levels[n] == -levels[15 - n]), "{share}: {levels:?}");
        }
        assert_eq!([integer(15, factor(15)), integer(15, factor(0))], [127, 32]);
    }

    #[test]
    fn values_come_back_at_the_nearest_level() {
        for width in [2, 6, 16, 48, 64] {
            let mut value = draw(9, width);
            let mut packed = std::vec![0; width / 2];
            let scale = quantize_nibbles(&mut value, &mut packed).expect("in range");
            let mut integers = std::vec![0; width];
            unpack_nibbles(&packed, scale, &mut integers);
            for (i, (&value, &found)) in value.iter().zip(&integers).enumerate() {
                let factor = factor(share(scale, 4 * i / width));
                let apart = |nibble: i32| (f32::from(integer(nibble, factor)) * scale - value).abs();
                let least = (0..16).map(apart).fold(f32::INFINITY, f32::min);
                assert!((f32::from(found) * scale - value).abs() <= least * 1.0001, "{width}, {i}");
            }
        }
        let mut zeros = [0.0; 4];
        assert_eq!(quantize_nibbles(&mut zeros, &mut [1; 2]), Ok(0.0));
        assert_eq!(quantize_nibbles(&mut [f32::NAN, 0.0], &mut [0]), Err(NumericRange));
    }

    #[test]
    fn the_squared_error_of_normal_values_is_what_the_document_says() {
        let (mut error, mut energy) = (0.0, 0.0);
        for seed in 0..500 {
            // Sums of twelve uniform numbers.
            let uniform = draw(seed, 32 * 12);
            let mut value: Vec<f32> = uniform.chunks(12).map(|parts| parts.iter().sum()).collect();
            let mut packed = [0; 16];
            let scale = quantize_nibbles(&mut value, &mut packed).expect("in range");
            let mut integers = [0; 32];
            unpack_nibbles(&packed, scale, &mut integers);
            for (&value, &integer) in value.iter().zip(&integers) {
                error += f64::from(value - f32::from(integer) * scale).powi(2);
                energy += f64::from(value).powi(2);
            }
        }
        assert!(error / energy < 0.0039, "{}", error / energy);
    }

    #[test]
    fn a_rotation_is_its_own_inverse_and_keeps_the_length() {
        for width in [1, 2, 6, 16, 24, 32, 48, 64, 80, 128] {
            let x = draw(width as u64, width);
            let mut y = x.clone();
            hadamard(&mut y);
            let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            assert!((length(&x) - length(&y)).abs() < 1e-4 * length(&x), "{width}");
            hadamard(&mut y);
            for (a, b) in x.iter().zip(&y) {
                assert!((a - b).abs() < 1e-5, "{width}: {a} {b}");
            }
        }
    }
}
