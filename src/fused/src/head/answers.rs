//! What a teacher says of the rows: computed from its own rows and head chunk by chunk, the mixture of several teachers'
//! distributions, or ids that were drawn from a distribution beforehand.
//!
//! ```text
//! mixture    t = τ · ln Σ_k w_k softmax(t_k / τ)      whose softmax(t / τ) is the mixture
//! sampled    q(id) = draws of the id / all draws of the row      unbiased, where ids are drawn from q (2503.16870)
//! ```

use super::scores::{Scores, in_lanes};
use super::{BLOCK, CHUNK};
use crate::linear::Linear;
use crate::node::slice;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, exp, ln, vectorised};
use slm_numerics::scratch::Scratch;

/// One teacher's rows, (…, its width), and its head.
pub struct TeacherRows {
    /// What its last product reads.
    pub rows: FlexTensor,
    /// Its last product.
    pub head: Linear,
    /// Its part of the mixture; the parts of all sum to 1.
    pub weight: f64,
}

/// Ids drawn from a teacher's distribution at the temperature of the loss, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampledRows {
    /// (rows, draws)
    pub ids: Vec<u32>,
    /// Ids of a row.
    pub draws: usize,
    /// −Σ q ln q of each row's whole distribution, in nats.
    pub entropies: Vec<f32>,
}

/// What the student is compared with.
pub enum Answers {
    /// Teachers that are run.
    Computed {
        /// At least one.
        teachers: Vec<TeacherRows>,
        /// How many tokens all have, where tables are padded to different sizes: the first of each.
        shared: Option<usize>,
    },
    /// Ids drawn beforehand; for the divergence alone.
    Sampled {
        /// What was drawn.
        rows: SampledRows,
        /// How many tokens it was drawn from, where that is not all: the first of the student's.
        shared: Option<usize>,
    },
}

impl Answers {
    /// How many tokens are compared, where it is not all.
    pub(super) fn shared(&self) -> Option<usize> {
        match self {
            Answers::Computed { shared, .. } | Answers::Sampled { shared, .. } => *shared,
        }
    }
}

/// Memory for the answers of one chunk.
pub(super) struct Answering<'a> {
    answers: &'a Answers,
    stride: usize,
    scores: Scratch,
    mixed: Scratch,
}

/// The answers for a chunk.
pub(super) enum ChunkAnswers<'a> {
    Scores(Scores<'a>),
    Sampled { ids: &'a [u32], draws: usize, entropies: &'a [f32] },
}

impl TeacherRows {
    fn width(&self) -> usize {
        self.rows.layout().shape().to_vec().last().copied().unwrap_or(1)
    }

    fn vocabulary(&self) -> usize {
        self.head.matrix.values().len() / self.width()
    }

    /// The scores of `many` rows from `first`.
    fn scores<'v>(&self, values: &'v mut [f32], first: usize, many: usize, stride: usize) -> Scores<'v> {
        let width = self.width();
        Scores::new(values, &self.head, &slice(&self.rows)[first * width..][..many * width], many, stride)
    }
}

impl<'a> Answering<'a> {
    pub(super) fn new(answers: &'a Answers, stride: usize) -> Self {
        let (most, mixed) = match answers {
            Answers::Computed { teachers, shared } => {
                let all = || teachers.iter().map(TeacherRows::vocabulary);
                let several = if teachers.len() > 1 { shared.or(all().min()).unwrap_or(0) } else { 0 };
                (all().max().unwrap_or(0), several)
            }
            Answers::Sampled { .. } => (0, 0),
        };
        Answering { answers, stride, scores: Scratch::take(most * stride), mixed: Scratch::take(mixed * stride) }
    }

    /// For `many` rows from `first`.
    pub(super) fn of(&mut self, first: usize, many: usize, temperature: f64) -> ChunkAnswers<'_> {
        let stride = self.stride;
        match self.answers {
            Answers::Sampled { rows: SampledRows { ids, draws, entropies }, .. } => ChunkAnswers::Sampled {
                ids: &ids[first * draws..][..many * draws],
                draws: *draws,
                entropies: &entropies[first..][..many],
            },
            Answers::Computed { teachers, .. } if teachers.len() == 1 => {
                ChunkAnswers::Scores(teachers[0].scores(self.scores.values(), first, many, stride))
            }
            Answers::Computed { teachers, .. } => {
                let mixed = self.mixed.values();
                mixed.fill(0.0);
                let shared = mixed.len() / stride;
                for teacher in teachers {
                    let values = &mut self.scores.values()[..teacher.vocabulary() * stride];
                    let scores = teacher.scores(values, first, many, stride);
                    add_distribution(mixed, &scores, teacher.weight, temperature, shared);
                }
                mixed.par_chunks_mut(BLOCK * stride).for_each(|values| {
                    vectorised(
                        #[inline(always)]
                        || values.iter_mut().for_each(|value| *value = ln(*value) * temperature as f32),
                    );
                });
                ChunkAnswers::Scores(Scores::biased(mixed, None, many, stride))
            }
        }
    }
}

/// mixed += weight · softmax(scores / τ), over the first `shared` rows.
fn add_distribution(mixed: &mut [f32], scores: &Scores<'_>, weight: f64, temperature: f64, shared: usize) {
    let (stride, inverse) = (scores.stride, (1.0 / temperature) as f32);
    let largest = scores.largest_of_first(shared);
    let sums = scores.sums(temperature as f32, shared, &largest);
    let factors: Vec<[f32; LANES]> = in_lanes(sums.iter().map(|sum| (weight / sum) as f32), stride);
    let blocks = mixed.par_chunks_mut(BLOCK * stride).zip(scores.values.par_chunks(BLOCK * stride));
    blocks.for_each(|(mixed, values)| {
        vectorised(
            #[inline(always)]
            || {
                let (largest, factors) = (largest.as_flattened(), factors.as_flattened());
                for (mixed, values) in mixed.chunks_exact_mut(stride).zip(values.chunks_exact(stride)) {
                    for (((mixed, value), most), factor) in mixed.iter_mut().zip(values).zip(largest).zip(factors) {
                        *mixed = exp((value - most) * inverse).mul_add(*factor, *mixed);
                    }
                }
            },
        );
    });
}

/// Draws from the distributions of `count` rows at temperature τ, by systematic sampling: with u the row's number from
/// `uniforms`, in [0, 1), the ids where the cumulative distribution passes (k + u) / draws. An id is expected to be drawn
/// draws · q(id) times, and is drawn that often rounded up or down.
pub fn sample(answers: &Answers, count: usize, temperature: f64, draws: usize, uniforms: &[f64]) -> SampledRows {
    let stride = CHUNK.min(count.max(1)).next_multiple_of(LANES);
    let mut answering = Answering::new(answers, stride);
    let mut all = SampledRows { ids: Vec::with_capacity(count * draws), draws, entropies: Vec::with_capacity(count) };
    for first in (0..count).step_by(CHUNK) {
        let many = CHUNK.min(count - first);
        let ChunkAnswers::Scores(scores) = answering.of(first, many, temperature) else { continue };
        let rows = scores.values.len() / stride;
        let shared = answers.shared().unwrap_or(rows).min(rows);
        let side = Softmax::of(&scores, temperature, shared);
        let lanes: Vec<usize> = (0..many.div_ceil(LANES)).collect();
        let drawn: Vec<Vec<(Vec<u32>, f32)>> = lanes
            .par_iter()
            .map(|&at| {
                let tokens = LANES.min(many - at * LANES);
                side.draw(&scores, at, &uniforms[first + at * LANES..][..tokens], draws, shared)
            })
            .collect();
        for (ids, entropy) in drawn.into_iter().flatten() {
            all.ids.extend(ids);
            all.entropies.push(entropy);
        }
    }
    all
}

/// The softmax of a chunk's scores.
struct Softmax {
    largest: Vec<[f32; LANES]>,
    sums: Vec<f64>,
    inverse: f32,
}

impl Softmax {
    fn of(scores: &Scores<'_>, temperature: f64, shared: usize) -> Self {
        let largest = scores.largest_of_first(shared);
        let sums = scores.sums(temperature as f32, shared, &largest);
        Softmax { largest, sums, inverse: (1.0 / temperature) as f32 }
    }

    /// Ids and entropy of the tokens at a place of the lanes.
    fn draw(
        &self,
        scores: &Scores<'_>,
        at: usize,
        uniforms: &[f64],
        draws: usize,
        shared: usize,
    ) -> Vec<(Vec<u32>, f32)> {
        let mut ids = vec![Vec::with_capacity(draws); uniforms.len()];
        let mut passed = [0.0f64; LANES];
        // Σ q ln q = Σ q (z − largest) / τ − ln Σ
        let mut weighted = [0.0f64; LANES];
        let mut best = [(f32::NEG_INFINITY, 0u32); LANES];
        for (id, row) in scores.values.chunks_exact(scores.stride).take(shared).enumerate() {
            let row = &row[at * LANES..][..LANES];
            let mut powers = [0.0f32; LANES];
            for lane in 0..LANES {
                powers[lane] = exp((row[lane] - self.largest[at][lane]) * self.inverse);
            }
            for (lane, uniform) in uniforms.iter().enumerate() {
                let power = f64::from(powers[lane]);
                passed[lane] += power;
                weighted[lane] += power * f64::from((row[lane] - self.largest[at][lane]) * self.inverse);
                if row[lane] > best[lane].0 {
                    best[lane] = (row[lane], id as u32);
                }
                let own = &mut ids[lane];
                let sum = self.sums[at * LANES + lane];
                while own.len() < draws && passed[lane] * draws as f64 > (own.len() as f64 + uniform) * sum {
                    own.push(id as u32);
                }
            }
        }
        let of_lane = |(lane, mut own): (usize, Vec<u32>)| {
            // What rounding of the sum left out.
            own.resize(draws, best[lane].1);
            let sum = self.sums[at * LANES + lane];
            (own, (libm::log(sum) - weighted[lane] / sum) as f32)
        };
        ids.into_iter().enumerate().map(of_lane).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Weighting, losses};
    use crate::node::{Value, tensor};
    use crate::weights::{GradientSum, Weight};
    use burn::tensor::{Device, Tensor, TensorData};
    use slm_runtime::sample::random_u64;
    use std::sync::Arc;

    fn random(stream: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 4_194_304.0 - 2.0).collect()
    }

    #[test]
    fn draws_are_as_frequent_as_the_distribution_says() {
        let (vocabulary, width, rows, draws) = (300, 8, 270, 16);
        let teacher = |stream| TeacherRows {
            rows: tensor(random(stream, rows * width), &[rows, width]),
            head: Linear {
                matrix: Weight::frozen(tensor(random(stream + 1, vocabulary * width), &[vocabulary * width])),
                bias: None,
                cap: None,
            },
            weight: 0.5,
        };
        let answers = Answers::Computed { teachers: vec![teacher(1), teacher(3)], shared: Some(290) };
        let temperature = 1.3;
        // The mixture by plain arithmetic.
        let expected: Vec<Vec<f64>> = (0..rows)
            .map(|row| {
                let mut mixture = vec![0.0; 290];
                for stream in [1, 3] {
                    let (states, matrix) = (random(stream, rows * width), random(stream + 1, vocabulary * width));
                    let score = |id: usize| -> f64 {
                        (0..width).map(|k| f64::from(states[row * width + k]) * f64::from(matrix[id * width + k])).sum()
                    };
                    let powers: Vec<f64> = (0..290).map(|id| (score(id) / temperature).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    mixture.iter_mut().zip(&powers).for_each(|(part, power)| *part += 0.5 * power / sum);
                }
                mixture
            })
            .collect();
        let mut counts = vec![vec![0.0; 290]; rows];
        let rounds = 200;
        for round in 0..rounds {
            let uniforms: Vec<f64> =
                (0..rows as u64).map(|row| random_u64(round, row) as f64 / 2f64.powi(64)).collect();
            let drawn = sample(&answers, rows, temperature, draws, &uniforms);
            assert_eq!((drawn.ids.len(), drawn.entropies.len()), (rows * draws, rows));
            for (row, ids) in drawn.ids.chunks_exact(draws).enumerate() {
                let once: f64 = 1.0 / draws as f64;
                for id in 0..290 {
                    let share = ids.iter().filter(|&&drawn| drawn as usize == id).count() as f64 / draws as f64;
                    assert!((share - expected[row][id]).abs() < once + 1e-5, "row {row}, id {id}: {share}");
                    counts[row][id] += share / rounds as f64;
                }
                let entropy: f64 = expected[row].iter().map(|q| -q * q.ln()).sum();
                assert!((f64::from(drawn.entropies[row]) - entropy).abs() < 1e-4);
            }
        }
        // Unbiased: the mean share is the probability, within four standard errors of a draw rounded up or down.
        let most = 4.0 * 0.5 / draws as f64 / (rounds as f64).sqrt();
        for (counts, expected) in counts.iter().zip(&expected) {
            assert!(counts.iter().zip(expected).all(|(count, q)| (count - q).abs() < most));
        }
    }
    /// Tokens that the student alone has are left out, as if it had the others alone.
    #[test]
    fn drawn_ids_are_compared_over_the_tokens_that_both_have() {
        let (vocabulary, shared, width, rows, draws) = (300, 290, 8, 270, 4);
        let compared = |own: usize, both: Option<usize>, weighting: Weighting| {
            let device = Device::flex().autodiff();
            let states = TensorData::new(random(1, rows * width), [rows, width]);
            let input = Tensor::<2>::from_data(states, &device).require_grad();
            let (sum, table) = (Arc::new(GradientSum::default()), random(2, vocabulary * width));
            let matrix = Weight::trained(Arc::new(table[..own * width].to_vec()), sum.clone());
            let head = Linear { matrix, bias: None, cap: None };
            let ids = (0..(rows * draws) as u64).map(|n| (random_u64(3, n) % shared as u64) as u32).collect();
            let drawn = SampledRows { ids, draws, entropies: vec![0.5; rows] };
            let targets: Vec<i32> = (0..rows as i32).collect();
            let answers = Answers::Sampled { rows: drawn, shared: both };
            let value = Value::of(input.clone()).expect("the flex device");
            let (total, means) = losses(&value, &head, &targets, Some(&answers), weighting);
            let gradients = total.into_tensor::<1>().backward();
            let of_input = input.grad(&gradients).expect("a gradient").into_data();
            drop((head, value));
            let of_matrix = Arc::try_unwrap(sum).expect("the graph is gone").into_values().1;
            (means, [of_input.try_into_vec::<f32>().expect("f32"), of_matrix])
        };
        let divergence = Weighting { divergence: 1.0, temperature: 1.5, ..Weighting::NONE };
        let (means, [of_input, of_matrix]) = compared(vocabulary, Some(shared), divergence);
        let (expected, [input, matrix]) = compared(shared, None, divergence);
        assert_eq!(means.divergence, expected.divergence);
        assert_eq!((of_input, &of_matrix[..shared * width]), (input, &matrix[..]));
        assert!(of_matrix[shared * width..].iter().all(|value| *value == 0.0));
        assert_ne!(means.divergence, compared(vocabulary, None, divergence).0.divergence);
        // Beside it, the cross entropy is over all of them.
        let entropy = Weighting { cross_entropy: 0.7, ..Weighting::NONE };
        let both = compared(vocabulary, Some(shared), Weighting { cross_entropy: 0.7, ..divergence }).1;
        let one = compared(vocabulary, Some(shared), divergence).1;
        let other = compared(vocabulary, None, entropy).1;
        for ((both, one), other) in both.iter().zip(&one).zip(&other) {
            let sums = one.iter().zip(other).map(|(one, other)| one + other);
            assert!(both.iter().zip(sums).all(|(both, sum)| (both - sum).abs() < 1e-5));
        }
    }
}
