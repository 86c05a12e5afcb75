//! ONNX: a directory with model.onnx, the graph of a model with its tensors; config.json, the tokenizer and the other files
//! stand beside it, and genai_config.json where it is a decoder's. Written from a model of any family whose layers the graphs
//! have, and read back where slmc has written it. Graphs of other programs are refused by what they are, a graph.
//!
//! ```text
//! input_ids, attention_mask, past ─ lookup ─ layers (norm, attention, network) ─ norm ─ head ─> logits, present
//! ```
//!
//! Tensors have the names of their parameters: `layers.0.attn.norm.weight`, and of a matrix of integers
//! `layers.0.attn.q.values` and `layers.0.attn.q.scales`. The metadata of the file say the variant and the scheme of every such
//! matrix.

mod attention;
mod builder;
mod composer;
mod decoder;
mod encoder;
mod error;
mod export;
mod file;
mod genai;
mod layers;
mod layout;
mod messages;
mod read;
#[cfg(test)]
mod testing;
mod variant;

pub use error::OnnxError;
pub use export::OnnxExport;

use super::hugging_face::{companions, configuration, configuration_of};
use super::{Contents, Format, ModelFormatError, ModelSource, StoredAs, provenance};
use crate::disk::hash::{Hash, HashError, path_sha256};
use crate::disk::{Config, ConfigError};
use crate::model::described;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use crate::model::transform::Sparsity;
use crate::model::weights::{Outline, Parameter};
use read::Tensors;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// `producer_name` of the files.
const PRODUCER: &str = "slmc";
/// Key of the metadata with the variant's name.
const METADATA_VARIANT: &str = "slmc.variant";
/// Key of the metadata with the scheme of every matrix of integers, as JSON.
const METADATA_SCHEMES: &str = "slmc.schemes";

/// Its row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: "slmc's ONNX directory",
    recognises,
    contents: |_| Contents { configuration: true, weights: true },
    configuration,
    companions: |path| Ok(companions(path)),
    open: |path| Ok(Box::new(OnnxSource::open(path)?)),
    sha256: path_sha256,
};

/// Whether a directory has a graph of slmc's and no other weights.
fn recognises(path: &Path) -> bool {
    if !path.is_dir() || super::hugging_face::contents(path).weights {
        return false;
    }
    let mut start = [0; export::START_BYTES];
    let read = File::open(export::graph_file(path)).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && export::is_own(&start)
}

/// An opened directory.
struct OnnxSource {
    outline: Outline,
    tensors: Tensors,
}

impl OnnxSource {
    fn open(directory: &Path) -> Result<Self, ModelFormatError> {
        let config: Config = configuration_of(directory)?;
        let companions = companions(directory);
        let spec = described::spec_of(&companions, &config)?;
        let tensors = Tensors::open(directory)?;
        tensors.check(&spec)?;
        let notes = described::notes(&companions, &config, &spec)?;
        let outline = Outline::dense(spec, config, companions, directory.to_owned(), notes);
        Ok(OnnxSource { outline, tensors })
    }
}

impl ModelSource for OnnxSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        if let ParameterId::Linear(linear, Part::Weight) = id
            && let Some(matrix) = self.tensors.matrix(&self.outline.spec, linear)?
        {
            matrix.check(linear)?;
            return Ok(Parameter::Dense(matrix.dense(linear)));
        }
        Ok(Parameter::Dense(self.tensors.dense(id)?))
    }

    fn grid(&self, id: LinearId) -> Result<Grid, Unfit> {
        match self.tensors.matrix(&self.outline.spec, id) {
            Ok(Some(matrix)) => Ok(matrix.integers().grid()),
            _ => Err(Unfit::Floats),
        }
    }

    fn integers(&self, id: LinearId) -> Result<Option<GroupedIntegers>, ModelFormatError> {
        Ok(self.tensors.matrix(&self.outline.spec, id)?.map(|matrix| matrix.integers()))
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        Ok(Sparsity::new())
    }

    fn provenance(&self) -> Option<Value> {
        provenance::read(&self.outline.path)
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        path_sha256(&self.outline.path)
    }

    fn stored(&self, id: ParameterId) -> Result<Option<StoredAs>, ModelFormatError> {
        let name = self.tensors.stored_name(id);
        let integers = matches!(id, ParameterId::Linear(..)) && name != messages::DataType::Float32.name();
        Ok(Some(if integers { StoredAs::converted(name) } else { StoredAs::plain(name) }))
    }
}

#[cfg(test)]
mod tests;
