//! Damaged sections: every byte changed, every length; whatever reads can be run, and gives an answer.

use crate::support::{Model, Random, compiled, ids};
use slm_grammar::{Separators, Source};
use slm_runtime::format::grammar::{GrammarRecord, GrammarTables, TokenBytes};
use slm_runtime::format::special_tokens::TokenList;
use slm_runtime::grammar::Grammar;

fn small() -> (Model, Vec<u8>) {
    let model =
        Model::of(["a", "b", "ab", "[", "]", "[[", "]]", ",", "],["].iter().map(|token| token.as_bytes().to_vec()));
    let grammar = compiled(Source::Rules("root ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= root | [ab]{1,3}"));
    let section = model.compile(&grammar, None);
    (model, section)
}

/// Runs whatever a section says, for a while.
fn exercise(model: &Model, section: &[u8], random: &mut Random) -> bool {
    let count = model.tokens.len() as u32;
    let Ok(tables) = GrammarTables::read(section, count) else { return false };
    let ends = (count - 1).to_le_bytes();
    let reader = Grammar::new(tables, TokenBytes::new(&model.section, count), TokenList::new(&ends));
    let (mut state, mut words, mut run) = (reader.start(), vec![0; reader.words()], [0; 4]);
    for _ in 0..12 {
        let forced = reader.forced(&mut state, &mut run);
        assert!(run[..forced].iter().all(|&token| token < count));
        let found = reader.allowed(&state, &mut words);
        let all = ids(&words);
        assert!(found == all.len() && all.iter().all(|&token| token < count));
        let _ = (reader.is_accepting(&state), reader.is_complete(&state));
        if all.is_empty() {
            break;
        }
        let before = state;
        if reader.advance(&mut state, all[random.below(all.len())]).is_err() {
            assert_eq!(state, before);
        }
    }
    true
}

#[test]
fn every_byte_changed_is_answered() {
    let (model, section) = small();
    let mut random = Random::new(1);
    assert!(exercise(&model, &section, &mut random));
    let (mut read, mut refused) = (0, 0);
    for at in 0..section.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, section[at] ^ 1, section[at] ^ 0x80, section[at].wrapping_add(1)] {
            let mut damaged = section.clone();
            damaged[at] = value;
            if exercise(&model, &damaged, &mut random) { read += 1 } else { refused += 1 }
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    for length in 0..section.len() {
        assert!(!exercise(&model, &section[..length], &mut random), "{length} bytes of {}", section.len());
    }
    assert!(!exercise(&model, &[&section[..], &[0]].concat(), &mut random));
}

#[test]
fn random_tables_are_answered() {
    let (model, section) = small();
    let mut random = Random::new(2);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut damaged = section.clone();
        for _ in 0..1 + random.below(4) {
            let at = GrammarRecord::BYTES + random.below(damaged.len() - GrammarRecord::BYTES);
            damaged[at] = random.below(256) as u8;
        }
        read += u32::from(exercise(&model, &damaged, &mut random));
    }
    assert!(read > 100, "{read}");
}

#[test]
fn lies_are_named() {
    let (model, section) = small();
    let count = model.tokens.len() as u32;
    let record = GrammarRecord::from_bytes(&section);
    let with = |record: GrammarRecord| [&record.to_bytes()[..], &section[GrammarRecord::BYTES..]].concat();
    for (bytes, fault) in [
        (Vec::new(), "too short"),
        (with(GrammarRecord { version: 2, ..record }), "of a later version"),
        (with(GrammarRecord { vocabulary: count + 1, ..record }), "made for another vocabulary"),
        (with(GrammarRecord { reserved: 1, ..record }), "reserved bytes are not zero"),
        (with(GrammarRecord { depth: 17, ..record }), "another depth"),
        (with(GrammarRecord { id_bytes: 3, ..record }), "an unknown size of ids"),
        (with(GrammarRecord { start: record.states, ..record }), "states or pushes is out of range"),
        (with(GrammarRecord { states: 0, ..record }), "states or pushes is out of range"),
        (with(GrammarRecord { states: 65_000, pushes: 600, ..record }), "states or pushes is out of range"),
        (with(GrammarRecord { classes: 257, ..record }), "classes or sets is out of range"),
        (with(GrammarRecord { bitsets: 0, ..record }), "classes or sets is out of range"),
        (with(GrammarRecord { classes: 1, ..record }), "an unknown class of bytes"),
        (with(GrammarRecord { entries: record.entries + 1, ..record }), "length does not match its counts"),
        (with(GrammarRecord { ids: u32::MAX, ..record }), "length does not match its counts"),
        (section[..section.len() - 1].to_vec(), "length does not match its counts"),
    ] {
        let error = GrammarTables::read(&bytes, count).expect_err(fault).to_string();
        assert!(error.contains("0x80000014") && error.contains(fault), "expected {fault:?}: {error}");
    }
}

#[test]
fn a_schema_without_recursion_needs_no_pushes() {
    let model = Model::bytes_and_pieces();
    let grammar = compiled(Source::Schema(r#"{"enum": [true, false, null]}"#, Separators::Compact));
    let section = model.compile(&grammar, None);
    assert_eq!(GrammarRecord::from_bytes(&section).pushes, 0);
    assert!(!grammar.automaton().is_recursive());
}
