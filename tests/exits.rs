//! Exit heads from training to the device: `train --exits`, `quantize`, `compile --exit-data`, `eval`, `classify`, and what is
//! refused on the way.

use crate::fixture::{self, Family, Size};
use crate::support::{all_refused, json, run, succeed};
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::exits::NEVER;
use slm_runtime::sample::random_u64;
use slmc::formats::open_model;
use slmc::model::id::{Class, ParameterId};
use std::fs;

const SIZE: Size = Size { layers: 3, ..Size::SMALL };
const TRAIN: &str = "--window 32 --batch 16 --pieces 1 --learning-rate 3e-3 --tokens 12000 -q";

/// Texts of two words, whose label is told by the first letter; a third of the letters says nothing.
fn labelled(count: u64, seed: u64) -> String {
    let line = |n: u64| {
        let letter = |draw: u64| char::from(b'a' + (random_u64(seed, 8 * n + draw) % 26) as u8);
        let first = letter(0);
        let label = match first {
            'a'..='i' => "yes",
            'j'..='r' => "no",
            _ => "oos",
        };
        format!("{{\"text\": \"{first}{} {}{}.\", \"label\": \"{label}\"}}\n", letter(1), letter(2), letter(3))
    };
    (0..count).map(line).collect()
}

fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::BertClassifier, SIZE);
    fixture::write(&path.join("bare"), Family::Bert, SIZE);
    fixture::write(&path.join("decoder"), Family::TiedLlama, Size::SMALL);
    for (name, count, seed) in [("train", 600, 1), ("chosen", 300, 2), ("valid", 300, 3)] {
        fs::write(path.join(format!("{name}.jsonl")), labelled(count, seed)).expect("it can be written");
    }
    directory
}

#[test]
fn from_training_to_answers() {
    let directory = workplace();
    let path = directory.path();
    succeed(path, &format!("train bare --task classify --data train.jsonl --exits 1,2 {TRAIN} -o trained"));
    let config = fs::read_to_string(path.join("trained/config.json")).expect("written");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["slmc_exits"], serde_json::json!({"layers": [1, 2]}));
    assert_eq!(open_model(&path.join("trained")).expect("it opens").spec.exits, [1, 2]);
    succeed(path, "quantize trained --scheme mixed -o small -q");
    let schemes = open_model(&path.join("small")).expect("it opens").schemes();
    let of_exits: Vec<String> = schemes
        .iter()
        .filter(|(id, _)| id.role.class() == Class::Exit)
        .map(|(id, scheme)| format!("{id} {scheme}"))
        .collect();
    let expected = ["0.exit.pooler", "0.exit.classifier", "1.exit.pooler", "1.exit.classifier"];
    assert_eq!(of_exits, expected.map(|name| format!("layers.{name} w8")));

    let made =
        json(path, "compile small --target generic --context 32 --exit-data chosen.jsonl --exit-loss 2 -o a.slm");
    let exits = &made["exits"];
    assert_eq!(exits["texts"], 300);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!(number(&exits["accuracy"]) >= number(&exits["full_accuracy"]) - 0.0201, "{exits}");
    assert!(number(&exits["mean_layers"]) < 3.0, "{exits}");
    // The same inputs, the same bytes.
    succeed(path, "compile small --target generic --context 32 --exit-data chosen.jsonl --exit-loss 2 -o b.slm -q");
    let read = |name: &str| fs::read(path.join(name)).expect("written");
    let device = |bytes: Vec<u8>| {
        let end = ArtifactView::open(&bytes).expect("sound").header().device_bytes as usize;
        bytes[64..end][..].to_vec()
    };
    assert!(device(read("a.slm"))[64..] == device(read("b.slm"))[64..]);
    succeed(path, "verify a.slm -q");

    let measured = json(path, "eval a.slm --data valid.jsonl --route-below 0.6");
    assert!(number(&measured["accuracy"]) > 0.8, "{measured}");
    let exits = &measured["exits"];
    assert_eq!(exits["layers"], 3);
    assert!(number(&exits["mean_layers"]) < 3.0 && number(&exits["exit_speed"]) > 0.0, "{exits}");
    let heads = exits["heads"].as_array().expect("a list");
    let shares: f64 = heads.iter().map(|head| number(&head["share"])).sum();
    let layers: f64 = heads.iter().map(|head| number(&head["share"]) * number(&head["layers"])).sum();
    assert!((shares - 1.0).abs() < 1e-9 && (layers - number(&exits["mean_layers"])).abs() < 1e-9, "{exits}");
    assert!(number(&measured["calibration_error"]) < 0.15, "{measured}");
    let curve = measured["kept_curve"].as_array().expect("a list");
    assert!(curve.windows(2).all(|pair| number(&pair[0]["share"]) > number(&pair[1]["share"])), "{curve:?}");
    let text = String::from_utf8(succeed(path, "eval a.slm --data valid.jsonl --route-below 0.6")).expect("UTF-8");
    for row in ["mean_layers", "exit_speed", "after 1", "calibration_error", "kept", "share kept"] {
        assert!(text.contains(row), "{row} is missing in:\n{text}");
    }

    let answers = json(path, "classify a.slm ab zz --route-below 0.99999");
    let answers = answers["answers"].as_array().expect("a list").clone();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1]["label"], "oos");
    assert!(answers.iter().all(|answer| answer["ask_elsewhere"] == true), "{answers:?}");
    assert!(answers.iter().all(|answer| number(&answer["confidence"]) < 0.99999), "{answers:?}");
    assert!(answers.iter().all(|answer| (1..=3).contains(&answer["layers"].as_u64().unwrap_or(0))));
    let text = String::from_utf8(succeed(path, "classify a.slm ab")).expect("UTF-8");
    assert!(text.contains("yes") && !text.contains("elsewhere"), "{text}");
    // A directory has neither layers nor a temperature.
    let of_directory = json(path, "classify trained ab");
    assert!(of_directory["answers"][0]["layers"].is_null());
    assert_eq!(of_directory["answers"][0]["label"], "yes");

    // Margins by hand: all at once, and never.
    succeed(path, "compile small --target generic --context 32 --exit-margins 0,never -o now.slm -q");
    let now = json(path, "eval now.slm --data valid.jsonl");
    assert_eq!(now["exits"]["mean_layers"], 1.0);
    succeed(path, "compile small --target generic --context 32 -o never.slm -q");
    let never = json(path, "eval never.slm --data valid.jsonl");
    assert_eq!(never["exits"]["mean_layers"], 3.0);
    assert_eq!(never["accuracy"], never["exits"]["full_accuracy"]);
    let bytes = read("never.slm");
    let view = ArtifactView::open(&bytes).expect("sound");
    assert!(view.heads().take(2).all(|head| head.threshold == NEVER));
}

#[test]
fn frozen_training_changes_the_exit_heads_alone() {
    let directory = workplace();
    let path = directory.path();
    succeed(path, &format!("train m --data train.jsonl --exits 1 --exit-body frozen {TRAIN} -o frozen"));
    succeed(path, &format!("train m --data train.jsonl --exits 1 {TRAIN} -o joint"));
    let [before, frozen, joint] = ["m", "frozen", "joint"].map(|name| open_model(&path.join(name)).expect("it opens"));
    let values = |model: &slmc::model::weights::Model, id| model.values_f32(id).expect("values");
    for id in before.parameters.keys() {
        assert_eq!(values(&before, *id), values(&frozen, *id), "{id} is frozen");
    }
    assert!(before.parameters.keys().any(|id| values(&before, *id) != values(&joint, *id)));
    let of_exit =
        |id: &&ParameterId| matches!(id, ParameterId::Linear(linear, _) if linear.role.class() == Class::Exit);
    assert_eq!(frozen.parameters.keys().filter(of_exit).count(), 4);
    // A later training keeps the exits and goes on with them.
    succeed(path, &format!("train frozen --data train.jsonl {TRAIN} -o later"));
    let later = open_model(&path.join("later")).expect("it opens");
    assert_eq!(later.spec.exits, [1]);
    assert!(later.parameters.keys().filter(of_exit).all(|id| values(&frozen, *id) != values(&later, *id)));
    // A student of some layers has none.
    succeed(path, &format!("distill --teacher later --layers 0,2 --data train.jsonl {TRAIN} -o student"));
    assert!(open_model(&path.join("student")).expect("it opens").spec.exits.is_empty());
}

/// A temperature is for every classifier.
#[test]
fn a_classifier_without_exits_has_a_temperature() {
    let directory = workplace();
    let path = directory.path();
    succeed(path, &format!("train m --data train.jsonl {TRAIN} -o trained"));
    succeed(path, "quantize trained --scheme w8 -o small -q");
    let made = json(path, "compile small --target generic --exit-data chosen.jsonl -o a.slm");
    assert_eq!(made["exits"]["heads"].as_array().map(Vec::len), Some(1));
    let measured = json(path, "eval a.slm --data valid.jsonl");
    assert!(measured["exits"].is_null() && measured["calibration_error"].is_number(), "{measured}");
    succeed(path, "compile small --target generic -o plain.slm -q");
    let plain = json(path, "eval plain.slm --data valid.jsonl");
    assert!(plain["calibration_error"].is_null());
    assert_eq!(plain["logits_sha256"], measured["logits_sha256"], "a temperature changes no logits");
    let routed = json(path, "eval plain.slm --data valid.jsonl --route-below 0.5");
    assert!(routed["kept_share"].is_number() && routed["calibration_error"].is_number());
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let directory = workplace();
    let path = directory.path();
    succeed(path, "quantize m --scheme w8 -o small -q");
    succeed(path, &format!("train m --data train.jsonl --exits 1 --exit-body frozen {TRAIN} -o with"));
    succeed(path, "quantize with --scheme w8 -o small-with -q");
    fs::write(path.join("unknown.jsonl"), "{\"text\": \"a\", \"label\": \"perhaps\"}\n").expect("written");
    succeed(path, "compile small --target generic -o sound.slm -q");
    succeed(path, "quantize decoder --method rtn --scheme w8 -o small-decoder -q");
    let cases = [
        ("train m --data train.jsonl --exits 3 -o out", "no exit after 3 layers of 3; pass numbers from 1 to 2"),
        ("train m --data train.jsonl --exits 0,1 -o out", "no exit after 0 layers"),
        ("train m --data train.jsonl --exits 2,1 -o out", "exit 1 is named after exit 2"),
        ("train m --data train.jsonl --exits 1,1 -o out", "exit 1 is named after exit 1"),
        ("train decoder --data train.jsonl --exits 1 -o out", "exits stand on sequence classifiers"),
        ("train bare --data train.jsonl --exits 1 -o out", "exits stand on sequence classifiers"),
        ("train m --data train.jsonl --exits 1 --exit-body frozen --train-only head -o out", "leave --train-only out"),
        ("train bare --task classify --data train.jsonl --exits 1 --exit-body frozen -o out", "has none yet"),
        ("train m --data train.jsonl --exit-weight 2 -o out", "add --exits"),
        ("train m --data train.jsonl --exits 1 --exit-weight=-1 -o out", "exit"),
        ("train m --data train.jsonl --exits 1 --dp-epsilon 3 --dp-delta 1e-4 -o out", "train the model without exits"),
        ("compile small --target generic --exit-margins 1 -o out", "has no exit heads"),
        ("compile small --target generic --exit-data chosen.jsonl --exit-loss 1 -o out", "has no exit heads"),
        ("compile small-with --target generic --exit-margins 1,2 -o out", "names 2, and the model has exits after 1"),
        ("compile small-with --target generic --exit-margins 70000 -o out", "is not a margin"),
        ("compile small-with --target generic --exit-margins=-1 -o out", "is not a margin"),
        ("compile small-with --target generic --exit-loss 1 -o out", "--exit-data"),
        ("compile small-with --target generic --exit-data chosen.jsonl --exit-loss 101 -o out", "from 0 to 100"),
        ("compile small-with --target generic --exit-data chosen.jsonl --exit-loss nan -o out", "from 0 to 100"),
        ("compile small-with --target generic --exit-data unknown.jsonl -o out", "no label `perhaps`"),
        ("compile small-with --target generic --exit-data absent.jsonl -o out", "absent.jsonl"),
        ("compile small-decoder --target generic --exit-data chosen.jsonl -o out", "only classifiers have"),
        ("eval sound.slm --data valid.jsonl --route-below 1.5", "is not a probability"),
        ("eval sound.slm --data valid.jsonl --route-below nan", "is not a probability"),
        ("eval m --data valid.jsonl --task embed --route-below 0.5", "leave it out"),
        ("classify sound.slm a --route-below=-0.5", "is not a probability"),
        ("classify decoder a", "only classifiers do"),
    ];
    all_refused(path, cases);
}

/// Configurations that state exits that the model cannot have.
#[test]
fn exits_of_a_configuration_are_checked() {
    let directory = workplace();
    let path = directory.path();
    let file = path.join("m/config.json");
    let text = fs::read_to_string(&file).expect("written");
    for (exits, expected) in [
        (r#"{"layers": [3]}"#, "no exit after 3 layers of 3"),
        (r#"{"layers": []}"#, "no exit is named"),
        (r#"{"layers": [2, 1]}"#, "exit 1 is named after exit 2"),
        (r#"{"layers": [-1]}"#, "a list of numbers of layers"),
        (r#"{"layers": 1}"#, "a list of numbers of layers"),
        (r#"{"layers": [18446744073709551615]}"#, "there is no exit after"),
        (r#"{"layers": [1], "thresholds": [2]}"#, "thresholds"),
        ("[1]", "slmc_exits"),
        (r#"{"layers": [1]}"#, "exits.1."),
    ] {
        let changed = text.replacen('{', &format!("{{\"slmc_exits\": {exits}, "), 1);
        fs::write(&file, changed).expect("written");
        let output = run(path, "quantize m --scheme w8 -o out");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && message.contains(expected), "{exits}: {message}");
        assert!(!path.join("out").exists());
    }
}
