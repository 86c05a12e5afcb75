//! The Hugging Face directory: config.json, model.safetensors or the shards that an index lists, and beside them the
//! tokenizer's files, chat templates, the modules of a sentence encoder and, where slmc wrote it, slmc.json. Read by [`FORMAT`], written by [`Directory`].

mod export;
mod layout;
mod modules;
mod names;
mod undecided;
mod write;

pub use export::SafetensorsExport;
pub(super) use write::{
    StoredPart, config, encoded, encoded_f32, factor_note, prefix, stored_shape, stored_type, tensors,
};

use super::error::ModelFormatError;
use super::found::{NotAModel, no_configuration, no_weights, not_a_directory};
use super::stored_tensors::{StoredTensors, Tensors};
use super::{Contents, Format, ModelSink, ModelSource, provenance};
use crate::disk::hash::{Hash, HashError, path_sha256};
use crate::disk::{Config, ConfigError, DenseType};
use crate::model::companions::{
    Companions, GENERATION_CONFIG_FILE, LEGACY_TEMPLATE_FILE, PROMPTS_FILE, SENTENCE_FILES, SPECIAL_TOKENS_FILE,
    TEMPLATE_FILE, TEMPLATE_FOLDER, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use crate::model::described;
use crate::model::families::Family;
use crate::model::id::{LinearId, ParameterId};
use crate::model::notes::Note;
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, Outline, Parameter};
use crate::progress::{Progress, Silent};
use layout::DenseLayout;
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// File with the configuration.
pub(super) const CONFIG_FILE: &str = "config.json";
/// File with all tensors.
pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
/// File that says which shard holds which tensor, where the weights are split.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";
/// Files that travel with a model unchanged, where present; so do [`SENTENCE_FILES`], those in [`TEMPLATE_FOLDER`] and
/// those of modules.
const COMPANION_FILES: [&str; 12] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    "added_tokens.json",
    GENERATION_CONFIG_FILE,
    TEMPLATE_FILE,
    LEGACY_TEMPLATE_FILE,
    PROMPTS_FILE,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Its row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: "Hugging Face directory",
    recognises: Path::is_dir,
    contents,
    configuration,
    companions: |path| Ok(companions(path)),
    open: |path| Ok(Box::new(DenseSource::open(path)?)),
    sha256: path_sha256,
};

/// A directory, or a configuration by its own name.
pub(super) fn contents(path: &Path) -> Contents {
    let path = &modules::model_directory(path);
    let file = configuration_file(path);
    Contents {
        configuration: file.extension().is_some_and(|extension| extension == "json") && file.is_file(),
        weights: [WEIGHTS_FILE, INDEX_FILE].iter().any(|name| is_there(&path.join(name))),
    }
}

/// A file, or a link that may lead nowhere, which is an error when it is read.
fn is_there(file: &Path) -> bool {
    std::fs::symlink_metadata(file).is_ok()
}

fn configuration_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() }
}

/// The configuration at a path: a file, or a directory with config.json. What it leaves open and the weights beside it
/// decide is in it.
pub(super) fn configuration(path: &Path) -> Result<Config, ModelFormatError> {
    let path = &modules::model_directory(path);
    let file = configuration_file(path);
    if !path.is_dir() && !path.is_file() {
        return Err(not_a_model(path, not_a_directory(path)));
    }
    if let Some(problem) = (path.is_dir() && !file.is_file()).then(|| no_configuration(path)).flatten() {
        return Err(not_a_model(path, problem));
    }
    let config = Config::read(&file)?;
    match path.is_dir() && undecided::is_open(&config) && contents(path).weights {
        true => Ok(decided(&config, &StoredTensors::open(path)?)?.0),
        false => Ok(config),
    }
}

/// config.json of a model directory.
pub(super) fn configuration_of(directory: &Path) -> Result<Config, ModelFormatError> {
    if !directory.is_dir() {
        return Err(not_a_model(directory, not_a_directory(directory)));
    }
    let directory = &modules::model_directory(directory);
    let config = configuration(directory)?;
    match config.value("model_type").is_none().then(|| no_weights(directory)).flatten() {
        Some(problem) if !contents(directory).weights => Err(not_a_model(directory, problem)),
        _ => Ok(config),
    }
}

fn not_a_model(path: &Path, problem: NotAModel) -> ModelFormatError {
    ModelFormatError::NotAModel { path: path.to_owned(), problem }
}

/// A configuration with what the tensors decide.
fn decided(config: &Config, stored: &StoredTensors) -> Result<(Config, Vec<Note>), ConfigError> {
    let family = Family::of(config).ok();
    let (plain, _) = names::unwrapped(stored.tensors().keys().map(|name| (name.clone(), ())).collect(), family);
    undecided::decided(config, &|name| plain.contains_key(name))
}

/// The companions in a directory, or beside a configuration. A link that leads nowhere is one too, and an error when it is
/// read; so is a folder of templates that cannot be listed.
pub(super) fn companions(path: &Path) -> Companions {
    let path = &modules::model_directory(path);
    let directory = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(Path::new(".")),
    };
    let mut companions = Companions::of(directory);
    for name in COMPANION_FILES.into_iter().chain(SENTENCE_FILES) {
        let file = directory.join(name);
        if is_there(&file) {
            companions.add_file(name, file);
        }
    }
    modules::add(&mut companions, directory);
    let folder = directory.join(TEMPLATE_FOLDER);
    if folder.is_dir() {
        let entries = std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        match entries {
            Ok(entries) => {
                for entry in entries {
                    match entry.file_name().to_str() {
                        Some(name) => companions.add_file(&format!("{TEMPLATE_FOLDER}/{name}"), entry.path()),
                        None => companions.add_unusable(TEMPLATE_FOLDER, "a name in it is not UTF-8"),
                    }
                }
            }
            Err(error) => companions.add_unusable(TEMPLATE_FOLDER, &error.to_string()),
        }
    }
    companions
}

/// An opened directory of floating-point weights.
pub(super) struct DenseSource {
    outline: Outline,
    stored: StoredTensors,
    layout: DenseLayout,
}

impl DenseSource {
    fn open(directory: &Path) -> Result<Self, ModelFormatError> {
        DenseSource::converted(directory, configuration_of(directory)?, |_, _, tensors| Ok((tensors, Vec::new())))
    }

    /// Opens a directory by this configuration, after a function has made the tensors that the family names of those that
    /// are there.
    pub(super) fn converted(
        directory: &Path,
        config: Config,
        convert: impl FnOnce(&ModelSpec, &Family, Tensors) -> Result<(Tensors, Vec<Note>), ModelFormatError>,
    ) -> Result<Self, ModelFormatError> {
        let directory = &modules::model_directory(directory);
        let family = Family::of(&config)?;
        let companions = companions(directory);
        let spec = described::spec_of(&companions, &config)?;
        let stored = StoredTensors::open(directory)?;
        let mut notes = match Config::read(&directory.join(CONFIG_FILE))? {
            as_read if undecided::is_open(&as_read) => decided(&as_read, &stored)?.1,
            _ => Vec::new(),
        };
        let (stored, wrapped) = stored.renamed(|tensors| names::unwrapped(tensors, Some(family)));
        let (stored, converted) = stored.converted(|tensors| convert(&spec, family, tensors))?;
        let (layout, tied) = DenseLayout::of(family, &spec, &stored)?;
        notes.extend(converted.into_iter().chain(wrapped).chain(tied));
        notes.extend(described::notes(&companions, &config, &spec)?);
        let outline = Outline::dense(spec, config, companions, directory.to_owned(), notes);
        Ok(DenseSource { outline, stored, layout })
    }

    /// The tensor that a matrix is in, and its rows there.
    pub(super) fn rows_of(&self, id: LinearId) -> Option<(&str, Range<usize>)> {
        self.layout.rows_of(ParameterId::weight(id))
    }
}

impl ModelSource for DenseSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        self.layout.read(&self.stored, id)
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        provenance::recorded_sparsity(&self.outline.path, &self.outline.spec)
    }

    fn provenance(&self) -> Option<Value> {
        provenance::read(&self.outline.path)
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        path_sha256(&self.outline.path)
    }
}

/// A directory of floating-point weights to be written, which transformers loads as it is; `provenance` becomes its
/// slmc.json.
pub struct Directory<'a>(pub &'a Path);

impl ModelSink for Directory<'_> {
    fn write(&self, model: &Model, provenance: &Value) -> Result<(), ModelFormatError> {
        write::write(model, provenance, self.0, None, &Silent)
    }
}

impl Directory<'_> {
    /// As [`ModelSink::write`], with progress, and every value rounded to `dtype` where one is given.
    ///
    /// # Errors
    /// Those of [`ModelSink::write`], and a value that `dtype` has no finite number for.
    pub fn write_as(
        &self,
        model: &Model,
        provenance: &Value,
        dtype: Option<DenseType>,
        progress: &dyn Progress,
    ) -> Result<(), ModelFormatError> {
        write::write(model, provenance, self.0, dtype, progress)
    }
}
