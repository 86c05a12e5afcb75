//! The losses that need a sum over the vocabulary before any of their gradients: skew and reverse divergence, squares of
//! logits. Two passes over the scores of a chunk: sums of each token, block after block; then gradients.

use super::scores::{Scores, in_lanes};
use super::{BLOCK, Means, Weighting};
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, exp, ln, vectorised};

/// One value for each of sixteen tokens.
type Lanes = [f32; LANES];

/// Below it a mixture of two probabilities counts as this: q / m stays finite.
const LEAST: f32 = 1e-30;

/// How many sums each token has; their places follow.
const SUMS: usize = 5;
const DIVERGENCE: usize = 0;
const SKEW: usize = 1;
/// Σ p q / m
const RATIO: usize = 2;
const REVERSE: usize = 3;
const LOGITS: usize = 4;

/// The softmax of one side at τ: largest score, 1 / Σ and ln Σ of each token.
struct Side {
    largest: Vec<Lanes>,
    reciprocal: Vec<Lanes>,
    log: Vec<Lanes>,
}

impl Side {
    fn of(scores: &Scores<'_>, temperature: f64, shared: usize) -> Self {
        let largest = scores.largest_of_first(shared);
        let sums = scores.sums(temperature as f32, shared, &largest);
        Side {
            reciprocal: in_lanes(sums.iter().map(|sum| (1.0 / sum) as f32), scores.stride),
            log: in_lanes(sums.iter().map(|sum| libm::log(*sum) as f32), scores.stride),
            largest,
        }
    }
}

/// Both softmaxes, and the settings of the losses.
pub(super) struct Distances {
    student: Side,
    teacher: Side,
    weighting: Weighting,
    shared: usize,
    /// The tokens' sums.
    sums: Vec<[Lanes; SUMS]>,
}

/// What one score and its teacher's make.
struct Pair {
    p: f32,
    q: f32,
    /// ln q − ln p
    difference: f32,
    /// α q + (1 − α) p
    mixture: f32,
    /// ln q
    log_q: f32,
}

impl Distances {
    /// The first pass.
    pub(super) fn of(own: &Scores<'_>, others: &Scores<'_>, weighting: Weighting, shared: usize) -> Self {
        let temperature = weighting.temperature;
        let (student, teacher) = (Side::of(own, temperature, shared), Side::of(others, temperature, shared));
        let mut distances = Distances { student, teacher, weighting, shared, sums: Vec::new() };
        let (stride, size) = (own.stride, BLOCK * own.stride);
        let values = own.values[..shared * stride].par_chunks(size);
        let block = |(values, others): (&[f32], &[f32])| {
            vectorised(
                #[inline(always)]
                || distances.sums_of(values, others),
            )
        };
        let blocks: Vec<Vec<[Lanes; SUMS]>> =
            values.zip(others.values[..shared * stride].par_chunks(size)).map(block).collect();
        let mut sums = vec![[[0.0; LANES]; SUMS]; stride / LANES];
        for block in &blocks {
            let sums = sums.as_flattened_mut().as_flattened_mut();
            sums.iter_mut().zip(block.as_flattened().as_flattened()).for_each(|(sum, value)| *sum += value);
        }
        distances.sums = sums;
        distances
    }

    #[inline(always)]
    fn pair(&self, at: usize, lane: usize, value: f32, other: f32, inverse: f32, skew: f32) -> Pair {
        let own = (value - self.student.largest[at][lane]) * inverse;
        let other = (other - self.teacher.largest[at][lane]) * inverse;
        let p = exp(own) * self.student.reciprocal[at][lane];
        let q = exp(other) * self.teacher.reciprocal[at][lane];
        let log_q = other - self.teacher.log[at][lane];
        let difference = log_q - (own - self.student.log[at][lane]);
        let mixture = q.mul_add(skew, p * (1.0 - skew));
        Pair { p, q, difference, mixture: if mixture < LEAST { LEAST } else { mixture }, log_q }
    }

    /// Sums of some rows.
    #[inline(always)]
    fn sums_of(&self, values: &[f32], others: &[f32]) -> Vec<[Lanes; SUMS]> {
        let many = self.student.largest.len();
        let (inverse, skew) = ((1.0 / self.weighting.temperature) as f32, self.weighting.skew as f32);
        let mut sums = vec![[[0.0f32; LANES]; SUMS]; many];
        for (values, others) in values.chunks_exact(many * LANES).zip(others.chunks_exact(many * LANES)) {
            let (values, others) = (values.as_chunks::<LANES>().0, others.as_chunks::<LANES>().0);
            for (at, (values, others)) in values.iter().zip(others).enumerate() {
                let sums = &mut sums[at];
                for lane in 0..LANES {
                    let Pair { p, q, difference, mixture, log_q } =
                        self.pair(at, lane, values[lane], others[lane], inverse, skew);
                    sums[DIVERGENCE][lane] = q.mul_add(difference, sums[DIVERGENCE][lane]);
                    sums[SKEW][lane] = q.mul_add(log_q - ln(mixture), sums[SKEW][lane]);
                    sums[RATIO][lane] = (q / mixture).mul_add(p, sums[RATIO][lane]);
                    sums[REVERSE][lane] = p.mul_add(-difference, sums[REVERSE][lane]);
                    let miss = values[lane] - others[lane];
                    sums[LOGITS][lane] = miss.mul_add(miss, sums[LOGITS][lane]);
                }
            }
        }
        sums
    }

    /// Sums over the chunk's tokens of the losses that are asked for; the cross entropy is not among them.
    pub(super) fn means(&self, tokens: usize) -> Means {
        let sum = |loss: usize| -> f64 {
            (0..tokens).map(|token| f64::from(self.sums[token / LANES][loss][token % LANES])).sum()
        };
        let Weighting { divergence, skew_divergence, reverse_divergence, logits, temperature, .. } = self.weighting;
        let asked = |weight: f64, loss: usize| if weight == 0.0 { 0.0 } else { sum(loss) };
        let square = temperature * temperature;
        Means {
            cross_entropy: 0.0,
            divergence: asked(divergence, DIVERGENCE) * square,
            skew_divergence: asked(skew_divergence, SKEW) * square,
            reverse_divergence: asked(reverse_divergence, REVERSE) * square,
            logits: asked(logits, LOGITS) / self.shared as f64,
        }
    }

    /// The second pass: scores of some rows to gradients. `plain` are the largest scores of the whole vocabulary and the
    /// factors of the cross entropy.
    #[inline(always)]
    pub(super) fn slopes(&self, plain: Option<[&[Lanes]; 2]>, per_row: f64, values: &mut [f32], others: &[f32]) {
        let many = self.student.largest.len();
        let Weighting { divergence, skew_divergence, reverse_divergence, logits, temperature, .. } = self.weighting;
        let (inverse, skew) = ((1.0 / temperature) as f32, self.weighting.skew as f32);
        let slope = |weight: f64| (weight * temperature * per_row) as f32;
        let (forward, reverse) = (slope(divergence), slope(reverse_divergence));
        let skewed = slope(skew_divergence) * (1.0 - skew);
        let squares = (2.0 * logits * per_row / self.shared as f64) as f32;
        for (values, others) in values.chunks_exact_mut(many * LANES).zip(others.chunks_exact(many * LANES)) {
            let (values, others) = (values.as_chunks_mut::<LANES>().0, others.as_chunks::<LANES>().0);
            for (at, (values, others)) in values.iter_mut().zip(others).enumerate() {
                let sums = &self.sums[at];
                let mut out = [0.0; LANES];
                for lane in 0..LANES {
                    let Pair { p, q, difference, mixture, .. } =
                        self.pair(at, lane, values[lane], others[lane], inverse, skew);
                    let by_probability = skewed * (sums[RATIO][lane] - q / mixture)
                        + reverse * (-difference - sums[REVERSE][lane])
                        + forward;
                    let along = p.mul_add(by_probability, -forward * q);
                    out[lane] = squares.mul_add(values[lane] - others[lane], along);
                }
                if let Some([largest, factors]) = plain {
                    for lane in 0..LANES {
                        let power = exp(values[lane] - largest[at][lane]);
                        out[lane] = power.mul_add(factors[at][lane], out[lane]);
                    }
                }
                *values = out;
            }
        }
    }
}
