//! Exported directories read back: values, integers, both places of tensors, and files that are not what they were.

use super::export::{graph_file, write};
use super::file::DATA_FILE;
use super::testing::{golden, rounded};
use super::variant::Operators;
use crate::formats::{self, FORMATS, ModelSource};
use crate::model::id::{ParameterId, Part};
use crate::model::scheme::QuantScheme;
use crate::model::weights::{Model, Parameter};
use serde_json::json;
use std::fs;
use std::path::Path;

/// Models of every kind, in schemes that the kinds have.
fn models() -> Vec<Model> {
    let w4 = |name| rounded(golden(name), |_| QuantScheme::W4G32);
    let split = |name| {
        rounded(golden(name), |id| match id.to_string().as_str() {
            "embed.token" | "head.lm" => QuantScheme::Split { wide_rows: 64 },
            _ => QuantScheme::W3G32,
        })
    };
    let w8 = |name| rounded(golden(name), |_| QuantScheme::W8);
    vec![
        golden("llama-gqa-tied"),
        w4("llama-gqa-tied"),
        split("llama-mha"),
        w8("gemma3-text"),
        w8("gpt2"),
        w4("bert-classifier"),
        w8("bert-mlm"),
    ]
}

fn written(model: &Model, operators: Operators, apart: bool, out: &Path) {
    write(model, operators, apart, &json!({"stage": "export"}), out).expect("it can be written");
}

/// The integers of a source are those of a model, its other values the same to the bit.
fn check(source: &dyn ModelSource, model: &Model, label: &str) {
    for (id, parameter) in &model.parameters {
        match (id, parameter) {
            (ParameterId::KeyMap(..), _) => {}
            (ParameterId::Linear(linear, Part::Weight), Parameter::Quantized(matrix)) => {
                let integers = source.integers(*linear).expect("it reads").expect("there are integers");
                assert_eq!(integers.values, matrix.values, "{label}: {id}");
                source.grid(*linear).expect("there is a grid");
                let dense = source.parameter(*id).expect("it reads");
                let Parameter::Dense(dense) = dense else { panic!("{label}: {id} is dense") };
                let (found, expected) = (dense.to_f32("x").expect("finite"), model.values_f32(*id).expect("finite"));
                for (found, expected) in found.iter().zip(&expected) {
                    // One product of three numbers, rounded once or twice.
                    assert!((found - expected).abs() <= expected.abs() * 2e-7, "{label}: {id} {found} {expected}");
                }
            }
            _ => {
                let Parameter::Dense(dense) = source.parameter(*id).expect("it reads") else {
                    panic!("{label}: {id} is dense")
                };
                assert_eq!(dense.to_f32("x").expect("finite"), model.values_f32(*id).expect("finite"), "{label}: {id}");
            }
        }
    }
}

#[test]
fn exported_models_read_back_with_their_integers() {
    for model in models() {
        for operators in Operators::ALL {
            let directory = tempfile::tempdir().expect("a directory");
            let [inside, outside, again] = ["inside", "apart", "again"].map(|name| directory.path().join(name));
            written(&model, operators, false, &inside);
            written(&model, operators, true, &outside);
            written(&model, operators, false, &again);
            let label = format!("{} {operators:?}", model.path.display());
            let bytes = |path: &Path| fs::read(path).expect("written");
            assert_eq!(bytes(&graph_file(&inside)), bytes(&graph_file(&again)), "{label}");
            assert!(!inside.join(DATA_FILE).exists() && outside.join(DATA_FILE).exists(), "{label}");
            for path in [&inside, &outside] {
                let format = FORMATS.iter().find(|format| (format.recognises)(path)).expect("it is recognised");
                assert_eq!(format.name, super::FORMAT.name);
                let source = formats::open(path).expect("it opens");
                assert_eq!(source.outline().spec, model.spec, "{label}");
                check(source.as_ref(), &model, &label);
            }
        }
    }
}

#[test]
fn cut_and_changed_files_are_refused_and_never_panic() {
    let model = rounded(golden("llama-gqa-tied"), |_| QuantScheme::W4G32);
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    written(&model, Operators::OnnxRuntime, true, &out);
    let file = graph_file(&out);
    let whole = fs::read(&file).expect("written");
    let mut refused = 0;
    for length in (0..whole.len()).step_by(whole.len() / 700 + 1) {
        fs::write(&file, &whole[..length]).expect("it can be written");
        refused += usize::from(formats::open(&out).is_err());
    }
    assert!(refused > 600, "{refused}");
    for at in (0..whole.len()).step_by(whole.len() / 900 + 1) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        fs::write(&file, &bytes).expect("it can be written");
        // Names of nodes may be anything; what opens is read without a panic.
        if let Ok(source) = formats::open(&out) {
            for id in source.outline().parameters() {
                let _ = source.parameter(id);
            }
        }
    }
    fs::write(&file, &whole).expect("it can be written");
    let data = out.join(DATA_FILE);
    let bytes = fs::read(&data).expect("written");
    fs::write(&data, &bytes[..bytes.len() / 2]).expect("it can be written");
    let error = formats::open(&out).err().expect("half of the data").to_string();
    assert!(error.contains("does not lie within model.onnx.data"), "{error}");
    fs::remove_file(&data).expect("it is there");
    let error = formats::open(&out).err().expect("no data").to_string();
    assert!(error.contains("model.onnx.data: cannot be read"), "{error}");
}

#[test]
fn graphs_of_other_programs_are_refused_by_what_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let (out, own) = (directory.path().join("out"), golden("bert-encoder"));
    written(&own, Operators::OnnxRuntime, false, &out);
    let file = graph_file(&out);
    let mut bytes = fs::read(&file).expect("written");
    // `producer_name` of another program.
    bytes[4..8].copy_from_slice(b"pyto");
    fs::write(&file, &bytes).expect("it can be written");
    let error = formats::open(&out).err().expect("it is not slmc's").to_string();
    assert!(error.contains("an exported graph cannot be read back"), "{error}");
    let error = formats::open(&file).err().expect("it is a file").to_string();
    assert!(error.contains("an exported graph cannot be read back"), "{error}");
}
