//! Rows of the token table, scaled, with the rows of positions and of token types:
//!
//! ```text
//! y(t) = scale · E(id(t)) + types(type(t)) + positions(start + t mod length)
//! ```
//!
//! and rows chosen from a value, or their means. A row's gradients are added in the order of the tokens.

use crate::node::{Value, record, recycle, slice, tensor};
use crate::weights::Weight;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::scratch::take;
use std::sync::Arc;

/// Tables and tokens.
pub struct Embedding {
    /// (vocabulary, width)
    pub table: Weight,
    /// Factor on its rows.
    pub scale: f32,
    /// (types, width)
    pub types: Option<Weight>,
    /// The type of every token; `None` where all are of the first.
    pub type_of: Option<Vec<u32>>,
    /// (positions, width)
    pub positions: Option<Weight>,
    /// Rows of the table.
    pub tokens: Vec<u32>,
    /// \[sequences, length, width\]
    pub dims: [usize; 3],
    /// Position of the first token of each sequence.
    pub start: usize,
}

/// The embeddings, (sequences, length, width). `root` is a value whose graph they join, so that the backward pass reaches
/// them; it gets no gradient.
pub fn embed(embedding: Embedding, root: &Value) -> Value {
    let [_, length, width] = embedding.dims;
    let mut out = take(embedding.tokens.len() * width);
    out.par_chunks_mut(width).enumerate().with_min_len(64).for_each(|(index, out)| {
        let id = embedding.tokens[index] as usize;
        let row = &embedding.table.values()[id * width..][..width];
        out.iter_mut().zip(row).for_each(|(out, value)| *out = value * embedding.scale);
        if let Some(types) = &embedding.types {
            let row = &types.values()[embedding.type_at(index) * width..][..width];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
        }
        if let Some(positions) = &embedding.positions {
            let row = &positions.values()[(embedding.start + index % length) * width..][..width];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
        }
    });
    let result = tensor(out, &embedding.dims);
    record([root], result, move |gradient, [_]| {
        embedding.backward(slice(&gradient));
        recycle(gradient);
        [None]
    })
}

impl Embedding {
    /// The row of the types that a token has.
    fn type_at(&self, index: usize) -> usize {
        self.type_of.as_ref().map_or(0, |types| types[index] as usize)
    }

    fn backward(&self, dy: &[f32]) {
        let [_, length, width] = self.dims;
        let rows = || dy.chunks_exact(width);
        add_rows(&self.table, rows().zip(self.tokens.iter().map(|&id| id as usize)), width, self.scale);
        if let Some(types) = &self.types {
            add_rows(types, rows().enumerate().map(|(index, row)| (row, self.type_at(index))), width, 1.0);
        }
        if let Some(positions) = &self.positions {
            add_rows(positions, rows().enumerate().map(|(index, row)| (row, self.start + index % length)), width, 1.0);
        }
    }
}

fn add_rows<'a>(table: &Weight, rows: impl Iterator<Item = (&'a [f32], usize)>, width: usize, scale: f32) {
    table.add_gradient(|sum, add| {
        if !add {
            sum.par_chunks_mut(1 << 16).for_each(|sum| sum.fill(0.0));
        }
        for (row, to) in rows {
            sum[to * width..][..width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value * scale);
        }
    });
}

/// The rows of the last dimension at `rows`, (rows, width).
pub fn select(input: &Value, rows: Arc<Vec<usize>>) -> Value {
    let width = input.width();
    let x = input.tensor();
    let values = slice(&x);
    let chosen: Vec<f32> = rows.iter().flat_map(|&row| values[row * width..][..width].iter().copied()).collect();
    let result = tensor(chosen, &[rows.len(), width]);
    let (dims, count) = (input.dims(), values.len());
    record([input], result, move |gradient, [_]| {
        let mut dx = vec![0.0; count];
        for (dy, &row) in slice(&gradient).chunks_exact(width).zip(rows.iter()) {
            dx[row * width..][..width].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
        let dx: FlexTensor = tensor(dx, &dims);
        [Some(dx)]
    })
}

/// The mean of each group of rows of the last dimension, (groups, width).
pub fn mean_of(input: &Value, groups: Arc<Vec<Vec<usize>>>) -> Value {
    let width = input.width();
    let x = input.tensor();
    let values = slice(&x);
    let mut means = vec![0.0; groups.len() * width];
    for (mean, group) in means.chunks_exact_mut(width).zip(groups.iter()) {
        for &row in group {
            mean.iter_mut().zip(&values[row * width..][..width]).for_each(|(sum, value)| *sum += value);
        }
        mean.iter_mut().for_each(|sum| *sum /= group.len().max(1) as f32);
    }
    let result = tensor(means, &[groups.len(), width]);
    let (dims, count) = (input.dims(), values.len());
    record([input], result, move |gradient, [_]| {
        let mut dx = vec![0.0; count];
        for (dy, group) in slice(&gradient).chunks_exact(width).zip(groups.iter()) {
            let share = 1.0 / group.len().max(1) as f32;
            for &row in group {
                dx[row * width..][..width].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy * share);
            }
        }
        let dx: FlexTensor = tensor(dx, &dims);
        [Some(dx)]
    })
}
