//! The chat frame section: what it says is what the readers give, readers that do not know it pass over it, and a lie in it
//! is refused.

use super::sections::Sections;
use super::{exercise, tiny};
use crate::fixture::Family;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::{FramePart, MAX_FRAME_TEXT, Role};
use slm_runtime::format::header::SectionKind;

const KIND: u32 = SectionKind::ChatFrame as u32;
/// A kind that no version knows.
const UNKNOWN: u32 = 0x8000_0fff;

/// A section of five texts and token lists.
fn frame(flags: u32, parts: u32, texts: [&[u8]; 5], tokens: [&[u32]; 5]) -> Vec<u8> {
    let lengths = texts.iter().zip(tokens).flat_map(|(text, tokens)| [text.len() as u32, tokens.len() as u32]);
    let mut bytes: Vec<u8> = [flags, parts].into_iter().chain(lengths).flat_map(u32::to_le_bytes).collect();
    bytes.extend(texts.concat());
    bytes.extend(tokens.concat().iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

fn plain() -> Vec<u8> {
    let texts: [&[u8]; 5] = [b"<s>u ", b"<s>s ", "\u{e9}".as_bytes(), b"</s>a ", b""];
    frame(0b10111, 5, texts, [&[1, 3], &[1, 4], &[5], &[2, 6, 7], &[]])
}

fn with(sections: &[(u32, u32, &[u8])]) -> Vec<u8> {
    Sections::of(&tiny(Family::Llama).bytes).with(sections)
}

#[test]
fn a_frame_is_read_and_an_unknown_section_passed_over() {
    let file = with(&[(UNKNOWN, 0, b"what a later version has"), (KIND, 0, &plain())]);
    let view = ArtifactView::open(&file).expect("sound");
    let frame = view.chat_frame().expect("a frame");
    assert_eq!(FramePart::ALL.map(|part| frame.text(part)), ["<s>u ", "<s>s ", "\u{e9}", "</s>a ", ""]);
    let tokens = FramePart::ALL.map(|part| frame.tokens(part).iter().collect::<Vec<_>>());
    assert_eq!(tokens, [vec![1, 3], vec![1, 4], vec![5], vec![2, 6, 7], vec![]]);
    assert!(frame.has_tokens() && frame.has_system());
    assert_eq!(Role::ALL.map(|role| frame.trims(role)), [true, false, true]);
    assert_eq!((frame.message(Role::User, " x "), frame.message(Role::System, " x ")), (" x ", "x"));
    assert_eq!(exercise(&view), Ok(()));
    assert!(ArtifactView::open(&tiny(Family::Llama).bytes).expect("sound").chat_frame().is_none());
}

#[test]
fn lies_in_a_frame_are_refused() {
    let none: [&[u32]; 5] = [&[]; 5];
    let empty: [&[u8]; 5] = [b""; 5];
    let long = vec![b'x'; MAX_FRAME_TEXT + 1];
    let mut huge = plain();
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut many = plain();
    many[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    for (content, fault) in [
        (plain()[..47].to_vec(), "too short"),
        (frame(32, 5, empty, none), "unknown flags"),
        (frame(0, 4, empty, none), "unknown flags or number of parts"),
        (frame(0, 5, [&long, b"", b"", b"", b""], none), "longer than a reader takes"),
        (huge, "longer than a reader takes"),
        (many, "longer than a reader takes"),
        (frame(0, 5, [b"u", b"", b"", b"", b""], [&[1], &[], &[], &[], &[]]), "tokens that its flags deny"),
        (frame(1, 5, [b"u", b"s", b"", b"", b""], none), "a part of a system message"),
        (frame(3, 5, [b"u", b"\xff", b"", b"", b""], none), "a text is not UTF-8"),
        // Half a character in each of two parts.
        (frame(3, 5, [b"\xc3", b"\xa9", b"", b"", b""], none), "a text is not UTF-8"),
        (frame(1, 5, [b"u", b"", b"", b"", b""], [&[32], &[], &[], &[], &[]]), "a token is outside the vocabulary"),
        ([plain(), vec![0]].concat(), "length does not match its counts"),
        (plain()[..plain().len() - 1].to_vec(), "length does not match its counts"),
    ] {
        let error = ArtifactView::open(&with(&[(KIND, 0, &content)])).expect_err(fault).to_string();
        assert!(error.contains("0x80000012") && error.contains(fault), "expected {fault:?}: {error}");
    }
    for (sections, fault) in [
        (vec![(KIND, 0, plain()), (KIND, 0, plain())], "there are two"),
        (vec![(KIND, 1, plain())], "is not in the device part"),
    ] {
        let sections: Vec<_> = sections.iter().map(|(kind, host, content)| (*kind, *host, &content[..])).collect();
        let error = ArtifactView::open(&with(&sections)).expect_err(fault).to_string();
        assert!(error.contains("0x80000012") && error.contains(fault), "expected {fault:?}: {error}");
    }
}

/// Any bytes in the place of a frame: refused, or every part can be asked for.
#[test]
fn no_frame_leads_outside_its_bytes() {
    let whole = Sections::of(&with(&[(KIND, 0, &plain())]));
    let at = whole.all.iter().position(|(kind, ..)| *kind == KIND).expect("it is there");
    let edits = proptest::collection::vec((any::<u8>(), any::<u8>()), 1..3);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let opened = std::cell::Cell::new(0);
    let case = |(edits, length): (Vec<(u8, u8)>, u8)| {
        let mut sections = whole.clone();
        let content = &mut sections.all[at].2;
        for (place, value) in edits {
            let place = place as usize % content.len();
            content[place] = value;
        }
        if length < 20 {
            content.resize(length as usize, 0);
        }
        let file = sections.file(|_| {});
        if let Ok(view) = ArtifactView::open(&file) {
            opened.set(opened.get() + 1);
            let frame = view.chat_frame().expect("a frame");
            let all: usize =
                FramePart::ALL.map(|part| frame.text(part).len() + 4 * frame.tokens(part).len()).iter().sum();
            assert_eq!(all + 48, view.section(SectionKind::ChatFrame).map_or(0, <[u8]>::len));
        }
        Ok(())
    };
    let seed = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, seed).run(&(edits, any::<u8>()), case).unwrap_or_else(|error| panic!("{error}"));
    assert!((20..1980).contains(&opened.get()), "{} of 2000 opened", opened.get());
}
