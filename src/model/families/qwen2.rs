//! Qwen 2 and 2.5: Llama with biases on queries, keys and values, and a sliding window in the upper layers where
//! `use_sliding_window` says so.

use super::class_defaults::ClassDefault;
use super::decoder::{self, copies, ignored, source};
use super::rotary::rotary;
use super::{Family, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, ModelSpec};
use serde_json::json;

const NAME: &str = "qwen2";
const ARCHITECTURE: &str = "Qwen2ForCausalLM";
const CLASSIFIER: &str = "Qwen2ForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 13] = [
    ("vocab_size", ClassDefault::Size(151_936)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(22016)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(32768)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("use_sliding_window", ClassDefault::Flag(false)),
    ("sliding_window", ClassDefault::Count(4096)),
    ("max_window_layers", ClassDefault::Count(28)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    token_table: "embed_tokens.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: decoder::qwen_with_layers,
    widths: decoder::WIDTHS,
    classifier: Some(CLASSIFIER),
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let class = decoder::class(config, NAME, ARCHITECTURE, CLASSIFIER)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    refuse_unless(config, NAME, &[("use_mrope", json!(false)), ("mlp_bias", json!(false))])?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let attention = AttentionSpec { input_bias: true, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let width = config.size("intermediate_size")?;
    let windows = decoder::qwen_windows(config, NAME)?.into_iter();
    let layers = windows.map(|window| decoder::layer(AttentionSpec { window, ..attention }, norm, width));
    class.of(config, decoder::model(config, NAME, layers.collect(), norm)?)
}
