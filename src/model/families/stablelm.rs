//! StableLM: Llama with LayerNorms, heads of which a quarter turns, and biases on queries, keys and values where
//! `use_qkv_bias` says so. Models whose attention and network read the same norm (`use_parallel_residual`) or that norm their
//! queries head by head (`qk_layernorm`), the 12 B among them, are refused.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::narrower::WidthKeys;
use super::rotary::partial_rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::{Value, json};

const NAME: &str = "stablelm";
const ARCHITECTURE: &str = "StableLmForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
    ("vocab_size", ClassDefault::Size(50304)),
    ("hidden_size", ClassDefault::Size(2560)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(6912)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(4096)),
    ("layer_norm_eps", ClassDefault::Number(1e-5)),
    ("use_qkv_bias", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(0)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family {
    widths: WidthKeys { head_dim: None, ..decoder::WIDTHS },
    ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec)
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [
        ("use_parallel_residual", json!(false)),
        ("qk_layernorm", json!(false)),
        ("head_dim", Value::Null),
        ("layer_types", Value::Null),
        ("sliding_window", Value::Null),
    ];
    refuse_unless(config, NAME, &own)?;
    let attention = decoder::attention(config, partial_rotary(config, NAME, 10_000.0, 0.25)?)?;
    let attention = AttentionSpec { input_bias: config.flag("use_qkv_bias")?, ..attention };
    let norm = decoder::layer_norm(config, "layer_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}
