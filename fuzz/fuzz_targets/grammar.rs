//! A grammar as its author writes it: one byte for its kind, then its text. It is refused, or it becomes a section within
//! limits, from every place of which tokens lead on; what they write follows the grammar.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_grammar::{Limits, Separators, Source, Vocabulary};
use slm_runtime::format::grammar::{GrammarTables, TokenBytes};
use slm_runtime::format::special_tokens::TokenList;
use slm_runtime::grammar::Grammar;
use slm_runtime::sample::random_u64;

const LIMITS: Limits = Limits {
    text_bytes: 1 << 14,
    nesting: 200,
    steps: 1 << 15,
    states: 1 << 12,
    work: 1 << 23,
    section_bytes: 1 << 22,
};

/// Every byte but zero, some pieces, and the token that ends a text.
fn vocabulary() -> (Vec<Vec<u8>>, Vec<u8>) {
    let pieces =
        ["{\"", "\":", "\",\"", "]}", "[[", "((", "))", "ab", "12", "é"].map(|piece| piece.as_bytes().to_vec());
    let tokens: Vec<Vec<u8>> = [Vec::new()].into_iter().chain((1..=255).map(|byte| vec![byte])).chain(pieces).collect();
    let (mut section, mut end) = (0u32.to_le_bytes().to_vec(), 0);
    for token in &tokens {
        end += token.len() as u32;
        section.extend(end.to_le_bytes());
    }
    section.extend(tokens.iter().flatten());
    (tokens, section)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let source = match kind % 5 {
        0 => Source::Schema(text, Separators::Compact),
        1 => Source::Schema(text, Separators::Spaced),
        2 => Source::Expression(text),
        3 => Source::Rules(text),
        _ => Source::Choices(text),
    };
    let Ok(grammar) = source.compile(&LIMITS) else { return };
    let (tokens, section) = vocabulary();
    let Ok(compiled) = grammar.section(&Vocabulary { tokens: &tokens, excluded: &[0], encode: None }) else { return };
    let count = tokens.len() as u32;
    let tables = GrammarTables::read(&compiled, count).expect("slm-grammar wrote it");
    let reader = Grammar::new(tables, TokenBytes::new(&section, count), TokenList::new(&[0; 4]));
    let (mut state, mut words, mut run, mut written) = (reader.start(), vec![0; reader.words()], [0; 7], Vec::new());
    for index in 0..40 {
        let forced = reader.forced(&mut state, &mut run);
        written.extend(run[..forced].iter().flat_map(|&token| &tokens[token as usize]));
        if reader.is_complete(&state) {
            assert!(grammar.automaton().accepts(&written), "an output that does not follow the grammar");
            return;
        }
        assert!(reader.allowed(&state, &mut words) > 0, "a place from which no token leads on");
        let allowed: Vec<u32> = (0..count).filter(|&id| words[id as usize / 32] >> (id % 32) & 1 == 1).collect();
        let token = allowed[(random_u64(1, index) % allowed.len() as u64) as usize];
        reader.advance(&mut state, token).expect("an allowed token is taken");
        written.extend(&tokens[token as usize]);
        if token == 0 {
            assert!(grammar.automaton().accepts(&written), "an output that ended and does not follow the grammar");
            return;
        }
    }
});
