//! Constrained decoding: the reader of a grammar section ([`crate::format::grammar`]). It follows the text token by token
//! in an automaton over bytes, and says which tokens may come next and which must.
//!
//! A step with a byte goes from the current state to the entry of the byte's class; an entry may push return states first.
//! A final state without an entry returns to the state on top of the stack and tries the byte there. Entering a state
//! needs room for the pushes that its shortest way out takes, so a full stack never leaves a text that cannot end.
//!
//! ```text
//! let grammar = Grammar::of(&artifact)?;
//! let mut state = grammar.start();
//! loop {
//!     let count = grammar.forced(&mut state, &mut run);        // these tokens take no draw
//!     if grammar.is_complete(&state) { break }
//!     let allowed = grammar.allowed(&state, &mut words);       // 0: a broken section
//!     let logits = session.step_allowed(&pending, &words)?;    // the last drawn token and the run
//!     let token = sample::choose_among(logits, &words, &[], &sampling, seed, drawn)?;
//!     grammar.advance(&mut state, token)?;                     // an end token finishes the text
//! }
//! ```

use crate::format::artifact::ArtifactView;
use crate::format::grammar::{FINAL, GrammarTables, INNER, MAX_DEPTH, NO_BITSET, TokenBytes, WALK};
use crate::format::special_tokens::TokenList;
use crate::sample::{mark, seen_words};

/// A grammar with the tokens of its model.
#[derive(Clone, Copy, Debug)]
pub struct Grammar<'a> {
    tables: GrammarTables<'a>,
    tokens: TokenBytes<'a>,
    ends: TokenList<'a>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// State of the automaton.
    current: u16,
    /// Return states on the stack.
    depth: u16,
    /// 1 once an end token came.
    finished: u16,
    /// Return states, the last one on top.
    stack: [u16; MAX_DEPTH],
}

/// A token that the grammar does not take at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The token.
    pub token: u32,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the grammar does not take token {} here", self.token)
    }
}

impl core::error::Error for Refused {}

impl<'a> Grammar<'a> {
    /// The grammar of an artifact; `None` where it has none.
    pub fn of(artifact: &ArtifactView<'a>) -> Option<Self> {
        Some(Grammar::new(artifact.grammar()?, artifact.tokens(), artifact.end_tokens()))
    }

    /// A grammar with the bytes of the model's tokens and the tokens that end a text.
    pub fn new(tables: GrammarTables<'a>, tokens: TokenBytes<'a>, ends: TokenList<'a>) -> Self {
        Grammar { tables, tokens, ends }
    }

    /// The start of a text.
    pub fn start(&self) -> State {
        State { current: self.tables.record.start, depth: 0, finished: 0, stack: [0; MAX_DEPTH] }
    }

    /// Words of the set that [`Grammar::allowed`] fills.
    pub fn words(&self) -> usize {
        seen_words(self.tables.record.vocabulary as usize)
    }

    /// Fills a set with the tokens that may come next, as [`mark`] has it, and returns their number. End tokens are among
    /// them where the text may end. No token at all: the text is finished, may end where the model has no end token, or
    /// the section is broken.
    ///
    /// # Panics
    /// If the set does not have [`Grammar::words`] words.
    pub fn allowed(&self, state: &State, words: &mut [u32]) -> usize {
        assert!(words.len() == self.words());
        words.fill(0);
        if state.finished != 0 {
            return 0;
        }
        let record = self.tables.state(state.current);
        if record.flags & WALK != 0 {
            for (index, word) in words.iter_mut().enumerate() {
                let mut rest = self.tables.bitset_word(0, index);
                while rest != 0 {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    *word |= u32::from(self.takes(state, index as u32 * u32::BITS + bit)) << bit;
                }
            }
        } else {
            if record.bitset != NO_BITSET {
                for (index, word) in words.iter_mut().enumerate() {
                    *word = self.tables.bitset_word(record.bitset, index);
                }
            }
            let (list, toggles) = (record.list as usize, usize::from(record.toggles));
            for token in (list..list + toggles).map(|index| self.tables.id(index)) {
                if let Some(word) = words.get_mut((token / u32::BITS) as usize) {
                    *word ^= 1 << (token % u32::BITS);
                }
            }
            let checked = list + toggles..list + toggles + usize::from(record.checks);
            for token in checked.map(|index| self.tables.id(index)) {
                if self.takes(state, token) {
                    mark(words, token);
                }
            }
        }
        if self.is_accepting(state) {
            self.ends.iter().for_each(|token| mark(words, token));
        }
        words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Goes on by a token; the state stays as it is where the grammar does not take it.
    pub fn advance(&self, state: &mut State, token: u32) -> Result<(), Refused> {
        if state.finished == 0 && self.ends.contains(token) && self.is_accepting(state) {
            state.finished = 1;
            return Ok(());
        }
        *state = self.after(state, token).ok_or(Refused { token })?;
        Ok(())
    }

    /// Goes on by the tokens without an alternative, and writes them; stops where there is a choice, where the text may end
    /// or where `run` is full. Returns their number.
    pub fn forced(&self, state: &mut State, run: &mut [u32]) -> usize {
        let mut count = 0;
        while let Some(place) = run.get_mut(count) {
            let Some(token) = self.only_token(state) else { break };
            let Some(next) = self.after(state, token) else { break };
            (*state, *place) = (next, token);
            count += 1;
        }
        count
    }

    /// Whether the text may end here.
    pub fn is_accepting(&self, state: &State) -> bool {
        let ends = |state: u16| self.tables.state(state).flags & FINAL != 0;
        let depth = usize::from(state.depth).min(MAX_DEPTH);
        state.finished != 0 || ends(state.current) && state.stack[..depth].iter().all(|&back| ends(back))
    }

    /// Whether the text may end here and nothing else can follow.
    pub fn is_complete(&self, state: &State) -> bool {
        let goes_on = |state: u16| {
            let record = self.tables.state(state);
            record.flags & WALK != 0 || record.bitset != NO_BITSET || record.toggles > 0 || record.checks > 0
        };
        let depth = usize::from(state.depth).min(MAX_DEPTH);
        let further = || goes_on(state.current) || state.stack[..depth].iter().any(|&back| goes_on(back));
        state.finished != 0 || self.is_accepting(state) && !further()
    }

    /// The token without an alternative, if there is one.
    fn only_token(&self, state: &State) -> Option<u32> {
        let record = self.tables.state(state.current);
        let single =
            record.toggles == 1 && record.checks == 0 && record.bitset == NO_BITSET && record.flags & WALK == 0;
        (single && !self.is_accepting(state)).then(|| self.tables.id(record.list as usize))
    }

    fn takes(&self, state: &State, token: u32) -> bool {
        self.after(state, token).is_some()
    }

    /// The state after a token with bytes.
    fn after(&self, state: &State, token: u32) -> Option<State> {
        let bytes = self.tokens.of(token);
        if state.finished != 0 || bytes.is_empty() || !self.tables.has(0, token) {
            return None;
        }
        let mut next = *state;
        let holds = bytes.iter().all(|&byte| self.step(&mut next, byte));
        (holds && self.tables.state(next.current).flags & INNER == 0).then_some(next)
    }

    /// Goes on by a byte; where it is refused, the state is undefined.
    fn step(&self, state: &mut State, byte: u8) -> bool {
        loop {
            let record = self.tables.state(state.current);
            if let Some(entry) = self.tables.entry(&record, byte) {
                return self.enter(state, entry);
            }
            let Some(depth) = state.depth.checked_sub(1).filter(|_| record.flags & FINAL != 0) else { return false };
            let Some(&back) = state.stack.get(usize::from(depth)) else { return false };
            (state.depth, state.current) = (depth, back);
        }
    }

    /// Follows an entry through its pushes.
    fn enter(&self, state: &mut State, entry: u16) -> bool {
        let room =
            |depth: u16, state: u16| usize::from(depth) + usize::from(self.tables.state(state).depth) <= MAX_DEPTH;
        let (states, mut next) = (self.tables.record.states, entry);
        while next >= states {
            let (target, back) = self.tables.push(next - states);
            let Some(top) = state.stack.get_mut(usize::from(state.depth)) else { return false };
            if !room(state.depth, back) {
                return false;
            }
            *top = back;
            state.depth += 1;
            // An earlier push or a state: `read` checked it, so the loop ends.
            next = target.min(next - 1);
        }
        state.current = next;
        room(state.depth, next)
    }
}
