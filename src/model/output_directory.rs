//! What every directory that slmc writes holds beside its weights: config.json, slmc.json, and the files that travel
//! with a model unchanged. All of it is put in place at once, and equal inputs give equal bytes.

use super::weights::ModelError;
use crate::disk::atomic::NewDirectory;
use crate::disk::{COMPANION_FILES, CONFIG_FILE, PROVENANCE_FILE};
use serde_json::{Map, Value};
use std::path::Path;

/// Adds configuration, provenance and the companion files of `source` to a directory whose weights are written, and puts
/// it in place.
pub(super) fn finish(
    directory: NewDirectory,
    config: Map<String, Value>,
    provenance: &Value,
    source: &Path,
) -> Result<(), ModelError> {
    write_json(&directory, CONFIG_FILE, &Value::Object(config))?;
    write_json(&directory, PROVENANCE_FILE, provenance)?;
    for name in COMPANION_FILES {
        let file = source.join(name);
        if file.is_file() {
            let copied = std::fs::read(&file).and_then(|bytes| directory.write(name, bytes));
            copied.map_err(|source| ModelError::Companion { file, source })?;
        }
    }
    Ok(directory.commit()?)
}

fn write_json(directory: &NewDirectory, name: &str, value: &Value) -> Result<(), ModelError> {
    let failed = |source| ModelError::Companion { file: directory.path().join(name), source };
    directory.write(name, format!("{value:#}\n")).map_err(failed)
}
