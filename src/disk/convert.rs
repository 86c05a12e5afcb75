//! Converts stored values to f32, in loops that the compiler vectorizes for the CPU's best instruction set
//! ([`pulp::Arch::dispatch`]; callees are always inlined for that reason). A half has 1 sign, 5 exponent and 10
//! fraction bits: shifted to their positions in an f32 and multiplied by 2^112, the difference of the exponents'
//! biases, they are its value, subnormals included. A bf16 is the upper half of an f32. Both conversions are exact for
//! finite values, which [`is_finite`] checks first.

use super::dense_type::DenseType;

/// 2^112
const HALF_BIAS: f32 = f32::from_bits((127 + 112) << 23);

/// Converts little-endian values to f32: as many as fit in `out` and `bytes`.
#[inline(always)]
pub(super) fn to_f32(dtype: DenseType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DenseType::F32 => {
            for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(bytes);
            }
        }
        DenseType::F16 => {
            for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                let half = i32::from(i16::from_le_bytes(bytes));
                *value = f32::from_bits((half << 13).cast_unsigned() & 0x8fff_e000) * HALF_BIAS;
            }
        }
        DenseType::Bf16 => {
            for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
            }
        }
    }
}

/// Whether all values are finite: no exponent has all bits set. Compares the largest magnitude as an integer.
#[inline(always)]
pub(super) fn is_finite(dtype: DenseType, bytes: &[u8]) -> bool {
    match dtype {
        DenseType::F32 => {
            let mut largest = 0;
            for &bytes in bytes.as_chunks::<4>().0 {
                largest = largest.max(u32::from_le_bytes(bytes) & 0x7fff_ffff);
            }
            largest < 0x7f80_0000
        }
        DenseType::F16 => largest_16(bytes) < 0x7c00,
        DenseType::Bf16 => largest_16(bytes) < 0x7f80,
    }
}

#[inline(always)]
fn largest_16(bytes: &[u8]) -> u16 {
    let mut largest = 0;
    for &bytes in bytes.as_chunks::<2>().0 {
        largest = largest.max(u16::from_le_bytes(bytes) & 0x7fff);
    }
    largest
}

/// [`to_f32`], compiled for the CPU's vectors.
pub(super) struct Convert<'a> {
    /// Format of the values.
    pub(super) dtype: DenseType,
    /// The values.
    pub(super) bytes: &'a [u8],
    /// The result.
    pub(super) out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Convert<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        to_f32(self.dtype, self.bytes, self.out);
    }
}

/// [`is_finite`], compiled for the CPU's vectors.
pub(super) struct AreFinite<'a> {
    /// Format of the values.
    pub(super) dtype: DenseType,
    /// The values.
    pub(super) bytes: &'a [u8],
}

impl pulp::NullaryFnOnce for AreFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        is_finite(self.dtype, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_half_becomes_its_value() {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = patterns.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for (dtype, exact) in [
            (DenseType::F16, (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32),
            (DenseType::Bf16, |bits| bf16::from_bits(bits).to_f32()),
        ] {
            let mut values = vec![0.0; patterns.len()];
            pulp::Arch::new().dispatch(Convert { dtype, bytes: &bytes, out: &mut values });
            for (&bits, value) in patterns.iter().zip(values) {
                let (exact, one) = (exact(bits), AreFinite { dtype, bytes: &bits.to_le_bytes() });
                assert_eq!(pulp::Arch::new().dispatch(one), exact.is_finite(), "{dtype} {bits:#x}");
                assert!(!exact.is_finite() || value.to_bits() == exact.to_bits(), "{dtype} {bits:#x}: {value}");
            }
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_anywhere() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for dtype in [DenseType::F32, DenseType::F16, DenseType::Bf16] {
                for position in 0..100 {
                    let mut values = vec![f32::from(f16::MAX); 100];
                    assert!(is_finite(dtype, &DenseType::F32.encode(&values)) || dtype != DenseType::F32);
                    values[position] = value;
                    assert!(!is_finite(dtype, &dtype.encode(&values)), "{dtype}: {value} at {position}");
                }
            }
        }
    }
}
