//! Adapters for another base, incomplete, lying or damaged ones: refused by file, tensor or key with nothing written, and none
//! makes the reader panic.

use super::{adapter, opened};
use crate::support::{golden, shared};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use slmc::formats::adapter::{AdapterSource, Weighted};
use slmc::formats::{self, ModelSource};
use std::fs;
use std::path::Path;

/// Tensors by name: shape, values and type.
type Tensors = Vec<(String, Vec<usize>, Vec<u8>, Dtype)>;

/// A copy of an adapter with its configuration and tensors changed.
fn changed(name: &str, configuration: impl Fn(&mut Value), tensors: impl Fn(&mut Tensors)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let text = fs::read(adapter(name).join("adapter_config.json")).expect("it is there");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    configuration(&mut config);
    fs::write(directory.path().join("adapter_config.json"), config.to_string()).expect("writes");
    let bytes = fs::read(adapter(name).join("adapter_model.safetensors")).expect("it is there");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    let view =
        |(name, view): (String, TensorView<'_>)| (name, view.shape().to_vec(), view.data().to_vec(), view.dtype());
    let mut list: Tensors = file.tensors().into_iter().map(view).collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    tensors(&mut list);
    write(directory.path(), &list);
    directory
}

fn write(directory: &Path, list: &Tensors) {
    let views = list.iter().map(|(name, shape, data, dtype)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).expect("it fits"))
    });
    let bytes = safetensors::serialize(views, None).expect("sound");
    fs::write(directory.join("adapter_model.safetensors"), bytes).expect("writes");
}

fn error(base: &str, directories: &[(&Path, f64)]) -> String {
    let adapters: Vec<Weighted> =
        directories.iter().map(|(path, weight)| Weighted { path: (*path).to_owned(), weight: *weight }).collect();
    let source = formats::open(&golden(base)).expect("the base opens");
    AdapterSource::open(source, &adapters).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_does_not_fit_is_named_with_the_remedy() {
    type Configure = fn(&mut Value);
    type Damage = fn(&mut Tensors);
    let (same, all): (Configure, Damage) = (|_| {}, |_| {});
    let query = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let cases: [(&str, Configure, Damage, &[&str]); 18] = [
        ("patterns", |c| c["peft_type"] = json!("IA3"), all, &["`peft_type` is `IA3`", "supports LORA"]),
        ("patterns", |c| c["target_parameters"] = json!(["x"]), all, &["`target_parameters`"]),
        ("patterns", |c| c["layer_replication"] = json!([[0, 1]]), all, &["`layer_replication`"]),
        ("patterns", |c| c["alora_invocation_tokens"] = json!([1]), all, &["`alora_invocation_tokens`"]),
        (
            "patterns",
            |c| c["init_lora_weights"] = json!("pissa_niter_4"),
            all,
            &["`init_lora_weights` is `pissa_niter_4`"],
        ),
        (
            "patterns",
            |c| c["rank_pattern"] = json!({"(": 4}),
            all,
            &["`rank_pattern`: the pattern `(`", "names of modules"],
        ),
        (
            "patterns",
            |c| c["rank_pattern"] = json!({}),
            all,
            &["q_proj.lora_A.weight", "shape [4, 64]", "rank of 8", "--base"],
        ),
        ("patterns", |c| c["target_modules"] = json!(["q_proj", "w_pack"]), all, &["`target_modules` names `w_pack`"]),
        ("patterns", |c| c["lora_alpha"] = json!(-1), all, &["`lora_alpha` is -1"]),
        ("patterns", |c| c["use_dora"] = json!(true), all, &["lora_magnitude_vector` is missing", "fetch it again"]),
        ("dora", |c| c["use_dora"] = json!(false), all, &["`use_dora` is false, expected true"]),
        (
            "patterns",
            same,
            |t| t.retain(|(name, ..)| !name.ends_with("0.self_attn.q_proj.lora_B.weight")),
            &["lora_B.weight` is missing", query],
        ),
        (
            "patterns",
            same,
            |t| {
                t.push((
                    "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight".into(),
                    vec![4, 64],
                    vec![0; 1024],
                    Dtype::F32,
                ))
            },
            &["layers.9", "is missing"],
        ),
        (
            "patterns",
            same,
            |t| t.push(("prompt_embeddings".into(), vec![1], vec![0; 4], Dtype::F32)),
            &["`prompt_embeddings` is no part", "merge_and_unload"],
        ),
        ("patterns", same, |t| t[0].0 = "base_model.model.x.lora_C.weight".into(), &["lora_C", "is no part"]),
        ("token-rows", |c| c["trainable_token_indices"] = json!([5, 96, 7]), all, &["token 96 is beyond the 96 rows"]),
        ("token-rows", |c| c["trainable_token_indices"] = json!([5]), all, &["trainable_tokens_delta", "[3, 40]"]),
        (
            "added-tokens",
            same,
            |t| t.retain(|(name, ..)| !name.ends_with("lm_head.weight")),
            &["changes the number of tokens", "save_embedding_layers"],
        ),
    ];
    let mut failures = Vec::new();
    for (name, configuration, tensors, expected) in cases {
        let directory = changed(name, configuration, tensors);
        let base = super::ADAPTERS.iter().find(|(known, _)| *known == name).expect("it is in the list").1;
        let error = error(base, &[(directory.path(), 1.0)]);
        if !expected.iter().all(|part| error.contains(part)) {
            failures.push(format!("{name}: {expected:?} in {error:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn adapters_of_another_base_are_refused_by_tensor() {
    let refused = |base: &str, name: &str| error(base, &[(&adapter(name), 1.0)]);
    let text = refused("gpt2", "patterns");
    assert!(
        text.contains("has no place in the base") && text.contains("gpt2") && text.contains("--base DIR"),
        "{text}"
    );
    let text = refused("llama-gqa-tied", "patterns");
    assert!(text.contains("shape [8, 160]") && text.contains("by the base"), "{text}");
    let text = refused("llama-mha", "classifier");
    assert!(text.contains("bert.encoder.layer.0") && text.contains("whose modules have names like"), "{text}");
}

#[test]
fn whole_modules_have_no_weight_and_are_replaced_once() {
    let added = adapter("added-tokens");
    assert!(error("llama-mha", &[(&added, 0.5)]).contains("a weight other than 1"));
    assert!(error("llama-mha", &[(&added, 1.0), (&added, 1.0)]).contains("another adapter has changed already"));
    assert!(error("llama-gqa-tied", &[(&adapter("token-rows"), 0.5)]).contains("a weight other than 1"));
}

#[test]
fn tokens_of_the_tokenizer_without_a_row_are_refused() {
    let directory = changed("patterns", |_| {}, |_| {});
    let tokenizer = json!({"added_tokens": [{"id": 95, "content": "<in>"}, {"id": 96, "content": "<new>"}]});
    fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).expect("writes");
    let text = error("llama-mha", &[(directory.path(), 1.0)]);
    assert!(
        text.contains("token 96 `<new>` has no row in the table of 96") && text.contains("save_embedding_layers"),
        "{text}"
    );
}

#[test]
fn a_table_with_fewer_rows_than_the_tokenizer_has_tokens_is_refused() {
    let Some(base) = shared("models/stories260k") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let line = format!("merge {} {} -o out", base.display(), adapter("added-tokens").display());
    crate::support::refused(directory.path(), &line, "512 ids and the model a vocabulary of 99");
    assert!(!directory.path().join("out").exists());
}

#[test]
fn weights_that_are_not_there_or_not_finite_are_named() {
    let directory = changed("patterns", |_| {}, |_| {});
    fs::remove_file(directory.path().join("adapter_model.safetensors")).expect("removes");
    fs::write(directory.path().join("adapter_model.bin"), "").expect("writes");
    assert!(error("llama-mha", &[(directory.path(), 1.0)]).contains("adapter_model.bin, which can run code"));
    let damaged = changed("patterns", |_| {}, |tensors| tensors[1].2[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let text = error("llama-mha", &[(damaged.path(), 1.0)]);
    assert!(text.contains("element 0 is NaN") && text.contains("adapter_model.safetensors"), "{text}");
}

#[test]
fn adapters_that_hold_nothing_or_are_something_else_are_named() {
    let of = |directory: &Path| error("llama-mha", &[(directory, 1.0)]);
    // A pattern in the place of a list names no module that could be missed.
    let empty = changed("patterns", |config| config["target_modules"] = json!(".*_proj"), Vec::clear);
    let text = of(empty.path());
    assert!(text.contains("adapter_model.safetensors: holds no tensor") && text.contains("fetch it again"), "{text}");
    let linked = changed("patterns", |_| {}, |_| {});
    let weights = linked.path().join("adapter_model.safetensors");
    fs::remove_file(&weights).expect("removes");
    std::os::unix::fs::symlink("../../blobs/gone", &weights).expect("links");
    let text = of(linked.path());
    assert!(text.contains("adapter_model.safetensors: a link to ../../blobs/gone"), "{text}");
    let text = of(&golden("llama-mha"));
    assert!(text.contains("holds no adapter_config.json; pass the directory of an adapter"), "{text}");
    // Its own word for the base is a model, in any format, or nothing.
    let base = |stated: &str| {
        let stating = changed("patterns", |config| config["base_model_name_or_path"] = json!(stated), |_| {});
        formats::open(stating.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(base(&golden("llama-mha").display().to_string()), "");
    assert_eq!(base(&crate::support::root("tests/data/gguf/llama-mha.gguf").display().to_string()), "");
    for stated in [
        ".",
        "/",
        &adapter("dora").display().to_string(),
        &golden("llama-mha").join("config.json").display().to_string(),
    ] {
        let text = base(stated);
        assert!(
            text.contains("the model it changes is not there; pass that model with --base DIR"),
            "{stated}: {text}"
        );
    }
}

#[test]
fn mutated_adapters_never_panic() {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut opened_all = 0;
    for (name, base) in super::ADAPTERS {
        let directory = tempfile::tempdir().expect("a directory");
        let files = ["adapter_config.json", "adapter_model.safetensors"]
            .map(|file| (directory.path().join(file), fs::read(adapter(name).join(file)).expect("it is there")));
        for round in 0..120 {
            for (index, (path, bytes)) in files.iter().enumerate() {
                let mut bytes = bytes.clone();
                // Of the weights the header, which is what names and shapes are in.
                let reach = if index == 0 { bytes.len() } else { bytes.len().min(2000) };
                if round % 2 == index {
                    for _ in 0..1 + round % 3 {
                        let (at, value) = (random() % reach, random() as u8);
                        bytes[at] = if round % 5 == 0 { value } else { b"0123456789\"{}[],:nft"[value as usize % 20] };
                    }
                }
                fs::write(path, bytes).expect("writes");
            }
            let source = formats::open(&golden(base)).expect("the base opens");
            let adapters = [Weighted { path: directory.path().to_owned(), weight: 1.0 }];
            let Ok(source) = AdapterSource::open(source, &adapters) else { continue };
            opened_all += 1;
            let Ok(model) = source.model() else { continue };
            for id in model.parameters.keys() {
                let _ = model.values_f32(*id);
            }
        }
    }
    assert!(opened_all > 0, "some changes leave an adapter sound");
    drop(opened("gpt2", &[("gpt2-biases", 1.0)]));
}
