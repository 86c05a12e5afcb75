//! BERT: post-norm encoder with learned positions and token types, bare (`BertModel`), with the head of a masked language
//! model, or with a sequence classifier over the pooled first token. Which one is said by `architectures`, else by the tensors. `BertForPreTraining`
//! is read as a masked language model: its second head is not used.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::{Family, TensorName, architecture, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement, Positions,
};
use serde_json::{Value, json};

const NAME: &str = "bert";
const CLASSIFIER: &str = "BertForSequenceClassification";
const MASKED: &str = "BertForMaskedLM";
const BARE: &str = "BertModel";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 10] = [
    ("vocab_size", ClassDefault::Size(30522)),
    ("hidden_size", ClassDefault::Size(768)),
    ("num_hidden_layers", ClassDefault::Size(12)),
    ("num_attention_heads", ClassDefault::Size(12)),
    ("intermediate_size", ClassDefault::Size(3072)),
    ("hidden_act", ClassDefault::Text("gelu")),
    ("max_position_embeddings", ClassDefault::Count(512)),
    ("type_vocab_size", ClassDefault::Count(2)),
    ("layer_norm_eps", ClassDefault::Number(1e-12)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["bert.", ""],
    token_table: "embeddings.word_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size"),
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["classifier.weight", "pooler.dense.weight"], CLASSIFIER),
        (&["cls.predictions.transform.dense.weight"], MASKED),
        (&["embeddings.word_embeddings.weight"], BARE),
    ],
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
    let norm = Norm { kind: NormKind::Layer, epsilon: config.positive("layer_norm_eps")? };
    let head = match architecture(config)? {
        Some(BARE) => Head::Hidden,
        Some(MASKED | "BertForPreTraining") => {
            Head::MaskedLanguageModel { activation, norm, tied: config.flag("tie_word_embeddings")? }
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
        token_types: config.size("type_vocab_size")?,
        positions: Positions::Learned,
        embedding_scale: 1.0,
        embedding_norm: Some(norm),
        layers: vec![layer; layer_count(config, "num_hidden_layers")?],
        final_norm: None,
        head,
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
    })
}

fn source(_spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let prefixed = |stem: String, part: Part| TensorName::prefixed(format!("{stem}.{}", part.name()));
    let bare = |stem: &str, part: Part| TensorName::bare(&format!("{stem}.{}", part.name()));
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
            Role::LmHead if part == Part::Bias => TensorName::bare("cls.predictions.bias"),
            Role::LmHead => TensorName::bare("cls.predictions.decoder.weight"),
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

fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    let Head::MaskedLanguageModel { tied, .. } = spec.head else { return Vec::new() };
    let bias = ParameterId::bias(LinearId::global(Role::LmHead));
    let mut copies = vec![(TensorName::bare("cls.predictions.decoder.bias"), bias)];
    if tied {
        let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
        copies.push((TensorName::bare("cls.predictions.decoder.weight"), table));
    }
    copies
}
