//! The quantized directory: a model of integers between `quantize` and `compile`. Configuration, tensors and their
//! checks are in [`layout`]; the files beside them are those of a Hugging Face directory.

pub mod layout;

use super::error::ModelFormatError;
use super::hugging_face::{companions, configuration, configuration_of, contents};
use super::stored_tensors::StoredTensors;
use super::{Format, ModelSink, ModelSource, foreign, provenance};
use crate::disk::hash::{Hash, HashError, path_sha256};
use crate::disk::{Config, ConfigError};
use crate::model::described;
use crate::model::families::Family;
use crate::model::id::ParameterId;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, Outline, Parameter};
use serde_json::Value;
use std::path::Path;

/// Its row of [`super::FORMATS`]: every directory whose configuration speaks of quantization. A model that another
/// tool has quantized is refused by name.
pub const FORMAT: Format = Format {
    name: "slmc's quantized directory",
    recognises: |path| path.is_dir() && configuration(path).is_ok_and(|config| config.value(layout::KEY).is_some()),
    contents,
    configuration,
    companions: |path| Ok(companions(path)),
    open: |path| Ok(Box::new(QuantizedSource::open(path)?)),
    sha256: path_sha256,
};

/// Refuses what another tool has quantized, by its method: before the family, which it may be the only one to know.
fn refuse_foreign(config: &Config) -> Result<(), ModelFormatError> {
    let Some(section) = config.section(layout::KEY)? else { return Ok(()) };
    let stated = section.optional_text("quant_method")?;
    if stated == Some(layout::METHOD) {
        return Ok(());
    }
    let Some(kind) = foreign::method(&section) else { return Ok(()) };
    let found = match stated {
        Some(method) => format!("`{}.quant_method` is `{method}`", layout::KEY),
        None => format!("`{}` has bits", layout::KEY),
    };
    Err(ModelFormatError::Foreign { path: config.file().to_owned(), kind, found })
}

/// An opened directory of quantized weights.
struct QuantizedSource {
    outline: Outline,
    stored: StoredTensors,
}

impl QuantizedSource {
    fn open(directory: &Path) -> Result<Self, ModelFormatError> {
        let config = configuration_of(directory)?;
        refuse_foreign(&config)?;
        Family::of(&config)?;
        let companions = companions(directory);
        let spec = described::spec_of(&companions, &config)?;
        let schemes = layout::schemes(&config)?;
        let sparsity = layout::sparsity(&config, &spec, &schemes)?;
        let activations = layout::activations(&config, &spec, &schemes)?;
        let stored = StoredTensors::open(directory)?;
        let key_maps = layout::check(&spec, &schemes, &stored)?;
        let notes = described::notes(&companions, &config, &spec)?;
        let (schemes, path) = (Some(schemes), directory.to_owned());
        let outline = Outline { spec, config, companions, path, schemes, sparsity, activations, key_maps, notes };
        Ok(QuantizedSource { outline, stored })
    }
}

impl ModelSource for QuantizedSource {
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
