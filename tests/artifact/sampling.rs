//! The sampling section: what it says is what the readers give, an artifact without it has the likeliest token taken, and a
//! lie in it is refused.

use super::sections::Sections;
use super::{exercise, tiny};
use crate::fixture::Family;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::sample::Sampling;
use slmc::compile::emit::sampling_section;

const KIND: u32 = SectionKind::Sampling as u32;

/// An artifact with these sections after those of the device, or at the end.
fn with(sections: &[(u32, &[u8])]) -> Vec<u8> {
    let of_kind: Vec<(u32, u32, &[u8])> = sections.iter().map(|&(host, content)| (KIND, host, content)).collect();
    Sections::of(&tiny(Family::Llama).bytes).with(&of_kind)
}

/// The record by its table in docs/format.md.
fn record(temperature: f32, top_k: u32, top_p: u32, min_p: u32, penalty: f32) -> Vec<u8> {
    [temperature.to_bits(), top_k, top_p, min_p, penalty.to_bits()].iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn the_defaults_of_sampling_are_read() {
    let sampling = Sampling { temperature: 0.7, top_k: 20, top_p: 60_000, min_p: 3_000, repetition_penalty: 1.25 };
    let content = sampling_section(&sampling).expect("there is something to say");
    assert_eq!(content, record(0.7, 20, 60_000, 3_000, 1.25));
    let file = with(&[(0, &content)]);
    let view = ArtifactView::open(&file).expect("sound");
    assert_eq!(view.sampling(), sampling);
    assert_eq!(exercise(&view), Ok(()));
    assert_eq!(sampling_section(&Sampling::GREEDY), None);
    assert_eq!(ArtifactView::open(&tiny(Family::Llama).bytes).expect("sound").sampling(), Sampling::GREEDY);
}

#[test]
fn lies_in_it_are_refused() {
    let sound = record(0.7, 20, 60_000, 3_000, 1.25);
    for (content, fault) in [
        (sound[..19].to_vec(), "is not one record"),
        ([&sound[..], &[0]].concat(), "is not one record"),
        (Vec::new(), "is not one record"),
        (record(-0.7, 0, 65_536, 0, 1.0), "a parameter is out of range"),
        (record(f32::NAN, 0, 65_536, 0, 1.0), "a parameter is out of range"),
        (record(f32::INFINITY, 0, 65_536, 0, 1.0), "a parameter is out of range"),
        (record(1.0, 0, 0, 0, 1.0), "a parameter is out of range"),
        (record(1.0, 0, 65_537, 0, 1.0), "a parameter is out of range"),
        (record(1.0, 0, 65_536, 65_537, 1.0), "a parameter is out of range"),
        (record(1.0, 0, 65_536, 0, 0.0), "a parameter is out of range"),
        (record(1.0, 0, 65_536, 0, f32::NAN), "a parameter is out of range"),
    ] {
        let error = ArtifactView::open(&with(&[(0, &content)])).expect_err(fault).to_string();
        assert!(error.contains("0x80000013") && error.contains(fault), "expected {fault:?}: {error}");
    }
    for (sections, fault) in
        [(vec![(0, &sound[..]), (0, &sound)], "there are two"), (vec![(1, &sound[..])], "device part")]
    {
        let error = ArtifactView::open(&with(&sections)).expect_err(fault).to_string();
        assert!(error.contains("0x80000013") && error.contains(fault), "expected {fault:?}: {error}");
    }
}

/// Any bytes in its place: refused, or parameters that the sampler takes.
#[test]
fn what_is_read_can_be_used() {
    let seed = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let word = prop_oneof![
        any::<u32>(),
        0..70_000u32,
        prop::sample::select(vec![0, 1, 65_536, 1.0f32.to_bits(), 0.5f32.to_bits(), 3.0f32.to_bits()])
    ];
    let base = Sections::of(&with(&[(0, &record(1.0, 0, 65_536, 0, 1.0))]));
    let at = base.all.iter().position(|(kind, ..)| *kind == KIND).expect("it is there");
    let opened = std::cell::Cell::new(0);
    let case = |words: [u32; 5]| {
        let mut sections = base.clone();
        sections.all[at].2 = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let file = sections.file(|_| {});
        if let Ok(view) = ArtifactView::open(&file) {
            opened.set(opened.get() + 1);
            prop_assert!(view.sampling().is_valid());
        }
        Ok(())
    };
    let words = [word.clone(), word.clone(), word.clone(), word.clone(), word];
    TestRunner::new_with_rng(config, seed).run(&words, case).unwrap_or_else(|failure| panic!("{failure}"));
    assert!((10..2900).contains(&opened.get()), "{} of 3000 opened", opened.get());
}
