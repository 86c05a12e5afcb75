//! The accountant of Rényi differential privacy for the subsampled Gaussian mechanism (Mironov 2017; Mironov, Talwar & Zhang
//! 2019), at the integer orders α = 2 … 256:
//!
//! ```text
//! rdp(α)  = 1/(α−1) · ln Σₖ₌₀..α C(α, k) (1−q)^(α−k) qᵏ e^(k(k−1)/(2σ²))
//! ε(δ)    = min over α of  T · rdp(α) + ln((α−1)/α) − (ln δ + ln α)/(α−1)
//! ```
//!
//! q is the rate at which every sample is drawn, each by itself (Poisson), σ the noise over the clip, T the steps. The
//! conversion is that of Canonne, Kamath & Steinke 2020. Neighbouring data differ by one sample that is there or not.

use libm::{exp, lgamma, log, log1p};

/// Orders of the accountant.
pub const ORDERS: std::ops::RangeInclusive<u32> = 2..=256;
/// Largest noise that is looked for: beyond it a step is nothing but noise.
pub const MOST_NOISE: f64 = 1e4;
/// Smallest noise that is looked for; what it costs stands for no privacy.
const LEAST_NOISE: f64 = 0.05;

/// The steps of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mechanism {
    /// Probability of every sample to be in a step.
    pub rate: f64,
    /// Standard deviation of the noise over the clip.
    pub sigma: f64,
    /// Steps.
    pub steps: u64,
}

/// An ε with the order that gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// ε
    pub epsilon: f64,
    /// α
    pub order: u32,
}

fn log_add(a: f64, b: f64) -> f64 {
    let (larger, smaller) = if a >= b { (a, b) } else { (b, a) };
    if smaller == f64::NEG_INFINITY { larger } else { larger + log1p(exp(smaller - larger)) }
}

impl Mechanism {
    /// Rényi divergence of one step at an order.
    fn divergence(&self, order: u32) -> f64 {
        let alpha = f64::from(order);
        let square = 2.0 * self.sigma * self.sigma;
        if self.rate >= 1.0 {
            return alpha / square;
        }
        let (in_step, not) = (log(self.rate), log1p(-self.rate));
        let choose = |k: f64| lgamma(alpha + 1.0) - lgamma(k + 1.0) - lgamma(alpha - k + 1.0);
        let term = |k: u32| {
            let k = f64::from(k);
            choose(k) + (alpha - k) * not + k * in_step + k * (k - 1.0) / square
        };
        // The sum is at least 1; rounding must not make it less.
        ((0..=order).map(term).fold(f64::NEG_INFINITY, log_add) / (alpha - 1.0)).max(0.0)
    }

    /// ε at a δ.
    pub fn spent(&self, delta: f64) -> Spent {
        let at = |order: u32| {
            let alpha = f64::from(order);
            let conversion = log((alpha - 1.0) / alpha) - (log(delta) + log(alpha)) / (alpha - 1.0);
            Spent { epsilon: (self.steps as f64 * self.divergence(order) + conversion).max(0.0), order }
        };
        let first = Spent { epsilon: f64::INFINITY, order: *ORDERS.start() };
        ORDERS.map(at).fold(first, |least, next| if next.epsilon < least.epsilon { next } else { least })
    }
}

/// The least noise, over the clip, with which `steps` steps at a rate spend at most ε; `None` where even [`MOST_NOISE`] does
/// not suffice. ε falls with the noise, so the interval is halved, in its logarithm.
pub fn noise_for(epsilon: f64, delta: f64, rate: f64, steps: u64) -> Option<f64> {
    let enough = |sigma: f64| Mechanism { rate, sigma, steps }.spent(delta).epsilon <= epsilon;
    if !enough(MOST_NOISE) {
        return None;
    }
    let (mut low, mut high) = (LEAST_NOISE, MOST_NOISE);
    if enough(low) {
        return Some(low);
    }
    // Far below any digit that is printed.
    while high / low > 1.0 + 1e-10 {
        let middle = (low * high).sqrt();
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(rate: f64, sigma: f64, steps: u64) -> Spent {
        Mechanism { rate, sigma, steps }.spent(1e-5)
    }

    /// The older conversion, T · rdp + ln(1/δ)/(α−1), of the figures that TensorFlow Privacy's tutorial gives.
    fn by_older_conversion(mechanism: Mechanism, delta: f64) -> f64 {
        let at = |order: u32| {
            mechanism.steps as f64 * mechanism.divergence(order) + log(1.0 / delta) / (f64::from(order) - 1.0)
        };
        ORDERS.map(at).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn published_values_are_met() {
        for (rate, sigma, steps, epsilon, order) in [
            (0.01, 1.0, 1_000, 2.108, Some(8)),
            (0.01, 1.1, 10_000, 5.654, Some(5)),
            // TensorFlow Privacy's MNIST tutorial: 60,000 samples, batches of 256, 60 epochs.
            (256.0 / 60_000.0, 1.1, 14_040, 2.595, None),
        ] {
            let found = spent(rate, sigma, steps);
            assert!((found.epsilon - epsilon).abs() < 1e-3, "{found:?}, expected {epsilon}");
            assert!(order.is_none_or(|order| order == found.order), "{found:?}, expected {order:?}");
        }
        let tutorial = Mechanism { rate: 256.0 / 60_000.0, sigma: 1.1, steps: 14_040 };
        let older = by_older_conversion(tutorial, 1e-5);
        assert!((older - 3.007).abs() < 1e-3, "{older}");
    }

    #[test]
    fn one_step_of_everything_is_the_gaussian_mechanism() {
        // rdp(α) = α / (2σ²), and a rate just below 1 comes to the same.
        let all = Mechanism { rate: 1.0, sigma: 2.0, steps: 1 };
        assert_eq!(all.divergence(8), 1.0);
        let nearly = Mechanism { rate: 1.0 - 1e-12, ..all };
        assert!((nearly.divergence(8) - 1.0).abs() < 1e-9);
        // Nothing drawn costs nothing.
        assert!(Mechanism { rate: 1e-300, sigma: 1.0, steps: 1 }.divergence(2) < 1e-12);
    }

    #[test]
    fn the_least_noise_spends_what_was_asked_for() {
        for (epsilon, rate, steps) in [(8.0, 0.02, 500), (1.0, 0.01, 1_000), (2.108, 0.01, 1_000), (0.5, 1.0, 10)] {
            let sigma = noise_for(epsilon, 1e-5, rate, steps).expect("it can be reached");
            let spent = spent(rate, sigma, steps).epsilon;
            assert!(spent <= epsilon && spent > epsilon * (1.0 - 1e-6), "{epsilon}: {spent} with {sigma}");
        }
        let found = noise_for(2.108, 1e-5, 0.01, 1_000).expect("it can be reached");
        assert!((found - 1.0).abs() < 1e-3, "{found}");
    }

    #[test]
    fn what_no_noise_reaches_is_none() {
        // At the largest order the conversion alone is about 0.0195 at δ = 1e-5.
        assert_eq!(noise_for(0.01, 1e-5, 0.01, 1_000), None);
        assert!(noise_for(0.02, 1e-5, 0.01, 1_000).is_some());
    }
}
