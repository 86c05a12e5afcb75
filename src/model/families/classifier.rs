//! The configuration of a bare encoder with a sequence classifier on it: the family's class in `architectures`, and the
//! labels under their ids.

use super::{FAMILIES, Family};
use crate::disk::{Config, ConfigError};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The configuration with a classifier for `labels`, whose ids are their order.
///
/// # Errors
/// A family whose classifier slmc does not have.
pub fn with_classifier(config: &Config, labels: &BTreeSet<String>) -> Result<Config, ConfigError> {
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
