//! The order of a feed-forward network's channels in which N:M keeps most of its last matrix. A channel is a row of gate and up
//! and a column of down, so that the network computes the same in any order, and down loses least where channels that stand
//! in one group of M are large in different rows. Pairs of channels of different groups change places where more is kept
//! afterwards (Pool & Yu 2021, greedy channel swaps); which pairs are tried follows from their number alone.
//!
//! ```text
//! kept = Σ over rows and groups of the N largest h w² in the group      h the mean square of the channel
//! ```

use super::PruneError;
use crate::calibrate::Statistics;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::matrix::{from_rows, row_major};
use crate::model::transform::NmPattern;
use crate::model::weights::Model;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::Serialize;
use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;

/// Pairs tried for each channel.
const TRIALS: usize = 256;
/// Most products of rows and pairs: wider networks get fewer trials.
const MOST_WORK: usize = 1 << 31;

/// What a new order of channels did to one last matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ordered {
    /// Which.
    #[serde(rename = "name", serialize_with = "super::as_displayed")]
    pub id: LinearId,
    /// Share of Σ h w² that the pattern removes in the order the channels came in.
    pub removed_before: f64,
    /// The same in the order they have now.
    pub removed_after: f64,
}

/// Puts the channels of every network whose last matrix is selected into the order in which the pattern keeps most of it.
///
/// # Errors
/// Weights that cannot be read.
pub fn order_channels(
    model: Model,
    selected: &[LinearId],
    pattern: NmPattern,
    statistics: Option<&Statistics>,
) -> Result<(Model, Vec<Ordered>), PruneError> {
    // Channels of a mixture stay with their expert.
    let may_move = |id: &LinearId| id.role == Role::Down && model.spec.mixture(*id).is_none();
    let downs: Vec<LinearId> = selected.iter().copied().filter(may_move).collect();
    let changed = downs.into_par_iter().map(|id| {
        let weights = model.matrix(id)?;
        let importance = statistics.and_then(|all| all.linears.get(&id)).map(|of| of.mean_square.as_slice());
        let mut channels = Channels::new(weights.view(), importance, pattern);
        let before = channels.removed();
        channels.improve();
        let ordered = Ordered { id, removed_before: before, removed_after: channels.removed() };
        Ok((in_order(&model, id, weights, &channels.order)?, ordered))
    });
    let changed: Vec<_> = changed.collect::<Result<_, PruneError>>()?;
    let (mut values, mut all) = (BTreeMap::new(), Vec::new());
    for (of_network, ordered) in changed {
        values.extend(of_network);
        all.push(ordered);
    }
    Ok((model.with_values(values)?, all))
}

/// The values of a network with its channels in `order`: at each place, the number of the channel that stands there.
fn in_order(
    model: &Model,
    down: LinearId,
    weights: Array2<f32>,
    order: &[usize],
) -> Result<BTreeMap<ParameterId, Vec<f32>>, PruneError> {
    let mut values = BTreeMap::new();
    let of_row = |row: &[f32]| order.iter().map(|&channel| row[channel]).collect::<Vec<_>>();
    let rows = row_major(weights.view()).chunks_exact(order.len());
    values.insert(ParameterId::weight(down), rows.flat_map(of_row).collect());
    for role in [Role::Gate, Role::Up] {
        let id = LinearId { role, ..down };
        let (weight, bias) = (ParameterId::weight(id), ParameterId::Linear(id, Part::Bias));
        if model.parameters.contains_key(&weight) {
            let columns = model.matrix(id)?;
            let rows: Vec<&[f32]> = row_major(columns.view()).chunks_exact(columns.ncols()).collect();
            values.insert(weight, order.iter().flat_map(|&channel| rows[channel]).copied().collect());
        }
        if model.parameters.contains_key(&bias) {
            values.insert(bias, of_row(&model.values_f32(bias)?));
        }
    }
    Ok(values)
}

/// The columns of a matrix, in groups.
struct Channels {
    /// h w², (channels, rows): the columns one after the other.
    energies: Array2<f32>,
    pattern: NmPattern,
    /// At each place, the number of the channel that stands there.
    order: Vec<usize>,
}

impl Channels {
    fn new(weights: ArrayView2<'_, f32>, importance: Option<&[f64]>, pattern: NmPattern) -> Self {
        let rows = weights.nrows();
        let column = |channel: usize| {
            let h = importance.map_or(1.0, |importance| importance[channel]);
            weights.column(channel).iter().map(|w| (h * f64::from(*w) * f64::from(*w)) as f32).collect::<Vec<_>>()
        };
        let energies = from_rows((0..weights.ncols()).flat_map(column).collect(), rows);
        Channels { energies, pattern, order: (0..weights.ncols()).collect() }
    }

    /// Share of the energy that the pattern removes.
    fn removed(&self) -> f64 {
        let all: f64 = row_major(self.energies.view()).iter().map(|e| f64::from(*e)).sum();
        let kept: f64 = self.order.chunks(self.pattern.of()).map(|group| self.kept(group)).sum();
        if all > 0.0 { (1.0 - kept / all).max(0.0) } else { 0.0 }
    }

    /// Energy that the pattern keeps of a group of channels.
    fn kept(&self, group: &[usize]) -> f64 {
        let rows = row_major(self.energies.view());
        let many = self.energies.ncols();
        let column = |channel: &usize| &rows[channel * many..][..many];
        if let (true, [a, b, c, d]) = (self.pattern.is_two_of_four(), group) {
            let [a, b, c, d] = [a, b, c, d].map(column);
            return two_of_four([a, b, c, d]);
        }
        let columns: Vec<&[f32]> = group.iter().map(column).collect();
        let largest = |row: usize| {
            let mut energies: Vec<f32> = columns.iter().map(|column| column[row]).collect();
            energies.sort_by(|a, b| b.total_cmp(a));
            energies.iter().take(self.pattern.keep()).map(|e| f64::from(*e)).sum::<f64>()
        };
        (0..many).map(largest).sum()
    }

    /// Swaps that keep more.
    fn improve(&mut self) {
        let (channels, rows) = (self.order.len(), self.energies.ncols());
        let size = self.pattern.of();
        let trials = (TRIALS * channels).min(MOST_WORK / (rows * size).max(1));
        let mut kept: Vec<f64> = self.order.chunks(size).map(|group| self.kept(group)).collect();
        for trial in 0..trials as u64 {
            let draw = random_u64(0, trial);
            let pair = [(draw >> 32) as usize % channels, draw as u32 as usize % channels];
            let groups = pair.map(|place| place / size);
            if groups[0] == groups[1] {
                continue;
            }
            self.order.swap(pair[0], pair[1]);
            let now = groups.map(|group| self.kept(&self.order[group * size..][..size]));
            if now[0] + now[1] > kept[groups[0]] + kept[groups[1]] {
                (kept[groups[0]], kept[groups[1]]) = (now[0], now[1]);
            } else {
                self.order.swap(pair[0], pair[1]);
            }
        }
    }
}

/// Σ over rows of the two largest of four.
fn two_of_four([a, b, c, d]: [&[f32]; 4]) -> f64 {
    let rows = a.iter().zip(b).zip(c.iter().zip(d));
    let kept = rows.map(|((a, b), (c, d))| {
        let ([high, low], [other_high, other_low]) = ([a.max(*b), a.min(*b)], [c.max(*d), c.min(*d)]);
        f64::from(high.max(other_high)) + f64::from(high.min(other_high).max(low.max(other_low)))
    });
    kept.sum()
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;
    use ndarray::Axis;

    #[test]
    fn large_channels_are_spread_over_groups() {
        // Two groups of four: all that is large stands in the first, in every row.
        let weights = Array2::from_shape_fn((3, 8), |(_, column)| if column < 4 { 10.0 } else { 0.1 });
        let mut channels = Channels::new(weights.view(), None, NmPattern::TWO_OF_FOUR);
        assert!((channels.removed() - 0.5).abs() < 0.01, "{}", channels.removed());
        channels.improve();
        assert!(channels.removed() < 0.01, "{}", channels.removed());
    }

    #[test]
    fn every_pattern_keeps_no_less_than_before() {
        let weights = random(3, 40, 96);
        for pattern in ["2:4", "1:4", "3:4", "4:8", "2:16"] {
            let pattern: NmPattern = pattern.parse().expect("a pattern");
            let mut channels = Channels::new(weights.view(), None, pattern);
            let before = channels.removed();
            channels.improve();
            assert!(channels.removed() < before, "{pattern}: {before}");
            let mut sorted = channels.order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..96), "{pattern}: a permutation");
        }
    }

    #[test]
    fn two_of_four_is_the_sum_of_the_two_largest() {
        let weights = random(5, 33, 4);
        let channels = Channels::new(weights.view(), None, NmPattern::TWO_OF_FOUR);
        let expected: f64 = channels.energies.axis_iter(Axis(1)).fold(0.0, |sum, row| {
            let mut row: Vec<f32> = row.to_vec();
            row.sort_by(f32::total_cmp);
            sum + f64::from(row[2]) + f64::from(row[3])
        });
        assert!((channels.kept(&[0, 1, 2, 3]) - expected).abs() < 1e-9);
    }
}
