//! The last product together with its losses, over chunks of tokens, so that no tensor (tokens, vocabulary) is ever made.
//! Per chunk, with z = W · hᵀ + b of the student and t of the teacher, both (vocabulary, tokens of the chunk):
//!
//! ```text
//! cross entropy   ln Σ e^z − z(target)                                dz = p − 1(target)
//! divergence      τ² Σ q (ln q − ln p_τ),  p_τ, q = softmax(z / τ, t / τ)      dz = τ (p_τ − q)
//! dh = dzᵀ · W        dW += dz · h        db += Σ_tokens dz
//! ```
//!
//! Means over all rows; the divergence over the tokens that both have, where their tables are padded to different sizes. Scores
//! lie with the vocabulary outside, so that neither matrix is turned or packed whole. Sums over
//! the vocabulary are made in blocks of `BLOCK` rows, then block after block.

use crate::linear::Linear;
use crate::node::{Value, record, slice, tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, exp, sum, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::{Scratch, take};

/// Tokens of a chunk.
const CHUNK: usize = 256;
/// Rows of the vocabulary that one task sums.
const BLOCK: usize = 256;

/// What is asked of the logits.
#[derive(Clone, Copy, Debug)]
pub struct Weighting {
    /// Factor on the mean cross entropy.
    pub cross_entropy: f64,
    /// Factor on the mean divergence.
    pub divergence: f64,
    /// τ
    pub temperature: f64,
    /// Factor on everything.
    pub share: f64,
}

/// Means over the rows, without factors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// Nats.
    pub cross_entropy: f64,
    /// Nats, times τ².
    pub divergence: f64,
}

/// The teacher's rows, (…, its width), and its head.
pub struct Answers {
    /// What its last product reads.
    pub rows: FlexTensor,
    /// Its last product.
    pub head: Linear,
    /// How many tokens both have, where the tables are padded to different sizes: the divergence is over those alone.
    pub shared: Option<usize>,
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
    let answers = answers.filter(|_| weighting.divergence != 0.0);
    let stride = CHUNK.min(count.max(1)).next_multiple_of(LANES);
    let mut student = Scratch::take(vocabulary * stride);
    let of_answers = |answers: &Answers| {
        let width = answers.rows.layout().shape().to_vec().last().copied().unwrap_or(1);
        (width, answers.head.matrix.values().len() / width)
    };
    let mut teacher = Scratch::take(answers.map_or(0, |answers| of_answers(answers).1 * stride));
    let mut sums = Means::default();
    for first in (0..count).step_by(CHUNK) {
        let many = CHUNK.min(count - first);
        let own = &slice(&hidden)[first * width..][..many * width];
        let mut chunk = Chunk {
            scores: Scores::new(student.values(), head, own, many, stride),
            answers: answers.map(|answers| {
                let (own, _) = of_answers(answers);
                let rows = &slice(&answers.rows)[first * own..][..many * own];
                Scores::new(teacher.values(), &answers.head, rows, many, stride)
            }),
            targets: &targets[first..][..many],
            shared: answers.and_then(|answers| answers.shared).unwrap_or(vocabulary),
            weighting,
            rows: count,
        };
        let found = chunk.weigh();
        sums.cross_entropy += found.cross_entropy;
        sums.divergence += found.divergence;
        if recorded {
            let scores = Matrix::new(&chunk.scores.values[..vocabulary * stride], stride).columns(0, many);
            let out = Output::over(&mut gradient[first * width..][..many * width], width);
            multiply(out, Left::Columns(scores), Right::Rows(Matrix::new(head.matrix.values(), width)));
            head.matrix.add_gradient(|sum, add| {
                let out = Output { add, ..Output::over(sum, width) };
                multiply(out, Left::Rows(scores), Right::Rows(Matrix::new(own, width)));
            });
            if let Some(bias) = &head.bias {
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
    let means = Means { cross_entropy: sums.cross_entropy / rows_f64, divergence: sums.divergence / rows_f64 };
    let total =
        weighting.share * (weighting.cross_entropy * means.cross_entropy + weighting.divergence * means.divergence);
    let dims = hidden.layout().shape().to_vec();
    let value = record([rows], tensor(vec![total as f32], &[1]), move |_, [_]| [Some(tensor(gradient, &dims))]);
    (value, means)
}

/// One value a token, sixteen together; zeros up to `stride`.
fn in_lanes(values: impl Iterator<Item = f32>, stride: usize) -> Vec<[f32; LANES]> {
    let mut out = vec![[0.0; LANES]; stride / LANES];
    for (index, value) in values.enumerate() {
        out[index / LANES][index % LANES] = value;
    }
    out
}

/// Scores (vocabulary, stride) of a chunk, of which `tokens` columns are used; those up to `stride`, a multiple of the lanes,
/// are any numbers.
struct Scores<'a> {
    values: &'a mut [f32],
    stride: usize,
    tokens: usize,
    /// Largest score of each token.
    largest: Vec<[f32; LANES]>,
}

impl<'a> Scores<'a> {
    fn new(values: &'a mut [f32], head: &Linear, rows: &[f32], tokens: usize, stride: usize) -> Self {
        let width = rows.len() / tokens;
        let output = Output::over(values, stride);
        let matrix = Matrix::new(head.matrix.values(), width);
        multiply(output, Left::Rows(matrix), Right::Columns(Matrix::new(rows, width)));
        let bias = head.bias.as_ref().map(super::weights::Weight::values);
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
    fn largest_of_first(&self, rows: usize) -> Vec<[f32; LANES]> {
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
    fn sums(&self, temperature: f32, rows: usize, largest: &[[f32; LANES]]) -> Vec<f64> {
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

struct Chunk<'a> {
    scores: Scores<'a>,
    answers: Option<Scores<'a>>,
    targets: &'a [i32],
    /// Tokens that student and teacher have both: the first of both tables.
    shared: usize,
    weighting: Weighting,
    /// Rows of all chunks.
    rows: usize,
}

/// How the scores of sixteen tokens become gradients.
struct Factors {
    /// 1 / Σ at temperature 1, times the factor of the cross entropy.
    plain: Vec<[f32; LANES]>,
    /// The factors of the divergence.
    compared: Option<Compared>,
}

struct Compared {
    /// Largest scores of the student and of the teacher among the tokens that both have.
    largest: [Vec<[f32; LANES]>; 2],
    /// 1 / Σ at temperature τ, of the student and of the teacher.
    student: Vec<[f32; LANES]>,
    teacher: Vec<[f32; LANES]>,
    /// ln Σ of the student − ln Σ of the teacher.
    difference: Vec<[f32; LANES]>,
    /// 1 / τ
    inverse: f32,
    /// Factor on p − q.
    slope: f32,
    /// Whether p is the softmax of the cross entropy too.
    once: bool,
}

impl Chunk<'_> {
    /// Scores to gradients of the scores; returns the sums over the chunk.
    fn weigh(&mut self) -> Means {
        let Weighting { cross_entropy, divergence, temperature, share } = self.weighting;
        let (stride, tokens) = (self.scores.stride, self.scores.tokens);
        let per_row = share / self.rows as f64;
        let mut means = Means::default();
        let reciprocal = |sums: &[f64], factor: f64| in_lanes(sums.iter().map(|sum| (factor / sum) as f32), stride);
        let mut factors = Factors { plain: vec![[0.0; LANES]; stride / LANES], compared: None };
        let rows = self.scores.values.len() / stride;
        let plain_sums = (cross_entropy != 0.0).then(|| self.scores.sums(1.0, rows, &self.scores.largest));
        if let Some(sums) = &plain_sums {
            for (token, (sum, most)) in sums.iter().zip(self.scores.largest.as_flattened()).enumerate() {
                let target = self.targets[token] as usize;
                let score = self.scores.values[target * stride + token];
                means.cross_entropy += libm::log(*sum) + f64::from(*most) - f64::from(score);
            }
            factors.plain = reciprocal(sums, cross_entropy * per_row);
        }
        if let Some(answers) = &self.answers {
            let largest = [&self.scores, answers].map(|scores| scores.largest_of_first(self.shared));
            let sums_of = |scores: &Scores<'_>, largest| scores.sums(temperature as f32, self.shared, largest);
            // At τ = 1 over one vocabulary both losses have the same softmax.
            let one = plain_sums.filter(|_| temperature == 1.0 && self.shared >= rows);
            let once = one.is_some();
            let own = one.unwrap_or_else(|| sums_of(&self.scores, &largest[0]));
            let other = sums_of(answers, &largest[1]);
            let difference = |(own, other): (&f64, &f64)| (libm::log(*own) - libm::log(*other)) as f32;
            factors.compared = Some(Compared {
                largest,
                student: reciprocal(&own, 1.0),
                teacher: reciprocal(&other, 1.0),
                difference: in_lanes(own.iter().zip(&other).map(difference), stride),
                inverse: (1.0 / temperature) as f32,
                slope: (divergence * temperature * per_row) as f32,
                once,
            });
        }
        let (largest, scores, shared) = (&self.scores.largest, &mut *self.scores.values, self.shared);
        let blocks = scores.par_chunks_mut(BLOCK * stride);
        match (&self.answers, &factors.compared) {
            (Some(answers), Some(compared)) => {
                let plain = (cross_entropy != 0.0).then_some(factors.plain.as_slice());
                let block = |(number, values): (usize, &mut [f32])| {
                    let from = number * BLOCK;
                    let both = shared.saturating_sub(from).min(values.len() / stride);
                    let (values, alone) = values.split_at_mut(both * stride);
                    let others = answers.values.get(from * stride..(from + both) * stride).unwrap_or_default();
                    vectorised(
                        #[inline(always)]
                        || {
                            match plain {
                                Some(plain) => slopes_of_cross_entropy(alone, largest, plain),
                                None => alone.fill(0.0),
                            }
                            match compared.once {
                                true => compared.weigh::<true>(largest, plain, values, others),
                                false => compared.weigh::<false>(largest, plain, values, others),
                            }
                        },
                    )
                };
                let sums: Vec<Vec<[f32; LANES]>> = blocks.enumerate().map(block).collect();
                let own = |sums: &Vec<[f32; LANES]>| -> f64 {
                    sums.as_flattened()[..tokens].iter().map(|&sum| f64::from(sum)).sum()
                };
                means.divergence = sums.iter().map(own).sum::<f64>() * temperature * temperature;
            }
            _ => blocks.for_each(|values| {
                vectorised(
                    #[inline(always)]
                    || slopes_of_cross_entropy(values, largest, &factors.plain),
                );
            }),
        }
        if cross_entropy != 0.0 {
            let factor = (cross_entropy * per_row) as f32;
            for (token, &target) in self.targets.iter().enumerate() {
                self.scores.values[target as usize * stride + token] -= factor;
            }
        }
        means
    }
}

/// Scores of some rows to the softmax of each token times its factor.
#[inline(always)]
fn slopes_of_cross_entropy(values: &mut [f32], largest: &[[f32; LANES]], factors: &[[f32; LANES]]) {
    let (largest, factors) = (largest.as_flattened(), factors.as_flattened());
    for values in values.chunks_exact_mut(largest.len()) {
        for ((value, most), factor) in values.iter_mut().zip(largest).zip(factors) {
            *value = exp(*value - most) * factor;
        }
    }
}

impl Compared {
    /// Scores of some rows to gradients; returns Σ q (ln q − ln p) of each token. `whole` are the largest scores of the whole
    /// vocabulary, with which the factors of the cross entropy are.
    #[inline(always)]
    fn weigh<const ONCE: bool>(
        &self,
        whole: &[[f32; LANES]],
        plain: Option<&[[f32; LANES]]>,
        values: &mut [f32],
        others: &[f32],
    ) -> Vec<[f32; LANES]> {
        let [largest, other_largest] = &self.largest;
        let stride = largest.len() * LANES;
        let mut sums = vec![[0.0f32; LANES]; largest.len()];
        for (values, others) in values.chunks_exact_mut(stride).zip(others.chunks_exact(stride)) {
            let (values, others) = (values.as_chunks_mut::<LANES>().0, others.as_chunks::<LANES>().0);
            for (at, (values, others)) in values.iter_mut().zip(others).enumerate() {
                let (most, other_most, sums) = (&largest[at], &other_largest[at], &mut sums[at]);
                let (p_factor, q_factor) = (&self.student[at], &self.teacher[at]);
                let difference = &self.difference[at];
                let (mut out, mut powers) = ([0.0; LANES], [0.0; LANES]);
                for lane in 0..LANES {
                    let own = (values[lane] - most[lane]) * self.inverse;
                    let other = (others[lane] - other_most[lane]) * self.inverse;
                    let q = exp(other) * q_factor[lane];
                    sums[lane] = q.mul_add(other - own + difference[lane], sums[lane]);
                    powers[lane] = exp(own);
                    out[lane] = self.slope * (powers[lane] * p_factor[lane] - q);
                }
                if let Some(plain) = plain {
                    for lane in 0..LANES {
                        let power = if ONCE { powers[lane] } else { exp(values[lane] - whole[at][lane]) };
                        out[lane] = power.mul_add(plain[at][lane], out[lane]);
                    }
                }
                *values = out;
            }
        }
        sums
    }
}
