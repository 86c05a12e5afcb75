//! torchao's integers in safetensors: the parts of `M.weight`, which is one of three of its tensors:
//!
//! ```text
//! IntxUnpackedToInt8Tensor, Int8Tensor
//!   M._weight_qdata       i8 (out, in)
//!   M._weight_scale       (out, G), (out, 1), (out) or (1)
//!   M._weight_zero_point  whole numbers of the same shape; absent: 0
//!   W[o, i] = scale[o, g] · (qdata[o, i] − zero_point[o, g])
//! Int4Tensor
//!   M._weight_qdata       i8 (out, in / 2)   signed halves, the even column in the low one
//!   M._weight_scale       (G, out)
//!   M._weight_zero_point  (G, out)           in floating point, added
//!   W[o, i] = scale[g, o] · qdata[o, i] + zero_point[g, o]
//! ```
//!
//! Which one it is stands in the header of the file, as JSON under the name of the tensor; where that is absent the shapes tell.
//! Its other tensors (tile-packed and floating-point ones) are refused by their names.

use super::codes::{Codes, Layout};
use super::compressed_tensors::bytes_of;
use super::error::PackedError;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::Module;
use crate::disk::SharedBytes;
use crate::disk::tensor_file::{self, StoredTensor};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub(super) const ENDS: [&str; 4] =
    ["._weight_qdata", "._weight_scale", "._weight_zero_point", "._weight_act_pre_scale"];
/// Part of a weight of which only parts are there.
const PART: &str = "._weight_";

/// The kinds of torchao's tensors by the names of weights, as the headers of files state them.
pub(super) struct Kinds(BTreeMap<String, String>);

impl Kinds {
    /// Reads the headers that a table of tensors comes from, and refuses kinds that are not read.
    pub(super) fn of(tensors: &BTreeMap<String, StoredTensor>) -> Result<Kinds, ModelFormatError> {
        let of_parts = tensors.iter().filter(|(name, _)| name.contains(PART));
        let files: BTreeSet<&PathBuf> = of_parts.map(|(_, tensor)| &tensor.file).collect();
        let mut kinds = BTreeMap::new();
        for file in files {
            for (tensor, stated) in tensor_file::metadata(file)? {
                let stated: Option<Value> = serde_json::from_str(&stated).ok();
                let Some(kind) = stated.as_ref().and_then(|stated| stated.get("_type")).and_then(Value::as_str) else {
                    continue;
                };
                if !["Int4Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor", "Tensor"].contains(&kind) {
                    let problem = format!(
                        "is a {kind} of torchao; slmc reads Int8Tensor, IntxUnpackedToInt8Tensor and Int4Tensor: quantize the \
                         model with IntxWeightOnlyConfig or Int4WeightOnlyConfig, or pass the model it was made from"
                    );
                    return Err(PackedError::Unclear { file: file.clone(), tensor, problem }.into());
                }
                kinds.insert(tensor, kind.to_owned());
            }
        }
        Ok(Kinds(kinds))
    }

    /// Whether a module is an Int4Tensor.
    fn is_int4(&self, module: &Module<'_>) -> Result<bool, ModelFormatError> {
        if let Some(kind) = self.0.get(&format!("{}.weight", module.name)) {
            return Ok(kind == "Int4Tensor");
        }
        let (weights, scales) = (module.typed(ENDS[0], Dtype::I8)?, module.part(ENDS[1])?);
        let (rows, width) = module.matrix(ENDS[0], weights)?;
        let &[first, second] = scales.shape.as_slice() else { return Ok(false) };
        let whole = |count: usize, columns: usize| count > 0 && columns.is_multiple_of(count);
        let in_bytes = first == rows && whole(second, width);
        let in_halves = second == rows && whole(first, 2 * width);
        if in_bytes && in_halves && second > 1 {
            let problem = "can be an Int4Tensor of torchao or one of bytes, and the file does not say which; save the model with \
                           `save_pretrained` of transformers, which writes the names of kinds";
            let (file, tensor) = (weights.file.clone(), module.full(ENDS[0]));
            return Err(PackedError::Unclear { file, tensor, problem: problem.to_owned() }.into());
        }
        Ok(in_halves && !in_bytes)
    }
}

/// The matrix of a module.
pub(super) fn read(module: &Module<'_>, kinds: &Kinds) -> Result<PackedMatrix, ModelFormatError> {
    if let Some(tensor) = module.find(ENDS[3]) {
        let problem = "multiplies the inputs of the matrix, which no reader of the weights alone can keep; quantize the model \
                       without SmoothQuant or AWQ of torchao, or pass the model it was made from";
        let (file, tensor) = (tensor.file.clone(), module.full(ENDS[3]));
        return Err(PackedError::Unclear { file, tensor, problem: problem.to_owned() }.into());
    }
    match kinds.is_int4(module)? {
        true => in_halves(module),
        false => in_bytes(module),
    }
}

fn in_halves(module: &Module<'_>) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(ENDS[0], Dtype::I8)?;
    let (rows, width) = module.matrix(ENDS[0], weights)?;
    let columns = 2 * width;
    let (scales, minima) = (module.scales(ENDS[1])?, module.scales(ENDS[2])?);
    let (count, _) = module.matrix(ENDS[1], module.part(ENDS[1])?)?;
    module.expect(ENDS[1], &[count, rows])?;
    module.expect(ENDS[2], &[count, rows])?;
    let size = module.group_size(ENDS[1], columns, count, &[])?;
    let bytes = weights.bytes.clone();
    let symmetric = minima.dtype().decode(&minima.bytes()).iter().all(|minimum| *minimum == 0.0);
    Ok(PackedMatrix {
        rows,
        columns,
        codes: Codes { bytes, width, layout: Layout::Nibbles, bits: 4, fields: None, add: 0 },
        zeros: None,
        minima: (!symmetric).then_some(minima),
        scales,
        order: Order::Groups,
        groups: Groups::Even(size),
        count,
    })
}

fn in_bytes(module: &Module<'_>) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(ENDS[0], Dtype::I8)?;
    let (rows, columns) = module.matrix(ENDS[0], weights)?;
    let scales = module.scales(ENDS[1])?;
    let (order, count) = match scales.shape() {
        [] | [1] | [1, 1] => (Order::Single, 1),
        [found] if *found == rows => (Order::Groups, 1),
        [found, count] if *found == rows && *count > 0 && columns.is_multiple_of(*count) => (Order::Rows, *count),
        _ => {
            let expected = format!(
                "[{rows}, groups] with groups that divide {columns} columns, or [groups, {rows}] of torchao's Int4Tensor"
            );
            return Err(module.shape(ENDS[1], module.part(ENDS[1])?, expected));
        }
    };
    let zeros = zeros(module, scales.shape(), rows)?;
    let size = module.group_size(ENDS[1], columns, count, &[])?;
    let (codes, groups) = (bytes_of(weights, columns), Groups::Even(size));
    Ok(PackedMatrix { rows, columns, codes, zeros, minima: None, scales, order, groups, count })
}

/// Zero points, which may be stored as bytes or in floating point; `None` where all are 0.
fn zeros(module: &Module<'_>, shape: &[usize], rows: usize) -> Result<Option<Codes>, ModelFormatError> {
    let end = ENDS[2];
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
