//! Students made of some layers of their teacher (`distill --layers`) and encoders that are given a classifier, for every
//! family: a kept layer is the layer it was, with its window, rotation and kind, also in the directory that is written.

use crate::support::{golden, golden_folders};
use serde_json::{Value, json};
use slmc::disk::Config;
use slmc::formats::{ModelSink, configuration, hugging_face, open_model};
use slmc::model::described;
use slmc::model::families::{self, FAMILIES};
use slmc::model::spec::{LayerSpec, ModelSpec, NormPlacement};
use slmc::model::weights::Model;
use slmc::train::start;
use std::collections::BTreeSet;
use std::path::Path;

/// Every choice of some of three layers.
const KEPT: [&[usize]; 7] = [&[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];

/// A golden checkpoint whose configuration says something else; a key with null is taken out.
fn changed(folder: &Path, changes: &[(&str, Value)]) -> Model {
    let mut model = open_model(folder).expect("a golden checkpoint opens");
    let mut map = model.config.map().clone();
    for (key, value) in changes {
        map.remove(*key);
        if !value.is_null() {
            map.insert((*key).to_owned(), value.clone());
        }
    }
    model.config = Config::from_map(model.config.file(), map);
    model.spec = described::spec_of(&model.companions, &model.config).expect("the change is one the family knows");
    model
}

/// Compares the layers of every student of a teacher with the teacher's, as made and as read from its directory.
fn check_students(teacher: &Model, label: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Some golden checkpoints have two layers.
    let there = |kept: &&[usize]| kept.iter().all(|&layer| layer < teacher.spec.layers.len());
    // A model whose first layer lacks a norm has no other first layer.
    let first_alone = teacher.spec.layers[0].norm_placement == NormPlacement::Network;
    for (number, kept) in KEPT.into_iter().filter(there).enumerate() {
        if first_alone && kept[0] != 0 {
            let error = start::layers_of(teacher, kept).expect_err("another first layer").to_string();
            assert!(error.contains("keep a run of layers from layer 0 on"), "{label}: {error}");
            continue;
        }
        let student = start::layers_of(teacher, kept).unwrap_or_else(|error| panic!("{label} {kept:?}: {error}"));
        let layers: Vec<LayerSpec> = kept.iter().map(|&layer| teacher.spec.layers[layer]).collect();
        assert_eq!(student.spec, ModelSpec { layers, ..teacher.spec.clone() }, "{label} {kept:?}");
        let out = dir.path().join(number.to_string());
        let provenance = json!({"schema": "slmc.provenance/1", "stage": "test"});
        hugging_face::Directory(&out).write(&student, &provenance).expect("it can be written");
        let mut read = open_model(&out).expect("what was written opens").spec;
        // Tokens that end a text may stand in a file beside config.json, which is not written here.
        read.ends.clone_from(&student.spec.ends);
        assert_eq!(read, student.spec, "{label} {kept:?}");
    }
}

#[test]
fn a_kept_layer_is_what_it_was_in_the_teacher() {
    let mut families = BTreeSet::new();
    for folder in golden_folders() {
        let teacher = open_model(&folder).expect("a golden checkpoint opens");
        families.insert(teacher.spec.family);
        check_students(&teacher, &folder.display().to_string());
    }
    // An encoder-decoder has no student of some of its layers yet.
    let cut = FAMILIES.iter().map(|family| family.model_type).filter(|&name| name != "t5").collect();
    assert_eq!(families, cut);
}

#[test]
fn a_kept_layer_is_what_it_was_where_the_configuration_counts_layers() {
    let sliding = |full: Value| {
        let window = [("use_sliding_window", json!(true)), ("sliding_window", json!(16))];
        window.into_iter().chain([("max_window_layers", full), ("layer_types", Value::Null)]).collect::<Vec<_>>()
    };
    let listed = vec![
        ("use_sliding_window", json!(true)),
        ("sliding_window", json!(16)),
        ("layer_types", json!(["sliding_attention", "full_attention", "sliding_attention"])),
    ];
    let pattern = |key| vec![("layer_types", Value::Null), ("_sliding_window_pattern", Value::Null), (key, json!(2))];
    let indices = vec![("layer_types", Value::Null), ("full_attn_idxs", json!([1]))];
    let none = || vec![("layer_types", Value::Null), ("_sliding_window_pattern", Value::Null)];
    let cases = [
        ("gemma3-text", pattern("sliding_window_pattern")),
        ("gemma3-text", pattern("_sliding_window_pattern")),
        ("gemma3-text", none()),
        ("qwen2-qkv-bias", sliding(json!(1))),
        ("qwen2-qkv-bias", sliding(json!(0))),
        ("qwen2-qkv-bias", sliding(Value::Null)),
        ("qwen2-qkv-bias", listed.clone()),
        ("qwen3-qk-norm", sliding(json!(1))),
        ("qwen3-qk-norm", sliding(json!(2))),
        ("qwen3-qk-norm", listed),
        ("lfm2-short-conv", indices),
    ];
    for (folder, changes) in cases {
        let teacher = changed(&golden(folder), &changes);
        check_students(&teacher, &format!("{folder} {changes:?}"));
    }
}

/// Families with a sequence classifier.
const CLASSIFIERS: [&str; 13] = [
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "gpt2",
    "llama",
    "mistral",
    "modernbert",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "roberta",
    "xlm-roberta",
];

#[test]
fn a_classifier_is_the_familys() {
    let labels = ["no", "yes"].map(str::to_owned);
    for folder in golden_folders() {
        let config = configuration(&folder).expect("a configuration");
        let family = families::spec(&config).expect("it is sound").family;
        match families::with_classifier(&config, &labels) {
            Ok(config) => {
                let spec = families::spec(&config).expect("the family reads what it wrote");
                let (id, name) = (&config.map()["id2label"], &config.map()["label2id"]);
                assert!(CLASSIFIERS.contains(&family) && spec.output_width() == 2, "{family}");
                assert_eq!((id, name), (&json!({"0": "no", "1": "yes"}), &json!({"no": 0, "yes": 1})));
            }
            Err(error) => {
                let known = CLASSIFIERS.join(", ");
                let expected = format!("`model_type` is `{family}`; --task classify supports {known}");
                assert!(!CLASSIFIERS.contains(&family) && error.to_string().ends_with(&expected), "{error}");
            }
        }
    }
}
