//! Names of tensors: wrappers of training, tied tables under either name, and what is said where a tensor is missing.

use super::{copied, edit_json, edit_tensors, rename_tensors};
use crate::support::golden;
use serde_json::json;
use slmc::disk::tensor_file;
use slmc::formats::{ModelSink, hugging_face, open, open_model};
use std::path::Path;

fn notes(directory: &Path) -> Vec<String> {
    open(directory).expect("opens").outline().notes.iter().map(ToString::to_string).collect()
}

fn refusal(directory: &Path) -> String {
    open(directory).err().expect("refused").to_string()
}

#[test]
fn wrappers_are_taken_off_and_said() {
    let models =
        ["llama-mha", "llama-gqa-tied", "qwen3-qk-norm", "gpt2", "bert-classifier", "bert-encoder", "distilbert-mlm"];
    let wrappers =
        ["_orig_mod.", "module.", "base_model.model.", "model.", "module._orig_mod.", "transformer.", "bert."];
    for model in models {
        let original = open_model(&golden(model)).expect("golden");
        for wrapper in wrappers {
            // BERT's own prefix, which the bare encoder leaves out.
            if (model, wrapper) == ("bert-encoder", "bert.") {
                continue;
            }
            let directory = copied(&golden(model));
            let path = directory.path();
            rename_tensors(path, |name| format!("{wrapper}{name}"));
            let found = open_model(path).unwrap_or_else(|error| panic!("{model} in {wrapper}: {error}"));
            assert_eq!(found.parameters, original.parameters, "{model} in {wrapper}");
            assert!(notes(path)[0].contains("was taken off the names of"), "{model} in {wrapper}: {:?}", notes(path));
            // As it would have been without.
            let out = path.join("out");
            hugging_face::Directory(&out).write(&found, &json!({"schema": "slmc.provenance/1"})).expect("writes");
            let written = tensor_file::read(&out.join("model.safetensors")).expect("reads");
            let plain = path.join("plain");
            hugging_face::Directory(&plain).write(&original, &json!({"schema": "slmc.provenance/1"})).expect("writes");
            let plain = tensor_file::read(&plain.join("model.safetensors")).expect("reads");
            assert_eq!(written.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>(), "{model} in {wrapper}");
        }
    }
    // Layers compiled one by one, and a backbone that is wrapped alone.
    let original = open_model(&golden("llama-mha")).expect("golden");
    let edits: [fn(&str) -> String; 3] = [
        |name| name.replace("layers.", "layers._orig_mod."),
        |name| name.replace("mlp.", "_fsdp_wrapped_module.mlp."),
        |name| if name.starts_with("model.") { format!("model.{name}") } else { name.to_owned() },
    ];
    for edit in edits {
        let directory = copied(&golden("llama-mha"));
        rename_tensors(directory.path(), |name| {
            if name.contains(".0.") || name.contains("model.") { edit(name) } else { name.to_owned() }
        });
        assert_eq!(open_model(directory.path()).expect("opens").parameters, original.parameters);
    }
}

#[test]
fn missing_and_unknown_prefixes() {
    let original = open_model(&golden("llama-mha")).expect("golden");
    let directory = copied(&golden("llama-mha"));
    rename_tensors(directory.path(), |name| name.trim_start_matches("model.").to_owned());
    assert_eq!(open_model(directory.path()).expect("opens").parameters, original.parameters);
    rename_tensors(directory.path(), |name| format!("language_tower.{name}"));
    let error = refusal(directory.path());
    assert!(error.contains("tensor `model.embed_tokens.weight` is missing"), "{error}");
    assert!(error.contains("tensor `language_tower.embed_tokens.weight` and 29 others are there"), "{error}");
}

#[test]
fn a_tied_table_may_have_either_name() {
    for (model, table, head) in [
        ("llama-gqa-tied", "model.embed_tokens.weight", "lm_head.weight"),
        ("qwen2-qkv-bias", "model.embed_tokens.weight", "lm_head.weight"),
        ("gemma3-text", "model.embed_tokens.weight", "lm_head.weight"),
        ("gpt2", "transformer.wte.weight", "lm_head.weight"),
        ("bert-mlm", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("distilbert-mlm", "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
        ("bert-mlm", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ] {
        let original = open_model(&golden(model)).expect("golden");
        let directory = copied(&golden(model));
        let path = directory.path();
        edit_tensors(path, |tensors| {
            tensors.remove(head);
            let tensor = tensors.remove(table).expect("there is one");
            tensors.insert(head.to_owned(), tensor);
        });
        let found = open_model(path).unwrap_or_else(|error| panic!("{model}: {error}"));
        assert_eq!(found.parameters, original.parameters, "{model}");
        assert_eq!(
            notes(path),
            [format!("tensor `{head}` stands for `{table}`, which config.json ties it to and which is absent")]
        );
        edit_tensors(path, |tensors| {
            let tensor = tensors[head].clone();
            tensors.insert(table.to_owned(), tensor);
        });
        assert_eq!(open_model(path).expect("both are equal").parameters, original.parameters, "{model}");
        assert!(notes(path).is_empty());
    }
    let directory = copied(&golden("llama-gqa-tied"));
    edit_json(directory.path(), "config.json", |config| config["tie_word_embeddings"] = json!(false));
    let error = refusal(directory.path());
    assert!(
        error.contains("`lm_head.weight` is missing") && error.contains("set tie_word_embeddings to true"),
        "{error}"
    );
}

#[test]
fn weights_of_other_tools_are_named() {
    let cases = [
        ("model.layers.0.mlp.up_proj.qweight", "quantized by GPTQ or AWQ"),
        ("model.layers.0.mlp.up_proj.SCB", "quantized by bitsandbytes to 8 bits"),
        ("model.layers.0.mlp.up_proj.weight_packed", "quantized by compressed-tensors"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "with a LoRA adapter that was not merged into them"),
    ];
    for (tensor, expected) in cases {
        let directory = copied(&golden("llama-mha"));
        rename_tensors(
            directory.path(),
            |name| if name == "model.norm.weight" { tensor.to_owned() } else { name.to_owned() },
        );
        let error = refusal(directory.path());
        assert!(error.contains(&format!("the weights are {expected} (tensor `{tensor}`)")), "{error}");
    }
    for (section, expected) in [
        (json!({"quant_method": "hqq", "bits": 4, "group_size": 128}), "quantized by HQQ (4 bits, groups of 128)"),
        (json!({"quant_method": "quanto", "bits": 8}), "quantized by quanto (8 bits)"),
        (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "quantized by bitsandbytes (4 bits)"),
        (json!({"quant_method": "fp8", "weight_block_size": [128, 128]}), "quantized by fine-grained FP8"),
        (json!({"bits": 4, "group_size": 64}), "quantized by MLX (4 bits, groups of 64)"),
    ] {
        let directory = copied(&golden("llama-mha"));
        // The method is the first thing to say, also of a family that is not known.
        edit_json(directory.path(), "config.json", |config| {
            config["quantization_config"] = section;
            config["model_type"] = json!("mixtral");
        });
        let error = refusal(directory.path());
        assert!(error.contains("config.json: the weights are ") && error.contains(expected), "{error}");
        assert!(error.contains("pass the model they were made from"), "{error}");
    }
}
