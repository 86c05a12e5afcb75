//! Adapters of PEFT: those of tests/data/adapters, whose make.py says how they are made, on golden checkpoints. What is merged
//! must be what PEFT merges, bit for bit; with DoRA within 1e-6.

use crate::support::{golden, json, refused, root, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use slmc::disk::hash::{hex, sha256};
use slmc::formats::adapter::{AdapterSource, Weighted};
use slmc::formats::{self, ModelSink, ModelSource, hugging_face};
use slmc::model::id::ParameterId;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

mod hostile;

/// Every adapter, with its base.
const ADAPTERS: [(&str, &str); 10] = [
    ("added-tokens", "llama-mha"),
    ("classifier", "bert-classifier"),
    ("dora", "llama-gqa-tied"),
    ("fused", "phi3-fused-qkv"),
    ("gpt2-biases", "gpt2"),
    ("patterns", "llama-mha"),
    ("rank-32", "llama-mha"),
    ("rslora-bias", "qwen2-qkv-bias"),
    ("table", "llama-gqa-tied"),
    ("token-rows", "llama-gqa-tied"),
];

fn adapter(name: &str) -> PathBuf {
    assert!(ADAPTERS.iter().any(|(known, _)| *known == name), "{name} is not in the list of adapters");
    root("tests/data/adapters").join(name)
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON")
}

fn opened(base: &str, adapters: &[(&str, f64)]) -> AdapterSource {
    let adapters: Vec<Weighted> =
        adapters.iter().map(|(name, weight)| Weighted { path: adapter(name), weight: *weight }).collect();
    AdapterSource::open(formats::open(&golden(base)).expect("the base opens"), &adapters).expect("they fit")
}

/// Every tensor of a written directory by its name.
fn written(source: &dyn ModelSource) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("merged");
    let model = source.model().expect("it is finite");
    hugging_face::Directory(&out).write(&model, &serde_json::json!({})).expect("it can be written");
    formats::open_model(&out).expect("what was written opens");
    tensors(&out.join("model.safetensors"))
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(file).expect("it is there");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

/// Compares a merged model with PEFT's: hashes of the tensors that are changed, the base's bytes for all others.
fn compare(label: &str, merged: &BTreeMap<String, Vec<u8>>, base: &str, hashes: &Value) {
    let of_base = tensors(&golden(base).join("model.safetensors"));
    let expected: BTreeMap<String, String> = serde_json::from_value(hashes.clone()).expect("names and hashes");
    assert!(!expected.is_empty());
    for (name, hash) in &expected {
        let found = merged.get(name).unwrap_or_else(|| panic!("{label}: {name} is not written"));
        assert_eq!(&hex(&sha256(found)), hash, "{label}: {name}");
    }
    for (name, bytes) in merged.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        assert_eq!(Some(bytes), of_base.get(name), "{label}: {name} is the base's");
    }
}

#[test]
fn every_adapter_of_the_folder_is_in_the_list() {
    let entries = fs::read_dir(root("tests/data/adapters")).expect("it is part of the repository");
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    assert_eq!(found, ADAPTERS.map(|(name, _)| adapter(name)));
}

#[test]
fn merged_tensors_are_those_of_peft_bit_for_bit() {
    for (name, base) in ADAPTERS.into_iter().filter(|(name, _)| *name != "dora") {
        let merged = written(&opened(base, &[(name, 1.0)]));
        compare(name, &merged, base, &parsed(&adapter(name).join("expected.json")));
    }
}

#[test]
fn dora_is_within_a_millionth_of_peft() {
    let merged = written(&opened("llama-gqa-tied", &[("dora", 1.0)]));
    let expected = tensors(&adapter("dora").join("expected.safetensors"));
    assert_eq!(expected.len(), 6);
    for (name, bytes) in expected {
        let values =
            |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<f32>>();
        let (expected, found) = (values(&bytes), values(&merged[&name]));
        assert_eq!(expected.len(), found.len());
        let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        let error = expected.iter().zip(&found).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(error <= 1e-6 * largest, "{name}: {error} of {largest}");
    }
}

#[test]
fn several_adapters_with_weights_are_merged_in_their_order_as_peft_does() {
    let together = parsed(&root("tests/data/adapters/together.json"));
    let list: Vec<(&str, f64)> = together["adapters"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, weight)| (name.as_str(), weight.as_f64().expect("a number")))
        .collect();
    let base = together["base"].as_str().expect("a name");
    compare("together", &written(&opened(base, &list)), base, &together["tensors"]);
}

#[test]
fn a_change_of_a_tied_head_unties_it_and_leaves_the_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("head");
    fs::create_dir(&path).expect("writes");
    let configuration =
        serde_json::json!({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["lm_head"]});
    fs::write(path.join("adapter_config.json"), configuration.to_string()).expect("writes");
    let (a, b) = (vec![0.5f32; 40], (0..96).map(|row| row as f32).collect::<Vec<f32>>());
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (a, b) = (bytes(&a), bytes(&b));
    let view = |shape: Vec<usize>, data| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, data).expect("it fits")
    };
    let file = safetensors::serialize(
        [
            ("base_model.model.lm_head.lora_A.weight", view(vec![1, 40], &a)),
            ("base_model.model.lm_head.lora_B.weight", view(vec![96, 1], &b)),
        ],
        None,
    );
    fs::write(path.join("adapter_model.safetensors"), file.expect("it is sound")).expect("writes");
    let base = formats::open_model(&golden("llama-gqa-tied")).expect("it opens");
    let source = AdapterSource::open(
        formats::open(&golden("llama-gqa-tied")).expect("it opens"),
        &[Weighted { path, weight: 1.0 }],
    )
    .expect("it fits");
    assert!(base.spec.tied_head() && !source.outline().spec.tied_head());
    let values = |source: &dyn ModelSource, name: &str| {
        let id: ParameterId = ParameterId::weight(name.parse().expect("a name"));
        source.model().expect("finite").values_f32(id).expect("finite")
    };
    let table = base.values_f32(ParameterId::weight("embed.token".parse().expect("a name"))).expect("finite");
    assert_eq!(values(&source, "embed.token"), table);
    let head = values(&source, "head.lm");
    for (index, (head, table)) in head.iter().zip(&table).enumerate() {
        // 2 · 0.5 · row
        assert_eq!(*head, table + (index / 40) as f32);
    }
    let merged = written(&source);
    assert!(merged.contains_key("lm_head.weight"));
}

#[test]
fn the_command_merges_and_a_directory_of_an_adapter_is_a_model_beside_its_base() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = golden("llama-mha");
    let out = directory.path().join("merged");
    let (patterns, rank) = (adapter("patterns"), adapter("rank-32"));
    let command =
        format!("merge {} {}=0.5 {}=-0.25 -o {}", base.display(), patterns.display(), rank.display(), out.display());
    let report = json(directory.path(), &command);
    assert_eq!(report["schema"], "slmc.merge/1");
    assert_eq!(report["adapters"][0]["ranks"], serde_json::json!([2, 4, 8]));
    assert_eq!(
        (&report["adapters"][1]["weight"], &report["changed"]),
        (&serde_json::json!(-0.25), &serde_json::json!(15))
    );
    let together = parsed(&root("tests/data/adapters/together.json"));
    compare("the command", &tensors(&out.join("model.safetensors")), "llama-mha", &together["tensors"]);
    let made = parsed(&out.join("slmc.json"));
    assert_eq!((&made["stage"], made["inputs"].as_array().map(Vec::len)), (&"merge".into(), Some(5)));
    assert_eq!(made["settings"]["base"], "llama-mha");

    // By the adapter's own word, which is relative to its folder; by --base; and to a command that computes.
    let own = json(directory.path(), &format!("inspect {}", patterns.display()));
    assert_eq!((&own["format"], &own["family"]), (&"adapter on its base".into(), &"llama".into()));
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("writes");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(patterns.join(name), elsewhere.join(name)).expect("copies");
    }
    refused(directory.path(), &format!("inspect {}", elsewhere.display()), "pass that model with --base DIR");
    let stated = json(directory.path(), &format!("inspect {} --base {}", elsewhere.display(), base.display()));
    assert_eq!(stated["parameters"], own["parameters"]);
    let quantize = |model: &Path, out: &str| {
        succeed(directory.path(), &format!("quantize {} --scheme w8 --method rtn -o {out}", model.display()));
        fs::read(directory.path().join(out).join("model.safetensors")).expect("written")
    };
    let merged = directory.path().join("one");
    succeed(directory.path(), &format!("merge {} {} -o {}", base.display(), patterns.display(), merged.display()));
    assert_eq!(quantize(&patterns, "of-adapter"), quantize(&merged, "of-merged"));
    refused(
        directory.path(),
        &format!("merge {} nowhere=x -o out", base.display()),
        "neither a directory nor DIR=WEIGHT",
    );
}
