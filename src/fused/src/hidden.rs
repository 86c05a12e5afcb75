//! The distance of hidden states from a teacher's, over the tokens that are there, the student's projected where the widths
//! differ:
//!
//! ```text
//! d = h · P − h_t        loss = f · Σ d²        dh = 2 f · d · Pᵀ        dP += 2 f · hᵀ · d
//! f = factor / Σ h_t², or factor / number of elements
//! ```

use crate::node::{Value, record, slice, tensor};
use crate::weights::Weight;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{dot, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use std::sync::Arc;

/// Rows of one task.
const BLOCK: usize = 64;

/// The teacher's states, and how to compare with them.
pub struct Comparison {
    /// (…, its width)
    pub teacher: FlexTensor,
    /// (student width, teacher width)
    pub projection: Option<Weight>,
    /// Tokens that are there; all of them where absent.
    pub rows: Option<Arc<Vec<usize>>>,
    /// Per element and not by the teacher's norm.
    pub raw: bool,
    /// Factor on the loss.
    pub factor: f64,
}

/// Σ a² over rows, block after block.
fn squares(values: &[f32], width: usize) -> f64 {
    let row = |row: &[f32]| {
        f64::from(vectorised(
            #[inline(always)]
            || dot(row, row),
        ))
    };
    let block = |values: &[f32]| values.chunks_exact(width).map(row).sum::<f64>();
    let blocks: Vec<f64> = values.par_chunks(BLOCK * width).map(block).collect();
    blocks.iter().sum()
}

fn chosen(values: &[f32], width: usize, rows: Option<&[usize]>) -> Vec<f32> {
    match rows {
        Some(rows) => rows.iter().flat_map(|&row| values[row * width..][..width].iter().copied()).collect(),
        None => values.to_vec(),
    }
}

/// The loss times its factor, of one element, and the loss.
pub fn distance(states: &Value, comparison: Comparison) -> (Value, f64) {
    let width = states.width();
    let own = states.tensor();
    let other_width = comparison.teacher.layout().shape().to_vec().last().copied().unwrap_or(1);
    let rows = comparison.rows.clone();
    let teacher = chosen(slice(&comparison.teacher), other_width, rows.as_ref().map(|rows| rows.as_slice()));
    let mut difference = chosen(slice(&own), width, rows.as_ref().map(|rows| rows.as_slice()));
    if let Some(projection) = &comparison.projection {
        let mut projected = vec![0.0; teacher.len()];
        let output = Output::over(&mut projected, other_width);
        let by = Right::Rows(Matrix::new(projection.values(), other_width));
        multiply(output, Left::Rows(Matrix::new(&difference, width)), by);
        difference = projected;
    }
    difference.iter_mut().zip(&teacher).for_each(|(own, other)| *own -= other);
    let norm = if comparison.raw { teacher.len() as f64 } else { squares(&teacher, other_width) };
    let loss = squares(&difference, other_width) / norm;
    let factor = comparison.factor;
    let dims = own.layout().shape().to_vec();
    let value = record([states], tensor(vec![(factor * loss) as f32], &[1]), move |_, [_]| {
        let slope = (2.0 * factor / norm) as f32;
        difference.iter_mut().for_each(|value| *value *= slope);
        let gradient = match &comparison.projection {
            None => difference,
            Some(projection) => {
                let states = chosen(slice(&own), width, rows.as_ref().map(|rows| rows.as_slice()));
                projection.add_gradient(|sum, add| {
                    let output = Output { add, ..Output::over(sum, other_width) };
                    let by = Right::Rows(Matrix::new(&difference, other_width));
                    multiply(output, Left::Columns(Matrix::new(&states, width)), by);
                });
                let mut gradient = vec![0.0; states.len()];
                let by = Right::Columns(Matrix::new(projection.values(), other_width));
                let left = Left::Rows(Matrix::new(&difference, other_width));
                multiply(Output::over(&mut gradient, width), left, by);
                gradient
            }
        };
        let gradient = match &rows {
            None => gradient,
            Some(rows) => {
                let mut all = vec![0.0; slice(&own).len()];
                for (values, &row) in gradient.chunks_exact(width).zip(rows.iter()) {
                    all[row * width..][..width].copy_from_slice(values);
                }
                all
            }
        };
        [Some(tensor(gradient, &dims))]
    });
    (value, loss)
}
