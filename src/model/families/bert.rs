//! BERT: post-norm encoder with learned positions and token types, bare (`BertModel`), with the head of a masked language
//! model, with a sequence classifier over the pooled first token, a classifier over every token or the scores of answers. Which one is said by `architectures`, else by the tensors. `BertForPreTraining`
//! is read as a masked language model: its second head is not used.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder::{self, bare, prefixed};
use super::fewer_layers::alike;
use super::{Family, TensorName, architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{Function, Head, ModelSpec};

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
    widths: encoder::WIDTHS,
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["classifier.weight", "pooler.dense.weight"], CLASSIFIER),
        (&["classifier.weight"], "BertForTokenClassification"),
        (&["qa_outputs.weight"], "BertForQuestionAnswering"),
        (&["cls.predictions.transform.dense.weight"], MASKED),
        (&["embeddings.word_embeddings.weight"], BARE),
    ],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    encoder::refuse_foreign(config, NAME)?;
    let activation = encoder::activation(config, NAME)?;
    let norm = encoder::norm(config)?;
    let class = architecture(config)?;
    let head = match (encoder::token_head(config, class, "Bert")?, class) {
        (Some(head), _) => head,
        (None, Some(BARE)) => Head::Hidden,
        (None, Some(MASKED | "BertForPreTraining")) => {
            Head::masked(activation, norm, config.flag("tie_word_embeddings")?)
        }
        (None, Some(CLASSIFIER)) => Head::classifier(Function::Tanh, labels(config)?),
        _ => {
            let supported = "BertModel, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, \
                             BertForQuestionAnswering";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    };
    encoder::model(config, NAME, config.size("max_position_embeddings")?, activation, head)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    Some(match id {
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::Pooler => prefixed("pooler.dense", part),
            Role::Classifier => encoder::classifier(spec, "classifier", part),
            Role::MlmTransform => bare("cls.predictions.transform.dense", part),
            Role::LmHead if part == Part::Bias => TensorName::bare("cls.predictions.bias"),
            Role::LmHead => TensorName::bare("cls.predictions.decoder.weight"),
            _ => return encoder::source(id),
        },
        ParameterId::Norm(None, NormSite::MlmTransform, part) => {
            bare("cls.predictions.transform.LayerNorm", part).with_legacy_norm()
        }
        _ => return encoder::source(id),
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
    encoder::copies(spec, "cls.predictions.decoder.weight", Some("cls.predictions.decoder.bias"))
}
