//! Gemma 2: Gemma 3 without norms on queries and keys, one rotary base for all layers, sliding windows in every other layer
//! from the first on, and caps c · tanh(x / c) on scores and on logits.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::gemma3::{self, FULL, SLIDING, rounded};
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Head, LayerSpec, ModelSpec, Norm, NormKind, NormPlacement,
};
use serde_json::{Value, json};

const NAME: &str = "gemma2";
const ARCHITECTURE: &str = "Gemma2ForCausalLM";
const SCORES: &str = "attn_logit_softcapping";
const LOGITS: &str = "final_logit_softcapping";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 15] = [
    ("vocab_size", ClassDefault::Size(256_000)),
    ("hidden_size", ClassDefault::Size(2304)),
    ("num_hidden_layers", ClassDefault::Size(26)),
    ("num_attention_heads", ClassDefault::Size(8)),
    ("num_key_value_heads", ClassDefault::Size(4)),
    ("intermediate_size", ClassDefault::Size(9216)),
    ("head_dim", ClassDefault::Count(256)),
    ("hidden_activation", ClassDefault::Text("gelu_pytorch_tanh")),
    ("max_position_embeddings", ClassDefault::Count(8192)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("query_pre_attn_scalar", ClassDefault::Number(256.0)),
    ("sliding_window", ClassDefault::Count(4096)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(1)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family =
    Family { source: gemma3::source, with_layers, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_activation", "gelu_pytorch_tanh")?;
    let own = [
        ("use_bidirectional_attention", json!(false)),
        ("mlp_bias", json!(false)),
        ("no_rope_layers", Value::Null),
        ("clip_qkv", Value::Null),
        ("alibi", json!(false)),
        ("add_cross_attention", json!(false)),
    ];
    refuse_unless(config, NAME, &own)?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let attention = AttentionSpec {
        score_scale: 1.0 / config.positive("query_pre_attn_scalar")?.sqrt(),
        score_cap: cap(config, SCORES, 50.0)?,
        input_bias: bias,
        output_bias: bias,
        ..attention
    };
    let norm = Norm { kind: NormKind::RmsOnePlus, ..decoder::rms_norm(config, "rms_norm_eps")? };
    let width = config.size("intermediate_size")?;
    let window = decoder::window(config)?;
    let layer = |slides: bool| LayerSpec {
        ffn: FfnSpec::plain(width, true, Activation::GeluTanh),
        norm_placement: NormPlacement::Around,
        ..decoder::layer(AttentionSpec { window: window.filter(|_| slides), ..attention }, norm, width)
    };
    let layers = sliding_layers(config)?.into_iter().map(layer).collect();
    let spec = decoder::model(config, NAME, layers, norm)?;
    let head = Head::LanguageModel { tied: spec.tied_head(), bias: false, cap: cap(config, LOGITS, 30.0)? };
    let embedding_scale = rounded(config, NAME, (spec.hidden as f64).sqrt() as f32)?;
    Ok(ModelSpec { embedding_scale, head, ..spec })
}

/// A cap: the class's where the key is absent, none where it is null.
fn cap(config: &Config, key: &str, of_class: f64) -> Result<Option<f64>, ConfigError> {
    const LARGEST: f64 = 1e6;
    match config.map().get(key) {
        None => Ok(Some(of_class)),
        Some(Value::Null) => Ok(None),
        Some(_) => match config.positive(key)? {
            cap if (1e-3..=LARGEST).contains(&cap) => Ok(Some(cap)),
            _ => Err(config.wrong(key, "a number from 1e-3 to 1e6, or null")),
        },
    }
}

/// Which layers slide: by `layer_types`, or every other one from the first on.
fn sliding_layers(config: &Config) -> Result<Vec<bool>, ConfigError> {
    match decoder::layer_types(config, NAME, [FULL, SLIDING])? {
        Some(types) => Ok(types.into_iter().map(|kind| kind == SLIDING).collect()),
        None => Ok((0..layer_count(config, "num_hidden_layers")?).map(|layer| layer.is_multiple_of(2)).collect()),
    }
}

/// With fewer layers, which of them slide is said by `layer_types`.
fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    gemma3::with_listed_layers(config, kept, &sliding_layers(config)?)
}
