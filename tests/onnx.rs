//! Models exported as ONNX: run by another engine, by the program from the command line, and what is refused.

mod engine;
mod lowered;
mod messages;

use crate::fixture::{self, Family, Size};
use crate::support::{golden, json, refused, succeed};
use serde_json::Value;
use slmc::formats::export::{Described, Export, ExportSettings, named};
use slmc::formats::open_model;
use slmc::model::id::{LinearId, ParameterId};
use slmc::model::scheme::QuantScheme;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::search::quantize_matrix;
use std::fs;
use std::path::Path;

/// The ways to write a graph.
const VARIANTS: [&str; 2] = ["onnxruntime", "standard"];

/// A golden checkpoint.
fn golden_model(name: &str) -> Model {
    open_model(&golden(name)).expect("golden checkpoints are sound")
}

/// The model with every matrix rounded plainly, in the scheme that a function gives.
fn rounded(mut model: Model, scheme: impl Fn(LinearId) -> QuantScheme) -> Model {
    for (id, ..) in model.spec.matrices() {
        let matrix = quantize_matrix(model.matrix(id).expect("finite").view(), scheme(id), None);
        model.parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
    }
    model
}

/// Writes a model in a variant.
fn export(model: &Model, variant: &'static str, out: &Path) {
    let format = named("onnx").expect("there is the format");
    let settings = ExportSettings { variant: Some(variant), ..ExportSettings::default() };
    let plan = format.plan(&Described::of_model(model), &settings).expect("the graphs have it");
    assert!(plan.losses.is_empty());
    let provenance = &serde_json::json!({"stage": "export"});
    let export = Export { model: model.clone(), plan: &plan, settings: &settings, provenance, out };
    format.write(export, &Silent).expect("it can be written");
}

#[test]
fn a_model_goes_out_and_comes_back_by_the_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    fixture::write(&at.join("model"), Family::TiedLlama, Size::SMALL);
    for (scheme, target) in [("w8", "uint8 by 32"), ("w4", "uint4 by 32")] {
        succeed(at, &format!("quantize model --scheme {scheme} --method rtn -o {scheme}"));
        let report = json(at, &format!("export {scheme} --format onnx -o {scheme}-onnx"));
        assert_eq!((&report["schema"], &report["variant"]), (&"slmc.export/1".into(), &"onnxruntime".into()));
        let rows = report["tensors"].as_array().expect("rows");
        let attention = rows.iter().find(|row| row["class"] == "attention").expect("there is attention");
        assert_eq!((&attention["target"], &attention["kept"]), (&target.into(), &"integers".into()));
        assert!(report["scale_error"].as_f64().expect("a number") < 1e-7);
        succeed(at, &format!("quantize {scheme}-onnx --scheme {scheme} --method keep -o {scheme}-back"));
        let [model, back] = [scheme.to_owned(), format!("{scheme}-back")].map(|path| open_model(&at.join(path)));
        let (model, back) = (model.expect("it opens"), back.expect("it opens"));
        for (id, ..) in model.spec.matrices() {
            let integers = |model: &Model| match &model.parameters[&ParameterId::weight(id)] {
                Parameter::Quantized(matrix) => matrix.values.clone(),
                Parameter::Dense(_) => panic!("{id} has integers"),
            };
            assert_eq!(integers(&model), integers(&back), "{scheme} {id}");
        }
        let genai = fs::read(at.join(format!("{scheme}-onnx/genai_config.json"))).expect("it is a decoder");
        let genai: Value = serde_json::from_slice(&genai).expect("JSON");
        assert_eq!(genai["model"]["decoder"]["num_key_value_heads"], 2);
        assert_eq!(genai["model"]["eos_token_id"], serde_json::json!([2]));
        succeed(at, &format!("import {scheme}-onnx -o {scheme}-dense"));
        succeed(at, &format!("inspect {scheme}-onnx"));
    }
}

#[test]
fn models_that_the_graphs_do_not_have_are_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let lfm2 = golden("lfm2-short-conv");
    let arguments = |model: &Path, rest: &str| {
        let model = model.to_str().expect("UTF-8");
        format!("export {model} --format onnx {rest} -o out")
    };
    refused(at, &arguments(&lfm2, ""), "onnx cannot say the short convolutions of lfm2");
    let llama = golden("llama-mha");
    refused(at, &arguments(&llama, "--dtype f16"), "--dtype f16 is not for onnx");
    refused(at, &arguments(&llama, "--variant web"), "onnxruntime, standard");
    fixture::write(&at.join("model"), Family::Llama, Size::SMALL);
    succeed(at, "prune model --pattern 2:4 --method magnitude -o sparse");
    succeed(at, "quantize sparse --scheme w8 --method rtn -o w8");
    refused(at, "export w8 --format onnx -o out", "2:4 sparsity");
    assert!(!at.join("out").exists());
    let lost = json(at, "export w8 --format onnx --lossy -o out");
    assert_eq!(lost["lost"][0]["feature"], "2:4 sparsity");
    fs::create_dir(at.join("mine")).expect("it can be made");
    fs::write(at.join("mine/thesis.txt"), "mine").expect("it can be written");
    refused(at, "export w8 --format onnx --lossy -o mine", "exists and holds no slmc.json");
}
