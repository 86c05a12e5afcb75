//! The multiple-choice knapsack, solved exactly: of every item one choice is taken, the sum of costs is to be least and
//! the sum of bytes at most a budget. States (bytes, cost) are kept in order of bytes while no other has both fewer bytes
//! and less cost (Nemhauser and Ullmann 1969), so one pass gives the best selection of every budget at once. Bytes take
//! few distinct sums, since matrices of the layers of a model have few shapes: the lists stay short.

/// One way of storing an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its bytes.
    pub bytes: u64,
    /// Its cost; finite, of any sign.
    pub cost: f64,
}

/// A sum over the items so far, and how it came about.
#[derive(Clone, Copy, Debug)]
struct State {
    bytes: u64,
    cost: f64,
    /// Index into the states of the items before.
    before: u32,
    /// Choice of the last item.
    choice: u32,
}

/// Every selection that is the best of its bytes.
#[derive(Clone, Debug)]
pub struct Frontier {
    /// After each item; the first list is the empty selection.
    stages: Vec<Vec<State>>,
}

impl Frontier {
    /// The frontier of items with their choices. An item without choices makes every budget infeasible.
    pub fn new(items: &[Vec<Choice>]) -> Self {
        let mut stages = vec![vec![State { bytes: 0, cost: 0.0, before: 0, choice: 0 }]];
        for choices in items {
            let last = &stages[stages.len() - 1];
            let mut states: Vec<State> = Vec::with_capacity(last.len() * choices.len());
            for (number, choice) in choices.iter().enumerate() {
                states.extend(last.iter().enumerate().map(|(before, state)| State {
                    bytes: state.bytes + choice.bytes,
                    cost: state.cost + choice.cost,
                    before: before as u32,
                    choice: number as u32,
                }));
            }
            // Of equals the first choice, so that the result does not depend on how the sort breaks ties.
            let order = |state: &State| (state.bytes, state.choice, state.before);
            states.sort_by(|a, b| {
                a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost)).then_with(|| order(a).cmp(&order(b)))
            });
            let mut least = f64::INFINITY;
            states.retain(|state| {
                let better = state.cost < least;
                least = least.min(state.cost);
                better
            });
            stages.push(states);
        }
        Frontier { stages }
    }

    /// (bytes, cost) of every selection on the frontier, bytes ascending, cost descending.
    pub fn points(&self) -> Vec<(u64, f64)> {
        self.last().iter().map(|state| (state.bytes, state.cost)).collect()
    }

    /// Fewest bytes of any selection.
    pub fn smallest(&self) -> Option<u64> {
        self.last().first().map(|state| state.bytes)
    }

    /// The selection of least cost within `budget` bytes: the choice of every item. `None` where nothing fits.
    pub fn best_within(&self, budget: u64) -> Option<Vec<usize>> {
        let states = self.last();
        let mut at = states.partition_point(|state| state.bytes <= budget).checked_sub(1)?;
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

    /// Least cost within the budget, by trying everything.
    fn exhaustive(items: &[Vec<Choice>], budget: u64) -> Option<f64> {
        let mut sums = vec![(0u64, 0.0f64)];
        for choices in items {
            sums = sums.iter().flat_map(|(b, c)| choices.iter().map(move |x| (b + x.bytes, c + x.cost))).collect();
        }
        sums.into_iter().filter(|(bytes, _)| *bytes <= budget).map(|(_, cost)| cost).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_everything_finds(
            raw in proptest::collection::vec(proptest::collection::vec((0u64..40, 0u32..1000), 1..4), 1..7),
            budget in 0u64..200,
        ) {
            let items: Vec<Vec<Choice>> = raw
                .iter()
                .map(|item| item.iter().map(|&(bytes, cost)| Choice { bytes, cost: f64::from(cost) }).collect())
                .collect();
            let frontier = Frontier::new(&items);
            let best = exhaustive(&items, budget);
            let selection = frontier.best_within(budget);
            prop_assert_eq!(best.is_some(), selection.is_some());
            if let (Some(best), Some(selection)) = (best, selection) {
                let taken: Vec<Choice> = items.iter().zip(&selection).map(|(item, &n)| item[n]).collect();
                prop_assert!(taken.iter().map(|choice| choice.bytes).sum::<u64>() <= budget);
                prop_assert_eq!(taken.iter().map(|choice| choice.cost).sum::<f64>(), best);
            }
            let points = frontier.points();
            prop_assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1));
        }
    }

    #[test]
    fn a_greedy_choice_would_miss_the_best_one() {
        // By gain per byte the first item goes first (10 for 6) and leaves nothing; the other two together give 12 for 10.
        let item = |bytes, cost| vec![Choice { bytes: 0, cost }, Choice { bytes, cost: 0.0 }];
        let items = [item(6, 10.0), item(5, 8.0), item(5, 8.0)];
        let frontier = Frontier::new(&items);
        assert_eq!(frontier.best_within(10), Some(vec![0, 1, 1]));
        assert_eq!(frontier.smallest(), Some(0));
        assert_eq!(Frontier::new(&[vec![Choice { bytes: 7, cost: 0.0 }]]).best_within(6), None);
    }
}
