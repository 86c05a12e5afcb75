//! Granite (dense, 3.x): Llama with four factors of its configuration. That on embeddings and that on scores have places of
//! their own; the one on what is added to the residual stream is held in the last matrices of attention and network, and the
//! one that divides the logits in the norm after the last layer. Its mixtures are a family of their own, `granitemoe`.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, TensorName, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec, Stored};
use serde_json::Value;

const NAME: &str = "granite";
const ARCHITECTURE: &str = "GraniteForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 16] = [
    ("vocab_size", ClassDefault::Size(32000)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(11008)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("mlp_bias", ClassDefault::Flag(false)),
    ("embedding_multiplier", ClassDefault::Number(1.0)),
    ("attention_multiplier", ClassDefault::Number(1.0)),
    ("residual_multiplier", ClassDefault::Number(1.0)),
    ("logits_scaling", ClassDefault::Number(1.0)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family { source, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    refuse_unless(config, NAME, &[("num_local_experts", Value::Null)])?;
    factored(config, NAME, config.flag("mlp_bias")?)
}

/// Llama's layers with Granite's factors, with or without biases in the network.
pub(super) fn factored(config: &Config, family: &'static str, network_bias: bool) -> Result<ModelSpec, ConfigError> {
    decoder::require_activation(config, family, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, family)?;
    refuse_unless(config, family, &[("layer_types", Value::Null), ("sliding_window", Value::Null)])?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, family, 10_000.0)?)?;
    let attention = AttentionSpec {
        score_scale: config.positive("attention_multiplier")?,
        input_bias: bias,
        output_bias: bias,
        ..attention
    };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    let layer = LayerSpec { ffn: FfnSpec { bias: network_bias, ..layer.ffn }, ..layer };
    let spec = decoder::model(config, family, vec![layer; layer_count(config, "num_hidden_layers")?], norm)?;
    let factor = |key| -> Result<f32, ConfigError> {
        let factor = config.positive(key)? as f32;
        // Beyond these a product with a weight, or the way back, leaves the numbers of f32.
        if (1e-6..=1e6).contains(&factor) { Ok(factor) } else { Err(config.wrong(key, "a number from 1e-6 to 1e6")) }
    };
    let stored =
        Stored { residual: factor("residual_multiplier")?, logits: 1.0 / factor("logits_scaling")?, ..Stored::ALIKE };
    Ok(ModelSpec { embedding_scale: factor("embedding_multiplier")?, stored, ..spec })
}

pub(super) fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let source = decoder::source(spec, id)?;
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(_), role: Role::Output | Role::Down }, _) => {
            source.times(spec.stored.residual)
        }
        ParameterId::Norm(None, NormSite::Final, _) => source.times(spec.stored.logits),
        _ => source,
    })
}
