//! Rotary positions: element i of a head is paired with i + head_dim/2, and pair i turns by position · frequency i. Every
//! scaling that does not depend on the length of a text is a divisor of each frequency and one factor on cos and sin. Where
//! only the first elements of a head turn, slmc holds the rows of queries and keys in another order than files
//! (`HeadOrder` of the families): the pairs that turn come first, those after them have frequency 0.

use std::f64::consts::PI;

/// Frequencies of rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotarySpec {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Elements of a head that turn, where not all do; an even number below the width of the head.
    pub turning: Option<usize>,
    /// What divides the frequencies.
    pub scaling: Option<RotaryScaling>,
    /// Factor on cos and sin of the pairs that turn; 1 for most.
    pub factor: f64,
}

/// Divisors of frequencies, pair by pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// The same for every pair.
    Linear(f64),
    /// Llama 3's.
    Llama3(Llama3Scaling),
    /// YaRN's.
    Yarn(YarnScaling),
    /// A divisor for each pair that turns.
    Listed(Divisors),
}

/// inv · (mix + (1 − mix) / factor), mix = clip((original / wavelength − low) / (high − low), 0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How much the lowest frequencies are stretched.
    pub factor: f64,
    /// Wavelengths above original / low are stretched whole.
    pub low_frequency_factor: f64,
    /// Wavelengths below original / high are left alone.
    pub high_frequency_factor: f64,
    /// Context the checkpoint was first trained for.
    pub original_context: usize,
}

/// inv · (1 − ramp) + inv / factor · ramp, ramp = clip((pair − low) / (high − low), 0, 1). The bounds are the pairs that turn
/// `fast` and `slow` times in the original context: pair(n) = turning · ln(original / 2πn) / (2 ln θ).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// How much the lowest frequencies are stretched.
    pub factor: f64,
    /// Turns in the original context above which a pair is left alone.
    pub fast: f64,
    /// Turns below which it is stretched whole.
    pub slow: f64,
    /// Whether the bounds are rounded to whole pairs, outwards.
    pub truncate: bool,
    /// Context the checkpoint was first trained for.
    pub original_context: usize,
}

impl YarnScaling {
    /// \[low, high\] of the ramp.
    fn bounds(&self, theta: f64, turning: usize) -> [f64; 2] {
        let original = self.original_context as f64;
        let pair = |turns: f64| turning as f64 * libm::log(original / (2.0 * PI * turns)) / (2.0 * libm::log(theta));
        let (mut low, mut high) = (pair(self.fast), pair(self.slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(turning as f64 - 1.0));
        // As transformers keeps the quotient finite.
        [low, if low == high { high + 0.001 } else { high }]
    }
}

/// A list of divisors that lives as long as the process, so that what holds it is copied as any number is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divisors(&'static [f64]);

impl Divisors {
    /// A list that is equal to an earlier one takes no memory of its own.
    pub fn of(list: &[f64]) -> Self {
        static KNOWN: std::sync::Mutex<Vec<&'static [f64]>> = std::sync::Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let same = |other: &&&'static [f64]| {
            other.len() == list.len() && other.iter().zip(list).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let found = known.iter().find(same).copied();
        Divisors(found.unwrap_or_else(|| {
            let held: &'static [f64] = Box::leak(list.to_vec().into_boxed_slice());
            known.push(held);
            held
        }))
    }

    /// The divisors, one for each pair that turns.
    pub fn list(self) -> &'static [f64] {
        self.0
    }
}

impl RotarySpec {
    /// Whole heads by the series of a base alone.
    pub fn plain(theta: f64) -> Self {
        RotarySpec { theta, turning: None, scaling: None, factor: 1.0 }
    }

    /// Pairs that turn.
    fn turning_pairs(&self, head_dim: usize) -> usize {
        self.turning.unwrap_or(head_dim) / 2
    }

    /// Angular frequencies of the pairs of a head, (head_dim / 2), by `libm`: the same on every build machine.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let turning = self.turning.unwrap_or(head_dim);
        let ramp = match self.scaling {
            Some(RotaryScaling::Yarn(yarn)) => yarn.bounds(self.theta, turning),
            _ => [0.0, 1.0],
        };
        let mut out = vec![0.0; head_dim / 2];
        for (pair, out) in out.iter_mut().enumerate().take(self.turning_pairs(head_dim)) {
            let frequency = libm::pow(self.theta, -((2 * pair) as f64) / turning as f64);
            *out = match self.scaling {
                None => frequency,
                Some(RotaryScaling::Linear(divisor)) => frequency / divisor,
                Some(RotaryScaling::Listed(divisors)) => frequency / divisors.list().get(pair).copied().unwrap_or(1.0),
                Some(RotaryScaling::Llama3(scaling)) => {
                    let wavelength = 2.0 * PI / frequency;
                    let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
                    let mix = ((scaling.original_context as f64 / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (mix + (1.0 - mix) / scaling.factor)
                }
                Some(RotaryScaling::Yarn(yarn)) => {
                    let share = ((pair as f64 - ramp[0]) / (ramp[1] - ramp[0])).clamp(0.0, 1.0);
                    frequency * (1.0 - share) + frequency / yarn.factor * share
                }
            };
        }
        out
    }

    /// Factors on cos and sin of the pairs of a head, (head_dim / 2): 1 of those that do not turn.
    pub fn factors(&self, head_dim: usize) -> Vec<f64> {
        let turning = self.turning_pairs(head_dim);
        (0..head_dim / 2).map(|pair| if pair < turning { self.factor } else { 1.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_do_not_turn_have_frequency_zero_and_factor_one() {
        let rotary = RotarySpec { turning: Some(4), factor: 1.5, ..RotarySpec::plain(100.0) };
        assert_eq!(rotary.frequencies(10), [1.0, 0.1, 0.0, 0.0, 0.0]);
        assert_eq!(rotary.factors(10), [1.5, 1.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn yarn_leaves_fast_pairs_and_stretches_slow_ones() {
        let yarn = |truncate| YarnScaling { factor: 8.0, fast: 32.0, slow: 1.0, truncate, original_context: 4096 };
        let spec =
            |truncate| RotarySpec { scaling: Some(RotaryScaling::Yarn(yarn(truncate))), ..RotarySpec::plain(10_000.0) };
        let plain = RotarySpec::plain(10_000.0).frequencies(64);
        let scaled = spec(true).frequencies(64);
        assert_eq!((scaled[0], scaled[5]), (plain[0], plain[5]));
        assert_eq!(scaled[31], plain[31] / 8.0);
        let between = plain.iter().zip(&scaled).all(|(plain, scaled)| (plain / 8.0..=*plain).contains(scaled));
        assert!(between, "{scaled:?}");
        assert_ne!(spec(false).frequencies(64), scaled);
    }

    #[test]
    fn equal_lists_are_held_once() {
        let (a, b, c) = (Divisors::of(&[1.0, 2.0]), Divisors::of(&[1.0, 2.0]), Divisors::of(&[1.0, 3.0]));
        assert!(std::ptr::eq(a.list(), b.list()) && a == b && a != c);
    }
}
