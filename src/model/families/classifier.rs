//! Labels of sequence classifiers, and the configuration of a bare encoder that is given one: the family's class in
//! `architectures`, and the labels under their ids.

use super::{FAMILIES, Family};
use crate::disk::{Config, ConfigError};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Labels of a class in transformers that is given none.
const CLASS_LABELS: usize = 2;
/// Most labels that `num_labels` may ask for.
const MAX_LABELS: usize = u16::MAX as usize;

/// Names of `id2label` in id order; the ids must be 0 to n − 1. Without it `LABEL_0` to `LABEL_(n − 1)`, n being
/// `num_labels`, else 2: transformers leaves the two labels out when it saves. A name may be a number.
pub(super) fn labels(config: &Config) -> Result<Vec<String>, ConfigError> {
    let expected = "an object from label ids 0 to n − 1 to names";
    let Some(section) = config.section("id2label")? else {
        let count = config.optional_size("num_labels")?.unwrap_or(CLASS_LABELS);
        if count > MAX_LABELS {
            return Err(config.wrong("num_labels", &format!("at most {MAX_LABELS}")));
        }
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    let mut labels = BTreeMap::new();
    for (key, value) in section.map() {
        let id: usize = key.parse().map_err(|_| config.wrong("id2label", expected))?;
        let name = match value {
            Value::String(name) => name.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(section.wrong(key, "the name of a label")),
        };
        labels.insert(id, name);
    }
    let complete = labels.len() == section.map().len() && labels.keys().copied().eq(0..labels.len());
    if labels.is_empty() || !complete {
        return Err(config.wrong("id2label", expected));
    }
    Ok(labels.into_values().collect())
}

/// Whether slmc has the family's classifier.
pub fn has_classifier(family: &str) -> bool {
    FAMILIES.iter().any(|known| known.model_type == family && known.classifier.is_some())
}

/// The configuration with a classifier for `labels`, whose ids are their order.
///
/// # Errors
/// A family whose classifier slmc does not have.
pub fn with_classifier(config: &Config, labels: &[String]) -> Result<Config, ConfigError> {
    let Some(class) = Family::of(config)?.classifier else {
        let known = FAMILIES.iter().filter(|family| family.classifier.is_some()).map(|family| family.model_type);
        return Err(config.unsupported("model_type", "--task classify", &known.collect::<Vec<_>>().join(", ")));
    };
    let mut map = config.map().clone();
    map.insert("architectures".to_owned(), json!([class]));
    let ids: Map<String, Value> = labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let back: Map<String, Value> = labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
    map.insert("id2label".to_owned(), Value::Object(ids));
    map.insert("label2id".to_owned(), Value::Object(back));
    Ok(Config::from_map(config.file(), map))
}
