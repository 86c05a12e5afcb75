//! Comparison of two models' outputs, and its statistics: log-softmax and KL divergence of rows of logits, directions
//! of pooled hidden states, the mean with its standard error over independent samples, nearest-rank percentiles; all in
//! f64, by functions whose bits are the same on every machine.

use slm_numerics::doubles::{compared_exponentials, sum_of_exponentials};
use slm_numerics::lanes::{self, vectorised};

/// Index of the largest value, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let most = largest(row);
    row.iter().position(|&value| value == most).unwrap_or(0)
}

fn maximum(row: &[f32]) -> f64 {
    f64::from(largest(row))
}

/// The largest value, many compared at a time.
fn largest(row: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || lanes::largest(row),
    )
}

/// Negative log-likelihood of `target`, `−ln softmax(row)[target]`, in nats.
pub fn nll(row: &[f32], target: usize) -> f64 {
    let top = maximum(row);
    libm::log(sum_of_exponentials(row, top)) - (f64::from(row[target]) - top)
}

/// KL(softmax(reference) ‖ softmax(model)) in nats: Σ p · (ln p − ln q), clamped at zero, since rounding can take it
/// below.
pub fn divergence(reference: &[f32], model: &[f32]) -> f64 {
    let tops = [maximum(reference), maximum(model)];
    let tokens = reference.len().min(model.len());
    let [sum_p, sum_q, weighted] = compared_exponentials([&reference[..tokens], &model[..tokens]], tops);
    (weighted / sum_p - libm::log(sum_p) + libm::log(sum_q)).max(0.0)
}

/// The embedding of a text from its hidden states, (positions, width): (width), of length one. `None` where the mean
/// is zero or there are no positions.
pub fn embedding(hidden_states: &[f32], width: usize) -> Option<Vec<f64>> {
    let mut sum = vec![0.0f64; width];
    for row in hidden_states.chunks_exact(width.max(1)) {
        for (sum, &value) in sum.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    // The number of positions cancels against the norm.
    let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    (norm > 0.0).then(|| sum.iter().map(|value| value / norm).collect())
}

/// Nearest-rank percentile: the value at or below which `share` of the values lie; `None` without values.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Sum and number of values of one independent sample (a window, a sequence).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Sum of its values.
    pub sum: f64,
    /// Number of values.
    pub count: usize,
}

/// Mean over all values, and its standard error with samples, not values, as the independent draws: values within a
/// sample are correlated. The ratio estimator √(n/(n−1) · Σ(sumᵢ − mean·countᵢ)²) / Σcountᵢ, which for samples of
/// equal count is the standard deviation of their means over √n. No error for fewer than two samples.
pub fn mean_and_error(samples: &[Sample]) -> (f64, Option<f64>) {
    let count: f64 = samples.iter().map(|sample| sample.count as f64).sum();
    let mean = samples.iter().map(|sample| sample.sum).sum::<f64>() / count;
    let draws = samples.len() as f64;
    let spread: f64 = samples.iter().map(|sample| (sample.sum - mean * sample.count as f64).powi(2)).sum();
    let error = (samples.len() > 1).then(|| (draws / (draws - 1.0) * spread).sqrt() / count);
    (mean, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn rows_compare_as_computed_by_hand() {
        // softmax of (ln 1, ln 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2).
        let (p, q) = ([0.0, 3f32.ln()], [5.0, 5.0]);
        let by_hand = 0.25 * (0.25f64 / 0.5).ln() + 0.75 * (0.75f64 / 0.5).ln();
        assert!((divergence(&p, &q) - by_hand).abs() < 1e-7);
        assert!((nll(&p, 0) - 4f64.ln()).abs() < 1e-7);
        assert!(close(nll(&q, 1), 2f64.ln()));
        assert!(divergence(&p, &p) < 1e-15);
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), 1);
        let far = [1e30f32, -1e30];
        assert_eq!(divergence(&far, &far), 0.0);
    }

    #[test]
    fn errors_come_from_samples_and_ranks_are_nearest() {
        let samples = [1.0, 2.0, 6.0].map(|mean| Sample { sum: mean * 10.0, count: 10 });
        let (mean, error) = mean_and_error(&samples);
        // Deviations −2, −1, 3: variance 14/2 = 7, standard error √(7/3).
        assert!(close(mean, 3.0) && close(error.expect("three samples"), (7.0f64 / 3.0).sqrt()));
        assert_eq!(mean_and_error(&samples[..1]).1, None);
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), Some(198.0));
        assert_eq!(percentile(&values, 0.01), Some(2.0));
        assert_eq!(percentile(&[4.0], 0.01), Some(4.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
