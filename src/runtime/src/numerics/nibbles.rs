//! Values of attention in 4 bits: a rotation that spreads an outlier over the head, then sixteen levels with one scale,
//! two to a byte.

use super::{NumericRange, TINY_BITS, max_abs_bits, round_to_integer};

/// Scales that are tried: a · (16 − k) / 16 / 15 for k = 0, 1, … below this number, a the largest magnitude.
const SCALES: u32 = 6;

/// Rotates a vector in place ([`hadamard`]) and packs it: of some scales the one with the smallest squared error, the first
/// of equal ones; n = round((v / scale + 15) / 2) within 0 and 15, which stands for (2n − 15) · scale. Byte i has `n[i]` in its
/// low half and `n[i + width / 2]` in its high half; the width is even.
pub fn quantize_nibbles(value: &mut [f32], out: &mut [i8]) -> Result<f32, NumericRange> {
    hadamard(value);
    let bits = max_abs_bits(value)?;
    if bits < TINY_BITS {
        // Any number: the scale is 0.
        out.fill(0);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for step in 0..SCALES {
        let scale = largest * ((16 - step) as f32 / 240.0);
        let inverse = 1.0 / scale;
        let mut error = 0.0;
        for &value in &*value {
            let apart = value - (2 * nibble(value, inverse) - 15) as f32 * scale;
            error += apart * apart;
        }
        if error < least {
            (best, least) = (scale, error);
        }
    }
    let inverse = 1.0 / best;
    let (low, high) = value.split_at(value.len() / 2);
    for (byte, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *byte = (nibble(high, inverse) << 4 | nibble(low, inverse)) as i8;
    }
    Ok(best)
}

fn nibble(value: f32, inverse: f32) -> i32 {
    round_to_integer((value * inverse + 15.0) * 0.5).clamp(0, 15)
}

/// The integer that a nibble stands for, an odd one in [-15, 15].
#[inline]
pub(crate) fn from_nibble(nibble: u8) -> i8 {
    2 * nibble as i8 - 15
}

/// Multiplies a vector by an orthogonal matrix that is its own inverse: the Hadamard matrix within blocks of n values, n
/// the largest power of two that divides the width, and a reflection between the blocks.
///
/// ```text
/// within a block      (a, b) ← (a + b, a − b) at distances 1, 2, 4, … n / 2, then a product with f32(1 / √n)
/// between m blocks    x[j] ← x[j] − (Σ over blocks of x[j]) · f32(2 / m), where m > 1
/// ```
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
