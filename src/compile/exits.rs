//! When a text may leave a classifier before its last layer: a threshold on the margin of each exit head's logits, so that on
//! labelled texts as little is computed as a stated loss of accuracy allows. The margins are those of the integer runtime.
//!
//! ```text
//! leave at the first head with margin ≥ threshold        cost = layers computed + head_cost · exit heads computed
//! least mean cost with accuracy(leaving) ≥ accuracy(last head) − loss
//! ```
//!
//! Thresholds are taken from quantiles of the margins. For a price of an error the best of each head is found in turn, the
//! others being held, until none changes; the price is varied, and the cheapest choice within the loss is taken. What is left
//! of the loss is spent head by head.

use slm_runtime::format::exits::{ExitRecord, NEVER};

/// Quantiles of margins that are thresholds to choose from.
const QUANTILES: usize = 64;
/// Prices of an error that are tried, in layers of one text: from a 16th on, each √2 of the one before.
const PRICES: usize = 48;
/// Rounds over the heads for one price.
const ROUNDS: usize = 8;

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

    /// Thresholds of one head to choose from, descending.
    fn candidates(&self, exit: usize) -> Vec<u32> {
        let mut margins: Vec<u32> = self.texts.iter().map(|text| text.exits[exit].0).collect();
        margins.sort_unstable();
        let quantile = |n: usize| margins.get((n * margins.len() / QUANTILES).min(margins.len() - 1)).copied();
        let mut all: Vec<u32> =
            if margins.is_empty() { Vec::new() } else { (0..QUANTILES).filter_map(quantile).collect() };
        all.push(NEVER);
        all.sort_unstable();
        all.dedup();
        all.reverse();
        all
    }

    /// The best choice whose accuracy on counted texts is at most `loss` (a share) below the last head's.
    pub fn choose(&self, loss: f64) -> Choice {
        let counted = self.texts.iter().filter(|text| text.counted).count();
        let never = vec![NEVER; self.exits.len()];
        let start = self.judge(&never);
        let allowed = start.2 + (loss * counted as f64).floor() as usize;
        let candidates: Vec<Vec<u32>> = (0..self.exits.len()).map(|exit| self.candidates(exit)).collect();
        let mut best = (start.0, never.clone());
        let count = self.texts.len().max(1) as f64;
        let mut thresholds = never;
        for price in 0..PRICES {
            // From dear errors to cheap ones, so that each choice begins at its neighbour's.
            let price = 0.0625 * libm::pow(2.0, (PRICES - 1 - price) as f64 / 2.0);
            let value = |(cost, _, errors): (f64, f64, usize)| cost + price * errors as f64 / count;
            for _ in 0..ROUNDS {
                let before = thresholds.clone();
                for (exit, bounds) in candidates.iter().enumerate() {
                    let mut cheapest: Option<(f64, u32)> = None;
                    for &bound in bounds {
                        thresholds[exit] = bound;
                        let value = value(self.judge(&thresholds));
                        if cheapest.is_none_or(|(least, _)| value < least) {
                            cheapest = Some((value, bound));
                        }
                    }
                    thresholds[exit] = cheapest.map_or(NEVER, |(_, bound)| bound);
                }
                if thresholds == before {
                    break;
                }
            }
            let (cost, _, errors) = self.judge(&thresholds);
            if errors <= allowed && cost < best.0 {
                best = (cost, thresholds.clone());
            }
        }
        self.spend(best, &candidates, allowed)
    }

    /// Changes one threshold after the other while that lowers the cost and keeps the errors allowed.
    fn spend(&self, (mut cost, mut best): (f64, Vec<u32>), candidates: &[Vec<u32>], allowed: usize) -> Choice {
        loop {
            let mut better: Option<(f64, Vec<u32>)> = None;
            for (exit, bounds) in candidates.iter().enumerate() {
                for &bound in bounds {
                    let mut thresholds = best.clone();
                    thresholds[exit] = bound;
                    let (value, _, errors) = self.judge(&thresholds);
                    if errors <= allowed && value < better.as_ref().map_or(cost, |(least, _)| *least) {
                        better = Some((value, thresholds));
                    }
                }
            }
            match better {
                Some((value, thresholds)) => (cost, best) = (value, thresholds),
                None => return self.judged(best),
            }
        }
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
