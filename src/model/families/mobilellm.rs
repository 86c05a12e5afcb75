//! MobileLLM without shared layers: Llama under another name, whose head is tied by `share_embedding`. It has no class in
//! transformers; its keys are those of the code that comes with its checkpoints, which ask for it by `auto_map`.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{Head, ModelSpec};
use serde_json::{Value, json};

const NAME: &str = "mobilellm";
const ARCHITECTURE: &str = "MobileLLMForCausalLM";

/// What its class has for keys that are absent.
const DEFAULTS: [(&str, ClassDefault); 11] = [
    ("vocab_size", ClassDefault::Size(32000)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(11008)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("share_embedding", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec);

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [
        ("layer_sharing", json!(false)),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("pretraining_tp", json!(1)),
        ("layer_types", Value::Null),
        ("sliding_window", Value::Null),
    ];
    refuse_unless(config, NAME, &own)?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let layer = decoder::layer(attention, norm, config.size("intermediate_size")?);
    let spec = decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)?;
    let tied = config.flag("share_embedding")? || config.flag("tie_word_embeddings")?;
    Ok(ModelSpec { head: Head::LanguageModel { tied, bias: false, cap: None }, ..spec })
}
