//! All tokens through the automaton from a state. Tokens are sorted by their bytes, so that the bytes which one shares with
//! the one before are not walked again, and those that share a refused beginning are passed over.

use crate::automaton::{Automaton, PUSHES, REFUSED};
use crate::error::Result;
use crate::limits::Work;
use slm_runtime::format::grammar::MAX_DEPTH;
use std::collections::BTreeSet;

/// A token's bytes, how many of them the token before begins with, and its id.
struct Entry<'t> {
    bytes: &'t [u8],
    shared: usize,
    id: u32,
}

/// The tokens in the order of their bytes.
pub(crate) struct Walker<'t> {
    entries: Vec<Entry<'t>>,
}

/// The tokens that a state allows: their ids and the states they may lead to.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Allowed whatever the stack.
    pub(crate) fixed: Vec<(u32, u32)>,
    /// Allowed with some stacks.
    pub(crate) open: Vec<(u32, Vec<u32>)>,
}

impl Reached {
    pub(crate) fn fixed_ids(&self) -> Vec<u32> {
        sorted(self.fixed.iter().map(|&(id, _)| id))
    }

    pub(crate) fn open_ids(&self) -> Vec<u32> {
        sorted(self.open.iter().map(|&(id, _)| id))
    }

    /// The states that tokens lead to, ascending.
    pub(crate) fn ends(&self) -> BTreeSet<u32> {
        let fixed = self.fixed.iter().map(|&(_, end)| end);
        fixed.chain(self.open.iter().flat_map(|(_, ends)| ends.iter().copied())).collect()
    }
}

fn sorted(ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids
}

/// The states that may be on top of the stack in each state.
pub(crate) struct Returns {
    /// (states, ⌈return states / 64⌉)
    sets: Vec<u64>,
    backs: Vec<u32>,
    words: usize,
}

impl Returns {
    pub(crate) fn of(automaton: &Automaton, work: &mut Work) -> Result<Self> {
        let all: BTreeSet<u32> = automaton.pushes.iter().map(|&(_, back)| back).collect();
        let backs: Vec<u32> = all.into_iter().collect();
        let words = backs.len().div_ceil(64);
        let mut sets = vec![0u64; words * automaton.states()];
        let mut changed = words > 0;
        while changed {
            changed = false;
            for state in 0..automaton.states() as u32 {
                work.add(automaton.class_count * words)?;
                let own: Vec<u64> = sets[state as usize * words..][..words].to_vec();
                for &code in automaton.row(state).iter().filter(|&&code| code != REFUSED) {
                    let (target, pushed) = automaton.target(code);
                    // Each of the states entered lies on the one pushed before it, the first on what was there.
                    let mut below = own.clone();
                    for entered in pushed.into_iter().chain([target]) {
                        for (word, &new) in sets[entered as usize * words..][..words].iter_mut().zip(&below) {
                            changed |= new & !*word != 0;
                            *word |= new;
                        }
                        below.fill(0);
                        if let Ok(number) = backs.binary_search(&entered) {
                            below[number / 64] |= 1 << (number % 64);
                        }
                    }
                }
            }
        }
        Ok(Returns { sets, backs, words })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words == 0
    }

    fn under(&self, state: u32) -> impl Iterator<Item = u32> {
        let set = &self.sets[state as usize * self.words..][..self.words];
        let has = move |number: &usize| set[number / 64] >> (number % 64) & 1 == 1;
        (0..self.backs.len()).filter(has).map(|number| self.backs[number])
    }
}

/// A place that a token may come to: the state, what it pushed, and whether that depends on the stack below.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    state: u32,
    pushed: Vec<u32>,
    depends: bool,
}

impl<'t> Walker<'t> {
    pub(crate) fn new(tokens: &'t [Vec<u8>], ordinary: &[bool]) -> Self {
        let all = (0..).zip(tokens).zip(ordinary).filter(|(_, ordinary)| **ordinary);
        let mut entries: Vec<Entry<'t>> = all.map(|((id, bytes), _)| Entry { bytes, shared: 0, id }).collect();
        entries.sort_unstable_by(|a, b| (a.bytes, a.id).cmp(&(b.bytes, b.id)));
        for index in 1..entries.len() {
            let (before, this) = (entries[index - 1].bytes, entries[index].bytes);
            entries[index].shared = before.iter().zip(this).take_while(|(a, b)| a == b).count();
        }
        Walker { entries }
    }

    /// The bytes that are tokens by themselves.
    pub(crate) fn single_bytes(&self) -> [bool; 256] {
        let mut found = [false; 256];
        for entry in &self.entries {
            if let [byte] = entry.bytes {
                found[usize::from(*byte)] = true;
            }
        }
        found
    }

    /// The bytes that any token has.
    pub(crate) fn bytes(&self) -> [bool; 256] {
        let mut found = [false; 256];
        self.entries.iter().flat_map(|entry| entry.bytes).for_each(|&byte| found[usize::from(byte)] = true);
        found
    }

    /// Tokens that begin a text or that a text begins, with their ids, ascending.
    pub(crate) fn along<'s>(&'s self, text: &'s [u8]) -> impl Iterator<Item = (&'t [u8], u32)> + 's {
        let first = self.entries.partition_point(|entry| entry.bytes.first() < text.first());
        let of_first = self.entries[first..].iter().take_while(|entry| entry.bytes.first() == text.first());
        let along = |bytes: &[u8]| bytes.starts_with(text) || text.starts_with(bytes);
        of_first.filter(move |entry| along(entry.bytes)).map(|entry| (entry.bytes, entry.id))
    }

    /// The tokens from a state of an automaton without a stack.
    pub(crate) fn plain(&self, automaton: &Automaton, state: u32, inner: &[bool], work: &mut Work) -> Result<Reached> {
        let mut reached = Reached::default();
        self.each_end(automaton, state, work, |id, end| {
            if !inner[end as usize] {
                reached.fixed.push((id, end));
            }
            true
        })?;
        Ok(reached)
    }

    /// Whether a token leads from a state to one of these.
    pub(crate) fn leads_to(&self, automaton: &Automaton, state: u32, to: &[bool], work: &mut Work) -> Result<bool> {
        let mut found = false;
        self.each_end(automaton, state, work, |_, end| {
            found |= to[end as usize];
            !found
        })?;
        Ok(found)
    }

    /// Calls `each` with the tokens that the automaton takes and the states in which they end, until it returns `false`.
    fn each_end(
        &self,
        automaton: &Automaton,
        state: u32,
        work: &mut Work,
        mut each: impl FnMut(u32, u32) -> bool,
    ) -> Result<()> {
        // The states after each byte of the last token that was walked, as far as it was taken.
        let mut path = vec![state];
        work.add(self.entries.len() / 8 + 1)?;
        for entry in &self.entries {
            if entry.shared >= path.len() {
                continue;
            }
            path.truncate(entry.shared + 1);
            work.add(1)?;
            for &byte in &entry.bytes[entry.shared..] {
                let code = automaton.code(path[path.len() - 1], byte);
                if code >= PUSHES {
                    break;
                }
                path.push(code);
            }
            if path.len() > entry.bytes.len() && !each(entry.id, path[path.len() - 1]) {
                break;
            }
        }
        Ok(())
    }

    /// The tokens from a state of an automaton with a stack.
    pub(crate) fn with_stack(
        &self,
        automaton: &Automaton,
        returns: &Returns,
        state: u32,
        inner: &[bool],
        work: &mut Work,
    ) -> Result<Reached> {
        let mut reached = Reached::default();
        let mut path = vec![vec![Place { state, pushed: Vec::new(), depends: false }]];
        for entry in &self.entries {
            work.add(1)?;
            if entry.shared >= path.len() {
                continue;
            }
            path.truncate(entry.shared + 1);
            for &byte in &entry.bytes[entry.shared..] {
                let mut places = Vec::new();
                for place in &path[path.len() - 1] {
                    step(automaton, returns, state, place, byte, &mut places);
                }
                work.add(8 * places.len() + 8)?;
                if places.is_empty() {
                    break;
                }
                path.push(places);
            }
            if path.len() <= entry.bytes.len() {
                continue;
            }
            let mut ends: Vec<&Place> = path[path.len() - 1].iter().collect();
            ends.retain(|place| !inner[place.state as usize]);
            match ends.as_slice() {
                [] => {}
                [place] if !place.depends => reached.fixed.push((entry.id, place.state)),
                all => reached.open.push((entry.id, all.iter().map(|place| place.state).collect())),
            }
        }
        Ok(reached)
    }
}

/// The places after a byte.
fn step(automaton: &Automaton, returns: &Returns, start: u32, place: &Place, byte: u8, found: &mut Vec<Place>) {
    let mut pushed = place.pushed.clone();
    let mut state = place.state;
    loop {
        let code = automaton.code(state, byte);
        if code != REFUSED {
            enter(automaton, start, code, pushed, place.depends, found);
            return;
        }
        if !automaton.ends[state as usize] {
            return;
        }
        match pushed.pop() {
            Some(back) => state = back,
            None => break,
        }
    }
    // Below where the token began: every return state that may be there, and what may be below those.
    let (mut seen, mut rest) = (BTreeSet::new(), returns.under(state).collect::<Vec<_>>());
    while let Some(back) = rest.pop() {
        if !seen.insert(back) {
            continue;
        }
        let code = automaton.code(back, byte);
        if code != REFUSED {
            enter(automaton, start, code, Vec::new(), true, found);
        } else if automaton.ends[back as usize] {
            rest.extend(returns.under(back));
        }
    }
}

fn enter(automaton: &Automaton, start: u32, code: u32, mut pushed: Vec<u32>, depends: bool, found: &mut Vec<Place>) {
    // At the start of the token there is room for this many pushes, whatever the stack.
    let room = usize::from(automaton.depths[start as usize]);
    let (state, backs) = automaton.target(code);
    let mut needs = 0;
    for entered in backs.into_iter().map(Some).chain([None]) {
        let depth = usize::from(automaton.depths[entered.unwrap_or(state) as usize]);
        needs = needs.max(pushed.len() + depth);
        pushed.extend(entered);
    }
    if needs > MAX_DEPTH {
        return;
    }
    let place = Place { state, pushed, depends: depends || needs > room };
    if !found.contains(&place) {
        found.push(place);
    }
}
