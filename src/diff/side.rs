//! One side of a comparison: a path read into a JSON value, with its model where there are weights in f32 to compare.

use super::MatrixDifference;
use crate::artifact::host::ArtifactError;
use crate::artifact::inspect::inspect;
use crate::disk::hash::{HashError, file_sha256, hex};
use crate::formats::{self, ModelFormatError};
use crate::model::weights::{Model, ModelError};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Why two paths are not compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// An artifact that is not one.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A directory whose model cannot be opened.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file that cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A file that cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file that is neither.
    #[error("{}: neither an artifact, TOML nor JSON: {message}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What its parser said.
        message: String,
    },
    /// Two kinds.
    #[error("{} is {first} and {} is {second}; two of one kind can be compared", a.display(), b.display())]
    Kinds {
        /// The first path.
        a: PathBuf,
        /// The second path.
        b: PathBuf,
        /// What the first is.
        first: &'static str,
        /// What the second is.
        second: &'static str,
    },
}

/// What a path says.
pub(super) struct Side {
    /// With an article.
    pub(super) kind: &'static str,
    pub(super) value: Value,
    pub(super) model: Option<Model>,
}

impl Side {
    pub(super) fn read(path: &Path) -> Result<Side, DiffError> {
        if path.is_dir() {
            return Side::directory(path);
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !matches!(extension, "toml" | "lock" | "json") {
            let value = serde_json::to_value(inspect(path)?).unwrap_or_default();
            return Ok(Side { kind: "an artifact", value, model: None });
        }
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| DiffError::Read { path: path.to_owned(), source })?;
        let unknown = |message: String| DiffError::Unknown { path: path.to_owned(), message };
        if extension == "json" {
            let value = serde_json::from_str(&text).map_err(|error| unknown(error.to_string()))?;
            return Ok(Side { kind: "a report", value, model: None });
        }
        let value: toml::Table = toml::from_str(&text).map_err(|error| unknown(error.message().to_owned()))?;
        let value = serde_json::to_value(value).map_err(|error| unknown(error.to_string()))?;
        Ok(Side { kind: if extension == "lock" { "a lock" } else { "a recipe" }, value, model: None })
    }

    /// Files by hash, JSON files by their content, and the model.
    fn directory(path: &Path) -> Result<Side, DiffError> {
        let failed = |source| DiffError::Read { path: path.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.path().is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        let mut files = Map::new();
        for name in names.into_iter().filter(|name| !name.starts_with('.')) {
            let file = path.join(&name);
            // What a person reads, by its keys; a tokenizer has a hundred thousand of them.
            let read = matches!(name.as_str(), "config.json" | "generation_config.json" | "slmc.json");
            let content = read.then(|| std::fs::read(&file).ok()).flatten();
            let value = content.and_then(|content| serde_json::from_slice(&content).ok());
            files.insert(
                name,
                match value {
                    Some(value) => value,
                    None => json!({"sha256": hex(&file_sha256(&file)?)}),
                },
            );
        }
        let model = if formats::contents(path).weights { Some(formats::open_model(path)?) } else { None };
        if let Some(model) = &model {
            let schemes = model.schemes().into_iter().map(|(id, scheme)| (id.to_string(), json!(scheme.to_string())));
            files.insert("schemes".to_owned(), Value::Object(schemes.collect()));
        }
        Ok(Side { kind: "a directory", value: Value::Object(files), model })
    }
}

/// Every matrix that both models have in one shape and that differs, in forward order.
pub(super) fn matrices(a: &Model, b: &Model) -> Result<Vec<MatrixDifference>, DiffError> {
    let mut found = Vec::new();
    for id in a.parameters.keys().copied() {
        if !b.parameters.contains_key(&id) {
            continue;
        }
        let (own, other) = (a.values_f32(id)?, b.values_f32(id)?);
        if own.len() != other.len() {
            continue;
        }
        let pairs = || own.iter().zip(&other).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let difference: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        let size: f64 = pairs().map(|(a, _)| a * a).sum();
        if difference > 0.0 {
            let relative = if size > 0.0 { difference / size } else { f64::INFINITY };
            found.push(MatrixDifference { name: id.to_string(), relative });
        }
    }
    Ok(found)
}
