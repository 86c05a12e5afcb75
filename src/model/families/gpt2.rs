//! GPT-2: pre-norm decoder with layer norms, learned positions, biases everywhere and a plain GELU network. Its files hold
//! matrices as (in, out), and queries, keys and values as one.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::{Family, TensorName, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement, Positions,
    Stored,
};
use serde_json::{Value, json};

const NAME: &str = "gpt2";
const ARCHITECTURE: &str = "GPT2LMHeadModel";
const CLASSIFIER: &str = "GPT2ForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 9] = [
    ("vocab_size", ClassDefault::Size(50257)),
    ("n_embd", ClassDefault::Size(768)),
    ("n_layer", ClassDefault::Size(12)),
    ("n_head", ClassDefault::Size(12)),
    ("n_positions", ClassDefault::Count(1024)),
    ("activation_function", ClassDefault::Text("gelu_new")),
    ("layer_norm_epsilon", ClassDefault::Number(1e-5)),
    ("eos_token_id", ClassDefault::Count(50256)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["transformer.", ""],
    token_table: "wte.weight",
    defaults: &DEFAULTS,
    aliases: &[
        ("hidden_size", "n_embd"),
        ("max_position_embeddings", "n_positions"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    ],
    spec,
    source,
    ignored,
    copies: decoder::copies,
    layer_count: "n_layer",
    with_layers: alike,
    widths: WidthKeys::shared("n_head", "n_inner", "n_embd"),
    classifier: Some(CLASSIFIER),
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let class = decoder::class(config, NAME, ARCHITECTURE, CLASSIFIER)?;
    refuse_unless(
        config,
        NAME,
        &[
            ("add_cross_attention", json!(false)),
            ("scale_attn_weights", json!(true)),
            ("scale_attn_by_inverse_layer_idx", json!(false)),
            ("sliding_window", Value::Null),
            ("layer_types", Value::Null),
        ],
    )?;
    let activation = gelu(config, "activation_function", NAME, "gelu_new, gelu_pytorch_tanh, gelu")?;
    let hidden = config.size("n_embd")?;
    let heads = config.size("n_head")?;
    let head_dim = head_width(config, "n_head", hidden, heads)?;
    let norm = Norm { kind: NormKind::Layer, epsilon: config.positive("layer_norm_epsilon")? };
    let layer = LayerSpec {
        mixer: Mixer::Attention(AttentionSpec::plain(heads, head_dim)),
        ffn: FfnSpec {
            bias: true,
            ..FfnSpec::plain(config.optional_size("n_inner")?.unwrap_or(4 * hidden), false, activation)
        },
        norm,
        norm_placement: NormPlacement::Pre,
    };
    let vocabulary = config.size("vocab_size")?;
    let spec = ModelSpec {
        family: NAME,
        kind: ModelKind::Decoder,
        causal: true,
        vocabulary,
        hidden,
        embedding_width: hidden,
        context: config.size("n_positions")?,
        token_types: 0,
        positions: Positions::Learned,
        embedding_scale: 1.0,
        embedding_norm: None,
        layers: vec![layer; layer_count(config, "n_layer")?],
        final_norm: Some(norm),
        head: Head::LanguageModel { tied: config.flag("tie_word_embeddings")?, bias: false, cap: None },
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
        exits: Vec::new(),
        stored: Stored::ALIKE,
    };
    class.of(config, spec)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let prefixed = |stem: &str, part: Part| TensorName::prefixed(format!("{stem}.{}", part.name()));
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let fused = |index: usize| {
                let source = prefixed(&format!("h.{layer}.attn.c_attn"), part);
                source.fused(index * spec.hidden, 3 * spec.hidden)
            };
            let source = match role {
                Role::Query => fused(0),
                Role::Key => fused(1),
                Role::Value => fused(2),
                Role::Output => prefixed(&format!("h.{layer}.attn.c_proj"), part),
                Role::Up => prefixed(&format!("h.{layer}.mlp.c_fc"), part),
                Role::Down => prefixed(&format!("h.{layer}.mlp.c_proj"), part),
                _ => return None,
            };
            source.transposed(part)
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("wte", part),
            Role::PositionEmbedding => prefixed("wpe", part),
            Role::LmHead | Role::Classifier => return decoder::source(spec, id),
            _ => return None,
        },
        ParameterId::Norm(Some(layer), NormSite::Attention, part) => prefixed(&format!("h.{layer}.ln_1"), part),
        ParameterId::Norm(Some(layer), NormSite::Ffn, part) => prefixed(&format!("h.{layer}.ln_2"), part),
        ParameterId::Norm(None, NormSite::Final, part) => prefixed("ln_f", part),
        _ => return None,
    })
}

/// Masks that old checkpoints carry.
fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}
