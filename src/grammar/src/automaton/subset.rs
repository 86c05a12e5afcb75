//! Subset construction: a nondeterministic automaton becomes a deterministic one, procedure by procedure. Bytes that all
//! states treat alike share a class. Where a call begins, the byte decides: it must not begin anything else there.

use super::machine::{DEAD, Machine};
use super::nfa::{Id, Nfa, first_bytes};
use crate::error::{GrammarError, Limit, Result, shown};
use crate::limits::{Work, check};
use std::collections::HashMap;

/// What a state does with a class of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Edge {
    /// Refuses them.
    Dead,
    /// Goes on there.
    To(u32),
    /// Goes on as the procedure's first state does, which then returns to the state.
    Call(u32, u32),
}

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The procedure it belongs to.
    pub(crate) procedure: usize,
    /// Whether the procedure may end.
    pub(crate) ends: bool,
    /// (classes)
    pub(crate) edges: Vec<Edge>,
}

/// The deterministic automaton of every procedure.
#[derive(Clone, Debug)]
pub(crate) struct Deterministic {
    /// (256): the class of each byte.
    pub(crate) classes: [u8; 256],
    /// (classes): one byte of each.
    pub(crate) examples: Vec<u8>,
    pub(crate) rows: Vec<Row>,
    /// The first state of each procedure, and its name.
    pub(crate) procedures: Vec<(u32, String)>,
}

pub(crate) fn determinize(nfa: &Nfa, work: &mut Work) -> Result<Deterministic> {
    let first = first_bytes(nfa)?;
    let (classes, examples) = byte_classes(nfa, &first);
    let mut result = Deterministic { classes, examples, rows: Vec::new(), procedures: Vec::new() };
    let mut closure = Closure { seen: vec![0; nfa.states.len()], stamp: 0, stack: Vec::new() };
    for (number, procedure) in nfa.procedures.iter().enumerate() {
        let base = result.rows.len();
        let mut sets = Sets { numbers: HashMap::new(), order: Vec::new(), base: base as u32 };
        let start = closure.of(nfa, [procedure.start], procedure.end, work)?;
        result.procedures.push((sets.number(start), procedure.name.clone()));
        while let Some(set) = sets.order.get(result.rows.len() - base).cloned() {
            check(Limit::States, base + sets.order.len(), work.limits.states)?;
            // Weighs the memory of the sets as well as the time.
            work.add(set.len() * result.examples.len().max(64))?;
            let mut edges = Vec::with_capacity(result.examples.len());
            for &byte in &result.examples {
                let plain: Vec<Id> = targets(nfa, &set, byte).collect();
                let (called, returns) = calls(nfa, &set, &first, byte, &plain)?;
                let edge = match called {
                    Some(called) => {
                        let back = closure.of(nfa, returns, procedure.end, work)?;
                        Edge::Call(called as u32, sets.number(back))
                    }
                    None if plain.is_empty() => Edge::Dead,
                    None => Edge::To(sets.number(closure.of(nfa, plain, procedure.end, work)?)),
                };
                edges.push(edge);
            }
            result.rows.push(Row { procedure: number, ends: set.contains(&procedure.end), edges });
        }
    }
    Ok(result)
}

/// The automaton of a grammar without calls.
pub(crate) fn machine(nfa: &Nfa, work: &mut Work) -> Result<Machine> {
    let found = determinize(nfa, work)?;
    let target = |edge: &Edge| if let Edge::To(state) = edge { *state } else { DEAD };
    Ok(Machine {
        classes: found.classes,
        next: found.rows.iter().map(|row| row.edges.iter().map(target).collect()).collect(),
        accepts: found.rows.iter().map(|row| row.ends).collect(),
    })
}

/// Sets of states, numbered as they are found.
struct Sets {
    numbers: HashMap<Vec<Id>, u32>,
    order: Vec<Vec<Id>>,
    base: u32,
}

impl Sets {
    fn number(&mut self, set: Vec<Id>) -> u32 {
        let next = self.base + self.order.len() as u32;
        let order = &mut self.order;
        *self.numbers.entry(set).or_insert_with_key(|set| {
            order.push(set.clone());
            next
        })
    }
}

struct Closure {
    /// The last search that reached each state.
    seen: Vec<u32>,
    stamp: u32,
    stack: Vec<Id>,
}

impl Closure {
    /// The states that some states reach without a byte, ascending: those that take a byte or call, and the end.
    fn of(&mut self, nfa: &Nfa, from: impl IntoIterator<Item = Id>, end: Id, work: &mut Work) -> Result<Vec<Id>> {
        self.stamp += 1;
        self.stack.extend(from);
        let (mut found, mut steps) = (Vec::new(), 0);
        while let Some(id) = self.stack.pop() {
            steps += 1;
            if core::mem::replace(&mut self.seen[id as usize], self.stamp) == self.stamp {
                continue;
            }
            let state = &nfa.states[id as usize];
            if !state.ranges.is_empty() || !state.calls.is_empty() || id == end {
                found.push(id);
            }
            self.stack.extend(&state.free);
        }
        found.sort_unstable();
        work.add(steps)?;
        Ok(found)
    }
}

fn targets(nfa: &Nfa, set: &[Id], byte: u8) -> impl Iterator<Item = Id> {
    let ranges = set.iter().flat_map(|&id| &nfa.states[id as usize].ranges);
    ranges.filter(move |(low, high, _)| (*low..=*high).contains(&byte)).map(|&(.., to)| to)
}

/// The procedure that a byte begins in a set of states, and where it returns to.
fn calls(nfa: &Nfa, set: &[Id], first: &[[bool; 256]], byte: u8, plain: &[Id]) -> Result<(Option<usize>, Vec<Id>)> {
    let (mut called, mut returns) = (None, Vec::new());
    let all = set.iter().flat_map(|&id| &nfa.states[id as usize].calls);
    for &(procedure, back) in all.filter(|(procedure, _)| first[*procedure][usize::from(byte)]) {
        if !plain.is_empty() || called.is_some_and(|other| other != procedure) {
            let rule = nfa.procedures[procedure].name.clone();
            return Err(GrammarError::Ambiguous { rule, byte: shown(byte), place: "where it begins" });
        }
        called = Some(procedure);
        returns.push(back);
    }
    Ok((called, returns))
}

/// Classes of bytes that no range and no set of first bytes tells apart, numbered as they come, and a byte of each.
fn byte_classes(nfa: &Nfa, first: &[[bool; 256]]) -> ([u8; 256], Vec<u8>) {
    // A class ends before each byte at which a range begins or after which one ends.
    let mut begins = [false; 257];
    begins[0] = true;
    for &(low, high, _) in nfa.states.iter().flat_map(|state| &state.ranges) {
        begins[usize::from(low)] = true;
        begins[usize::from(high) + 1] = true;
    }
    for of_procedure in first {
        (1..256).for_each(|byte| begins[byte] |= of_procedure[byte] != of_procedure[byte - 1]);
    }
    let (mut classes, mut examples) = ([0; 256], Vec::new());
    for byte in 0..256 {
        if begins[byte] {
            examples.push(byte as u8);
        }
        classes[byte] = (examples.len() - 1) as u8;
    }
    (classes, examples)
}
