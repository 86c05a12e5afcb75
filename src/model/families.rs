//! Families of models: how each one's config.json and tensor names map onto a [`ModelSpec`]. A family is one file and
//! one row of [`FAMILIES`]; everything a family does not know it refuses, naming key and value, or tensor.

mod bert;
pub mod class_defaults;
mod classifier;
mod decoder;
mod distilbert;
mod electra;
mod encoder;
mod exits;
mod expert_order;
mod fewer_layers;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod granite;
mod granitemoe;
mod head_order;
mod lfm2;
mod llama;
mod ministral3;
mod mistral;
mod mobilellm;
mod modernbert;
mod narrower;
mod nomic_bert;
mod olmo2;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;
mod rotary;
mod smollm3;
mod stablelm;
mod starcoder2;
mod t5;

pub use classifier::{has_classifier, with_classifier};
pub use exits::{ExitsError, check_places, with_exits};
pub use expert_order::ExpertOrder;
pub use fewer_layers::with_layers;
pub use head_order::HeadOrder;
pub use narrower::{WidthKeys, Widths, with_widths};
pub use rotary::{ContextLimit, context_limit};

use class_defaults::ClassDefault;

use super::id::{LinearId, ParameterId, Part, Role};
use super::spec::{Activation, Head, ModelKind, ModelSpec};
use crate::disk::{Config, ConfigError, DenseTensor, TensorError};
use serde_json::Value;

/// What slmc knows of one `model_type`.
pub struct Family {
    /// `model_type` of its configuration.
    pub model_type: &'static str,
    /// What stands before its tensor names, tried in order.
    pub prefixes: &'static [&'static str],
    /// Name of the token table, without prefix.
    pub token_table: &'static str,
    /// What its class in transformers has for keys that are absent.
    pub defaults: &'static [(&'static str, ClassDefault)],
    /// Other names of keys, each with the key.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Reads the configuration.
    pub spec: fn(&Config) -> Result<ModelSpec, ConfigError>,
    /// Where a parameter is in a checkpoint; `None` for one the family never has.
    pub source: fn(&ModelSpec, ParameterId) -> Option<TensorName>,
    /// Tensors, without prefix, that carry nothing: buffers, and parts the head does not use.
    pub ignored: fn(&ModelSpec, &str) -> bool,
    /// Tensors that some files hold a second time; accepted where they equal the parameter.
    pub copies: fn(&ModelSpec) -> Vec<(TensorName, ParameterId)>,
    /// Key of the number of layers.
    pub layer_count: &'static str,
    /// The configuration of a model with these layers of another, ascending; see [`with_layers`], which checks it.
    pub with_layers: fn(&Config, &[usize]) -> Result<Config, ConfigError>,
    /// Keys of its widths; see [`with_widths`].
    pub widths: WidthKeys,
    /// `architectures` of its sequence classifier, where slmc has one.
    pub classifier: Option<&'static str>,
    /// Its classes, each with the tensors, without prefix, that only it has: which one a checkpoint is that does not say it.
    pub heads: &'static [(&'static [&'static str], &'static str)],
}

/// Every family, sorted by name.
pub const FAMILIES: [Family; 29] = [
    bert::FAMILY,
    roberta::CAMEMBERT,
    distilbert::FAMILY,
    electra::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    granite::FAMILY,
    granitemoe::FAMILY,
    lfm2::FAMILY,
    llama::FAMILY,
    ministral3::FAMILY,
    mistral::FAMILY,
    mobilellm::FAMILY,
    modernbert::FAMILY,
    nomic_bert::FAMILY,
    olmo2::FAMILY,
    opt::FAMILY,
    phi::FAMILY,
    phi3::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    roberta::FAMILY,
    smollm3::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
    t5::FAMILY,
    roberta::XLM_ROBERTA,
];

/// Where a parameter is: a whole tensor stored as slmc uses it, or transposed, or some rows of a fused one.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorName {
    /// Name of the tensor.
    pub name: String,
    /// An older spelling of the same name.
    pub legacy_name: Option<String>,
    /// Whether the family's prefix stands before it.
    pub prefixed: bool,
    /// Its rows, where the tensor holds several parameters one after the other.
    pub fused: Option<Fused>,
    /// Whether the file holds the matrix as (in, out).
    pub transposed: bool,
    /// The order of its rows in the file, where that is another.
    pub heads: Option<HeadOrder>,
    /// How the matrices of experts are stacked in the file, where it has a mixture's.
    pub experts: Option<ExpertOrder>,
    /// Factor on its values, which the file has without it; 1 for most.
    pub factor: f32,
}

/// Which rows of a fused tensor a parameter is, counted as slmc turns it, (out, in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// Its first row.
    pub first: usize,
    /// Rows of the whole tensor.
    pub rows: usize,
}

impl TensorName {
    fn prefixed(name: String) -> Self {
        TensorName {
            name,
            legacy_name: None,
            prefixed: true,
            fused: None,
            transposed: false,
            heads: None,
            experts: None,
            factor: 1.0,
        }
    }

    fn bare(name: &str) -> Self {
        TensorName { prefixed: false, ..TensorName::prefixed(name.to_owned()) }
    }

    /// Rows `first ..` of a tensor with `rows` rows.
    fn fused(self, first: usize, rows: usize) -> Self {
        TensorName { fused: Some(Fused { first, rows }), ..self }
    }

    /// Stored as (in, out), where it is a matrix.
    fn transposed(self, part: Part) -> Self {
        TensorName { transposed: part == Part::Weight, ..self }
    }

    /// Stored with the rows of its heads in another order, where one is given.
    fn by_heads(self, heads: Option<HeadOrder>) -> Self {
        TensorName { heads, ..self }
    }

    /// Stored with the matrices of experts stacked.
    fn by_experts(self, experts: ExpertOrder) -> Self {
        TensorName { experts: Some(experts), ..self }
    }

    /// Stored without this factor.
    fn times(self, factor: f32) -> Self {
        TensorName { factor, ..self }
    }

    /// Whether the file has the values as they are used, row by row: not in another order, nor without a factor.
    pub fn is_as_stored(&self) -> bool {
        self.heads.is_none() && self.experts.is_none() && self.factor == 1.0
    }

    /// The shape of the stored tensor, for a parameter of shape `shape`.
    pub fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if let (Some(fused), Some(rows)) = (self.fused, shape.first_mut()) {
            *rows = fused.rows;
        }
        if self.transposed {
            shape.reverse();
        }
        match self.experts {
            Some(experts) => experts.stored_shape(&shape),
            None => shape,
        }
    }

    /// The parameter, of shape `shape`, out of the stored tensor; `None` where that has another shape than
    /// [`TensorName::stored_shape`].
    ///
    /// # Errors
    /// A value that is not finite, of a tensor with a factor.
    pub fn take(&self, stored: DenseTensor, shape: &[usize]) -> Result<Option<DenseTensor>, TensorError> {
        let Some(taken) = self.rows(stored, shape) else { return Ok(None) };
        match self.factor {
            1.0 => Ok(Some(taken)),
            factor => taken.scaled(factor).map(Some),
        }
    }

    /// The rows of the stored tensor, in the order in which slmc uses them.
    fn rows(&self, stored: DenseTensor, shape: &[usize]) -> Option<DenseTensor> {
        if let Some(experts) = self.experts {
            return experts.taken(&stored, self.fused.map_or(0, |fused| fused.first), shape);
        }
        if self.fused.is_none() && !self.transposed && self.heads.is_none() {
            return Some(stored);
        }
        let (first, rows) = (self.fused.map_or(0, |fused| fused.first), *shape.first()?);
        let rows = first..first.checked_add(rows)?;
        match (self.heads, self.transposed) {
            (Some(heads), transposed) => {
                let stored = if transposed { stored.transposed()? } else { stored };
                let whole = *stored.shape().first()?;
                let rows: Vec<u32> = rows.map(|row| heads.stored_row(row, whole) as u32).collect();
                stored.gathered(&rows)
            }
            (None, true) => stored.transposed_columns(rows),
            (None, false) => stored.rows(rows),
        }
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

    /// The prefix a checkpoint uses: the first under which it has a token table, else (the table of a tied head may be
    /// stored as the head alone) the first under which it has anything.
    pub fn prefix(&self, spec: &ModelSpec, has_tensor: impl Fn(&str) -> bool) -> &'static str {
        let has = |id: ParameterId, prefix: &str| {
            let source = (self.source)(spec, id).filter(|source| source.prefixed);
            source.is_some_and(|source| source.names(prefix).iter().any(|name| has_tensor(name)))
        };
        let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
        let by_table = self.prefixes.iter().find(|prefix| has(table, prefix));
        let by_any = || self.prefixes.iter().find(|prefix| spec.parameters().iter().any(|any| has(any.id, prefix)));
        by_table.or_else(by_any).or(self.prefixes.first()).copied().unwrap_or("")
    }
}

/// Whether a family of decoders has sentence encoders, which slmc reads by modules.json or by the class.
pub fn makes_sentence_vectors(family: &str) -> bool {
    family == qwen3::NAME
}

/// A decoder without its head, whose output is the hidden states: an encoder whose positions see those before them alone.
pub fn as_encoder(spec: ModelSpec) -> ModelSpec {
    ModelSpec { kind: ModelKind::Encoder, head: Head::Hidden, opening: Vec::new(), ..spec }
}

/// Reads a configuration into what the forward needs, or says what of it slmc does not implement.
pub fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    Family::of(config)?.read(config)
}

/// As [`spec`], of a configuration without weights, which must state its sizes.
pub fn spec_without_weights(config: &Config) -> Result<ModelSpec, ConfigError> {
    let family = Family::of(config)?;
    family.require_sizes(config)?;
    family.read(config)
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
        Some(Value::Array(list)) if list.is_empty() => Ok(None),
        Some(value) => {
            let list = value.as_array().map(Vec::as_slice);
            let one = list.and_then(|list| if let [one] = list { one.as_str() } else { None });
            one.map(Some).ok_or_else(|| config.wrong("architectures", "a list of one name"))
        }
    }
}

/// Refuses an architecture that is not the family's causal language model; none stands for it.
fn require_architecture(config: &Config, family: &'static str, name: &str) -> Result<(), ConfigError> {
    match architecture(config)? {
        Some(found) if found != name => Err(config.unsupported("architectures", family, name)),
        _ => Ok(()),
    }
}

/// The number of layers under `key`, which must fit the 16 bits of a layer's number.
fn layer_count(config: &Config, key: &str) -> Result<usize, ConfigError> {
    const MOST: usize = u16::MAX as usize;
    let layers = config.size(key)?;
    if layers > MOST { Err(config.wrong(key, &format!("at most {MOST}"))) } else { Ok(layers) }
}

/// Width of one head where the heads, whose number stands under `key`, share the hidden width.
fn head_width(config: &Config, key: &str, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
    if hidden.is_multiple_of(heads) {
        Ok(hidden / heads)
    } else {
        Err(config.wrong(key, &format!("a divisor of hidden_size, {hidden}")))
    }
}

/// The activation under `key`: GELU in one of its spellings.
fn gelu(config: &Config, key: &str, family: &'static str, supported: &str) -> Result<Activation, ConfigError> {
    let name = config.text(key)?;
    match name {
        _ if !supported.split(", ").any(|known| known == name) => Err(config.unsupported(key, family, supported)),
        "gelu" => Ok(Activation::Gelu),
        _ => Ok(Activation::GeluTanh),
    }
}
