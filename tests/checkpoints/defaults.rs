//! What config.json may leave out: keys with the values of the class, labels, `architectures` and `model_type`.

use super::{copied, edit_json, edit_tensors, remove};
use crate::support::{golden, golden_folders, name};
use serde_json::{Value, json};
use slmc::disk::Config;
use slmc::formats::{ModelSink, hugging_face, open, open_model};
use slmc::model::families::Family;
use slmc::model::families::class_defaults::ClassDefault;
use slmc::model::spec::{Head, ModelSpec};
use std::path::Path;

fn spec(directory: &Path) -> ModelSpec {
    open(directory).expect("opens").outline().spec.clone()
}

fn notes(directory: &Path) -> Vec<String> {
    open(directory).expect("opens").outline().notes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_key_that_says_what_the_class_says_may_be_left_out() {
    let mut left_out = 0;
    for folder in golden_folders() {
        let directory = copied(&folder);
        let before = spec(directory.path());
        let config = Config::read(&folder.join("config.json")).expect("it reads");
        for (key, default) in Family::of(&config).expect("known").defaults {
            let same = match (*default, config.value(key)) {
                (_, None) => false,
                (ClassDefault::Flag(flag), Some(value)) => value.as_bool() == Some(flag),
                (ClassDefault::Text(text), Some(value)) => value.as_str() == Some(text),
                (ClassDefault::Number(number), Some(value)) => value.as_f64() == Some(number),
                (ClassDefault::Size(n) | ClassDefault::Count(n), Some(value)) => value.as_u64() == Some(n),
            };
            if same {
                edit_json(directory.path(), "config.json", |config| remove(config, key));
                left_out += 1;
            }
        }
        assert_eq!(spec(directory.path()), before, "{}", name(&folder));
    }
    // Activation, epsilon and the tie of nearly every one.
    assert!(left_out > 60, "{left_out}");
}

#[test]
fn labels_that_are_not_named_are_numbered() {
    let labels = |directory: &Path| match spec(directory).head {
        Head::Classifier { labels, .. } => labels,
        _ => panic!("a classifier"),
    };
    let directory = copied(&golden("bert-classifier"));
    let path = directory.path();
    let row_bytes = 40 * 4;
    edit_tensors(path, |tensors| {
        for (name, bytes) in [("classifier.weight", 2 * row_bytes), ("classifier.bias", 2 * 4)] {
            let tensor = tensors.get_mut(name).expect("there is one");
            tensor.shape[0] = 2;
            tensor.bytes.truncate(bytes);
        }
    });
    // What transformers writes for two labels.
    edit_json(path, "config.json", |config| {
        remove(config, "id2label");
        remove(config, "label2id");
    });
    assert_eq!(labels(path), ["LABEL_0", "LABEL_1"]);
    for (ids, expected) in [
        (json!({"0": 0, "1": 1}), ["0", "1"]),
        (json!({"0": "no", "1": true}), ["no", "true"]),
        (json!({"1": "b", "0": "a"}), ["a", "b"]),
    ] {
        edit_json(path, "config.json", |config| config["id2label"] = ids);
        assert_eq!(labels(path), expected);
    }
    let seven = copied(&golden("bert-classifier"));
    edit_json(seven.path(), "config.json", |config| {
        remove(config, "id2label");
        config["num_labels"] = json!(7);
    });
    assert_eq!(labels(seven.path())[6], "LABEL_6");
    edit_json(seven.path(), "config.json", |config| config["num_labels"] = json!(2_000_000_000));
    let error = open(seven.path()).err().expect("refused").to_string();
    assert!(error.contains("`num_labels` is 2000000000, expected at most 65535"), "{error}");
}

#[test]
fn the_class_and_the_family_are_decided_by_the_tensors() {
    let cases = [
        ("bert-classifier", &["architectures"][..]),
        ("bert-classifier", &["architectures", "model_type"]),
        ("bert-encoder", &["architectures"]),
        ("bert-mlm", &["architectures", "model_type"]),
        ("distilbert-mlm", &["architectures", "model_type"]),
        ("gemma3-text", &["architectures", "model_type"]),
        ("gpt2", &["architectures", "model_type"]),
        ("gpt2-unprefixed-with-buffers", &["model_type"]),
        ("lfm2-short-conv", &["architectures", "model_type"]),
        ("llama-mha", &["architectures"]),
        ("llama-mha", &["model_type"]),
        ("mistral", &["model_type"]),
        ("qwen2-qkv-bias", &["architectures", "model_type"]),
        ("qwen3-qk-norm", &["architectures", "model_type"]),
    ];
    for (folder, keys) in cases {
        let directory = copied(&golden(folder));
        let path = directory.path();
        edit_json(path, "config.json", |config| keys.iter().for_each(|key| remove(config, key)));
        let (model, original) = (open_model(path).expect(folder), open_model(&golden(folder)).expect("golden"));
        assert_eq!((&model.spec, &model.parameters), (&original.spec, &original.parameters), "{folder} {keys:?}");
        let decided = keys.contains(&"model_type") || folder.contains("bert");
        assert_eq!(!notes(path).is_empty(), decided, "{folder} {keys:?}");
        // What was decided is written, so that it is known where the tensors have other names.
        let out = path.join("out");
        hugging_face::Directory(&out)
            .write(&model, &json!({"schema": "slmc.provenance/1"}))
            .expect("it can be written");
        let written: Value =
            serde_json::from_slice(&std::fs::read(out.join("config.json")).expect("there")).expect("JSON");
        assert_eq!(written["model_type"], model.spec.family, "{folder}");
    }
    // Llama's tensors are Mistral's and others' too.
    let directory = copied(&golden("llama-mha"));
    edit_json(directory.path(), "config.json", |config| {
        remove(config, "architectures");
        remove(config, "model_type");
    });
    let error = open(directory.path()).err().expect("undecided").to_string();
    assert!(
        error.contains("config.json: key `model_type` is missing") && error.contains("tensors do not tell"),
        "{error}"
    );
}

#[test]
fn a_configuration_without_weights_states_its_sizes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("student.json");
    let config = json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2,
                        "vocab_size": 32});
    std::fs::write(&file, config.to_string()).expect("it can be written");
    let error = slmc::train::start::open(&file, 0).expect_err("layers are missing").to_string();
    assert!(error.contains("key `num_hidden_layers` is missing") && error.contains("no weights"), "{error}");
}
