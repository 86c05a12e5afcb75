//! Swaps at equal bytes. The knapsack adds up the costs of matrices alone; together they cost more or less than that. So its
//! selection is run whole, and then neighbours of it are: one item raised to a larger coding, up to two others lowered to
//! pay for it, never beyond the limits. A neighbour is taken when its measured cost is lower by more than the standard
//! error of the paired difference over the sequences; the search goes on from it, until none is or the trials are used.
//! One that costs more on the first sequences, by twice that error, is not run on the others.

use super::database::Database;
use super::error::AllocationError;
use super::items::{Coding, Item, Items};
use super::limits::Limits;
use super::probe::{Probe, Samples};
use crate::divergence::{Sample, mean_and_error};
use crate::progress::Progress;
use std::collections::BTreeSet;

/// Neighbours that are run in all.
const TRIALS: usize = 48;
/// Neighbours that are run around one selection before it stands.
const AROUND: usize = 16;

/// A swap that was taken.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Swap {
    /// Items that went to another coding: name, from, to.
    pub changes: Vec<(String, String, String)>,
    /// Cost after it.
    pub cost: f64,
    /// By how much it fell.
    pub gain: f64,
    /// Standard error of that, over pairs of sequences.
    pub gain_stderr: f64,
}

/// Where the search ended.
pub struct Improved {
    /// Coding of every item.
    pub selection: Vec<usize>,
    /// Costs of the selection, by sequence.
    pub samples: Samples,
    /// In order.
    pub swaps: Vec<Swap>,
    /// Neighbours that were run.
    pub trials: usize,
}

/// Searches around `selection`, which costs `samples`; `costs` are those of items alone, `[item][coding]`, and order the
/// trials.
#[expect(clippy::too_many_arguments, reason = "the inputs of one search, each used once")]
pub fn improve(
    probe: &Probe<'_>,
    items: &Items,
    database: &Database,
    costs: &[Vec<f64>],
    limits: &Limits,
    selection: Vec<usize>,
    samples: Samples,
    progress: &dyn Progress,
) -> Result<Improved, AllocationError> {
    progress.begin("trying swaps at equal bytes", TRIALS as u64, "assignments");
    let (first, rest) = (probe.first(), probe.first().end..probe.all().end);
    let mut tried = BTreeSet::from([selection.clone()]);
    let (mut selection, mut samples, mut swaps, mut trials) = (selection, samples, Vec::new(), 0);
    'search: loop {
        let mut around = 0;
        for neighbour in neighbours(items, costs, limits, &selection) {
            if trials == TRIALS || around == AROUND {
                break 'search;
            }
            if !tried.insert(neighbour.clone()) {
                continue;
            }
            let mut found = probe.assignment(&items.items, &neighbour, database, first.clone())?;
            (trials, around) = (trials + 1, around + 1);
            progress.advance(1);
            let (gain, gain_stderr) = paired(&samples[first.clone()], &found);
            if gain + 2.0 * gain_stderr < 0.0 {
                continue;
            }
            found.extend(probe.assignment(&items.items, &neighbour, database, rest.clone())?);
            let (gain, gain_stderr) = paired(&samples, &found);
            if gain > 0.0 && gain > gain_stderr {
                let cost = mean_and_error(&found).0;
                progress.figures(&format_args!("{} {cost:.6}", probe.unit()));
                swaps.push(Swap { changes: changes(items, &selection, &neighbour), cost, gain, gain_stderr });
                (selection, samples) = (neighbour, found);
                continue 'search;
            }
        }
        break;
    }
    progress.finish();
    Ok(Improved { selection, samples, swaps, trials })
}

/// Mean of before − after, and its standard error with sequences as the independent draws.
pub fn paired(before: &[Sample], after: &[Sample]) -> (f64, f64) {
    let differences: Vec<Sample> =
        before.iter().zip(after).map(|(a, b)| Sample { sum: a.sum - b.sum, count: a.count }).collect();
    let (mean, error) = mean_and_error(&differences);
    (mean, error.unwrap_or(f64::INFINITY))
}

fn changes(items: &Items, from: &[usize], to: &[usize]) -> Vec<(String, String, String)> {
    let moved = items.items.iter().zip(from.iter().zip(to)).filter(|(_, (from, to))| from != to);
    let scheme = |item: &Item, coding: usize| item.codings[coding].scheme.to_string();
    moved.map(|(item, (&from, &to))| (item.name.clone(), scheme(item, from), scheme(item, to))).collect()
}

/// Another coding of one item.
#[derive(Clone, Copy)]
struct Move {
    item: usize,
    coding: usize,
    /// Bytes, time and cost that it takes more.
    bytes: i64,
    time: i64,
    cost: f64,
}

/// Selections one swap away that keep the limits, those of least predicted cost first.
fn neighbours(items: &Items, costs: &[Vec<f64>], limits: &Limits, selection: &[usize]) -> Vec<Vec<usize>> {
    let moves: Vec<Move> = items
        .items
        .iter()
        .enumerate()
        .flat_map(|(n, item)| {
            let now = selection[n];
            let others = (0..item.codings.len()).filter(move |&coding| coding != now);
            others.map(move |coding| {
                let more = |of: fn(&Coding) -> u64| of(&item.codings[coding]) as i64 - of(&item.codings[now]) as i64;
                let (bytes, time) = (more(|coding| coding.bytes), more(|coding| coding.time));
                Move { item: n, coding, bytes, time, cost: costs[n][coding] - costs[n][now] }
            })
        })
        .collect();
    // A limit beyond what is counted is none.
    let left = |limit: u64, taken: u64| i64::try_from(limit).unwrap_or(i64::MAX) - taken as i64;
    let bytes_left = left(limits.bytes, items.bytes(selection));
    let time_left = left(limits.time.unwrap_or(u64::MAX), items.time(selection));
    // There are many: of a deep model's some of the cheapest are made into selections.
    let mut found = Cheapest::default();
    let mut add = |taken: &[&Move]| {
        let apart = (1..taken.len()).all(|n| taken[..n].iter().all(|other| other.item != taken[n].item));
        let fits = taken.iter().map(|taken| taken.bytes).sum::<i64>() <= bytes_left
            && taken.iter().map(|taken| taken.time).sum::<i64>() <= time_left;
        if apart && fits {
            let neighbour = || {
                let mut neighbour = selection.to_vec();
                taken.iter().for_each(|taken| neighbour[taken.item] = taken.coding);
                neighbour
            };
            found.add(taken.iter().map(|taken| taken.cost).sum(), neighbour);
        }
    };
    let (raises, lowers): (Vec<_>, Vec<_>) = moves.iter().partition(|taken| taken.bytes > 0);
    for (n, &raise) in raises.iter().enumerate() {
        add(&[raise]);
        for (m, &lower) in lowers.iter().enumerate() {
            add(&[raise, lower]);
            raises[..n].iter().for_each(|&second| add(&[second, raise, lower]));
            lowers[..m].iter().for_each(|&second| add(&[raise, second, lower]));
        }
    }
    found.in_order()
}

/// Neighbours that are kept of one selection: no search looks at more, since each is tried once.
const KEPT: usize = 4 * TRIALS;

/// The cheapest neighbours seen so far, of equal cost those of the least codings.
#[derive(Default)]
struct Cheapest {
    found: Vec<(f64, Vec<usize>)>,
    /// No cost above it is among the [`KEPT`] least.
    bound: Option<f64>,
}

impl Cheapest {
    fn add(&mut self, cost: f64, neighbour: impl FnOnce() -> Vec<usize>) {
        if self.bound.is_some_and(|bound| cost > bound) {
            return;
        }
        self.found.push((cost, neighbour()));
        if self.found.len() == 16 * KEPT {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        self.found.dedup();
        self.found.truncate(KEPT);
        if let (KEPT, Some((last, _))) = (self.found.len(), self.found.last()) {
            self.bound = Some(*last);
        }
    }

    fn in_order(mut self) -> Vec<Vec<usize>> {
        self.cut();
        self.found.into_iter().map(|(_, neighbour)| neighbour).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, Role};
    use crate::model::scheme::QuantScheme;

    #[test]
    fn neighbours_fit_and_the_cheapest_comes_first() {
        let item = |layer, large, small| Item {
            name: format!("{layer}"),
            members: vec![LinearId::layer(layer, Role::Down)],
            codings: vec![
                Coding { scheme: QuantScheme::W8, bytes: large, time: 2 * large },
                Coding { scheme: QuantScheme::W4G32, bytes: small, time: 2 * small },
            ],
        };
        let items =
            Items { items: vec![item(0, 10, 5), item(1, 10, 5), item(2, 20, 10)], fixed_bytes: 1, fixed_time: 0 };
        let costs = [vec![0.0, 2.0], vec![0.0, 1.0], vec![0.0, 5.0]];
        let budget = items.bytes(&[0, 0, 1]);
        let limits = Limits { bytes: budget, time: None, wide: true };
        let found = neighbours(&items, &costs, &limits, &[0, 0, 1]);
        // Item 2 can be raised only if both others pay; nothing else fits without lowering alone.
        assert_eq!(found, [vec![1, 1, 0]]);
        let found = neighbours(&items, &costs, &limits, &[0, 1, 1]);
        assert!(found.iter().all(|neighbour| items.bytes(neighbour) <= budget));
        // Raising item 2 and lowering item 0 saves 5 - 2, raising item 1 alone saves 1.
        assert_eq!(found[..2], [vec![1, 1, 0], vec![0, 0, 1]]);
        // As much time as it takes now, of as many bytes as there may be: nothing may be raised unless others pay.
        let limits = Limits { bytes: u64::MAX, time: Some(items.time(&[0, 1, 1])), wide: true };
        let found = neighbours(&items, &costs, &limits, &[0, 1, 1]);
        assert_eq!(found, [vec![1, 0, 1]]);
        // Any number may be a limit.
        let limits = Limits { bytes: u64::MAX, time: Some(u64::MAX), wide: true };
        assert!(neighbours(&items, &costs, &limits, &[0, 1, 1]).contains(&vec![0, 0, 1]));
    }

    #[test]
    fn differences_are_paired() {
        let samples = |values: [f64; 3]| values.map(|sum| Sample { sum, count: 1 }).to_vec();
        // The sequences differ far more from each other than the two assignments do.
        let (gain, error) = paired(&samples([1.0, 10.0, 100.0]), &samples([0.9, 9.8, 99.9]));
        assert!((gain - 0.4 / 3.0).abs() < 1e-12 && error < 0.05, "{gain} {error}");
    }
}
