//! Llama: pre-norm decoder with RMS norms, rotary positions, grouped-query attention and a gated SiLU network.

use super::decoder::{self, copies, ignored, source};
use super::fewer_layers::alike;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec};
use serde_json::json;

const NAME: &str = "llama";

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
    require_architecture(config, NAME, "LlamaForCausalLM")?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let full_attention = json!(vec!["full_attention"; config.size("num_hidden_layers").unwrap_or(0).min(1 << 16)]);
    let own = [("pretraining_tp", json!(1)), ("layer_types", full_attention), ("use_qk_norm", json!(false))];
    refuse_unless(config, NAME, &own)?;
    if config.value("sliding_window").is_some() && config.flag_or("use_sliding_window", true)? {
        return Err(config.unsupported("sliding_window", NAME, "null"));
    }
    let bias = config.flag_or("attention_bias", false)?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?, None)?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps", 1e-6)?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    let layer = LayerSpec { ffn: FfnSpec { bias: config.flag_or("mlp_bias", false)?, ..layer.ffn }, ..layer };
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm, false)
}
