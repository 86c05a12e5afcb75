//! Qwen 3: Qwen 2 with norms on queries and keys instead of biases, and heads whose width the hidden width does not
//! decide. Bare (`Qwen3Model`), or with modules.json beside it, it is the encoder of Qwen3-Embedding: the last token's
//! hidden state is the vector of a text.

use super::class_defaults::ClassDefault;
use super::decoder::{self, Class, copies, source};
use super::rotary::rotary;
use super::{Family, architecture, as_encoder, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, Head, ModelSpec, QueryKeyNorm};
use serde_json::json;

pub(super) const NAME: &str = "qwen3";
const ARCHITECTURE: &str = "Qwen3ForCausalLM";
const BARE: &str = "Qwen3Model";
const CLASSIFIER: &str = "Qwen3ForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 15] = [
    ("vocab_size", ClassDefault::Size(151_936)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(32)),
    ("head_dim", ClassDefault::Count(128)),
    ("attention_bias", ClassDefault::Flag(false)),
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
    let class = match architecture(config)? {
        None | Some(ARCHITECTURE) => Some(Class::Language),
        Some(CLASSIFIER) => Some(Class::Classifier),
        Some(BARE) => None,
        Some(_) => {
            let supported = "Qwen3ForCausalLM, Qwen3Model, Qwen3ForSequenceClassification";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    };
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign(config, NAME)?;
    refuse_unless(config, NAME, &[("mlp_bias", json!(false))])?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let attention =
        AttentionSpec { input_bias: bias, output_bias: bias, query_key_norm: Some(QueryKeyNorm::Heads), ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let width = config.size("intermediate_size")?;
    let windows = decoder::qwen_windows(config, NAME)?.into_iter();
    let layers = windows.map(|window| decoder::layer(AttentionSpec { window, ..attention }, norm, width));
    let spec = decoder::model(config, NAME, layers.collect(), norm)?;
    match class {
        Some(class) => class.of(config, spec),
        None => Ok(as_encoder(spec)),
    }
}

/// Also a head that an encoder of sentences does not use.
fn ignored(spec: &ModelSpec, name: &str) -> bool {
    decoder::ignored(spec, name) || (spec.head == Head::Hidden && name == "lm_head.weight")
}
