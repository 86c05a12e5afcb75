//! Relations of the tokens of a sequence among the vectors that an attention layer projects, and their divergence from a
//! teacher's (MiniLMv2, Wang et al. 2021): of queries with queries, keys with keys and values with values, in as many heads as
//! one likes, so that widths and numbers of attention heads may differ.
//!
//! ```text
//! S = X Xᵀ / √d,  X (tokens of a sequence, d) one relation head        P = softmax(S), over tokens that are there
//! loss = mean over heads, tokens and kinds of Σ P_t (ln P_t − ln P)
//! dS = (P − P_t) / number of rows        dX = (dS + dSᵀ) X / √d
//! ```
//!
//! Where attention is causal, a token is related to itself and those before it.

use crate::node::{Value, record, slice, tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{dot, exp, largest, sum, vectorised};
use slm_numerics::scratch::take;
use std::sync::Arc;

/// Where queries, keys and values lie in a row, and the sequences.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Values a row of queries, keys and values.
    pub widths: [usize; 3],
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Which tokens are there, (sequences · length); all where absent.
    pub present: Option<Arc<Vec<bool>>>,
    /// Whether tokens are related to earlier ones alone.
    pub causal: bool,
}

/// A teacher's projections.
pub struct Related {
    /// Rows as long as the sum of its widths.
    pub teacher: FlexTensor,
    /// Its queries', keys' and values' widths.
    pub widths: [usize; 3],
    /// Relation heads; they divide all widths.
    pub heads: usize,
    /// Factor on the loss.
    pub factor: f64,
}

/// One relation head of one sequence: where its vectors begin and how far apart they are.
#[derive(Clone, Copy)]
struct Vectors<'a> {
    values: &'a [f32],
    first: usize,
    stride: usize,
    width: usize,
}

impl Vectors<'_> {
    fn of(&self, token: usize) -> &[f32] {
        &self.values[self.first + token * self.stride..][..self.width]
    }

    /// ln softmax of a token's scores with the `chosen` tokens.
    #[inline(always)]
    fn relations(&self, token: usize, chosen: &[usize], out: &mut Vec<f32>) {
        let scale = 1.0 / (self.width as f32).sqrt();
        out.clear();
        out.extend(chosen.iter().map(|&other| dot(self.of(token), self.of(other)) * scale));
        let most = largest(out);
        let powers: Vec<f32> = out.iter().map(|score| exp(score - most)).collect();
        let log = libm::log(f64::from(sum(&powers))) as f32;
        out.iter_mut().for_each(|score| *score -= most + log);
    }
}

/// The loss of projections (…, sum of the widths) times its factor, of one element, and the loss.
pub fn relations(projected: &Value, layout: Layout, related: &Related) -> (Value, f64) {
    let own = projected.tensor();
    let (stride, other_stride) = (layout.widths.iter().sum::<usize>(), related.widths.iter().sum::<usize>());
    let heads = related.heads;
    let Layout { sequences, length, .. } = layout;
    let there = |row: usize| layout.present.as_ref().is_none_or(|present| present[row]);
    let tokens: Vec<Vec<usize>> =
        (0..sequences).map(|sequence| (0..length).filter(|token| there(sequence * length + token)).collect()).collect();
    let rows = (3 * heads * tokens.iter().map(Vec::len).sum::<usize>()).max(1) as f64;
    let slope = related.factor / rows;
    let recorded = projected.is_recorded();
    let tasks: Vec<(usize, usize, usize)> = (0..sequences)
        .flat_map(|sequence| (0..3).flat_map(move |kind| (0..heads).map(move |head| (sequence, kind, head))))
        .collect();
    let task = |&(sequence, kind, head): &(usize, usize, usize)| {
        let vectors = |values, widths: [usize; 3], stride: usize| {
            let width = widths[kind] / heads;
            let first = widths[..kind].iter().sum::<usize>() + head * width + sequence * length * stride;
            Vectors { values, first, stride, width }
        };
        let student = vectors(slice(&own), layout.widths, stride);
        let teacher = vectors(slice(&related.teacher), related.widths, other_stride);
        let tokens = &tokens[sequence];
        vectorised(
            #[inline(always)]
            || one_head(student, teacher, tokens, layout.causal, slope, recorded),
        )
    };
    let done: Vec<(f64, Vec<f32>)> = tasks.par_iter().map(task).collect();
    let loss = done.iter().map(|(loss, _)| loss).sum::<f64>() / rows;
    let dims = own.layout().shape().to_vec();
    let value = record([projected], tensor(vec![(related.factor * loss) as f32], &[1]), move |_, [_]| {
        let mut gradient = take(sequences * length * stride);
        gradient.fill(0.0);
        for ((sequence, kind, head), (_, slopes)) in tasks.into_iter().zip(done) {
            let width = layout.widths[kind] / heads;
            let first = layout.widths[..kind].iter().sum::<usize>() + head * width;
            for (slopes, token) in slopes.chunks_exact(width).zip(&tokens[sequence]) {
                let row = sequence * length + token;
                gradient[row * stride + first..][..width].copy_from_slice(slopes);
            }
        }
        [Some(tensor(gradient, &dims))]
    });
    (value, loss)
}

/// Sum of the divergences of one head's rows, and, where they are asked for, the slopes of its vectors.
#[inline(always)]
fn one_head(
    student: Vectors<'_>,
    teacher: Vectors<'_>,
    tokens: &[usize],
    causal: bool,
    slope: f64,
    recorded: bool,
) -> (f64, Vec<f32>) {
    let width = student.width;
    let mut slopes = vec![0.0f32; if recorded { tokens.len() * width } else { 0 }];
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let scale = (slope / f64::from(width as u32).sqrt()) as f32;
    let mut loss = 0.0;
    for (place, &token) in tokens.iter().enumerate() {
        let chosen = if causal { &tokens[..=place] } else { tokens };
        student.relations(token, chosen, &mut own);
        teacher.relations(token, chosen, &mut other);
        let mut divergence = 0.0f32;
        for (index, (&log_p, &log_q)) in own.iter().zip(&other).enumerate() {
            let (p, q) = (exp(log_p), exp(log_q));
            divergence = q.mul_add(log_q - log_p, divergence);
            if recorded {
                // The score of a token with another is a product of both vectors.
                let by_score = scale * (p - q);
                for (to, with) in [(place, student.of(chosen[index])), (index, student.of(token))] {
                    let slopes = slopes[to * width..][..width].iter_mut();
                    slopes.zip(with).for_each(|(slope, value)| *slope = value.mul_add(by_score, *slope));
                }
            }
        }
        loss += f64::from(divergence);
    }
    (loss, slopes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    fn random(stream: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 4_194_304.0 - 2.0).collect()
    }

    /// The formula in f64, token by token.
    fn expected(own: &[f32], layout: &Layout, related: &Related) -> f64 {
        let (mut sum, mut rows) = (0.0, 0);
        let relations =
            |values: &[f32], widths: [usize; 3], kind: usize, head: usize, sequence: usize, token: usize| {
                let (stride, width) = (widths.iter().sum::<usize>(), widths[kind] / related.heads);
                let first = widths[..kind].iter().sum::<usize>() + head * width;
                let vector = |token: usize| &values[(sequence * layout.length + token) * stride + first..][..width];
                let chosen = (0..layout.length).filter(|&other| {
                    let there = layout.present.as_ref().is_none_or(|there| there[sequence * layout.length + other]);
                    there && (!layout.causal || other <= token)
                });
                let powers: Vec<f64> = chosen
                    .map(|other| {
                        let product: f64 =
                            vector(token).iter().zip(vector(other)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        (product / (width as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect::<Vec<f64>>()
            };
        for sequence in 0..layout.sequences {
            for token in 0..layout.length {
                if layout.present.as_ref().is_some_and(|there| !there[sequence * layout.length + token]) {
                    continue;
                }
                for (kind, head) in (0..3).flat_map(|kind| (0..related.heads).map(move |head| (kind, head))) {
                    let p = relations(own, layout.widths, kind, head, sequence, token);
                    let q = relations(slice(&related.teacher), related.widths, kind, head, sequence, token);
                    sum += p.iter().zip(&q).map(|(p, q)| q * (q / p).ln()).sum::<f64>();
                    rows += 1;
                }
            }
        }
        sum / f64::from(rows)
    }

    #[test]
    fn the_loss_is_that_of_the_formula() {
        for (causal, padded) in [(false, true), (true, false), (true, true)] {
            let (sequences, length) = (2, 9);
            let present = (0..sequences * length).map(|n| n < 15).collect();
            let layout =
                Layout { widths: [12, 6, 6], sequences, length, present: padded.then(|| Arc::new(present)), causal };
            let related = Related {
                teacher: tensor(random(2, sequences * length * 48), &[sequences, length, 48]),
                widths: [24, 12, 12],
                heads: 3,
                factor: 1.0,
            };
            let own = random(1, sequences * length * 24);
            let projected = Value::Plain(tensor(own.clone(), &[sequences, length, 24]));
            let exact = expected(&own, &layout, &related);
            let (_, found) = relations(&projected, layout, &related);
            assert!((found - exact).abs() < 1e-5 * exact, "{found}, {exact}");
        }
    }
}
