//! Exit heads of an artifact: at the ends of the thresholds it is the plain model, or its first head, bit for bit; where a text
//! leaves is the same on every kernel; a section that lies is refused by name.

use super::sections::{SPEC, Sections};
use super::{exercise, tiny, tiny_exits};
use crate::fixture::{Family, Size, compiled_with, quantized_with_exits};
use slm_runtime::exits::{confidence, margin};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::exits::{ExitRecord, NEVER};
use slm_runtime::format::header::{MINOR_EXITS, SectionKind};
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::format::{FormatError, Record};
use slm_runtime::kernels::{Kernels, SCALAR, available};
use slm_runtime::layout::Layout;
use slm_runtime::session::{Leaving, Session, SessionError};
use slmc::artifact::host::{SessionMemory, run_sequence};
use slmc::compile::AskedSections;
use slmc::compile::exits::exits_section;
use slmc::model::id::Class;
use slmc::model::id::ParameterId;
use slmc::model::scheme::Preset;
use slmc::model::weights::Model;
use slmc::target::Target;

const SIZE: Size = Size { layers: 3, ..Size::SMALL };
/// Place of `exit_head` in the model record and in a layer's.
const OF_MODEL: usize = 8;
const OF_LAYER: usize = 41;

fn artifact(model: &Model, layout: Layout, exits: &[usize], thresholds: &[u32]) -> Vec<u8> {
    let temperatures = vec![1.0; exits.len() + 1];
    let section = exits_section(exits, model.spec.layers.len(), thresholds, &temperatures);
    let asked = AskedSections { exits: Some(section), ..AskedSections::default() };
    compiled_with(model, &Target::unlimited("host", layout), None, asked).bytes
}

/// Texts of one token to more than go through a layer together.
fn texts() -> Vec<Vec<u32>> {
    [1usize, 2, 7, 20, 64, 65, 96].map(|length| (0..length as u32).map(|index| (index * 7 + 3) % 58).collect()).into()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

/// The row of a text, the layers it took, and how sure the model is.
fn run(view: &ArtifactView<'_>, kernels: &'static Kernels, tokens: &[u32]) -> (Vec<u32>, usize, u32) {
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, kernels, memory.as_mut_slice()).expect("a session");
    let mut out = Vec::new();
    let mut see = |position, row: &[f32]| {
        assert_eq!(position, 0);
        out = bits(row);
    };
    session.run(tokens, &mut see).expect("runs");
    (out, session.exit_layers(), session.confidence().to_bits())
}

fn heads(view: &ArtifactView<'_>, tokens: &[u32]) -> Vec<(usize, Vec<f32>)> {
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, &SCALAR, memory.as_mut_slice()).expect("a session");
    let mut out = Vec::new();
    session.run_heads(tokens, &mut |layers, row| out.push((layers, row.to_vec()))).expect("runs");
    out
}

/// The same model without its exit heads.
fn plain(model: &Model) -> Model {
    let mut plain = model.clone();
    plain.spec.exits.clear();
    let of_exit = |id: &ParameterId| matches!(id, ParameterId::Linear(linear, _) if linear.role.class() == Class::Exit);
    plain.parameters.retain(|id, _| !of_exit(id));
    plain
}

#[test]
fn the_ends_of_the_thresholds_are_the_plain_model_and_its_first_head() {
    let layout = Layout::R8K4Offset8;
    let model = quantized_with_exits(Family::BertClassifier, SIZE, Preset::Mixed, &[1, 2]);
    let without =
        compiled_with(&plain(&model), &Target::unlimited("host", layout), None, AskedSections::default()).bytes;
    let without = ArtifactView::open(&without).expect("sound");
    assert!(without.header().minor < MINOR_EXITS && without.heads().len() == 0);
    let never = artifact(&model, layout, &[1, 2], &[NEVER, NEVER]);
    let at_once = artifact(&model, layout, &[1, 2], &[0, 0]);
    let second = artifact(&model, layout, &[1, 2], &[NEVER, 0]);
    let [never, at_once, second] = [&never, &at_once, &second].map(|bytes| ArtifactView::open(bytes).expect("sound"));
    assert_eq!(never.header().minor, MINOR_EXITS);
    for tokens in texts() {
        let expected = bits(&run_sequence(&without, &tokens).expect("runs"));
        assert_eq!(run(&never, &SCALAR, &tokens).0, expected, "{} tokens", tokens.len());
        assert_eq!(run(&never, &SCALAR, &tokens).1, 3);
        let heads = heads(&at_once, &tokens);
        assert_eq!(heads.iter().map(|(layers, _)| *layers).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(bits(&heads[2].1), expected, "the last head is not changed by those before it");
        assert_ne!(bits(&heads[0].1), expected, "a head after one layer says something else");
        for (view, at) in [(&at_once, 0), (&second, 1)] {
            let (row, layers, sure) = run(view, &SCALAR, &tokens);
            assert_eq!((&row, layers), (&bits(&heads[at].1), at + 1));
            assert_eq!(sure, confidence(&heads[at].1, 1.0).to_bits());
        }
        // All layers, whatever the thresholds say.
        let mut memory = SessionMemory::for_artifact(&at_once);
        let mut session = Session::new(&at_once, &SCALAR, memory.as_mut_slice()).expect("a session");
        session.set_leaving(Leaving::Never);
        session.run(&tokens, &mut |_, row| assert_eq!(bits(row), expected)).expect("runs");
        assert_eq!(session.exit_layers(), 3);
        session.reset();
        assert_eq!((session.exit_layers(), session.confidence()), (0, 0.0));
    }
}

#[test]
fn a_text_leaves_at_the_same_head_on_every_kernel() {
    let model = quantized_with_exits(Family::BertClassifier, SIZE, Preset::Mixed, &[1, 2]);
    let mut left = [0; 4];
    let mut tables = 0;
    for kernels in available().chain([&SCALAR]) {
        let layout = kernels.layout.unwrap_or(Layout::R8K4);
        // Bounds in the middle of what the heads say, and one above and below the margin of a text.
        let all = artifact(&model, layout, &[1, 2], &[NEVER, NEVER]);
        let all = ArtifactView::open(&all).expect("sound");
        let margins: Vec<u32> = texts().iter().map(|tokens| margin(&heads(&all, tokens)[0].1)).collect();
        let mut sorted = margins.clone();
        sorted.sort_unstable();
        for bound in [sorted[3], sorted[3] + 1, sorted[0], sorted[6] + 1] {
            let file = artifact(&model, layout, &[1, 2], &[bound, bound / 2]);
            let view = ArtifactView::open(&file).expect("sound");
            for (tokens, margin) in texts().iter().zip(&margins) {
                let expected = run(&view, &SCALAR, tokens);
                assert_eq!(run(&view, kernels, tokens), expected, "{} at {bound}", kernels.name);
                assert_eq!(expected.1 == 1, *margin >= bound, "{margin} at {bound}");
                left[expected.1] += 1;
            }
        }
        tables += 1;
    }
    assert!(tables >= 1 && left[1] > 0 && left[2] + left[3] > 0, "{left:?} on {tables} tables");
}

#[test]
fn records_that_cannot_be_are_refused_by_name() {
    let sound = tiny_exits().bytes;
    let kind = SectionKind::Exits as u32;
    assert_eq!(exercise(&ArtifactView::open(&sound).expect("sound")), Ok(()));
    let place = |sections: &Sections| sections.all.iter().position(|(found, ..)| *found == kind).expect("there");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut sections = Sections::of(&sound);
        let at = place(&sections);
        change(&mut sections.all[at].2);
        ArtifactView::open(&sections.file(|_| {})).map(|_| ())
    };
    let record = |layers, threshold, inverse_temperature, reserved| {
        ExitRecord { layers, threshold, inverse_temperature, reserved }.to_bytes()
    };
    let of = |records: Vec<[u8; ExitRecord::BYTES]>| move |section: &mut Vec<u8>| *section = records.concat();
    let fault = |fault| Err(FormatError::Section(kind, fault));
    let (first, last) = (record(1, 5, 1.0, 0), record(2, 0, 1.0, 0));
    assert_eq!(changed(&of(vec![first, last])), Ok(()));
    let order = fault("does not name the layers with exit heads in their order");
    let end = fault("does not end with the last head");
    let range = fault("a temperature is out of range");
    assert_eq!(changed(&|section| section.truncate(31)), fault("is not a whole number of records"));
    assert_eq!(changed(&|section| section.truncate(16)), end);
    assert_eq!(changed(&|section| section.clear()), order);
    assert_eq!(changed(&of(vec![last])), order);
    assert_eq!(changed(&of(vec![record(2, 5, 1.0, 0), last])), order);
    assert_eq!(changed(&of(vec![first, record(2, 1, 1.0, 0)])), end);
    assert_eq!(changed(&of(vec![first, record(3, 0, 1.0, 0)])), end);
    assert_eq!(changed(&of(vec![first, last, last])), fault("goes on after the last head"));
    assert_eq!(changed(&of(vec![first, record(2, 0, 1.0, 1)])), fault("a reserved field is not zero"));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 2e6] {
        assert_eq!(changed(&of(vec![first, record(2, 0, scale, 0)])), range, "{scale}");
    }
    // Without the section, twice, and beside a model without such heads.
    let mut sections = Sections::of(&sound);
    let at = place(&sections);
    let (_, _, content) = sections.all.remove(at);
    let opened = |file: Vec<u8>| ArtifactView::open(&file).map(|_| ());
    assert_eq!(opened(sections.clone().file(|_| {})), fault("missing, and there are exit heads"));
    assert_eq!(opened(sections.with(&[(kind, 0, &content), (kind, 0, &content)])), fault("there are two"));
    let decoder = tiny(Family::TiedLlama).bytes;
    let only = record(1, 0, 1.0, 0);
    assert_eq!(opened(Sections::of(&decoder).with(&[(kind, 0, &only)])), fault("is of a model that is no classifier"));
    let classifier = tiny(Family::BertClassifier).bytes;
    assert_eq!(opened(Sections::of(&classifier).with(&[(kind, 0, &only)])), Ok(()), "a temperature alone");
    assert_eq!(opened(Sections::of(&classifier).with(&[(kind, 0, &last)])), end);
}

#[test]
fn exit_heads_stand_where_they_can() {
    let sound = tiny_exits().bytes;
    let flagged = |changes: &[(usize, u8)]| {
        let mut sections = Sections::of(&sound);
        changes.iter().for_each(|&(at, value)| sections.all[SPEC].2[at] = value);
        sections.plan_again();
        ArtifactView::open(&sections.file(|_| {})).map(|_| ())
    };
    let layer = |number: usize| ModelRecord::BYTES + number * LayerRecord::BYTES + OF_LAYER;
    assert_eq!(flagged(&[(OF_MODEL, 2)]), Err(FormatError::LaterVersion(Record::Model, "exit_head")));
    assert_eq!(flagged(&[(layer(0), 2)]), Err(FormatError::LaterVersion(Record::Layer(0), "exit_head")));
    assert_eq!(flagged(&[(OF_MODEL, 0)]), Err(FormatError::Layer(0, "exit_head")));
    assert_eq!(flagged(&[(layer(0), 0)]), Err(FormatError::Spec("exit_head")), "none although the model says so");
    assert_eq!(flagged(&[(layer(1), 1)]), Err(FormatError::Layer(1, "exit_head")), "after the last layer");
    // An encoder and a decoder have no such heads.
    for family in [Family::Bert, Family::BertMlm, Family::TiedLlama] {
        let mut sections = Sections::of(&tiny(family).bytes);
        sections.all[SPEC].2[OF_MODEL] = 1;
        let refused = ArtifactView::open(&sections.file(|_| {})).map(|_| ());
        assert_eq!(refused, Err(FormatError::Spec("exit_head")), "{family:?}");
    }
}

#[test]
fn heads_are_asked_of_classifiers_alone() {
    let file = tiny(Family::Bert).bytes;
    let view = ArtifactView::open(&file).expect("sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, &SCALAR, memory.as_mut_slice()).expect("a session");
    assert_eq!(session.run_heads(&[1], &mut |_, _| {}), Err(SessionError::NotAClassifier));
    session.run(&[1], &mut |_, _| {}).expect("runs");
    assert_eq!((session.exit_layers(), session.confidence()), (0, 0.0));
}
