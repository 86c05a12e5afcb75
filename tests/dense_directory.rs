//! Golden checkpoints written again as dense directories: the same values, the same logits, the same bytes every time.

use crate::support::golden_folders;
use serde_json::{Value, json};
use slmc::formats::{ModelSink, hugging_face, open_model};
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::weights::Model;
use std::path::Path;

fn logits(model: &Model) -> Vec<f32> {
    let device = device("flex").unwrap();
    let weights = DenseWeights::new(model, &device).unwrap();
    let tokens: Vec<u32> = (0..12).map(|n| (n * 7 + 1) % model.spec.vocabulary as u32).collect();
    let batch = Batch::new(&model.spec, tokens, 1).unwrap();
    Forward::new(&model.spec, &weights, &device).run(&batch, &mut Unobserved).logits.to_data().try_to_vec().unwrap()
}

/// A model read, written, read and written again.
fn round_trip(folder: &Path) {
    let provenance = json!({"schema": "slmc.provenance/1", "stage": "test"});
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let label = folder.display();
    let original = open_model(folder).unwrap();
    hugging_face::Directory(&first).write(&original, &provenance).unwrap();
    let again = open_model(&first).unwrap();
    assert_eq!(again.spec, original.spec, "{label}");
    // Values with a factor are held in f32, and so all are written.
    if original.spec.stored.residual == 1.0 {
        assert_eq!(again.parameters, original.parameters, "{label}");
    }
    for parameter in original.spec.parameters() {
        let of = |model: &Model| model.values_f32(parameter.id).unwrap();
        assert_eq!(of(&again), of(&original), "{label}: {}", parameter.id);
    }
    assert_eq!(logits(&again), logits(&original), "{label}");
    let config: Value = serde_json::from_slice(&std::fs::read(first.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], config["torch_dtype"], "{label}");
    for (key, value) in original.config.map().iter().filter(|(key, _)| !key.contains("dtype")) {
        assert_eq!(&config[key], value, "{label}");
    }
    hugging_face::Directory(&second).write(&again, &provenance).unwrap();
    for file in ["config.json", "model.safetensors", "slmc.json"] {
        let read = |directory: &Path| std::fs::read(directory.join(file)).unwrap();
        assert!(read(&first) == read(&second), "{label}: {file}");
    }
}

#[test]
fn checkpoints_survive_a_round_trip() {
    golden_folders().iter().for_each(|folder| round_trip(folder));
}
