//! What stands on the layers, and how texts become one row: what readers of GGUF would compute otherwise is refused by name,
//! what they can be told comes back.

use super::{bits, options};
use crate::sentences::pools;
use crate::support::golden;
use slmc::disk::DenseType;
use slmc::formats::open_model;
use slmc::model::spec::{Embedding, Head, Pooling};
use slmc::progress::Silent;
use slmc::stages::export::export_model;
use std::fs;
use std::path::Path;

/// A golden checkpoint in a directory of its own, pooled as it is said.
fn pooled(name: &str, mode: &str, normalize: bool, out: &Path) {
    fs::create_dir_all(out).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), out.join(file)).expect("a golden checkpoint");
    }
    pools(out, &[mode], normalize);
}

#[test]
fn poolers_that_readers_compute_otherwise_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out.gguf");
    let cases = [
        ("distilbert-classifier", "the pooler of this distilbert: its readers take tanh over the first token"),
        ("qwen3-embedding", "the hidden states of this qwen3 without a pooling: its readers would generate text"),
        ("qwen3-classifier", "a classifier over the last token"),
        ("gemma3-embedding-sliding", "positions that see both ways"),
    ];
    for (name, expected) in cases {
        let asked = slmc::stages::export::ExportOptions { lossy: true, ..options(&golden(name), "gguf", &out) };
        let error = export_model(&asked, &Silent).expect_err("it is refused").to_string();
        assert!(error.contains(&format!("gguf cannot say {expected}")) && !out.exists(), "{name}: {error}");
    }
    // The largest value is no pooling of the format, and the mean none of a causal model.
    let source = directory.path().join("largest");
    pooled("bert-encoder", "max", false, &source);
    let error = export_model(&options(&source, "gguf", &out), &Silent).expect_err("it is refused").to_string();
    assert!(error.contains("gguf cannot say pooling by the largest value"), "{error}");
}

#[test]
fn sentence_encoders_come_back_as_sentence_encoders() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        ("qwen3-embedding", "lasttoken", Pooling::Last),
        ("bert-encoder", "mean", Pooling::Mean),
        ("bert-encoder", "cls", Pooling::First),
        ("bert-encoder", "lasttoken", Pooling::Last),
    ];
    for (name, mode, pooling) in cases {
        let what = format!("{name} by {mode}");
        let source = directory.path().join(&what);
        pooled(name, mode, true, &source);
        let out = directory.path().join(format!("{what}.gguf"));
        let mut dense = options(&source, "gguf", &out);
        dense.settings.dtype = Some(DenseType::F32);
        let report = export_model(&dense, &Silent).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.notes.iter().any(|note| note.contains("scaled to length one")), "{what}: {:?}", report.notes);
        let (read, own) = (open_model(&out).expect("a model"), open_model(&source).expect("a model"));
        let mut expected = own.spec.clone();
        // Length one is for the program that asks; without a tokenizer a file has one end token at most.
        expected.embedding = Some(Embedding { pooling, normalize: false });
        expected.ends.truncate(1);
        assert_eq!(expected.head, Head::Hidden, "{what}");
        assert_eq!(read.spec, expected, "{what}");
        for id in own.parameters.keys() {
            assert!(bits(&read, *id) == bits(&own, *id), "{what}: the values of {id} differ");
        }
    }
}
