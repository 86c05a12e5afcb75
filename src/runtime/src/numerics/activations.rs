//! Quantization of rows: to 8 bits with one scale, or to 16 bits as two planes of bytes.

use super::{NumericRange, TINY_BITS, max_abs_bits, round_to_integer};
use crate::layout::BLOCK_COLUMNS;

/// 1/127 rounded to f32.
pub(super) const ONE_OVER_127: f32 = f32::from_bits(1_006_699_012);
/// 1/16256 rounded to f32.
const ONE_OVER_16256: f32 = 1.0 / 16_256.0;
/// Largest integer of a 16-bit activation: 128 · 127, so that both planes stay in [-127, 127].
pub const A16_MAX: i32 = 16_256;

/// Integers in [-127, 127] and their f32 scale: q = round(x · (127 / a)), scale = a · (1/127), a = max |x|.
///
/// # Panics
/// If `out` is shorter than `x`.
#[inline(always)]
pub fn quantize(x: &[f32], out: &mut [i8]) -> Result<f32, NumericRange> {
    let out = &mut out[..x.len()];
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        out.fill(0);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let inverse = 127.0 / largest;
    for (q, &value) in out.iter_mut().zip(x) {
        *q = round_to_integer(value * inverse) as i8;
    }
    Ok(largest * ONE_OVER_127)
}

/// [`quantize`] for the input of a product: pads `out` with zeros and gives -8 times the sum of each group of 32.
///
/// # Panics
/// If `out` is shorter than `x`.
#[inline(always)]
pub fn quantize_row(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> {
    out[x.len()..].fill(0);
    let scale = quantize(x, out)?;
    group_offsets(out, offsets);
    Ok(scale)
}

/// Integers in [-16256, 16256] as two planes of bytes and their f32 scale: n = round(x · (16256 / a)), first = (n + 64)
/// >> 7 in [-127, 127], second = n − 128 · first in [-64, 63], scale = a · (1/16256), a = max |x|.
///
/// # Panics
/// If a plane is shorter than `x`.
#[inline(always)]
pub fn quantize_a16(x: &[f32], first: &mut [i8], second: &mut [i8]) -> Result<f32, NumericRange> {
    let (first, second) = (&mut first[..x.len()], &mut second[..x.len()]);
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        first.fill(0);
        second.fill(0);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let inverse = A16_MAX as f32 / largest;
    for ((first, second), &value) in first.iter_mut().zip(second).zip(x) {
        let n = round_to_integer(value * inverse);
        let high = (n + 64) >> 7;
        *first = high as i8;
        *second = (n - 128 * high) as i8;
    }
    Ok(largest * ONE_OVER_16256)
}

/// [`quantize_a16`] for the input of a product: each half of `out` is a plane padded with zeros; gives -8 times the
/// sums of their groups of 32.
///
/// # Panics
/// If half of `out` is shorter than `x`.
#[inline(always)]
pub fn quantize_a16_row(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> {
    let (first, second) = out.split_at_mut(out.len() / 2);
    first[x.len()..].fill(0);
    second[x.len()..].fill(0);
    let scale = quantize_a16(x, first, second)?;
    group_offsets(out, offsets);
    Ok(scale)
}

#[inline(always)]
fn group_offsets(values: &[i8], offsets: &mut [i32]) {
    for (offset, group) in offsets.iter_mut().zip(values.chunks_exact(BLOCK_COLUMNS)) {
        *offset = -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_rows_are_rejected() {
        let mut out = [0i8; 2];
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(super::super::HUGE_BITS)] {
            assert_eq!(quantize(&[1.0, bad], &mut out), Err(NumericRange));
        }
    }
}
