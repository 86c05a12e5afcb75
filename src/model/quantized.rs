//! A quantized matrix in its plain form: one value per byte, unpadded, before any target's layout.
//! `w[o,i] = row_scale[o] · (multiplier[o, i/group] · values[o,i])`: the product of integers first, then one f32 multiply.
//! The bounds that [`QuantizedMatrix::validate`] checks are those that the kernels rely on.

use super::id::LinearId;
use super::matrix::{from_rows, row_major};
use super::scheme::{QuantScheme, SplitError};
use super::transform::{MaskError, NmPattern};
use ndarray::{Array2, Axis, s};
use slm_runtime::kernels::Width;
use slm_runtime::layout::MAX_MULTIPLIER;
use std::ops::Range;

/// Why a quantized matrix is refused, on reading or before writing.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum QuantizedError {
    /// A number outside the range of its scheme.
    #[error("{matrix}.{part}: element {index} is {found}, expected {expected}; quantize the model again")]
    Value {
        /// The matrix.
        matrix: LinearId,
        /// values, row_scale or multiplier.
        part: &'static str,
        /// Position in row-major order.
        index: usize,
        /// The number.
        found: f32,
        /// The range.
        expected: String,
    },
    /// The parts do not fit each other.
    #[error("{matrix}.{part}: {found} elements, expected {expected}; quantize the model again")]
    Length {
        /// The matrix.
        matrix: LinearId,
        /// values, row_scale or multiplier.
        part: &'static str,
        /// By rows, columns and scheme.
        expected: usize,
        /// Elements of the part.
        found: usize,
    },
    /// A row too long for 32-bit sums.
    #[error("{matrix}: {columns} columns, {scheme} allows at most {most}; keep this matrix in another scheme")]
    TooWide {
        /// The matrix.
        matrix: LinearId,
        /// Its scheme.
        scheme: QuantScheme,
        /// Its input dimension.
        columns: usize,
        /// The largest input dimension of the scheme.
        most: usize,
    },
    /// A split that cannot be.
    #[error("quantization_config.schemes: {0}")]
    Split(#[from] SplitError),
    /// The values do not have the zeros that are claimed.
    #[error("quantization_config.sparsity is not true: {0}; quantize the model again")]
    NotSparse(#[from] MaskError),
}

/// (rows, columns) integers with their scales.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Format.
    pub scheme: QuantScheme,
    /// (rows, columns): within the range of the row's scheme.
    pub values: Array2<i8>,
    /// (rows): f32, finite, not negative.
    pub row_scale: Vec<f32>,
    /// [`QuantScheme::multiplier_shape`]: (rows whose scheme has groups, ceil(columns / group)), in [-127, 127], never 0. The w8
    /// rows of a split, which come first, have none.
    pub multiplier: Array2<i8>,
    /// The pattern of the zeros among its values, where it is known: 2:4, the one pattern artifacts compress.
    pub sparsity: Option<NmPattern>,
    /// Bits of the inputs it is multiplied with on a device.
    pub activations: Width,
}

impl QuantizedMatrix {
    /// A matrix of values, scales and, row by row, multipliers; not known to be sparse, with 8-bit inputs.
    ///
    /// # Panics
    /// If there are not as many scales and multipliers as the scheme has for that many rows and columns.
    pub fn new(scheme: QuantScheme, values: Array2<i8>, row_scale: Vec<f32>, multiplier: Vec<i8>) -> Self {
        assert_eq!(row_scale.len(), values.nrows());
        let shape = scheme.multiplier_shape(values.dim());
        let multiplier = Array2::from_shape_vec(shape, multiplier).expect("as many multipliers as the scheme has");
        QuantizedMatrix { scheme, values, row_scale, multiplier, sparsity: None, activations: Width::Bits8 }
    }

    /// As [`QuantizedMatrix::new`], for parts that come from a file: their lengths and numbers are checked.
    ///
    /// # Errors
    /// [`QuantizedError`], naming the matrix.
    pub fn checked(
        id: LinearId,
        scheme: QuantScheme,
        (rows, columns): (usize, usize),
        values: Vec<i8>,
        row_scale: Vec<f32>,
        multiplier: Vec<i8>,
    ) -> Result<Self, QuantizedError> {
        check_shape(id, scheme, (rows, columns))?;
        let (multiplied, groups) = scheme.multiplier_shape((rows, columns));
        check_lengths(
            id,
            [
                ("values", rows * columns, values.len()),
                ("row_scale", rows, row_scale.len()),
                ("multiplier", multiplied * groups, multiplier.len()),
            ],
        )?;
        let matrix = QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier);
        matrix.validate(id)?;
        Ok(matrix)
    }

    /// Output dimension.
    pub fn rows(&self) -> usize {
        self.values.nrows()
    }

    /// Input dimension.
    pub fn columns(&self) -> usize {
        self.values.ncols()
    }

    /// Rows with multipliers: those after the w8 ones.
    pub fn multiplied_rows(&self) -> usize {
        self.scheme.multiplier_shape(self.values.dim()).0
    }

    /// Multipliers of a row that has them; 0 where none has.
    pub fn groups(&self) -> usize {
        self.scheme.multiplier_shape(self.values.dim()).1
    }

    /// The rows of `multiplier` that some rows have: empty for a range of w8 rows.
    fn multiplier_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let wide = self.scheme.wide_rows(self.rows());
        rows.start.saturating_sub(wide)..rows.end.saturating_sub(wide)
    }

    /// The multipliers of a row; none of a w8 row.
    pub fn multipliers(&self, row: usize) -> &[i8] {
        let Range { start, end } = self.multiplier_rows(&(row..row + 1));
        let groups = self.multiplier.ncols();
        &row_major(self.multiplier.view())[start * groups..end * groups]
    }

    /// The integer that multiplies the row scale at (row, column).
    pub fn integer(&self, row: usize, column: usize) -> i32 {
        let value = i32::from(self.values[[row, column]]);
        let multiplier = self.scheme.def().group.and_then(|group| self.multipliers(row).get(column / group));
        multiplier.map_or(value, |multiplier| value * i32::from(*multiplier))
    }

    /// f32 weights, (rows, columns): exactly those that the runtime's integers stand for.
    pub fn dequantize(&self) -> Array2<f32> {
        let mut out = Array2::zeros(self.values.dim());
        for (row, mut out) in out.outer_iter_mut().enumerate() {
            self.read_row(row, out.as_slice_mut().expect("rows are contiguous"));
        }
        out
    }

    /// One row of [`QuantizedMatrix::dequantize`], (columns); `inline(always)`, so that the caller's vectors are used.
    ///
    /// # Panics
    /// If `row` is out of range.
    #[inline(always)]
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let (scale, multipliers, columns) = (self.row_scale[row], self.multipliers(row), self.columns());
        let values = &row_major(self.values.view())[row * columns..][..columns];
        let group = self.scheme.def().group.filter(|_| !multipliers.is_empty());
        let Some(group) = group else {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value) * scale;
            }
            return;
        };
        for ((out, values), &multiplier) in out.chunks_mut(group).zip(values.chunks(group)).zip(multipliers) {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(i16::from(value) * i16::from(multiplier)) * scale;
            }
        }
    }

    /// Some of its rows, `scheme` being the one they have.
    pub fn part(&self, rows: Range<usize>, scheme: QuantScheme) -> QuantizedMatrix {
        let multipliers = self.multiplier.slice_axis(Axis(0), self.multiplier_rows(&rows).into());
        let values = self.values.slice(s![rows.clone(), ..]).to_owned();
        let part = QuantizedMatrix::new(scheme, values, self.row_scale[rows].to_vec(), row_major(multipliers).to_vec());
        QuantizedMatrix { sparsity: self.sparsity, activations: self.activations, ..part }
    }

    /// The matrices of experts after one another, whose columns stand side by side: (rows, experts · columns) becomes
    /// (experts · rows, columns). Groups of columns stay whole where the experts' widths are a multiple of them.
    pub fn stacked(&self, experts: usize) -> QuantizedMatrix {
        let stack = |of_all: &Array2<i8>| -> Vec<i8> {
            let columns = of_all.ncols() / experts;
            let of_expert = |expert: usize| of_all.slice(s![.., expert * columns..(expert + 1) * columns]);
            (0..experts).flat_map(|expert| of_expert(expert).iter().copied().collect::<Vec<i8>>()).collect()
        };
        let values = from_rows(stack(&self.values), self.columns() / experts);
        let scales = self.row_scale.repeat(experts);
        let stacked = QuantizedMatrix::new(self.scheme, values, scales, stack(&self.multiplier));
        QuantizedMatrix { sparsity: self.sparsity, activations: self.activations, ..stacked }
    }

    /// The matrix of parts that a function gives for rows and the scheme they share.
    pub fn of_parts(
        scheme: QuantScheme,
        (rows, columns): (usize, usize),
        mut part: impl FnMut(Range<usize>, QuantScheme) -> QuantizedMatrix,
    ) -> QuantizedMatrix {
        let mut values = Vec::with_capacity(rows * columns);
        let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
        let (mut sparsity, mut activations) = (None, Width::Bits8);
        for (rows, scheme) in scheme.parts(rows) {
            let part = part(rows, scheme);
            values.extend(part.values);
            row_scale.extend(part.row_scale);
            multiplier.extend(part.multiplier);
            (sparsity, activations) = (part.sparsity, part.activations);
        }
        let all = QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier);
        QuantizedMatrix { sparsity, activations, ..all }
    }

    /// Whether the numbers are those that the scheme allows.
    ///
    /// # Errors
    /// [`QuantizedError`] of the first that is not, naming the matrix.
    pub fn validate(&self, id: LinearId) -> Result<(), QuantizedError> {
        check_shape(id, self.scheme, self.values.dim())?;
        let (multiplied, groups) = self.scheme.multiplier_shape(self.values.dim());
        check_lengths(
            id,
            [
                ("row_scale", self.rows(), self.row_scale.len()),
                ("multiplier", multiplied * groups, self.multiplier.len()),
            ],
        )?;
        let wrong = |part, index, found, expected: String| {
            Err(QuantizedError::Value { matrix: id, part, index, found, expected })
        };
        for (rows, scheme) in self.scheme.parts(self.rows()) {
            let (low, high) = scheme.def().range;
            let first = rows.start * self.columns();
            let values = &row_major(self.values.view())[first..rows.end * self.columns()];
            if let Some(index) = values.iter().position(|value| !(low..=high).contains(value)) {
                let expected = format!("an integer in [{low}, {high}]");
                return wrong("values", first + index, f32::from(values[index]), expected);
            }
        }
        if let Some(index) = self.row_scale.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
            return wrong("row_scale", index, self.row_scale[index], "a finite number that is not negative".to_owned());
        }
        let multiplier = row_major(self.multiplier.view());
        if let Some(index) = multiplier.iter().position(|&value| value == 0 || value == i8::MIN) {
            let expected = format!("an integer in [-{MAX_MULTIPLIER}, {MAX_MULTIPLIER}] other than 0");
            return wrong("multiplier", index, f32::from(multiplier[index]), expected);
        }
        match self.sparsity {
            Some(pattern) => Ok(pattern.check(id, self.values.view())?),
            None => Ok(()),
        }
    }
}

/// Whether a matrix of (rows, columns) can be stored in a scheme.
///
/// # Errors
/// [`QuantizedError::Split`], [`QuantizedError::TooWide`].
pub fn check_shape(
    matrix: LinearId,
    scheme: QuantScheme,
    (rows, columns): (usize, usize),
) -> Result<(), QuantizedError> {
    scheme.check(matrix, rows)?;
    let most = scheme.max_columns();
    if columns > most { Err(QuantizedError::TooWide { matrix, scheme, columns, most }) } else { Ok(()) }
}

/// Whether parts have their lengths: (name, expected, found).
fn check_lengths<const N: usize>(
    matrix: LinearId,
    parts: [(&'static str, usize, usize); N],
) -> Result<(), QuantizedError> {
    match parts.into_iter().find(|(_, expected, found)| expected != found) {
        Some((part, expected, found)) => Err(QuantizedError::Length { matrix, part, expected, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Role;

    #[test]
    fn parts_of_a_file_must_have_the_lengths_of_their_scheme() {
        let id = LinearId::global(Role::TokenEmbedding);
        let checked = |values: usize, scales: usize, multipliers: usize| {
            let (scheme, shape) = (QuantScheme::Split { wide_rows: 64 }, (66, 40));
            let parts = (vec![1; values], vec![0.5; scales], vec![1; multipliers]);
            QuantizedMatrix::checked(id, scheme, shape, parts.0, parts.1, parts.2)
        };
        let matrix = checked(66 * 40, 66, 4).expect("its parts fit");
        assert_eq!((matrix.rows(), matrix.columns(), matrix.multiplier.dim()), (66, 40, (2, 2)));
        let found = |values, scales, multipliers| checked(values, scales, multipliers).unwrap_err().to_string();
        assert_eq!(
            found(66 * 40 - 1, 66, 4),
            "embed.token.values: 2639 elements, expected 2640; quantize the model again"
        );
        assert!(found(66 * 40, 65, 4).starts_with("embed.token.row_scale: 65 elements, expected 66"));
        assert!(found(66 * 40, 66, 132).starts_with("embed.token.multiplier: 132 elements, expected 4"));
    }
}
