//! genai_config.json, by which onnxruntime-genai runs a decoder: its sizes, the names of the graph's inputs and outputs,
//! special tokens, and how tokens are chosen.

use super::file::MODEL_FILE;
use super::variant::Operators;
use crate::disk::{Config, ConfigError};
use crate::model::companions::Companions;
use crate::model::generation;
use crate::model::spec::ModelSpec;
use serde_json::{Map, Value, json};
use slm_runtime::sample::{ALL, Sampling};

/// The file.
pub(super) const GENAI_FILE: &str = "genai_config.json";

/// What onnxruntime-genai calls a decoder whose graph is the usual one, of whatever family.
const PLAIN_DECODER: &str = "decoder";
/// Families that it runs as such a decoder under their own names; it refuses names that it does not know. GPT-2 is not
/// among them: the class for it looks for inputs that these graphs do not have.
const KNOWN: [&str; 10] =
    ["gemma2", "gemma3_text", "granite", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3", "smollm3"];

/// The configuration of a decoder.
///
/// # Errors
/// Special tokens or settings of generation that are not sound.
pub(super) fn config(
    spec: &ModelSpec,
    config: &Config,
    companions: &Companions,
    operators: Operators,
) -> Result<Value, ConfigError> {
    let sampling = generation::read(companions)?.sampling;
    let kind = if KNOWN.contains(&spec.family) { spec.family } else { PLAIN_DECODER };
    let first =
        |key: &str| -> Result<Option<u32>, ConfigError> { Ok(config.tokens(key, spec.vocabulary)?.first().copied()) };
    let mut model = Map::new();
    model.insert("type".to_owned(), json!(kind));
    if let Some(token) = first("bos_token_id")?.or(spec.opening.first().copied()) {
        model.insert("bos_token_id".to_owned(), json!(token));
    }
    // Without an end the search would go on to its longest text, which is what a model without one does.
    if !spec.ends.is_empty() {
        model.insert("eos_token_id".to_owned(), json!(spec.ends));
    }
    if let Some(token) = first("pad_token_id")?.or(spec.ends.first().copied()) {
        model.insert("pad_token_id".to_owned(), json!(token));
    }
    model.insert("context_length".to_owned(), json!(spec.context));
    model.insert("vocab_size".to_owned(), json!(spec.vocabulary));
    model.insert("decoder".to_owned(), decoder(spec, operators));
    Ok(json!({ "model": model, "search": search(spec, &sampling) }))
}

/// What is said of settings that onnxruntime-genai does not have.
///
/// # Errors
/// Settings of generation that are not sound.
pub(super) fn note(companions: &Companions) -> Result<Option<String>, ConfigError> {
    let sampling = generation::read(companions)?.sampling;
    let shares = generation::sampling_json(&sampling);
    Ok((sampling.min_p > 0).then(|| {
        format!(
            "genai_config.json leaves out min_p, here {}, which onnxruntime-genai does not have: it draws tokens that \
             slmc never takes; set top_p or top_k there",
            shares["min_p"]
        )
    }))
}

fn decoder(spec: &ModelSpec, operators: Operators) -> Value {
    let attention = spec.layers.first().and_then(|layer| layer.attention());
    let [heads, shared, width] = attention.map_or([0; 3], |of| [of.heads, of.key_value_heads, of.head_dim]);
    let mut session = json!({"log_id": "onnxruntime-genai", "provider_options": []});
    if operators == Operators::Standard {
        // It finds MatMulNBits in this variant and would round the inputs to 8 bits.
        session["session.qdq_matmulnbits_accuracy_level"] = json!("1");
    }
    json!({
        "filename": MODEL_FILE,
        "head_size": width,
        "hidden_size": spec.hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "num_hidden_layers": spec.layers.len(),
        "session_options": session,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    })
}

/// How tokens are chosen. The cache grows with the text: a buffer of the longest text would take its memory from the start.
fn search(spec: &ModelSpec, sampling: &Sampling) -> Value {
    // The shortest decimal of the f32, as the file has it.
    let short = |value: f32| value.to_string().parse::<f64>().unwrap_or(f64::from(value));
    let draws = sampling.temperature != 0.0;
    json!({
        "max_length": spec.context,
        "min_length": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "do_sample": draws,
        "temperature": if draws { short(sampling.temperature) } else { 1.0 },
        // Without a limit 0 in both; of 1 the likeliest token is taken, whatever `do_sample` says.
        "top_k": if draws { sampling.top_k } else { 1 },
        "top_p": if draws { f64::from(sampling.top_p) / f64::from(ALL) } else { 1.0 },
        "repetition_penalty": short(sampling.repetition_penalty),
        "past_present_share_buffer": false,
    })
}
