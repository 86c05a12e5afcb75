//! Which folders a new one may take the place of: none, or a folder of firmware in which nothing but what is built has changed
//! since slmc wrote it. People go on working in such a folder, and their work must not be lost.

use super::FirmwareError;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::check_directory;
use crate::disk::hash::{file_sha256, hex};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Key of slmc.json with the digest of every file.
pub(super) const KEY: &str = "firmware";
/// Folders with what is built, by the notes.
const BUILT: [&str; 4] = ["build", "runtime/target", ".pio", "esp-idf/build"];

/// Whether a folder may be written at `path`.
///
/// # Errors
/// What is there, and that it is something else or has been changed.
pub fn check(path: &Path) -> Result<(), FirmwareError> {
    check_directory(path)?;
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let another = || FirmwareError::Another { path: path.to_owned() };
    let record = std::fs::read(path.join(PROVENANCE_FILE)).map_err(|_| another())?;
    let record: Value = serde_json::from_slice(&record).map_err(|_| another())?;
    let known = record.get(KEY).and_then(Value::as_object).ok_or_else(another)?;
    let changed = |file: &str, how| Err(FirmwareError::Changed { path: path.to_owned(), file: file.to_owned(), how });
    for (file, digest) in known {
        // A record of another's making leads nowhere else.
        if Path::new(file).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(another());
        }
        let place = path.join(file);
        if !place.is_file() {
            return changed(file, "was removed");
        }
        if digest.as_str() != Some(hex(&file_sha256(&place)?).as_str()) {
            return changed(file, "was changed");
        }
    }
    let mut there = BTreeSet::new();
    list(path, "", &mut there);
    match there.iter().find(|file| *file != PROVENANCE_FILE && !known.contains_key(*file)) {
        Some(file) => changed(file, "was added"),
        None => Ok(()),
    }
}

/// The files below a folder but for what is built; a folder that cannot be listed is one.
fn list(folder: &Path, prefix: &str, there: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        there.insert(prefix.trim_end_matches('/').to_owned());
        return;
    };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if BUILT.contains(&name.as_str()) {
            continue;
        }
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => list(&entry.path(), &format!("{name}/"), there),
            false => drop(there.insert(name)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their inputs")]
mod tests {
    use super::*;
    use crate::disk::hash::sha256;
    use serde_json::json;
    use std::fs;

    #[test]
    fn what_somebody_works_on_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fw");
        let said = |path: &Path| check(path).map_err(|error| error.to_string());
        assert_eq!(said(&path), Ok(()));
        fs::create_dir_all(path.join("src")).unwrap();
        assert!(said(&path).unwrap_err().contains("holds no slmc.json"));
        fs::write(path.join("src/main.c"), "one").unwrap();
        fs::write(path.join(PROVENANCE_FILE), json!({"stage": "quantize"}).to_string()).unwrap();
        assert!(said(&path).unwrap_err().contains("no firmware"));
        let record = json!({KEY: {"src/main.c": hex(&sha256(b"one"))}});
        fs::write(path.join(PROVENANCE_FILE), record.to_string()).unwrap();
        assert_eq!(said(&path), Ok(()));
        fs::create_dir_all(path.join("build/host")).unwrap();
        fs::write(path.join("build/host/firmware"), "").unwrap();
        assert_eq!(said(&path), Ok(()));
        fs::write(path.join("src/mine.c"), "").unwrap();
        assert!(said(&path).unwrap_err().contains("`src/mine.c` was added"));
        fs::remove_file(path.join("src/mine.c")).unwrap();
        fs::write(path.join("src/main.c"), "two").unwrap();
        assert!(said(&path).unwrap_err().contains("`src/main.c` was changed"));
        fs::remove_file(path.join("src/main.c")).unwrap();
        assert!(said(&path).unwrap_err().contains("`src/main.c` was removed"));
        let record = json!({KEY: {"../main.c": ""}});
        fs::write(path.join(PROVENANCE_FILE), record.to_string()).unwrap();
        assert!(said(&path).unwrap_err().contains("no firmware"));
    }
}
