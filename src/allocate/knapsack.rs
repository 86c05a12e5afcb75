//! The multiple-choice knapsack, solved exactly: of every item one choice is taken, the sum of costs is to be least, the sums
//! of bytes and of times at most their bounds. States (bytes, time, cost) are kept in order of bytes while no other has as
//! few bytes, as little time and as little cost (Nemhauser and Ullmann 1969), so one pass gives the best selection of
//! every bound at once. Bytes take few distinct sums, since matrices of the layers of a model have few shapes, and times
//! follow them: the lists stay short.

use std::collections::BTreeMap;

/// One way of storing an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its bytes.
    pub bytes: u64,
    /// Its time; 0 where times are not bounded.
    pub time: u64,
    /// Its cost; finite, of any sign.
    pub cost: f64,
}

/// A sum over the items so far, and how it came about.
#[derive(Clone, Copy, Debug)]
struct State {
    bytes: u64,
    time: u64,
    cost: f64,
    /// Index into the states of the items before.
    before: u32,
    /// Choice of the last item.
    choice: u32,
}

/// Every selection that is the best of its bytes and time.
#[derive(Clone, Debug)]
pub struct Frontier {
    /// After each item; the first list is the empty selection.
    stages: Vec<Vec<State>>,
}

/// The least costs of states so far, by their times: costs fall as times rise.
#[derive(Default)]
struct Staircase(BTreeMap<u64, f64>);

impl Staircase {
    /// Takes a state in where none before it has as little time and cost; whether it did.
    fn take(&mut self, time: u64, cost: f64) -> bool {
        if self.0.range(..=time).next_back().is_some_and(|(_, least)| *least <= cost) {
            return false;
        }
        while let Some((&later, _)) = self.0.range(time..).next().filter(|(_, least)| **least >= cost) {
            self.0.remove(&later);
        }
        self.0.insert(time, cost);
        true
    }
}

impl Frontier {
    /// The frontier of items with their choices. An item without choices makes every bound infeasible.
    pub fn new(items: &[Vec<Choice>]) -> Self {
        let mut stages = vec![vec![State { bytes: 0, time: 0, cost: 0.0, before: 0, choice: 0 }]];
        for choices in items {
            let last = &stages[stages.len() - 1];
            let mut states: Vec<State> = Vec::with_capacity(last.len() * choices.len());
            for (number, choice) in choices.iter().enumerate() {
                states.extend(last.iter().enumerate().map(|(before, state)| State {
                    bytes: state.bytes + choice.bytes,
                    time: state.time + choice.time,
                    cost: state.cost + choice.cost,
                    before: before as u32,
                    choice: number as u32,
                }));
            }
            // Equals come in the order of their choices, so that the result does not depend on how the sort breaks ties.
            let order = |state: &State| (state.choice, state.before);
            states.sort_by(|a, b| {
                let sums = a.bytes.cmp(&b.bytes).then(a.time.cmp(&b.time)).then(a.cost.total_cmp(&b.cost));
                sums.then_with(|| order(a).cmp(&order(b)))
            });
            let mut least = Staircase::default();
            states.retain(|state| least.take(state.time, state.cost));
            stages.push(states);
        }
        Frontier { stages }
    }

    /// (bytes, cost) of every selection on the frontier, bytes ascending; without times costs descend.
    pub fn points(&self) -> Vec<(u64, f64)> {
        self.last().iter().map(|state| (state.bytes, state.cost)).collect()
    }

    /// Fewest bytes of any selection.
    pub fn smallest(&self) -> Option<u64> {
        self.last().first().map(|state| state.bytes)
    }

    /// The selection of least cost within so many bytes and so much time: the choice of every item. `None` where nothing fits.
    pub fn best_within(&self, bytes: u64, time: u64) -> Option<Vec<usize>> {
        let states = self.last().iter().enumerate();
        let fitting = states.filter(|(_, state)| state.bytes <= bytes && state.time <= time);
        let (mut at, _) = fitting.min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost))?;
        let mut selection = Vec::with_capacity(self.stages.len() - 1);
        for states in self.stages[1..].iter().rev() {
            selection.push(states[at].choice as usize);
            at = states[at].before as usize;
        }
        selection.reverse();
        Some(selection)
    }

    fn last(&self) -> &[State] {
        &self.stages[self.stages.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Least cost within the bounds, by trying everything.
    fn exhaustive(items: &[Vec<Choice>], bytes: u64, time: u64) -> Option<f64> {
        let mut sums = vec![(0u64, 0u64, 0.0f64)];
        for choices in items {
            let with = |(b, t, c): &(u64, u64, f64)| {
                let (b, t, c) = (*b, *t, *c);
                choices.iter().map(move |x| (b + x.bytes, t + x.time, c + x.cost))
            };
            sums = sums.iter().flat_map(with).collect();
        }
        let fitting = sums.into_iter().filter(|(b, t, _)| *b <= bytes && *t <= time);
        fitting.map(|(_, _, cost)| cost).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_everything_finds(
            raw in proptest::collection::vec(proptest::collection::vec((0u64..40, 0u64..40, 0u32..1000), 1..4), 1..7),
            budget in 0u64..200,
            most in 0u64..200,
            timed in any::<bool>(),
        ) {
            let choice = |&(bytes, time, cost): &(u64, u64, u32)| {
                Choice { bytes, time: if timed { time } else { 0 }, cost: f64::from(cost) }
            };
            let items: Vec<Vec<Choice>> = raw.iter().map(|item| item.iter().map(choice).collect()).collect();
            let frontier = Frontier::new(&items);
            let best = exhaustive(&items, budget, most);
            let selection = frontier.best_within(budget, most);
            prop_assert_eq!(best.is_some(), selection.is_some());
            if let (Some(best), Some(selection)) = (best, selection) {
                let taken: Vec<Choice> = items.iter().zip(&selection).map(|(item, &n)| item[n]).collect();
                prop_assert!(taken.iter().map(|choice| choice.bytes).sum::<u64>() <= budget);
                prop_assert!(taken.iter().map(|choice| choice.time).sum::<u64>() <= most);
                prop_assert_eq!(taken.iter().map(|choice| choice.cost).sum::<f64>(), best);
            }
            let points = frontier.points();
            prop_assert!(timed || points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1));
        }
    }

    #[test]
    fn a_greedy_choice_would_miss_the_best_one() {
        // By gain per byte the first item goes first (10 for 6) and leaves nothing; the other two together give 12 for 10.
        let item = |bytes, cost| vec![Choice { bytes: 0, time: 0, cost }, Choice { bytes, time: 0, cost: 0.0 }];
        let items = [item(6, 10.0), item(5, 8.0), item(5, 8.0)];
        let frontier = Frontier::new(&items);
        assert_eq!(frontier.best_within(10, 0), Some(vec![0, 1, 1]));
        assert_eq!(frontier.smallest(), Some(0));
        assert_eq!(Frontier::new(&[vec![Choice { bytes: 7, time: 0, cost: 0.0 }]]).best_within(6, 0), None);
    }
}
