//! The channels of a mixture's experts times the shares of these: of every token's scores the `chosen` highest, of equal ones the
//! lower expert's, and the softmax of these alone; the others' shares are 0.
//!
//! ```text
//! y = c[e] · x   for the channels of expert e         dx = c[e] · dy,  dc[e] = Σ dy · x over its channels
//! c = softmax over the chosen scores s                ds[e] = c[e] (dc[e] − Σ c dc)
//! ```
//!
//! The choice itself has no gradient.

use crate::node::{Value, record, recycle, slice, tensor};
use rayon::prelude::*;
use slm_numerics::lanes::{dot, exp, vectorised};
use slm_numerics::scratch::take;
use std::cmp::Ordering;

/// Rows of one task.
const BLOCK: usize = 16;

/// The `count` experts with the highest scores, of equal ones the lower, from the highest score on.
pub fn choose(scores: &[f32], count: usize) -> Vec<usize> {
    let mut experts: Vec<usize> = (0..scores.len()).collect();
    // Stable: equal scores stay in the order of their experts.
    experts.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
    experts.truncate(count);
    experts
}

/// Shares of one token's experts.
fn share(scores: &[f32], chosen: usize, shares: &mut [f32]) {
    shares.fill(0.0);
    let chosen = choose(scores, chosen);
    let Some(&best) = chosen.first() else { return };
    chosen.iter().for_each(|&expert| shares[expert] = exp(scores[expert] - scores[best]));
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
}

/// Rows of inner channels (…, experts · width), each times the share of its expert, by scores (…, experts).
pub fn weigh(inner: &Value, scores: &Value, chosen: usize) -> Value {
    let (channels, experts) = (inner.width(), scores.width());
    let width = channels / experts;
    let (x, s) = (inner.tensor(), scores.tensor());
    let mut shares = vec![0.0; slice(&s).len()];
    let rows = shares.par_chunks_exact_mut(experts).zip(slice(&s).par_chunks_exact(experts));
    rows.for_each(|(shares, scores)| share(scores, chosen, shares));
    let mut out = take(slice(&x).len());
    scaled(slice(&x), &shares, [channels, width], &mut out);
    let result = tensor(out, &inner.dims());
    let of_scores = scores.dims();
    record([inner, scores], result, move |gradient, [of_inner, _]| {
        let mut ds = vec![0.0; shares.len()];
        let rows = ds.par_chunks_exact_mut(experts).zip(shares.par_chunks_exact(experts));
        let pairs = slice(&gradient).par_chunks_exact(channels).zip(slice(&x).par_chunks_exact(channels));
        rows.zip(pairs).for_each(|((ds, shares), (dy, x))| {
            vectorised(
                #[inline(always)]
                || {
                    let mut mean = 0.0;
                    for (expert, (ds, share)) in ds.iter_mut().zip(shares).enumerate() {
                        let channels = expert * width..(expert + 1) * width;
                        *ds = if *share > 0.0 { dot(&dy[channels.clone()], &x[channels]) } else { 0.0 };
                        mean += share * *ds;
                    }
                    ds.iter_mut().zip(shares).for_each(|(ds, share)| *ds = share * (*ds - mean));
                },
            );
        });
        let dx = of_inner.then(|| {
            let mut dx = take(slice(&gradient).len());
            scaled(slice(&gradient), &shares, [channels, width], &mut dx);
            tensor(dx, gradient.layout().shape().as_ref())
        });
        recycle(x);
        recycle(gradient);
        [dx, Some(tensor(ds, &of_scores))]
    })
}

/// Rows times the shares of their experts.
fn scaled(rows: &[f32], shares: &[f32], [channels, width]: [usize; 2], out: &mut [f32]) {
    let experts = channels / width;
    let blocks = out.par_chunks_mut(BLOCK * channels).zip(rows.par_chunks(BLOCK * channels));
    blocks.zip(shares.par_chunks(BLOCK * experts)).for_each(|((out, rows), shares)| {
        vectorised(
            #[inline(always)]
            || {
                let parts = out.chunks_exact_mut(width).zip(rows.chunks_exact(width));
                for ((out, row), share) in parts.zip(shares) {
                    out.iter_mut().zip(row).for_each(|(out, value)| *out = value * share);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_chosen_experts_and_the_lower_of_equals_is_chosen() {
        let mut shares = [9.0; 4];
        share(&[1.0, 3.0, 3.0, 3.0], 2, &mut shares);
        assert_eq!(shares, [0.0, 0.5, 0.5, 0.0]);
        share(&[0.0, 2.0, -1.0, 2.0], 2, &mut shares);
        assert_eq!(shares, [0.0, 0.5, 0.0, 0.5]);
    }
}
