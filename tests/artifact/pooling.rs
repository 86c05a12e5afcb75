//! Embeddings that an artifact makes of texts: every pooling is made of the rows that the same model gives without it, bit
//! for bit by the definition of docs/numerics.md, and records that cannot be are refused by name.

use super::sections::{SPEC, Sections};
use super::{exercise, tiny, tiny_pooled};
use crate::fixture::{Family, Size, compiled, quantized};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::MINOR_POOLING;
use slm_runtime::format::{FormatError, Record};
use slm_runtime::layout::Layout;
use slm_runtime::numerics::unit_length;
use slm_runtime::session::{Session, SessionError};
use slmc::artifact::host::{SessionMemory, run_sequence};
use slmc::machine::kernels::kernels;
use slmc::model::scheme::Preset;
use slmc::model::spec::{Embedding, Pooling};
use slmc::target::Target;

const POOLINGS: [Pooling; 4] = [Pooling::First, Pooling::Mean, Pooling::Maximum, Pooling::Last];
/// Places of `pooling` and `normalize` in the model record.
const POOLING: usize = 84;
const NORMALIZE: usize = 85;

/// The definition, row after row.
fn pooled(rows: &[&[f32]], pooling: Pooling, normalize: bool) -> Vec<f32> {
    let mut out = match pooling {
        Pooling::Last => rows[rows.len() - 1].to_vec(),
        _ => rows[0].to_vec(),
    };
    for row in &rows[1..] {
        for (value, &other) in out.iter_mut().zip(*row) {
            match pooling {
                Pooling::Mean => *value += other,
                Pooling::Maximum if other > *value => *value = other,
                _ => {}
            }
        }
    }
    if pooling == Pooling::Mean {
        out.iter_mut().for_each(|value| *value /= rows.len() as f32);
    }
    if normalize {
        unit_length(&mut out).expect("values of a model");
    }
    out
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn an_embedding_is_made_of_the_states_of_all_tokens() {
    // More tokens than go through a layer together, so that the rows come from several chunks.
    let mut model = quantized(Family::Bert, Size::SMALL, Preset::Mixed);
    let target = Target::unlimited("host", Layout::R8K4Offset8);
    let plain = compiled(&model, &target, None).bytes;
    let plain = ArtifactView::open(&plain).expect("sound");
    for (pooling, normalize) in POOLINGS.into_iter().flat_map(|pooling| [(pooling, false), (pooling, true)]) {
        model.spec.embedding = Some(Embedding { pooling, normalize });
        let file = compiled(&model, &target, None).bytes;
        let view = ArtifactView::open(&file).expect("sound");
        assert_eq!(view.header().minor, MINOR_POOLING);
        for length in [1usize, 2, 7, 64, 65, 96] {
            let tokens: Vec<u32> = (0..length as u32).map(|index| index * 7 % 58).collect();
            let states = run_sequence(&plain, &tokens).expect("runs");
            let states: Vec<&[f32]> = states.chunks_exact(40).collect();
            assert_eq!(states.len(), length);
            let found = run_sequence(&view, &tokens).expect("runs");
            assert_eq!(bits(&found), bits(&pooled(&states, pooling, normalize)), "{pooling:?} {normalize} {length}");
            let norm = found.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!(!normalize || (norm - 1.0).abs() < 2e-4, "{pooling:?}: length {norm}");
        }
    }
    model.spec.embedding = None;
    assert_eq!(compiled(&model, &target, None).bytes, plain.bytes(), "without pooling a file is what it was");
    assert!(plain.header().minor < MINOR_POOLING);
}

#[test]
fn an_embedding_has_one_row_and_a_session_begins_anew() {
    let artifact = tiny_pooled(Pooling::Mean, true);
    let view = ArtifactView::open(&artifact.bytes).expect("sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, kernels(), memory.as_mut_slice()).expect("a session");
    let mut rows = Vec::new();
    for tokens in [&[1, 2, 3][..], &[4], &[1, 2, 3]] {
        session.run(tokens, &mut |position, row| rows.push((position, bits(row)))).expect("runs");
    }
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|(position, row)| *position == 0 && row.len() == 8));
    assert!(rows[0] == rows[2] && rows[0] != rows[1]);
    assert_eq!(session.step(&[1]).err(), Some(SessionError::NotADecoder));
    for pooling in POOLINGS {
        let artifact = tiny_pooled(pooling, false);
        assert_eq!(exercise(&ArtifactView::open(&artifact.bytes).expect("sound")), Ok(()), "{pooling:?}");
    }
}

#[test]
fn records_that_cannot_be_are_refused_by_name() {
    let changed = |artifact: &[u8], changes: &[(usize, u8)], plan: bool| {
        let mut sections = Sections::of(artifact);
        changes.iter().for_each(|&(at, value)| sections.all[SPEC].2[at] = value);
        if plan {
            sections.plan_again();
        }
        let file = sections.file(|_| {});
        ArtifactView::open(&file).map(|_| ())
    };
    let (bert, llama) = (tiny(Family::Bert).bytes, tiny(Family::Llama).bytes);
    for value in [5, 6, 255] {
        let later = |field| Err(FormatError::LaterVersion(Record::Model, field));
        assert_eq!(changed(&bert, &[(POOLING, value)], true), later("pooling"), "{value}");
        assert_eq!(changed(&bert, &[(POOLING, 1), (NORMALIZE, value)], true), later("normalize"), "{value}");
    }
    let wrong = |field| Err(FormatError::Spec(field));
    assert_eq!(changed(&bert, &[(POOLING, 2)], true), Ok(()));
    assert_eq!(changed(&bert, &[(POOLING, 2)], false), wrong("arena_bytes"), "there is no room for the row");
    assert_eq!(changed(&bert, &[(NORMALIZE, 1)], true), wrong("normalize"));
    assert_eq!(changed(&llama, &[(POOLING, 4)], true), wrong("pooling"), "its output is logits");
    for family in [Family::BertMlm, Family::BertClassifier] {
        assert_eq!(changed(&tiny(family).bytes, &[(POOLING, 1)], true), wrong("pooling"), "{}", family.name());
    }
    // A decoder of hidden states could have the state of its last token alone.
    let kind = 0;
    assert_eq!(changed(&bert, &[(kind, 1), (POOLING, 4)], true), Ok(()));
    for pooling in 1..4 {
        assert_eq!(changed(&bert, &[(kind, 1), (POOLING, pooling)], true), wrong("pooling"));
    }
}

/// A decoder's last row, by steps and at once, in pieces that end anywhere.
#[test]
fn a_decoder_gives_the_state_of_its_last_token() {
    let decoder = |pooling: &[(usize, u8)]| {
        let mut sections = Sections::of(&tiny(Family::Bert).bytes);
        sections.all[SPEC].2[0] = 1;
        pooling.iter().for_each(|&(at, value)| sections.all[SPEC].2[at] = value);
        sections.plan_again();
        sections.file(|_| {})
    };
    let (plain, last) = (decoder(&[]), decoder(&[(POOLING, 4), (NORMALIZE, 1)]));
    let (plain, last) = (ArtifactView::open(&plain).expect("sound"), ArtifactView::open(&last).expect("sound"));
    let tokens = [3, 9, 1, 4, 7];
    let states = run_sequence(&plain, &tokens).expect("runs");
    let mut expected = states[4 * 8..].to_vec();
    unit_length(&mut expected).expect("values of a model");
    assert_eq!(bits(&run_sequence(&last, &tokens).expect("runs")), bits(&expected));
    for cut in 1..5 {
        let mut memory = SessionMemory::for_artifact(&last);
        let mut session = Session::new(&last, kernels(), memory.as_mut_slice()).expect("a session");
        session.step(&tokens[..cut]).expect("reads");
        assert_eq!(bits(session.step(&tokens[cut..]).expect("reads")), bits(&expected), "{cut}");
    }
}
