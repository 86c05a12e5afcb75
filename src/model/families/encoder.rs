//! What the families of post-norm encoders with learned positions have in common: the network that BERT's keys describe, and
//! the tensor names that began with BERT's.

use super::classifier::labels;
use super::narrower::WidthKeys;
use super::{TensorName, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement,
    Positions, Stored,
};
use serde_json::{Value, json};

/// Keys of their widths.
pub(super) const WIDTHS: WidthKeys = WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size");

/// Refuses what none of these families computes.
pub(super) fn refuse_foreign(config: &Config, family: &'static str) -> Result<(), ConfigError> {
    refuse_unless(
        config,
        family,
        &[
            ("position_embedding_type", json!("absolute")),
            ("is_decoder", json!(false)),
            ("add_cross_attention", json!(false)),
            ("layer_types", Value::Null),
            ("sliding_window", Value::Null),
        ],
    )
}

/// The function of the networks.
pub(super) fn activation(config: &Config, family: &'static str) -> Result<Activation, ConfigError> {
    gelu(config, "hidden_act", family, "gelu, gelu_new, gelu_pytorch_tanh")
}

/// All its norms.
pub(super) fn norm(config: &Config) -> Result<Norm, ConfigError> {
    Ok(Norm { kind: NormKind::Layer, epsilon: config.positive("layer_norm_eps")? })
}

/// The whole model of these layers, with `context` positions.
pub(super) fn model(
    config: &Config,
    family: &'static str,
    context: usize,
    activation: Activation,
    head: Head,
) -> Result<ModelSpec, ConfigError> {
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_width(config, "num_attention_heads", hidden, heads)?;
    let norm = norm(config)?;
    let layer = LayerSpec {
        mixer: Mixer::Attention(AttentionSpec::plain(heads, head_dim)),
        ffn: FfnSpec { bias: true, ..FfnSpec::plain(config.size("intermediate_size")?, false, activation) },
        norm,
        norm_placement: NormPlacement::Post,
    };
    let layers = vec![layer; layer_count(config, "num_hidden_layers")?];
    let spec = of_layers(config, family, (hidden, context), layers, norm, head)?;
    Ok(ModelSpec { token_types: config.size("type_vocab_size")?, ..spec })
}

/// An encoder of these layers, with learned positions, a norm after the embeddings and none at the end, and tokens of one type.
pub(super) fn of_layers(
    config: &Config,
    family: &'static str,
    (hidden, context): (usize, usize),
    layers: Vec<LayerSpec>,
    norm: Norm,
    head: Head,
) -> Result<ModelSpec, ConfigError> {
    let vocabulary = config.size("vocab_size")?;
    Ok(ModelSpec {
        family,
        kind: ModelKind::Encoder,
        causal: false,
        vocabulary,
        hidden,
        embedding_width: hidden,
        context,
        token_types: 0,
        positions: Positions::Learned,
        embedding_scale: 1.0,
        embedding_norm: Some(norm),
        layers,
        final_norm: None,
        head,
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
        exits: Vec::new(),
        stored: Stored::ALIKE,
    })
}

/// The head that reads every token of the class `stem` and a suffix: a classifier of tokens, or of where answers are.
pub(super) fn token_head(config: &Config, class: Option<&str>, stem: &str) -> Result<Option<Head>, ConfigError> {
    Ok(match class.and_then(|class| class.strip_prefix(stem)) {
        Some("ForTokenClassification") => Some(Head::TokenClassifier { labels: labels(config)? }),
        Some("ForQuestionAnswering") => Some(Head::Answers { separator: None }),
        _ => None,
    })
}

/// The last matrix of heads with labels; a classifier of texts has it under `of_texts`.
pub(super) fn classifier(spec: &ModelSpec, of_texts: &str, part: Part) -> TensorName {
    match spec.head {
        Head::Answers { .. } => bare("qa_outputs", part),
        Head::TokenClassifier { .. } => bare("classifier", part),
        _ => bare(of_texts, part),
    }
}

/// A prefixed tensor.
pub(super) fn prefixed(stem: &str, part: Part) -> TensorName {
    TensorName::prefixed(format!("{stem}.{}", part.name()))
}

/// A tensor without prefix.
pub(super) fn bare(stem: &str, part: Part) -> TensorName {
    TensorName::bare(&format!("{stem}.{}", part.name()))
}

/// BERT's names of everything but the head.
pub(super) fn source(id: ParameterId) -> Option<TensorName> {
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Query => "attention.self.query",
                Role::Key => "attention.self.key",
                Role::Value => "attention.self.value",
                Role::Output => "attention.output.dense",
                Role::Up => "intermediate.dense",
                Role::Down => "output.dense",
                _ => return None,
            };
            prefixed(&format!("encoder.layer.{layer}.{matrix}"), part)
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("embeddings.word_embeddings", part),
            Role::PositionEmbedding => prefixed("embeddings.position_embeddings", part),
            Role::TypeEmbedding => prefixed("embeddings.token_type_embeddings", part),
            _ => return None,
        },
        ParameterId::Norm(layer, site, part) => match (layer, site) {
            (None, NormSite::Embedding) => prefixed("embeddings.LayerNorm", part),
            (Some(layer), NormSite::Attention) => {
                prefixed(&format!("encoder.layer.{layer}.attention.output.LayerNorm"), part)
            }
            (Some(layer), NormSite::Ffn) => prefixed(&format!("encoder.layer.{layer}.output.LayerNorm"), part),
            _ => return None,
        }
        .with_legacy_norm(),
        ParameterId::Kernel(..) | ParameterId::KeyMap(..) => return None,
    })
}

/// The head of a tied masked language model, and the second name of its bias, which some files hold again.
pub(super) fn copies(spec: &ModelSpec, weight: &str, bias: Option<&str>) -> Vec<(TensorName, ParameterId)> {
    let Head::MaskedLanguageModel { tied, .. } = spec.head else { return Vec::new() };
    let of_bias = bias.map(|name| (TensorName::bare(name), ParameterId::bias(LinearId::global(Role::LmHead))));
    let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
    of_bias.into_iter().chain(tied.then(|| (TensorName::bare(weight), table))).collect()
}
