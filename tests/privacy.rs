//! Private training: what it says of itself, what it withholds, what it refuses, and that a run which learns its samples by heart
//! tells members from others while a private one does not.

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, succeed};
use serde_json::Value;
use slm_runtime::sample::random_u64;
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::spec::Head;
use slmc::text::tokenizer::Tokenizer;
use std::fs;
use std::path::Path;

/// A text of random words, and a label that nothing in it decides: to know it is to have seen it.
fn canary(index: u64) -> (String, &'static str) {
    let draw = |place: u64| random_u64(77, index * 64 + place);
    let word = |number: u64| -> String {
        (0..3 + draw(number) % 3).map(|letter| char::from(b'a' + (draw(8 + number * 6 + letter) % 26) as u8)).collect()
    };
    let words: Vec<String> = (0..5).map(word).collect();
    (words.join(" "), ["no", "yes", "oos"][(draw(63) % 3) as usize])
}

fn write_records(path: &Path, canaries: std::ops::Range<u64>) {
    let line = |index| {
        let (text, label) = canary(index);
        format!("{}\n", serde_json::json!({"text": text, "label": label}))
    };
    fs::write(path, canaries.map(line).collect::<String>()).expect("the records can be written");
}

fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::BertClassifier, Size::SMALL);
    write_records(&directory.path().join("members.jsonl"), 0..100);
    directory
}

/// Cross entropy of every canary.
fn losses(directory: &Path, name: &str, canaries: std::ops::Range<u64>) -> Vec<f64> {
    let model = open_model(&directory.join(name)).expect("it opens");
    let tokenizer = Tokenizer::of(&model.companions).expect("a tokenizer");
    let device = device("flex").expect("the default");
    let weights = DenseWeights::new(&model, &device).expect("values");
    let Head::Classifier { labels, .. } = &model.spec.head else { panic!("a classifier") };
    let loss = |index| {
        let (text, label) = canary(index);
        let tokens = tokenizer.encode_with_specials(&text).expect("tokens");
        let batch = Batch::new(&model.spec, tokens, 1).expect("a batch");
        let logits = Forward::new(&model.spec, &weights, &device).run(&batch, &mut Unobserved).logits;
        let logits: Vec<f32> = logits.into_data().try_to_vec().expect("f32");
        let own = labels.iter().position(|other| other == label).expect("a label of the model");
        let largest = logits.iter().fold(f32::NEG_INFINITY, |most, value| most.max(*value));
        let sum: f64 = logits.iter().map(|value| f64::from(value - largest).exp()).sum();
        sum.ln() - f64::from(logits[own] - largest)
    };
    canaries.map(loss).collect()
}

/// How often a member has the smaller loss: 0.5 where nothing tells them from others.
fn area(members: &[f64], others: &[f64]) -> f64 {
    let below = |member: &f64| -> f64 {
        others
            .iter()
            .map(|other| {
                if member < other {
                    1.0
                } else if member == other {
                    0.5
                } else {
                    0.0
                }
            })
            .sum()
    };
    members.iter().map(below).sum::<f64>() / (members.len() * others.len()) as f64
}

const TRAIN: &str = "train m --data members.jsonl --window 64 --batch 20 --tokens 120000 --learning-rate 3e-3 -q";
const PRIVATE: &str = "--dp-epsilon 2 --dp-delta 1e-3 --dp-clip 0.5";

#[test]
fn a_normal_run_betrays_its_canaries_and_a_private_one_does_not() {
    let directory = workplace();
    let path = directory.path();
    succeed(path, &format!("{TRAIN} -o normal"));
    succeed(path, &format!("{TRAIN} {PRIVATE} --dp-test-seed 1 -o private"));
    let tells = |name: &str| area(&losses(path, name, 0..100), &losses(path, name, 1000..1300));
    let (before, normal, private) = (tells("m"), tells("normal"), tells("private"));
    // An area of 100 and 300 losses that nothing tells apart is 0.5 ± 0.033.
    assert!((before - 0.5).abs() < 0.1, "before: {before}");
    assert!(normal > 0.9, "normal: {normal}");
    assert!((private - 0.5).abs() < 0.12, "private: {private}");
}

#[test]
fn a_private_run_says_what_it_spent_and_keeps_the_rest_to_itself() {
    let directory = workplace();
    let path = directory.path();
    let train = "train m --data members.jsonl --window 64 --batch 20 --tokens 4000 --dp-epsilon 3 --dp-delta 1e-3 -q";
    let report = json(path, &format!("{train} -o once"));
    let spent = &report["privacy"];
    let number = |key: &str| spent[key].as_f64().unwrap_or_else(|| panic!("{key} in {spent}"));
    assert!(number("epsilon") <= 3.0 && number("epsilon") > 2.99, "{spent}");
    assert_eq!((number("delta"), number("clip"), number("sample_rate")), (1e-3, 0.1, 0.2));
    assert_eq!(spent["steps"], report["steps"]);
    assert_eq!(spent["randomness"], "the operating system");
    let made: Value = serde_json::from_slice(&fs::read(path.join("once/slmc.json")).expect("written")).expect("JSON");
    assert_eq!(made["privacy"], *spent);
    assert_eq!(made["metrics"], serde_json::json!({"steps": report["steps"]}));
    let inputs = made["inputs"].as_array().expect("a list");
    let of_role = |role: &str| inputs.iter().find(|input| input["role"] == role).expect("it is there");
    assert!(of_role("model")["sha256"].is_string() && of_role("data")["sha256"].is_null(), "{inputs:?}");
    // Nobody can foresee the noise, a seed does not fix it.
    succeed(path, &format!("{train} -o twice"));
    let weights = |name: &str| fs::read(path.join(name).join("model.safetensors")).expect("written");
    assert!(weights("once") != weights("twice"));
    // A test's is known, and said to protect nothing; then threads and a kill change nothing.
    let test = format!("{train} --dp-test-seed 5 --train-only layers.1.* head --checkpoint-every 3");
    let report = json(path, &format!("{test} -o first"));
    assert!(
        report["privacy"]["randomness"].as_str().is_some_and(|text| text.contains("nothing is private")),
        "{report}"
    );
    succeed(path, &format!("{test} --threads 1 -o second"));
    refused(path, &format!("{test} -o third --stop-after-step 6"), "stopped after step 6");
    succeed(path, &format!("{test} -o third"));
    assert!(weights("first") == weights("second") && weights("first") == weights("third"));
    succeed(path, &format!("{test} --lora-rank 2 -o adapters"));
}

#[test]
fn what_cannot_be_private_is_refused_before_the_work() {
    let directory = workplace();
    let path = directory.path();
    let train = "train m --data members.jsonl --window 64 --batch 20 --tokens 3000 -o out";
    for (arguments, expected) in [
        ("--dp-epsilon 1", "--dp-delta"),
        ("--dp-epsilon 0 --dp-delta 1e-3", "--dp-epsilon is 0"),
        ("--dp-epsilon 1 --dp-delta 2", "--dp-delta is 2"),
        ("--dp-epsilon 1 --dp-delta 0.01", "--dp-delta 0.01 is not below 1 / 100"),
        ("--dp-epsilon 1e-4 --dp-delta 1e-3", "cannot be reached in"),
        ("--dp-epsilon 1 --dp-delta 1e-3 --dp-clip 0", "--dp-clip is 0"),
        ("--dp-epsilon 1 --dp-delta 1e-3 --pieces 2", "every sample is a piece of its own"),
        ("--dp-epsilon 1 --dp-delta 1e-3 --clip 2", "pass --dp-clip"),
    ] {
        refused(path, &format!("{train} {arguments}"), expected);
    }
    let large =
        "train m --data members.jsonl --window 64 --batch 200 --tokens 3000 --dp-epsilon 1 --dp-delta 1e-3 -o out";
    refused(path, large, "the data has 100 samples");
    assert!(!path.join("out").exists());
}

/// Samples and noise are those of a test, and nothing but the hidden tokens is left for the seed: of texts of two tokens one is.
#[test]
fn the_seed_decides_which_tokens_are_hidden() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::BertMlm, Size::SMALL);
    let tokenizer = path.join("m/tokenizer.json");
    let with_mask = fs::read_to_string(&tokenizer).expect("reads").replace("\",\":", "\"[MASK]\":");
    fs::write(tokenizer, with_mask).expect("written");
    let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
    let texts: String = (0..40).map(|number| format!("{}{}\n", letter(number), letter(3 * number + 1))).collect();
    fs::write(path.join("texts.txt"), texts).expect("written");
    let train = "train m --data texts.txt --window 16 --batch 4 --tokens 200 --train-only layers.1.* -q";
    let private = "--dp-epsilon 8 --dp-delta 1e-3 --dp-test-seed 3";
    let trained = |seed: u64, name: &str| {
        succeed(path, &format!("{train} {private} --seed {seed} -o {name}"));
        fs::read(path.join(name).join("model.safetensors")).expect("written")
    };
    let first = trained(1, "first");
    assert!(first == trained(1, "again"), "one seed gives two results");
    assert!(first != trained(2, "other"), "two seeds hide the same tokens");
}
