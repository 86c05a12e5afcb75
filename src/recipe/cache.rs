//! Which stages need not run again. A stage's key is the SHA-256 of everything that decides its result: kind, options,
//! hashes of all that it reads, the tool's version, the CPU's features. The result of a stage with that key is
//! remembered under it, below the working directory, and holds as long as the output still has the hash it had then:
//!
//! ```text
//! .slmc/cache/KEY.json   {"schema":"slmc.cache/1", kind, output: SHA-256 or null, report}
//! ```

use super::error::RecipeError;
use super::stage::{Chosen, Input, RecipeStage};
use crate::disk::atomic;
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

/// The result of a stage.
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
    /// The hash of a file or directory.
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

/// The key of a stage whose inputs are all there.
pub(super) fn key(
    stage: &RecipeStage,
    seed: u64,
    path: &dyn Fn(&Input) -> PathBuf,
    hashes: &mut Hashes,
) -> Result<String, HashError> {
    let mut options = Vec::new();
    for choice in &stage.choices {
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
        "kind": stage.kind.name(),
        "seed": seed,
        "options": options,
    });
    Ok(hex(&sha256(decides.to_string().as_bytes())))
}

/// The result of a stage with this key, if that is known and its output is still the same.
pub(super) fn look_up(key: &str, stage: &RecipeStage, hashes: &mut Hashes) -> Option<Record> {
    let text = std::fs::read(file(key)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let found = match &stage.output {
        Some(output) if output.exists() => Some(hashes.of(output).ok()?),
        _ => None,
    };
    let same = record.schema == SCHEMA && record.kind == stage.kind.name() && record.output == found;
    same.then_some(record)
}

/// Remembers the result of a stage.
pub(super) fn remember(
    key: &str,
    stage: &RecipeStage,
    report: &Value,
    hashes: &mut Hashes,
) -> Result<Record, RecipeError> {
    let output = match &stage.output {
        Some(output) => Some(hashes.of(output)?),
        None => None,
    };
    let record =
        Record { schema: SCHEMA.to_owned(), kind: stage.kind.name().to_owned(), output, report: report.clone() };
    let path = file(key);
    let unwritable = |source| RecipeError::CacheDirectory { path: PathBuf::from(DIRECTORY), source };
    std::fs::create_dir_all(DIRECTORY).map_err(unwritable)?;
    atomic::write_file(&path, b"", |out| writeln!(out, "{}", json!(record)))?;
    Ok(record)
}

/// Whether results can be remembered here: the directory is made, and a file is written into it and removed.
pub(super) fn check_writable() -> Result<(), RecipeError> {
    let unwritable = |source| RecipeError::CacheDirectory { path: PathBuf::from(DIRECTORY), source };
    std::fs::create_dir_all(DIRECTORY).map_err(unwritable)?;
    tempfile::tempfile_in(DIRECTORY).and_then(|mut file| file.write_all(b"slmc")).map_err(unwritable)
}

fn file(key: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{key}.json"))
}
