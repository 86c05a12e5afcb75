//! GGUF, llama.cpp's format: one file, or several, with keys, tokenizer and tensors in blocks of integers. The keys become
//! a configuration as transformers would have it, so that a family reads it and every key is checked; tokenizer, chat
//! templates and end tokens become files in memory. Matrices are decoded to f32 row by row when they are asked for, to the
//! values that ggml's own tools give, bit for bit. Rows of queries and keys go back to the family's order. Written by the
//! same tables: [`GgufExport`].

mod architecture;
mod block;
mod companions;
mod configuration;
mod container;
mod error;
mod export;
mod frequencies;
mod layout;
mod metadata;
mod rows;
mod split;
mod tokenizer;

pub use block::BlockType;
pub use container::MAGIC;
pub use error::GgufError;
pub use export::GgufExport;

use super::{Contents, Format, ModelFormatError, ModelSource, StoredAs};
use crate::disk::hash::{Hash, HashError, file_sha256, path_sha256, sha256};
use crate::disk::{Config, ConfigError};
use crate::model::companions::Companions;
use crate::model::described;
use crate::model::id::{LinearId, ParameterId};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use crate::model::notes::Note;
use crate::model::transform::Sparsity;
use crate::model::weights::{ModelError, Outline, Parameter};
use architecture::Architecture;
use configuration::Described;
use container::{Container, StoredBlocks};
use layout::Layout;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Its row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: "GGUF file",
    recognises,
    contents: |_| Contents { configuration: true, weights: true },
    configuration: |path| Ok(Opened::of(path)?.configuration()?),
    companions: |path| Ok(Opened::of(path)?.companions()?.0),
    open: |path| Ok(Box::new(GgufSource::open(path)?)),
    sha256: hash,
};

/// Whether a file begins with the word of the format.
fn recognises(path: &Path) -> bool {
    let mut word = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut word)).is_ok() && word == *MAGIC
}

/// The files of the model at a path, the path itself first; that alone where it does not hold a model, which opening it says.
pub fn files(path: &Path) -> Vec<PathBuf> {
    match recognises(path) {
        true => split::files(path).unwrap_or_else(|_| vec![path.to_owned()]),
        false => vec![path.to_owned()],
    }
}

/// Hash of the content of one file; of several, of all their names and contents, as for a directory.
fn hash(path: &Path) -> Result<Hash, HashError> {
    match split::files(path) {
        Ok(files) if files.len() > 1 => {
            let mut bytes = Vec::new();
            for file in files {
                bytes.extend_from_slice(file.file_name().unwrap_or_default().as_encoded_bytes());
                bytes.push(0);
                bytes.extend_from_slice(&file_sha256(&file)?);
            }
            Ok(sha256(&bytes))
        }
        _ => path_sha256(path),
    }
}

/// `general.license` of the file at a path, if it is one of the format and says so.
pub fn licence(path: &Path) -> Option<String> {
    let container = recognises(path).then(|| split::open(path).ok())??;
    container.metadata.optional_text("general.license").ok()?.map(str::to_owned)
}

/// The files of a model, read but for their data.
struct Opened {
    container: Container,
    architecture: &'static Architecture,
}

impl Opened {
    fn of(path: &Path) -> Result<Self, GgufError> {
        let container = split::open(path)?;
        let metadata = &container.metadata;
        match metadata.optional_text("general.type")? {
            None | Some("model") => {}
            Some(found) => {
                return Err(GgufError::NotAModel { file: path.to_owned(), found: found.to_owned() });
            }
        }
        let name = metadata.text("general.architecture")?;
        let architecture = Architecture::named(name).ok_or_else(|| GgufError::Architecture {
            file: path.to_owned(),
            found: name.to_owned(),
            supported: Architecture::names(),
        })?;
        Ok(Opened { container, architecture })
    }

    fn configuration(&self) -> Result<Config, GgufError> {
        let Container { metadata, tensors } = &self.container;
        let described = Described { architecture: self.architecture, metadata, tensors };
        Ok(Config::from_map(metadata.file(), described.configuration()?))
    }

    fn companions(&self) -> Result<(Companions, Vec<Note>), GgufError> {
        companions::companions(self.architecture, &self.container.metadata)
    }
}

/// An opened file.
struct GgufSource {
    outline: Outline,
    tensors: BTreeMap<String, StoredBlocks>,
    layout: Layout,
}

impl GgufSource {
    fn open(path: &Path) -> Result<Self, ModelFormatError> {
        let opened = Opened::of(path)?;
        let config = opened.configuration()?;
        let (companions, mut notes) = opened.companions()?;
        let spec = described::spec_of(&companions, &config)?;
        let tensors = opened.container.tensors;
        let layout = Layout::of(opened.architecture, &spec, &tensors, path)?;
        notes.extend(described::notes(&companions, &config, &spec)?);
        let outline = Outline::dense(spec, config, companions, path.to_owned(), notes);
        Ok(GgufSource { outline, tensors, layout })
    }
}

impl ModelSource for GgufSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        let tensor = self.layout.read(&self.tensors, id)?;
        let absent = || ModelError::NoParameter { path: self.outline.path.clone(), id };
        Ok(Parameter::Dense(tensor.ok_or_else(absent)?))
    }

    fn grid(&self, id: LinearId) -> Result<Grid, Unfit> {
        let stored = self.layout.stored(&self.tensors, ParameterId::weight(id)).ok_or(Unfit::Floats)?;
        let grid = stored.kind.grid(stored.shape.last().copied().unwrap_or(1))?;
        let one_scale = grid.group.is_some() && self.layout.has_one_scale(&self.tensors, id);
        Ok(if one_scale { Grid { group: None, ..grid } } else { grid })
    }

    fn integers(&self, id: LinearId) -> Result<Option<GroupedIntegers>, ModelFormatError> {
        Ok(self.layout.integers(&self.tensors, id))
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        Ok(Sparsity::new())
    }

    fn provenance(&self) -> Option<Value> {
        None
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        hash(&self.outline.path)
    }

    fn stored(&self, id: ParameterId) -> Result<Option<StoredAs>, ModelFormatError> {
        let Some(stored) = self.layout.stored(&self.tensors, id) else { return Ok(None) };
        let name = stored.kind.name().to_owned();
        Ok(Some(if stored.kind.is_float() { StoredAs::plain(name) } else { StoredAs::converted(name) }))
    }
}
