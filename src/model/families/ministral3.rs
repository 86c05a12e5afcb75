//! Ministral 3: Llama with YaRN's frequencies and heads of a width of their own. Queries at positions from
//! `original_max_position_embeddings` on have a factor that grows (`llama_4_scaling_beta`); the model is read up to there,
//! where the factor is 1.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::{Value, json};

pub(super) const NAME: &str = "ministral3";
const ARCHITECTURE: &str = "Ministral3ForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
    ("vocab_size", ClassDefault::Size(131_072)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(34)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(8)),
    ("head_dim", ClassDefault::Count(128)),
    ("intermediate_size", ClassDefault::Size(14336)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(262_144)),
    ("rms_norm_eps", ClassDefault::Number(1e-5)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec);

/// The configuration with the rotary settings of its class where it has none.
pub(super) fn with_rotary(config: &Config) -> Config {
    if config.value("rope_scaling").is_some() || config.value("rope_theta").is_some() {
        return config.clone();
    }
    let settings = json!({
        "rope_type": "yarn",
        "rope_theta": 1_000_000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    });
    config.with_defaults([("rope_parameters".to_owned(), settings)])
}

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let config = &with_rotary(config);
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [("layer_types", Value::Null), ("attention_bias", json!(false)), ("mlp_bias", json!(false))];
    refuse_unless(config, NAME, &own)?;
    let attention = decoder::attention(config, rotary(config, NAME, 1_000_000.0)?)?;
    let attention = AttentionSpec { window: decoder::window(config)?, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}
