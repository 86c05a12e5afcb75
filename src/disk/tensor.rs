//! A floating-point tensor, in memory or in a mapped file, in its stored data type, or in rows that are decoded when they
//! are asked for. Conversion to f32 reads the values for the first time and rejects NaN and infinities.

use super::convert::{self, AreFinite, Convert};
use super::dense_type::DenseType;
use super::shared_bytes::SharedBytes;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Values that one thread checks or converts at a time.
pub(super) const PIECE: usize = 1 << 16;

/// Why a tensor's values are rejected.
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
        /// The value found.
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

/// The place of the first value whose magnitude is `bound` or more, or that is NaN. Magnitudes are compared as integers,
/// which order as the numbers do, and in pieces, so that the comparison is one of vectors.
pub(crate) fn first_beyond(values: &[f32], bound: f32) -> Option<usize> {
    let magnitude = |value: &f32| value.to_bits() & 0x7fff_ffff;
    let bound = bound.to_bits();
    let pieces = values.par_chunks(PIECE).enumerate();
    let (piece, values) = pieces
        .find_first(|(_, values)| values.iter().fold(0, |largest, value| largest.max(magnitude(value))) >= bound)?;
    Some(piece * PIECE + values.iter().position(|value| magnitude(value) >= bound)?)
}

/// The rows of a matrix that is stored in another form than its values. They are decoded one by one, so that a matrix is
/// never in memory whole unless someone asks for that.
pub trait Rows: fmt::Debug + Send + Sync {
    /// One row in f32, (columns). Values that are not finite are given as they are.
    ///
    /// # Panics
    /// If `row` is out of range.
    fn read(&self, row: usize, out: &mut [f32]);

    /// The file that holds them.
    fn file(&self) -> Option<&Path>;
}

/// A dense tensor, row-major, little-endian.
#[derive(Clone, Debug)]
pub struct DenseTensor {
    shape: Vec<usize>,
    dtype: DenseType,
    values: Values,
    /// Its name in the file.
    stored_name: Option<String>,
}

/// The values of a tensor.
#[derive(Clone, Debug)]
enum Values {
    /// As they are.
    Bytes(SharedBytes),
    /// Rows of another form, from this one on.
    Rows(Arc<dyn Rows>, usize),
}

impl PartialEq for DenseTensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.dtype == other.dtype && self.bytes() == other.bytes()
    }
}

impl DenseTensor {
    /// From bytes whose number fits the shape; the caller (a validated header) has checked it.
    pub(crate) fn stored(name: &str, shape: Vec<usize>, dtype: DenseType, bytes: SharedBytes) -> Self {
        DenseTensor { shape, dtype, values: Values::Bytes(bytes), stored_name: Some(name.to_owned()) }
    }

    /// A matrix whose rows are decoded when they are asked for; `dtype` must hold every value exactly.
    pub(crate) fn in_rows(name: &str, shape: Vec<usize>, dtype: DenseType, rows: Arc<dyn Rows>) -> Self {
        DenseTensor { shape, dtype, values: Values::Rows(rows, 0), stored_name: Some(name.to_owned()) }
    }

    /// The same tensor under a name of its file.
    pub(crate) fn named(self, name: &str) -> Self {
        DenseTensor { stored_name: Some(name.to_owned()), ..self }
    }

    /// An f32 tensor in memory.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, TensorError> {
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(TensorError::Length { shape, expected, found: values.len() });
        }
        Ok(DenseTensor::owned(DenseType::F32, shape, DenseType::F32.encode(values)))
    }

    /// A tensor in memory, its values rounded to a format.
    #[cfg(test)]
    pub(crate) fn rounded(dtype: DenseType, shape: Vec<usize>, values: &[f32]) -> Self {
        DenseTensor::owned(dtype, shape, dtype.encode(values))
    }

    /// From bytes in memory whose number fits the shape.
    fn owned(dtype: DenseType, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        let values = Values::Bytes(SharedBytes::owned(bytes));
        DenseTensor { shape, dtype, values, stored_name: None }
    }

    /// Values of a row: of all dimensions but the first.
    fn columns(&self) -> usize {
        self.shape.get(1..).unwrap_or(&[]).iter().product()
    }

    /// This tensor with other values: same shape and name, and the same format if it represents every value exactly,
    /// else f32.
    pub fn replaced(&self, values: &[f32]) -> Result<Self, TensorError> {
        let (dtype, expected) = (self.dtype, self.shape.iter().product());
        if values.len() != expected {
            return Err(TensorError::Length { shape: self.shape.clone(), expected, found: values.len() });
        }
        let dtype = if values.iter().all(|&value| dtype.holds(value)) { dtype } else { DenseType::F32 };
        let replaced = DenseTensor::owned(dtype, self.shape.clone(), dtype.encode(values));
        Ok(DenseTensor { stored_name: self.stored_name.clone(), ..replaced })
    }

    /// This tensor times a factor, in f32 unless its own format holds every product exactly.
    ///
    /// # Errors
    /// [`TensorError::NotFinite`]
    pub fn scaled(&self, factor: f32) -> Result<Self, TensorError> {
        let mut values = self.to_f32("")?;
        values.iter_mut().for_each(|value| *value *= factor);
        self.replaced(&values)
    }

    /// The tensor that [`DenseTensor::scaled`] makes this one of, in f32: of each quotient and its two neighbours the one that
    /// gives the value again and has the fewest digits, so that what was scaled comes back; else the quotient.
    ///
    /// # Errors
    /// [`TensorError::NotFinite`]
    pub fn unscaled(&self, factor: f32) -> Result<Self, TensorError> {
        let mut values = self.to_f32("")?;
        for value in &mut values {
            let quotient = *value / factor;
            let near = [quotient, quotient.next_up(), quotient.next_down()];
            let exact = near.into_iter().filter(|near| near * factor == *value);
            *value = exact.max_by_key(|near| near.to_bits().trailing_zeros()).unwrap_or(quotient);
        }
        self.replaced(&values)
    }

    /// Its name in the file it was read from.
    pub fn stored_name(&self) -> Option<&str> {
        self.stored_name.as_deref()
    }

    /// A range of rows, not copied; `None` where it is out of range.
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        if rows.start > rows.end || rows.end > *self.shape.first()? {
            return None;
        }
        let row_bytes = self.dtype.bytes() * self.columns();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let values = match &self.values {
            Values::Bytes(bytes) => Values::Bytes(bytes.slice(rows.start * row_bytes..rows.end * row_bytes)),
            Values::Rows(of, first) => Values::Rows(Arc::clone(of), first + rows.start),
        };
        Some(DenseTensor { shape, values, ..self.clone() })
    }

    /// The same values in another shape; `None` where that has another number of them.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        if shape.iter().product::<usize>() != self.shape.iter().product::<usize>() {
            return None;
        }
        let values = match &self.values {
            Values::Bytes(bytes) => Values::Bytes(bytes.clone()),
            Values::Rows(..) => Values::Bytes(SharedBytes::owned(self.bytes().into_owned())),
        };
        Some(DenseTensor { shape, values, ..self.clone() })
    }

    /// Rows by their numbers, one after the other, a copy; `None` where one is out of range.
    pub fn gathered(&self, rows: &[u32]) -> Option<Self> {
        let count = *self.shape.first()?;
        if rows.iter().any(|&row| row as usize >= count) {
            return None;
        }
        let (width, values) = (self.dtype.bytes() * self.columns(), self.bytes());
        let gathered = rows.iter().flat_map(|&row| &values[row as usize * width..][..width]).copied().collect();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let gathered = DenseTensor::owned(self.dtype, shape, gathered);
        Some(DenseTensor { stored_name: self.stored_name.clone(), ..gathered })
    }

    /// The transpose of a matrix, a copy; `None` for other shapes.
    pub fn transposed(&self) -> Option<Self> {
        self.transposed_columns(0..*self.shape.get(1)?)
    }

    /// A range of columns of a matrix as rows, a copy; `None` for other shapes and where the range is out of bounds.
    pub fn transposed_columns(&self, columns: Range<usize>) -> Option<Self> {
        let &[outer, inner] = self.shape.as_slice() else { return None };
        if columns.start > columns.end || columns.end > inner {
            return None;
        }
        let (width, values) = (self.dtype.bytes(), self.bytes());
        let shape = vec![columns.len(), outer];
        let mut transposed = Vec::with_capacity(columns.len() * outer * width);
        for column in columns {
            for row in 0..outer {
                transposed.extend_from_slice(&values[(row * inner + column) * width..][..width]);
            }
        }
        let transposed = DenseTensor::owned(self.dtype, shape, transposed);
        Some(DenseTensor { stored_name: self.stored_name.clone(), ..transposed })
    }

    /// Concatenates named tensors of equal row shape along the rows: in their data type, or in f32 where the types
    /// differ. A single tensor is returned unchanged.
    pub fn joined<'t>(parts: impl Iterator<Item = (String, &'t DenseTensor)>) -> Result<Self, TensorError> {
        let parts: Vec<(String, &DenseTensor)> = parts.collect();
        if let [(_, tensor)] = parts[..] {
            return Ok(tensor.clone());
        }
        let same = parts.windows(2).all(|pair| pair[0].1.dtype == pair[1].1.dtype);
        let dtype = parts.first().filter(|_| same).map_or(DenseType::F32, |(_, tensor)| tensor.dtype);
        let (mut shape, mut bytes) = (Vec::new(), Vec::new());
        for (name, tensor) in &parts {
            match shape.first_mut() {
                Some(rows) => *rows += tensor.shape.first().copied().unwrap_or(0),
                None => shape.clone_from(&tensor.shape),
            }
            if same {
                bytes.extend_from_slice(&tensor.bytes())
            } else {
                bytes.extend(dtype.encode(&tensor.to_f32(name)?))
            }
        }
        let (expected, found) = (shape.iter().product(), bytes.len() / dtype.bytes());
        if expected != found {
            return Err(TensorError::Length { shape, expected, found });
        }
        Ok(DenseTensor::owned(dtype, shape, bytes))
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Format of the values.
    pub fn dtype(&self) -> DenseType {
        self.dtype
    }

    /// The values in its data type, one after the other: as stored, or made for this caller alone.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Bytes(bytes) => bytes.read(),
            Values::Rows(..) => Cow::Owned(self.dtype.encode(&self.decoded())),
        }
    }

    /// Whether its values are there as they are, and not made when they are asked for.
    pub fn is_stored(&self) -> bool {
        matches!(&self.values, Values::Bytes(bytes) if !bytes.is_deferred())
    }

    /// Its rows in f32, without any check.
    fn decoded(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        let columns = self.columns().max(1);
        values.par_chunks_mut(columns).enumerate().for_each(|(row, out)| self.read_row(row, out));
        values
    }

    /// The file that holds it.
    fn file(&self) -> Option<PathBuf> {
        match &self.values {
            Values::Bytes(bytes) => bytes.file(),
            Values::Rows(rows, _) => rows.file().map(Path::to_owned),
        }
    }

    /// The values in f32, exactly. Errors call a tensor that was not read from a file `name`.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, TensorError> {
        if let Values::Rows(..) = self.values {
            let values = self.decoded();
            return match first_beyond(&values, f32::INFINITY) {
                None => Ok(values),
                Some(index) => Err(self.not_finite(name, index, values[index])),
            };
        }
        let bytes = self.bytes();
        self.check_bytes(&bytes, name)?;
        let mut values = vec![0.0; self.shape.iter().product()];
        let (dtype, stored) = (self.dtype, bytes.par_chunks(PIECE * self.dtype.bytes()));
        values.par_chunks_mut(PIECE).zip(stored).for_each(|(out, bytes)| {
            pulp::Arch::new().dispatch(Convert { dtype, bytes, out });
        });
        Ok(values)
    }

    /// Rejects NaN and infinities without converting. `name` is as for [`DenseTensor::to_f32`].
    pub fn check_finite(&self, name: &str) -> Result<(), TensorError> {
        if let Values::Rows(..) = self.values {
            return self.check_rows(name);
        }
        self.check_bytes(&self.bytes(), name)
    }

    /// [`DenseTensor::check_finite`] of bytes.
    fn check_bytes(&self, bytes: &[u8], name: &str) -> Result<(), TensorError> {
        let (dtype, size) = (self.dtype, self.dtype.bytes());
        let pieces = bytes.par_chunks(PIECE * size).enumerate();
        let damaged = |(_, bytes): &(usize, &[u8])| !pulp::Arch::new().dispatch(AreFinite { dtype, bytes });
        let Some((piece, bytes)) = pieces.find_first(damaged) else { return Ok(()) };
        let value = |bytes: &[u8]| match (dtype, bytes) {
            (DenseType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (DenseType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (DenseType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            _ => 0.0,
        };
        match bytes.chunks(size).map(value).enumerate().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((index, value)) => Err(self.not_finite(name, piece * PIECE + index, value)),
        }
    }

    /// [`DenseTensor::check_finite`] of decoded rows.
    fn check_rows(&self, name: &str) -> Result<(), TensorError> {
        let columns = self.columns();
        let rows = (0..self.shape.first().copied().unwrap_or(0)).into_par_iter();
        let damaged = rows.map_init(
            || vec![0.0; columns],
            |out, row| {
                self.read_row(row, out);
                let column = out.iter().position(|value| !value.is_finite())?;
                Some((row * columns + column, out[column]))
            },
        );
        match damaged.find_first(Option::is_some).flatten() {
            None => Ok(()),
            Some((index, value)) => Err(self.not_finite(name, index, value)),
        }
    }

    fn not_finite(&self, name: &str, index: usize, value: f32) -> TensorError {
        let tensor = self.stored_name.as_deref().unwrap_or(name).to_owned();
        TensorError::NotFinite { file: self.file(), tensor, index, value }
    }

    /// One row in f32: as many values as `out` holds. Does not check that values are finite; `inline(always)`, so that
    /// the loop is compiled for the caller's instruction set.
    ///
    /// # Panics
    /// If `row` is out of range.
    #[inline(always)]
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        match &self.values {
            Values::Bytes(bytes) => {
                let length = out.len() * self.dtype.bytes();
                convert::to_f32(self.dtype, &bytes.as_slice()[row * length..][..length], out);
            }
            Values::Rows(rows, first) => rows.read(first + row, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_beyond_a_bound_is_found_in_any_piece() {
        let mut values = vec![-1.5f32; 3 * PIECE + 7];
        assert_eq!((first_beyond(&values, 2.0), first_beyond(&values, 1.5)), (None, Some(0)));
        for value in [f32::NAN, f32::NEG_INFINITY, -3.0, 2.0] {
            for place in [3 * PIECE + 6, 2 * PIECE, PIECE - 1, 0] {
                values[place] = value;
                assert_eq!(first_beyond(&values, 2.0), Some(place), "{value}");
            }
            values.fill(-1.5);
        }
    }

    #[test]
    fn rows_are_cut_and_columns_are_transposed() {
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        let matrix = DenseTensor::from_f32(vec![3, 4], &values).unwrap();
        let shown = |part: Option<DenseTensor>| part.map(|part| (part.shape().to_vec(), part.to_f32("m").unwrap()));
        assert_eq!(shown(matrix.rows(1..3)), Some((vec![2, 4], values[4..].to_vec())));
        let columns = shown(matrix.transposed_columns(1..3));
        assert_eq!(columns, Some((vec![2, 3], vec![1.0, 5.0, 9.0, 2.0, 6.0, 10.0])));
        assert_eq!((matrix.rows(2..4), matrix.transposed_columns(3..5)), (None, None));
        assert_eq!(matrix.transposed().unwrap().transposed(), Some(matrix.clone()));
        assert_eq!(shown(matrix.gathered(&[2, 0])), Some((vec![2, 4], [&values[8..], &values[..4]].concat())));
        assert_eq!(matrix.gathered(&[3]), None);
        let vector = DenseTensor::from_f32(vec![12], &values).unwrap();
        assert_eq!(vector.rows(10..12).unwrap().to_f32("v").unwrap(), [10.0, 11.0]);
        assert_eq!((vector.transposed(), vector.rows(0..13)), (None, None));
    }

    #[test]
    fn joining_undoes_cutting_and_mixed_types_become_f32() {
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        let matrix = DenseTensor::from_f32(vec![3, 4], &values).unwrap();
        let named = |parts: &[DenseTensor]| DenseTensor::joined(parts.iter().map(|part| ("part".to_owned(), part)));
        let parts = [matrix.rows(0..1).unwrap(), matrix.rows(1..3).unwrap()];
        assert_eq!(named(&parts).unwrap(), matrix);
        let half = DenseType::F16.encode(&values[..4]);
        let half = SharedBytes::owned(half);
        let half = DenseTensor::stored("half", vec![1, 4], DenseType::F16, half);
        assert_eq!(named(&[half, parts[1].clone()]).unwrap(), matrix);
        let other = DenseTensor::from_f32(vec![1, 3], &[0.0; 3]).unwrap();
        assert!(matches!(named(&[parts[0].clone(), other]), Err(TensorError::Length { expected: 8, found: 7, .. })));
    }
}
