//! The quantized directory: a model of integers between `quantize` and `compile`. Configuration, tensors and what is
//! checked of them are in [`layout`]; the files beside them are those of a Hugging Face directory.

pub mod layout;

use super::error::ModelFormatError;
use super::hugging_face::{companions, configuration, configuration_of, contents};
use super::stored_tensors::StoredTensors;
use super::{Format, ModelSink, ModelSource, provenance};
use crate::disk::ConfigError;
use crate::disk::hash::{Hash, HashError, path_sha256};
use crate::model::families::Family;
use crate::model::id::ParameterId;
use crate::model::special_tokens;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, Outline, Parameter};
use serde_json::Value;
use std::path::Path;

/// Its row of [`super::FORMATS`]: every directory whose configuration speaks of quantization. What another tool has
/// quantized is refused by name.
pub const FORMAT: Format = Format {
    name: "slmc's quantized directory",
    recognises: |path| path.is_dir() && configuration(path).is_ok_and(|config| config.value(layout::KEY).is_some()),
    contents,
    configuration,
    companions: |path| Ok(companions(path)),
    open: |path| Ok(Box::new(Source::open(path)?)),
    sha256: path_sha256,
};

/// An opened directory of quantized weights.
struct Source {
    outline: Outline,
    stored: StoredTensors,
}

impl Source {
    fn open(directory: &Path) -> Result<Self, ModelFormatError> {
        let config = configuration_of(directory)?;
        Family::of(&config)?;
        let companions = companions(directory);
        let spec = special_tokens::spec_of(&companions, &config)?;
        let schemes = layout::schemes(&config)?;
        let sparsity = layout::sparsity(&config, &spec, &schemes)?;
        let activations = layout::activations(&config, &spec, &schemes)?;
        let stored = StoredTensors::open(directory)?;
        let key_maps = layout::check(&spec, &schemes, &stored)?;
        let (schemes, path) = (Some(schemes), directory.to_owned());
        let outline = Outline { spec, config, companions, path, schemes, sparsity, activations, key_maps };
        Ok(Source { outline, stored })
    }
}

impl ModelSource for Source {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        layout::read(&self.outline, &self.stored, id)
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        Ok(self.outline.sparsity.clone())
    }

    fn provenance(&self) -> Option<Value> {
        provenance::read(&self.outline.path)
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        path_sha256(&self.outline.path)
    }
}

/// A directory of quantized weights to be written; `provenance` becomes its slmc.json.
pub struct Directory<'a>(pub &'a Path);

impl ModelSink for Directory<'_> {
    fn write(&self, model: &Model, provenance: &Value) -> Result<(), ModelFormatError> {
        layout::write(model, provenance, self.0)
    }
}
