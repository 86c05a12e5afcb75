//! The 2:4 bitmask of compressed-tensors up to version 0.14, of any type of values. Per module X of (out, in):
//!
//! ```text
//! X.compressed  (out, in / 2)             the values that are kept, row by row
//! X.bitmask     u8 (out, ceil(in / 8))    bit j of byte c is column 8c + j
//! X.shape       i64 (2, 1)
//! ```
//!
//! The matrix is `X.weight` again, zeros where nothing is kept.

use super::compressed_tensors::shape;
use super::error::PackedError;
use super::module::Module;
use crate::disk::SharedBytes;
use crate::disk::deferred::Deferred;
use crate::disk::tensor_file::StoredTensor;
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;

pub(super) const ENDS: [&str; 3] = [".compressed", ".bitmask", ".shape"];

/// The whole matrix, made when it is asked for.
pub(super) fn read(module: &Module<'_>) -> Result<StoredTensor, ModelFormatError> {
    let kept = module.part(".compressed")?;
    let mask = module.typed(".bitmask", Dtype::U8)?;
    let (rows, columns) = shape(module, ".shape")?;
    let bits = kept.dtype.bitsize();
    if !bits.is_multiple_of(8) {
        return Err(module.shape(".compressed", kept, "values of whole bytes".to_owned()));
    }
    if !columns.is_multiple_of(4) || kept.shape.iter().product::<usize>() != rows * columns / 2 {
        return Err(module.shape(".compressed", kept, format!("[{rows}, {columns} / 2], two of every four columns")));
    }
    let width = columns.div_ceil(8);
    module.expect(".bitmask", &[rows, width])?;
    let bytes = mask.bytes.as_slice();
    let two = |half: u8| half.count_ones() == 2;
    let sound = |(index, byte): (usize, &u8)| {
        let whole = index % width < columns / 8;
        two(byte & 15) && if whole { two(byte >> 4) } else { byte >> 4 == 0 }
    };
    if let Some((index, byte)) = bytes.iter().enumerate().find(|pair| !sound(*pair)) {
        let (file, tensor, expected) =
            (mask.file.clone(), module.full(".bitmask"), "two bits of every four".to_owned());
        return Err(PackedError::Value { file, tensor, index, found: i64::from(*byte), expected }.into());
    }
    let (size, values, bitmask) = (bits / 8, kept.bytes.clone(), mask.bytes.clone());
    let make = move || scatter(values.as_slice(), bitmask.as_slice(), (rows, columns), size);
    let deferred = Deferred::new(rows * columns * size, &kept.file, make);
    Ok(StoredTensor {
        dtype: kept.dtype,
        shape: vec![rows, columns],
        bytes: SharedBytes::deferred(deferred),
        file: kept.file.clone(),
    })
}

/// Every kept value at its place.
fn scatter(values: &[u8], mask: &[u8], (rows, columns): (usize, usize), size: usize) -> Vec<u8> {
    let mut out = vec![0; rows * columns * size];
    let mut values = values.chunks_exact(size);
    for (row, mask) in out.chunks_exact_mut(columns * size).zip(mask.chunks_exact(columns.div_ceil(8))) {
        for (column, out) in row.chunks_exact_mut(size).enumerate() {
            if mask[column / 8] >> (column % 8) & 1 == 1 {
                out.copy_from_slice(values.next().expect("the mask has as many bits as there are values"));
            }
        }
    }
    out
}
