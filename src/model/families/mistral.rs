//! Mistral: Llama with a sliding window. `sliding_window` is honoured in every layer: position i attends to
//! i − window + 1 … i. Null means no window; an absent key means 4096, as in transformers.

use super::decoder::{self, copies, ignored, source};
use super::fewer_layers::alike;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::{Value, json};

const NAME: &str = "mistral";
const DEFAULT_WINDOW: usize = 4096;

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    classifier: None,
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, "MistralForCausalLM")?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    decoder::require_key_value_heads(config)?;
    let own = [("layer_types", Value::Null), ("attention_bias", json!(false)), ("mlp_bias", json!(false))];
    refuse_unless(config, NAME, &own)?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?, None)?;
    let attention = AttentionSpec { window: decoder::window(config, Some(DEFAULT_WINDOW))?, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps", 1e-6)?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm, false)
}
