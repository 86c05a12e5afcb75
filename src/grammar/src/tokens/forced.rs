//! The one token where the bytes are fixed. A run of bytes without an alternative could be spelled by many sequences of
//! tokens; the model saw the one that its tokenizer makes, so the others are left out.
//!
//! The token is the first one of the run as the tokenizer encodes it. Where the run ends, a tokenizer may join its last
//! bytes with those that follow; so the run is encoded with continuations too. Where one of them begins with another token,
//! as `ients` is `i`, `ents` and `ient` alone is one token, that stays allowed as well, and so do tokens that reach beyond the
//! run.

use super::walk::{Reached, Walker};
use super::{Encode, Vocabulary};
use crate::automaton::{Automaton, PUSHES, REFUSED};
use crate::error::Result;
use crate::limits::Work;

/// Bytes of a run that are looked at: its first token is asked for.
const MOST_BYTES: usize = 64;
/// Continuations that are tried, longer tokens and single bytes each.
const MOST_CONTINUATIONS: usize = 16;
/// Bytes that continue a run where it may go on by many: of each kind that tokenizers tell apart.
const PROBES: &[u8] = b"ae0 .\"-A_1,:\n{[}]\xc3";

/// Leaves out the tokens other than the tokenizer's where the next bytes are fixed.
pub(crate) fn restrict(
    automaton: &Automaton,
    vocabulary: &Vocabulary<'_>,
    walker: &Walker<'_>,
    state: u32,
    reached: &mut Reached,
    work: &mut Work,
) -> Result<()> {
    let (run, last) = run(automaton, state);
    if run.is_empty() || reached.fixed.len() + reached.open.len() < 2 {
        return Ok(());
    }
    let first = |text: &[u8]| first_token(vocabulary, walker, text, reached);
    work.add(run.len())?;
    let Some(token) = first(&run) else { return Ok(()) };
    let mut firsts = vec![token];
    let mut stable = true;
    if run.len() < MOST_BYTES {
        let longer = walker.along(&run).filter(|(bytes, _)| bytes.len() > run.len());
        let allowed = |id: &u32| reached.fixed.iter().any(|(known, _)| known == id);
        let longer = longer.filter(|(_, id)| allowed(id)).map(|(bytes, _)| bytes.to_vec());
        let further = |byte: &u8| automaton.code(last, *byte) != REFUSED;
        let probes = PROBES.iter().copied().chain(0..=255).filter(further);
        let with_byte = |byte| [&run[..], &[byte]].concat();
        let all = longer.take(MOST_CONTINUATIONS).chain(probes.take(MOST_CONTINUATIONS).map(with_byte));
        for text in all {
            work.add(text.len())?;
            let other = first(&text);
            stable &= other == Some(token);
            firsts.extend(other);
        }
    }
    let length = |id: u32| vocabulary.tokens[id as usize].len();
    let stays = |id: u32| firsts.contains(&id) || !stable && length(id) > run.len();
    reached.fixed.retain(|&(id, _)| stays(id));
    reached.open.retain(|&(id, _)| stays(id));
    Ok(())
}

/// The bytes without an alternative from a state on, and the state after them.
fn run(automaton: &Automaton, state: u32) -> (Vec<u8>, u32) {
    let (mut bytes, mut at) = (Vec::new(), state);
    while bytes.len() < MOST_BYTES && !automaton.ends[at as usize] {
        let mut takes = (0..=255u8).filter(|&byte| automaton.code(at, byte) != REFUSED);
        let (Some(byte), None) = (takes.next(), takes.next()) else { break };
        bytes.push(byte);
        let code = automaton.code(at, byte);
        at = if code >= PUSHES { automaton.target(code).0 } else { code };
    }
    (bytes, at)
}

/// The first token of a text that is allowed: the tokenizer's, or the longest.
fn first_token(vocabulary: &Vocabulary<'_>, walker: &Walker<'_>, text: &[u8], reached: &Reached) -> Option<u32> {
    let allowed = |id: &u32| reached.fixed.iter().any(|(known, _)| known == id);
    if let Some(token) = vocabulary.encode.and_then(|encode| encoded(vocabulary, encode, text)) {
        return Some(token).filter(allowed);
    }
    let longest = walker.along(text).filter(|(bytes, id)| text.starts_with(bytes) && allowed(id));
    // The lowest id of the longest.
    longest.max_by_key(|(bytes, id)| (bytes.len(), core::cmp::Reverse(*id))).map(|(_, id)| id)
}

/// The tokenizer's first token, where its tokens spell the text.
fn encoded(vocabulary: &Vocabulary<'_>, encode: &Encode<'_>, text: &[u8]) -> Option<u32> {
    let tokens = encode(text)?;
    let spelled: Vec<u8> =
        tokens.iter().flat_map(|&id| vocabulary.tokens.get(id as usize)).flatten().copied().collect();
    (spelled == text).then(|| tokens.first().copied())?
}
