//! OLMo 2: Llama whose norms stand on what a part adds and nowhere else, with norms over all queries and all keys of a
//! position.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, TensorName, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{NormSite, ParameterId};
use crate::model::spec::{AttentionSpec, LayerSpec, ModelSpec, NormPlacement, QueryKeyNorm};
use serde_json::{Value, json};

const NAME: &str = "olmo2";
const ARCHITECTURE: &str = "Olmo2ForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 11] = [
    ("vocab_size", ClassDefault::Size(50304)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(11008)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("rms_norm_eps", ClassDefault::Number(1e-5)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(50279)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family { source, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [("layer_types", Value::Null), ("sliding_window", Value::Null), ("mlp_bias", json!(false))];
    refuse_unless(config, NAME, &own)?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let query_key_norm = Some(QueryKeyNorm::Together);
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, query_key_norm, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    let layer = LayerSpec { norm_placement: NormPlacement::Added, ..layer };
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let ParameterId::Norm(Some(layer), site, part) = id else { return decoder::source(spec, id) };
    let norm = match site {
        NormSite::AttentionOutput => "post_attention_layernorm",
        NormSite::FfnOutput => "post_feedforward_layernorm",
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(format!("layers.{layer}.{norm}.{}", part.name())))
}
