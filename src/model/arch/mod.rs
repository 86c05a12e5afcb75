//! Families of models: how each one's config.json and tensor names map onto a [`ModelSpec`]. A family is one file and
//! one row of [`FAMILIES`]; everything a family does not know it refuses, naming key and value, or tensor.

mod bert;
mod llama;

use super::id::{LinearId, ParameterId, Role};
use super::spec::ModelSpec;
use crate::checkpoint::{Config, ConfigError};

/// What slmc knows of one `model_type`.
pub struct Family {
    /// `model_type` of its configuration.
    pub model_type: &'static str,
    /// What stands before its tensor names, tried in order.
    pub prefixes: &'static [&'static str],
    /// Reads the configuration.
    pub spec: fn(&Config) -> Result<ModelSpec, ConfigError>,
    /// Where a parameter is in a checkpoint; `None` for one the family never has.
    pub source: fn(ParameterId) -> Option<Source>,
    /// Tensors, without prefix, that carry nothing: buffers, and parts the head does not use.
    pub ignored: fn(&ModelSpec, &str) -> bool,
    /// Tensors that some files hold a second time; accepted where they equal the parameter.
    pub copies: fn(&ModelSpec) -> Vec<(Source, ParameterId)>,
}

/// Every family, sorted by name.
pub const FAMILIES: [Family; 2] = [bert::FAMILY, llama::FAMILY];

/// Where a parameter is: a whole tensor, stored as slmc uses it. Fused and transposed storage will be further fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the tensor.
    pub name: String,
    /// An older spelling of the same name.
    pub legacy_name: Option<String>,
    /// Whether the family's prefix stands before it.
    pub prefixed: bool,
}

impl Source {
    fn prefixed(name: String) -> Self {
        Source { name, legacy_name: None, prefixed: true }
    }

    fn bare(name: &str) -> Self {
        Source { name: name.to_owned(), legacy_name: None, prefixed: false }
    }

    /// With the spelling of norms that TensorFlow left behind: `gamma` for weight, `beta` for bias.
    fn with_legacy_norm(mut self) -> Self {
        let renamed = |end, legacy| self.name.strip_suffix(end).map(|stem| format!("{stem}{legacy}"));
        self.legacy_name = renamed("weight", "gamma").or_else(|| renamed("bias", "beta"));
        self
    }

    /// The names a file may use, the usual one first.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let prefix = if self.prefixed { prefix } else { "" };
        [Some(&self.name), self.legacy_name.as_ref()].into_iter().flatten().map(|n| format!("{prefix}{n}")).collect()
    }
}

impl Family {
    /// The family of a configuration.
    pub fn of(config: &Config) -> Result<&'static Family, ConfigError> {
        const TABLE: &[Family] = &FAMILIES;
        let model_type = config.text("model_type")?;
        TABLE.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
            let known: Vec<&str> = TABLE.iter().map(|family| family.model_type).collect();
            config.unsupported("model_type", "slmc", &known.join(", "))
        })
    }

    /// The prefix a checkpoint uses: the first under which it has a token table.
    pub fn prefix(&self, has_tensor: impl Fn(&str) -> bool) -> &'static str {
        let table = (self.source)(ParameterId::weight(LinearId::global(Role::TokenEmbedding)));
        let found = |prefix: &&&str| table.iter().flat_map(|s| s.names(prefix)).any(|name| has_tensor(&name));
        self.prefixes.iter().find(found).or(self.prefixes.first()).copied().unwrap_or("")
    }
}

/// Reads a configuration into what the forward needs, or says what of it slmc does not implement.
pub fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    (Family::of(config)?.spec)(config)
}

/// Refuses every key whose value is neither absent nor `neutral` (null, 0 or false as the pair says).
fn refuse_unless(
    config: &Config,
    family: &'static str,
    neutral: &[(&str, serde_json::Value)],
) -> Result<(), ConfigError> {
    for (key, accepted) in neutral {
        let equal = |value: &serde_json::Value| match (value.as_f64(), accepted.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => value == accepted,
        };
        if config.value(key).is_some_and(|value| !equal(value)) {
            let supported = if accepted.is_null() { "only models without it".to_owned() } else { accepted.to_string() };
            return Err(config.unsupported(key, family, &supported));
        }
    }
    Ok(())
}

/// The one entry of `architectures`, which says what stands on the model.
fn architecture(config: &Config) -> Result<Option<&str>, ConfigError> {
    match config.value("architectures") {
        None => Ok(None),
        Some(value) => {
            let list = value.as_array().map(Vec::as_slice);
            let one = list.and_then(|list| if let [one] = list { one.as_str() } else { None });
            one.map(Some).ok_or_else(|| config.wrong("architectures", "a list of one name"))
        }
    }
}

/// `num_hidden_layers`, which must fit the 16 bits of a layer's number.
fn layer_count(config: &Config) -> Result<usize, ConfigError> {
    const MOST: usize = u16::MAX as usize;
    let layers = config.size("num_hidden_layers")?;
    if layers > MOST { Err(config.wrong("num_hidden_layers", &format!("at most {MOST}"))) } else { Ok(layers) }
}

/// Width of one head where the heads share the hidden width.
fn head_width(config: &Config, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
    if hidden.is_multiple_of(heads) {
        Ok(hidden / heads)
    } else {
        Err(config.wrong("num_attention_heads", &format!("a divisor of hidden_size, {hidden}")))
    }
}
