//! The grammar section in an artifact: what it says is what the reader follows, an artifact without it has none, a lie in
//! it is refused, and every byte of it may change.

use super::sections::Sections;
use super::{exercise, tiny};
use crate::fixture::Family;
use slm_grammar::{Limits, Source, Vocabulary};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::grammar::Grammar;
use slm_runtime::kernels::SCALAR;
use slm_runtime::sample::{Sampling, choose_among};
use slm_runtime::session::Session;
use slmc::artifact::host::SessionMemory;

const KIND: u32 = SectionKind::Grammar as u32;

/// The smallest artifact with these sections after those of the device, or at the end.
fn with(sections: &[(u32, &[u8])]) -> Vec<u8> {
    let of_kind: Vec<(u32, u32, &[u8])> = sections.iter().map(|&(host, content)| (KIND, host, content)).collect();
    Sections::of(&tiny(Family::Llama).bytes).with(&of_kind)
}

/// Tokens in a row: one, pairs of two others of which the second may be left out, and one more.
fn section() -> Vec<u8> {
    let compiled = tiny(Family::Llama);
    let view = ArtifactView::open(&compiled.bytes).expect("sound");
    let tokens: Vec<Vec<u8>> = (0..view.spec().vocabulary).map(|id| view.token_bytes(id).to_vec()).collect();
    let ends: Vec<u32> = view.end_tokens().iter().collect();
    // The tokens of the fixture are ASCII.
    let usable = (0..).zip(&tokens).filter(|(id, bytes)| !bytes.is_empty() && !ends.contains(id));
    let texts: Vec<&str> = usable.map(|(_, bytes)| std::str::from_utf8(bytes).expect("ASCII")).collect();
    let [open, a, b, close] = [0, 1, 2, 3].map(|index| texts[index]);
    let rules = format!("root ::= \"{open}\" (\"{a}\" \"{b}\"?){{2,5}} \"{close}\"");
    let grammar = Source::Rules(&rules).compile(&Limits::default()).expect("rules");
    grammar.section(&Vocabulary { tokens: &tokens, excluded: &ends, encode: None }).expect("the tokens spell it")
}

#[test]
fn outputs_follow_the_grammar_and_logits_are_the_whole_heads() {
    let file = with(&[(0, &section())]);
    let view = ArtifactView::open(&file).expect("sound");
    assert_eq!(exercise(&view), Ok(()));
    let grammar = Grammar::of(&view).expect("it is there");
    let [mut of_some, mut of_all] = [(); 2].map(|()| SessionMemory::for_artifact(&view));
    let mut some = Session::new(&view, &SCALAR, of_some.as_mut_slice()).expect("a session");
    let mut all = Session::new(&view, &SCALAR, of_all.as_mut_slice()).expect("a session");
    let (mut state, mut words, mut pending) = (grammar.start(), vec![0; grammar.words()], vec![0]);
    let sampling = Sampling { temperature: 2.0, ..Sampling::GREEDY };
    for draw in 0..view.spec().context as u64 {
        let mut run = [0; 8];
        let forced = grammar.forced(&mut state, &mut run);
        pending.extend(&run[..forced]);
        if grammar.is_complete(&state) || some.positions() + pending.len() > view.spec().context as usize {
            break;
        }
        assert!(grammar.allowed(&state, &mut words) > 0);
        let logits = some.step_allowed(&pending, &words).expect("a step");
        let whole = all.step(&pending).expect("a step");
        for (id, (logit, whole)) in logits.iter().zip(whole).enumerate() {
            let allowed = words[id / 32] >> (id % 32) & 1 == 1;
            assert!(logit == whole || !allowed && *logit == f32::NEG_INFINITY, "token {id}");
        }
        let token = choose_among(logits, &words, &[], &sampling, 5, draw).expect("a token");
        assert_eq!(choose_among(whole, &words, &[], &sampling, 5, draw), Some(token));
        grammar.advance(&mut state, token).expect("it is allowed");
        pending = vec![token];
    }
    assert!(Grammar::of(&ArtifactView::open(&tiny(Family::Llama).bytes).expect("sound")).is_none());
}

#[test]
fn lies_in_it_are_refused() {
    let sound = section();
    let changed = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        bytes
    };
    for (sections, fault) in [
        (vec![(0, sound[..31].to_vec())], "too short"),
        (vec![(0, changed(0, 2))], "later version"),
        (vec![(0, changed(24, sound[24] ^ 1))], "another vocabulary"),
        (vec![(0, changed(3, 15))], "another depth"),
        (vec![(0, sound[..sound.len() - 1].to_vec())], "length does not match"),
        (vec![(0, sound.clone()), (0, sound.clone())], "there are two"),
        (vec![(1, sound.clone())], "device part"),
    ] {
        let sections: Vec<(u32, &[u8])> = sections.iter().map(|(host, content)| (*host, &content[..])).collect();
        let error = ArtifactView::open(&with(&sections)).expect_err(fault).to_string();
        assert!(error.contains("0x80000014") && error.contains(fault), "expected {fault:?}: {error}");
    }
}

#[test]
fn every_byte_of_it_may_change() {
    let sound = section();
    let base = Sections::of(&with(&[(0, &sound)]));
    let place = base.all.iter().position(|(kind, ..)| *kind == KIND).expect("it is there");
    let (mut opened, mut refused) = (0, 0);
    for (at, byte) in sound.iter().enumerate() {
        for value in [0, 1, 0xff, byte ^ 1, byte ^ 0x80] {
            let mut sections = base.clone();
            sections.all[place].2[at] = value;
            let file = sections.file(|_| {});
            let Ok(view) = ArtifactView::open(&file) else {
                refused += 1;
                continue;
            };
            opened += 1;
            let grammar = Grammar::of(&view).expect("it is there");
            let (mut state, mut words, mut run) = (grammar.start(), vec![0; grammar.words()], [0; 4]);
            for _ in 0..6 {
                grammar.forced(&mut state, &mut run);
                grammar.allowed(&state, &mut words);
                let first = (0..view.spec().vocabulary).find(|&id| words[id as usize / 32] >> (id % 32) & 1 == 1);
                let _ = first.map(|token| grammar.advance(&mut state, token));
            }
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}
