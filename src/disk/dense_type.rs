//! The floating-point formats of stored tensors: their sizes, what they hold exactly, and rounding to them.

use super::tensor::PIECE;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::fmt;

/// Floating-point formats a checkpoint may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
}

impl DenseType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            DenseType::F32 => 4,
            DenseType::F16 | DenseType::Bf16 => 2,
        }
    }

    /// Whether this format holds the value exactly; no format holds NaN.
    pub fn holds(self, value: f32) -> bool {
        self.rounded(value) == value
    }

    /// The nearest value of this format, infinite from its bound on.
    pub(super) fn rounded(self, value: f32) -> f32 {
        match self {
            DenseType::F32 => value,
            DenseType::F16 => f16::from_f32(value).to_f32(),
            DenseType::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// The least magnitude that this format rounds to infinity: half a step beyond its largest number.
    pub fn bound(self) -> f32 {
        match self {
            DenseType::F32 => f32::INFINITY,
            DenseType::F16 => 65520.0,
            DenseType::Bf16 => f32::from_bits(0x7f7f_8000),
        }
    }

    /// The values of bytes in this format, infinities and NaN among them.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            DenseType::F32 => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            DenseType::F16 => bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
            DenseType::Bf16 => bytes.as_chunks().0.iter().map(|value| bf16::from_le_bytes(*value).to_f32()).collect(),
        }
    }

    /// The values in this format, little-endian, rounded to nearest where it does not hold them.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * self.bytes()];
        let pieces = bytes.par_chunks_mut(PIECE * self.bytes()).zip(values.par_chunks(PIECE));
        pieces.for_each(|(out, values)| match self {
            DenseType::F32 => {
                for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *out = value.to_le_bytes();
                }
            }
            DenseType::F16 => {
                // In runs, which the CPU converts at once where it can.
                const RUN: usize = 256;
                let mut halves = [f16::ZERO; RUN];
                for (out, values) in out.chunks_mut(2 * RUN).zip(values.chunks(RUN)) {
                    halves[..values.len()].convert_from_f32_slice(values);
                    for (out, half) in out.as_chunks_mut::<2>().0.iter_mut().zip(&halves) {
                        *out = half.to_le_bytes();
                    }
                }
            }
            DenseType::Bf16 => {
                for (out, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *out = bf16::from_f32(*value).to_le_bytes();
                }
            }
        });
        bytes
    }
}

impl fmt::Display for DenseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DenseType::F32 => "F32",
            DenseType::F16 => "F16",
            DenseType::Bf16 => "BF16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_and_infinite_from_the_bound_on() {
        let values: Vec<f32> = (0..3000u32).map(|n| f32::from_bits(n.wrapping_mul(0x9e37_79b9))).collect();
        let finite: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
        for dtype in [DenseType::F32, DenseType::F16, DenseType::Bf16] {
            let one_by_one: Vec<u8> = finite.iter().flat_map(|&value| dtype.encode(&[value])).collect();
            assert_eq!(dtype.encode(&finite), one_by_one, "{dtype}");
            for &value in &finite {
                assert_eq!(dtype.rounded(value).is_finite(), value.abs() < dtype.bound(), "{value} in {dtype}");
            }
            let below = f32::from_bits(dtype.bound().to_bits() - 1);
            assert!(dtype.rounded(below).is_finite() && dtype.rounded(dtype.bound()).is_infinite(), "{dtype}");
        }
    }
}
