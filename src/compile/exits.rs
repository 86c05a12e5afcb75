//! When a text may leave a classifier before its last layer: a threshold on the margin of each exit head's logits, so that on
//! labelled texts as little is computed as a stated loss of accuracy allows. The margins are those of the integer runtime.
//!
//! ```text
//! leave at the first head h with margin ≥ c · T_h        cost = layers computed + head_cost · exit heads computed
//! T_h   = argmin mean (−t ln q − (1 − t) ln (1 − q)),  q = 1 / (1 + exp(−margin / T_h)), t Platt's target of right or wrong
//! least mean cost over c and sets of heads with accuracy(leaving) ≥ accuracy(last head) − loss
//! ```
//!
//! T_h is the scale on which a margin of head h says how often it is right, so that one number c asks the same of every head
//! (DeeBERT's one threshold, Xin et al. 2020). A threshold of its own for each would lose less on these texts and more on
//! others: the heads' errors are few, and the least of many sums is an accident.

use crate::confidence::golden_section;
use slm_runtime::format::exits::{ExitRecord, NEVER};

/// Quantiles of margins over T that are values of c to choose from.
const QUANTILES: usize = 256;
/// Heads up to which every set of them is tried; of more all are used.
const MOST_IN_SETS: usize = 6;
/// Smallest and largest T, in 1/65536 of a logit.
const SCALES: [f64; 2] = [256.0, 16_777_216.0];
/// Steps of the golden section over ln T.
const STEPS: usize = 40;

/// What the heads say of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Of each exit head, its margin and whether its label is right.
    pub exits: Vec<(u32, bool)>,
    /// Whether the last head's label is right.
    pub right: bool,
    /// Whether the text is counted in the accuracy.
    pub counted: bool,
}

/// A choice of thresholds with what it comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// By exit head.
    pub thresholds: Vec<u32>,
    /// Mean over texts.
    pub layers: f64,
    /// Counted texts with a wrong label.
    pub errors: usize,
}

/// The texts and what their heads cost.
pub struct Choosing<'c> {
    /// After how many layers exit heads stand.
    pub exits: &'c [usize],
    /// Layers of the model.
    pub layers: usize,
    /// Cost of an exit head, in layers.
    pub head_cost: f64,
    /// The texts.
    pub texts: &'c [Heads],
}

impl Choosing<'_> {
    /// Which head a text leaves at; the number of exits for the last.
    pub fn leaves(thresholds: &[u32], text: &Heads) -> usize {
        let at = text.exits.iter().zip(thresholds).position(|((margin, _), &bound)| bound != NEVER && *margin >= bound);
        at.unwrap_or(thresholds.len())
    }

    /// (mean cost, mean layers, errors) of a choice.
    fn judge(&self, thresholds: &[u32]) -> (f64, f64, usize) {
        let (mut cost, mut layers, mut errors) = (0.0, 0usize, 0);
        // Heads that nobody leaves at are not computed.
        let used: Vec<usize> = thresholds
            .iter()
            .scan(0, |used, &bound| {
                *used += usize::from(bound != NEVER);
                Some(*used)
            })
            .collect();
        for text in self.texts {
            let at = Self::leaves(thresholds, text);
            let right = text.exits.get(at).map_or(text.right, |(_, right)| *right);
            let depth = self.exits.get(at).copied().unwrap_or(self.layers);
            let heads = used.get(at).or(used.last()).copied().unwrap_or(0);
            layers += depth;
            cost += depth as f64 + self.head_cost * heads as f64;
            errors += usize::from(text.counted && !right);
        }
        let count = self.texts.len().max(1) as f64;
        (cost / count, layers as f64 / count, errors)
    }

    /// What thresholds come to.
    pub fn judged(&self, thresholds: Vec<u32>) -> Choice {
        let (_, layers, errors) = self.judge(&thresholds);
        Choice { thresholds, layers, errors }
    }

    /// T of an exit head.
    fn scale(&self, exit: usize) -> f64 {
        let right = self.texts.iter().filter(|text| text.exits[exit].1).count() as f64;
        let wrong = self.texts.len() as f64 - right;
        let (of_right, of_wrong) = ((right + 1.0) / (right + 2.0), 1.0 / (wrong + 2.0));
        let cost = |at: f64| -> f64 {
            let scale = libm::exp(at);
            let surprise = |text: &Heads| {
                let (margin, right) = text.exits[exit];
                let ratio = f64::from(margin) / scale;
                let (q, not_q) = (libm::log1p(libm::exp(-ratio)), ratio + libm::log1p(libm::exp(-ratio)));
                let target = if right { of_right } else { of_wrong };
                target * q + (1.0 - target) * not_q
            };
            self.texts.iter().map(surprise).sum()
        };
        libm::exp(golden_section(SCALES.map(libm::log), STEPS, cost))
    }

    /// The best choice whose accuracy on counted texts is at most `loss` (a share) below the last head's.
    pub fn choose(&self, loss: f64) -> Choice {
        let counted = self.texts.iter().filter(|text| text.counted).count();
        let exits = self.exits.len();
        let never = vec![NEVER; exits];
        let start = self.judge(&never);
        let allowed = start.2 + (loss * counted as f64).floor() as usize;
        let scales: Vec<f64> = (0..exits).map(|exit| self.scale(exit)).collect();
        let margins = self.texts.iter().flat_map(|text| text.exits.iter().zip(&scales));
        let mut ratios: Vec<f64> = margins.map(|((margin, _), scale)| f64::from(*margin) / scale).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let quantile = |n: usize| ratios.get(n * ratios.len() / QUANTILES).copied();
        let mut values: Vec<f64> = (0..QUANTILES).filter_map(quantile).chain([0.0]).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        let sets = if exits <= MOST_IN_SETS { 1..1u64 << exits } else { u64::MAX..u64::MAX };
        let mut best = (start.0, never);
        for set in sets.chain((exits > MOST_IN_SETS).then_some(u64::MAX)) {
            for value in &values {
                let bound = |exit: usize| match set >> exit.min(63) & 1 {
                    // Rounded up: who is as sure as asked leaves.
                    1 => (value * scales[exit]).ceil().min(f64::from(NEVER - 1)) as u32,
                    _ => NEVER,
                };
                let thresholds: Vec<u32> = (0..exits).map(bound).collect();
                let (cost, _, errors) = self.judge(&thresholds);
                if errors <= allowed && cost < best.0 {
                    best = (cost, thresholds);
                }
            }
        }
        self.judged(best.1)
    }
}

/// The section: a record for each exit head and one for the last.
pub fn exits_section(exits: &[usize], layers: usize, thresholds: &[u32], inverse_temperatures: &[f32]) -> Vec<u8> {
    let heads = exits.iter().copied().zip(thresholds.iter().copied()).chain([(layers, 0)]);
    let record = |((layers, threshold), &inverse_temperature): ((usize, u32), &f32)| {
        ExitRecord { layers: layers as u32, threshold, inverse_temperature, reserved: 0 }.to_bytes()
    };
    heads.zip(inverse_temperatures).flat_map(record).collect()
}

/// Bytes of the section of a model with so many exit heads.
pub fn section_bytes(exits: usize) -> u64 {
    ((exits + 1) * ExitRecord::BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts whose first head is right where its margin is above 50, and whose second is right but for a tenth.
    fn texts() -> Vec<Heads> {
        let text = |n: u32| Heads {
            exits: vec![(n, n >= 50), (n + 1000, !n.is_multiple_of(10) || n >= 50)],
            right: n != 7,
            counted: true,
        };
        (0..100).map(text).collect()
    }

    #[test]
    fn least_is_computed_within_the_loss() {
        let texts = texts();
        let choosing = Choosing { exits: &[1, 2], layers: 6, head_cost: 0.0, texts: &texts };
        let exact = choosing.choose(0.0);
        assert!(exact.errors <= 1, "{exact:?}");
        // Half of the texts may leave at the first head; of the others those at the second that is right.
        assert!(exact.layers <= 3.6, "{exact:?}");
        let mut before = exact.layers;
        for loss in [0.01, 0.05, 0.2, 0.5] {
            let choice = choosing.choose(loss);
            assert!(choice.errors <= 1 + (loss * 100.0) as usize, "{loss}: {choice:?}");
            assert!(choice.layers <= before, "{loss}: {choice:?}");
            before = choice.layers;
        }
        assert_eq!(before, 1.0, "half of the answers may be wrong");
    }

    #[test]
    fn heads_that_are_never_right_are_never_left_at() {
        let text = |n: u32| Heads { exits: vec![(n, false)], right: true, counted: true };
        let texts: Vec<Heads> = (0..50).map(text).collect();
        let choice = Choosing { exits: &[1], layers: 2, head_cost: 0.1, texts: &texts }.choose(0.01);
        assert_eq!(choice, Choice { thresholds: vec![NEVER], layers: 2.0, errors: 0 });
    }
}
