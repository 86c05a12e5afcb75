//! The nondeterministic automaton of a grammar. Rules are written out where they are used, but for those that are inside
//! themselves: each of these has an automaton of its own, a procedure, which its uses call.

use super::machine::{DEAD, Machine};
use crate::error::{GrammarError, Limit, Result};
use crate::limits::{Work, check};
use crate::syntax::{Node, Rules};

/// Most rules of a grammar, and most of them that are recursive.
const MAX_RULES: usize = 10_000;
const MAX_RECURSIVE: usize = 256;

/// A state, by its number.
pub(crate) type Id = u32;

/// What can be done in a state.
#[derive(Clone, Debug, Default)]
pub(crate) struct NfaState {
    /// First and last byte, and where they lead.
    pub(crate) ranges: Vec<(u8, u8, Id)>,
    /// States that take no byte to reach.
    pub(crate) free: Vec<Id>,
    /// Procedures that begin here, and where they return to.
    pub(crate) calls: Vec<(usize, Id)>,
}

/// A recursive rule, or the whole grammar.
#[derive(Clone, Debug)]
pub(crate) struct Procedure {
    /// The rule's name.
    pub(crate) name: String,
    pub(crate) start: Id,
    pub(crate) end: Id,
}

/// The automaton; procedure 0 is the whole grammar.
#[derive(Clone, Debug)]
pub(crate) struct Nfa {
    pub(crate) states: Vec<NfaState>,
    pub(crate) procedures: Vec<Procedure>,
}

impl Nfa {
    pub(crate) fn of(rules: &Rules, work: &mut Work) -> Result<Nfa> {
        check(Limit::Rules, rules.rules.len(), MAX_RULES)?;
        let recursive = recursive_rules(rules, work)?;
        check(Limit::Recursion, recursive.len(), MAX_RECURSIVE)?;
        let mut procedure_of = vec![None; rules.rules.len()];
        let mut bodies = vec![rules.root];
        for (rule, number) in recursive.iter().zip(1..) {
            procedure_of[*rule] = Some(number);
            bodies.push(*rule);
        }
        let nullable = nullable_rules(rules);
        let mut builder = Builder { rules, procedure_of, nullable, states: Vec::new(), work };
        let mut procedures = Vec::new();
        for (number, &rule) in bodies.iter().enumerate() {
            let start = builder.state()?;
            // The grammar itself calls its root where that is recursive.
            let end = match builder.procedure_of[rule].filter(|_| number == 0) {
                Some(_) => builder.add(&Node::Rule(rule), start, 0)?,
                None => builder.add(&rules.rules[rule].node, start, 0)?,
            };
            procedures.push(Procedure { name: rules.rules[rule].name.clone(), start, end });
        }
        Ok(Nfa { states: builder.states, procedures })
    }
}

struct Builder<'r, 'w> {
    rules: &'r Rules,
    procedure_of: Vec<Option<usize>>,
    nullable: Vec<bool>,
    states: Vec<NfaState>,
    work: &'w mut Work,
}

impl Builder<'_, '_> {
    fn state(&mut self) -> Result<Id> {
        self.work.add(1)?;
        check(Limit::Steps, self.states.len(), self.work.limits.steps)?;
        self.states.push(NfaState::default());
        Ok(self.states.len() as Id - 1)
    }

    fn free(&mut self, from: Id, to: Id) {
        self.states[from as usize].free.push(to);
    }

    /// Adds an expression that begins in `from`; returns the state in which it ends, which is new.
    fn add(&mut self, node: &Node, from: Id, depth: usize) -> Result<Id> {
        check(Limit::Nesting, depth, self.work.limits.nesting)?;
        match node {
            Node::Literal(bytes) => {
                let mut at = from;
                for &byte in bytes {
                    at = self.range((byte, byte), at)?;
                }
                self.fresh(at)
            }
            Node::Ranges(sequences) => {
                let end = self.state()?;
                for sequence in sequences.iter() {
                    let mut at = from;
                    for (index, &(low, high)) in sequence.iter().enumerate() {
                        if index + 1 == sequence.len() {
                            self.states[at as usize].ranges.push((low, high, end));
                        } else {
                            at = self.range((low, high), at)?;
                        }
                    }
                }
                Ok(end)
            }
            Node::Sequence(parts) => {
                let mut at = self.fresh(from)?;
                for part in parts {
                    at = self.add(part, at, depth + 1)?;
                }
                Ok(at)
            }
            Node::Either(parts) => {
                let end = self.state()?;
                for part in parts {
                    let start = self.fresh(from)?;
                    let last = self.add(part, start, depth + 1)?;
                    self.free(last, end);
                }
                Ok(end)
            }
            Node::Repeat(inner, least, most) => self.repeat(inner, *least, *most, from, depth),
            Node::Members(members, separator) => self.members(members, separator, from, depth),
            Node::Rule(rule) => match self.procedure_of[*rule] {
                Some(procedure) => {
                    let end = self.state()?;
                    self.states[from as usize].calls.push((procedure, end));
                    if self.nullable[*rule] {
                        self.free(from, end);
                    }
                    Ok(end)
                }
                None => {
                    let (rules, start) = (self.rules, self.fresh(from)?);
                    self.add(&rules.rules[*rule].node, start, depth + 1)
                }
            },
            Node::Machine(machine) => self.machine(machine, from),
        }
    }

    /// A new state after a range of bytes.
    fn range(&mut self, (low, high): (u8, u8), from: Id) -> Result<Id> {
        let to = self.state()?;
        self.states[from as usize].ranges.push((low, high, to));
        Ok(to)
    }

    /// A new state after none: what begins there cannot be mixed up with what else begins in `from`.
    fn fresh(&mut self, from: Id) -> Result<Id> {
        let to = self.state()?;
        self.free(from, to);
        Ok(to)
    }

    fn repeat(&mut self, inner: &Node, least: u32, most: Option<u32>, from: Id, depth: usize) -> Result<Id> {
        let mut at = self.fresh(from)?;
        for _ in 0..least {
            at = self.add(inner, at, depth + 1)?;
        }
        let end = self.state()?;
        let Some(most) = most else {
            let head = self.fresh(at)?;
            let last = self.add(inner, head, depth + 1)?;
            self.free(last, head);
            self.free(head, end);
            return Ok(end);
        };
        for _ in least..most {
            self.free(at, end);
            let start = self.fresh(at)?;
            at = self.add(inner, start, depth + 1)?;
        }
        self.free(at, end);
        Ok(end)
    }

    /// Two chains: nothing was written so far, or something was and a separator comes first.
    fn members(&mut self, members: &[(Node, bool)], separator: &Node, from: Id, depth: usize) -> Result<Id> {
        let (mut none, mut some) = (Some(self.fresh(from)?), None);
        for (member, required) in members {
            let after = self.state()?;
            if let Some(none) = none {
                let start = self.fresh(none)?;
                let last = self.add(member, start, depth + 1)?;
                self.free(last, after);
            }
            if let Some(some) = some {
                let start = self.fresh(some)?;
                let between = self.add(separator, start, depth + 1)?;
                let last = self.add(member, between, depth + 1)?;
                self.free(last, after);
                if !required {
                    self.free(some, after);
                }
            }
            none = none.filter(|_| !required);
            some = Some(after);
        }
        let end = self.state()?;
        for last in [none, some].into_iter().flatten() {
            self.free(last, end);
        }
        Ok(end)
    }

    fn machine(&mut self, machine: &Machine, from: Id) -> Result<Id> {
        let end = self.state()?;
        let first = self.states.len() as Id;
        for _ in &machine.next {
            self.state()?;
        }
        self.free(from, first);
        for (index, row) in machine.next.iter().enumerate() {
            let state = first as usize + index;
            let mut byte = 0;
            while byte < 256 {
                let target = |byte: usize| row[usize::from(machine.classes[byte])];
                let (low, to) = (byte, target(byte));
                while byte < 256 && target(byte) == to {
                    byte += 1;
                }
                if to != DEAD {
                    self.states[state].ranges.push((low as u8, byte as u8 - 1, first + to));
                }
            }
            if machine.accepts[index] {
                self.states[state].free.push(end);
            }
        }
        Ok(end)
    }
}

/// Rules that a walk through the rules meets again inside themselves, ascending: without them the others have an end.
fn recursive_rules(rules: &Rules, work: &mut Work) -> Result<Vec<usize>> {
    let uses: Vec<Vec<usize>> = rules.rules.iter().map(|rule| used(&rule.node)).collect();
    let mut open = vec![None; rules.rules.len()];
    let mut recursive = vec![false; rules.rules.len()];
    // Rules on the way, each with the number of its uses that were followed.
    let mut path = vec![(rules.root, 0)];
    open[rules.root] = Some(true);
    while let Some((rule, next)) = path.last_mut() {
        work.add(1)?;
        let Some(&inner) = uses[*rule].get(*next) else {
            open[*rule] = Some(false);
            path.pop();
            continue;
        };
        *next += 1;
        match open[inner] {
            Some(true) => recursive[inner] = true,
            Some(false) => {}
            None => {
                open[inner] = Some(true);
                path.push((inner, 0));
            }
        }
    }
    Ok((0..recursive.len()).filter(|&rule| recursive[rule]).collect())
}

/// The rules that an expression uses, in order.
fn used(node: &Node) -> Vec<usize> {
    let (mut found, mut rest) = (Vec::new(), vec![node]);
    while let Some(node) = rest.pop() {
        match node {
            Node::Rule(rule) => found.push(*rule),
            Node::Sequence(parts) | Node::Either(parts) => rest.extend(parts.iter().rev()),
            Node::Members(members, separator) => {
                rest.push(separator);
                rest.extend(members.iter().rev().map(|(member, _)| member));
            }
            Node::Repeat(inner, ..) => rest.push(inner),
            Node::Literal(_) | Node::Ranges(_) | Node::Machine(_) => {}
        }
    }
    found
}

/// Whether each rule has the empty text.
fn nullable_rules(rules: &Rules) -> Vec<bool> {
    let mut nullable = vec![false; rules.rules.len()];
    loop {
        let before = nullable.clone();
        for (rule, known) in rules.rules.iter().zip(0..) {
            nullable[known] = is_nullable(&rule.node, &nullable);
        }
        if nullable == before {
            return nullable;
        }
    }
}

fn is_nullable(node: &Node, rules: &[bool]) -> bool {
    match node {
        Node::Literal(bytes) => bytes.is_empty(),
        Node::Ranges(_) => false,
        Node::Sequence(parts) => parts.iter().all(|part| is_nullable(part, rules)),
        Node::Either(parts) => parts.iter().any(|part| is_nullable(part, rules)),
        Node::Members(members, _) => members.iter().all(|(member, required)| !required || is_nullable(member, rules)),
        Node::Repeat(inner, least, _) => *least == 0 || is_nullable(inner, rules),
        Node::Rule(rule) => rules[*rule],
        Node::Machine(machine) => machine.accepts[0],
    }
}

/// The bytes with which each procedure can begin; an error for one that can begin with itself.
pub(crate) fn first_bytes(nfa: &Nfa) -> Result<Vec<[bool; 256]>> {
    let mut found = vec![None; nfa.procedures.len()];
    let (mut open, mut seen) = (vec![false; nfa.procedures.len()], vec![0; nfa.states.len()]);
    for procedure in 0..nfa.procedures.len() {
        first_of(nfa, procedure, &mut found, &mut open, &mut seen)?;
    }
    Ok(found.into_iter().map(|first| first.unwrap_or([false; 256])).collect())
}

/// `seen` has for each state the last procedure that reached it, counted from 1.
fn first_of(
    nfa: &Nfa,
    procedure: usize,
    found: &mut [Option<[bool; 256]>],
    open: &mut [bool],
    seen: &mut [usize],
) -> Result<()> {
    if found[procedure].is_some() {
        return Ok(());
    }
    let Procedure { name, start, .. } = &nfa.procedures[procedure];
    if open[procedure] {
        return Err(GrammarError::LeftRecursion { rule: name.clone() });
    }
    open[procedure] = true;
    let mut first = [false; 256];
    let (mut rest, mut called_first) = (vec![*start], Vec::new());
    while let Some(id) = rest.pop() {
        if core::mem::replace(&mut seen[id as usize], procedure + 1) == procedure + 1 {
            continue;
        }
        let state = &nfa.states[id as usize];
        rest.extend(&state.free);
        for &(low, high, _) in &state.ranges {
            first[usize::from(low)..=usize::from(high)].fill(true);
        }
        called_first.extend(state.calls.iter().map(|&(called, _)| called));
    }
    for called in called_first {
        first_of(nfa, called, found, open, seen)?;
        if let Some(of_called) = &found[called] {
            first.iter_mut().zip(of_called).for_each(|(first, of_called)| *first |= of_called);
        }
    }
    open[procedure] = false;
    found[procedure] = Some(first);
    Ok(())
}
