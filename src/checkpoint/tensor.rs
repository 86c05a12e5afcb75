//! One floating-point tensor, in memory or in a mapped file, in the data type it was stored in. Conversion to f32 is
//! where values are read for the first time, and where NaN and infinities are refused.

use super::mmap::MappedFile;
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a tensor's values are refused.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// NaN or an infinity.
    #[error(
        "{}tensor `{tensor}`: element {index} is {value}, expected a finite number; the checkpoint is damaged or its training diverged",
        origin(file)
    )]
    NotFinite {
        /// File it was read from, if any.
        file: Option<PathBuf>,
        /// The tensor.
        tensor: String,
        /// Position in row-major order.
        index: usize,
        /// What stands there.
        value: f32,
    },
    /// The number of values does not match the shape.
    #[error("tensor of shape {shape:?} got {found} values, expected {expected}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Values it needs.
        expected: usize,
        /// Values given.
        found: usize,
    },
}

fn origin(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()))
}

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

/// Bytes that several tensors or models may share; cloning copies nothing.
#[derive(Clone)]
pub struct SharedBytes(Storage);

#[derive(Clone)]
enum Storage {
    Mapped(Arc<MappedFile>, Range<usize>),
    Owned(Arc<[u8]>),
}

impl SharedBytes {
    /// A range of a mapped file; `None` where it does not lie in the file.
    pub fn mapped(file: &Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(SharedBytes(Storage::Mapped(Arc::clone(file), range)))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Storage::Mapped(file, range) => &file.bytes()[range.clone()],
            Storage::Owned(bytes) => bytes,
        }
    }

    /// A part of them, which must lie inside: shared where they are mapped, else copied.
    fn slice(&self, range: Range<usize>) -> Self {
        SharedBytes(match &self.0 {
            Storage::Mapped(file, whole) => {
                Storage::Mapped(Arc::clone(file), whole.start + range.start..whole.start + range.end)
            }
            Storage::Owned(bytes) => Storage::Owned(bytes[range].into()),
        })
    }

    fn file(&self) -> Option<PathBuf> {
        match &self.0 {
            Storage::Mapped(file, _) => Some(file.path().to_owned()),
            Storage::Owned(_) => None,
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_slice().len())
    }
}

/// A dense tensor, row-major, little-endian.
#[derive(Clone, Debug)]
pub struct DenseTensor {
    shape: Vec<usize>,
    dtype: DenseType,
    bytes: SharedBytes,
    /// What its file calls it.
    stored_name: Option<String>,
}

impl PartialEq for DenseTensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.dtype == other.dtype && self.bytes() == other.bytes()
    }
}

impl DenseTensor {
    /// From bytes whose number fits the shape; the caller (a validated header) has checked it.
    pub(super) fn stored(name: &str, shape: Vec<usize>, dtype: DenseType, bytes: SharedBytes) -> Self {
        DenseTensor { shape, dtype, bytes, stored_name: Some(name.to_owned()) }
    }

    /// An f32 tensor in memory.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, TensorError> {
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(TensorError::Length { shape, expected, found: values.len() });
        }
        let bytes: Arc<[u8]> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(DenseTensor { shape, dtype: DenseType::F32, bytes: SharedBytes(Storage::Owned(bytes)), stored_name: None })
    }

    /// Some rows of a matrix or vector, or with `turned` some columns of a matrix as rows. Rows stay where the tensor is;
    /// turned ones are copied. `None` where there are no such rows.
    pub fn rows(&self, rows: Range<usize>, turned: bool) -> Option<Self> {
        let width = self.dtype.bytes();
        let row_bytes = width * self.shape.get(1..)?.iter().product::<usize>();
        let (shape, bytes) = if turned {
            let &[outer, inner] = self.shape.as_slice() else { return None };
            if rows.start > rows.end || rows.end > inner {
                return None;
            }
            let values = self.bytes();
            let mut turned = Vec::with_capacity(rows.len() * outer * width);
            for column in rows.clone() {
                for row in 0..outer {
                    turned.extend_from_slice(&values[(row * inner + column) * width..][..width]);
                }
            }
            (vec![rows.len(), outer], SharedBytes(Storage::Owned(turned.into())))
        } else {
            if rows.start > rows.end || rows.end > *self.shape.first()? {
                return None;
            }
            let mut shape = self.shape.clone();
            shape[0] = rows.len();
            (shape, self.bytes.slice(rows.start * row_bytes..rows.end * row_bytes))
        };
        Some(DenseTensor { shape, bytes, ..self.clone() })
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Format of the values.
    pub fn dtype(&self) -> DenseType {
        self.dtype
    }

    /// The values as stored.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The values in f32, which loses nothing. `name` is what an error calls a tensor
    /// that was not read from a file.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, TensorError> {
        let bytes = self.bytes();
        let values: Vec<f32> = match self.dtype {
            DenseType::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            DenseType::F16 => bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            DenseType::Bf16 => bytes.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(TensorError::NotFinite {
                file: self.bytes.file(),
                tensor: self.stored_name.as_deref().unwrap_or(name).to_owned(),
                index,
                value: values[index],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_columns_turned_into_rows() {
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        let matrix = DenseTensor::from_f32(vec![3, 4], &values).unwrap();
        let cut =
            |rows, turned| matrix.rows(rows, turned).map(|part| (part.shape().to_vec(), part.to_f32("m").unwrap()));
        assert_eq!(cut(1..3, false), Some((vec![2, 4], values[4..].to_vec())));
        assert_eq!(cut(1..3, true), Some((vec![2, 3], vec![1.0, 5.0, 9.0, 2.0, 6.0, 10.0])));
        assert_eq!((cut(2..4, false), cut(3..5, true)), (None, None));
        let vector = DenseTensor::from_f32(vec![12], &values).unwrap();
        assert_eq!(vector.rows(10..12, false).unwrap().to_f32("v").unwrap(), [10.0, 11.0]);
        assert_eq!(vector.rows(0..1, true), None);
        assert_eq!(vector.rows(0..13, false), None);
    }
}
