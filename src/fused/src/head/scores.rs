//! Scores of a chunk of tokens with the vocabulary outside: the product, the largest score of each token, and sums of powers
//! in blocks of rows, block after block.

use super::BLOCK;
use crate::activation::{cap_all, cap_slope};
use crate::linear::Linear;
use crate::weights::Weight;
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, exp, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// One value a token, sixteen together; zeros up to `stride`.
pub(super) fn in_lanes(values: impl Iterator<Item = f32>, stride: usize) -> Vec<[f32; LANES]> {
    let mut out = vec![[0.0; LANES]; stride / LANES];
    for (index, value) in values.enumerate() {
        out[index / LANES][index % LANES] = value;
    }
    out
}

/// Scores (vocabulary, stride) of a chunk, of which `tokens` columns are used; those up to `stride`, a multiple of the lanes,
/// are any numbers.
pub(super) struct Scores<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) tokens: usize,
    /// Largest score of each token.
    pub(super) largest: Vec<[f32; LANES]>,
}

impl<'a> Scores<'a> {
    pub(super) fn new(values: &'a mut [f32], head: &Linear, rows: &[f32], tokens: usize, stride: usize) -> Self {
        let width = rows.len() / tokens;
        let output = Output::over(values, stride);
        let matrix = Matrix::new(head.matrix.values(), width);
        multiply(output, Left::Rows(matrix), Right::Columns(Matrix::new(rows, width)));
        let mut scores = Scores::biased(values, head.bias.as_ref().map(Weight::values), tokens, stride);
        if let Some(cap) = head.cap {
            scores.values.par_chunks_mut(BLOCK * stride).for_each(|values| {
                vectorised(
                    #[inline(always)]
                    || cap_all(values, cap),
                );
            });
            scores.largest.iter_mut().for_each(|largest| cap_all(largest, cap));
        }
        scores
    }

    /// Slopes of capped scores, by which those of the losses are multiplied; `None` where they are not capped.
    pub(super) fn slopes(&self, cap: Option<f32>) -> Option<Vec<f32>> {
        let cap = cap?;
        Some(self.values.par_iter().map(|score| cap_slope(*score, cap)).collect())
    }

    /// Scores that are there but for their biases.
    pub(super) fn biased(values: &'a mut [f32], bias: Option<&[f32]>, tokens: usize, stride: usize) -> Self {
        let blocks = values.par_chunks_mut(BLOCK * stride).enumerate();
        let largest: Vec<Vec<[f32; LANES]>> = blocks
            .map(|(block, values)| {
                let bias = bias.map(|bias| &bias[block * BLOCK..]);
                vectorised(
                    #[inline(always)]
                    || largest_of(values, bias, stride),
                )
            })
            .collect();
        let over_blocks = |token: usize| {
            let blocks = largest.iter().map(|block| block[token / LANES][token % LANES]);
            blocks.fold(f32::NEG_INFINITY, |most, value| if value <= most { most } else { value })
        };
        Scores { largest: in_lanes((0..tokens).map(over_blocks), stride), values, stride, tokens }
    }

    /// Largest score of each token among the first `rows` of the vocabulary.
    pub(super) fn largest_of_first(&self, rows: usize) -> Vec<[f32; LANES]> {
        if rows * self.stride >= self.values.len() {
            return self.largest.clone();
        }
        let mut largest = vec![[f32::NEG_INFINITY; LANES]; self.stride / LANES];
        for values in self.values.chunks_exact(self.stride).take(rows) {
            for (most, value) in largest.as_flattened_mut().iter_mut().zip(values) {
                *most = if *value <= *most { *most } else { *value };
            }
        }
        largest
    }

    /// Σ e^((z − largest) / τ) of each token, over the first `rows` of the vocabulary.
    pub(super) fn sums(&self, temperature: f32, rows: usize, largest: &[[f32; LANES]]) -> Vec<f64> {
        let inverse = 1.0 / temperature;
        let block = |values: &[f32]| {
            vectorised(
                #[inline(always)]
                || {
                    let mut sums = vec![[0.0f32; LANES]; largest.len()];
                    let (all, largest) = (sums.as_flattened_mut(), largest.as_flattened());
                    for values in values.chunks_exact(self.stride) {
                        for ((sum, value), most) in all.iter_mut().zip(values).zip(largest) {
                            *sum += exp((value - most) * inverse);
                        }
                    }
                    sums
                },
            )
        };
        let values = &self.values[..rows * self.stride];
        let blocks: Vec<Vec<[f32; LANES]>> = values.par_chunks(BLOCK * self.stride).map(block).collect();
        let over_blocks =
            |token: usize| blocks.iter().map(|block| f64::from(block[token / LANES][token % LANES])).sum();
        (0..self.tokens).map(over_blocks).collect()
    }
}

/// Adds the biases to some rows of scores, and returns the largest of each token.
#[inline(always)]
fn largest_of(values: &mut [f32], bias: Option<&[f32]>, stride: usize) -> Vec<[f32; LANES]> {
    let mut largest = vec![[f32::NEG_INFINITY; LANES]; stride / LANES];
    for (row, values) in values.chunks_exact_mut(stride).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[row]);
        for (most, value) in largest.as_flattened_mut().iter_mut().zip(values) {
            *value += bias;
            // What is not a number wins, so that the loss is none either.
            *most = if *value <= *most { *most } else { *value };
        }
    }
    largest
}
