//! The smallest automaton with the same texts: states that no text tells apart become one, by refining a partition until it
//! is stable (Moore). States at different distances from the end of their rule differ, which makes the first partition
//! nearly the last for the long fixed texts of schemas. Bytes that every state treats alike become one class; states are
//! numbered as a search from the first one finds them.

use super::{Automaton, PUSHES, REFUSED};
use crate::error::Result;
use crate::limits::Work;
use std::collections::{BTreeMap, HashMap};

pub(super) fn minimize(automaton: Automaton, work: &mut Work) -> Result<Automaton> {
    let automaton = reachable(&automaton, work)?;
    let blocks = partition(&automaton, work)?;
    let merged = merge(&automaton, &blocks);
    Ok(join_classes(reachable(&merged, work)?))
}

/// The least number of bytes from each state to the end of its rule.
fn distances(automaton: &Automaton, work: &mut Work) -> Result<Vec<u32>> {
    let mut found: Vec<u32> = automaton.ends.iter().map(|&ends| if ends { 0 } else { u32::MAX }).collect();
    loop {
        let mut changed = false;
        work.add(automaton.next.len())?;
        for state in (0..automaton.states()).rev() {
            let codes = automaton.row(state as u32).iter().filter(|&&code| code != REFUSED);
            let through = codes.map(|&code| {
                let (target, backs) = automaton.target(code);
                backs.iter().fold(found[target as usize], |sum, &back| sum.saturating_add(found[back as usize]))
            });
            let least = through.min().unwrap_or(u32::MAX).saturating_add(1);
            if least < found[state] {
                (found[state], changed) = (least, true);
            }
        }
        if !changed {
            return Ok(found);
        }
    }
}

/// The block of each state; states of one block are equal.
fn partition(automaton: &Automaton, work: &mut Work) -> Result<Vec<u32>> {
    let mut blocks = distances(automaton, work)?;
    let mut count = 0;
    loop {
        work.add(automaton.next.len())?;
        let (mut pushes, mut numbers) = (BTreeMap::new(), HashMap::new());
        let mut push_blocks: Vec<u32> = Vec::with_capacity(automaton.pushes.len());
        for &(next, back) in &automaton.pushes {
            let next = if next >= PUSHES { push_blocks[(next - PUSHES) as usize] } else { blocks[next as usize] };
            let number = PUSHES + pushes.len() as u32;
            push_blocks.push(*pushes.entry((next, blocks[back as usize])).or_insert(number));
        }
        let block_of = |code: u32| match code {
            REFUSED => REFUSED,
            code if code >= PUSHES => push_blocks[(code - PUSHES) as usize],
            code => blocks[code as usize],
        };
        let mut refined = Vec::with_capacity(blocks.len());
        for (state, &block) in blocks.iter().enumerate() {
            let row = automaton.row(state as u32).iter().map(|&code| block_of(code));
            let key: Vec<u32> = core::iter::once(block).chain(row).collect();
            let number = numbers.len() as u32;
            refined.push(*numbers.entry(key).or_insert(number));
        }
        blocks = refined;
        if numbers.len() == count {
            return Ok(blocks);
        }
        count = numbers.len();
    }
}

/// One state for each block, that of its first member.
fn merge(automaton: &Automaton, blocks: &[u32]) -> Automaton {
    let count = blocks.iter().max().map_or(0, |&last| last as usize + 1);
    let mut first = vec![None; count];
    for (state, &block) in blocks.iter().enumerate() {
        first[block as usize].get_or_insert(state as u32);
    }
    let members: Vec<u32> = first.into_iter().flatten().collect();
    let (mut numbers, mut pushes, mut of_push) = (BTreeMap::new(), Vec::new(), Vec::<u32>::new());
    for &(next, back) in &automaton.pushes {
        let next = if next >= PUSHES { of_push[(next - PUSHES) as usize] } else { blocks[next as usize] };
        let key = (next, blocks[back as usize]);
        of_push.push(*numbers.entry(key).or_insert_with(|| {
            pushes.push(key);
            PUSHES + pushes.len() as u32 - 1
        }));
    }
    let code = |code: u32| match code {
        REFUSED => REFUSED,
        code if code >= PUSHES => of_push[(code - PUSHES) as usize],
        code => blocks[code as usize],
    };
    Automaton {
        next: members.iter().flat_map(|&state| automaton.row(state)).map(|&old| code(old)).collect(),
        ends: members.iter().map(|&state| automaton.ends[state as usize]).collect(),
        pushes,
        depths: Vec::new(),
        start: blocks[automaton.start as usize],
        ..*automaton
    }
}

/// The states that the first one reaches, numbered as they are found; pushes likewise.
fn reachable(automaton: &Automaton, work: &mut Work) -> Result<Automaton> {
    let mut numbers = vec![REFUSED; automaton.states()];
    let mut order = vec![automaton.start];
    numbers[automaton.start as usize] = 0;
    let mut used = vec![false; automaton.pushes.len()];
    let mut at = 0;
    while let Some(&state) = order.get(at) {
        at += 1;
        work.add(automaton.class_count)?;
        for &code in automaton.row(state).iter().filter(|&&code| code != REFUSED) {
            let mut push = code;
            while push >= PUSHES {
                used[(push - PUSHES) as usize] = true;
                push = automaton.pushes[(push - PUSHES) as usize].0;
            }
            let (target, backs) = automaton.target(code);
            for state in backs.into_iter().chain([target]) {
                if numbers[state as usize] == REFUSED {
                    numbers[state as usize] = order.len() as u32;
                    order.push(state);
                }
            }
        }
    }
    // Pushes keep their order: each leads to an earlier one or a state.
    let (mut pushes, mut of_push) = (Vec::new(), Vec::<u32>::new());
    for (&(next, back), &used) in automaton.pushes.iter().zip(&used) {
        of_push.push(PUSHES + pushes.len() as u32);
        if used {
            let next = if next >= PUSHES { of_push[(next - PUSHES) as usize] } else { numbers[next as usize] };
            pushes.push((next, numbers[back as usize]));
        }
    }
    let code = |code: u32| match code {
        REFUSED => REFUSED,
        code if code >= PUSHES => of_push[(code - PUSHES) as usize],
        code => numbers[code as usize],
    };
    Ok(Automaton {
        next: order.iter().flat_map(|&state| automaton.row(state)).map(|&old| code(old)).collect(),
        ends: order.iter().map(|&state| automaton.ends[state as usize]).collect(),
        pushes,
        depths: Vec::new(),
        start: 0,
        ..*automaton
    })
}

/// Classes with the same column become one, numbered by their first byte.
fn join_classes(automaton: Automaton) -> Automaton {
    let old = automaton.class_count;
    let column = |class: usize| (0..automaton.states()).map(|state| automaton.next[state * old + class]).collect();
    let columns: Vec<Vec<u32>> = (0..old).map(column).collect();
    let (mut numbers, mut kept) = (BTreeMap::new(), Vec::new());
    let classes = automaton.classes.map(|class| {
        let class = usize::from(class);
        *numbers.entry(&columns[class]).or_insert_with(|| {
            kept.push(class);
            (kept.len() - 1) as u8
        })
    });
    let rows = 0..automaton.states();
    let next = rows
        .flat_map(|state| kept.iter().map(move |&class| state * old + class))
        .map(|at| automaton.next[at])
        .collect();
    Automaton { classes, class_count: kept.len(), next, ..automaton }
}
