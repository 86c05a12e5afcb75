//! What a compilation may take. The automaton of a hostile grammar grows exponentially or without end; these numbers stop it
//! after a bounded time with an error that names the limit.

use crate::error::{GrammarError, Limit, Result};

/// Most that a grammar may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the grammar's text.
    pub text_bytes: usize,
    /// Nesting of expressions, schemas or groups, rules and definitions that are written out included.
    pub nesting: usize,
    /// Steps of the nondeterministic automaton, with repetitions written out.
    pub steps: usize,
    /// States of the automaton, at most 65,000.
    pub states: usize,
    /// Steps of all loops together.
    pub work: u64,
    /// Bytes of the section.
    pub section_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            text_bytes: 1 << 20,
            nesting: 500,
            steps: 1 << 20,
            states: 1 << 15,
            work: 1 << 31,
            section_bytes: 1 << 26,
        }
    }
}

/// The work done so far.
pub(crate) struct Work {
    pub(crate) limits: Limits,
    done: u64,
}

impl Work {
    pub(crate) fn new(limits: Limits) -> Self {
        Work { limits: Limits { states: limits.states.min(65_000), ..limits }, done: 0 }
    }

    /// Counts steps.
    pub(crate) fn add(&mut self, steps: usize) -> Result<()> {
        self.done = self.done.saturating_add(steps as u64);
        if self.done > self.limits.work { Err(exceeds(Limit::Work, self.limits.work)) } else { Ok(()) }
    }
}

pub(crate) fn exceeds(what: Limit, limit: u64) -> GrammarError {
    GrammarError::Limit { what, limit }
}

pub(crate) fn check(what: Limit, found: usize, limit: usize) -> Result<()> {
    if found > limit { Err(exceeds(what, limit as u64)) } else { Ok(()) }
}
