//! The distance of hidden states from a teacher's, over the tokens that are there, the student's projected where the widths
//! differ:
//!
//! ```text
//! g = h · P
//! relative   Σ (g − h_t)² / Σ h_t²                 dg = 2 (g − h_t) / Σ h_t²
//! raw        Σ (g − h_t)² / number of elements     dg = 2 (g − h_t) / number of elements
//! cosine     mean over tokens of 1 − cos(g, h_t)   dg = (cos · g / |g| − h_t / |h_t|) / (|g| · tokens)
//! dh = dg · Pᵀ        dP += hᵀ · dg
//! ```

use crate::node::{Value, record, slice, tensor};
use crate::weights::Weight;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{dot, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::{give, take};
use std::sync::Arc;

/// Rows of one task.
const BLOCK: usize = 64;

/// What is measured between two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Squared difference by the teacher's squared norm.
    Relative,
    /// Squared difference by element.
    Raw,
    /// One minus the cosine.
    Cosine,
}

/// The teacher's states, and how to compare with them.
pub struct Comparison {
    /// (…, its width)
    pub teacher: FlexTensor,
    /// (student width, teacher width)
    pub projection: Option<Weight>,
    /// Tokens that are there; all of them where absent.
    pub rows: Option<Arc<Vec<usize>>>,
    /// What is measured.
    pub form: Form,
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
    let mut out = take(rows.map_or(values.len(), |rows| rows.len() * width));
    match rows {
        Some(rows) => {
            let into = out.chunks_exact_mut(width).zip(rows);
            into.for_each(|(out, &row)| out.copy_from_slice(&values[row * width..][..width]));
        }
        None => out.copy_from_slice(values),
    }
    out
}

/// States to slopes of the mean over rows of 1 − cos, which is returned. A row without length has no slope, and its cosine is 0.
fn turn_from(states: &mut [f32], teacher: &[f32], width: usize) -> f64 {
    let rows = (states.len() / width.max(1)).max(1) as f64;
    let row = |(own, other): (&mut [f32], &[f32])| {
        vectorised(
            #[inline(always)]
            || {
                let product = f64::from(dot(own, other));
                let squares = [f64::from(dot(own, own)), f64::from(dot(other, other))];
                let lengths = squares.map(f64::sqrt);
                if lengths.contains(&0.0) {
                    own.fill(0.0);
                    return 1.0;
                }
                let cosine = product / (lengths[0] * lengths[1]);
                let along = (cosine / (squares[0] * rows)) as f32;
                let away = (1.0 / (lengths[0] * lengths[1] * rows)) as f32;
                own.iter_mut().zip(other).for_each(|(own, other)| *own = own.mul_add(along, -away * other));
                1.0 - cosine
            },
        )
    };
    let block = |(own, other): (&mut [f32], &[f32])| -> f64 {
        own.chunks_exact_mut(width).zip(other.chunks_exact(width)).map(row).sum()
    };
    let size = BLOCK * width;
    let blocks: Vec<f64> = states.par_chunks_mut(size).zip(teacher.par_chunks(size)).map(block).collect();
    blocks.iter().sum::<f64>() / rows
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
        let mut projected = take(teacher.len());
        let output = Output::over(&mut projected, other_width);
        let by = Right::Rows(Matrix::new(projection.values(), other_width));
        multiply(output, Left::Rows(Matrix::new(&difference, width)), by);
        give(std::mem::replace(&mut difference, projected));
    }
    let factor = comparison.factor;
    let (loss, slope) = match comparison.form {
        Form::Cosine => (turn_from(&mut difference, &teacher, other_width), factor),
        form => {
            difference.iter_mut().zip(&teacher).for_each(|(own, other)| *own -= other);
            let norm = if form == Form::Raw { teacher.len() as f64 } else { squares(&teacher, other_width) };
            (squares(&difference, other_width) / norm, 2.0 * factor / norm)
        }
    };
    give(teacher);
    let dims = own.layout().shape().to_vec();
    let value = record([states], tensor(vec![(factor * loss) as f32], &[1]), move |_, [_]| {
        let slope = slope as f32;
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
                let mut gradient = take(states.len());
                let by = Right::Columns(Matrix::new(projection.values(), other_width));
                let left = Left::Rows(Matrix::new(&difference, other_width));
                multiply(Output::over(&mut gradient, width), left, by);
                give(states);
                give(difference);
                gradient
            }
        };
        let gradient = match &rows {
            None => gradient,
            Some(rows) => {
                let mut all = take(slice(&own).len());
                all.fill(0.0);
                for (values, &row) in gradient.chunks_exact(width).zip(rows.iter()) {
                    all[row * width..][..width].copy_from_slice(values);
                }
                give(gradient);
                all
            }
        };
        [Some(tensor(gradient, &dims))]
    });
    (value, loss)
}
