//! The last product together with its losses, over chunks of tokens, so that no tensor (tokens, vocabulary) is ever made.
//! Per chunk, with z = W · hᵀ + b of the student and t of the teacher, both (vocabulary, tokens of the chunk):
//!
//! ```text
//! cross entropy       ln Σ e^z − (1 − ε) z(target) − ε · mean z          dz = p₁ − (1 − ε) · 1(target) − ε / V
//! divergence          τ² Σ q (ln q − ln p)                               dz = τ (p − q)
//! skew divergence     τ² Σ q (ln q − ln m),  m = α q + (1 − α) p         dz = τ (1 − α) p (Σ p q / m − q / m)
//! reverse divergence  τ² Σ p (ln p − ln q)                               dz = τ p (ln p − ln q − Σ p (ln p − ln q))
//! logits              mean (z − t)²                                      dz = 2 (z − t) / V
//! p, q = softmax(z / τ, t / τ)      p₁ = softmax(z)      dh = dzᵀ · W      dW += dz · h      db += Σ_tokens dz
//! ```
//!
//! Means over all rows; what compares with a teacher over the tokens that both have, where their tables are padded to
//! different sizes. Scores lie with the vocabulary outside, so that neither matrix is turned or packed whole. Sums over
//! the vocabulary are made in blocks of `BLOCK` rows, then block after block.

mod answers;
mod chunk;
mod distances;
mod scores;

pub use answers::{Answers, SampledRows, TeacherRows, sample};

use crate::linear::Linear;
use crate::node::{Value, record, slice, tensor};
use crate::weights::{TermKind, Weight};
use answers::Answering;
use chunk::Chunk;
use rayon::prelude::*;
use scores::Scores;
use slm_numerics::lanes::{LANES, sum, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::{Scratch, take};

/// Tokens of a chunk.
const CHUNK: usize = 256;
/// Rows of the vocabulary that one task sums.
const BLOCK: usize = 256;

/// What is asked of the logits: a factor on the mean of each loss, and their settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighting {
    /// On the cross entropy with the targets.
    pub cross_entropy: f64,
    /// ε, the share of the cross entropy that goes to all tokens alike.
    pub smoothing: f64,
    /// On KL(q ‖ p).
    pub divergence: f64,
    /// On KL(q ‖ α q + (1 − α) p).
    pub skew_divergence: f64,
    /// α
    pub skew: f64,
    /// On KL(p ‖ q).
    pub reverse_divergence: f64,
    /// On the mean square difference of logits.
    pub logits: f64,
    /// τ
    pub temperature: f64,
    /// Factor on everything.
    pub share: f64,
}

impl Weighting {
    /// Nothing asked for.
    pub const NONE: Weighting = Weighting {
        cross_entropy: 0.0,
        smoothing: 0.0,
        divergence: 0.0,
        skew_divergence: 0.0,
        skew: 0.1,
        reverse_divergence: 0.0,
        logits: 0.0,
        temperature: 1.0,
        share: 1.0,
    };

    /// Whether there is a loss beside the cross entropy and the divergence, which have a faster way.
    fn has_distances(&self) -> bool {
        self.skew_divergence != 0.0 || self.reverse_divergence != 0.0 || self.logits != 0.0
    }

    fn compares(&self) -> bool {
        self.divergence != 0.0 || self.has_distances()
    }

    /// The weighted sum of means.
    fn total(&self, means: &Means) -> f64 {
        let mut total = self.cross_entropy * means.cross_entropy + self.divergence * means.divergence;
        if self.has_distances() {
            total += self.skew_divergence * means.skew_divergence
                + self.reverse_divergence * means.reverse_divergence
                + self.logits * means.logits;
        }
        self.share * total
    }
}

/// Means over the rows, without factors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// Nats.
    pub cross_entropy: f64,
    /// Nats, times τ².
    pub divergence: f64,
    /// Nats, times τ².
    pub skew_divergence: f64,
    /// Nats, times τ².
    pub reverse_divergence: f64,
    /// Squares of logits.
    pub logits: f64,
}

impl Means {
    /// Adds `factor` times others.
    fn add(&mut self, other: &Means, factor: f64) {
        self.cross_entropy += other.cross_entropy * factor;
        self.divergence += other.divergence * factor;
        self.skew_divergence += other.skew_divergence * factor;
        self.reverse_divergence += other.reverse_divergence * factor;
        self.logits += other.logits * factor;
    }
}

/// Leaves what rows of a chunk add to a head whose gradient is left as terms; `scores` are slopes, (vocabulary, stride), of
/// `rows`: the first, how many, and of how many.
fn keep_terms(head: &Linear, (scores, stride): (&[f32], usize), x: &[f32], rows: [usize; 3]) {
    let weights = [Some(&head.matrix), head.bias.as_ref()];
    if weights.iter().flatten().all(|weight| weight.terms().is_none()) {
        return;
    }
    let slopes = |row: usize| scores.chunks_exact(stride).map(move |of_token| of_token[row]);
    let [_, many, _] = rows;
    let dy: Vec<f32> = (0..many).flat_map(slopes).collect();
    if let Some(terms) = head.bias.as_ref().and_then(Weight::terms) {
        terms.keep(rows, TermKind::Vectors(dy.clone()));
    }
    if let Some(terms) = head.matrix.terms() {
        terms.keep(rows, TermKind::Products { dy, x: x.to_vec(), inputs: x.len() / many.max(1) });
    }
}

/// The losses of rows (rows, width): their weighted sum, of one element, and their means. Gradients of the head are added
/// here already, so the sum must be differentiated as it is, not multiplied.
pub fn losses(
    rows: &Value,
    head: &Linear,
    targets: &[i32],
    answers: Option<&Answers>,
    weighting: Weighting,
) -> (Value, Means) {
    let width = rows.width();
    let hidden = rows.tensor();
    let count = slice(&hidden).len() / width;
    let recorded = rows.is_recorded();
    let mut gradient = take(if recorded { count * width } else { 0 });
    let vocabulary = head.matrix.values().len() / width;
    let stride = CHUNK.min(count.max(1)).next_multiple_of(LANES);
    let mut student = Scratch::take(vocabulary * stride);
    let mut answering = answers.filter(|_| weighting.compares()).map(|answers| Answering::new(answers, stride));
    let mut sums = Means::default();
    for first in (0..count).step_by(CHUNK) {
        let many = CHUNK.min(count - first);
        let own = &slice(&hidden)[first * width..][..many * width];
        let mut chunk = Chunk {
            scores: Scores::new(student.values(), head, own, many, stride),
            answers: answering.as_mut().map(|answering| answering.of(first, many, weighting.temperature)),
            targets: &targets[first..][..many],
            shared: answers.and_then(Answers::shared).unwrap_or(vocabulary),
            weighting,
            rows: count,
        };
        let slopes = if recorded { chunk.scores.slopes(head.cap) } else { None };
        let found = chunk.weigh();
        if let Some(slopes) = slopes {
            chunk.scores.values.par_iter_mut().zip(slopes).for_each(|(slope, of_cap)| *slope *= of_cap);
        }
        sums.add(&found, 1.0);
        if recorded {
            let scores = Matrix::new(&chunk.scores.values[..vocabulary * stride], stride).columns(0, many);
            let out = Output::over(&mut gradient[first * width..][..many * width], width);
            multiply(out, Left::Columns(scores), Right::Rows(Matrix::new(head.matrix.values(), width)));
            keep_terms(head, (&chunk.scores.values[..vocabulary * stride], stride), own, [first, many, count]);
            if head.matrix.terms().is_none() {
                head.matrix.add_gradient(|sum, add| {
                    let out = Output { add, ..Output::over(sum, width) };
                    multiply(out, Left::Rows(scores), Right::Rows(Matrix::new(own, width)));
                });
            }
            if let Some(bias) = head.bias.as_ref().filter(|bias| bias.terms().is_none()) {
                let scores = &*chunk.scores.values;
                bias.add_gradient(|total, add| {
                    let rows = total.par_iter_mut().zip(scores.par_chunks(stride)).with_min_len(BLOCK);
                    rows.for_each(|(total, row)| {
                        let own = vectorised(
                            #[inline(always)]
                            || sum(&row[..many]),
                        );
                        *total = if add { *total + own } else { own };
                    });
                });
            }
        }
    }
    let rows_f64 = count.max(1) as f64;
    let mut means = Means::default();
    means.add(&sums, 1.0);
    for mean in [
        &mut means.cross_entropy,
        &mut means.divergence,
        &mut means.skew_divergence,
        &mut means.reverse_divergence,
        &mut means.logits,
    ] {
        *mean /= rows_f64;
    }
    let dims = hidden.layout().shape().to_vec();
    let total = weighting.total(&means) as f32;
    let value = record([rows], tensor(vec![total], &[1]), move |_, [_]| [Some(tensor(gradient, &dims))]);
    (value, means)
}
