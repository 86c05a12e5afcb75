//! Damaged, lying and unsupported checkpoints: each is refused with an error that names the file, the tensor or the key,
//! and none makes the reader panic. The checkpoints are built here, so the tests need nothing but a temporary directory.

mod config;
mod families;
mod fixture;

use fixture::{Tensors, expect, f32_tensor, file, header, llama, llama_config, llama_tensors, write};
use serde_json::{Value, json};
use slmc::formats::{open_model, open_outline};
use slmc::model::device::{BACKENDS, FEATURE_BACKENDS, device};
use slmc::model::forward::{Batch, BatchError, DenseWeights};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let dir = llama();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let lengths = (0..whole.len()).filter(|n| *n < 64 || n % 13 == 0 || whole.len() - n < 64);
    for length in lengths {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open_outline(dir.path()).expect_err("truncated").to_string();
        assert!(error.contains("model.safetensors"), "{length}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    expect(dir.path(), &["model.safetensors", "truncated or damaged"]);
}

#[test]
fn damaged_headers_never_panic() {
    let dir = llama();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let mut state = 1u64;
    for round in 0..3000 {
        let mut bytes = whole.clone();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = if round < 800 { round % 8 } else { (state >> 33) as usize % (header + 8) };
        bytes[at] = (state >> 17) as u8;
        fs::write(&path, bytes).unwrap();
        // A byte inside a name or a space may leave a valid file; what matters is that nothing panics.
        if let Ok(model) = open_model(dir.path()) {
            let _ = DenseWeights::new(&model, &device("flex").unwrap());
        }
    }
}

#[test]
fn lying_headers_are_refused_by_tensor() {
    let tensors = llama_tensors();
    let norm = "model.norm.weight";
    let (start, end) =
        (header(&tensors)[norm]["data_offsets"][0].clone(), header(&tensors)[norm]["data_offsets"][1].clone());
    let huge = u64::MAX - 8;
    let cases = [
        ("shape", json!([9]), norm),
        ("shape", json!([-1]), norm),
        ("shape", json!([u64::MAX, u64::MAX]), norm),
        ("shape", json!([u64::MAX]), norm),
        ("shape", json!("8"), norm),
        ("dtype", json!("F33"), norm),
        ("dtype", json!("F64"), norm),
        ("data_offsets", json!([end, start]), norm),
        ("data_offsets", json!([0, 32]), "starts at byte"),
        ("data_offsets", json!([huge, huge + 7]), norm),
        ("data_offsets", json!([start]), norm),
        ("data_offsets", Value::Null, norm),
    ];
    for (field, value, expected) in cases {
        let dir = llama();
        let mut lying = header(&tensors);
        lying[norm][field] = value;
        fs::write(dir.path().join("model.safetensors"), file(&lying.to_string(), &tensors)).unwrap();
        expect(dir.path(), &["model.safetensors", expected]);
    }
    // Sizes whose sum wraps around to the length of the file.
    let dir = llama();
    let quarter = 1u64 << 62;
    let mut wrapping = serde_json::Map::new();
    for n in 0..4u64 {
        let to = (n + 1).saturating_mul(quarter);
        wrapping.insert(format!("t{n}"), json!({"dtype": "U8", "shape": [quarter], "data_offsets": [n * quarter, to]}));
    }
    fs::write(dir.path().join("model.safetensors"), file(&Value::Object(wrapping).to_string(), &Tensors::new()))
        .unwrap();
    expect(dir.path(), &["model.safetensors", "`t"]);
    for text in ["", "{", "[]", "null", "{\"a\":1}", "\u{0}", &"[".repeat(10_000)] {
        fs::write(dir.path().join("model.safetensors"), file(text, &Tensors::new())).unwrap();
        expect(dir.path(), &["model.safetensors"]);
    }
}

#[test]
fn tensors_must_be_all_there_and_no_others() {
    type Damage = fn(&mut Tensors);
    let cases: [(Damage, &[&str]); 9] = [
        (|t| drop(t.remove("model.norm.weight")), &["tensor `model.norm.weight` is missing, expected shape [8]"]),
        (|t| drop(t.remove("lm_head.weight")), &["tensor `lm_head.weight` is missing"]),
        (|t| drop(t.remove("model.embed_tokens.weight")), &["tensor `model.embed_tokens.weight` is missing"]),
        (|t| t.clear(), &["tensor `model.embed_tokens.weight` is missing"]),
        (
            |t| drop(t.insert("model.norm.weight".into(), f32_tensor(&[9]))),
            &["`model.norm.weight` has shape [9], expected [8]"],
        ),
        (
            |t| drop(t.insert("model.norm.weight".into(), f32_tensor(&[8, 1]))),
            &["`model.norm.weight` has shape [8, 1], expected [8]"],
        ),
        (
            |t| drop(t.insert("model.layers.0.self_attn.q_proj.bias".into(), f32_tensor(&[8]))),
            &["`model.layers.0.self_attn.q_proj.bias` has no place in llama"],
        ),
        (
            |t| drop(t.insert("model.layers.1.input_layernorm.weight".into(), f32_tensor(&[8]))),
            &["`model.layers.1.input_layernorm.weight` has no place"],
        ),
        (
            |t| drop(t.insert("model.norm.weight".into(), ("I32".into(), vec![8], vec![0; 32]))),
            &["`model.norm.weight` has data type I32, expected F32, F16 or BF16"],
        ),
    ];
    for (damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = llama_tensors();
        damage(&mut tensors);
        write(dir.path(), &llama_config(), &tensors);
        expect(dir.path(), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = llama_tensors();
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), f32_tensor(&[2]));
    write(dir.path(), &llama_config(), &tensors);
    open_model(dir.path()).unwrap();
}

#[test]
fn a_tied_head_may_be_stored_twice_if_it_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = llama_config();
    config["tie_word_embeddings"] = json!(true);
    let mut tensors = llama_tensors();
    write(dir.path(), &config, &tensors);
    open_model(dir.path()).unwrap();
    tensors.get_mut("lm_head.weight").unwrap().2[5] ^= 1;
    write(dir.path(), &config, &tensors);
    expect(dir.path(), &["tensor `lm_head.weight` differs from `model.embed_tokens.weight`", "tie_word_embeddings"]);
    assert!(open_outline(dir.path()).is_ok());
    tensors.remove("lm_head.weight");
    write(dir.path(), &config, &tensors);
    open_model(dir.path()).unwrap();
}

#[test]
fn values_that_are_not_finite_are_refused_by_tensor_and_element() {
    let name = "model.layers.0.mlp.up_proj.weight";
    let mut cases: Vec<(&str, Vec<u8>, &str)> = Vec::new();
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        cases.push(("F32", value.to_le_bytes().to_vec(), text));
        cases.push(("F16", half::f16::from_f32(value).to_le_bytes().to_vec(), text));
        cases.push(("BF16", half::bf16::from_f32(value).to_le_bytes().to_vec(), text));
    }
    for (dtype, value, text) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = llama_tensors();
        let mut bytes = vec![0; 96 * value.len()];
        bytes[7 * value.len()..8 * value.len()].copy_from_slice(&value);
        tensors.insert(name.into(), (dtype.into(), vec![12, 8], bytes));
        write(dir.path(), &llama_config(), &tensors);
        expect(dir.path(), &["model.safetensors", name, &format!("element 7 is {text}")]);
    }
}

#[test]
fn shards_and_index_must_agree() {
    let tensors = llama_tensors();
    let names: Vec<&String> = tensors.keys().collect();
    let (shard_a, shard_b) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let split = |name: &str| if name < names[6].as_str() { shard_a } else { shard_b };
    let build = |edit: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), llama_config().to_string()).unwrap();
        for shard in [shard_a, shard_b] {
            let part: Tensors = tensors.clone().into_iter().filter(|(name, _)| split(name) == shard).collect();
            fs::write(dir.path().join(shard), file(&header(&part).to_string(), &part)).unwrap();
        }
        let map: BTreeMap<&String, &str> = names.iter().map(|name| (*name, split(name))).collect();
        let mut index = json!({"metadata": {}, "weight_map": map});
        edit(&mut index);
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        dir
    };
    open_model(build(&|_| {}).path()).unwrap();
    let norm = "model.norm.weight";
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Edit<'_>, &[&str]); 8] = [
        (
            &|i| i["weight_map"][norm] = json!("gone.safetensors"),
            &["index.json", "shard `gone.safetensors`", norm, "is missing"],
        ),
        (&|i| i["weight_map"][norm] = json!("../elsewhere.safetensors"), &["index.json", norm, "plain file name"]),
        (&|i| i["weight_map"][norm] = json!("/etc/passwd"), &["index.json", norm, "plain file name"]),
        (&|i| i["weight_map"][norm] = json!(7), &["index.json", "weight_map.model.norm.weight", "is 7"]),
        (
            &|i| i["weight_map"][norm] = json!(shard_a),
            &["index.json", norm, "expected in shard", "got it in `model-00002"],
        ),
        (&|i| i["weight_map"]["ghost"] = json!(shard_a), &["index.json", "`ghost`", "got it in no shard"]),
        (
            &|i| drop(i["weight_map"].as_object_mut().unwrap().remove(norm)),
            &["index.json", norm, "is not in weight_map"],
        ),
        (&|i| *i = json!({}), &["index.json", "key `weight_map` is missing"]),
    ];
    for (edit, expected) in cases {
        expect(build(edit).path(), expected);
    }
    let dir = build(&|_| {});
    fs::remove_file(dir.path().join(shard_b)).unwrap();
    expect(dir.path(), &["index.json", shard_b, "is missing"]);
    fs::write(dir.path().join(shard_b), "short").unwrap();
    expect(dir.path(), &[shard_b, "truncated"]);
}

#[test]
fn an_outline_of_two_gigabytes_takes_no_longer_than_its_headers() {
    let dir = tempfile::tempdir().unwrap();
    let rows = 1 << 18;
    let mut config = llama_config();
    (config["hidden_size"], config["vocab_size"]) = (json!(2048), json!(rows));
    config["num_hidden_layers"] = json!(1);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let (name, bytes) = ("model.embed_tokens.weight", rows as u64 * 2048 * 4);
    let header = json!({name: {"dtype": "F32", "shape": [rows, 2048], "data_offsets": [0, bytes]}}).to_string();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, file(&header, &Tensors::new())).unwrap();
    // A hole: no disk space is taken, and reading it would take seconds.
    let weights = fs::OpenOptions::new().append(true).open(&path).unwrap();
    weights.set_len(8 + header.len() as u64 + bytes).unwrap();
    let start = std::time::Instant::now();
    expect(dir.path(), &["is missing"]);
    assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
}

#[test]
fn paths_that_hold_no_model_are_refused() {
    let dir = llama();
    expect(&dir.path().join("config.json"), &["config.json: not a directory"]);
    expect(&dir.path().join("nowhere"), &["nowhere: does not exist; pass a directory with config.json"]);
    for text in ["", "{", "[]", "nul", "{\"rms_norm_eps\": NaN}", "{}"] {
        fs::write(dir.path().join("config.json"), text).unwrap();
        expect(dir.path(), &["config.json"]);
    }
    fs::remove_file(dir.path().join("config.json")).unwrap();
    expect(dir.path(), &["config.json is not there, but `model.safetensors` is; fetch the config.json"]);
    fs::write(dir.path().join("config.json"), llama_config().to_string()).unwrap();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    expect(dir.path(), &["neither model.safetensors nor model.safetensors.index.json"]);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    expect(dir.path(), &["model.safetensors: cannot be read"]);
}

#[test]
fn batches_and_devices_are_checked() {
    let dir = llama();
    let spec = open_model(dir.path()).unwrap().spec;
    assert_eq!(Batch::new(&spec, vec![1, 2, 3], 2), Err(BatchError::Ragged { tokens: 3, sequences: 2 }));
    assert_eq!(Batch::new(&spec, vec![], 1), Err(BatchError::Ragged { tokens: 0, sequences: 1 }));
    assert_eq!(Batch::new(&spec, vec![1; 17], 1), Err(BatchError::TooLong { length: 17, context: 16 }));
    assert_eq!(Batch::new(&spec, vec![1, 10], 1), Err(BatchError::Token { id: 10, position: 1, vocabulary: 10 }));
    let batch = Batch::new(&spec, vec![1, 2], 1).unwrap();
    assert_eq!(batch.with_mask(vec![true]), Err(BatchError::Mask { expected: 2, found: 1 }));
    assert!(BACKENDS.iter().all(|name| device(name).is_ok()));
    assert_eq!(device("tpu").unwrap_err().to_string(), "unknown backend `tpu`; this build has flex, ndarray");
    for (name, feature, there) in FEATURE_BACKENDS {
        if there || name == "remote" {
            continue;
        }
        let message = device(&format!("{name}:0")).unwrap_err().to_string();
        assert!(message.contains(&format!("`--features {feature}`")), "{message}");
        assert!(device(&format!("{name}:x")).is_err());
    }
}
