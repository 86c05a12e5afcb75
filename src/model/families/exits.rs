//! Exit heads, which no family has in transformers: after how many layers they stand is said by `slmc_exits` in
//! config.json, and their tensors are named after that number. transformers reads such a directory as the model without them.
//!
//! ```text
//! "slmc_exits": {"layers": [2, 4]}        exits.2.pooler.{weight, bias}, exits.2.classifier.{weight, bias}, exits.4.…
//! ```

use super::{Family, TensorName};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{ClassifierState, Head, ModelSpec};
use serde_json::{Map, Value, json};

/// Key of the exits.
const KEY: &str = "slmc_exits";
/// Key of the layers in it.
const LAYERS: &str = "layers";

/// Exits that a model cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExitsError {
    /// The model has no head that a layer could have too.
    #[error(
        "exits stand on sequence classifiers, and this model gives {output}; pass a classifier, or a bare encoder with --task classify"
    )]
    NotAClassifier {
        /// Its output.
        output: &'static str,
    },
    /// No exit.
    #[error("no exit is named; pass after how many layers a text may leave, such as --exits 2,4")]
    None,
    /// An exit where there is no layer before the last.
    #[error("there is no exit after {layers} layers of {all}; pass numbers from 1 to {}", all - 1)]
    Layers {
        /// Asked for.
        layers: usize,
        /// Layers of the model.
        all: usize,
    },
    /// Not in ascending order, or twice the same.
    #[error("exit {second} is named after exit {first}; pass each once, in ascending order")]
    Order {
        /// The one before.
        first: usize,
        /// The one that does not follow it.
        second: usize,
    },
}

impl ModelSpec {
    /// Whether the model can have exit heads after these numbers of layers.
    ///
    /// # Errors
    /// [`ExitsError`].
    pub fn check_exits(&self, exits: &[usize]) -> Result<(), ExitsError> {
        let output = match &self.head {
            Head::Classifier { state: ClassifierState::First, norm: None, .. } if self.final_norm.is_none() => None,
            Head::Classifier { .. } => Some("labels of normed or averaged states"),
            Head::LastClassifier { .. } => Some("labels by the state of the last token"),
            Head::Hidden => Some("hidden states"),
            Head::LanguageModel { .. } => Some("logits of the next token"),
            Head::MaskedLanguageModel { .. } => Some("logits of masked tokens"),
            Head::TokenClassifier { .. } => Some("labels of tokens"),
            Head::Answers { .. } => Some("places of answers"),
        };
        if let Some(output) = output {
            return Err(ExitsError::NotAClassifier { output });
        }
        check_places(exits, self.layers.len())
    }
}

/// Whether exits can stand after these numbers of layers of a model with `all`.
///
/// # Errors
/// [`ExitsError`].
pub fn check_places(exits: &[usize], all: usize) -> Result<(), ExitsError> {
    if exits.is_empty() {
        return Err(ExitsError::None);
    }
    if let Some(&layers) = exits.iter().find(|&&layers| layers == 0 || layers >= all) {
        return Err(ExitsError::Layers { layers, all });
    }
    match exits.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(ExitsError::Order { first: pair[0], second: pair[1] }),
        None => Ok(()),
    }
}

/// The exits that a configuration states.
///
/// # Errors
/// A list that is none, or exits that the model cannot have.
pub(super) fn exits(config: &Config, spec: &ModelSpec) -> Result<Vec<usize>, ConfigError> {
    let Some(section) = config.section(KEY)? else { return Ok(Vec::new()) };
    if let Some(key) = section.map().keys().find(|key| *key != LAYERS) {
        return Err(section.unsupported(key, "slmc", "the key layers alone"));
    }
    let list = section.value(LAYERS).and_then(Value::as_array);
    let numbers = list.and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
    let numbers = numbers.ok_or_else(|| section.wrong(LAYERS, "a list of numbers of layers"))?;
    let exits: Vec<usize> = numbers.into_iter().map(|number| usize::try_from(number).unwrap_or(usize::MAX)).collect();
    match spec.check_exits(&exits) {
        Ok(()) => Ok(exits),
        Err(error) => Err(section.wrong(LAYERS, &format!("exits that the model can have: {error}"))),
    }
}

/// The configuration with exits after these numbers of layers.
///
/// # Errors
/// Exits that the model cannot have.
pub fn with_exits(config: &Config, exits: &[usize]) -> Result<Config, ConfigError> {
    let mut map = config.map().clone();
    map.insert(KEY.to_owned(), json!({ LAYERS: exits }));
    let config = Config::from_map(config.file(), map);
    Family::of(&config)?.read(&config)?;
    Ok(config)
}

/// Drops the exits of a configuration whose layers or widths become others.
pub(super) fn without_exits(map: &mut Map<String, Value>) {
    map.shift_remove(KEY);
}

/// The tensor of an exit head.
fn source(id: ParameterId) -> Option<TensorName> {
    let ParameterId::Linear(LinearId { layer: Some(layer), role }, part) = id else { return None };
    let stem = match role {
        Role::ExitPooler => "pooler",
        Role::ExitClassifier => "classifier",
        _ => return None,
    };
    Some(TensorName::bare(&format!("exits.{}.{stem}.{}", u32::from(layer) + 1, part.name())))
}

impl Family {
    /// Where a parameter is in a checkpoint; `None` for one that the family never has.
    pub fn tensor(&self, spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
        source(id).or_else(|| (self.source)(spec, id))
    }
}
