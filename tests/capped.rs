//! Gemma 2, whose scores and logits are capped, through the whole program: trained, quantized, compiled, measured and sampled.

use crate::fixture::{self, Family, Size};
use crate::support::{golden, json, refused, succeed};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::MINOR_HEADS;
use std::fs;

#[test]
fn a_capped_model_goes_all_the_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("letters"), Family::TiedLlama, Size::SMALL);
    fs::create_dir_all(path.join("g")).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("gemma2").join(file), path.join("g").join(file)).expect("copied");
    }
    fs::copy(path.join("letters/tokenizer.json"), path.join("g/tokenizer.json")).expect("copied");
    fs::write(path.join("t.txt"), "the cat sat on the mat and the dog ran to the man. ".repeat(20)).expect("written");
    let number = |report: &serde_json::Value, key: &str| {
        report[key].as_f64().unwrap_or_else(|| panic!("{key} of {report} is no number"))
    };
    succeed(path, "quantize g --scheme w8 -o small -q");
    let of_directory = json(path, "eval small --data t.txt --reference g --window 24");
    assert!(number(&of_directory, "kld_mean") < 1e-3, "{of_directory}");
    succeed(path, "compile small --target generic --context 64 -o g.slm -q");
    succeed(path, "verify g.slm -q");
    let bytes = fs::read(path.join("g.slm")).expect("written");
    let view = ArtifactView::open(&bytes).expect("sound");
    assert_eq!((view.header().minor, view.spec().logit_cap), (MINOR_HEADS, 3.0));
    let of_artifact = json(path, "eval g.slm --data t.txt --reference g --window 24");
    assert!(number(&of_artifact, "kld_mean") < 1e-2, "{of_artifact}");
    succeed(path, "generate g.slm --prompt the --tokens 8 --temperature 0.8 --seed 3");
    // A step goes down the loss of the capped logits.
    let train =
        "train g --data t.txt --window 24 --batch 8 --pieces 2 --learning-rate 2e-3 --tokens 6000 -q -o trained";
    succeed(path, train);
    let (before, after) =
        (json(path, "eval g --data t.txt --window 24"), json(path, "eval trained --data t.txt --window 24"));
    assert!(number(&after, "perplexity") < 0.7 * number(&before, "perplexity"), "{before} {after}");
    refused(path, "export g --format onnx -o out", "the caps on scores and logits of gemma2");
}
