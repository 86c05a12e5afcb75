//! RoBERTa, and CamemBERT and XLM-RoBERTa, which are RoBERTas under other names: BERT with positions that are counted from
//! the one after padding's, a head of its own for masked tokens, a classifier over the first token whose pooler is
//! part of it, a classifier over every token and the scores of answers. The rows of the position table before the first position are left out here.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder::{self, bare, prefixed};
use super::fewer_layers::alike;
use super::{Family, TensorName, architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{Activation, Function, Head, ModelSpec, Stored};

/// A family and its classes in transformers.
struct Names {
    family: &'static str,
    /// How the names of its classes begin.
    stem: &'static str,
    bare: &'static str,
    masked: &'static str,
    classifier: &'static str,
    supported: &'static str,
}

const ROBERTA: Names = Names {
    family: "roberta",
    stem: "Roberta",
    bare: "RobertaModel",
    masked: "RobertaForMaskedLM",
    classifier: "RobertaForSequenceClassification",
    supported: "RobertaModel, RobertaForMaskedLM, RobertaForSequenceClassification, RobertaForTokenClassification, \
                RobertaForQuestionAnswering",
};

const OF_CAMEMBERT: Names = Names {
    family: "camembert",
    stem: "Camembert",
    bare: "CamembertModel",
    masked: "CamembertForMaskedLM",
    classifier: "CamembertForSequenceClassification",
    supported: "CamembertModel, CamembertForMaskedLM, CamembertForSequenceClassification, CamembertForTokenClassification, \
                CamembertForQuestionAnswering",
};

const OF_XLM_ROBERTA: Names = Names {
    family: "xlm-roberta",
    stem: "XLMRoberta",
    bare: "XLMRobertaModel",
    masked: "XLMRobertaForMaskedLM",
    classifier: "XLMRobertaForSequenceClassification",
    supported: "XLMRobertaModel, XLMRobertaForMaskedLM, XLMRobertaForSequenceClassification, XLMRobertaForTokenClassification, \
                XLMRobertaForQuestionAnswering",
};

/// What the classes have for keys that are absent: the configuration of transformers 5.24.
const fn defaults(vocabulary: u64) -> [(&'static str, ClassDefault); 12] {
    [
        ("vocab_size", ClassDefault::Size(vocabulary)),
        ("hidden_size", ClassDefault::Size(768)),
        ("num_hidden_layers", ClassDefault::Size(12)),
        ("num_attention_heads", ClassDefault::Size(12)),
        ("intermediate_size", ClassDefault::Size(3072)),
        ("hidden_act", ClassDefault::Text("gelu")),
        ("max_position_embeddings", ClassDefault::Count(512)),
        ("type_vocab_size", ClassDefault::Count(2)),
        ("layer_norm_eps", ClassDefault::Number(1e-12)),
        ("pad_token_id", ClassDefault::Count(1)),
        ("eos_token_id", ClassDefault::Count(2)),
        ("tie_word_embeddings", ClassDefault::Flag(true)),
    ]
}

const DEFAULTS: [(&str, ClassDefault); 12] = defaults(50265);
const CAMEMBERT_DEFAULTS: [(&str, ClassDefault); 12] = defaults(30522);
const XLM_DEFAULTS: [(&str, ClassDefault); 12] = defaults(30522);

pub(super) const FAMILY: Family = Family {
    model_type: ROBERTA.family,
    prefixes: &["roberta.", ""],
    token_table: "embeddings.word_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec: |config| spec(config, &ROBERTA),
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: encoder::WIDTHS,
    classifier: Some(ROBERTA.classifier),
    heads: &[
        (&["classifier.dense.weight"], ROBERTA.classifier),
        (&["classifier.weight"], "RobertaForTokenClassification"),
        (&["qa_outputs.weight"], "RobertaForQuestionAnswering"),
        (&["lm_head.dense.weight"], ROBERTA.masked),
        (&["embeddings.word_embeddings.weight"], ROBERTA.bare),
    ],
};

pub(super) const CAMEMBERT: Family = Family {
    model_type: OF_CAMEMBERT.family,
    defaults: &CAMEMBERT_DEFAULTS,
    spec: |config| spec(config, &OF_CAMEMBERT),
    classifier: Some(OF_CAMEMBERT.classifier),
    heads: &[
        (&["classifier.dense.weight"], OF_CAMEMBERT.classifier),
        (&["classifier.weight"], "CamembertForTokenClassification"),
        (&["qa_outputs.weight"], "CamembertForQuestionAnswering"),
        (&["lm_head.dense.weight"], OF_CAMEMBERT.masked),
        (&["embeddings.word_embeddings.weight"], OF_CAMEMBERT.bare),
    ],
    ..FAMILY
};

pub(super) const XLM_ROBERTA: Family = Family {
    model_type: OF_XLM_ROBERTA.family,
    defaults: &XLM_DEFAULTS,
    spec: |config| spec(config, &OF_XLM_ROBERTA),
    classifier: Some(OF_XLM_ROBERTA.classifier),
    heads: &[
        (&["classifier.dense.weight"], OF_XLM_ROBERTA.classifier),
        (&["classifier.weight"], "XLMRobertaForTokenClassification"),
        (&["qa_outputs.weight"], "XLMRobertaForQuestionAnswering"),
        (&["lm_head.dense.weight"], OF_XLM_ROBERTA.masked),
        (&["embeddings.word_embeddings.weight"], OF_XLM_ROBERTA.bare),
    ],
    ..FAMILY
};

fn spec(config: &Config, names: &Names) -> Result<ModelSpec, ConfigError> {
    encoder::refuse_foreign(config, names.family)?;
    let activation = encoder::activation(config, names.family)?;
    let norm = encoder::norm(config)?;
    let class = architecture(config)?;
    let head = match (encoder::token_head(config, class, names.stem)?, class) {
        (Some(head), _) => head,
        (None, Some(class)) if class == names.bare => Head::Hidden,
        // Its dense layer has the exact GELU, whatever the layers have.
        (None, Some(class)) if class == names.masked => {
            let tied = config.flag("tie_word_embeddings")?;
            Head::masked(Activation::Gelu, norm, tied)
        }
        (None, Some(class)) if class == names.classifier => Head::classifier(Function::Tanh, labels(config)?),
        _ => return Err(config.unsupported("architectures", names.family, names.supported)),
    };
    let leading_positions = first_position(config)?;
    let spec = encoder::model(config, names.family, context(config)?, activation, head)?;
    Ok(ModelSpec { stored: Stored { leading_positions, ..Stored::ALIKE }, ..spec })
}

/// The row of the position table that the first token of a text has: the one after padding's.
fn first_position(config: &Config) -> Result<usize, ConfigError> {
    let padding = config.value("pad_token_id").and_then(serde_json::Value::as_u64).filter(|&id| id < 1 << 31);
    let padding =
        padding.ok_or_else(|| config.wrong("pad_token_id", "a token, since positions are counted from it"))?;
    Ok(padding as usize + 1)
}

fn context(config: &Config) -> Result<usize, ConfigError> {
    let (rows, first) = (config.size("max_position_embeddings")?, first_position(config)?);
    match rows.checked_sub(first) {
        Some(context) if context > 0 => Ok(context),
        _ => {
            let expected = format!("more than {first}: positions begin after pad_token_id");
            Err(config.wrong("max_position_embeddings", &expected))
        }
    }
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    Some(match id {
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::PositionEmbedding => {
                let first = spec.stored.leading_positions;
                prefixed("embeddings.position_embeddings", part).fused(first, first + spec.context)
            }
            Role::Pooler => bare("classifier.dense", part),
            Role::Classifier => encoder::classifier(spec, "classifier.out_proj", part),
            Role::MlmTransform => bare("lm_head.dense", part),
            Role::LmHead if part == Part::Bias => TensorName::bare("lm_head.bias"),
            Role::LmHead => TensorName::bare("lm_head.decoder.weight"),
            _ => return encoder::source(id),
        },
        ParameterId::Norm(None, NormSite::MlmTransform, part) => bare("lm_head.layer_norm", part),
        _ => return encoder::source(id),
    })
}

/// The pooler of the bare model's class, which neither embeddings nor the other heads use, and buffers.
fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name.starts_with("pooler.dense.") || name.ends_with(".position_ids")
}

fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    encoder::copies(spec, "lm_head.decoder.weight", Some("lm_head.decoder.bias"))
}
