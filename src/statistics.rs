//! Bounds for means and shares measured on samples, and what they say about a limit. Every bound is one-sided: with
//! confidence 1 − α the true value is not above `upper`, and with the same confidence not below `lower`.
//!
//! ```text
//! ratio of sums dᵢ and wᵢ over k blocks of neighbouring windows; the mean, where wᵢ counts the values of block i
//!     m = Σdᵢ / Σwᵢ     se² = k/(k−1) · Σ(dᵢ − m·wᵢ)² / (Σwᵢ)²     m ± t(1−α, k−1) · se
//! share p of n independent texts (Wilson 1927), z the normal quantile of 1 − α
//!     [p + z²/2n ± z·√(p(1−p)/n + z²/4n²)] / (1 + z²/n)
//! difference of two shares of the same n texts, b lost and c gained (Agresti and Min 2005)
//!     δ = (c−b)/(n+2)   se² = [(b+c+1) − (c−b)²/(n+2)] / (n+2)²     δ ± z · se
//! any change at all (McNemar's test by its mid-p; Fagerland, Lydersen and Laake 2013), X ~ Bin(b+c, ½)
//!     p = 2·P(X ≤ min(b,c)) − P(X = min(b,c))
//! samples that decide a limit, at the same spread
//!     n · [(z(1−α) + z(1−β)) · se / |limit − m|]²
//! ```
//!
//! Blocks, since the values of neighbouring windows of one text are not independent.

pub mod shift;

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, Discrete, DiscreteCDF, Normal, StudentsT};

/// Fewest blocks, or independent texts, that a limit is judged by.
pub const LEAST_DRAWS: usize = 8;
/// Blocks are as large as leaves this many.
const WANTED_BLOCKS: usize = 16;
/// Most windows of a block.
const LARGEST_BLOCK: usize = 8;

/// What one window, or one text, adds to a ratio of sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Draw {
    /// To the sum above: of the values of a mean.
    pub sum: f64,
    /// To the sum below: of a mean, how many values.
    pub weight: f64,
}

/// Whether a quantity must not exceed its limit, or must reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At most the limit.
    Max,
    /// At least the limit.
    Min,
}

/// What a measurement says about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The true value is on the good side of the limit.
    Passed,
    /// It is on the bad side.
    Missed,
    /// The limit lies between the bounds.
    Undecided,
}

/// A measured value between its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// As measured.
    pub value: f64,
    /// The true value is not below this.
    pub lower: f64,
    /// The true value is not above this.
    pub upper: f64,
    /// Standard error of the value.
    pub error: f64,
    /// Independent draws behind it: blocks, texts or pairs of runs.
    pub draws: usize,
}

/// How sure a verdict is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certainty {
    /// 1 − α, in (0.5, 1): a model that is on the bad side of a limit passes with at most α.
    pub confidence: f64,
    /// 1 − β, in (0.5, 1): with the number of samples that is said to be needed, a model as good as the one measured
    /// passes with at least this.
    pub power: f64,
}

/// Neighbouring windows put together: as many in a block as leave 16 blocks, at most 8.
pub fn blocks(windows: &[Draw]) -> Vec<Draw> {
    let size = (windows.len() / WANTED_BLOCKS).clamp(1, LARGEST_BLOCK);
    let sum = |block: &[Draw]| Draw {
        sum: block.iter().map(|window| window.sum).sum(),
        weight: block.iter().map(|window| window.weight).sum(),
    };
    windows.chunks(size).map(sum).collect()
}

impl Interval {
    /// A ratio of sums over blocks of windows, or over texts that are independent. `None` for fewer than two, or
    /// without any value.
    pub fn of_ratio(draws: &[Draw], confidence: f64) -> Option<Self> {
        if draws.len() < 2 {
            return None;
        }
        let total: f64 = draws.iter().map(|draw| draw.weight).sum();
        let value = draws.iter().map(|draw| draw.sum).sum::<f64>() / total;
        let spread: f64 = draws.iter().map(|draw| (draw.sum - value * draw.weight).powi(2)).sum();
        let count = draws.len() as f64;
        let error = (count / (count - 1.0) * spread).sqrt() / total;
        if !(error.is_finite() && value.is_finite()) {
            return None;
        }
        let reach = student_quantile(confidence, draws.len() - 1) * error;
        Some(Interval { value, lower: value - reach, upper: value + reach, error, draws: draws.len() })
    }

    /// A share of independent texts. `None` without texts.
    pub fn of_share(successes: usize, texts: usize, confidence: f64) -> Option<Self> {
        if texts == 0 {
            return None;
        }
        let (n, z) = (texts as f64, normal_quantile(confidence));
        let share = successes as f64 / n;
        let (middle, scale) = (share + z * z / (2.0 * n), 1.0 + z * z / n);
        let variance = share * (1.0 - share) / n;
        let reach = z * (variance + z * z / (4.0 * n * n)).sqrt();
        // Rounding must not take a bound past the value at 0 and 1.
        let (lower, upper) =
            (((middle - reach) / scale).max(0.0).min(share), ((middle + reach) / scale).min(1.0).max(share));
        Some(Interval { value: share, lower, upper, error: variance.sqrt(), draws: texts })
    }

    /// By how much a share of `texts` fell where `lost` of them were right before and are not now, and `gained` the
    /// other way round. `None` without texts.
    pub fn of_drop(lost: usize, gained: usize, texts: usize, confidence: f64) -> Option<Self> {
        if texts == 0 {
            return None;
        }
        let (lost, gained, n) = (lost as f64, gained as f64, texts as f64);
        let (drop, changed) = (lost - gained, lost + gained);
        let (middle, z) = (drop / (n + 2.0), normal_quantile(confidence));
        let error = (changed + 1.0 - drop * drop / (n + 2.0)).max(0.0).sqrt() / (n + 2.0);
        let (lower, upper) = ((middle - z * error).max(-1.0), (middle + z * error).min(1.0));
        Some(Interval { value: drop / n, lower, upper, error, draws: texts })
    }

    /// The same on another scale, by a function that rises.
    pub fn map(self, rising: impl Fn(f64) -> f64) -> Self {
        Interval { value: rising(self.value), lower: rising(self.lower), upper: rising(self.upper), ..self }
    }

    /// The bound that decides for a limit of this side.
    pub fn bound(&self, side: Side) -> f64 {
        match side {
            Side::Max => self.upper,
            Side::Min => self.lower,
        }
    }

    /// The verdict about a limit; one that is reached exactly holds.
    pub fn verdict(&self, limit: f64, side: Side) -> Verdict {
        let (good, bad) = match side {
            Side::Max => (self.upper <= limit, self.lower > limit),
            Side::Min => (self.lower >= limit, self.upper < limit),
        };
        match (good, bad) {
            (true, _) => Verdict::Passed,
            (false, true) => Verdict::Missed,
            (false, false) => Verdict::Undecided,
        }
    }

    /// How many of `samples` like those measured would decide the limit, were the measured value the true one; at
    /// least [`LEAST_DRAWS`]. `None` where the value is the limit itself and no number would.
    pub fn needed(&self, samples: u64, limit: f64, certainty: Certainty) -> Option<u64> {
        let distance = (limit - self.value).abs();
        let quantiles = normal_quantile(certainty.confidence) + normal_quantile(certainty.power);
        let needed = samples as f64 * (quantiles * self.error / distance).powi(2);
        // Beyond 2⁵³ no count is meant.
        (needed.is_finite() && needed < 9e15).then(|| (needed.ceil() as u64).max(LEAST_DRAWS as u64))
    }
}

/// How likely it is that as uneven a change of sides comes from chance alone: McNemar's test by its mid-p, two-sided.
pub fn mcnemar(lost: usize, gained: usize) -> f64 {
    let (fewer, changed) = (lost.min(gained) as u64, (lost + gained) as u64);
    match Binomial::new(0.5, changed) {
        Ok(binomial) if lost != gained => (2.0 * binomial.cdf(fewer) - binomial.pmf(fewer)).min(1.0),
        _ => 1.0,
    }
}

/// The value that a standard normal variable is below with this probability.
fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

/// Likewise of Student's t.
fn student_quantile(probability: f64, degrees: usize) -> f64 {
    match StudentsT::new(0.0, 1.0, degrees as f64) {
        Ok(student) => student.inverse_cdf(probability),
        // Without a degree of freedom nothing is known.
        Err(_) => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found}, expected {expected}");
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        near(normal_quantile(0.95), 1.644853627, 1e-8);
        near(normal_quantile(0.9), 1.281551566, 1e-8);
        let student = [(1, 6.313751515), (7, 1.894578605), (15, 1.753050356), (49, 1.676550893)];
        for (degrees, expected) in student {
            near(student_quantile(0.95, degrees), expected, 1e-6);
        }
    }

    #[test]
    fn blocks_keep_sixteen_and_every_window() {
        let window = |n| Draw { sum: f64::from(n), weight: 3.0 };
        for (windows, expected) in [(4, 4), (16, 16), (31, 31), (32, 16), (50, 17), (128, 16), (400, 50)] {
            let windows: Vec<Draw> = (0..windows).map(window).collect();
            let blocks = blocks(&windows);
            assert_eq!(blocks.len(), expected);
            assert_eq!(blocks.iter().map(|block| block.weight).sum::<f64>(), 3.0 * windows.len() as f64);
            near(blocks.iter().map(|block| block.sum).sum(), windows.iter().map(|window| window.sum).sum(), 1e-9);
        }
    }

    #[test]
    fn ratios_have_students_bounds() {
        let draws = [1.0, 2.0, 6.0].map(|mean| Draw { sum: mean * 10.0, weight: 10.0 });
        let interval = Interval::of_ratio(&draws, 0.95).expect("three draws");
        // Standard error √(7/3), t(0.95, 2) = 2.919985580.
        let reach = (7.0f64 / 3.0).sqrt() * 2.919985580;
        near(interval.upper, 3.0 + reach, 1e-6);
        near(interval.lower, 3.0 - reach, 1e-6);
        assert_eq!(Interval::of_ratio(&draws[..1], 0.95), None);
        assert_eq!(Interval::of_ratio(&[Draw::default(); 3], 0.95), None, "no value at all");
        let exact = Interval::of_ratio(&[Draw { sum: 2.0, weight: 2.0 }; 9], 0.95).expect("nine draws");
        assert_eq!((exact.lower, exact.value, exact.upper), (1.0, 1.0, 1.0));
        assert_eq!(exact.verdict(1.0, Side::Max), Verdict::Passed);
        assert_eq!(exact.verdict(0.999, Side::Max), Verdict::Missed);
    }

    #[test]
    fn shares_have_wilsons_bounds() {
        // The note's table: 0.95 measured is shown to be above this with as many texts.
        for (texts, lower) in [(100, 0.901), (300, 0.925), (1000, 0.937), (3000, 0.943)] {
            let interval = Interval::of_share(texts * 95 / 100, texts, 0.95).expect("texts");
            near(interval.lower, lower, 6e-4);
        }
        let all = Interval::of_share(20, 20, 0.95).expect("texts");
        assert_eq!((all.value, all.upper), (1.0, 1.0));
        near(all.lower, 20.0 / (20.0 + 1.644853627f64.powi(2)), 1e-9);
        assert_eq!(Interval::of_share(0, 0, 0.95), None);
    }

    #[test]
    fn drops_are_paired() {
        // b = 12, c = 4, n = 200: δ = 8/202, se = √(17 − 64/202)/202.
        let interval = Interval::of_drop(12, 4, 200, 0.95).expect("texts");
        near(interval.value, 0.04, 1e-12);
        let error = (17.0f64 - 64.0 / 202.0).sqrt() / 202.0;
        near(interval.upper, 8.0 / 202.0 + 1.644853627 * error, 1e-9);
        near(interval.lower, 8.0 / 202.0 - 1.644853627 * error, 1e-9);
        // Sixteen fair coins, four heads or fewer, half of exactly four: 2 · 2517/65536 − 1820/65536.
        near(mcnemar(12, 4), (2.0 * 2517.0 - 1820.0) / 65536.0, 1e-12);
        near(mcnemar(4, 12), mcnemar(12, 4), 0.0);
        assert_eq!((mcnemar(0, 0), mcnemar(5, 5)), (1.0, 1.0));
    }

    #[test]
    fn limits_between_the_bounds_are_undecided_and_need_more() {
        let interval = Interval { value: 0.05, lower: 0.045, upper: 0.055, error: 0.003, draws: 16 };
        let verdicts = [0.054, 0.055, 0.0449].map(|limit| interval.verdict(limit, Side::Max));
        assert_eq!(verdicts, [Verdict::Undecided, Verdict::Passed, Verdict::Missed]);
        let verdicts = [0.046, 0.045, 0.0551].map(|limit| interval.verdict(limit, Side::Min));
        assert_eq!(verdicts, [Verdict::Undecided, Verdict::Passed, Verdict::Missed]);
        let certainty = Certainty { confidence: 0.95, power: 0.9 };
        // 8.5638 · (0.003/0.004)² · 16 = 77.07.
        assert_eq!(interval.needed(16, 0.054, certainty), Some(78));
        assert_eq!(interval.needed(16, 1.0, certainty), Some(8));
        assert_eq!(interval.needed(16, 0.05, certainty), None);
    }
}
