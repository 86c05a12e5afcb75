//! Values of attention in 4 bits: a rotation that spreads an outlier over the head, then integers in [-7, 7] with one
//! scale, two to a byte.

use super::{NumericRange, TINY_BITS, max_abs_bits, round_to_integer};

/// 1/7 rounded to f32.
const ONE_OVER_7: f32 = 1.0 / 7.0;

/// Rotates a vector in place and packs it: q = round(v · (7 / a)), scale = a · (1/7), a = max |v|. Byte i has q[i] + 8 in
/// its low half and q[i + width / 2] + 8 in its high half; the width is even.
pub fn quantize_nibbles(value: &mut [f32], out: &mut [i8]) -> Result<f32, NumericRange> {
    hadamard(value);
    let bits = max_abs_bits(value)?;
    if bits < TINY_BITS {
        out.fill(0x88u8 as i8);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let inverse = 7.0 / largest;
    let (low, high) = value.split_at(value.len() / 2);
    for (byte, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
        let nibble = |value: f32| (round_to_integer(value * inverse) + 8) as u8;
        *byte = (nibble(high) << 4 | nibble(low)) as i8;
    }
    Ok(largest * ONE_OVER_7)
}

/// Multiplies a vector by the Hadamard matrix H, which is its own inverse, block by block of n values, n the largest power of two that divides its length: butterflies
/// (a, b) ← (a + b, a − b) at distances 1, 2, 4, … n/2, then a product with f32(1/√n).
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
