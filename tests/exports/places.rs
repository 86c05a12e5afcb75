//! Where exports go: over what slmc made and over nothing else, all of it or nothing, the same bytes every time; and on the
//! command line, where integers come back through `quantize --method keep`.

use super::{exported, model, options, quantized};
use crate::support::{json_with_code, refused, root, shared, succeed};
use serde_json::{Value, json};
use slmc::disk::hash::path_sha256;
use slmc::disk::{DenseTensor, DenseType};
use slmc::formats::{ModelSink, hugging_face, open_model};
use slmc::model::id::{LinearId, ParameterId, Part, Role};
use slmc::model::scheme::Preset;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::Scales;
use slmc::stages::export::export_model;
use std::fs;
use std::path::Path;

#[test]
fn strangers_stay_and_own_outputs_are_replaced_by_the_same_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let llama = model("llama-gqa-tied");
    let source = path.join("quantized");
    quantized(&llama, &Preset::Mixed.assign(&llama.spec), Scales::Any, &source);
    for format in ["gguf", "compressed-tensors", "safetensors"] {
        let out = path.join(format!("out-{format}"));
        exported(&source, format, &out);
        let first = path_sha256(&out).expect("it is there");
        exported(&source, format, &out);
        assert_eq!(path_sha256(&out).expect("it is there"), first, "{format}");
    }
    // A GGUF file of somebody else, and anything else that is there.
    let stranger = path.join("stranger.gguf");
    let theirs = fs::read(root("tests/data/gguf/llama-mha.gguf")).expect("part of the repository");
    for content in [theirs.as_slice(), b"notes", b"GGUF"] {
        fs::write(&stranger, content).expect("written");
        let error = export_model(&options(&source, "gguf", &stranger), &Silent).expect_err("it is refused").to_string();
        assert!(error.contains("stranger.gguf: exists and was not made by slmc"), "{error}");
        assert_eq!(fs::read(&stranger).expect("it is there"), content);
    }
    let folder = path.join("folder");
    fs::create_dir(&folder).expect("made");
    for format in ["gguf", "compressed-tensors", "safetensors"] {
        let error = export_model(&options(&source, format, &folder), &Silent).expect_err("it is refused").to_string();
        assert!(error.contains("exists and"), "{error}");
    }
    let names: Vec<_> =
        fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains(".slmc-")), "{names:?}");
}

#[test]
fn a_value_that_a_type_does_not_hold_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut llama = model("llama-gqa-tied");
    let id = ParameterId::weight(LinearId::layer(1, Role::Down));
    let mut values = llama.values_f32(id).expect("finite");
    values[7] = 70_000.0;
    let shape = vec![llama.spec.hidden, values.len() / llama.spec.hidden];
    llama.parameters.insert(id, Parameter::Dense(DenseTensor::from_f32(shape, &values).expect("as many")));
    let source = directory.path().join("plain");
    hugging_face::Directory(&source).write(&llama, &json!({})).expect("a directory");
    let quantized_source = directory.path().join("quantized");
    quantized(&llama, &Preset::W8.assign(&llama.spec), Scales::Any, &quantized_source);
    for (source, format) in [(&source, "gguf"), (&source, "safetensors"), (&quantized_source, "safetensors")] {
        let out = directory.path().join("out");
        let mut asked = options(source, format, &out);
        asked.settings.dtype = Some(DenseType::F16);
        let error = export_model(&asked, &Silent).expect_err("it is refused").to_string();
        assert!(
            error.contains("`layers.1.ffn.down.weight` has the value") && error.contains("beyond the numbers of F16"),
            "{error}"
        );
    }
    let left: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

fn integers(model: &Path) -> Vec<(LinearId, Vec<i8>)> {
    let model: Model = open_model(model).expect("a quantized directory");
    let matrix = |(id, parameter): (&ParameterId, &Parameter)| match (id, parameter) {
        (ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix)) => {
            Some((*id, matrix.values.iter().copied().collect()))
        }
        _ => None,
    };
    model.parameters.iter().filter_map(matrix).collect()
}

#[test]
fn what_is_exported_is_kept_by_quantize_again() {
    let Some(tales) = shared("models/tales-6m") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for scheme in ["w8", "mixed", "w4"] {
        let options = format!("--scheme {scheme} --exact-f16");
        succeed(path, &format!("quantize {} {options} --method rtn -q -o {scheme}", tales.display()));
        let report = json_with_code(path, &format!("export {scheme} --format gguf -o {scheme}.gguf"), 0);
        assert_eq!((&report["schema"], &report["scale_error"]), (&json!("slmc.export/1"), &json!(0.0)), "{report}");
        let bytes = fs::metadata(path.join(format!("{scheme}.gguf"))).expect("it is there").len();
        assert_eq!(report["file_bytes"], json!(bytes));
        succeed(path, &format!("quantize {scheme}.gguf {options} --method keep -q -o {scheme}-back"));
        let own = integers(&path.join(scheme));
        assert_eq!(own, integers(&path.join(format!("{scheme}-back"))), "{scheme} by way of gguf");
        // Linears alone are integers in the other format; tables are rounded anew.
        succeed(path, &format!("export {scheme} --format compressed-tensors -q -o {scheme}-packed"));
        succeed(path, &format!("quantize {scheme}-packed {options} --method keep -q -o {scheme}-again"));
        let linears = |all: Vec<(LinearId, Vec<i8>)>| -> Vec<(LinearId, Vec<i8>)> {
            all.into_iter().filter(|(id, _)| id.layer.is_some()).collect()
        };
        let again = linears(integers(&path.join(format!("{scheme}-again"))));
        assert_eq!(linears(own), again, "{scheme} by way of compressed-tensors");
        assert_eq!(again.len(), 42, "seven matrices in each of six layers");
    }
    let expected = "--variant inputs is not one of gguf, which has none: leave it out";
    refused(path, "export w8 --format gguf --variant inputs -o x.gguf", expected);
    let expected = "--variant int2 is not one of compressed-tensors; it has weights, inputs";
    refused(path, "export w8 --format compressed-tensors --variant int2 -o x", expected);
    let made = fs::read(path.join("w8-packed/slmc.json")).expect("its provenance");
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!((&made["stage"], &made["settings"]["format"]), (&json!("export"), &json!("compressed-tensors")));
    assert_eq!(made["inputs"][0]["made"]["stage"], "quantize", "with the chain that it is of");
}
