//! BERT: post-norm encoder with learned positions and token types, bare (`BertModel`), with the head of a masked language
//! model, or with a sequence classifier over the pooled first token. Which one is said by `architectures`.

use super::fewer_layers::alike;
use super::{Family, Source, architecture, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement, Positions,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAME: &str = "bert";
const CLASSIFIER: &str = "BertForSequenceClassification";

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["bert.", ""],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    classifier: Some(CLASSIFIER),
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    refuse_unless(
        config,
        NAME,
        &[
            ("position_embedding_type", json!("absolute")),
            ("is_decoder", json!(false)),
            ("add_cross_attention", json!(false)),
            ("layer_types", Value::Null),
            ("sliding_window", Value::Null),
        ],
    )?;
    let activation = gelu(config, "hidden_act", NAME, "gelu, gelu_new, gelu_pytorch_tanh")?;
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_width(config, "num_attention_heads", hidden, heads)?;
    let norm = Norm { kind: NormKind::Layer, epsilon: config.optional_positive("layer_norm_eps")?.unwrap_or(1e-12) };
    let head = match architecture(config)? {
        Some("BertModel") => Head::Hidden,
        Some("BertForMaskedLM") => {
            Head::MaskedLanguageModel { activation, norm, tied: config.flag_or("tie_word_embeddings", true)? }
        }
        Some(CLASSIFIER) => Head::Classifier { labels: labels(config)? },
        _ => {
            let supported = "BertModel, BertForMaskedLM, BertForSequenceClassification";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    };
    let layer = LayerSpec {
        mixer: Mixer::Attention(AttentionSpec::plain(heads, head_dim)),
        ffn: FfnSpec { width: config.size("intermediate_size")?, gated: false, activation, bias: true },
        norm,
        norm_placement: NormPlacement::Post,
    };
    let vocabulary = config.size("vocab_size")?;
    Ok(ModelSpec {
        family: NAME,
        kind: ModelKind::Encoder,
        vocabulary,
        hidden,
        context: config.size("max_position_embeddings")?,
        token_types: config.optional_size("type_vocab_size")?.unwrap_or(2),
        positions: Positions::Learned,
        embedding_scale: 1.0,
        embedding_norm: Some(norm),
        layers: vec![layer; layer_count(config, "num_hidden_layers")?],
        final_norm: None,
        head,
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
    })
}

/// Names of `id2label` in id order; the ids must be 0 to n − 1.
fn labels(config: &Config) -> Result<Vec<String>, ConfigError> {
    let expected = "an object from label ids 0 to n − 1 to names";
    let section = config.section("id2label")?.ok_or_else(|| config.missing("id2label", expected))?;
    let mut labels = BTreeMap::new();
    for (key, value) in section.map() {
        let id: usize = key.parse().map_err(|_| config.wrong("id2label", expected))?;
        let name = value.as_str().ok_or_else(|| section.wrong(key, "the name of a label"))?;
        labels.insert(id, name.to_owned());
    }
    let complete = labels.len() == section.map().len() && labels.keys().copied().eq(0..labels.len());
    if labels.is_empty() || !complete {
        return Err(config.wrong("id2label", expected));
    }
    Ok(labels.into_values().collect())
}

fn source(_spec: &ModelSpec, id: ParameterId) -> Option<Source> {
    let prefixed = |stem: String, part: Part| Source::prefixed(format!("{stem}.{}", part.name()));
    let bare = |stem: &str, part: Part| Source::bare(&format!("{stem}.{}", part.name()));
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
            prefixed(format!("encoder.layer.{layer}.{matrix}"), part)
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("embeddings.word_embeddings".to_owned(), part),
            Role::PositionEmbedding => prefixed("embeddings.position_embeddings".to_owned(), part),
            Role::TypeEmbedding => prefixed("embeddings.token_type_embeddings".to_owned(), part),
            Role::Pooler => prefixed("pooler.dense".to_owned(), part),
            Role::Classifier => bare("classifier", part),
            Role::MlmTransform => bare("cls.predictions.transform.dense", part),
            Role::LmHead if part == Part::Bias => Source::bare("cls.predictions.bias"),
            Role::LmHead => Source::bare("cls.predictions.decoder.weight"),
            _ => return None,
        },
        ParameterId::Norm(layer, site, part) => match (layer, site) {
            (None, NormSite::Embedding) => prefixed("embeddings.LayerNorm".to_owned(), part),
            (Some(layer), NormSite::Attention) => {
                prefixed(format!("encoder.layer.{layer}.attention.output.LayerNorm"), part)
            }
            (Some(layer), NormSite::Ffn) => prefixed(format!("encoder.layer.{layer}.output.LayerNorm"), part),
            (None, NormSite::MlmTransform) => bare("cls.predictions.transform.LayerNorm", part),
            _ => return None,
        }
        .with_legacy_norm(),
        ParameterId::Kernel(..) | ParameterId::KeyMap(..) => return None,
    })
}

fn ignored(spec: &ModelSpec, name: &str) -> bool {
    let unused_pooler = !matches!(spec.head, Head::Classifier { .. }) && name.starts_with("pooler.dense.");
    unused_pooler
        || name.ends_with(".position_ids")
        || name.ends_with(".rotary_emb.inv_freq")
        || name.starts_with("cls.seq_relationship.")
}

fn copies(spec: &ModelSpec) -> Vec<(Source, ParameterId)> {
    let Head::MaskedLanguageModel { tied, .. } = spec.head else { return Vec::new() };
    let bias = ParameterId::bias(LinearId::global(Role::LmHead));
    let mut copies = vec![(Source::bare("cls.predictions.decoder.bias"), bias)];
    if tied {
        let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
        copies.push((Source::bare("cls.predictions.decoder.weight"), table));
    }
    copies
}
