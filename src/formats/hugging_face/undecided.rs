//! What config.json leaves open and the tensors decide. Files that were written by hand or by old versions have no
//! `model_type` (Google's small BERTs have neither that nor `architectures`). A class names its family; else a family is
//! the one whose tensors are there. Where tensors of the same names and shapes belong to families that compute different
//! things (Llama and Mistral), they decide nothing.

use crate::disk::{Config, ConfigError};
use crate::model::families::{FAMILIES, Family};
use crate::model::notes::Note;
use serde_json::{Value, json};

/// Tensors, without prefix, by which a family is told from the others.
struct Signature {
    model_type: &'static str,
    /// All of these are there.
    has: &'static [&'static str],
    /// None of these is.
    lacks: &'static [&'static str],
}

const SIGNATURES: [Signature; 8] = [
    // RoBERTa's base model has BERT's names and counts positions from two; it has one token type and no pooled head of these.
    Signature {
        model_type: "bert",
        has: &["encoder.layer.0.attention.self.query.weight", "pooler.dense.weight"],
        lacks: &[],
    },
    Signature {
        model_type: "bert",
        has: &["encoder.layer.0.attention.self.query.weight", "cls.predictions.transform.dense.weight"],
        lacks: &[],
    },
    Signature { model_type: "distilbert", has: &["transformer.layer.0.attention.q_lin.weight"], lacks: &[] },
    Signature {
        model_type: "gpt2",
        has: &["h.0.attn.c_attn.weight", "wte.weight", "wpe.weight"],
        lacks: &["h.0.crossattention.c_attn.weight"],
    },
    Signature {
        model_type: "lfm2",
        has: &["layers.0.operator_norm.weight", "layers.0.feed_forward.w1.weight"],
        lacks: &[],
    },
    Signature {
        model_type: "gemma3_text",
        has: &["layers.0.pre_feedforward_layernorm.weight", "layers.0.self_attn.q_norm.weight"],
        lacks: &[],
    },
    Signature {
        model_type: "qwen3",
        has: &["layers.0.input_layernorm.weight", "layers.0.self_attn.q_norm.weight", "layers.0.mlp.gate_proj.weight"],
        lacks: &["layers.0.pre_feedforward_layernorm.weight"],
    },
    Signature {
        model_type: "qwen2",
        has: &["layers.0.input_layernorm.weight", "layers.0.self_attn.q_proj.bias", "layers.0.mlp.gate_proj.weight"],
        lacks: &["layers.0.self_attn.o_proj.bias", "layers.0.self_attn.q_norm.weight", "layers.0.input_layernorm.bias"],
    },
];

/// A key of config.json that is there and says something.
fn stated(config: &Config, key: &str) -> bool {
    config.value(key).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
}

/// Whether the tensors are needed to read a configuration.
pub(super) fn is_open(config: &Config) -> bool {
    let chosen = |family: &Family| family.heads.len() == 1 || stated(config, "architectures");
    !stated(config, "model_type") || Family::of(config).is_ok_and(|family| !chosen(family))
}

/// The configuration with `model_type` and `architectures` as the tensors have it, where it lacks them. `has` tells whether
/// there is a tensor of a name.
///
/// # Errors
/// Tensors that decide nothing.
pub(super) fn decided(config: &Config, has: &dyn Fn(&str) -> bool) -> Result<(Config, Vec<Note>), ConfigError> {
    let (mut map, mut notes) = (config.map().clone(), Vec::new());
    let family = match stated(config, "model_type") {
        true => Family::of(config)?,
        false => {
            let family = by_class(config).or_else(|| by_tensors(config, has)).ok_or_else(|| {
                config
                    .missing("model_type", "the family of the model, since its tensors do not tell one from the others")
            })?;
            map.insert("model_type".to_owned(), json!(family.model_type));
            notes.push(Note::ModelType { model_type: family.model_type });
            family
        }
    };
    if !stated(config, "architectures")
        && family.heads.len() > 1
        && let Some(class) = class(family, has)
    {
        map.insert("architectures".to_owned(), json!([class]));
        notes.push(Note::Architecture { architecture: class });
    }
    Ok((Config::from_map(config.file(), map), notes))
}

/// The family with the class that `architectures` names.
fn by_class(config: &Config) -> Option<&'static Family> {
    const TABLE: &[Family] = &FAMILIES;
    let named = config.value("architectures")?.as_array()?.first().and_then(Value::as_str)?;
    TABLE
        .iter()
        .find(|family| family.heads.iter().any(|(_, class)| *class == named) || family.classifier == Some(named))
}

fn by_tensors(config: &Config, has: &dyn Fn(&str) -> bool) -> Option<&'static Family> {
    const TABLE: &[Family] = &FAMILIES;
    // One token type is what RoBERTa has, whose names are BERT's.
    let one_type = config.value("type_vocab_size").and_then(Value::as_u64) == Some(1);
    let fits = |family: &Family, signature: &Signature| {
        let any = |name: &str| family.prefixes.iter().any(|prefix| has(&format!("{prefix}{name}")) || has(name));
        signature.has.iter().all(|name| any(name)) && !signature.lacks.iter().any(|name| any(name))
    };
    let of_type = |signature: &&Signature| {
        TABLE.iter().any(|family| family.model_type == signature.model_type && fits(family, signature))
    };
    let found = SIGNATURES.iter().filter(|signature| !(one_type && signature.model_type == "bert")).find(of_type)?;
    TABLE.iter().find(|family| family.model_type == found.model_type)
}

/// The class whose tensors are there.
fn class(family: &Family, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let any = |name: &&str| family.prefixes.iter().any(|prefix| has(&format!("{prefix}{name}")) || has(name));
    family.heads.iter().find(|(tensors, _)| tensors.iter().all(any)).map(|(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn decide(config: Value, tensors: &[&str]) -> Result<(Value, Vec<Note>), String> {
        let config = Config::parse(Path::new("m/config.json"), config.to_string().as_bytes()).expect("an object");
        let (config, notes) = decided(&config, &|name| tensors.contains(&name)).map_err(|error| error.to_string())?;
        Ok((Value::Object(config.map().clone()), notes))
    }

    #[test]
    fn tensors_decide_what_the_configuration_does_not_say() {
        let query = "bert.encoder.layer.0.attention.self.query.weight";
        let words = "bert.embeddings.word_embeddings.weight";
        let qwen = [
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.0.mlp.gate_proj.weight",
        ];
        let gemma = [qwen[0], qwen[1], qwen[2], "model.layers.0.pre_feedforward_layernorm.weight"];
        let bert = [query, words, "cls.predictions.transform.dense.weight", "bert.pooler.dense.weight"];
        let cases: [(Value, &[&str], &str, Option<&str>); 8] = [
            (json!({}), &bert, "bert", Some("BertForMaskedLM")),
            (
                json!({"architectures": []}),
                &[query, words, "classifier.weight", "bert.pooler.dense.weight"],
                "bert",
                Some("BertForSequenceClassification"),
            ),
            (json!({"model_type": "bert"}), &[query, words], "bert", Some("BertModel")),
            (
                json!({}),
                &["transformer.layer.0.attention.q_lin.weight", "embeddings.word_embeddings.weight"],
                "distilbert",
                Some("DistilBertModel"),
            ),
            (json!({}), &["h.0.attn.c_attn.weight", "wte.weight", "wpe.weight"], "gpt2", None),
            (json!({}), &qwen, "qwen3", None),
            (json!({}), &gemma, "gemma3_text", None),
            (json!({"architectures": ["MistralForCausalLM"]}), &[], "mistral", None),
        ];
        for (config, tensors, family, class) in cases {
            let (decided, notes) = decide(config.clone(), tensors).expect("decided");
            assert_eq!(decided["model_type"], family, "{config}");
            if let Some(class) = class {
                assert_eq!(decided["architectures"], json!([class]), "{config}");
            }
            assert!(!notes.is_empty());
        }
    }

    #[test]
    fn tensors_of_several_families_decide_nothing() {
        let llama = ["model.layers.0.input_layernorm.weight", "model.layers.0.mlp.gate_proj.weight"];
        let roberta = ["encoder.layer.0.attention.self.query.weight", "pooler.dense.weight"];
        for (config, tensors) in [(json!({}), &llama[..]), (json!({"type_vocab_size": 1}), &roberta)] {
            let error = decide(config, tensors).expect_err("undecided");
            assert!(error.contains("key `model_type` is missing") && error.contains("do not tell"), "{error}");
        }
    }
}
