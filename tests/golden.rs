//! The f32 forward against transformers: every golden checkpoint of tests/data/golden, on both devices.

use crate::support::{golden_folders, name};
use burn::tensor::{Device, TensorData};
use safetensors::SafeTensors;
use slmc::formats::open_model;
use slmc::model::device::{BACKENDS, device};
use slmc::model::forward::{Batch, DenseWeights, Forward, FusedWeights, Observer, Output, Unobserved, run_fused};
use slmc::model::id::LinearId;
use std::collections::BTreeSet;
use std::path::Path;

/// Largest difference, as a part of the golden tensor's largest magnitude.
const TOLERANCE: f32 = 1e-4;

/// What transformers computed.
struct Golden {
    tokens: Vec<u32>,
    /// (batch, length), true where the position counts.
    mask: Vec<bool>,
    sequences: usize,
    hidden_states: Vec<f32>,
    output: Vec<f32>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Option<Vec<[u8; 4]>> {
            file.tensor(name).ok().map(|tensor| tensor.data().as_chunks::<4>().0.to_vec())
        };
        let floats = |name: &str| words(name).map(|w| w.into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>());
        let integers = |name: &str| words(name).map(|w| w.into_iter().map(u32::from_le_bytes).collect::<Vec<u32>>());
        let tokens = integers("input_ids").unwrap();
        let mask = integers("attention_mask").map_or(vec![true; tokens.len()], |m| m.iter().map(|&x| x != 0).collect());
        Golden {
            mask,
            sequences: file.tensor("input_ids").unwrap().shape()[0],
            tokens,
            hidden_states: floats("hidden_states").unwrap(),
            output: floats("logits").or_else(|| floats("last_hidden_state")).unwrap(),
        }
    }
}

/// Largest difference relative to the largest golden magnitude, over the rows that count.
fn difference(computed: &TensorData, golden: &[f32], mask: &[bool]) -> f32 {
    let computed = computed.try_to_vec::<f32>().unwrap();
    assert_eq!(computed.len(), golden.len());
    let row = golden.len() / mask.len().min(golden.len());
    let rows = golden.chunks(row).zip(computed.chunks(row)).zip(mask).filter(|(_, counts)| **counts);
    let (mut error, mut largest) = (0f32, 0f32);
    for ((golden, computed), _) in rows {
        for (g, c) in golden.iter().zip(computed) {
            assert!(c.is_finite());
            error = error.max((g - c).abs());
            largest = largest.max(g.abs());
        }
    }
    error / largest
}

fn check(folder: &Path, device: &Device, label: &str) {
    let golden = Golden::read(folder);
    let model = open_model(folder).unwrap();
    let weights = DenseWeights::new(&model, device).unwrap();
    let batch = Batch::new(&model.spec, golden.tokens.clone(), golden.sequences).unwrap();
    let batch = batch.with_mask(golden.mask.clone()).unwrap();
    let forward = Forward::new(&model.spec, &weights, device).keep_hidden_states();
    let output = forward.run(&batch, &mut Unobserved);
    compare(&golden, output, &format!("{} on {label}", name(folder)));
    let fused = FusedWeights::of(&model.spec, &weights);
    assert_eq!(fused.is_some(), label == "flex");
    if let Some(fused) = fused {
        let output = run_fused(&model.spec, &fused, &batch, true);
        compare(&golden, output, &format!("{}, fused operations", name(folder)));
    }
}

fn compare(golden: &Golden, output: Output, label: &str) {
    let states = output.hidden_states.len();
    assert_eq!(golden.hidden_states.len() % states, 0);
    let expected = golden.hidden_states.chunks(golden.hidden_states.len() / states);
    for (n, (state, expected)) in output.hidden_states.into_iter().zip(expected).enumerate() {
        let error = difference(&state.into_data(), expected, &golden.mask);
        assert!(error < TOLERANCE, "{label}: hidden state {n} differs by {error}");
    }
    // A classifier has one row per sequence, everything else one per position.
    let rows = output.logits.dims()[0] * output.logits.dims()[1];
    let mask = if rows == golden.mask.len() { golden.mask.clone() } else { vec![true; rows] };
    let error = difference(&output.logits.into_data(), &golden.output, &mask);
    assert!(error < TOLERANCE, "{label}: logits differ by {error}");
}

#[test]
fn every_checkpoint_computes_what_transformers_computes() {
    for folder in golden_folders() {
        for label in BACKENDS {
            check(&folder, &device(label).unwrap(), label);
        }
    }
}

/// Counts what it is shown.
#[derive(Default)]
struct Shapes {
    linears: BTreeSet<LinearId>,
    layers: BTreeSet<usize>,
}

impl Observer for Shapes {
    fn linear(&mut self, id: LinearId, input: &burn::tensor::Tensor<2>) {
        assert!(input.dims()[0] > 0);
        assert!(self.linears.insert(id), "{id} is shown twice");
    }

    fn attention(&mut self, layer: usize, query: &burn::tensor::Tensor<4>, key: &burn::tensor::Tensor<4>) {
        let ([_, heads, length, width], [_, shared, keys, key_width]) = (query.dims(), key.dims());
        assert_eq!((length, width, heads % shared), (keys, key_width, 0));
        assert!(self.layers.insert(layer));
    }
}

#[test]
fn every_matrix_is_observed_once_and_blocks_add_up_to_a_run() {
    let device = device("flex").unwrap();
    for folder in &golden_folders() {
        let golden = Golden::read(folder);
        let model = open_model(folder).unwrap();
        let weights = DenseWeights::new(&model, &device).unwrap();
        let forward = Forward::new(&model.spec, &weights, &device);
        let batch = Batch::new(&model.spec, golden.tokens, golden.sequences).unwrap();
        let mut shapes = Shapes::default();
        let run = forward.run(&batch, &mut shapes);
        assert!(run.hidden_states.is_empty());
        let tables = ["embed.token", "embed.position", "embed.type", "embed.projection"];
        let mut expected: BTreeSet<LinearId> = model
            .spec
            .matrices()
            .into_iter()
            .map(|(id, ..)| id)
            .filter(|id| !tables.contains(&&*id.to_string()))
            .collect();
        if model.spec.tied_head() {
            expected.insert("head.lm".parse().unwrap());
        }
        assert_eq!(shapes.linears, expected, "{}", folder.display());
        let attention = model.spec.layers.iter().filter(|layer| layer.attention().is_some()).count();
        assert_eq!(shapes.layers.len(), attention);

        let context = forward.context(&batch);
        let mut hidden = forward.embed(&batch);
        for layer in 0..model.spec.layers.len() {
            hidden = forward.block(layer, hidden, &context, &mut Unobserved);
        }
        let logits = forward.head(forward.finish(hidden), &mut Unobserved);
        assert_eq!(logits.into_data(), run.logits.into_data(), "{}", folder.display());
    }
}
