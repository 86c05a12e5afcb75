//! Phi 3: Llama whose files fuse queries, keys and values into `qkv_proj`, and gate and up into `gate_up_proj`. Its
//! `sliding_window` is honoured in every layer. Phi 4 mini, of the same type, turns three quarters of a head.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::partial_rotary;
use super::{Family, HeadOrder, TensorName, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::json;

const NAME: &str = "phi3";
const ARCHITECTURE: &str = "Phi3ForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 10] = [
    ("vocab_size", ClassDefault::Size(32064)),
    ("hidden_size", ClassDefault::Size(3072)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(8192)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(4096)),
    ("rms_norm_eps", ClassDefault::Number(1e-5)),
    ("eos_token_id", ClassDefault::Count(32000)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family { source, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    refuse_unless(config, NAME, &[("attention_bias", json!(false)), ("mlp_bias", json!(false))])?;
    let attention = decoder::attention(config, partial_rotary(config, NAME, 10_000.0, 1.0)?)?;
    let attention = AttentionSpec { window: decoder::window(config)?, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let ParameterId::Linear(LinearId { layer: Some(layer), role }, part) = id else { return decoder::source(spec, id) };
    let of_layer = spec.layers.get(layer as usize)?;
    let (attention, width) = (of_layer.attention()?, of_layer.ffn.width);
    let (queries, keys) = (attention.query_width(), attention.key_width());
    let (matrix, first, rows) = match role {
        Role::Query => ("self_attn.qkv_proj", 0, queries + 2 * keys),
        Role::Key => ("self_attn.qkv_proj", queries, queries + 2 * keys),
        Role::Value => ("self_attn.qkv_proj", queries + keys, queries + 2 * keys),
        Role::Gate => ("mlp.gate_up_proj", 0, 2 * width),
        Role::Up => ("mlp.gate_up_proj", width, 2 * width),
        _ => return decoder::source(spec, id),
    };
    let heads = match matrix {
        "self_attn.qkv_proj" => HeadOrder::of(attention, queries + keys),
        _ => None,
    };
    Some(TensorName::prefixed(format!("layers.{layer}.{matrix}.{}", part.name())).fused(first, rows).by_heads(heads))
}
