//! Adapters of PEFT: LoRA, with ranks and scales by module, rsLoRA, DoRA, whole modules (`modules_to_save`), tables and added
//! tokens. An adapter stands on its base: opened together they are a model, whose changed tensors are merged when they are
//! read. The base is any model that slmc opens; what a module is called there is what the family calls it.
//!
//! The files are adapter_config.json (`settings`) and adapter_model.safetensors (`names`); `merge` has the arithmetic, `write` the way
//! back.

mod changes;
pub mod error;
mod merge;
mod names;
mod places;
mod settings;
mod write;

pub use write::{NewAdapter, write};

use self::changes::Changes;
use self::error::AdapterError;
use self::settings::Settings;
use super::error::ModelFormatError;
use super::found::check_link;
use super::{Contents, Format, ModelSource, StoredAs, hugging_face};
use crate::disk::config::{json, read_bounded};
use crate::disk::deferred::Deferred;
use crate::disk::hash::{Hash, HashError, path_sha256, sha256};
use crate::disk::{Config, ConfigError, DenseTensor, SharedBytes, tensor_file};
use crate::model::companions::{Companions, TOKENIZER_FILE};
use crate::model::described;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use crate::model::notes::Note;
use crate::model::transform::Sparsity;
use crate::model::weights::{ModelError, Outline, Parameter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// File with the weights.
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The same as a pickle.
const PICKLED_FILE: &str = "adapter_model.bin";

/// Its row of [`super::FORMATS`]: a directory with an adapter and without a model.
pub const FORMAT: Format = Format {
    name: "adapter on its base",
    recognises: is_adapter,
    contents: |_| Contents { configuration: true, weights: true },
    configuration: |path| Ok(open(path)?.outline.config.clone()),
    companions: |path| Ok(open(path)?.outline.companions.clone()),
    open: |path| Ok(Box::new(open(path)?)),
    sha256: |path| match base_of(path) {
        Some(base) => Ok(sha256(&[path_sha256(path)?, super::sha256(&base)?].concat())),
        None => path_sha256(path),
    },
};

/// The base of adapters that are passed where a model is asked for.
static BASE: OnceLock<PathBuf> = OnceLock::new();

/// Says which model the adapters of this process change, once, before any is opened; without it an adapter's own word counts.
pub fn set_base(base: &Path) {
    BASE.get_or_init(|| base.to_owned());
}

/// Refuses a base that was set where none of the models that are read is an adapter: nothing would come of it.
///
/// # Errors
/// [`AdapterError::NoAdapter`].
pub fn check_base<P: AsRef<Path>>(models: impl IntoIterator<Item = P>) -> Result<(), AdapterError> {
    let Some(base) = BASE.get() else { return Ok(()) };
    let models: Vec<PathBuf> = models.into_iter().map(|path| path.as_ref().to_owned()).collect();
    match models.iter().any(|path| is_adapter(path)) {
        true => Ok(()),
        false => Err(AdapterError::NoAdapter { base: base.clone(), models }),
    }
}

/// Whether a path holds an adapter and no model.
pub fn is_adapter(path: &Path) -> bool {
    path.join(settings::FILE).is_file() && !hugging_face::contents(path).weights
}

/// The base of an adapter: as set, else where the adapter says, from here or from beside it.
fn base_of(adapter: &Path) -> Option<PathBuf> {
    if let Some(base) = BASE.get() {
        return (!is_adapter(base)).then(|| base.clone());
    }
    let config = Config::read(&adapter.join(settings::FILE)).ok()?;
    let stated = PathBuf::from(config.value("base_model_name_or_path")?.as_str()?);
    let beside = adapter.parent().map(|parent| parent.join(&stated));
    let model = |path: &PathBuf| super::is_model(path) && super::contents(path).weights && !is_adapter(path);
    [Some(stated), beside].into_iter().flatten().find(model)
}

fn open(path: &Path) -> Result<AdapterSource, ModelFormatError> {
    let Some(base) = base_of(path) else {
        let base = Settings::read(path)?.base().map(str::to_owned);
        return Err(AdapterError::NoBase { path: path.to_owned(), base }.into());
    };
    AdapterSource::open(super::open(&base)?, &[Weighted { path: path.to_owned(), weight: 1.0 }])
}

/// An adapter with the weight that its change has.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Its directory.
    pub path: PathBuf,
    /// 1 for the change as it was trained.
    pub weight: f64,
}

/// A base with adapters, in their order.
pub struct AdapterSource {
    outline: Outline,
    base: Box<dyn ModelSource>,
    adapters: Vec<PathBuf>,
    changes: Changes,
    summaries: Vec<AdapterSummary>,
}

/// What an adapter changes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AdapterSummary {
    /// Its directory.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
    /// Modules with a change of low rank.
    pub modules: usize,
    /// Their ranks, ascending.
    pub ranks: Vec<usize>,
    /// Whether rows have trained lengths.
    pub dora: bool,
    /// Tensors that stand in the place of the base's.
    pub replaced: usize,
}

impl AdapterSource {
    /// Opens adapters on a base: names, shapes and configurations are checked, values are not.
    ///
    /// # Errors
    /// [`ModelFormatError`].
    pub fn open(base: Box<dyn ModelSource>, adapters: &[Weighted]) -> Result<Self, ModelFormatError> {
        let of_base = base.outline();
        if let Some(schemes) = &of_base.schemes {
            let tensor = schemes.keys().next().map(ToString::to_string).unwrap_or_default();
            return Err(AdapterError::Quantized { base: of_base.path.clone(), tensor }.into());
        }
        let opened: Vec<changes::Opened> = adapters.iter().map(read).collect::<Result<_, _>>()?;
        let mut companions = of_base.companions.clone();
        adapters.iter().for_each(|adapter| take_tokenizer(&mut companions, &adapter.path));
        let config = places::configuration(of_base, &opened)?;
        let spec = described::spec_of(&companions, &config)?;
        for adapter in adapters {
            check_tokens(&adapter.path, &of_base.companions, spec.vocabulary)?;
        }
        let (changes, summaries) = Changes::of(of_base, &spec, &opened)?;
        let mut notes = vec![Note::Adapted { base: of_base.path.clone(), tensors: changes.len() }];
        notes.extend(of_base.notes.iter().cloned());
        let path = adapters.first().map_or_else(|| of_base.path.clone(), |adapter| adapter.path.clone());
        let outline = Outline { spec, config, companions, path, notes, ..of_base.clone() };
        let adapters = adapters.iter().map(|adapter| adapter.path.clone()).collect();
        Ok(AdapterSource { outline, base, adapters, changes, summaries })
    }

    /// The files of an adapter that decide what is merged.
    pub fn files(adapter: &Path) -> [PathBuf; 2] {
        [settings::FILE, WEIGHTS_FILE].map(|name| adapter.join(name))
    }

    /// What each adapter changes.
    pub fn summaries(&self) -> &[AdapterSummary] {
        &self.summaries
    }

    /// The parameter that one begins as: a head that is no longer tied begins as the table.
    fn of_base(&self, id: ParameterId) -> ParameterId {
        let untied = id == ParameterId::weight(LinearId::global(Role::LmHead)) && self.base.outline().spec.tied_head();
        if untied { ParameterId::weight(LinearId::global(Role::TokenEmbedding)) } else { id }
    }

    /// Bytes that the changes hold in memory while tensors are made.
    pub fn held_bytes(&self) -> u64 {
        self.changes.held_bytes()
    }

    /// How many tensors are not the base's.
    pub fn changed(&self) -> usize {
        self.changes.len()
    }
}

fn read(adapter: &Weighted) -> Result<changes::Opened, ModelFormatError> {
    if adapter.path.join(settings::FILE).symlink_metadata().is_err() {
        return Err(AdapterError::NotAnAdapter { path: adapter.path.clone() }.into());
    }
    let settings = Settings::read(&adapter.path)?;
    let file = adapter.path.join(WEIGHTS_FILE);
    check_link(&file)?;
    if !file.exists() {
        let pickled = adapter.path.join(PICKLED_FILE).exists();
        return Err(AdapterError::NoWeights { path: adapter.path.clone(), pickled }.into());
    }
    let tensors = tensor_file::read(&file)?;
    if tensors.is_empty() {
        return Err(AdapterError::Empty { file }.into());
    }
    Ok(changes::Opened { adapter: adapter.clone(), settings, tensors, file })
}

/// An adapter that brings a tokenizer brings all files of it.
fn take_tokenizer(companions: &mut Companions, adapter: &Path) {
    if adapter.join(TOKENIZER_FILE).is_file() {
        for (name, file) in hugging_face::companions(adapter).iter() {
            companions.add_file(name, file.path().to_owned());
        }
    }
}

/// Ids of added tokens, with their spellings.
fn added_tokens(tokenizer: &Value) -> BTreeMap<u64, String> {
    let list = tokenizer.get("added_tokens").and_then(Value::as_array);
    let token = |token: &Value| Some((token.get("id")?.as_u64()?, token.get("content")?.as_str()?.to_owned()));
    list.into_iter().flatten().filter_map(token).collect()
}

/// Refuses a tokenizer with added tokens that neither the base nor the adapter has a row for, unless the base's own lacks them
/// too.
fn check_tokens(adapter: &Path, base: &Companions, rows: usize) -> Result<(), ModelFormatError> {
    let file = adapter.join(TOKENIZER_FILE);
    if !file.is_file() {
        return Ok(());
    }
    let own: Value = json(&file, &read_bounded(&file)?)?;
    let of_base = match base.find(TOKENIZER_FILE) {
        Some(file) => added_tokens(&json(file.path(), &file.read_bounded()?)?),
        None => BTreeMap::new(),
    };
    let without = |(id, _): &(u64, String)| *id >= rows as u64 && !of_base.contains_key(id);
    match added_tokens(&own).into_iter().find(without) {
        Some((id, token)) => Err(AdapterError::NoRow { file, id, token, rows }.into()),
        None => Ok(()),
    }
}

impl ModelSource for AdapterSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        let base = self.base.parameter(self.of_base(id))?;
        let Some(changed) = self.changes.of_parameter(id) else { return Ok(base) };
        let base = match base {
            Parameter::Dense(tensor) => tensor,
            Parameter::Quantized(_) => return Err(ModelError::Quantized(id).into()),
        };
        // What is merged has the type of the base.
        let dtype = base.dtype();
        let name = base.stored_name().unwrap_or_default().to_owned();
        let start = changed.replaced.clone().unwrap_or(base);
        let (steps, shape) = (Arc::clone(&changed.steps), start.shape().to_vec());
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        let deferred = Deferred::new(bytes, &changed.file, move || merge::merged(&start, dtype, &steps));
        Ok(Parameter::Dense(DenseTensor::stored(&name, shape, dtype, SharedBytes::deferred(deferred))))
    }

    fn grid(&self, id: LinearId) -> Result<Grid, Unfit> {
        match self.changes.of_parameter(ParameterId::weight(id)) {
            Some(_) => Err(Unfit::Adapted),
            None => self.base.grid(id),
        }
    }

    fn stored(&self, id: ParameterId) -> Result<Option<StoredAs>, ModelFormatError> {
        let id_of_base = self.of_base(id);
        let stored = match self.base.stored(id_of_base)? {
            Some(stored) => stored,
            None => StoredAs::of(&self.base.parameter(id_of_base)?),
        };
        Ok(Some(match self.changes.of_parameter(id) {
            Some(_) => {
                StoredAs { name: format!("{}, adapter", stored.name), becomes: "merged in f32, then as the base" }
            }
            None => stored,
        }))
    }

    fn integers(&self, id: LinearId) -> Result<Option<GroupedIntegers>, ModelFormatError> {
        match self.changes.of_parameter(ParameterId::Linear(id, Part::Weight)) {
            Some(_) => Ok(None),
            None => self.base.integers(id),
        }
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        let mut sparsity = self.base.recorded_sparsity()?;
        sparsity.retain(|id, _| self.changes.of_parameter(ParameterId::weight(*id)).is_none());
        Ok(sparsity)
    }

    fn provenance(&self) -> Option<Value> {
        None
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        let mut hashes = Vec::new();
        for adapter in &self.adapters {
            hashes.extend(path_sha256(adapter)?);
        }
        hashes.extend(self.base.sha256()?);
        Ok(sha256(&hashes))
    }
}
