//! Integers of a matrix as a source stores them, for `quantize --method keep`: a source that has any hands them over with
//! the scales of their groups, and rounding begins where the other tool ended.

use ndarray::Array2;

/// A matrix on a symmetric grid: `w[o, i] = scales[o, i / group] · values[o, i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedIntegers {
    /// (rows, columns)
    pub values: Array2<i8>,
    /// (rows, ceil(columns / group))
    pub scales: Array2<f32>,
    /// Columns that share a scale.
    pub group: usize,
}
