//! Encoder-decoders: the f32 forward against transformers on every golden pair of tests/data/golden-pairs, whole and token by
//! token, and what is refused.

mod toy;

use crate::support::{all_refused, name, root};
use burn::tensor::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use slmc::formats::open_model;
use slmc::model::device::{BACKENDS, device};
use slmc::model::forward::{
    Batch, BatchError, Cache, DenseWeights, Forward, FusedWeights, Output, StoredWeights, Unobserved, run_fused,
};
use slmc::model::spec::ModelSpec;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Largest difference, as a part of the golden tensor's largest magnitude.
const TOLERANCE: f32 = 1e-4;
/// Between the ways that slmc has to compute the same.
const OWN_TOLERANCE: f32 = 2e-5;

fn folders() -> [PathBuf; 2] {
    ["t5", "t5-gated-untied"].map(|name| root("tests/data/golden-pairs").join(name))
}

/// What transformers computed.
struct Golden {
    sources: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    encoder: Vec<f32>,
    decoder: Vec<f32>,
    logits: Vec<f32>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let bytes = fs::read(folder.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        let floats = |name: &str| words(name).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
        let rows = |name: &str| -> Vec<Vec<u32>> {
            let length = file.tensor(name).unwrap().shape()[1];
            words(name).chunks(length).map(|row| row.iter().map(|word| u32::from_le_bytes(*word)).collect()).collect()
        };
        let sources = rows("input_ids").into_iter().zip(rows("attention_mask"));
        let present = |(row, mask): (Vec<u32>, Vec<u32>)| {
            row.into_iter().zip(mask).filter(|(_, there)| *there == 1).map(|(token, _)| token).collect()
        };
        Golden {
            sources: sources.map(present).collect(),
            targets: rows("decoder_input_ids"),
            encoder: floats("encoder_hidden_states"),
            decoder: floats("decoder_hidden_states"),
            logits: floats("logits"),
        }
    }

    fn batch(&self, spec: &ModelSpec) -> Batch {
        let pairs: Vec<(&[u32], &[u32])> =
            self.sources.iter().zip(&self.targets).map(|(source, target)| (&source[..], &target[..])).collect();
        Batch::pairs(spec, &pairs).unwrap()
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Largest difference relative to the largest golden magnitude, over the rows that count.
fn difference(computed: &[f32], golden: &[f32], width: usize, counts: impl Fn(usize) -> bool) -> f32 {
    assert_eq!(computed.len(), golden.len());
    let rows = golden.chunks(width).zip(computed.chunks(width)).enumerate().filter(|(row, _)| counts(*row));
    let (mut error, mut largest) = (0f32, 0f32);
    for (golden, computed) in rows.flat_map(|(_, (golden, computed))| golden.iter().zip(computed)) {
        assert!(computed.is_finite());
        error = error.max((golden - computed).abs());
        largest = largest.max(golden.abs());
    }
    error / largest
}

fn compare(golden: &Golden, spec: &ModelSpec, output: Output, label: &str) {
    let longest = golden.sources.iter().map(Vec::len).max().unwrap();
    let is_there = |row: usize| row % longest < golden.sources[row / longest].len();
    let encoder = spec.encoder_layers() + 1;
    let size = |states: &[f32], count: usize| states.len() / count;
    let (of_encoder, of_decoder) =
        (size(&golden.encoder, encoder), size(&golden.decoder, spec.layers.len() - spec.encoder_layers() + 1));
    let expected = golden.encoder.chunks(of_encoder).chain(golden.decoder.chunks(of_decoder));
    assert_eq!(output.hidden_states.len(), spec.layers.len() + 2, "{label}");
    for (n, (state, expected)) in output.hidden_states.into_iter().zip(expected).enumerate() {
        let error = difference(&values(state), expected, spec.hidden, |row| n >= encoder || is_there(row));
        assert!(error < TOLERANCE, "{label}: hidden state {n} differs by {error}");
    }
    let error = difference(&values(output.logits), &golden.logits, spec.vocabulary, |_| true);
    assert!(error < TOLERANCE, "{label}: logits differ by {error}");
}

fn check(folder: &Path, device: &Device, label: &str) {
    let golden = Golden::read(folder);
    let model = open_model(folder).unwrap();
    let weights = DenseWeights::new(&model, device).unwrap();
    let batch = golden.batch(&model.spec);
    let forward = Forward::new(&model.spec, &weights, device).keep_hidden_states();
    let output = forward.run(&batch, &mut Unobserved);
    compare(&golden, &model.spec, output, &format!("{} on {label}", name(folder)));
    if let Some(fused) = FusedWeights::of(&model.spec, &weights) {
        let output = run_fused(&model.spec, &fused, &batch, true);
        compare(&golden, &model.spec, output, &format!("{}, fused operations", name(folder)));
    }
}

#[test]
fn every_pair_of_stacks_computes_what_transformers_computes() {
    for folder in folders() {
        for label in BACKENDS {
            check(&folder, &device(label).unwrap(), label);
        }
    }
}

#[test]
fn token_by_token_the_source_is_read_once_and_gives_the_same() {
    let device = device("flex").unwrap();
    for folder in folders() {
        let golden = Golden::read(&folder);
        let model = open_model(&folder).unwrap();
        let spec = &model.spec;
        let weights = StoredWeights::new(&model, &device).unwrap();
        let forward = Forward::new(spec, &weights, &device);
        for (number, (source, target)) in golden.sources.iter().zip(&golden.targets).enumerate() {
            let mut cache = Cache::new(spec).unwrap();
            let at = |position: usize| {
                let row = number * target.len() + position;
                &golden.logits[row * spec.vocabulary..][..spec.vocabulary]
            };
            // The source with three tokens, then one by one.
            let first = [&source[..], &target[..3]].concat();
            let mut logits = forward.read(&mut cache, &first).unwrap();
            for position in 2..target.len() {
                let error = difference(&logits, at(position), spec.vocabulary, |_| true);
                assert!(error < TOLERANCE, "{}: position {position} differs by {error}", folder.display());
                assert_eq!(cache.read(), source.len() + position + 1);
                if let Some(&next) = target.get(position + 1) {
                    logits = forward.read(&mut cache, &[next]).unwrap();
                }
            }
        }
        // Others in a batch, with their padding, change no text by more than the order of sums.
        let weights = DenseWeights::new(&model, &device).unwrap();
        let fused = FusedWeights::of(spec, &weights).unwrap();
        let together = values(run_fused(spec, &fused, &golden.batch(spec), false).logits);
        let joined = [&golden.sources[1][..], &golden.targets[1]].concat();
        let alone = Batch::new(spec, joined, 1).unwrap();
        let alone = values(run_fused(spec, &fused, &alone, false).logits);
        let error = difference(&alone, &together[alone.len()..], spec.vocabulary, |_| true);
        assert!(error < OWN_TOLERANCE, "{}: {error}", folder.display());
    }
}

#[test]
fn what_is_not_a_pair_is_refused() {
    let model = open_model(&folders()[0]).unwrap();
    let spec = &model.spec;
    let of = |tokens: &[u32]| Batch::new(spec, tokens.to_vec(), 1).unwrap_err();
    assert_eq!(of(&[5, 6, 7]), BatchError::NotAPair { start: 0 });
    assert_eq!(of(&[0, 6, 7]), BatchError::NotAPair { start: 0 });
    assert_eq!(of(&[5, 6, 0, 96]), BatchError::Token { id: 96, position: 1, vocabulary: 96 });
    assert_eq!(of(&[&[5; 200][..], &[0, 5]].concat()), BatchError::TooLong { length: 200, context: 128 });
    assert_eq!(of(&[&[5, 0][..], &[5; 200]].concat()), BatchError::TooLong { length: 201, context: 128 });
}

/// A copy of a golden pair of stacks with another configuration and other tensors.
fn changed(
    folder: &Path,
    config: impl FnOnce(&mut Value),
    tensors: impl Fn(&str, &mut Vec<usize>) -> Option<String>,
) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut map: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config(&mut map);
    fs::write(dir.path().join("config.json"), map.to_string()).unwrap();
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter().filter_map(|(name, view)| {
        let mut shape = view.shape().to_vec();
        let name = tensors(&name, &mut shape)?;
        let count = shape.iter().product::<usize>() * 2;
        Some((name, TensorView::new(view.dtype(), shape, &view.data()[..count]).unwrap()))
    });
    let kept: Vec<(String, TensorView<'_>)> = kept.collect();
    fs::write(dir.path().join("model.safetensors"), serialize(kept, None).unwrap()).unwrap();
    dir
}

fn same(name: &str, _: &mut Vec<usize>) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn configurations_that_are_not_implemented_are_refused_by_key() {
    let cases = [
        ("architectures", json!(["T5EncoderModel"]), "t5 supports T5ForConditionalGeneration"),
        ("feed_forward_proj", json!("gelu"), "`feed_forward_proj` is `gelu`; t5 supports relu, gated-gelu, gated-silu"),
        ("feed_forward_proj", json!("gated-gelu"), "DenseReluDense.wi_0.weight` is missing"),
        ("is_encoder_decoder", json!(false), "`is_encoder_decoder` is `false`"),
        ("is_decoder", json!(true), "`is_decoder` is `true`"),
        ("relative_attention_num_buckets", json!(6), "expected a multiple of 4"),
        ("relative_attention_num_buckets", json!(0), "`relative_attention_num_buckets` is 0"),
        (
            "relative_attention_num_buckets",
            json!(16),
            "`encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight` has shape [8, 4], expected [16, 4]",
        ),
        ("relative_attention_max_distance", json!(4), "more than half of relative_attention_num_buckets, 4"),
        ("num_decoder_layers", json!(0), "`num_decoder_layers` is 0"),
        ("num_decoder_layers", json!(65535), "at most 65535 with num_layers"),
        ("num_decoder_layers", json!(4), "`decoder.block.3."),
        ("num_layers", json!(3), "`encoder.block.2."),
        ("num_decoder_layers", json!(2), "`decoder.block.2."),
        ("decoder_start_token_id", json!(96), "`decoder_start_token_id`"),
        ("decoder_start_token_id", json!([0, 1]), "one token, with which the decoder begins"),
        ("tie_word_embeddings", json!(false), "`scale_decoder_outputs` is `true`"),
        ("scale_decoder_outputs", json!(false), "tensor `lm_head.weight` is missing"),
        ("d_kv", json!(10), "has shape [48, 40], expected [40, 40]"),
        ("d_ff", json!(1u64 << 40), "`d_ff`"),
        ("layer_norm_epsilon", json!(-1), "`layer_norm_epsilon`"),
    ];
    for (key, value, expected) in cases {
        let dir = changed(&folders()[0], |config| config[key] = value.clone(), same);
        let error = expect(dir.path());
        assert!(error.contains(expected) && error.contains(&*dir.path().to_string_lossy()), "{key} {value}: {error}");
    }
}

#[test]
fn tensors_that_are_missing_or_of_another_variant_are_refused_by_name() {
    type Change = fn(&str, &mut Vec<usize>) -> Option<String>;
    let cases: [(Change, &str); 6] = [
        (|name, _| (!name.starts_with("encoder.")).then(|| name.to_owned()), "`encoder."),
        (
            |name, _| (!name.contains("EncDecAttention.k")).then(|| name.to_owned()),
            "EncDecAttention.k.weight` is missing",
        ),
        (
            |name, _| (!name.contains("decoder.block.0.layer.0.SelfAttention.rel")).then(|| name.to_owned()),
            "`decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight` is missing",
        ),
        (
            |name, shape| {
                if name.contains("decoder") && name.contains("relative") {
                    shape[0] = 4;
                }
                Some(name.to_owned())
            },
            "has shape [4, 4], expected [8, 4]",
        ),
        (
            |name, _| Some(name.replace("encoder.block.1.layer.0.layer_norm", "encoder.embed_positions")),
            "encoder.embed_positions.weight",
        ),
        (|name, _| Some(name.replace("DenseReluDense.wi.", "DenseReluDense.wi_0.")), "DenseReluDense.wi"),
    ];
    for (change, expected) in cases {
        let dir = changed(&folders()[0], |_| {}, change);
        let error = expect(dir.path());
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
    // What the first checkpoints have and nothing reads, and tables that are stored again.
    let first = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let bytes = fs::read(folders()[0].join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let table = file.tensor("shared.weight").unwrap();
    let mut tensors = file.tensors();
    tensors.push((first.to_owned(), file.tensor("decoder.final_layer_norm.weight").unwrap()));
    for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"] {
        tensors.push((name.to_owned(), table.clone()));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::copy(folders()[0].join("config.json"), dir.path().join("config.json")).unwrap();
    fs::write(dir.path().join("model.safetensors"), serialize(tensors, None).unwrap()).unwrap();
    open_model(dir.path()).unwrap();
}

/// What is said of a directory that cannot be opened.
fn expect(directory: &Path) -> String {
    let error = open_model(directory).expect_err("it is refused");
    let mut chain = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain = format!("{chain}: {error}");
        source = error.source();
    }
    chain
}

#[test]
fn what_is_not_done_with_two_stacks_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    toy::prepare(dir.path());
    fs::write(dir.path().join("words.txt"), "turn on the lamp\n").unwrap();
    let golden = folders()[0].display().to_string();
    let decoder = crate::support::golden("llama-mha").display().to_string();
    let refusal = "t5 is an encoder-decoder";
    all_refused(
        dir.path(),
        [
            (&*format!("prune {golden} --pattern 2:4 --method magnitude -o out"), refusal),
            (&format!("quantize {golden} --scheme w8 -o out"), refusal),
            (&format!("compile {golden} --target generic -o out"), "neither a second stack of layers"),
            (&format!("export {golden} --format gguf -o out"), refusal),
            (&format!("export {golden} --format onnx -o out"), refusal),
            (&format!("trim {golden} --data held.jsonl -o out"), refusal),
            (&format!("synthesize {golden} --texts 3 -o out"), refusal),
            (&format!("estimate {golden} --target generic"), "has no place in an artifact"),
            (
                "train student --data train.jsonl --recompute -o out",
                "--recompute is not for encoder-decoders such as t5",
            ),
            (
                "train student --data train.jsonl --dp-epsilon 3 --dp-delta 0.01 -o out",
                "--dp-epsilon is not for encoder-decoders",
            ),
            ("train student --data train.jsonl --field prompt --task mlm -o out", "--task mlm"),
            ("train student --data train.jsonl --exits 1 -o out", "exit"),
            ("train student --data words.txt -o out", "the rows need `prompt` and `answer`"),
            (&format!("distill --teacher {golden} --student student --data train.jsonl -o out"), "vocabularies"),
            (&format!("distill --teacher {golden} --student {decoder} --data train.jsonl -o out"), "different stacks"),
            (
                "distill --teacher student --student student --relations 1 --data train.jsonl -o out",
                "--relations is not for",
            ),
            (
                &format!("distill --teacher {golden} --layers 0,1 --data train.jsonl -o out"),
                "`num_decoder_layers` is 0",
            ),
        ],
    );
}
