//! Small valid checkpoints, to be damaged, and the check that they are refused.

use serde_json::{Value, json};
use slmc::formats::{ModelFormatError, open_model};
use slmc::model::device::device;
use slmc::model::forward::DenseWeights;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Tensor data by name: data type, shape, bytes.
pub(super) type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

pub(super) fn f32_tensor(shape: &[usize]) -> (String, Vec<usize>, Vec<u8>) {
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|i| ((i % 17) as f32 * 0.1 - 0.8).to_le_bytes()).collect();
    ("F32".to_owned(), shape.to_vec(), bytes)
}

pub(super) fn llama_config() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": [2, 3],
    })
}

pub(super) fn llama_tensors() -> Tensors {
    let layer = "model.layers.0.";
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize]| tensors.insert(name, f32_tensor(shape));
    add("model.embed_tokens.weight".into(), &[10, 8]);
    add("lm_head.weight".into(), &[10, 8]);
    add("model.norm.weight".into(), &[8]);
    add(format!("{layer}input_layernorm.weight"), &[8]);
    add(format!("{layer}post_attention_layernorm.weight"), &[8]);
    add(format!("{layer}self_attn.q_proj.weight"), &[8, 8]);
    add(format!("{layer}self_attn.k_proj.weight"), &[4, 8]);
    add(format!("{layer}self_attn.v_proj.weight"), &[4, 8]);
    add(format!("{layer}self_attn.o_proj.weight"), &[8, 8]);
    add(format!("{layer}mlp.gate_proj.weight"), &[12, 8]);
    add(format!("{layer}mlp.up_proj.weight"), &[12, 8]);
    add(format!("{layer}mlp.down_proj.weight"), &[8, 12]);
    tensors
}

pub(super) fn bert_config() -> Value {
    json!({
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10, "max_position_embeddings": 16,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "id2label": {"1": "b", "0": "a"},
    })
}

/// With TensorFlow's spelling of norms, and everything that is ignored.
pub(super) fn bert_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| tensors.insert(name.to_owned(), f32_tensor(shape));
    let mut pair = |stem: &str, out: usize, width: usize| {
        add(&format!("{stem}.weight"), &[out, width]);
        add(&format!("{stem}.bias"), &[out]);
    };
    let layer = "bert.encoder.layer.0.";
    for part in ["query", "key", "value"] {
        pair(&format!("{layer}attention.self.{part}"), 8, 8);
    }
    pair(&format!("{layer}attention.output.dense"), 8, 8);
    pair(&format!("{layer}intermediate.dense"), 12, 8);
    pair(&format!("{layer}output.dense"), 8, 12);
    pair("cls.predictions.transform.dense", 8, 8);
    pair("cls.predictions.decoder", 10, 8);
    pair("cls.seq_relationship", 2, 8);
    pair("bert.pooler.dense", 8, 8);
    for norm in
        ["bert.embeddings", &format!("{layer}attention.output"), &format!("{layer}output"), "cls.predictions.transform"]
    {
        add(&format!("{norm}.LayerNorm.gamma"), &[8]);
        add(&format!("{norm}.LayerNorm.beta"), &[8]);
    }
    add("cls.predictions.bias", &[10]);
    add("bert.embeddings.word_embeddings.weight", &[10, 8]);
    add("bert.embeddings.position_embeddings.weight", &[16, 8]);
    add("bert.embeddings.token_type_embeddings.weight", &[2, 8]);
    tensors.insert("bert.embeddings.position_ids".into(), ("I64".into(), vec![1, 16], vec![0; 128]));
    tensors
}

pub(super) fn header(tensors: &Tensors) -> Value {
    let mut offset = 0;
    let mut entries = serde_json::Map::new();
    for (name, (dtype, shape, bytes)) in tensors {
        let end = offset + bytes.len();
        entries.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    Value::Object(entries)
}

pub(super) fn file(header: &str, tensors: &Tensors) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    tensors.values().for_each(|(_, _, bytes)| out.extend_from_slice(bytes));
    out
}

pub(super) fn write(dir: &Path, config: &Value, tensors: &Tensors) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("model.safetensors"), file(&header(tensors).to_string(), tensors)).unwrap();
}

pub(super) fn expect(dir: &Path, fragments: &[&str]) {
    let error: ModelFormatError = match open_model(dir) {
        Ok(model) => match DenseWeights::new(&model, &device("flex").unwrap()) {
            Ok(_) => panic!("accepted, expected {fragments:?}"),
            Err(error) => error.into(),
        },
        Err(error) => error,
    };
    let text = format!("{:#}", Chain(&error));
    for fragment in fragments {
        assert!(text.contains(fragment), "expected {fragment:?} in: {text}");
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        self.0.source().map_or(Ok(()), |source| write!(f, ": {}", Chain(source)))
    }
}

/// A directory of its own with a llama that is valid until the test damages it.
pub(super) fn llama() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &llama_config(), &llama_tensors());
    open_model(dir.path()).unwrap();
    dir
}
