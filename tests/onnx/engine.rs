//! Exported graphs run by another engine, rten, compared with the f32 forward of the model that they are of: whole texts, texts
//! in pieces with a cache, batches with padding. Operators that rten lacks are lowered by [`super::lowered`]. What onnxruntime
//! gives for some of them is recorded in tests/data/onnx.

use super::lowered::lowered;
use super::messages::ModelProto;
use super::{VARIANTS, export, golden_model, rounded};
use crate::support::root;
use prost::Message;
use rten::{ModelOptions, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use serde_json::Value as Json;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::Role;
use slmc::model::scheme::QuantScheme;
use slmc::model::spec::{Head, Mixer, ModelKind, ModelSpec};
use slmc::model::weights::Model;
use std::path::PathBuf;

/// Largest difference, as a part of the largest logit: sums in another order.
const TOLERANCE: f32 = 1e-4;
/// Every golden checkpoint that the graphs have, decoders first.
pub(super) const DECODERS: [&str; 27] = [
    "gemma3-text",
    "gpt-neox-parallel",
    "gpt-neox-sequential",
    "gpt2",
    "gpt2-unprefixed-with-buffers",
    "granite-multipliers",
    "llama-bf16-sharded",
    "llama-dynamic",
    "llama-gqa-tied",
    "llama-linear",
    "llama-mha",
    "llama-yarn",
    "llama3-rope-scaling",
    "llama3-v4-config-keys",
    "ministral3-yarn",
    "mistral",
    "mistral-sliding-window-8",
    "mobilellm",
    "opt",
    "phi",
    "phi3-fused-qkv",
    "phi3-longrope-partial",
    "qwen2-qkv-bias",
    "qwen3-qk-norm",
    "smollm3-no-positions",
    "stablelm-partial-rotary",
    "starcoder2",
];
pub(super) const ENCODERS: [&str; 17] = [
    "bert-answers",
    "bert-classifier",
    "bert-encoder",
    "bert-mlm",
    "bert-mlm-padded",
    "bert-tokens",
    "camembert-mlm",
    "distilbert-answers",
    "distilbert-classifier",
    "distilbert-mlm",
    "electra-classifier",
    "electra-mlm",
    "electra-tokens",
    "roberta-classifier",
    "roberta-mlm-padded",
    "roberta-tokens",
    "xlm-roberta-encoder",
];

/// A checkpoint as it is and in mixes of schemes.
pub(super) fn mixes(name: &str) -> Vec<(&'static str, Model)> {
    let mixed = rounded(golden_model(name), |id| match id.role {
        Role::TokenEmbedding | Role::LmHead => QuantScheme::Split { wide_rows: 64 },
        Role::Up | Role::Down => QuantScheme::W4G32,
        Role::Query => QuantScheme::W3G32,
        Role::Key => QuantScheme::W4G64,
        _ => QuantScheme::W8,
    });
    vec![
        ("dense", golden_model(name)),
        ("w8", rounded(golden_model(name), |_| QuantScheme::W8)),
        ("w4", rounded(golden_model(name), |_| QuantScheme::W4G32)),
        ("mixed", mixed),
    ]
}

/// The graph of a model in the engine.
fn loaded(model: &Model, variant: &'static str) -> rten::Model {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    export(model, variant, &out);
    let bytes = std::fs::read(out.join("model.onnx")).expect("written");
    let graph = lowered(ModelProto::decode(bytes.as_slice()).expect("messages"));
    let loaded = ModelOptions::with_all_ops().load(graph.encode_to_vec());
    loaded.unwrap_or_else(|error| panic!("{} {variant}: {error}", model.path.display()))
}

/// One run: inputs by name, outputs by name.
fn run(engine: &rten::Model, inputs: Vec<(String, Value)>, outputs: &[String]) -> Vec<Value> {
    let node = |name: &str| engine.node_id(name).unwrap_or_else(|_| panic!("the graph has {name}"));
    let inputs = inputs.into_iter().map(|(name, value)| (node(&name), ValueOrView::from(value))).collect();
    let outputs: Vec<_> = outputs.iter().map(|name| node(name)).collect();
    engine.run(inputs, &outputs, None).unwrap_or_else(|error| panic!("it runs: {error}"))
}

fn integers(shape: &[usize], values: Vec<i32>) -> Value {
    Tensor::from_data(shape, values).into()
}

fn floats(value: Value) -> Vec<f32> {
    let tensor: Tensor<f32> = value.try_into().expect("numbers");
    tensor.to_vec()
}

/// What the forward gives for sequences with a mask.
fn expected(model: &Model, tokens: &[u32], mask: &[bool], sequences: usize) -> Vec<f32> {
    let flex = device("flex").expect("it is built in");
    let weights = DenseWeights::new(model, &flex).expect("finite");
    let batch = Batch::new(&model.spec, tokens.to_vec(), sequences).expect("tokens of the vocabulary");
    let batch = batch.with_mask(mask.to_vec()).expect("one for each token");
    let output = Forward::new(&model.spec, &weights, &flex).run(&batch, &mut Unobserved);
    output.logits.into_data().try_to_vec::<f32>().expect("f32")
}

/// The largest difference of rows that count, as a part of the largest value.
fn difference(found: &[f32], expected: &[f32], counts: impl Fn(usize) -> bool) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let rows = found.iter().zip(expected).enumerate().filter(|(index, _)| counts(*index));
    rows.fold(0f32, |most, (_, (a, b))| if a.is_nan() { f32::INFINITY } else { most.max((a - b).abs()) }) / largest
}

/// Names of the caches, in the order of the outputs.
fn caches(spec: &ModelSpec) -> Vec<(String, String, [usize; 4])> {
    let layers = spec.layers.iter().enumerate().filter_map(|(n, layer)| Some((n, layer.attention()?)));
    let caches = layers.flat_map(|(n, of)| {
        let shape = [1, of.key_value_heads, 0, of.head_dim];
        ["key", "value"].map(|part| (format!("past_key_values.{n}.{part}"), format!("present.{n}.{part}"), shape))
    });
    caches.collect()
}

/// Logits of a text that a decoder reads in pieces.
fn in_pieces(engine: &rten::Model, spec: &ModelSpec, tokens: &[u32], pieces: &[usize]) -> Vec<f32> {
    let caches = caches(spec);
    let mut past: Vec<Value> =
        caches.iter().map(|(.., shape)| Tensor::from_data(shape.as_slice(), Vec::<f32>::new()).into()).collect();
    let outputs: Vec<String> =
        std::iter::once("logits".to_owned()).chain(caches.iter().map(|(_, present, _)| present.clone())).collect();
    let (mut logits, mut start) = (Vec::new(), 0);
    for &length in pieces {
        let piece: Vec<i32> = tokens[start..start + length].iter().map(|&token| token as i32).collect();
        start += length;
        let mut inputs = vec![
            ("input_ids".to_owned(), integers(&[1, length], piece)),
            ("attention_mask".to_owned(), integers(&[1, start], vec![1; start])),
        ];
        inputs.extend(caches.iter().map(|(name, ..)| name.clone()).zip(past));
        let mut found = run(engine, inputs, &outputs).into_iter();
        logits.extend(floats(found.next().expect("logits")));
        past = found.collect();
    }
    assert_eq!(start, tokens.len());
    logits
}

#[test]
fn decoders_compute_what_the_forward_computes() {
    let tokens: Vec<u32> = (0..40).map(|n| (n * 37 + 5) % 96).collect();
    let mut far = Vec::new();
    for name in DECODERS {
        for (mix, model) in mixes(name) {
            let expected = expected(&model, &tokens, &vec![true; tokens.len()], 1);
            for variant in VARIANTS {
                let engine = loaded(&model, variant);
                for pieces in [&[40][..], &[23, 1, 1, 15]] {
                    let found = in_pieces(&engine, &model.spec, &tokens, pieces);
                    let error = difference(&found, &expected, |_| true);
                    if error > TOLERANCE {
                        far.push(format!("{name} {mix} {variant} {pieces:?}: {error}"));
                    }
                }
            }
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}

#[test]
fn padded_batches_of_decoders_are_texts_by_themselves() {
    // The second text is padded on the left; onnxruntime's operator takes padding on the right alone.
    let (length, padding) = (12, 5);
    let tokens: Vec<u32> = (0..2 * length as u32).map(|n| (n * 31 + 7) % 96).collect();
    let mask: Vec<bool> = (0..2 * length).map(|n| n < length || n >= length + padding).collect();
    for name in ["llama-gqa-tied", "gpt2", "mistral-sliding-window-8"] {
        let model = rounded(golden_model(name), |_| QuantScheme::W8);
        let engine = loaded(&model, "standard");
        let caches = caches(&model.spec);
        let mut inputs = vec![
            ("input_ids".to_owned(), integers(&[2, length], tokens.iter().map(|&token| token as i32).collect())),
            ("attention_mask".to_owned(), integers(&[2, length], mask.iter().map(|&seen| i32::from(seen)).collect())),
        ];
        inputs.extend(caches.iter().map(|(past, _, [_, heads, _, width])| {
            (past.clone(), Tensor::from_data(&[2, *heads, 0, *width], Vec::<f32>::new()).into())
        }));
        let found = floats(run(&engine, inputs, &["logits".to_owned()]).remove(0));
        let own = &tokens[length + padding..];
        let alone = expected(&model, own, &vec![true; own.len()], 1);
        let first = expected(&model, &tokens[..length], &vec![true; length], 1);
        let (of_first, of_second) = found.split_at(first.len());
        let second = &of_second[padding * model.spec.vocabulary..];
        for (found, expected) in [(of_first, &first), (second, &alone)] {
            let error = difference(found, expected, |_| true);
            assert!(error < TOLERANCE, "{name}: {error}");
        }
    }
}

#[test]
fn encoders_compute_what_the_forward_computes() {
    let (length, sequences) = (10, 2);
    let tokens: Vec<u32> = (0..(length * sequences) as u32).map(|n| (n * 29 + 3) % 96).collect();
    let mask: Vec<bool> = (0..length * sequences).map(|n| n < length || n < length + 6).collect();
    for name in ENCODERS {
        for (mix, model) in mixes(name) {
            assert_eq!(model.spec.kind, ModelKind::Encoder);
            let expected = expected(&model, &tokens, &mask, sequences);
            let output = if model.spec.head == Head::Hidden { "last_hidden_state" } else { "logits" };
            // A classifier has one row a text, the others one a token, of which those of padding mean nothing.
            let classifier = matches!(model.spec.head, Head::Classifier { .. });
            let width = expected.len() / tokens.len();
            let counts = |index: usize| classifier || mask[index / width];
            for variant in VARIANTS {
                let engine = loaded(&model, variant);
                let shape = [sequences, length];
                let mut inputs = vec![
                    ("input_ids".to_owned(), integers(&shape, tokens.iter().map(|&token| token as i32).collect())),
                    ("attention_mask".to_owned(), integers(&shape, mask.iter().map(|&seen| i32::from(seen)).collect())),
                ];
                if model.spec.token_types > 0 {
                    inputs.push(("token_type_ids".to_owned(), integers(&shape, vec![0; tokens.len()])));
                }
                let found = floats(run(&engine, inputs, &[output.to_owned()]).remove(0));
                let error = difference(&found, &expected, counts);
                assert!(error < TOLERANCE, "{name} {mix} {variant}: {error}");
            }
        }
    }
}

/// Models whose outputs onnxruntime has recorded, by the names of their directories: heads that its operator rotates, a window,
/// norms of heads, heads that it does not rotate, learned positions, encoders; integers in every layout.
fn recorded_models() -> Vec<(String, Model)> {
    let mut windowed = golden_model("llama-mha");
    if let Some(Mixer::Attention(attention)) = windowed.spec.layers.last_mut().map(|layer| &mut layer.mixer) {
        attention.window = Some(8);
    }
    let w8 = |model| rounded(model, |_| QuantScheme::W8);
    let w4 = |model| rounded(model, |_| QuantScheme::W4G32);
    let mut models = vec![("llama-windowed-w8".to_owned(), w8(windowed))];
    for name in ["qwen3-qk-norm", "gemma3-text", "gpt2", "bert-encoder", "bert-classifier"] {
        models.extend([(format!("{name}-w8"), w8(golden_model(name))), (format!("{name}-w4"), w4(golden_model(name)))]);
    }
    let mixed = mixes("llama-mha").into_iter().next_back().expect("the last of them");
    models.push(("llama-mha-mixed".to_owned(), mixed.1));
    models
}

/// The tokens that tests/data/onnx/record.py runs.
fn recorded_tokens(spec: &ModelSpec) -> Vec<u32> {
    let length = if spec.kind == ModelKind::Decoder { 40 } else { 10 };
    (0..length).map(|n| (n * 37 + 5) % 96).collect()
}

/// The last row of the output in the engine.
fn last_row(model: &Model, variant: &'static str) -> Vec<f32> {
    let (engine, tokens) = (loaded(model, variant), recorded_tokens(&model.spec));
    let all = match model.spec.kind {
        ModelKind::Decoder => in_pieces(&engine, &model.spec, &tokens, &[tokens.len()]),
        ModelKind::Encoder | ModelKind::EncoderDecoder(_) => {
            let shape = [1, tokens.len()];
            let mut inputs = vec![
                ("input_ids".to_owned(), integers(&shape, tokens.iter().map(|&token| token as i32).collect())),
                ("attention_mask".to_owned(), integers(&shape, vec![1; tokens.len()])),
            ];
            if model.spec.token_types > 0 {
                inputs.push(("token_type_ids".to_owned(), integers(&shape, vec![0; tokens.len()])));
            }
            let output = if model.spec.head == Head::Hidden { "last_hidden_state" } else { "logits" };
            floats(run(&engine, inputs, &[output.to_owned()]).remove(0))
        }
    };
    all[all.len() - model.spec.output_width()..].to_vec()
}

#[test]
fn onnxruntime_has_given_the_same() {
    let path = root("tests/data/onnx/recorded.json");
    let recorded: Json = serde_json::from_slice(&std::fs::read(path).expect("recorded")).expect("JSON");
    let (mut far, mut rows) = (Vec::new(), 0);
    for (name, model) in recorded_models() {
        let tokens = recorded_tokens(&model.spec);
        let all = expected(&model, &tokens, &vec![true; tokens.len()], 1);
        let own = &all[all.len() - model.spec.output_width()..];
        for variant in VARIANTS {
            let name = format!("{name}-{}", variant);
            let row: Vec<f32> = serde_json::from_value(recorded["values"][&name].clone())
                .unwrap_or_else(|error| panic!("{name} is recorded: {error}"));
            for (whose, found) in [("the forward's", own), ("rten's", &last_row(&model, variant))] {
                let error = difference(found, &row, |_| true);
                if error > TOLERANCE {
                    far.push(format!("{name}: {whose} differ by {error}"));
                }
            }
            rows += 1;
        }
    }
    assert!(far.is_empty(), "{far:#?}");
    assert_eq!(rows, recorded["values"].as_object().expect("rows by name").len());
}

/// What record.py runs.
#[test]
#[ignore = "writes the directories that tests/data/onnx/record.py reads, to SLMC_ONNX"]
fn directories_to_record() {
    let out = PathBuf::from(std::env::var_os("SLMC_ONNX").expect("SLMC_ONNX is set"));
    for (name, model) in recorded_models() {
        for variant in VARIANTS {
            let out = out.join(format!("{name}-{}", variant));
            export(&model, variant, &out);
        }
    }
}
