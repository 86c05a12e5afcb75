//! Mistral: Llama with a sliding window. `sliding_window` is honoured in every layer: position i attends to
//! i − window + 1 … i. Null means no window; an absent key means 4096, as in transformers.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::{Value, json};

const NAME: &str = "mistral";
const ARCHITECTURE: &str = "MistralForCausalLM";
const CLASSIFIER: &str = "MistralForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
    ("vocab_size", ClassDefault::Size(32000)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(8)),
    ("intermediate_size", ClassDefault::Size(14336)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(131_072)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("sliding_window", ClassDefault::Count(4096)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family =
    Family { classifier: Some(CLASSIFIER), ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let class = decoder::class(config, NAME, ARCHITECTURE, CLASSIFIER)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [("layer_types", Value::Null), ("attention_bias", json!(false)), ("mlp_bias", json!(false))];
    refuse_unless(config, NAME, &own)?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let attention = AttentionSpec { window: decoder::window(config)?, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    class.of(config, decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)?)
}
