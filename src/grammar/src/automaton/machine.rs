//! Deterministic automata over bytes without a stack, for parts of a grammar that have to be intersected (a pattern with
//! bounds on a length) or compared (alternatives that must not overlap).

use super::nfa::Nfa;
use super::subset;
use crate::error::{Limit, Result};
use crate::limits::{Work, check};
use crate::syntax::{Node, Rules};
use std::collections::BTreeMap;

/// No state.
pub(crate) const DEAD: u32 = u32::MAX;

/// An automaton; state 0 is the first.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// (256): the class of each byte.
    pub(crate) classes: [u8; 256],
    /// (states, classes): the next state, or [`DEAD`].
    pub(crate) next: Vec<Vec<u32>>,
    /// (states)
    pub(crate) accepts: Vec<bool>,
}

impl Machine {
    /// The automaton of an expression without recursive rules.
    pub(crate) fn of(node: &Node, work: &mut Work) -> Result<Machine> {
        let nfa = Nfa::of(&Rules::of(node.clone()), work)?;
        subset::machine(&nfa, work)
    }

    fn step(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize][usize::from(self.classes[usize::from(byte)])]
    }

    /// The texts that both accept.
    pub(crate) fn and(&self, other: &Machine, work: &mut Work) -> Result<Machine> {
        let mut pairs = BTreeMap::new();
        let classes: Vec<usize> = (0..256)
            .map(|byte| {
                let count = pairs.len();
                *pairs.entry((self.classes[byte], other.classes[byte])).or_insert(count)
            })
            .collect();
        let mut example = vec![0; pairs.len()];
        for (byte, &class) in classes.iter().enumerate() {
            example[class] = byte as u8;
        }
        let mut numbers = BTreeMap::from([((0, 0), 0)]);
        let mut order = vec![(0, 0)];
        let (mut next, mut accepts) = (Vec::new(), Vec::new());
        while let Some(&(left, right)) = order.get(next.len()) {
            work.add(example.len())?;
            check(Limit::States, order.len(), work.limits.states)?;
            let row = example.iter().map(|&byte| {
                let (left, right) = (self.step(left, byte), other.step(right, byte));
                if left == DEAD || right == DEAD {
                    return DEAD;
                }
                *numbers.entry((left, right)).or_insert_with(|| {
                    order.push((left, right));
                    order.len() as u32 - 1
                })
            });
            let row = row.collect();
            next.push(row);
            accepts.push(self.accepts[left as usize] && other.accepts[right as usize]);
        }
        let classes = core::array::from_fn(|byte| classes[byte] as u8);
        Ok(Machine { classes, next, accepts })
    }

    /// Whether it accepts nothing; every state can be reached.
    pub(crate) fn is_empty(&self) -> bool {
        !self.accepts.contains(&true)
    }
}
