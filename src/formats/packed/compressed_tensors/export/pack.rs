//! The tensors of a packed module. Of (out, in) with b bits, its parts one after the other:
//!
//! ```text
//! X.weight_packed  i32 (out, ceil(in · b / 32))   field i at bit i · b of the row's stream: integer + 2^(b−1)
//! X.weight         i8 (out, in)                   the integers, where they are bytes
//! X.weight_scale   (out, scales)                  row_scale · multiplier, rounded once to the data type
//! X.weight_shape   i64 (2)                        out, in; of packed ones
//! ```

use super::modules::Coding;
use crate::disk::DenseType;
use crate::formats::hugging_face::stored_type;
use crate::model::matrix::row_major;
use crate::model::quantized::QuantizedMatrix;
use half::{bf16, f16};
use safetensors::Dtype;

/// Bytes of a tensor, and of scales the largest relative change by rounding them, or the first that is beyond the type.
pub(super) type Made = (Vec<u8>, Result<Option<f64>, f32>);

/// A tensor of a module.
pub(super) struct PackedTensor<'m> {
    /// After the name of the module.
    pub(super) end: &'static str,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Box<dyn Fn() -> Made + 'm>,
}

/// The tensors of a module of these matrices, one after the other.
pub(super) fn tensors(coding: Coding, matrices: Vec<&QuantizedMatrix>, dtype: DenseType) -> Vec<PackedTensor<'_>> {
    let rows: usize = matrices.iter().map(|matrix| matrix.rows()).sum();
    let columns = matrices.first().map_or(0, |matrix| matrix.columns());
    let count = coding.scales(columns);
    let of_scales = matrices.clone();
    let scales = PackedTensor {
        end: ".weight_scale",
        dtype: stored_type(dtype),
        shape: vec![rows, count],
        bytes: Box::new(move || scales(&of_scales, count, dtype)),
    };
    match coding {
        Coding::Packed { bits, .. } => {
            let shape = [rows, columns].map(|n| (n as i64).to_le_bytes()).concat();
            vec![
                PackedTensor {
                    end: ".weight_packed",
                    dtype: Dtype::I32,
                    shape: vec![rows, Coding::words(bits, columns)],
                    bytes: Box::new(move || (words(&matrices, bits), Ok(None))),
                },
                scales,
                PackedTensor {
                    end: ".weight_shape",
                    dtype: Dtype::I64,
                    shape: vec![2],
                    bytes: Box::new(move || (shape.clone(), Ok(None))),
                },
            ]
        }
        Coding::Bytes | Coding::Float => vec![
            PackedTensor {
                end: ".weight",
                dtype: Dtype::I8,
                shape: vec![rows, columns],
                bytes: Box::new(move || {
                    let values = matrices.iter().flat_map(|matrix| row_major(matrix.values.view()));
                    (values.map(|value| value.cast_unsigned()).collect(), Ok(None))
                }),
            },
            scales,
        ],
    }
}

/// Fields of every row from its first word on, low bits first.
fn words(matrices: &[&QuantizedMatrix], bits: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let middle = 1i16 << (bits - 1);
    for row in matrices.iter().flat_map(|matrix| matrix.values.outer_iter()) {
        let (mut word, mut filled) = (0u64, 0);
        for &value in &row {
            // From 0 to 2^bits − 1: the integers of a scheme are within its bits.
            word |= u64::from((i16::from(value) + middle).cast_unsigned()) << filled;
            filled += bits;
            if filled >= 32 {
                bytes.extend_from_slice(&(word as u32).to_le_bytes());
                word >>= 32;
                filled -= 32;
            }
        }
        if filled > 0 {
            bytes.extend_from_slice(&(word as u32).to_le_bytes());
        }
    }
    bytes
}

/// Scales of every row: as many, each of as many columns.
fn scales(matrices: &[&QuantizedMatrix], count: usize, dtype: DenseType) -> Made {
    let (mut bytes, mut worst) = (Vec::new(), 0.0f64);
    for matrix in matrices {
        let columns = matrix.columns();
        let group = matrix.scheme.def().group.unwrap_or(columns);
        for row in 0..matrix.rows() {
            let multipliers = matrix.multipliers(row);
            for index in 0..count {
                let multiplier = multipliers.get(index * (columns / count) / group).map_or(1.0, |own| f64::from(*own));
                let scale = f64::from(matrix.row_scale[row]) * multiplier;
                let rounded = put(&mut bytes, scale, dtype);
                if !rounded.is_finite() {
                    return (bytes, Err(scale as f32));
                }
                if scale != 0.0 {
                    worst = worst.max(((rounded - scale) / scale).abs());
                }
            }
        }
    }
    (bytes, Ok(Some(worst)))
}

/// Adds a scale in a data type; its value there.
fn put(bytes: &mut Vec<u8>, scale: f64, dtype: DenseType) -> f64 {
    match dtype {
        DenseType::F32 => {
            bytes.extend_from_slice(&(scale as f32).to_le_bytes());
            f64::from(scale as f32)
        }
        DenseType::F16 => {
            bytes.extend_from_slice(&f16::from_f64(scale).to_le_bytes());
            f16::from_f64(scale).to_f64()
        }
        DenseType::Bf16 => {
            bytes.extend_from_slice(&bf16::from_f64(scale).to_le_bytes());
            bf16::from_f64(scale).to_f64()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SharedBytes;
    use crate::formats::packed::codes::{Codes, Layout};
    use crate::model::matrix::from_rows;
    use crate::model::scheme::{QuantScheme, SCHEMES};

    #[test]
    fn fields_are_those_that_are_read() {
        for def in SCHEMES {
            let (rows, columns) = (3, 128usize);
            let (low, high) = (i16::from(def.range.0), i16::from(def.range.1));
            let values: Vec<i8> =
                (0..rows * columns).map(|n| (low + (n as i16 * 7) % (high - low + 1)) as i8).collect();
            let groups = def.group.map_or(0, |group| columns.div_ceil(group));
            let multipliers = vec![3; rows * groups];
            let integers = from_rows(values.clone(), columns);
            let matrix = QuantizedMatrix::new(def.scheme, integers, vec![0.5; rows], multipliers);
            let codes = Codes {
                bytes: SharedBytes::owned(words(&[&matrix], def.bits)),
                width: Coding::words(def.bits, columns),
                layout: Layout::AlongRows,
                bits: def.bits,
                fields: None,
                add: -(1 << (def.bits - 1)),
            };
            let mut read = vec![0; values.len()];
            codes.read(0..rows, columns, &mut read);
            assert_eq!(read, values.into_iter().map(i16::from).collect::<Vec<_>>(), "{}", def.name);
        }
    }

    #[test]
    fn scales_are_products_and_what_rounding_changes_is_told() {
        let matrix = QuantizedMatrix::new(QuantScheme::W4G32, from_rows(vec![1; 64], 64), vec![0.1], vec![-3, 5]);
        let (bytes, error) = scales(&[&matrix], 2, DenseType::F32);
        let product = |multiplier: f64| ((f64::from(0.1f32) * multiplier) as f32).to_le_bytes();
        assert_eq!(bytes, [product(-3.0), product(5.0)].concat());
        assert!(error.is_ok_and(|error| error.is_some_and(|error| error < 1e-7)));
        let (_, error) = scales(&[&matrix], 2, DenseType::F16);
        assert!(error.is_ok_and(|error| error.is_some_and(|error| (1e-5..5e-4).contains(&error))));
        let exact = QuantizedMatrix { row_scale: vec![0.125], ..matrix };
        assert_eq!(scales(&[&exact], 2, DenseType::F16).1, Ok(Some(0.0)));
        let large = QuantizedMatrix { row_scale: vec![30000.0], ..exact };
        assert_eq!(scales(&[&large], 2, DenseType::F16).1, Err(-90000.0));
    }
}
