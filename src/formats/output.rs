//! The files that every directory of slmc's holds beside its weights: config.json, slmc.json, and the files that travel
//! with a model unchanged. All of it is put in place at once, and equal inputs give equal bytes.

use super::error::ModelFormatError;
use super::hugging_face::CONFIG_FILE;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::NewDirectory;
use crate::model::companions::Companions;
use serde_json::{Map, Value};

/// Adds configuration, provenance and companions to a directory whose weights are written, and puts it in place.
pub(super) fn finish(
    directory: NewDirectory,
    config: Map<String, Value>,
    provenance: &Value,
    companions: &Companions,
) -> Result<(), ModelFormatError> {
    write_json(&directory, CONFIG_FILE, &Value::Object(config))?;
    write_json(&directory, PROVENANCE_FILE, provenance)?;
    for (name, companion) in companions.iter() {
        let failed = |source| ModelFormatError::Companion { file: companion.path().to_owned(), source };
        let bytes = companion.read().map_err(failed)?;
        if let Some((folder, _)) = name.split_once('/') {
            std::fs::create_dir_all(directory.path().join(folder)).map_err(failed)?;
        }
        directory.write(name, bytes).map_err(failed)?;
    }
    Ok(directory.commit()?)
}

fn write_json(directory: &NewDirectory, name: &str, value: &Value) -> Result<(), ModelFormatError> {
    let failed = |source| ModelFormatError::Companion { file: directory.path().join(name), source };
    directory.write(name, format!("{value:#}\n")).map_err(failed)
}
