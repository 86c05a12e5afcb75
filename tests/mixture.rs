//! A mixture of experts from nothing to the device: trained, rounded, compiled; what the artifact computes, that it reads the
//! chosen experts alone, and what other commands make of it.

use crate::support::{json, refused, root, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const EXPERTS: u64 = 6;
const CHOSEN: u64 = 2;
const HIDDEN: u64 = 64;
const WIDTH: u64 = 64;
const LAYERS: u64 = 2;

/// The quickstart's teacher, whose tokenizer it has, and text.
const TOKENIZER: &str = "recipes/quickstart/teacher";

/// `m.json`, a mixture.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({
        "model_type": "granitemoe", "vocab_size": 1024, "hidden_size": HIDDEN, "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "attention_bias": false,
        "embedding_multiplier": 4.0, "attention_multiplier": 0.25, "residual_multiplier": 0.7, "logits_scaling": 2.0,
        "num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "bos_token_id": 1, "eos_token_id": 2,
    });
    fs::write(directory.path().join("m.json"), config.to_string()).expect("writes");
    directory
}

fn train(directory: &Path, options: &str) -> Value {
    let (text, tokenizer) = (text("home.txt"), root(TOKENIZER));
    let line = format!(
        "train m.json --tokenizer {} --data {} --batch 8 --window 64 --learning-rate 4e-3 {options}",
        tokenizer.display(),
        text.display()
    );
    json(directory, &line)
}

fn text(name: &str) -> PathBuf {
    root("recipes/quickstart/text").join(name)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {value}"))
}

#[test]
fn a_toy_learns_and_its_artifact_reads_the_chosen_experts_alone() {
    let workplace = workplace();
    let directory = workplace.path();
    train(directory, "--tokens 512 -o untrained");
    train(directory, "--tokens 150000 --threads 1 -o m");
    let text = text("held-out.txt");
    let evaluated = |model: &str, reference: &str| {
        json(directory, &format!("eval {model} --data {} --window 64 --max-windows 24 {reference}", text.display()))
    };
    let (before, after) = (evaluated("untrained", ""), evaluated("m", ""));
    // What knows nothing is near the size of the vocabulary.
    assert!(number(&before, "perplexity") > 300.0, "{before}");
    assert!(number(&after, "perplexity") < 120.0, "{after}");

    for (scheme, most) in [("w8", 0.004), ("w4", 0.12)] {
        succeed(directory, &format!("quantize m --scheme {scheme} --calibration-tokens 4096 -o {scheme}"));
        succeed(directory, &format!("compile {scheme} --target x86-64-v3 --context 96 -o {scheme}.slm"));
        let found = evaluated(&format!("{scheme}.slm"), "--reference m");
        assert!(number(&found, "kld_mean") < most, "{scheme}: {found}");
        succeed(directory, &format!("verify {scheme}.slm"));

        // Experts are a third as active as they are many; everything else is met whole.
        let inspected = json(directory, &format!("inspect {scheme}.slm"));
        let ffn = &inspected["classes"]["ffn"];
        let summary = &inspected["experts"];
        let (router, experts) = (LAYERS * EXPERTS * HIDDEN, LAYERS * 3 * EXPERTS * WIDTH * HIDDEN);
        let active = router + experts / EXPERTS * CHOSEN;
        assert_eq!(ffn["parameters"], json!(router + experts));
        assert_eq!(ffn["macs_per_token"], json!(active));
        assert_eq!((&summary["experts"], &summary["chosen"]), (&json!(EXPERTS), &json!(CHOSEN)));
        let idle = experts - experts / EXPERTS * CHOSEN;
        let all = inspected["parameters"].as_u64().expect("a number");
        assert_eq!(summary["active_parameters"], json!(all - idle));
        let tensors = inspected["tensors"].as_array().expect("tensors");
        let bytes = |chosen: bool| -> u64 {
            let of_experts =
                |name: &str| ["gate", "up", "down"].iter().any(|role| name.contains(&format!("ffn.{role}")));
            let one = |tensor: &Value| {
                let (name, bytes) =
                    (tensor["name"].as_str().expect("a name"), tensor["bytes"].as_u64().expect("bytes"));
                if chosen && of_experts(name) { bytes / EXPERTS * CHOSEN } else { bytes }
            };
            tensors.iter().map(one).sum()
        };
        assert!(bytes(true) < bytes(false));
        let bench = json(directory, &format!("bench {scheme}.slm --prefill 32 --decode 16 --rounds 1 --threads 1"));
        assert_eq!(bench["bytes_per_token"], json!(bytes(true)), "{scheme}");
        assert_eq!(summary["active_bytes"], json!(bytes(true)), "{scheme}");
    }
}

/// Which experts a token has is read from scores whose bits do not depend on threads, and so is the order of all sums.
#[test]
fn training_gives_the_same_bytes_for_any_number_of_threads_and_recomputed() {
    let workplace = workplace();
    let directory = workplace.path();
    for threads in [1, 3] {
        train(directory, &format!("--tokens 4096 --threads {threads} -o m{threads}"));
    }
    let bytes = |name: &str| fs::read(directory.join(name).join("model.safetensors")).expect("the model is there");
    assert!(bytes("m1") == bytes("m3"));
    train(directory, "--tokens 4096 --recompute -o again");
    assert!(bytes("m1") == bytes("again"));
}

#[test]
fn what_knows_no_experts_refuses_them_by_name() {
    let workplace = workplace();
    let directory = workplace.path();
    train(directory, "--tokens 512 -o m");
    succeed(directory, "quantize m --scheme w8 --method rtn -o w8");
    refused(directory, "quantize m --scheme w8 --method rtn --activations layers.0.ffn.up=a16 -o o", "of other widths");
    succeed(directory, "compile w8 --target cortex-m55 --context 96 -o w8.slm");
    refused(directory, "export w8 --format onnx -o o", "the experts of granitemoe");
    refused(directory, "export w8 --format gguf -o o.gguf", "granitemoe");
    refused(directory, "export w8 --format compressed-tensors -o o", "granitemoe");
    refused(directory, "estimate w8.slm --target cortex-m55 --detail", "mixtures of experts");
    let text = text("home.txt");
    let student = format!("distill --teacher m --ffn 64 --data {} --tokens 512 -o s", text.display());
    refused(directory, &student, "whose 6 experts keep their width, 64");
    refused(
        directory,
        "prune m --pattern 2:4 --method magnitude --only layers.*.ffn.router -o o",
        "scores the experts of a mixture",
    );
    // Fewer layers keep the experts, and channels of experts are not reordered.
    let student = format!("distill --teacher m --layers 0 --data {} --tokens 512 --window 64 -o s", text.display());
    assert_eq!(json(directory, &student)["schema"], json!("slmc.train/1"));
    let pruned = format!("prune m --pattern 2:4 --only ffn --method wanda --calibration {} -o p", text.display());
    succeed(directory, &pruned);
    succeed(directory, "quantize p --scheme w4 --method rtn -o p4");
    succeed(directory, "compile p4 --target x86-64-v3 --context 96 -o p4.slm");
    for out in ["o", "o.gguf"] {
        assert!(!directory.join(out).exists());
    }
}
