//! The bytes of a tensor: rows of blocks with the integers of a quantized matrix, or floating-point values.
//!
//! ```text
//! Q8_0   d = f16(scale), 32 · i8 q
//! Q4_0   d = f16(scale), 16 · u8, value j + 8 in the low half of byte j, value j + 16 in its high half
//! ```
//!
//! The scale of a block is row_scale · multiplier, row_scale alone where a row has no multipliers, in f64 and then rounded once.
//! Every integer stays as it is: those of 3 and 4 bits fit Q4_0, and all of them Q8_0.

use super::super::block::BlockType;
use super::super::layout::{NewPart, NewTensor};
use crate::disk::DenseType;
use crate::disk::tensor::first_beyond;
use crate::formats::ModelFormatError;
use crate::model::matrix::row_major;
use crate::model::quantized::QuantizedMatrix;
use crate::model::weights::{Model, Parameter};
use half::f16;
use rayon::prelude::*;

/// Values of a block.
const BLOCK: usize = 32;

/// A tensor as the file holds it.
pub(super) struct Encoded {
    /// Its rows.
    pub(super) bytes: Vec<u8>,
    /// Largest relative change of a scale; absent where there are none.
    pub(super) scale_error: Option<f64>,
}

/// The bytes of a tensor in a block type: one of integers only where all of its parts have them.
///
/// # Errors
/// A part that is not there, a value that is not finite or beyond the type's numbers.
pub(super) fn encoded(model: &Model, tensor: &NewTensor, kind: BlockType) -> Result<Encoded, ModelFormatError> {
    let mut whole = Encoded { bytes: Vec::new(), scale_error: None };
    for part in &tensor.parts {
        let parameter = model.parameters.get(&part.id).ok_or(ModelFormatError::MissingParameter(part.id))?;
        match (parameter, float_type(kind)) {
            (_, Some(dtype)) => whole.bytes.extend(floats(model, part, dtype)?),
            (Parameter::Quantized(matrix), None) => {
                let (bytes, error) = blocks(matrix, part, kind)?;
                whole.bytes.extend(bytes);
                whole.scale_error = Some(whole.scale_error.unwrap_or(0.0).max(error));
            }
            // The plan gives blocks to quantized matrices alone.
            (Parameter::Dense(_), None) => return Err(ModelFormatError::NothingQuantized),
        }
    }
    Ok(whole)
}

/// The floating-point type that a block type is.
fn float_type(kind: BlockType) -> Option<DenseType> {
    match kind {
        BlockType::F32 => Some(DenseType::F32),
        BlockType::F16 => Some(DenseType::F16),
        BlockType::Bf16 => Some(DenseType::Bf16),
        _ => None,
    }
}

/// The values of a parameter in the order of its tensor.
fn floats(model: &Model, part: &NewPart, dtype: DenseType) -> Result<Vec<u8>, ModelFormatError> {
    let mut values = model.values_f32(part.id)?;
    if part.from_one {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    let columns: usize = part.shape[1..].iter().product();
    let ordered: Vec<f32> = (0..part.shape[0])
        .flat_map(|stored| values[part.order.of_family(stored) * columns..][..columns].iter().copied())
        .collect();
    match first_beyond(&ordered, dtype.bound()) {
        None => Ok(dtype.encode(&ordered)),
        Some(place) => Err(ModelFormatError::TooLarge { id: part.id, value: ordered[place], dtype }),
    }
}

/// The rows of a matrix in blocks, in the order of the tensor, and the largest relative change of a scale.
fn blocks(matrix: &QuantizedMatrix, part: &NewPart, kind: BlockType) -> Result<(Vec<u8>, f64), ModelFormatError> {
    let columns = matrix.columns();
    let row_bytes = columns / BLOCK * kind.bytes();
    let mut bytes = vec![0; matrix.rows() * row_bytes];
    let group = matrix.scheme.def().group.unwrap_or(columns);
    let rows = bytes.par_chunks_exact_mut(row_bytes).enumerate();
    let errors = rows.map(|(stored, out)| -> Result<f64, f32> {
        let row = part.order.of_family(stored);
        let values = &row_major(matrix.values.view())[row * columns..][..columns];
        let (multipliers, row_scale) = (matrix.multipliers(row), f64::from(matrix.row_scale[row]));
        let mut worst = 0.0f64;
        for (index, (block, out)) in values.chunks_exact(BLOCK).zip(out.chunks_exact_mut(kind.bytes())).enumerate() {
            let multiplier = multipliers.get(index * BLOCK / group).map_or(1.0, |multiplier| f64::from(*multiplier));
            let scale = row_scale * multiplier;
            let half = f16::from_f64(scale);
            if !half.is_finite() {
                return Err(scale as f32);
            }
            if scale != 0.0 {
                worst = worst.max(((half.to_f64() - scale) / scale).abs());
            }
            out[..2].copy_from_slice(&half.to_le_bytes());
            pack(block, kind, &mut out[2..]);
        }
        Ok(worst)
    });
    let worst = errors.try_reduce(|| 0.0, |a, b| Ok(a.max(b)));
    let worst = worst.map_err(|value| ModelFormatError::TooLarge { id: part.id, value, dtype: DenseType::F16 })?;
    Ok((bytes, worst))
}

/// The integers of a block after its scale.
fn pack(values: &[i8], kind: BlockType, out: &mut [u8]) {
    if kind == BlockType::Q4_0 {
        let nibble = |value: i8| (value + 8).cast_unsigned() & 15;
        let (low, high) = values.split_at(BLOCK / 2);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = nibble(*low) | nibble(*high) << 4;
        }
    } else {
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value.cast_unsigned());
    }
}
