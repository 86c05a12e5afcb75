//! Packed checkpoints whose tensors and configuration disagree: refused by file, tensor or key, and none makes the reader
//! panic.

use super::{PACKED, packed};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use slmc::formats::{open_model, open_outline};
use std::collections::{BTreeMap, HashMap};
use std::fs;

/// Tensors by name: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const GATE: &str = "model.layers.0.mlp.gate_proj";

/// A copy of a checkpoint with its configuration and tensors changed.
fn changed(name: &str, configuration: impl Fn(&mut Value), tensors: impl Fn(&mut Tensors)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(packed(name)).expect("it is there") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, directory.path().join(path.file_name().expect("a name"))).expect("copies");
    }
    let file = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    configuration(&mut config);
    fs::write(file, config.to_string()).expect("writes");
    let file = directory.path().join("model.safetensors");
    let bytes = fs::read(&file).expect("it is there");
    let views = SafeTensors::deserialize(&bytes).expect("sound").tensors();
    let mut list: Tensors = views
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    tensors(&mut list);
    let views = list
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).expect("it fits")));
    let bytes = safetensors::serialize(views, None).expect("sound");
    fs::remove_file(&file).expect("removes");
    fs::write(file, bytes).expect("writes");
    directory
}

fn part(end: &str) -> String {
    format!("{GATE}{end}")
}

/// The element of a tensor of words set to a value.
fn set(tensors: &mut Tensors, end: &str, index: usize, value: i32) {
    let bytes = &mut tensors.get_mut(&part(end)).expect("it is there").2;
    bytes[index * 4..][..4].copy_from_slice(&value.to_le_bytes());
}

/// A row, or the first of its dimensions, less.
fn shorter(tensors: &mut Tensors, end: &str) {
    let (_, shape, bytes) = tensors.get_mut(&part(end)).expect("it is there");
    bytes.truncate(bytes.len() - bytes.len() / shape[0]);
    shape[0] -= 1;
}

#[test]
fn what_disagrees_is_named_with_the_remedy() {
    type Configure = fn(&mut Value);
    type Damage = fn(&mut Tensors);
    let (same, all): (Configure, Damage) = (|_| {}, |_| {});
    let cases: [(&str, Configure, Damage, &[&str]); 50] = [
        (
            "gptq-v1",
            same,
            |t| drop(t.remove(&part(".scales"))),
            &["gate_proj.scales` is missing", "beside `model.layers.0.mlp.gate_proj.qweight`"],
        ),
        ("gptq-v1", same, |t| drop(t.remove(&part(".qzeros"))), &["gate_proj.qzeros` is missing"]),
        ("gptq-v1", same, |t| shorter(t, ".scales"), &["gate_proj.", "has shape", "expected"]),
        ("gptq-v1", same, |t| shorter(t, ".qweight"), &["gate_proj.", "has shape", "fetch the checkpoint again"]),
        ("gptq-v1", same, |t| shorter(t, ".qzeros"), &["gate_proj.qzeros` has shape [1, 12], expected [2, 12]"]),
        (
            "gptq-v1",
            same,
            |t| set(t, ".g_idx", 3, 2),
            &["gate_proj.g_idx`: element 3 is 2, expected a group in [0, 2)"],
        ),
        ("gptq-v1", same, |t| set(t, ".g_idx", 0, -1), &["gate_proj.g_idx`: element 0 is -1"]),
        ("gptq-v1", same, |t| shorter(t, ".g_idx"), &["gate_proj.g_idx` has shape [63], expected [64]"]),
        ("gptq-v1", same, |t| set(t, ".qzeros", 0, -1), &["gate_proj.qzeros`: zero 0 has all 4 bits set", "gptq_v2"]),
        (
            "gptq-v1",
            same,
            |t| t.get_mut(&part(".qweight")).expect("there").0 = Dtype::U32,
            &["gate_proj.qweight` has data type U32, expected I32"],
        ),
        (
            "gptq-v1",
            same,
            |t| drop(t.insert(part(".weight"), (Dtype::F32, vec![1], vec![0; 4]))),
            &["gate_proj.weight` stands beside the packed"],
        ),
        ("gptq-v1", |c| c["quantization_config"]["bits"] = json!(8), all, &["by `bits`, which is 8"]),
        (
            "gptq-v1",
            |c| c["quantization_config"]["bits"] = json!(5),
            all,
            &["`quantization_config.bits` is `5`", "2, 3, 4, 8"],
        ),
        (
            "gptq-v1",
            |c| c["quantization_config"]["group_size"] = json!(16),
            all,
            &["scales` has shape [", "groups of 16"],
        ),
        (
            "gptq-v1",
            |c| c["quantization_config"]["checkpoint_format"] = json!("marlin"),
            all,
            &["`quantization_config.checkpoint_format` is `marlin`", "gptq, gptq_v2"],
        ),
        ("gptq-v1", |c| c["quantization_config"]["is_marlin_format"] = json!(true), all, &["is_marlin_format"]),
        ("gptq-v1", |c| c["hidden_size"] = json!(128), all, &["has shape", "by config.json"]),
        (
            "gptq-v1",
            same,
            |t| {
                let names: Vec<String> =
                    t.keys().filter(|name| name.ends_with("weight") && name.contains("proj")).cloned().collect();
                for name in names {
                    t.remove(&name);
                }
            },
            &["no tensor `….qweight`", "remove the key"],
        ),
        (
            "awq-gemm",
            |c| c["quantization_config"]["version"] = json!("marlin"),
            all,
            &["`quantization_config.version` is `marlin`", "gemm, gemv, gemv_fast"],
        ),
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["version"] = json!("llm-awq"),
            all,
            &["is `llm-awq`", "gemv_fast"],
        ),
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["version"] = json!("gemm"),
            all,
            &["has data type I16, expected I32"],
        ),
        (
            "awq-gemv-fast",
            same,
            |t| shorter(t, ".qweight"),
            &["gate_proj.scales` has shape [32, 128], expected [32, 124]"],
        ),
        (
            "awq-gemv-fast",
            same,
            |t| shorter(t, ".qzeros"),
            &["gate_proj.qzeros` has shape [31, 128], expected [32, 128]"],
        ),
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["group_size"] = json!(1),
            all,
            &["down_proj.scales` has shape [32, 64], expected numbers of groups of 1 columns", "for 128 columns"],
        ),
        (
            "awq-gemv-fast",
            same,
            |t| t.get_mut(&part(".qweight")).expect("there").1 = vec![64, 32],
            &["gate_proj.qweight` has shape [64, 32], expected [rows / 4, a multiple of 64]"],
        ),
        (
            "awq-gemm",
            |c| c["quantization_config"]["bits"] = json!(8),
            all,
            &["`quantization_config.bits` is `8`", "supports 4"],
        ),
        ("awq-gemm", same, |t| shorter(t, ".scales"), &["gate_proj.qzeros` has shape [2, 12], expected [1, 12]"]),
        (
            "auto-round",
            |c| c["quantization_config"]["packing_format"] = json!("auto_round:marlin"),
            all,
            &["packing_format"],
        ),
        (
            "auto-round",
            |c| c["quantization_config"]["data_type"] = json!("mx_fp4"),
            all,
            &["`quantization_config.data_type` is `mx_fp4`"],
        ),
        (
            "ct-4-bits",
            |c| c["quantization_config"]["format"] = json!("marlin-24"),
            all,
            &["`quantization_config.format` is `marlin-24`", "pack-quantized"],
        ),
        ("ct-4-bits", |c| c["quantization_config"]["transform_config"] = json!({"a": 1}), all, &["transform_config"]),
        (
            "ct-4-bits",
            |c| c["quantization_config"]["config_groups"]["group_0"]["weights"]["type"] = json!("float"),
            all,
            &["config_groups.group_0.weights.type", "int"],
        ),
        (
            "ct-4-bits",
            same,
            |t| t.get_mut(&part(".weight_shape")).expect("there").2[..8].copy_from_slice(&(-1i64).to_le_bytes()),
            &["gate_proj.weight_shape`: element 0 is -1"],
        ),
        (
            "ct-4-bits",
            same,
            |t| t.get_mut(&part(".weight_shape")).expect("there").2[8..].copy_from_slice(&80i64.to_le_bytes()),
            &["gate_proj.weight_packed` has shape [96, 8], expected words of 80 columns of 4 bits"],
        ),
        (
            "ct-bitmask",
            same,
            |t| t.get_mut(&part(".bitmask")).expect("there").2[0] = 0xFF,
            &["gate_proj.bitmask`: element 0 is 255, expected two bits of every four"],
        ),
        ("torchao", same, |t| shorter(t, "._weight_scale"), &["gate_proj._weight_scale` has shape [95, 2]", "torchao"]),
        // Padded numbers do not say how many groups there are: a size that the weights do not have would go unnoticed.
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["group_size"] = json!(64),
            all,
            &["down_proj.scales`: has numbers of 4 groups a row, and 128 columns have 2 of 64", "`group_size`"],
        ),
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["group_size"] = json!(16),
            all,
            &["down_proj.scales`: has numbers of 4 groups a row, and 128 columns have 8 of 16"],
        ),
        (
            "awq-gemv-fast",
            |c| c["quantization_config"]["group_size"] = json!(48),
            all,
            &["down_proj.scales` has shape", "groups of 48 columns"],
        ),
        ("gptq-v1", |c| c["quantization_config"]["bits"] = json!("4"), all, &["`quantization_config.bits` is \"4\""]),
        (
            "gptq-v1",
            |c| drop(c["quantization_config"].as_object_mut().expect("an object").remove("bits")),
            all,
            &["key `quantization_config.bits` is missing"],
        ),
        ("gptq-v1", |c| c["quantization_config"]["quant_method"] = json!(4), all, &["quant_method` is 4"]),
        (
            "gptq-v1",
            |c| c["quantization_config"] = json!(null),
            all,
            &["quantized by GPTQ", "no `quantization_config` that says how", "fetch the config.json"],
        ),
        (
            "ct-4-bits",
            |c| c["quantization_config"]["config_groups"] = json!({}),
            all,
            &["down_proj.weight_packed`: no group of `quantization_config.config_groups` says of how many bits"],
        ),
        ("gptq-v1", |c| c["quantization_config"]["group_size"] = json!(0), all, &["group_size` is 0, expected"]),
        ("gptq-v1", |c| c["quantization_config"] = json!("gptq"), all, &["`quantization_config` is \"gptq\""]),
        // Without the header's word for it the shapes tell, and these tell nothing.
        ("torchao-int4", same, |t| shorter(t, "._weight_scale"), &["gate_proj._weight_zero_point` has shape [2, 96]"]),
        (
            "torchao-int4",
            same,
            |t| drop(t.remove(&part("._weight_zero_point"))),
            &["gate_proj._weight_zero_point` is missing"],
        ),
        (
            "torchao-int4",
            same,
            |t| {
                let scales = t[&part("._weight_scale")].clone();
                t.insert(part("._weight_act_pre_scale"), scales);
            },
            &["gate_proj._weight_act_pre_scale", "multiplies the inputs"],
        ),
        (
            "torchao-int4",
            same,
            |t| {
                let square = |width: usize| (Dtype::BF16, vec![96, 96], vec![0; 96 * width * 2]);
                t.insert(part("._weight_scale"), square(96));
                t.insert(part("._weight_qdata"), (Dtype::I8, vec![96, 96], vec![0; 96 * 96]));
            },
            &["gate_proj._weight_qdata", "can be an Int4Tensor", "save_pretrained"],
        ),
    ];
    let mut failures = Vec::new();
    for (name, configuration, tensors, expected) in cases {
        let directory = changed(name, configuration, tensors);
        let error = open_outline(directory.path()).err().map(|error| error.to_string()).unwrap_or_default();
        if !expected.iter().all(|part| error.contains(part)) {
            failures.push(format!("{name}: {expected:?} in {error:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn settings_beside_the_weights_that_cannot_be_read_are_named() {
    let directory = changed("awq-gemv-beside", |_| {}, |_| {});
    let settings = directory.path().join("quant_config.json");
    let error = || open_outline(directory.path()).expect_err("it is not read").to_string();
    let stated = fs::read_to_string(&settings).expect("it is there");
    fs::write(&settings, stated.replace("32", "128")).expect("writes");
    assert!(error().contains("expected numbers of groups of 128 columns"), "{}", error());
    fs::write(&settings, "{\"w_bit\": 4").expect("writes");
    assert!(error().contains("quant_config.json: not valid JSON"), "{}", error());
    fs::remove_file(&settings).expect("removes");
    std::os::unix::fs::symlink("../../blobs/gone", &settings).expect("links");
    assert!(error().contains("quant_config.json: a link to ../../blobs/gone"), "{}", error());
}

#[test]
fn kinds_of_torchao_that_are_not_read_are_refused_by_name() {
    let directory = changed("torchao-int4", |_| {}, |_| {});
    let file = directory.path().join("model.safetensors");
    let bytes = fs::read(&file).expect("it is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("sound");
    let name = format!("{GATE}.weight");
    for kind in ["Float8Tensor", "Int4TilePackedTo4dTensor", "NVFP4Tensor"] {
        let stated = HashMap::from([(name.clone(), format!("{{\"_type\": \"{kind}\"}}"))]);
        let written = safetensors::serialize(tensors.tensors(), Some(stated)).expect("sound");
        fs::remove_file(&file).expect("removes");
        fs::write(&file, written).expect("writes");
        let error = open_outline(directory.path()).expect_err("it is not read").to_string();
        let parts = [&name, kind, "Int4WeightOnlyConfig", "model.safetensors"];
        assert!(parts.iter().all(|part| error.contains(part)), "{kind}: {error}");
    }
}

#[test]
fn values_that_are_not_finite_are_named_when_they_are_read() {
    let directory =
        changed("gptq-v1", |_| {}, |t| t.get_mut(&part(".scales")).expect("there").2[..2].copy_from_slice(&[0, 0x7C]));
    assert!(open_outline(directory.path()).is_ok());
    let model = open_model(directory.path()).expect("values are not read");
    let id = slmc::model::id::ParameterId::weight("layers.0.ffn.gate".parse().expect("a name"));
    let Err(error) = model.values_f32(id) else { panic!("a scale is infinite") };
    let error = error.to_string();
    assert!(error.contains("gate_proj.weight") && error.contains("model.safetensors"), "{error}");
}

#[test]
fn other_methods_are_refused_by_name_with_what_to_do() {
    let cases = [
        (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "bitsandbytes (4 bits)"),
        (json!({"quant_method": "hqq"}), "HQQ"),
        (json!({"quant_method": "fp8"}), "FP8"),
        (json!({"quant_method": "vptq"}), "vptq"),
        (json!({"quant_method": "bitnet"}), "BitNet"),
    ];
    for (section, expected) in cases {
        let directory = changed("gptq-v1", |config| config["quantization_config"] = section.clone(), |_| {});
        let error = open_outline(directory.path()).expect_err("it is not read").to_string();
        assert!(error.contains(expected) && error.contains("dequantize"), "{expected:?} in {error}");
    }
}

#[test]
fn mutated_checkpoints_never_panic() {
    let mut state = 3u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut opened = 0;
    for name in PACKED {
        let directory = changed(name, |_| {}, |_| {});
        let files = ["config.json", "model.safetensors"].map(|file| {
            let path = directory.path().join(file);
            (path.clone(), fs::read(path).expect("it is there"))
        });
        for round in 0..90 {
            for (index, (path, bytes)) in files.iter().enumerate() {
                let mut bytes = bytes.clone();
                let reach = match index {
                    0 => bytes.len(),
                    // The header, or anywhere.
                    _ if round % 3 == 0 => bytes.len(),
                    _ => bytes.len().min(3000),
                };
                if round % 2 == index {
                    for _ in 0..1 + round % 3 {
                        let (at, value) = (random() % reach, random() as u8);
                        bytes[at] = if round % 3 == 0 { value } else { b"0123456789\"{}[],:nft"[value as usize % 20] };
                    }
                }
                // What still maps the file before keeps its bytes.
                let _ = fs::remove_file(path);
                fs::write(path, bytes).expect("writes");
            }
            let Ok(model) = open_model(directory.path()) else { continue };
            opened += 1;
            for id in model.parameters.keys() {
                let _ = model.values_f32(*id);
            }
        }
    }
    assert!(opened > 0, "some changes leave a checkpoint sound");
}
