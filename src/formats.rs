//! Models outside of slmc: the formats that are read and written, one file each. A [`ModelSource`] is a model that was recognised
//! and whose headers agree with its configuration; a [`ModelSink`] writes one. A format that is read is one file with a
//! [`Format`] and its row in [`FORMATS`]. Everything else in slmc asks here, and looks for no files by name.
//!
//! Configuration and companion files have the form that transformers gives them, whatever the format: a source whose
//! file says these things in another way (metadata, another model's files) translates them when it is opened.

pub mod adapter;
pub mod error;
pub mod export;
mod foreign;
pub mod found;
pub mod gguf;
pub mod hugging_face;
pub mod onnx;
mod output;
pub mod packed;
pub mod provenance;
pub mod slmc_quantized;
mod storage;
pub mod stored_tensors;

pub use error::ModelFormatError;
pub use storage::{StorageRow, StoredAs, storage};

use crate::disk::hash::{Hash, HashError};
use crate::disk::{Config, ConfigError};
use crate::model::companions::Companions;
use crate::model::described;
use crate::model::id::{LinearId, ParameterId};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use crate::model::notes::Note;
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, Outline, Parameter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model that can be read.
pub trait ModelSource {
    /// All of it but the values: specification with its context, configuration, tokenizer and other companions, schemes.
    fn outline(&self) -> &Outline;

    /// One of [`Outline::parameters`]. Whatever would be converted is converted now, and nothing but this tensor.
    ///
    /// # Errors
    /// Values that break the rules of their format.
    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError>;

    /// The grid that the integers of a matrix are on, by what is stored beside them.
    ///
    /// # Errors
    /// Why they cannot be taken over, whatever the scheme.
    fn grid(&self, _id: LinearId) -> Result<Grid, Unfit> {
        Err(Unfit::Floats)
    }

    /// A matrix as integers with the scales of their groups, where the source stores it so on a symmetric grid; the values
    /// of [`ModelSource::parameter`] are their products. There for every matrix whose grid fits a scheme.
    ///
    /// # Errors
    /// As [`ModelSource::parameter`].
    fn integers(&self, _id: LinearId) -> Result<Option<GroupedIntegers>, ModelFormatError> {
        Ok(None)
    }

    /// Which matrices the source says are sparse. The values are not looked at: [`Model::check_sparsity`] does that.
    ///
    /// # Errors
    /// A statement that is not sound.
    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError>;

    /// How the model was made, where slmc made it.
    fn provenance(&self) -> Option<Value>;

    /// Hash of everything that the model depends on.
    ///
    /// # Errors
    /// A file cannot be read.
    fn sha256(&self) -> Result<Hash, HashError>;

    /// How a parameter is stored, where the configuration does not say it all.
    ///
    /// # Errors
    /// As [`ModelSource::parameter`].
    fn stored(&self, _id: ParameterId) -> Result<Option<StoredAs>, ModelFormatError> {
        Ok(None)
    }

    /// The model, every parameter taken.
    ///
    /// # Errors
    /// The errors of [`ModelSource::parameter`].
    fn model(&self) -> Result<Model, ModelFormatError> {
        let outline = self.outline();
        let mut parameters = BTreeMap::new();
        for id in outline.parameters() {
            parameters.insert(id, self.parameter(id)?);
        }
        Ok(Model {
            spec: outline.spec.clone(),
            config: outline.config.clone(),
            parameters,
            companions: outline.companions.clone(),
            path: outline.path.clone(),
        })
    }
}

/// A place that a model can be written to.
pub trait ModelSink {
    /// Writes a model with its companions and `provenance`, all or nothing. Equal models and provenance give equal bytes.
    ///
    /// # Errors
    /// A model that the format does not hold, a place that is taken, the file system.
    fn write(&self, model: &Model, provenance: &Value) -> Result<(), ModelFormatError>;
}

/// A format that is read.
pub struct Format {
    /// As messages and reports call it.
    pub name: &'static str,
    /// Whether a path holds a model in this format, by its name and first bytes.
    pub recognises: fn(&Path) -> bool,
    /// The parts of a model at a path.
    pub contents: fn(&Path) -> Contents,
    /// The configuration at a path, in the form of config.json.
    pub configuration: fn(&Path) -> Result<Config, ModelFormatError>,
    /// The companions at a path, where there may be nothing else.
    pub companions: fn(&Path) -> Result<Companions, ModelFormatError>,
    /// Opens a model: headers are read and checked, values are not.
    pub open: fn(&Path) -> Result<Box<dyn ModelSource>, ModelFormatError>,
    /// As [`ModelSource::sha256`], without opening; a configuration alone has one too.
    pub sha256: fn(&Path) -> Result<Hash, HashError>,
}

/// The parts of a model that a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// A configuration.
    pub configuration: bool,
    /// Weights.
    pub weights: bool,
}

/// Every format, the more particular before the more general.
pub const FORMATS: [Format; 6] =
    [gguf::FORMAT, adapter::FORMAT, onnx::FORMAT, packed::FORMAT, slmc_quantized::FORMAT, hugging_face::FORMAT];

/// A model without weights: enough to begin one.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its configuration in the form of config.json.
    pub config: Config,
    /// Its tokenizer and the other files that travel with it.
    pub companions: Companions,
    /// Where it is.
    pub path: PathBuf,
}

impl Description {
    /// The specification, with the tokens that open and end a text.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file and the key.
    pub fn spec(&self) -> Result<ModelSpec, ConfigError> {
        described::spec_of(&self.companions, &self.config)
    }
}

/// The format of a path. A path that none recognises goes to the last, whose message describes a model.
fn format_of(path: &Path) -> &'static Format {
    const TABLE: &[Format] = &FORMATS;
    TABLE.iter().find(|format| (format.recognises)(path)).unwrap_or(&TABLE[TABLE.len() - 1])
}

/// The format of the model at a path, as messages and reports call it.
pub fn name(path: &Path) -> &'static str {
    format_of(path).name
}

/// Whether there is a model at a path, in any format.
pub fn is_model(path: &Path) -> bool {
    FORMATS.iter().any(|format| (format.recognises)(path))
}

/// The parts of a model at a path: all of it, a configuration alone, or neither.
pub fn contents(path: &Path) -> Contents {
    (format_of(path).contents)(path)
}

/// The configuration at a path: of a model, or alone.
///
/// # Errors
/// [`ModelFormatError`].
pub fn configuration(path: &Path) -> Result<Config, ModelFormatError> {
    (format_of(path).configuration)(path)
}

/// The companions at a path, which may hold no model beside its tokenizer.
///
/// # Errors
/// [`ModelFormatError`].
pub fn companions(path: &Path) -> Result<Companions, ModelFormatError> {
    (format_of(path).companions)(path)
}

/// The model at a path without its weights, which need not be there.
///
/// # Errors
/// [`ModelFormatError`].
pub fn describe(path: &Path) -> Result<Description, ModelFormatError> {
    Ok(Description { config: configuration(path)?, companions: companions(path)?, path: path.to_owned() })
}

/// Opens the model at a path, in whatever format it is.
///
/// # Errors
/// [`ModelFormatError`].
pub fn open(path: &Path) -> Result<Box<dyn ModelSource>, ModelFormatError> {
    (format_of(path).open)(path)
}

/// The whole model at a path.
///
/// # Errors
/// [`ModelFormatError`].
pub fn open_model(path: &Path) -> Result<Model, ModelFormatError> {
    open(path)?.model()
}

/// The model at a path without its values.
///
/// # Errors
/// [`ModelFormatError`].
pub fn open_outline(path: &Path) -> Result<Outline, ModelFormatError> {
    Ok(open(path)?.outline().clone())
}

/// Notes on the files of the model at a path, and on the decisions that follow from them; empty where there is no model.
pub fn notes(path: &Path) -> Vec<Note> {
    match is_model(path) && contents(path).weights {
        true => open(path).map(|source| source.outline().notes.clone()).unwrap_or_default(),
        false => Vec::new(),
    }
}

/// Hash of the model or the configuration at a path, as provenance states it.
///
/// # Errors
/// A file cannot be read.
pub fn sha256(path: &Path) -> Result<Hash, HashError> {
    (format_of(path).sha256)(path)
}
