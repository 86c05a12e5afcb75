//! The grammar section of an artifact alone: eight bytes that choose tokens, then the section. One that is sound can be
//! followed, and allows no token that the model lacks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::grammar::{GrammarTables, TokenBytes};
use slm_runtime::format::special_tokens::TokenList;
use slm_runtime::grammar::Grammar;

/// Tokens of the model, each of one or two letters; token 0 ends a text.
const VOCABULARY: u32 = 40;

fn tokens() -> Vec<u8> {
    let token = |index: u32| match index {
        0 => Vec::new(),
        1..27 => vec![b'a' + index as u8 - 1],
        _ => vec![b'[', b'a' + index as u8 - 27],
    };
    let (mut section, mut text) = (0u32.to_le_bytes().to_vec(), Vec::new());
    for index in 0..VOCABULARY {
        text.extend(token(index));
        section.extend((text.len() as u32).to_le_bytes());
    }
    section.extend(text);
    section
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, section)) = bytes.split_at_checked(8) else { return };
    let Ok(tables) = GrammarTables::read(section, VOCABULARY) else { return };
    let vocabulary = tokens();
    let grammar = Grammar::new(tables, TokenBytes::new(&vocabulary, VOCABULARY), TokenList::new(&[0; 4]));
    let (mut state, mut words, mut run) = (grammar.start(), vec![0; grammar.words()], [0; 5]);
    for &choice in choices {
        let forced = grammar.forced(&mut state, &mut run);
        assert!(run[..forced].iter().all(|&token| token < VOCABULARY));
        let count = grammar.allowed(&state, &mut words);
        let allowed: Vec<u32> = (0..64).filter(|&id| words[id as usize / 32] >> (id % 32) & 1 == 1).collect();
        assert!(count == allowed.len() && allowed.iter().all(|&token| token < VOCABULARY));
        let _ = (grammar.is_accepting(&state), grammar.is_complete(&state));
        if allowed.is_empty() {
            return;
        }
        let before = state;
        if grammar.advance(&mut state, allowed[usize::from(choice) % allowed.len()]).is_err() {
            assert!(state == before);
        }
    }
});
