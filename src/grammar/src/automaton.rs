//! The automaton of a grammar: deterministic, minimal, over bytes, with a stack of at most [`MAX_DEPTH`] return states for
//! rules inside themselves.
//!
//! | file | contents |
//! |---|---|
//! | `nfa` | the nondeterministic automaton, rules written out |
//! | `subset` | the deterministic one, a procedure for each recursive rule |
//! | `calls` | procedures joined by pushes and returns; dead ends removed |
//! | `minimal` | equal states and equal bytes made one |
//! | `machine` | automata without a stack, for intersections |

pub(crate) mod calls;
pub(crate) mod machine;
mod minimal;
pub(crate) mod nfa;
pub(crate) mod subset;

use crate::error::{GrammarError, Result};
use crate::limits::Work;
use crate::syntax::Rules;
use slm_runtime::format::grammar::MAX_DEPTH;

/// The code of a refused byte.
pub(crate) const REFUSED: u32 = u32::MAX;
/// Codes from here on are pushes, below it states.
pub(crate) const PUSHES: u32 = 1 << 31;

/// The automaton of a grammar.
#[derive(Clone, Debug)]
pub struct Automaton {
    /// (256): the class of each byte.
    pub(crate) classes: [u8; 256],
    pub(crate) class_count: usize,
    /// (states, classes): a state, [`PUSHES`] and the number of a push, or [`REFUSED`].
    pub(crate) next: Vec<u32>,
    /// (pushes): the code after the push, a state or an earlier push, and the return state.
    pub(crate) pushes: Vec<(u32, u32)>,
    /// (states): whether the state ends its rule.
    pub(crate) ends: Vec<bool>,
    /// (states): pushes that the shortest way out of the rule takes.
    pub(crate) depths: Vec<u8>,
    pub(crate) start: u32,
}

/// A place in a text: the current state and the return states, the last on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub(crate) state: u32,
    pub(crate) stack: Vec<u32>,
}

impl Automaton {
    pub(crate) fn of(rules: &Rules, work: &mut Work) -> Result<Automaton> {
        let nfa = nfa::Nfa::of(rules, work)?;
        let procedures = subset::determinize(&nfa, work)?;
        drop(nfa);
        let joined = calls::join(procedures, work)?;
        let mut automaton = minimal::minimize(joined, work)?;
        automaton.measure(work, |_| true)?;
        if usize::from(automaton.depths[automaton.start as usize]) > MAX_DEPTH {
            return Err(GrammarError::Depth { depth: MAX_DEPTH });
        }
        Ok(automaton)
    }

    /// Number of states.
    pub fn states(&self) -> usize {
        self.ends.len()
    }

    /// Number of classes of bytes.
    pub fn classes(&self) -> usize {
        self.class_count
    }

    /// Whether some rule is inside itself.
    pub fn is_recursive(&self) -> bool {
        !self.pushes.is_empty()
    }

    /// The start of a text.
    pub fn start(&self) -> Position {
        Position { state: self.start, stack: Vec::new() }
    }

    /// Goes on by a byte; `false` where no text of the grammar goes on so, and the place is then undefined.
    pub fn step(&self, position: &mut Position, byte: u8) -> bool {
        loop {
            let code = self.code(position.state, byte);
            if code != REFUSED {
                return self.enter(position, code);
            }
            let Some(back) = position.stack.pop().filter(|_| self.ends[position.state as usize]) else { return false };
            position.state = back;
        }
    }

    /// Whether the text may end here.
    pub fn is_accepting(&self, position: &Position) -> bool {
        self.ends[position.state as usize] && position.stack.iter().all(|&back| self.ends[back as usize])
    }

    /// Whether a text follows the grammar.
    pub fn accepts(&self, text: &[u8]) -> bool {
        let mut position = self.start();
        text.iter().all(|&byte| self.step(&mut position, byte)) && self.is_accepting(&position)
    }

    /// Where a state goes with a byte.
    pub(crate) fn code(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize * self.class_count + usize::from(self.classes[usize::from(byte)])]
    }

    /// The codes of a state, one a class.
    pub(crate) fn row(&self, state: u32) -> &[u32] {
        &self.next[state as usize * self.class_count..][..self.class_count]
    }

    /// The state that a code leads to and what it pushes before, the first at the bottom.
    pub(crate) fn target(&self, mut code: u32) -> (u32, Vec<u32>) {
        let mut backs = Vec::new();
        while code >= PUSHES {
            let (next, back) = self.pushes[(code - PUSHES) as usize];
            backs.push(back);
            code = next;
        }
        (code, backs)
    }

    fn enter(&self, position: &mut Position, code: u32) -> bool {
        let room = |stack: &[u32], state: u32| stack.len() + usize::from(self.depths[state as usize]) <= MAX_DEPTH;
        let (state, backs) = self.target(code);
        for back in backs {
            if !room(&position.stack, back) {
                return false;
            }
            position.stack.push(back);
        }
        position.state = state;
        room(&position.stack, state)
    }

    /// The least pushes from each state to the end of its rule, by bytes that `usable` has; above [`MAX_DEPTH`] where
    /// the end cannot be reached.
    pub(crate) fn measure(&mut self, work: &mut Work, usable: impl Fn(u8) -> bool) -> Result<()> {
        let beyond = MAX_DEPTH as u8 + 1;
        let mut known = [false; 256];
        for byte in (0..=255).filter(|&byte| usable(byte)) {
            known[usize::from(self.classes[usize::from(byte)])] = true;
        }
        self.depths = self.ends.iter().map(|&ends| if ends { 0 } else { beyond }).collect();
        loop {
            let mut changed = false;
            work.add(self.next.len())?;
            for state in (0..self.states()).rev() {
                let row = &self.next[state * self.class_count..][..self.class_count];
                let usable = row.iter().zip(&known).filter(|(code, known)| **code != REFUSED && **known);
                let found = usable.map(|(&code, _)| self.depth_of(code)).min().unwrap_or(beyond).min(beyond);
                if found < self.depths[state] {
                    (self.depths[state], changed) = (found, true);
                }
            }
            if !changed {
                return Ok(());
            }
        }
    }

    /// Depth that entering a code needs.
    fn depth_of(&self, code: u32) -> u8 {
        let (state, backs) = self.target(code);
        let of_backs = backs.iter().zip(0u8..).map(|(&back, below)| self.depths[back as usize].saturating_add(below));
        let of_state = self.depths[state as usize].saturating_add(backs.len().min(255) as u8);
        of_backs.fold(of_state, u8::max)
    }
}
