//! A chunk of tokens: scores to gradients of the scores. Cross entropy and divergence read the scores once; other losses have
//! passes of their own ([`super::distances`]).

use super::answers::ChunkAnswers;
use super::distances::Distances;
use super::scores::{Scores, in_lanes};
use super::{BLOCK, Means, Weighting};
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, exp, vectorised};

pub(super) struct Chunk<'a> {
    pub(super) scores: Scores<'a>,
    pub(super) answers: Option<ChunkAnswers<'a>>,
    pub(super) targets: &'a [i32],
    /// Tokens that student and teacher have both: the first of both tables.
    pub(super) shared: usize,
    pub(super) weighting: Weighting,
    /// Rows of all chunks.
    pub(super) rows: usize,
}

/// The factors of the divergence.
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
}

impl Chunk<'_> {
    /// Scores to gradients of the scores; returns the sums over the chunk.
    pub(super) fn weigh(&mut self) -> Means {
        let Weighting { cross_entropy, smoothing, share, .. } = self.weighting;
        let stride = self.scores.stride;
        let per_row = share / self.rows as f64;
        let mut means = Means::default();
        let mut plain = None;
        let rows = self.scores.values.len() / stride;
        let plain_sums = (cross_entropy != 0.0).then(|| self.scores.sums(1.0, rows, &self.scores.largest));
        if let Some(sums) = &plain_sums {
            let even = if smoothing == 0.0 { Vec::new() } else { self.mean_scores(rows) };
            for (token, (sum, most)) in sums.iter().zip(self.scores.largest.as_flattened()).enumerate() {
                let target = self.targets[token] as usize;
                let score = f64::from(self.scores.values[target * stride + token]);
                let aim = even.get(token).map_or(score, |mean| (1.0 - smoothing) * score + smoothing * mean);
                means.cross_entropy += libm::log(*sum) + f64::from(*most) - aim;
            }
            plain = Some(reciprocal(sums, cross_entropy * per_row, stride));
        }
        match self.answers.take() {
            None => self.slopes_of_cross_entropy(&plain.unwrap_or_else(|| vec![[0.0; LANES]; stride / LANES])),
            Some(ChunkAnswers::Sampled { ids, draws, entropies }) => {
                means.divergence = self.weigh_sampled((ids, draws, entropies), plain.as_deref(), per_row);
            }
            Some(ChunkAnswers::Scores(others)) if self.weighting.has_distances() => {
                let distances = Distances::of(&self.scores, &others, self.weighting, self.shared);
                means.add(&distances.means(self.scores.tokens), 1.0);
                let largest = self.scores.largest.clone();
                let plain = plain.as_deref().map(|factors| [largest.as_slice(), factors]);
                self.by_block(
                    others.values,
                    #[inline(always)]
                    |alone, values, others| {
                        match plain {
                            Some([largest, factors]) => slopes_of_cross_entropy(alone, largest, factors),
                            None => alone.fill(0.0),
                        }
                        distances.slopes(plain, per_row, values, others);
                    },
                );
            }
            Some(ChunkAnswers::Scores(others)) => {
                means.divergence = self.weigh_divergence(&others, plain_sums, plain.as_deref(), per_row);
            }
        }
        if cross_entropy != 0.0 {
            let factor = (cross_entropy * (1.0 - smoothing) * per_row) as f32;
            for (token, &target) in self.targets.iter().enumerate() {
                self.scores.values[target as usize * stride + token] -= factor;
            }
            if smoothing != 0.0 {
                let even = (cross_entropy * smoothing * per_row / rows as f64) as f32;
                self.scores.values.par_chunks_mut(BLOCK * stride).for_each(|values| {
                    values.iter_mut().for_each(|value| *value -= even);
                });
            }
        }
        means
    }

    /// Mean score of each token.
    fn mean_scores(&self, rows: usize) -> Vec<f64> {
        let stride = self.scores.stride;
        let block = |values: &[f32]| {
            let mut sums = vec![0.0f32; stride];
            for values in values.chunks_exact(stride) {
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            sums
        };
        let blocks: Vec<Vec<f32>> = self.scores.values.par_chunks(BLOCK * stride).map(block).collect();
        let of_token = |token: usize| blocks.iter().map(|block| f64::from(block[token])).sum::<f64>() / rows as f64;
        (0..self.scores.tokens).map(of_token).collect()
    }

    /// Lets `work` change the scores block by block: those of tokens that the student alone has; the others, with the teacher's
    /// where it has scores. Returns what it makes of each block. `work` has to be inlined always: else it is compiled without
    /// vectors, and every fused multiply-add in it is a call.
    fn by_block<R: Send>(
        &mut self,
        others: &[f32],
        work: impl Fn(&mut [f32], &mut [f32], &[f32]) -> R + Sync,
    ) -> Vec<R> {
        let (stride, shared) = (self.scores.stride, self.shared);
        let block = |(number, values): (usize, &mut [f32])| {
            let from = number * BLOCK;
            let both = shared.saturating_sub(from).min(values.len() / stride);
            let (values, alone) = values.split_at_mut(both * stride);
            let others = others.get(from * stride..(from + both) * stride).unwrap_or_default();
            vectorised(
                #[inline(always)]
                || work(alone, values, others),
            )
        };
        self.scores.values.par_chunks_mut(BLOCK * stride).enumerate().map(block).collect()
    }

    /// Scores to slopes of the cross entropy, but for the targets.
    fn slopes_of_cross_entropy(&mut self, factors: &[[f32; LANES]]) {
        let (largest, stride) = (&self.scores.largest, self.scores.stride);
        self.scores.values.par_chunks_mut(BLOCK * stride).for_each(|values| {
            vectorised(
                #[inline(always)]
                || slopes_of_cross_entropy(values, largest, factors),
            );
        });
    }

    /// Scores to slopes of divergence and cross entropy, but for the targets; returns the sum of the divergence.
    fn weigh_divergence(
        &mut self,
        others: &Scores<'_>,
        plain_sums: Option<Vec<f64>>,
        plain: Option<&[[f32; LANES]]>,
        per_row: f64,
    ) -> f64 {
        let Weighting { divergence, temperature, .. } = self.weighting;
        let (stride, tokens) = (self.scores.stride, self.scores.tokens);
        let rows = self.scores.values.len() / stride;
        let largest = [&self.scores, others].map(|scores| scores.largest_of_first(self.shared));
        let sums_of = |scores: &Scores<'_>, largest| scores.sums(temperature as f32, self.shared, largest);
        // At τ = 1 over one vocabulary both losses have the same softmax.
        let one = plain_sums.filter(|_| temperature == 1.0 && self.shared >= rows);
        let once = one.is_some();
        let own = one.unwrap_or_else(|| sums_of(&self.scores, &largest[0]));
        let other = sums_of(others, &largest[1]);
        let difference = |(own, other): (&f64, &f64)| (libm::log(*own) - libm::log(*other)) as f32;
        let compared = Compared {
            largest,
            student: reciprocal(&own, 1.0, stride),
            teacher: reciprocal(&other, 1.0, stride),
            difference: in_lanes(own.iter().zip(&other).map(difference), stride),
            inverse: (1.0 / temperature) as f32,
            slope: (divergence * temperature * per_row) as f32,
        };
        let whole = self.scores.largest.clone();
        let sums: Vec<Vec<[f32; LANES]>> = self.by_block(
            others.values,
            #[inline(always)]
            |alone, values, others| {
                match plain {
                    Some(plain) => slopes_of_cross_entropy(alone, &whole, plain),
                    None => alone.fill(0.0),
                }
                match once {
                    true => compared.weigh::<true>(&whole, plain, values, others),
                    false => compared.weigh::<false>(&whole, plain, values, others),
                }
            },
        );
        let own =
            |sums: &Vec<[f32; LANES]>| -> f64 { sums.as_flattened()[..tokens].iter().map(|&sum| f64::from(sum)).sum() };
        sums.iter().map(own).sum::<f64>() * temperature * temperature
    }

    /// The same with ids that were drawn from the teacher's distribution, with its entropies.
    fn weigh_sampled(
        &mut self,
        (ids, draws, entropies): (&[u32], usize, &[f32]),
        plain: Option<&[[f32; LANES]]>,
        per_row: f64,
    ) -> f64 {
        let Weighting { divergence, temperature, .. } = self.weighting;
        let stride = self.scores.stride;
        let inverse = 1.0 / temperature;
        let largest = self.scores.largest_of_first(self.shared);
        let sums = self.scores.sums(temperature as f32, self.shared, &largest);
        let of_row = |(token, ids): (usize, &[u32])| {
            let log = libm::log(sums[token]);
            let most = f64::from(largest[token / LANES][token % LANES]);
            let score = |id: &u32| (f64::from(self.scores.values[*id as usize * stride + token]) - most) * inverse;
            log - ids.iter().map(score).sum::<f64>() / draws as f64 - f64::from(entropies[token])
        };
        let total: f64 = ids.chunks_exact(draws).enumerate().map(of_row).sum();
        let slope = divergence * temperature * per_row;
        let factors = reciprocal(&sums, slope, stride);
        let (whole, inverse) = (self.scores.largest.clone(), inverse as f32);
        self.by_block(
            &[],
            #[inline(always)]
            |alone, values, _| {
                match plain {
                    Some(plain) => slopes_of_cross_entropy(alone, &whole, plain),
                    None => alone.fill(0.0),
                }
                slopes_of_softmax(values, &largest, (inverse, &factors), plain.map(|plain| (whole.as_slice(), plain)));
            },
        );
        let slope = (slope / draws as f64) as f32;
        for (token, ids) in ids.chunks_exact(draws).enumerate() {
            ids.iter().for_each(|&id| self.scores.values[id as usize * stride + token] -= slope);
        }
        total * temperature * temperature
    }
}

/// factor / sum of each token
fn reciprocal(sums: &[f64], factor: f64, stride: usize) -> Vec<[f32; LANES]> {
    in_lanes(sums.iter().map(|sum| (factor / sum) as f32), stride)
}

/// The largest score of each token, and the factor of its softmax.
type Softmax<'a> = (&'a [[f32; LANES]], &'a [[f32; LANES]]);

/// Scores of some rows to the softmax at 1 / `inverse` times its factor, and that of the cross entropy: `plain` are the largest
/// scores of the whole vocabulary and its factors.
#[inline(always)]
fn slopes_of_softmax(
    values: &mut [f32],
    largest: &[[f32; LANES]],
    (inverse, factors): (f32, &[[f32; LANES]]),
    plain: Option<Softmax<'_>>,
) {
    for values in values.chunks_exact_mut(largest.len() * LANES) {
        for (at, values) in values.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            for lane in 0..LANES {
                let slope = exp((values[lane] - largest[at][lane]) * inverse) * factors[at][lane];
                values[lane] = match plain {
                    Some((whole, plain)) => exp(values[lane] - whole[at][lane]).mul_add(plain[at][lane], slope),
                    None => slope,
                };
            }
        }
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
    /// vocabulary, with which the factors of the cross entropy are. `ONCE`: p is the softmax of the cross entropy too.
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
