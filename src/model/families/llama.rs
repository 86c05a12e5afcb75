//! Llama: pre-norm decoder with RMS norms, rotary positions, grouped-query attention and a gated SiLU network.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec};
use serde_json::json;

const NAME: &str = "llama";
const ARCHITECTURE: &str = "LlamaForCausalLM";
const CLASSIFIER: &str = "LlamaForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
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
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family =
    Family { classifier: Some(CLASSIFIER), ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let class = decoder::class(config, NAME, ARCHITECTURE, CLASSIFIER)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let full_attention = json!(vec!["full_attention"; config.size("num_hidden_layers").unwrap_or(0).min(1 << 16)]);
    let own = [("pretraining_tp", json!(1)), ("layer_types", full_attention), ("use_qk_norm", json!(false))];
    refuse_unless(config, NAME, &own)?;
    if config.value("sliding_window").is_some() && config.flag_or("use_sliding_window", true)? {
        return Err(config.unsupported("sliding_window", NAME, "null"));
    }
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    let layer = LayerSpec { ffn: FfnSpec { bias: config.flag("mlp_bias")?, ..layer.ffn }, ..layer };
    class.of(config, decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)?)
}
