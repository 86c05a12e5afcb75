//! Qwen 3: Qwen 2 with norms on queries and keys instead of biases, and heads whose width the hidden width does not
//! decide.

use super::decoder::{self, copies, ignored, source};
use super::rotary::rotary;
use super::{Family, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::json;

const NAME: &str = "qwen3";
const DEFAULT_HEAD_DIM: usize = 128;

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: decoder::qwen_with_layers,
    classifier: None,
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, "Qwen3ForCausalLM")?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    decoder::require_key_value_heads(config)?;
    refuse_unless(config, NAME, &[("mlp_bias", json!(false))])?;
    let bias = config.flag_or("attention_bias", false)?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?, Some(DEFAULT_HEAD_DIM))?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, query_key_norm: true, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps", 1e-6)?;
    let width = config.size("intermediate_size")?;
    let windows = decoder::qwen_windows(config, NAME)?.into_iter();
    let layers = windows.map(|window| decoder::layer(AttentionSpec { window, ..attention }, norm, width));
    decoder::model(config, NAME, layers.collect(), norm, false)
}
