//! The directions of the teacher's residual stream that a student keeps: all, some channels, or the first principal
//! directions. With B (hidden, kept) orthonormal, a state x becomes Bᵀ x, a matrix that reads it W B, one that writes it Bᵀ W,
//! a table E B.
//!
//! A norm without mean does not see a rotation once its gain is moved into the matrices after it, so that principal
//! directions are for models whose norms are RMS and stand before what they feed.

use super::ShrinkError;
use super::select::largest;
use crate::model::matrix::{from_rows, row_major, row_major_mut};
use crate::model::spec::{ModelSpec, Norm, NormKind, NormPlacement};
use ndarray::Array2;
use slm_numerics::eigen::Eigen;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// The kept directions.
#[derive(Clone, Debug, PartialEq)]
pub enum Basis {
    /// All, as they are.
    Whole,
    /// Channels, ascending.
    Channels(Vec<usize>),
    /// Orthonormal columns, (hidden, kept).
    Directions(Array2<f32>),
}

/// How the hidden width is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HiddenMethod {
    /// Keep the channels of the largest norm outputs
    Channels,
    /// Rotate to principal directions first, and keep the first
    Pca,
}

/// Whether the residual stream of a model can be rotated.
pub fn can_rotate(spec: &ModelSpec) -> bool {
    let rms = |norm: &Norm| norm.kind == NormKind::Rms;
    let pre = spec.layers.iter().all(|layer| layer.norm_placement == NormPlacement::Pre && rms(&layer.norm));
    pre && spec.embedding_norm.is_none() && spec.final_norm.as_ref().is_some_and(rms)
}

impl Basis {
    /// The channels of the largest importance.
    pub fn channels(importance: &[f64], kept: usize) -> Self {
        if kept == importance.len() { Basis::Whole } else { Basis::Channels(largest(importance, kept)) }
    }

    /// The principal directions of a second moment, (hidden, hidden).
    ///
    /// # Errors
    /// [`ShrinkError::NoDirections`].
    pub fn principal(moment: &Array2<f64>, kept: usize) -> Result<Self, ShrinkError> {
        let hidden = moment.ncols();
        if kept == hidden {
            return Ok(Basis::Whole);
        }
        let found = Eigen::new(row_major(moment.view()), hidden).ok_or(ShrinkError::NoDirections)?;
        let columns = |row: usize, column: usize| found.vectors[column * hidden + row] as f32;
        Ok(Basis::Directions(Array2::from_shape_fn((hidden, kept), |(row, column)| columns(row, column))))
    }

    /// Whether nothing is cut.
    pub fn is_whole(&self) -> bool {
        matches!(self, Basis::Whole)
    }

    /// Rows of states or of a reading matrix, (rows, hidden), to (rows, kept): X B.
    pub fn columns(&self, matrix: Array2<f32>) -> Array2<f32> {
        match self {
            Basis::Whole => matrix,
            Basis::Channels(kept) => pick_columns(&matrix, kept),
            Basis::Directions(directions) => {
                let mut out = Array2::zeros((matrix.nrows(), directions.ncols()));
                product(&mut out, &matrix, directions);
                out
            }
        }
    }

    /// A writing matrix, (hidden, columns), to (kept, columns): Bᵀ W.
    pub fn rows(&self, matrix: Array2<f32>) -> Array2<f32> {
        match self {
            Basis::Whole => matrix,
            Basis::Channels(kept) => pick_rows(&matrix, kept),
            Basis::Directions(directions) => {
                let (kept, columns) = (directions.ncols(), matrix.ncols());
                let mut out = Array2::zeros((kept, columns));
                let left = Left::Columns(Matrix::new(row_major(directions.view()), kept));
                let right = Right::Rows(Matrix::new(row_major(matrix.view()), columns));
                multiply(Output::over(row_major_mut(&mut out), columns), left, right);
                out
            }
        }
    }

    /// A vector over hidden channels.
    pub fn vector(&self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Basis::Whole => values,
            Basis::Channels(kept) => kept.iter().map(|&channel| values[channel]).collect(),
            Basis::Directions(_) => {
                let columns = values.len();
                row_major(self.columns(from_rows(values, columns)).view()).to_vec()
            }
        }
    }
}

/// Some rows of a matrix.
pub(super) fn pick_rows(matrix: &Array2<f32>, rows: &[usize]) -> Array2<f32> {
    Array2::from_shape_fn((rows.len(), matrix.ncols()), |(row, column)| matrix[[rows[row], column]])
}

/// Some columns of a matrix.
pub(super) fn pick_columns(matrix: &Array2<f32>, columns: &[usize]) -> Array2<f32> {
    Array2::from_shape_fn((matrix.nrows(), columns.len()), |(row, column)| matrix[[row, columns[column]]])
}

fn product(out: &mut Array2<f32>, left: &Array2<f32>, right: &Array2<f32>) {
    let (inner, columns) = (left.ncols(), right.ncols());
    let left = Left::Rows(Matrix::new(row_major(left.view()), inner));
    let right = Right::Rows(Matrix::new(row_major(right.view()), columns));
    multiply(Output::over(row_major_mut(out), columns), left, right);
}
