//! Procedures joined to one automaton. A call becomes a push of the state to return to and the entry of the procedure; a
//! call that is the last thing of its own procedure needs no push. What no end follows is removed, and a rule after which
//! one byte does not decide between going on and returning is refused.

use super::subset::{Deterministic, Edge};
use super::{Automaton, PUSHES, REFUSED};
use crate::error::{GrammarError, Result, shown};
use crate::limits::Work;
use std::collections::BTreeMap;

pub(crate) fn join(mut all: Deterministic, work: &mut Work) -> Result<Automaton> {
    remove_dead_ends(&mut all, work)?;
    check_returns(&all, work)?;
    let class_count = all.examples.len();
    let mut joiner = Joiner { all: &all, pushes: Vec::new(), numbers: BTreeMap::new(), entries: BTreeMap::new() };
    let mut next = Vec::with_capacity(all.rows.len() * class_count);
    for row in &all.rows {
        work.add(class_count)?;
        for (class, edge) in row.edges.iter().enumerate() {
            next.push(joiner.code(*edge, class));
        }
    }
    let pushes = joiner.pushes;
    Ok(Automaton {
        classes: all.classes,
        class_count,
        next,
        pushes,
        ends: all.rows.iter().map(|row| row.ends).collect(),
        depths: Vec::new(),
        start: all.procedures[0].0,
    })
}

struct Joiner<'d> {
    all: &'d Deterministic,
    pushes: Vec<(u32, u32)>,
    numbers: BTreeMap<(u32, u32), u32>,
    /// Codes of the first states of procedures.
    entries: BTreeMap<(u32, usize), u32>,
}

impl Joiner<'_> {
    fn code(&mut self, edge: Edge, class: usize) -> u32 {
        let (procedure, back) = match edge {
            Edge::Dead => return REFUSED,
            Edge::To(state) => return state,
            Edge::Call(procedure, back) => (procedure, back),
        };
        let entry = match self.entries.get(&(procedure, class)) {
            Some(&entry) => entry,
            None => {
                // No procedure begins with itself, so this ends.
                let start = self.all.procedures[procedure as usize].0;
                let entry = self.code(self.all.rows[start as usize].edges[class], class);
                self.entries.insert((procedure, class), entry);
                entry
            }
        };
        let returns_at_once = &self.all.rows[back as usize];
        if returns_at_once.ends && returns_at_once.edges.iter().all(|&edge| edge == Edge::Dead) {
            return entry;
        }
        let pushes = &mut self.pushes;
        *self.numbers.entry((entry, back)).or_insert_with(|| {
            pushes.push((entry, back));
            PUSHES + pushes.len() as u32 - 1
        })
    }
}

/// Whether the end of its procedure can be reached through an edge.
fn leads_out(all: &Deterministic, out: &[bool], edge: Edge, class: usize) -> bool {
    match edge {
        Edge::Dead => false,
        Edge::To(state) => out[state as usize],
        Edge::Call(procedure, back) => {
            let start = all.procedures[procedure as usize].0;
            out[back as usize] && leads_out(all, out, all.rows[start as usize].edges[class], class)
        }
    }
}

fn remove_dead_ends(all: &mut Deterministic, work: &mut Work) -> Result<()> {
    let mut out: Vec<bool> = all.rows.iter().map(|row| row.ends).collect();
    loop {
        let mut changed = false;
        work.add(all.rows.len() * all.examples.len())?;
        for (number, row) in all.rows.iter().enumerate().rev().filter(|(_, row)| !row.ends) {
            if !out[number] && row.edges.iter().enumerate().any(|(class, edge)| leads_out(all, &out, *edge, class)) {
                (out[number], changed) = (true, true);
            }
        }
        if !changed {
            break;
        }
    }
    if !out[all.procedures[0].0 as usize] {
        return Err(GrammarError::Empty);
    }
    let dead: Vec<Vec<usize>> = all
        .rows
        .iter()
        .map(|row| {
            let edges = row.edges.iter().enumerate();
            edges.filter(|&(class, &edge)| !leads_out(all, &out, edge, class)).map(|(class, _)| class).collect()
        })
        .collect();
    for (row, dead) in all.rows.iter_mut().zip(dead) {
        dead.into_iter().for_each(|class| row.edges[class] = Edge::Dead);
    }
    Ok(())
}

/// Checks that no byte both continues a procedure and may follow it.
fn check_returns(all: &Deterministic, work: &mut Work) -> Result<()> {
    let class_count = all.examples.len();
    let mut follow = vec![vec![false; class_count]; all.procedures.len()];
    let calls: Vec<(usize, u32)> = all
        .rows
        .iter()
        .flat_map(|row| &row.edges)
        .filter_map(
            |edge| if let Edge::Call(procedure, back) = *edge { Some((procedure as usize, back)) } else { None },
        )
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    loop {
        let before = follow.clone();
        work.add(calls.len() * class_count)?;
        for &(procedure, back) in &calls {
            let row = &all.rows[back as usize];
            for class in 0..class_count {
                let of_caller = row.ends && before[row.procedure][class];
                follow[procedure][class] |= row.edges[class] != Edge::Dead || of_caller;
            }
        }
        if follow == before {
            break;
        }
    }
    // The first state of a procedure counts only where something leads back to it.
    let mut reached = vec![false; all.rows.len()];
    for edge in all.rows.iter().flat_map(|row| &row.edges) {
        match *edge {
            Edge::To(state) | Edge::Call(_, state) => reached[state as usize] = true,
            Edge::Dead => {}
        }
    }
    for (row, _) in all.rows.iter().zip(reached).filter(|(row, reached)| row.ends && *reached) {
        let both = (0..class_count).find(|&class| row.edges[class] != Edge::Dead && follow[row.procedure][class]);
        if let Some(class) = both {
            let rule = all.procedures[row.procedure].1.clone();
            return Err(GrammarError::Ambiguous { rule, byte: shown(all.examples[class]), place: "where it ends" });
        }
    }
    Ok(())
}
