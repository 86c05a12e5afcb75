//! DistilBERT: BERT without token types and pooler, bare (`DistilBertModel`), with the head of a masked language model,
//! with a sequence classifier, whose dense layer before the classifier has a ReLU, a classifier over every token or the scores
//! of answers.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder;
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::{Family, TensorName, architecture, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Function, Head, LayerSpec, Mixer, ModelSpec, Norm, NormKind, NormPlacement,
};
use serde_json::{Value, json};

const NAME: &str = "distilbert";
const MASKED: &str = "DistilBertForMaskedLM";
const BARE: &str = "DistilBertModel";
const CLASSIFIER: &str = "DistilBertForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 8] = [
    ("vocab_size", ClassDefault::Size(30522)),
    ("dim", ClassDefault::Size(768)),
    ("n_layers", ClassDefault::Size(6)),
    ("n_heads", ClassDefault::Size(12)),
    ("hidden_dim", ClassDefault::Size(3072)),
    ("activation", ClassDefault::Text("gelu")),
    ("max_position_embeddings", ClassDefault::Count(512)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["distilbert.", ""],
    token_table: "embeddings.word_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[("hidden_size", "dim"), ("num_attention_heads", "n_heads"), ("num_hidden_layers", "n_layers")],
    spec,
    source,
    ignored,
    copies,
    layer_count: "n_layers",
    with_layers: alike,
    widths: WidthKeys::shared("n_heads", "hidden_dim", "dim"),
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["pre_classifier.weight", "classifier.weight"], CLASSIFIER),
        (&["classifier.weight"], "DistilBertForTokenClassification"),
        (&["qa_outputs.weight"], "DistilBertForQuestionAnswering"),
        (&["vocab_transform.weight"], MASKED),
        (&["embeddings.word_embeddings.weight"], BARE),
    ],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    refuse_unless(config, NAME, &[("add_cross_attention", json!(false)), ("sliding_window", Value::Null)])?;
    // How the position table was first filled; the checkpoint holds it either way.
    config.flag_or("sinusoidal_pos_embds", false)?;
    let activation = gelu(config, "activation", NAME, "gelu")?;
    let hidden = config.size("dim")?;
    let heads = config.size("n_heads")?;
    let head_dim = head_width(config, "n_heads", hidden, heads)?;
    let norm = Norm { kind: NormKind::Layer, epsilon: 1e-12 };
    let class = architecture(config)?;
    let head = match (encoder::token_head(config, class, "DistilBert")?, class) {
        (Some(head), _) => head,
        (None, Some(BARE)) => Head::Hidden,
        (None, Some(MASKED)) => Head::masked(activation, norm, config.flag("tie_word_embeddings")?),
        (None, Some(CLASSIFIER)) => Head::classifier(Function::Activation(Activation::Relu), labels(config)?),
        _ => {
            let supported = "DistilBertModel, DistilBertForMaskedLM, DistilBertForSequenceClassification, \
                             DistilBertForTokenClassification, DistilBertForQuestionAnswering";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    };
    let layer = LayerSpec {
        mixer: Mixer::Attention(AttentionSpec::plain(heads, head_dim)),
        ffn: FfnSpec { bias: true, ..FfnSpec::plain(config.size("hidden_dim")?, false, activation) },
        norm,
        norm_placement: NormPlacement::Post,
    };
    let layers = vec![layer; layer_count(config, "n_layers")?];
    let context = config.size("max_position_embeddings")?;
    encoder::of_layers(config, NAME, (hidden, context), layers, norm, head)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let prefixed = |stem: &str, part: Part| TensorName::prefixed(format!("{stem}.{}", part.name()));
    let bare = |stem: &str, part: Part| TensorName::bare(&format!("{stem}.{}", part.name()));
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Query => "attention.q_lin",
                Role::Key => "attention.k_lin",
                Role::Value => "attention.v_lin",
                Role::Output => "attention.out_lin",
                Role::Up => "ffn.lin1",
                Role::Down => "ffn.lin2",
                _ => return None,
            };
            prefixed(&format!("transformer.layer.{layer}.{matrix}"), part)
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("embeddings.word_embeddings", part),
            Role::PositionEmbedding => prefixed("embeddings.position_embeddings", part),
            Role::MlmTransform => bare("vocab_transform", part),
            Role::LmHead => bare("vocab_projector", part),
            Role::Pooler => bare("pre_classifier", part),
            Role::Classifier => encoder::classifier(spec, "classifier", part),
            _ => return None,
        },
        ParameterId::Norm(layer, site, part) => match (layer, site) {
            (None, NormSite::Embedding) => prefixed("embeddings.LayerNorm", part),
            (Some(layer), NormSite::Attention) => prefixed(&format!("transformer.layer.{layer}.sa_layer_norm"), part),
            (Some(layer), NormSite::Ffn) => prefixed(&format!("transformer.layer.{layer}.output_layer_norm"), part),
            (None, NormSite::MlmTransform) => bare("vocab_layer_norm", part),
            _ => return None,
        }
        .with_legacy_norm(),
        ParameterId::Kernel(..) | ParameterId::KeyMap(..) => return None,
    })
}

fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name.ends_with(".position_ids")
}

fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    if !spec.tied_head() {
        return Vec::new();
    }
    vec![(TensorName::bare("vocab_projector.weight"), ParameterId::weight(LinearId::global(Role::TokenEmbedding)))]
}
