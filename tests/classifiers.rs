//! Sequence classifiers that are decoders, from training to the device: a matrix over the last token in place of the head of
//! the language model.

use crate::fixture::{self, Family, Size};
use crate::support::{all_refused, json, succeed};
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::MINOR_HEADS;
use slm_runtime::sample::random_u64;
use slmc::artifact::host::run_sequence;
use slmc::formats::open_model;
use slmc::model::spec::{Head, ModelKind};
use std::fs;

const TRAIN: &str = "--window 32 --batch 16 --pieces 2 --learning-rate 3e-3 --tokens 30000 -q";

/// Texts whose label is told by their first letter.
fn labelled(count: u64, seed: u64) -> String {
    let line = |n: u64| {
        let letter = |draw: u64| char::from(b'a' + (random_u64(seed, 8 * n + draw) % 26) as u8);
        let label = if letter(0) < 'n' { "yes" } else { "no" };
        let rest: String = (1..2 + random_u64(seed, 8 * n + 7) % 4).map(letter).collect();
        format!("{{\"text\": \"{}{rest}\", \"label\": \"{label}\"}}\n", letter(0))
    };
    (0..count).map(line).collect()
}

#[test]
fn a_decoder_learns_to_label_by_its_last_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("decoder"), Family::TiedLlama, Size::SMALL);
    for (name, count, seed) in [("train", 600, 1), ("valid", 200, 2)] {
        fs::write(path.join(format!("{name}.jsonl")), labelled(count, seed)).expect("it can be written");
    }
    succeed(path, &format!("train decoder --task classify --data train.jsonl {TRAIN} -o trained"));
    let config = fs::read_to_string(path.join("trained/config.json")).expect("written");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["architectures"], serde_json::json!(["LlamaForSequenceClassification"]));
    let model = open_model(&path.join("trained")).expect("it opens");
    assert!(matches!(&model.spec.head, Head::LastClassifier { labels } if labels == &["no", "yes"]));
    assert_eq!((model.spec.kind, model.spec.causal), (ModelKind::Encoder, true));

    let accuracy = |name: &str| {
        let measured = json(path, &format!("eval {name} --data valid.jsonl"));
        measured["accuracy"].as_f64().unwrap_or_else(|| panic!("{measured}"))
    };
    let in_f32 = accuracy("trained");
    assert!(in_f32 > 0.9, "{in_f32}");
    succeed(path, "quantize trained --scheme w8 -o small -q");
    succeed(path, "compile small --target generic --context 32 --exit-data train.jsonl -o a.slm -q");
    succeed(path, "verify a.slm -q");
    let of_artifact = accuracy("a.slm");
    assert!((of_artifact - in_f32).abs() < 0.03, "{of_artifact} and {in_f32}");
    let answers = |name: &str| {
        let answers = json(path, &format!("classify {name} abc zyx"));
        let labels = answers["answers"].as_array().expect("a list").iter();
        labels.map(|answer| answer["label"].as_str().expect("a label").to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(answers("a.slm"), ["yes", "no"]);
    assert_eq!(answers("trained"), ["yes", "no"]);

    // Every text starts over, and steps give the label of what was read so far.
    let bytes = fs::read(path.join("a.slm")).expect("written");
    let view = ArtifactView::open(&bytes).expect("sound");
    assert_eq!(view.header().minor, MINOR_HEADS);
    assert!(view.spec().is_decoder() && !view.spec().has_pooler() && view.heads().len() == 1);
    let tokens = [5, 6, 7, 8, 9];
    let whole = run_sequence(&view, &tokens).expect("it runs");
    let mut memory = slmc::artifact::host::SessionMemory::for_artifact(&view);
    let kernels = slmc::machine::kernels::kernels_for(view.layout());
    let mut session = slm_runtime::session::Session::new(&view, kernels, memory.as_mut_slice()).expect("a session");
    for _ in 0..2 {
        let mut rows = Vec::new();
        session.run(&tokens, &mut |_, row| rows.extend_from_slice(row)).expect("it runs");
        assert_eq!(rows, whole);
        assert!(session.confidence() > 0.0);
    }
    session.reset();
    session.read(&tokens[..3]).expect("it reads");
    assert_eq!(session.step(&tokens[3..]).expect("it labels"), whole);
    let mut heads = Vec::new();
    session.run_heads(&tokens, &mut |layers, row| heads.push((layers, row.to_vec()))).expect("it runs");
    assert_eq!(heads, [(view.spec().layers as usize, whole)]);

    let with_exits = format!("train trained --exits 1 --data train.jsonl {TRAIN} -o out");
    all_refused(
        path,
        [
            ("generate a.slm --prompt ab", "this model is an encoder"),
            ("export trained --format onnx -o out", "the classifier of this llama"),
            (&with_exits, "labels by the state of the last token"),
        ],
    );
}
