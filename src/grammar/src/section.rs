//! The bytes of the section, as `slm_runtime::format::grammar` reads them.

use crate::automaton::{Automaton, PUSHES, REFUSED};
use crate::error::{GrammarError, Limit, Result};
use crate::limits::{Limits, check};
use crate::tokens::{Masks, Vocabulary};
use slm_runtime::format::grammar::{
    DEAD, FINAL, GRAMMAR_VERSION, GrammarRecord, GrammarTables, INNER, MAX_DEPTH, StateRecord, WALK,
};

pub(crate) fn write(masks: &Masks, vocabulary: &Vocabulary<'_>, limits: &Limits) -> Result<Vec<u8>> {
    let automaton = &masks.automaton;
    let places = automaton.states() + automaton.pushes.len();
    check(Limit::States, places, usize::from(DEAD) - 1)?;
    let id_bytes = if vocabulary.tokens.len() <= 1 << 16 { 2 } else { 4 };
    let (mut next, mut states) = (Vec::new(), Vec::new());
    for (state, mask) in masks.masks.iter().enumerate() {
        let row = automaton.row(state as u32);
        let taken = |code: &u32| *code != REFUSED;
        let (first, last) = match (row.iter().position(taken), row.iter().rposition(taken)) {
            (Some(first), Some(last)) => (first as u8, last as u8),
            _ => (1, 0),
        };
        let flags = [(automaton.ends[state], FINAL), (mask.walk, WALK), (masks.inner[state], INNER)];
        states.push(StateRecord {
            entries: next.len() as u32,
            list: mask.list,
            bitset: mask.bitset,
            first,
            last,
            flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum(),
            depth: automaton.depths[state].min(MAX_DEPTH as u8),
            toggles: mask.toggles,
            checks: mask.checks,
        });
        if first <= last {
            next.extend(row[usize::from(first)..=usize::from(last)].iter().map(|&code| entry(automaton, code)));
        }
    }
    let record = GrammarRecord {
        version: GRAMMAR_VERSION,
        id_bytes,
        depth: MAX_DEPTH as u8,
        classes: automaton.class_count as u16,
        states: automaton.states() as u16,
        start: automaton.start as u16,
        pushes: automaton.pushes.len() as u16,
        bitsets: masks.store.sets.len() as u16,
        reserved: 0,
        entries: next.len() as u32,
        ids: masks.store.ids.len() as u32,
        vocabulary: vocabulary.tokens.len() as u32,
        reserved_end: [0; 4],
    };
    let mut bytes = record.to_bytes().to_vec();
    bytes.extend(automaton.classes);
    bytes.extend(states.iter().flat_map(StateRecord::to_bytes));
    bytes.extend(next.iter().flat_map(|next| next.to_le_bytes()));
    for &(target, back) in &automaton.pushes {
        bytes.extend([entry(automaton, target), back as u16].iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes.extend(masks.store.sets.iter().flatten().flat_map(|word| word.to_le_bytes()));
    bytes.extend(masks.store.ids.iter().flat_map(|id| id.to_le_bytes().into_iter().take(id_bytes.into())));
    check(Limit::Section, bytes.len(), limits.section_bytes)?;
    match GrammarTables::read(&bytes, record.vocabulary) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(GrammarError::Vocabulary { problem: format!("the section does not read: {error}") }),
    }
}

/// A code as the section has it: states, then pushes.
fn entry(automaton: &Automaton, code: u32) -> u16 {
    match code {
        REFUSED => DEAD,
        code if code >= PUSHES => (automaton.states() as u32 + (code - PUSHES)) as u16,
        code => code as u16,
    }
}
