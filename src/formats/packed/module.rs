//! The tensors of one packed matrix: taken from the table by what their names end in, and checked for type and shape.

use super::error::PackedError;
use super::matrix::Groups;
use crate::disk::tensor_file::StoredTensor;
use crate::disk::{DenseTensor, DenseType};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tensors of one matrix, by the ends of their names.
pub(super) struct Module<'m> {
    /// What the names begin with.
    pub(super) name: &'m str,
    /// The method that made it.
    pub(super) method: &'static str,
    /// The end of the tensor it is known by.
    pub(super) key: &'static str,
    /// By end.
    pub(super) tensors: BTreeMap<&'static str, StoredTensor>,
}

impl Module<'_> {
    /// The full name of a part.
    pub(super) fn full(&self, end: &str) -> String {
        format!("{}{end}", self.name)
    }

    /// A part that may be absent.
    pub(super) fn find(&self, end: &str) -> Option<&StoredTensor> {
        self.tensors.get(end)
    }

    /// A part that must be there.
    pub(super) fn part(&self, end: &'static str) -> Result<&StoredTensor, ModelFormatError> {
        let missing = || PackedError::Missing {
            file: self.tensors.values().next().map(|tensor| tensor.file.clone()).unwrap_or_default(),
            tensor: self.full(end),
            beside: self.full(self.key),
            method: self.method,
        };
        Ok(self.tensors.get(end).ok_or_else(missing)?)
    }

    /// A part of one type.
    pub(super) fn typed(&self, end: &'static str, dtype: Dtype) -> Result<&StoredTensor, ModelFormatError> {
        let tensor = self.part(end)?;
        if tensor.dtype == dtype { Ok(tensor) } else { Err(self.data_type(end, tensor, &dtype.to_string())) }
    }

    fn data_type(&self, end: &str, tensor: &StoredTensor, expected: &str) -> ModelFormatError {
        ModelFormatError::DataType {
            file: tensor.file.clone(),
            tensor: self.full(end),
            found: tensor.dtype.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// Rows and columns of a matrix.
    pub(super) fn matrix(&self, end: &'static str, tensor: &StoredTensor) -> Result<(usize, usize), ModelFormatError> {
        match tensor.shape[..] {
            [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
            _ => Err(self.shape(end, tensor, "a matrix".to_owned())),
        }
    }

    /// The error for a shape.
    pub(super) fn shape(&self, end: &str, tensor: &StoredTensor, expected: String) -> ModelFormatError {
        let (file, found) = (tensor.file.clone(), tensor.shape.clone());
        PackedError::Shape { file, tensor: self.full(end), found, expected }.into()
    }

    /// Refuses another shape.
    pub(super) fn expect(&self, end: &'static str, shape: &[usize]) -> Result<(), ModelFormatError> {
        let tensor = self.part(end)?;
        if tensor.shape == shape { Ok(()) } else { Err(self.shape(end, tensor, format!("{shape:?}"))) }
    }

    /// Scales in floating point.
    pub(super) fn scales(&self, end: &'static str) -> Result<DenseTensor, ModelFormatError> {
        let tensor = self.part(end)?;
        let dtype = match tensor.dtype {
            Dtype::F32 => DenseType::F32,
            Dtype::F16 => DenseType::F16,
            Dtype::BF16 => DenseType::Bf16,
            _ => return Err(self.data_type(end, tensor, "F32, F16 or BF16")),
        };
        Ok(DenseTensor::stored(&self.full(end), tensor.shape.clone(), dtype, tensor.bytes.clone()))
    }

    /// The groups of columns by a list, which has `columns` entries below `count`.
    pub(super) fn listed(&self, end: &'static str, columns: usize, count: usize) -> Result<Vec<u32>, ModelFormatError> {
        let tensor = self.typed(end, Dtype::I32)?;
        self.expect(end, &[columns])?;
        let (words, _) = tensor.bytes.as_slice().as_chunks::<4>();
        let checked = words.iter().enumerate().map(|(index, word)| {
            let group = i32::from_le_bytes(*word);
            let in_range = u32::try_from(group).ok().filter(|&group| (group as usize) < count);
            in_range.ok_or_else(|| {
                let expected = format!("a group in [0, {count})");
                let (file, tensor) = (tensor.file.clone(), self.full(end));
                PackedError::Value { file, tensor, index, found: i64::from(group), expected }.into()
            })
        });
        checked.collect()
    }

    /// The size of `count` groups of `columns` columns: the first of the stated ones that gives as many, else an even
    /// division.
    pub(super) fn group_size(
        &self,
        end: &'static str,
        columns: usize,
        count: usize,
        stated: &[usize],
    ) -> Result<usize, ModelFormatError> {
        let fits = |size: &&usize| **size > 0 && columns.div_ceil(**size) == count;
        if let Some(size) = stated.iter().find(fits) {
            return Ok(*size);
        }
        match count > 0 && columns.is_multiple_of(count) && (stated.is_empty() || count == 1) {
            true => Ok(columns / count),
            false => {
                let sizes: Vec<String> = stated.iter().map(ToString::to_string).collect();
                let sizes = if sizes.is_empty() { "equal size".to_owned() } else { sizes.join(" or ") };
                let expected = format!("as many groups of {sizes} as {columns} columns have");
                Err(self.shape(end, self.part(end)?, expected))
            }
        }
    }
}

/// A list of groups as such, or as even groups where it is one of those.
pub(super) fn groups(list: Vec<u32>, size: usize) -> Groups {
    let even = list.iter().enumerate().all(|(column, &group)| column / size == group as usize);
    if even { Groups::Even(size) } else { Groups::Listed(Arc::from(list)) }
}
