//! ELECTRA: BERT's layers, with a projection after the embedding norm where the tables are narrower than the layers (the small
//! size), bare (`ElectraModel`), with
//! the head of its generator (`ElectraForMaskedLM`), with a sequence classifier whose pooler has a GELU, a classifier over
//! every token or the scores of answers. The discriminator's head, which tells replaced tokens from original ones, is not read: with `ElectraModel` among
//! `architectures` its encoder is.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder::{self, bare, prefixed};
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::{Family, TensorName, architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{Activation, Function, Head, ModelSpec};

const NAME: &str = "electra";
const BARE: &str = "ElectraModel";
const MASKED: &str = "ElectraForMaskedLM";
const CLASSIFIER: &str = "ElectraForSequenceClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 11] = [
    ("vocab_size", ClassDefault::Size(30522)),
    ("embedding_size", ClassDefault::Size(128)),
    ("hidden_size", ClassDefault::Size(256)),
    ("num_hidden_layers", ClassDefault::Size(12)),
    ("num_attention_heads", ClassDefault::Size(4)),
    ("intermediate_size", ClassDefault::Size(1024)),
    ("hidden_act", ClassDefault::Text("gelu")),
    ("max_position_embeddings", ClassDefault::Count(512)),
    ("type_vocab_size", ClassDefault::Count(2)),
    ("layer_norm_eps", ClassDefault::Number(1e-12)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["electra.", ""],
    token_table: "embeddings.word_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: WidthKeys { hidden_copies: &["embedding_size"], ..encoder::WIDTHS },
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["classifier.dense.weight"], CLASSIFIER),
        (&["classifier.weight"], "ElectraForTokenClassification"),
        (&["qa_outputs.weight"], "ElectraForQuestionAnswering"),
        (&["generator_predictions.dense.weight"], MASKED),
        (&["embeddings.word_embeddings.weight"], BARE),
    ],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    encoder::refuse_foreign(config, NAME)?;
    let hidden = config.size("hidden_size")?;
    let embedding_width = config.size("embedding_size")?;
    if embedding_width > hidden {
        return Err(config.unsupported("embedding_size", NAME, &format!("at most hidden_size, {hidden}")));
    }
    let activation = encoder::activation(config, NAME)?;
    let norm = encoder::norm(config)?;
    // Both heads have the exact GELU, whatever the layers have.
    let class = architecture(config)?;
    let head = match (encoder::token_head(config, class, "Electra")?, class) {
        (Some(head), _) => head,
        (None, Some(BARE)) => Head::Hidden,
        (None, Some(MASKED)) if embedding_width != hidden => {
            let supported = format!("hidden_size, {hidden}, where the head is that of {MASKED}");
            return Err(config.unsupported("embedding_size", NAME, &supported));
        }
        (None, Some(MASKED)) => {
            let tied = config.flag("tie_word_embeddings")?;
            Head::masked(Activation::Gelu, norm, tied)
        }
        (None, Some(CLASSIFIER)) => Head::classifier(Function::Activation(Activation::Gelu), labels(config)?),
        _ => {
            let supported = "ElectraModel, ElectraForMaskedLM, ElectraForSequenceClassification, \
                             ElectraForTokenClassification, ElectraForQuestionAnswering";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    };
    let spec = encoder::model(config, NAME, config.size("max_position_embeddings")?, activation, head)?;
    Ok(ModelSpec { embedding_width, ..spec })
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    Some(match id {
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::EmbeddingProjection => prefixed("embeddings_project", part),
            Role::Pooler => bare("classifier.dense", part),
            Role::Classifier => encoder::classifier(spec, "classifier.out_proj", part),
            Role::MlmTransform => bare("generator_predictions.dense", part),
            Role::LmHead if part == Part::Bias => TensorName::bare("generator_lm_head.bias"),
            Role::LmHead => TensorName::bare("generator_lm_head.weight"),
            _ => return encoder::source(id),
        },
        ParameterId::Norm(None, NormSite::MlmTransform, part) => bare("generator_predictions.LayerNorm", part),
        _ => return encoder::source(id),
    })
}

fn ignored(spec: &ModelSpec, name: &str) -> bool {
    let other_head = spec.head == Head::Hidden && name.starts_with("discriminator_predictions.");
    other_head || name.ends_with(".position_ids")
}

fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    encoder::copies(spec, "generator_lm_head.weight", None)
}
