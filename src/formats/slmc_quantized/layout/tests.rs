//! Writing and reading back, equal bytes for equal models, and refusal of numbers the kernels could not take.

use super::*;
use crate::disk::DenseTensor;
use crate::formats::hugging_face::{CONFIG_FILE, companions};
use crate::formats::{open_model, open_outline};
use crate::model::families;
use crate::model::id::Role;
use crate::model::scheme::SCHEMES;
use crate::model::spec::ParameterShape;
use std::fs;

/// A tied two-layer llama without weights on disk: every scheme in turn, key maps, one matrix left dense.
fn model(directory: &Path) -> Model {
    let Value::Object(map) = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 11,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "made_up_key": {"z": 1, "a": 2},
    }) else {
        panic!("an object")
    };
    let config = Config::from_map(&directory.join("config.json"), map);
    let spec = families::spec(&config).unwrap();
    let mut parameters = BTreeMap::new();
    let key_maps = spec.key_maps();
    let all = spec.parameters().into_iter().chain(key_maps);
    for (n, ParameterShape { id, shape }) in all.enumerate() {
        let dense = LinearId::layer(1, Role::Up);
        let value = match id {
            ParameterId::Linear(matrix, Part::Weight) if matrix != dense => {
                Parameter::Quantized(matrix_of(SCHEMES[n % SCHEMES.len()].scheme, shape[0], shape[1], n))
            }
            _ => {
                let values: Vec<f32> =
                    (0..shape.iter().product()).map(|i: usize| (i + n) as f32 * 0.37 - 1.0).collect();
                Parameter::Dense(DenseTensor::from_f32(shape, &values).unwrap())
            }
        };
        parameters.insert(id, value);
    }
    Model { spec, config, parameters, companions: companions(directory), path: directory.to_owned() }
}

fn matrix_of(scheme: QuantScheme, rows: usize, columns: usize, seed: usize) -> QuantizedMatrix {
    let value = |i: usize| {
        let (low, high) = scheme.of_row(i / columns).def().range;
        let range = i32::from(high) - i32::from(low) + 1;
        (i32::from(low) + (i * 7 + seed) as i32 % range) as i8
    };
    let values = Array2::from_shape_fn((rows, columns), |(row, column)| value(row * columns + column));
    let row_scale = (0..rows).map(|i| (i + seed) as f32 * 0.01).collect();
    let (multiplied, groups) = scheme.multiplier_shape((rows, columns));
    let multiplier = (0..multiplied * groups).map(|i| [-127, -1, 1, 127][(i + seed) % 4]).collect();
    QuantizedMatrix::new(scheme, values, row_scale, multiplier)
}

fn provenance() -> Value {
    json!({"schema": "slmc.provenance/1", "tool": "slmc 0", "inputs": [], "stage": "quantize", "metrics": {}})
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn what_is_written_is_read_back_and_equal_models_give_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("tokenizer.json"), "{}").unwrap();
    fs::write(source.join("notes.txt"), "stays behind").unwrap();
    let model = model(&source);
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    write(&model, &provenance(), &first).unwrap();
    let read = open_model(&first).unwrap();
    assert_eq!(read.parameters, model.parameters);
    assert_eq!(read.spec, model.spec);
    assert_eq!(read.schemes(), model.schemes());
    assert!(read.is_quantized());
    let outline = open_outline(&first).unwrap();
    assert_eq!((outline.schemes, outline.key_maps), (Some(model.schemes()), true));

    write(&read, &provenance(), &second).unwrap();
    write(&model, &provenance(), &first).unwrap();
    let files_of_first = files(&first);
    assert!(files_of_first == files(&second));
    let names: Vec<&str> = files_of_first.keys().map(String::as_str).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "slmc.json", "tokenizer.json"]);
    let config: Value = serde_json::from_slice(&files_of_first["config.json"]).unwrap();
    assert_eq!(config["made_up_key"], json!({"z": 1, "a": 2}));
    assert_eq!(
        config[KEY]["schemes"]["layers.0.attn.k"],
        json!(model.schemes()[&LinearId::layer(0, Role::Key)].to_string())
    );
    assert!(config[KEY]["schemes"].get("layers.1.ffn.up").is_none());
}

#[test]
fn numbers_outside_a_scheme_are_refused_before_writing_and_on_reading() {
    let dir = tempfile::tempdir().unwrap();
    let good = model(dir.path());
    let ids = |scheme| good.schemes().into_iter().find(|(_, s)| *s == scheme).unwrap().0;
    let (w8, w4) = (ids(QuantScheme::W8), ids(QuantScheme::W4G32));
    let (wide, w3) = (ids(QuantScheme::W4G64), ids(QuantScheme::W3G32));
    type Damage = fn(&mut QuantizedMatrix);
    let cases: [(LinearId, Damage, &str); 13] = [
        (wide, |m| m.values[[0, 1]] = 8, ".values: element 1 is 8, expected an integer in [-8, 7]"),
        (wide, |m| m.values = Array2::zeros((1, 16_672)), "16672 columns, w4.g64 allows at most 16640"),
        (w3, |m| m.values[[0, 1]] = 4, ".values: element 1 is 4, expected an integer in [-4, 3]"),
        (w3, |m| m.values[[0, 1]] = -5, ".values: element 1 is -5"),
        (w8, |m| m.values[[0, 3]] = -128, ".values: element 3 is -128, expected an integer in [-127, 127]"),
        (w4, |m| m.values[[0, 1]] = 8, ".values: element 1 is 8, expected an integer in [-8, 7]"),
        (w4, |m| m.values[[0, 1]] = -9, ".values: element 1 is -9"),
        (w4, |m| m.multiplier[[2, 0]] = 0, ".multiplier: element 2 is 0"),
        (w4, |m| m.multiplier[[2, 0]] = -128, ".multiplier: element 2 is -128"),
        (w8, |m| m.row_scale[0] = f32::NAN, ".row_scale: element 0 is NaN"),
        (w8, |m| m.row_scale[0] = -1.0, ".row_scale: element 0 is -1"),
        (w4, |m| m.row_scale.truncate(1), ".row_scale: 1 elements, expected"),
        (w8, |m| m.values = Array2::zeros((1, 200_000)), "200000 columns, w8 allows at most 133000"),
    ];
    for (id, damage, expected) in cases {
        let mut bad = good.clone();
        let Some(Parameter::Quantized(matrix)) = bad.parameters.get_mut(&ParameterId::weight(id)) else {
            panic!("{id} is quantized")
        };
        damage(matrix);
        let error = write(&bad, &provenance(), &dir.path().join("out")).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&id.to_string()), "{error}");
    }
    assert!(!dir.path().join("out").exists());

    // The same, in the file: the byte of the first multiplier of a w4.g32 matrix becomes 0.
    let out = dir.path().join("out");
    write(&good, &provenance(), &out).unwrap();
    let path = out.join(WEIGHTS_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let description: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = description[format!("{w4}.multiplier")]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + start] = 0;
    fs::write(&path, bytes).unwrap();
    let error = open_model(&out).unwrap_err().to_string();
    assert!(error.contains(&format!("{w4}.multiplier: element 0 is 0")), "{error}");
    assert!(open_outline(&out).is_ok());
}

#[test]
fn foreign_and_future_quantization_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    write(&model(dir.path()), &provenance(), &out).unwrap();
    let text = fs::read_to_string(out.join(CONFIG_FILE)).unwrap();
    let original: Value = serde_json::from_str(&text).unwrap();
    let cases: [(&[&str], Value, &str); 8] = [
        (&["quant_method"], json!("hqq"), "`quantization_config.quant_method` is `hqq`"),
        (&["version"], json!(2), "`quantization_config.version` is `2`; slmc supports 1"),
        (&["sparsity", "embed.token"], json!("2:4"), "`quantization_config.sparsity.embed.token` is `2:4`"),
        (&["group_size"], json!(64), "`quantization_config.group_size` is `64`"),
        (
            &["schemes", "embed.token"],
            json!("w3"),
            "`quantization_config.schemes.embed.token` is `w3`; slmc supports w8, w4.g32",
        ),
        (&["schemes", "embed.tokens"], json!("w8"), "`quantization_config.schemes.embed.tokens` is \"w8\""),
        (&["schemes", "layers.7.attn.q"], json!("w8"), "no parameter `layers.7.attn.q.weight`"),
        (&["schemes", "layers.1.ffn.up"], json!("w8"), "tensor `layers.1.ffn.up.row_scale` is missing"),
    ];
    for (path, value, expected) in cases {
        let mut config = original.clone();
        let place = path.iter().fold(&mut config[KEY], |at, key| &mut at[*key]);
        *place = value;
        fs::write(out.join(CONFIG_FILE), config.to_string()).unwrap();
        let error = open_model(&out).unwrap_err().to_string();
        assert!(error.contains(expected), "{path:?}: {error}");
    }
}

#[test]
fn a_dense_model_is_not_written_as_a_quantized_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut dense = model(dir.path());
    dense.parameters.retain(|_, parameter| matches!(parameter, Parameter::Dense(_)));
    let error = write(&dense, &provenance(), &dir.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("no matrix is quantized"), "{error}");
}

/// A table of which the first 64 rows are in 8 bits.
#[test]
fn a_split_is_written_read_back_and_checked_by_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = model(dir.path());
    let table = LinearId::global(Role::TokenEmbedding);
    let scheme = QuantScheme::Split { wide_rows: 64 };
    good.spec.vocabulary = 75;
    let mut config = good.config.map().clone();
    config.insert("vocab_size".into(), json!(75));
    good.config = Config::from_map(&dir.path().join("config.json"), config);
    good.parameters.insert(ParameterId::weight(table), Parameter::Quantized(matrix_of(scheme, 75, 8, 3)));
    let out = dir.path().join("out");
    write(&good, &provenance(), &out).unwrap();
    let read = open_model(&out).unwrap();
    assert_eq!(read.parameters, good.parameters);
    assert_eq!(read.schemes()[&table], scheme);
    type Damage = fn(&mut QuantizedMatrix);
    let cases: [(Damage, &str); 5] = [
        (|m| m.values[[63, 0]] = -128, "values: element 504 is -128, expected an integer in [-127, 127]"),
        (|m| m.values[[64, 0]] = 8, "values: element 512 is 8, expected an integer in [-8, 7]"),
        (|m| m.multiplier = Array2::ones((12, 1)), "multiplier: 12 elements, expected 11"),
        (
            |m| m.scheme = QuantScheme::Split { wide_rows: 128 },
            "`embed.token` has 75 rows, which leaves no second part",
        ),
        (|m| m.scheme = QuantScheme::W4G32, "multiplier: 11 elements, expected 75"),
    ];
    for (damage, expected) in cases {
        let mut bad = good.clone();
        let Some(Parameter::Quantized(matrix)) = bad.parameters.get_mut(&ParameterId::weight(table)) else {
            panic!("{table} is quantized")
        };
        damage(matrix);
        let error = write(&bad, &provenance(), &dir.path().join("bad")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let text = fs::read_to_string(out.join(CONFIG_FILE)).unwrap();
    let original: Value = serde_json::from_str(&text).unwrap();
    for (name, scheme, expected) in [
        ("embed.token", "w8:65+w4.g32", "is `w8:65+w4.g32`; slmc supports w8, w4.g32, w4.g64, w3.g32, w8:ROWS+w4.g32"),
        ("embed.token", "w8:64+w4", "is `w8:64+w4`; slmc supports"),
        ("embed.token", "w8:128+w4.g32", "schemes: `embed.token` has 75 rows, which leaves no second part"),
        ("layers.0.attn.q", "w8:64+w4.g32", "schemes: `layers.0.attn.q` cannot be w8:64+w4.g32: only the rows of"),
    ] {
        let mut config = original.clone();
        config[KEY]["schemes"][name] = json!(scheme);
        fs::write(out.join(CONFIG_FILE), config.to_string()).unwrap();
        let error = open_model(&out).unwrap_err().to_string();
        assert!(error.contains(expected), "{name} {scheme}: {error}");
    }
}
