//! The tokens that may come next in each state of the automaton.
//!
//! A token is allowed where the automaton takes its bytes and some sequence of tokens leads on from there to the end of a
//! text; so an output can always be finished. States are looked at as tokens reach them. Where a rule is inside itself,
//! some tokens depend on the stack: those that return below where they began, or that may need more pushes than are left.
//! They are listed to be tried at run time.
//!
//! | file | contents |
//! |---|---|
//! | `walk` | all tokens through the automaton from a state, the prefixes that they share once |
//! | `forced` | the one token where the bytes are fixed |
//! | `store` | sets of tokens that states share |

mod forced;
mod store;
mod walk;

use crate::automaton::{Automaton, REFUSED};
use crate::error::{GrammarError, Result};
use crate::limits::Work;
use slm_runtime::format::grammar::MAX_DEPTH;
use slm_runtime::sample::{mark, seen_words};
pub(crate) use store::{Mask, Store};
use walk::Walker;

/// Tokens of a text, as the model's tokenizer makes them.
pub type Encode<'a> = dyn Fn(&[u8]) -> Option<Vec<u32>> + 'a;

/// The tokens of a model.
#[derive(Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The bytes of every token, as in the vocabulary section. Tokens without bytes are never allowed.
    pub tokens: &'a [Vec<u8>],
    /// Tokens that are never allowed: special ones, and those that end a text, which the reader allows by itself where a
    /// text may end.
    pub excluded: &'a [u32],
    /// The tokenizer, for texts without an alternative; `None` takes the longest token each time. It may answer `None`, or
    /// tokens that do not spell the text, which counts as none.
    pub encode: Option<&'a Encode<'a>>,
}

/// What a section holds.
pub(crate) struct Masks {
    /// With the depths that tokens need.
    pub(crate) automaton: Automaton,
    /// (states): no token may end there.
    pub(crate) inner: Vec<bool>,
    /// (states)
    pub(crate) masks: Vec<Mask>,
    pub(crate) store: Store,
}

/// Whether tokens may be used: they have bytes and are not excluded.
fn ordinary(vocabulary: &Vocabulary<'_>) -> Result<Vec<bool>> {
    let refuse = |problem: String| GrammarError::Vocabulary { problem };
    let mut found: Vec<bool> = vocabulary.tokens.iter().map(|bytes| !bytes.is_empty()).collect();
    if found.is_empty() || found.len() > 1 << 24 {
        return Err(refuse(format!("{} tokens; a model has 1 to 2^24", found.len())));
    }
    for &token in vocabulary.excluded {
        *found.get_mut(token as usize).ok_or_else(|| refuse(format!("token {token} is outside it")))? = false;
    }
    Ok(found)
}

pub(crate) fn masks(automaton: &Automaton, vocabulary: &Vocabulary<'_>, work: &mut Work) -> Result<Masks> {
    let ordinary = ordinary(vocabulary)?;
    let mut automaton = automaton.clone();
    let walker = Walker::new(vocabulary.tokens, &ordinary);
    let inner = live(&mut automaton, &walker, work)?;
    let mut set = vec![0; seen_words(ordinary.len())];
    (0..).zip(&ordinary).filter(|(_, ordinary)| **ordinary).for_each(|(token, _)| mark(&mut set, token));
    let mut store = Store::new(set);
    let returns = walk::Returns::of(&automaton, work)?;
    let mut masks = vec![Mask::WALK; automaton.states()];
    let (mut queue, mut seen) = (vec![automaton.start], vec![false; automaton.states()]);
    seen[automaton.start as usize] = true;
    let mut at = 0;
    while let Some(&state) = queue.get(at) {
        at += 1;
        let mut reached = match returns.is_empty() {
            true => walker.plain(&automaton, state, &inner, work)?,
            false => walker.with_stack(&automaton, &returns, state, &inner, work)?,
        };
        forced::restrict(&automaton, vocabulary, &walker, state, &mut reached, work)?;
        masks[state as usize] = store.mask(&reached.fixed_ids(), &reached.open_ids(), work)?;
        for next in reached.ends() {
            if !core::mem::replace(&mut seen[next as usize], true) {
                queue.push(next);
            }
        }
    }
    Ok(Masks { automaton, inner, masks, store })
}

/// The states in which no token may end, since no sequence of tokens leads from them to the end of a text.
fn live(automaton: &mut Automaton, walker: &Walker<'_>, work: &mut Work) -> Result<Vec<bool>> {
    let single = walker.single_bytes();
    let uses = |class: usize| (0..automaton.states()).any(|state| automaton.row(state as u32)[class] != REFUSED);
    let used: Vec<bool> = (0..automaton.class_count).map(uses).collect();
    let classes = automaton.classes;
    let bytes_of = |class: usize| (0..=255u8).filter(move |byte| usize::from(classes[usize::from(*byte)]) == class);
    let covered = |class: usize| bytes_of(class).any(|byte| single[usize::from(byte)]);
    if (0..automaton.class_count).all(|class| !used[class] || covered(class)) {
        // A token for every byte: what bytes can finish, tokens can.
        return Ok(vec![false; automaton.states()]);
    }
    let present = walker.bytes();
    let lacks = |class: &usize| used[*class] && !bytes_of(*class).any(|byte| present[usize::from(byte)]);
    let missing = (0..automaton.class_count).filter(lacks).flat_map(&bytes_of).collect();
    let none = GrammarError::NoTokens { bytes: missing };
    if automaton.is_recursive() {
        // The stack makes the exact answer a longer one: count only on the tokens of one byte.
        automaton.measure(work, |byte| single[usize::from(byte)])?;
        let inner: Vec<bool> = automaton.depths.iter().map(|&depth| usize::from(depth) > MAX_DEPTH).collect();
        return if inner[automaton.start as usize] { Err(none) } else { Ok(inner) };
    }
    let mut live = automaton.ends.clone();
    loop {
        let mut changed = false;
        for state in (0..automaton.states()).rev() {
            if !live[state] && walker.leads_to(automaton, state as u32, &live, work)? {
                (live[state], changed) = (true, true);
            }
        }
        if !changed {
            break;
        }
    }
    if !live[automaton.start as usize] {
        return Err(none);
    }
    Ok(live.into_iter().map(|live| !live).collect())
}
