//! The f32 forward with its cache against the whole forward: every golden decoder, token by token and in uneven pieces, past
//! windows and past the room that caches begin with, on weights as tensors and as they are stored; and what it refuses.
//! The real model is in ../shared.

use crate::reference::quantize_model;
use crate::shared;
use crate::support::{golden, golden_folders, name};
use burn::tensor::Device;
use slm_runtime::sample::{Sampling, random_u64};
use slmc::eval::generate::{GenerateOptions, Stop, generate};
use slmc::eval::opened::OpenedModel;
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{
    Batch, BatchError, Cache, CacheError, DenseWeights, Forward, StoredWeights, Unobserved, WeightSource,
};
use slmc::model::id::{LinearId, Role};
use slmc::model::scheme::QuantScheme;
use slmc::model::spec::{ModelKind, ModelSpec, Positions};
use slmc::model::weights::Model;
use std::ops::ControlFlow;

/// Largest difference, as a part of the largest magnitude of the whole forward's logits.
const TOLERANCE: f32 = 2e-5;
/// Golden decoders there are; one that is added must pass.
const DECODERS: usize = 32;

/// What `slmc generate ../shared/models/stories260k --prompt 'Once upon a time' --tokens 200` added when every token was
/// computed from the whole text.
const STORIES: [u32; 200] = [
    432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410, 408, 419, 292, 411, 322, 265,
    282, 295, 433, 426, 385, 328, 432, 358, 394, 261, 370, 432, 352, 266, 268, 388, 426, 338, 391, 266, 267, 337, 335,
    312, 432, 398, 312, 286, 267, 414, 270, 333, 415, 426, 13, 438, 310, 439, 419, 357, 336, 432, 313, 438, 310, 432,
    278, 316, 439, 419, 298, 414, 267, 265, 282, 295, 433, 426, 436, 317, 286, 296, 418, 269, 279, 292, 416, 439, 413,
    409, 416, 327, 263, 415, 294, 267, 400, 426, 338, 336, 432, 313, 442, 391, 267, 337, 335, 364, 420, 268, 388, 432,
    398, 359, 280, 303, 439, 413, 272, 417, 264, 312, 426, 436, 13, 438, 310, 286, 296, 418, 269, 279, 292, 416, 439,
    413, 409, 416, 327, 263, 415, 294, 267, 400, 426, 338, 336, 432, 313, 442, 439, 423, 262, 304, 420, 422, 432, 317,
    426, 359, 279, 292, 416, 439, 413, 409, 416, 327, 263, 415, 294, 267, 400, 426, 436, 13, 438, 310, 279, 292, 416,
    439, 413, 391, 267, 281, 421, 427, 311, 357, 432, 384, 358, 336, 432, 313, 442,
];

fn decoders() -> Vec<(String, Model)> {
    let folders = golden_folders();
    let models = folders.iter().map(|folder| (name(folder).to_owned(), open_model(folder).unwrap()));
    let decoders: Vec<_> = models.filter(|(_, model)| model.spec.kind == ModelKind::Decoder).collect();
    assert_eq!(decoders.len(), DECODERS);
    decoders
}

fn tokens(spec: &ModelSpec, count: usize) -> Vec<u32> {
    (0..count as u64).map(|index| (random_u64(5, index) % spec.vocabulary as u64) as u32).collect()
}

/// Logits of the whole text, a row per token.
fn whole(spec: &ModelSpec, weights: &dyn WeightSource, device: &Device, tokens: &[u32]) -> Vec<Vec<f32>> {
    let batch = Batch::new(spec, tokens.to_vec(), 1).unwrap();
    let logits = Forward::new(spec, weights, device).run(&batch, &mut Unobserved).logits.into_data();
    logits.try_to_vec::<f32>().unwrap().chunks(spec.vocabulary).map(<[f32]>::to_vec).collect()
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, token| if logits[token] > logits[best] { token } else { best })
}

/// Reads the text in pieces of these lengths, over and over, and compares the logits after each.
fn check(forward: &Forward<'_>, tokens: &[u32], pieces: &[usize], expected: &[Vec<f32>], label: &str) {
    let mut cache = Cache::new(forward.spec()).unwrap();
    for &piece in pieces.iter().cycle() {
        let start = cache.read();
        let end = (start + piece).min(tokens.len());
        if start == end {
            return;
        }
        let (logits, expected) = (forward.read(&mut cache, &tokens[start..end]).unwrap(), &expected[end - 1]);
        assert_eq!((logits.len(), cache.read()), (expected.len(), end));
        let largest = expected.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        let differences = logits.iter().zip(expected).map(|(ours, theirs)| (ours - theirs).abs());
        let error = differences.fold(0f32, f32::max) / largest;
        assert!(error <= TOLERANCE, "{label}, pieces {pieces:?}: logits after {end} tokens differ by {error}");
        assert_eq!(likeliest(&logits), likeliest(expected), "{label}, pieces {pieces:?}: after {end} tokens");
    }
}

#[test]
fn every_decoder_reads_token_by_token_and_in_pieces_what_it_reads_at_once() {
    for (name, mut model) in decoders() {
        // Past every window, and past the room for 64 positions that a cache begins with.
        if model.spec.positions == Positions::Rotary {
            model.spec.context = 150;
        }
        let tokens = tokens(&model.spec, model.spec.context);
        for label in ["flex", "ndarray"] {
            let device = device(label).unwrap();
            let dense = DenseWeights::new(&model, &device).unwrap();
            let stored = StoredWeights::new(&model, &device).unwrap();
            let expected = whole(&model.spec, &dense, &device, &tokens);
            for (kind, weights) in [("tensors", &dense as &dyn WeightSource), ("stored", &stored)] {
                let label = format!("{name} on {label}, {kind}");
                let forward = Forward::new(&model.spec, weights, &device);
                for pieces in [&[1][..], &[3, 1, 5, 1], &[2], &[tokens.len()], &[70, 1, 1, 30]] {
                    check(&forward, &tokens, pieces, &expected, &label);
                }
            }
        }
    }
}

#[test]
fn quantized_matrices_are_the_same_model_as_they_are_stored() {
    let device = device("flex").unwrap();
    for (name, dense) in decoders() {
        for scheme in [QuantScheme::W8, QuantScheme::W4G32] {
            let model = quantize_model(&dense, scheme, QuantScheme::W8);
            let tensors = DenseWeights::new(&model, &device).unwrap();
            let stored = StoredWeights::new(&model, &device).unwrap();
            let table = LinearId { layer: None, role: Role::TokenEmbedding };
            assert_eq!(stored.matrix(table).into_data(), tensors.matrix(table).into_data());
            let tokens = tokens(&model.spec, 40);
            let expected = whole(&model.spec, &tensors, &device, &tokens);
            let forward = Forward::new(&model.spec, &stored, &device);
            check(&forward, &tokens, &[7, 1, 1], &expected, &format!("{name} in {scheme}"));
        }
    }
}

#[test]
fn a_long_prompt_is_cut_and_the_context_has_an_end() {
    let Some(directory) = shared("models/stories260k") else { return };
    let device = device("flex").unwrap();
    let model = open_model(&directory).unwrap();
    let weights = StoredWeights::new(&model, &device).unwrap();
    let forward = Forward::new(&model.spec, &weights, &device);
    let (context, vocabulary) = (model.spec.context, model.spec.vocabulary);
    let tokens = tokens(&model.spec, context);
    let expected = whole(&model.spec, &weights, &device, &tokens);
    check(&forward, &tokens, &[context - 3, 1, 1, 1], &expected, "stories260k");

    let mut cache = Cache::new(&model.spec).unwrap();
    let too_long = [&tokens[..], &[1]].concat();
    let error = forward.read(&mut cache, &too_long).unwrap_err();
    assert_eq!(error, CacheError::Tokens(BatchError::TooLong { length: context + 1, context }));
    forward.read(&mut cache, &tokens[..context - 1]).unwrap();
    let error = forward.read(&mut cache, &[1, 1]).unwrap_err();
    assert_eq!(error, CacheError::Tokens(BatchError::TooLong { length: context + 1, context }));
    let (id, position) = (vocabulary as u32, context - 1);
    let error = forward.read(&mut cache, &[id]).unwrap_err();
    assert_eq!(error, CacheError::Tokens(BatchError::Token { id, position, vocabulary }));
    assert!(matches!(forward.read(&mut cache, &[]), Err(CacheError::Tokens(BatchError::Ragged { .. }))));
    // What is refused leaves the cache as it was.
    let logits = forward.read(&mut cache, &tokens[context - 1..]).unwrap();
    assert_eq!(likeliest(&logits), likeliest(&expected[context - 1]));
    let error = forward.read(&mut cache, &[1]).unwrap_err().to_string();
    assert!(error.contains(&format!("{} tokens, expected at most {context}", context + 1)), "{error}");
}

#[test]
fn encoders_have_no_cache() {
    let error = Cache::new(&open_model(&golden("bert-mlm")).unwrap().spec).unwrap_err();
    assert!(error.to_string().starts_with("bert is an encoder, expected a decoder"), "{error}");
}

#[test]
fn generation_gives_the_tokens_that_the_whole_forward_gave() {
    let Some(directory) = shared("models/stories260k") else { return };
    let device = device("flex").unwrap();
    let options = GenerateOptions {
        prompt: slmc::eval::generate::Prompt::Text("Once upon a time".to_owned()),
        tokens: STORIES.len(),
        sampling: Sampling::GREEDY,
        seed: 0,
        tokenizer: None,
        means: Default::default(),
        follow: Default::default(),
    };
    for model in [OpenedModel::open(&directory, &device), OpenedModel::open_stored(&directory, &device)] {
        let report = generate(&model.unwrap(), &options, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.tokens, report.stop), (STORIES.to_vec(), Stop::Length));
    }
}
