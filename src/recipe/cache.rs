//! Which stages need not run again. A stage's key is the SHA-256 of everything that decides its result: kind, options,
//! hashes of all that it reads, the tool's version, the CPU's features. What a stage with that key gave is remembered
//! under it, below the working directory, and holds as long as the output still has the hash it had then:
//!
//! ```text
//! .slmc/cache/KEY.json   {"schema":"slmc.cache/1", kind, output: SHA-256 or null, report}
//! ```

use super::unit::{Chosen, Source, Unit};
use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::{HashError, directory_sha256, file_sha256, hex, sha256};
use crate::machine::cpu_features;
use crate::machine::tool;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

const SCHEMA: &str = "slmc.cache/1";
/// Relative to the working directory.
const DIRECTORY: &str = ".slmc/cache";

/// What a stage gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    schema: String,
    kind: String,
    /// Hash of the output; of eval, which has none, nothing.
    pub(super) output: Option<String>,
    pub(super) report: Value,
}

/// Hashes of paths, each computed once.
#[derive(Debug, Default)]
pub(super) struct Hashes(BTreeMap<PathBuf, String>);

impl Hashes {
    /// Of a file or directory.
    pub(super) fn of(&mut self, path: &Path) -> Result<String, HashError> {
        if let Some(hash) = self.0.get(path) {
            return Ok(hash.clone());
        }
        let hash = hex(&if path.is_dir() { directory_sha256(path)? } else { file_sha256(path)? });
        self.0.insert(path.to_owned(), hash.clone());
        Ok(hash)
    }

    /// Forgets a path that is about to be written.
    pub(super) fn forget(&mut self, path: &Path) {
        self.0.remove(path);
    }
}

/// The key of a unit whose inputs are all there.
pub(super) fn key(
    unit: &Unit,
    seed: u64,
    path: &dyn Fn(&Source) -> PathBuf,
    hashes: &mut Hashes,
) -> Result<String, HashError> {
    let mut options = Vec::new();
    for choice in &unit.choices {
        let value = match &choice.value {
            Chosen::Set => json!(true),
            Chosen::Text(text) => json!(text),
            Chosen::Target { content, .. } => json!({"target": content}),
            Chosen::Reads { source, .. } => json!({"sha256": hashes.of(&path(source))?}),
            Chosen::Writes(path) => json!({"writes": path.file_name().map(|name| name.to_string_lossy())}),
        };
        options.push((choice.flag.clone(), value));
    }
    // By name; the values of one option stay in their order.
    options.sort_by(|a, b| a.0.cmp(&b.0));
    let decides = json!({
        "schema": SCHEMA,
        "tool": tool(),
        "cpu_features": cpu_features(),
        "kind": unit.kind.name(),
        "seed": seed,
        "options": options,
    });
    Ok(hex(&sha256(decides.to_string().as_bytes())))
}

/// What a unit with this key gave, if that is known and its output is still the same.
pub(super) fn look_up(key: &str, unit: &Unit, hashes: &mut Hashes) -> Option<Record> {
    let text = std::fs::read(file(key)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let found = match &unit.output {
        Some(output) if output.exists() => Some(hashes.of(output).ok()?),
        _ => None,
    };
    let same = record.schema == SCHEMA && record.kind == unit.kind.name() && record.output == found;
    same.then_some(record)
}

/// Remembers what a unit gave.
pub(super) fn remember(key: &str, unit: &Unit, report: &Value, hashes: &mut Hashes) -> Result<Record, CacheError> {
    let output = match &unit.output {
        Some(output) => Some(hashes.of(output)?),
        None => None,
    };
    let record =
        Record { schema: SCHEMA.to_owned(), kind: unit.kind.name().to_owned(), output, report: report.clone() };
    let path = file(key);
    let unwritable = |source| CacheError::Directory { path: PathBuf::from(DIRECTORY), source };
    std::fs::create_dir_all(DIRECTORY).map_err(unwritable)?;
    atomic::write_file(&path, b"", |out| writeln!(out, "{}", json!(record)))?;
    Ok(record)
}

/// Whether results can be remembered here: the directory is made, and a file is written into it and removed.
pub(super) fn check_writable() -> Result<(), CacheError> {
    let unwritable = |source| CacheError::Directory { path: PathBuf::from(DIRECTORY), source };
    std::fs::create_dir_all(DIRECTORY).map_err(unwritable)?;
    tempfile::tempfile_in(DIRECTORY).and_then(|mut file| file.write_all(b"slmc")).map_err(unwritable)
}

/// Why a result cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No place for it.
    #[error("{}: cannot be written; check permissions and space of the working directory", path.display())]
    Directory {
        /// The place.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// The output cannot be read.
    #[error(transparent)]
    Hash(#[from] HashError),
}

fn file(key: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{key}.json"))
}
