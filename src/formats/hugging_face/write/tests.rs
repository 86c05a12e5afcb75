//! Data types, spellings and refusals, on a checkpoint written here.

use super::*;
use crate::disk::{Config, PROVENANCE_FILE, TensorError};
use crate::formats::hugging_face::{CONFIG_FILE, companions};
use crate::formats::open_model;
use crate::model::families;
use crate::model::id::{NormSite, Part};
use crate::progress::Silent;
use std::fs;

fn config_json() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11, "max_position_embeddings": 16,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "rope_theta": 500.0, "torch_dtype": "float32",
    })
}

/// A model in memory whose values are eighths, which every data type holds.
fn model(directory: &Path, config: Value) -> Model {
    let Value::Object(map) = config else { panic!("an object") };
    let config = Config::from_map(&directory.join(CONFIG_FILE), map);
    let spec = families::spec(&config).unwrap();
    let tensor = |(n, parameter): (usize, crate::model::spec::ParameterShape)| {
        let count = parameter.shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i: usize| ((i * 7 + n) % 33) as f32 / 8.0 - 2.0).collect();
        (parameter.id, Parameter::Dense(DenseTensor::from_f32(parameter.shape, &values).unwrap()))
    };
    let parameters = spec.parameters().into_iter().enumerate().map(tensor).collect();
    Model { spec, config, parameters, companions: companions(directory), path: directory.to_owned() }
}

/// The model as a checkpoint of another data type and prefix, written by hand and opened.
fn stored(directory: &Path, dtype: DenseType, prefix: &str) -> Model {
    let model = model(directory, config_json());
    let source = |id| (families::Family::of(&model.config).unwrap().source)(&model.spec, id).unwrap();
    let tensors = model.spec.parameters().into_iter().map(|parameter| NewTensor {
        name: source(parameter.id).names(prefix).remove(0),
        dtype: stored_type(dtype),
        shape: parameter.shape,
        bytes: Box::new(|| Cow::Owned(Vec::new())),
    });
    let mut tensors: Vec<NewTensor<'_>> = tensors.collect();
    for (tensor, parameter) in tensors.iter_mut().zip(model.spec.parameters()) {
        let bytes = dtype.encode(&model.values_f32(parameter.id).unwrap());
        tensor.bytes = Box::new(move || Cow::Owned(bytes.clone()));
    }
    fs::create_dir_all(directory).unwrap();
    tensor_file::write(&directory.join(WEIGHTS_FILE), tensors).unwrap();
    fs::write(directory.join(CONFIG_FILE), Value::Object(model.config.map().clone()).to_string()).unwrap();
    fs::write(directory.join("tokenizer.json"), "{}").unwrap();
    fs::write(directory.join("notes.txt"), "stays behind").unwrap();
    open_model(directory).unwrap()
}

fn norm() -> ParameterId {
    ParameterId::Norm(None, NormSite::Final, Part::Weight)
}

fn written(out: &Path) -> (Value, Model) {
    let config: Value = serde_json::from_slice(&fs::read(out.join(CONFIG_FILE)).unwrap()).unwrap();
    (config, open_model(out).unwrap())
}

#[test]
fn data_type_and_prefix_stay_where_every_value_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (dtype, name) in [(DenseType::F16, "float16"), (DenseType::Bf16, "bfloat16"), (DenseType::F32, "float32")] {
        for prefix in ["model.", ""] {
            let model = stored(&dir.path().join(format!("{name}{prefix}")), dtype, prefix);
            let zeros = BTreeMap::from([(norm(), vec![0.5; 8])]);
            write(&model.clone().with_values(zeros).unwrap(), &json!({"stage": "test"}), &out, None, &Silent).unwrap();
            let (config, again) = written(&out);
            assert_eq!((&config["dtype"], &config["torch_dtype"]), (&json!(name), &json!(name)));
            assert_eq!(again.values_f32(norm()).unwrap(), [0.5; 8]);
            for (id, parameter) in &again.parameters {
                let Parameter::Dense(tensor) = parameter else { panic!("dense") };
                assert_eq!(tensor.dtype(), dtype, "{id}");
                assert_eq!(*id == norm(), *parameter != model.parameters[id], "{id}");
                let Parameter::Dense(original) = &model.parameters[id] else { panic!("dense") };
                assert_eq!(tensor.stored_name(), original.stored_name());
            }
            // One value that 16 bits do not hold turns the whole model into f32, and nothing is rounded.
            let odd = BTreeMap::from([(norm(), vec![0.1f32; 8])]);
            write(&model.clone().with_values(odd).unwrap(), &json!({"stage": "test"}), &out, None, &Silent).unwrap();
            let (config, again) = written(&out);
            assert_eq!((&config["dtype"], &config["torch_dtype"]), (&json!("float32"), &json!("float32")));
            assert_eq!(again.values_f32(norm()).unwrap(), [0.1; 8]);
            for (id, parameter) in &again.parameters {
                let Parameter::Dense(tensor) = parameter else { panic!("dense") };
                assert_eq!(tensor.dtype(), DenseType::F32, "{id}");
                if *id != norm() {
                    assert_eq!(again.values_f32(*id).unwrap(), model.values_f32(*id).unwrap(), "{id}");
                }
            }
        }
    }
    let mut names: Vec<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE, "tokenizer.json"]);
}

#[test]
fn rotary_settings_are_written_in_both_spellings() {
    let dir = tempfile::tempdir().unwrap();
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    });
    let mut with_theta = llama3.clone();
    with_theta["rope_theta"] = json!(500.0);
    let mut old_type = llama3.clone();
    old_type["type"] = json!("llama3");
    old_type.as_object_mut().unwrap().shift_remove("rope_type");
    let cases = [
        (json!({"rope_theta": 500.0}), json!({"rope_type": "default", "rope_theta": 500.0}), Value::Null),
        (json!({"rope_theta": 500.0, "rope_scaling": llama3}), with_theta.clone(), llama3.clone()),
        (json!({"rope_theta": 500.0, "rope_scaling": old_type}), with_theta.clone(), old_type.clone()),
        (json!({"rope_parameters": with_theta}), with_theta.clone(), llama3.clone()),
        (
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
            json!({"rope_type": "default", "rope_theta": 500.0}),
            Value::Null,
        ),
    ];
    for (n, (settings, new, old)) in cases.into_iter().enumerate() {
        let mut config = config_json();
        config.as_object_mut().unwrap().shift_remove("rope_theta");
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let (model, out) = (model(dir.path(), config), dir.path().join(n.to_string()));
        write(&model, &json!({}), &out, None, &Silent).unwrap();
        let (config, again) = written(&out);
        assert_eq!(again.spec, model.spec, "{settings}");
        assert_eq!(config["rope_parameters"], new, "{settings}");
        assert_eq!(config["rope_theta"], json!(500.0), "{settings}");
        assert_eq!(config.get("rope_scaling").unwrap_or(&Value::Null), &old, "{settings}");
    }
}

#[test]
fn what_a_dense_directory_cannot_hold_is_refused_before_writing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let good = model(dir.path(), config_json());
    let refused = |model: &Model| write(model, &json!({}), &out, None, &Silent).unwrap_err().to_string();

    let mut bad = good.clone();
    bad.parameters.remove(&norm());
    assert!(refused(&bad).contains("parameter `final.norm.weight` is missing"), "{}", refused(&bad));

    let mut bad = good.clone();
    bad.parameters.insert(norm(), Parameter::Dense(DenseTensor::from_f32(vec![2, 4], &[1.0; 8]).unwrap()));
    assert!(refused(&bad).contains("`final.norm.weight` has shape [2, 4], expected [8]"), "{}", refused(&bad));

    let mut bad = good.clone();
    let map = ParameterId::KeyMap(0, crate::model::id::KeyMapPart::Mean);
    bad.parameters.insert(map, Parameter::Dense(DenseTensor::from_f32(vec![2, 4], &[1.0; 8]).unwrap()));
    assert!(refused(&bad).contains("`layers.0.attn.key_map.mean` has no place"), "{}", refused(&bad));

    let nan = good.clone().with_values(BTreeMap::from([(norm(), vec![f32::NAN; 8])])).unwrap();
    assert!(refused(&nan).contains("`final.norm.weight`: element 0 is NaN"), "{}", refused(&nan));
    assert!(!out.exists());

    let few = good.clone().with_values(BTreeMap::from([(norm(), vec![1.0; 7])])).unwrap_err();
    assert!(matches!(few, ModelError::Tensor(TensorError::Length { expected: 8, found: 7, .. })));
    let unknown = ParameterId::weight(LinearId::global(Role::Pooler));
    let unknown = good.with_values(BTreeMap::from([(unknown, vec![1.0])])).unwrap_err().to_string();
    assert!(unknown.contains("no parameter `head.pooler.weight`"), "{unknown}");
}
