//! What every directory that slmc writes holds beside its weights: config.json, slmc.json, and the files that travel
//! with a model unchanged. All of it is put in place at once, and equal inputs give equal bytes.

use super::weights::ModelError;
use crate::disk::atomic::NewDirectory;
use crate::disk::{COMPANION_FILES, COMPANION_FOLDER, CONFIG_FILE, PROVENANCE_FILE};
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
        copy(&directory, source, name)?;
    }
    let folder = source.join(COMPANION_FOLDER);
    if folder.is_dir() {
        let failed = |source| ModelError::Companion { file: folder.clone(), source };
        std::fs::create_dir(directory.path().join(COMPANION_FOLDER)).map_err(failed)?;
        let entries =
            std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(failed)?;
        let mut names: Vec<_> = entries.iter().map(std::fs::DirEntry::file_name).collect();
        names.sort_unstable();
        for name in names {
            let name = name.into_string().map_err(|_| failed(std::io::Error::other("a name in it is not UTF-8")))?;
            copy(&directory, source, &format!("{COMPANION_FOLDER}/{name}"))?;
        }
    }
    Ok(directory.commit()?)
}

/// Copies a file that may be absent; anything else of that name, a dangling link too, is an error.
fn copy(directory: &NewDirectory, source: &Path, name: &str) -> Result<(), ModelError> {
    let file = source.join(name);
    if std::fs::symlink_metadata(&file).is_err() {
        return Ok(());
    }
    let read = match std::fs::metadata(&file) {
        Ok(metadata) if !metadata.is_file() => Err(std::io::Error::other("not a regular file")),
        Ok(_) => std::fs::read(&file),
        Err(error) => Err(error),
    };
    let copied = read.and_then(|bytes| directory.write(name, bytes));
    copied.map_err(|source| ModelError::Companion { file, source })
}

fn write_json(directory: &NewDirectory, name: &str, value: &Value) -> Result<(), ModelError> {
    let failed = |source| ModelError::Companion { file: directory.path().join(name), source };
    directory.write(name, format!("{value:#}\n")).map_err(failed)
}
