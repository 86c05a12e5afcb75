//! Matrices in memory: `ndarray`'s types, row-major throughout, and the ways between them and plain values. Loops over
//! single values take slices; everything else keeps the shape.

use ndarray::{Array2, ArrayView2, Axis};

/// The values, row by row.
///
/// # Panics
/// If the matrix is transposed or has gaps: every matrix of this crate is row-major.
pub fn row_major<T>(matrix: ArrayView2<'_, T>) -> &[T] {
    matrix.to_slice().expect("matrices are row-major")
}

/// The same, to be changed.
///
/// # Panics
/// As [`row_major`].
pub fn row_major_mut<T>(matrix: &mut Array2<T>) -> &mut [T] {
    matrix.as_slice_mut().expect("matrices are row-major")
}

/// Values as rows of `columns`.
///
/// # Panics
/// If they are not a whole number of rows.
pub fn from_rows<T>(values: Vec<T>, columns: usize) -> Array2<T> {
    let rows = values.len() / columns.max(1);
    Array2::from_shape_vec((rows, columns), values).expect("the values are whole rows")
}

/// A view of values as rows of `columns`.
///
/// # Panics
/// As [`from_rows`].
pub fn view_rows<T>(values: &[T], columns: usize) -> ArrayView2<'_, T> {
    let rows = values.len() / columns.max(1);
    ArrayView2::from_shape((rows, columns), values).expect("the values are whole rows")
}

/// The values, row by row, without a copy.
///
/// # Panics
/// As [`row_major`].
pub fn into_values<T>(matrix: Array2<T>) -> Vec<T> {
    assert!(matrix.is_standard_layout(), "matrices are row-major");
    matrix.into_raw_vec_and_offset().0
}

/// Blocks of up to `rows` consecutive rows, in order.
pub fn blocks<T>(matrix: ArrayView2<'_, T>, rows: usize) -> Vec<ArrayView2<'_, T>> {
    let mut blocks = Vec::with_capacity(matrix.nrows().div_ceil(rows));
    let mut rest = matrix;
    while rest.nrows() > 0 {
        let (block, after) = rest.split_at(Axis(0), rows.min(rest.nrows()));
        blocks.push(block);
        rest = after;
    }
    blocks
}
