//! torchao's integers in safetensors: the parts of `M.weight`, an `IntxUnpackedToInt8Tensor` or an `Int8Tensor`:
//!
//! ```text
//! M._weight_qdata       i8 (out, in)
//! M._weight_scale       (out, G), (out, 1), (out) or (1)
//! M._weight_zero_point  whole numbers of the same shape; absent: 0
//! W[o, i] = scale[o, g] · (qdata[o, i] − zero_point[o, g])
//! ```
//!
//! Its other tensors (Int4Tensor, tile-packed and floating-point ones) have other types or shapes, and are refused by them.

use super::codes::{Codes, Layout};
use super::compressed_tensors::bytes_of;
use super::error::PackedError;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::Module;
use crate::disk::SharedBytes;
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;

pub(super) const ENDS: [&str; 3] = ["._weight_qdata", "._weight_scale", "._weight_zero_point"];

/// The matrix of a module.
pub(super) fn read(module: &Module<'_>) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed("._weight_qdata", Dtype::I8)?;
    let (rows, columns) = module.matrix("._weight_qdata", weights)?;
    let scales = module.scales("._weight_scale")?;
    let (order, count) = match scales.shape() {
        [] | [1] | [1, 1] => (Order::Single, 1),
        [found] if *found == rows => (Order::Groups, 1),
        [found, count] if *found == rows && *count > 0 && columns.is_multiple_of(*count) => (Order::Rows, *count),
        _ => {
            let expected = format!(
                "[{rows}, groups] with groups that divide {columns} columns: torchao's tensors of one byte \
                                    a value are read, packed ones are not"
            );
            return Err(module.shape("._weight_scale", module.part("._weight_scale")?, expected));
        }
    };
    let zeros = zeros(module, scales.shape(), rows)?;
    let size = module.group_size("._weight_scale", columns, count, &[])?;
    let groups = Groups::Even(size);
    Ok(PackedMatrix { rows, columns, codes: bytes_of(weights, columns), zeros, scales, order, groups, count })
}

/// Zero points, which may be stored as bytes or in floating point; `None` where all are 0.
fn zeros(module: &Module<'_>, shape: &[usize], rows: usize) -> Result<Option<Codes>, ModelFormatError> {
    let end = "._weight_zero_point";
    let Some(tensor) = module.find(end) else { return Ok(None) };
    if tensor.shape != shape {
        return Err(module.shape(end, tensor, format!("{shape:?}, as its scales")));
    }
    let whole: Vec<i64> = match tensor.dtype {
        Dtype::I8 => tensor.bytes.as_slice().iter().map(|byte| i64::from(byte.cast_signed())).collect(),
        _ => module.scales(end)?.to_f32(end)?.into_iter().map(|value| value as i64).collect(),
    };
    let exact = module.scales(end).ok().map(|zeros| zeros.to_f32(end)).transpose()?;
    let broken = |index: usize| exact.as_ref().is_some_and(|exact| exact[index] != whole[index] as f32);
    let sound = |(index, value): (usize, &i64)| i8::try_from(*value).is_ok() && !broken(index);
    if let Some((index, found)) = whole.iter().enumerate().find(|pair| !sound(*pair)) {
        let (file, tensor, expected) = (tensor.file.clone(), module.full(end), "a whole number of 8 bits".to_owned());
        return Err(PackedError::Value { file, tensor, index, found: *found, expected }.into());
    }
    if whole.iter().all(|zero| *zero == 0) {
        return Ok(None);
    }
    let mut bytes: Vec<u8> = whole.iter().map(|zero| (*zero as i8).cast_unsigned()).collect();
    if bytes.len() == 1 {
        bytes = vec![bytes[0]; rows];
    }
    let bytes = SharedBytes::owned(bytes);
    let width = shape.get(1).copied().unwrap_or(1);
    Ok(Some(Codes { bytes, width, layout: Layout::Bytes, bits: 8, fields: None, add: 0 }))
}
