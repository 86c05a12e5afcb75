//! Models exported as ONNX: run by another engine, by the program from the command line, and what is refused.

mod engine;
mod lowered;
mod messages;

use crate::fixture::{self, Family, Size};
use crate::support::{self, golden, golden_folders, json, refused, succeed};
use messages::ModelProto;
use prost::Message;
use serde_json::Value;
use slmc::formats::export::{Described, Export, ExportSettings, Written, named};
use slmc::formats::open_model;
use slmc::model::id::{LinearId, ParameterId};
use slmc::model::scheme::QuantScheme;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::search::quantize_matrix;
use std::collections::BTreeSet;
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
fn export(model: &Model, variant: &'static str, out: &Path) -> Written {
    let format = named("onnx").expect("there is the format");
    let settings = ExportSettings { variant: Some(variant), ..ExportSettings::default() };
    let plan = format.plan(&Described::of_model(model), &settings).expect("the graphs have it");
    assert!(plan.losses.is_empty());
    let provenance = &serde_json::json!({"stage": "export"});
    let export = Export { model: model.clone(), plan: &plan, settings: &settings, provenance, out };
    format.write(export, &Silent).expect("it can be written")
}

#[test]
fn every_value_of_a_graph_is_given_once_and_before_it_is_read() {
    let format = named("onnx").expect("there is the format");
    let directory = tempfile::tempdir().expect("a directory");
    let mut exported = Vec::new();
    for folder in golden_folders() {
        let name = support::name(&folder);
        if format.plan(&Described::of_model(&golden_model(name)), &ExportSettings::default()).is_err() {
            continue;
        }
        exported.push(name.to_owned());
        for (mix, model) in engine::mixes(name) {
            for variant in VARIANTS {
                let (label, out) = (format!("{name} {mix} {variant}"), directory.path().join("out"));
                export(&model, variant, &out);
                let bytes = fs::read(out.join("model.onnx")).expect("written");
                let graph = ModelProto::decode(bytes.as_slice()).expect("messages").graph.expect("a graph");
                let tensors = graph.initializer.iter().map(|tensor| &tensor.name);
                let mut given = BTreeSet::new();
                for value in graph.input.iter().map(|input| &input.name).chain(tensors) {
                    assert!(given.insert(value), "{label}: `{value}` is there twice");
                }
                for node in &graph.node {
                    let missing = node.input.iter().find(|value| !value.is_empty() && !given.contains(value));
                    assert_eq!(missing, None, "{label}: read before it is made");
                    for value in &node.output {
                        assert!(given.insert(value), "{label}: `{value}` is made twice");
                    }
                }
                assert!(graph.output.iter().all(|output| given.contains(&output.name)), "{label}");
            }
        }
    }
    // The engine runs all of them.
    let mut run = [&engine::DECODERS[..], &engine::ENCODERS].concat();
    run.sort_unstable();
    exported.sort_unstable();
    assert_eq!(exported, run);
}

/// genai_config.json of a golden checkpoint with this generation_config.json, and what is said of it.
fn genai(name: &str, generation: &Value) -> (Value, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut model, out) = (golden_model(name), directory.path().join("out"));
    model.companions.add_bytes("generation_config.json", generation.to_string().into_bytes());
    let written = export(&model, "onnxruntime", &out);
    let config = fs::read(out.join("genai_config.json")).expect("it is a decoder");
    (serde_json::from_slice(&config).expect("JSON"), written.notes)
}

#[test]
fn decoders_have_names_that_onnxruntime_genai_knows() {
    let cases = [
        ("gemma3-text", "gemma3_text"),
        ("gpt-neox-parallel", "decoder"),
        ("gpt2", "decoder"),
        ("granite-multipliers", "granite"),
        ("llama-mha", "llama"),
        ("ministral3-yarn", "decoder"),
        ("mistral", "mistral"),
        ("mobilellm", "decoder"),
        ("opt", "decoder"),
        ("phi", "phi"),
        ("phi3-fused-qkv", "phi3"),
        ("qwen2-qkv-bias", "qwen2"),
        ("qwen3-qk-norm", "qwen3"),
        ("smollm3-no-positions", "smollm3"),
        ("stablelm-partial-rotary", "decoder"),
        ("starcoder2", "decoder"),
    ];
    for (name, expected) in cases {
        assert_eq!(genai(name, &serde_json::json!({})).0["model"]["type"], expected, "{name}");
    }
}

#[test]
fn draws_without_a_limit_stay_draws_without_a_limit() {
    let cases = [
        (serde_json::json!({"do_sample": true, "top_k": 0, "top_p": 0.5, "temperature": 0.75}), true, 0),
        (serde_json::json!({"do_sample": true, "top_k": 1}), true, 1),
        (serde_json::json!({"do_sample": true, "top_k": 40}), true, 40),
        // As transformers has it where nothing is said.
        (serde_json::json!({"do_sample": true}), true, 50),
        (serde_json::json!({"do_sample": false, "top_k": 0, "min_p": 0.25}), false, 1),
        (serde_json::json!({}), false, 1),
    ];
    for (generation, draws, top_k) in cases {
        let (config, notes) = genai("llama-gqa-tied", &generation);
        let search = &config["search"];
        assert_eq!((&search["do_sample"], &search["top_k"]), (&draws.into(), &top_k.into()), "{generation}");
        assert!(notes.is_empty(), "{generation}: {notes:?}");
    }
    let (config, notes) =
        genai("llama-gqa-tied", &serde_json::json!({"do_sample": true, "top_k": 0, "top_p": 0.5, "min_p": 0.25}));
    assert_eq!((&config["search"]["top_k"], &config["search"]["top_p"]), (&0.into(), &0.5.into()));
    assert!(notes.len() == 1 && notes[0].contains("leaves out min_p, here 0.25"), "{notes:?}");
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
