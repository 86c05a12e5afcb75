//! What config.json of an exported directory says: which linears are not packed, and the data type by which some families
//! round a factor.

use super::{exported, kept, model_of, options, quantized, same_integers, same_values, widened};
use crate::support::golden;
use serde_json::{Value, json};
use slmc::disk::{Config, DenseType};
use slmc::formats::{self, ModelSink, hugging_face, open_model};
use slmc::model::id::{LinearId, Role};
use slmc::model::scheme::Preset;
use slmc::model::weights::Model;
use slmc::progress::Silent;
use slmc::quantize::Scales;
use slmc::stages::export::export_model;
use std::fs;
use std::path::Path;

fn config(directory: &Path) -> Value {
    let bytes = fs::read(directory.join("config.json")).expect("it is there");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The modules that an exported directory says are not packed.
fn ignored(directory: &Path) -> Vec<String> {
    serde_json::from_value(config(directory)["quantization_config"]["ignore"].clone()).expect("a list of names")
}

/// A model of a golden checkpoint's configuration with this value of a key.
fn with(name: &str, key: &str, value: Value) -> Model {
    let config = Config::read(&golden(name).join("config.json")).expect("a golden checkpoint");
    let mut map = config.map().clone();
    map.insert(key.to_owned(), value);
    model_of(Config::from_map(config.file(), map))
}

#[test]
fn heads_are_not_packed_whether_they_are_tied_or_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        ("llama-gqa-tied", "lm_head"),
        ("bert-mlm", "cls.predictions.decoder"),
        ("camembert-mlm", "lm_head.decoder"),
        ("distilbert-mlm", "vocab_projector"),
        ("electra-mlm", "generator_lm_head"),
        ("roberta-mlm-padded", "lm_head.decoder"),
    ];
    for (name, head) in cases {
        for tied in [true, false] {
            let what = format!("{name}, {}", if tied { "tied" } else { "with a head of its own" });
            let model = with(name, "tie_word_embeddings", json!(tied));
            assert_eq!(model.spec.tied_head(), tied, "{what}");
            let (source, out) = (directory.path().join("quantized"), directory.path().join("packed"));
            let rounded = quantized(&model, &Preset::W8.assign(&model.spec), Scales::Any, &source);
            let report = exported(&source, "compressed-tensors", &out);
            let ignored = ignored(&out);
            let count = |name: &str| ignored.iter().filter(|other| *other == name).count();
            assert_eq!((count(head), count("lm_head")), (1, 1), "{what}: {ignored:?}");
            assert_eq!(same_integers(&out, &rounded, &what), kept(&report), "{what}");
            assert_eq!(open_model(&out).expect("it opens").spec, model.spec, "{what}");
        }
    }
}

#[test]
fn the_projection_of_embeddings_is_a_linear() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = model_of(widened("electra-small-tokens"));
    let id = LinearId::global(Role::EmbeddingProjection);
    for (preset, packs) in [(Preset::W8, true), (Preset::W4, true)] {
        let what = format!("electra-small-tokens in {}", preset.name());
        let (source, out) = (directory.path().join("quantized"), directory.path().join("packed"));
        let rounded = quantized(&model, &preset.assign(&model.spec), Scales::Any, &source);
        let report = exported(&source, "compressed-tensors", &out);
        assert_eq!(same_integers(&out, &rounded, &what), kept(&report), "{what}");
        let integers = formats::open(&out).expect("it opens").integers(id).expect("readable");
        assert_eq!(integers.is_some(), packs, "{what}");
        let listed = ignored(&out).iter().any(|name| name == "electra.embeddings_project");
        assert_eq!(listed, !packs, "{what}: {:?}", ignored(&out));
    }
}

#[test]
fn another_factor_on_embeddings_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = with("gemma3-text", "dtype", json!("bfloat16"));
    let exact = (model.spec.hidden as f64).sqrt() as f32;
    let rounded = model.spec.embedding_scale;
    assert!(rounded != exact, "√hidden is no number of bfloat16");
    let source = directory.path().join("quantized");
    quantized(&model, &Preset::W8.assign(&model.spec), Scales::Any, &source);
    let told =
        format!("multiplied by {exact} in float32, the data type of this export, and by {rounded} in this model");
    for (format, dtype) in [
        ("safetensors", None),
        ("compressed-tensors", None),
        ("safetensors", Some(DenseType::Bf16)),
        ("compressed-tensors", Some(DenseType::Bf16)),
    ] {
        let out = directory.path().join("out");
        let mut asked = options(&source, format, &out);
        asked.settings.dtype = dtype;
        let notes = export_model(&asked, &Silent).expect("it is written").notes;
        let note = notes.iter().find(|note| note.contains("embeddings are multiplied"));
        let scale = open_model(&out).expect("it opens").spec.embedding_scale;
        match dtype {
            None => {
                let note = note.unwrap_or_else(|| panic!("{format}: {notes:?}"));
                assert!(note.contains(&told) && note.contains("--dtype bf16 keeps it"), "{format}: {note}");
                assert_eq!(scale, exact, "{format}");
            }
            Some(_) => assert_eq!((note, scale), (None, rounded), "{format}"),
        }
    }
    // A stage that nobody asks for a type writes the model that it has, in f32, with the key as it was.
    let out = directory.path().join("dense");
    hugging_face::Directory(&out).write(&model, &json!({})).expect("a directory");
    assert_eq!((&config(&out)["dtype"], &config(&out)["torch_dtype"]), (&json!("bfloat16"), &json!("bfloat16")));
    let again = open_model(&out).expect("it opens");
    assert_eq!(again.spec, model.spec);
    same_values(&again, &model, "in f32");
}
