//! The lock file beside a recipe: every input by stage, option and SHA-256, and the version of slmc that read them. It
//! goes under version control; a later run with other inputs is refused and says which.

use super::cache::Hashes;
use super::error::RecipeError;
use super::reader::Recipe;
use super::stage::{Chosen, Input};
use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::HashError;
use crate::disk::schema;
use crate::machine::cpu_features;
use crate::machine::tool;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

const HEADER: &str = "# Inputs of the recipe beside this file, as `slmc run` found them. Keep it under version control;\n\
                      # after a change that is meant, `slmc run RECIPE --update-lock` writes it anew.\n";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    version: u32,
    /// Name and version.
    tool: String,
    /// Features of the CPU on which it was written: bytes of artifacts are the same on one set of them.
    cpu_features: Vec<String>,
    #[serde(default)]
    inputs: Vec<LockedInput>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedInput {
    /// `model`, or stage and option.
    role: String,
    /// As the recipe says it.
    path: String,
    sha256: String,
}

/// Where the lock of a recipe is.
pub(super) fn beside(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

impl Lock {
    /// The lock of a recipe as its inputs are now.
    pub(super) fn of(recipe: &Recipe, hashes: &mut Hashes) -> Result<Lock, HashError> {
        let mut inputs = Vec::new();
        if let Some((path, written)) = &recipe.model {
            inputs.push(LockedInput { role: "model".to_owned(), path: written.clone(), sha256: hashes.of(path)? });
        }
        for stage in &recipe.stages {
            for choice in &stage.choices {
                if let Chosen::Reads { source: Input::Path(path), written } = &choice.value {
                    let role = format!("{}.{}", stage.name, choice.flag);
                    inputs.push(LockedInput { role, path: written.clone(), sha256: hashes.of(path)? });
                }
            }
        }
        inputs.sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
        inputs.dedup();
        let cpu_features = cpu_features().into_iter().map(str::to_owned).collect();
        Ok(Lock { version: 1, tool: tool(), cpu_features, inputs })
    }

    /// Refuses inputs that are not those of the file, if there is one; says whether there is.
    pub(super) fn compare(&self, path: &Path) -> Result<bool, RecipeError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(RecipeError::LockRead { path: path.to_owned(), source }),
        };
        let stored: Lock =
            schema::parse(&text).map_err(|source| RecipeError::LockSchema { path: path.to_owned(), source })?;
        match self.difference(&stored) {
            Some(difference) => Err(RecipeError::LockDiffers { path: path.to_owned(), difference }),
            None => Ok(true),
        }
    }

    fn difference(&self, stored: &Lock) -> Option<String> {
        if self.version != stored.version {
            return Some(format!("has version {}, this slmc reads {}", stored.version, self.version));
        }
        let same = |a: &LockedInput, b: &LockedInput| (&a.role, &a.path) == (&b.role, &b.path);
        for input in &self.inputs {
            let LockedInput { role, path, sha256 } = input;
            match stored.inputs.iter().find(|other| same(input, other)) {
                None => return Some(format!("knows nothing of `{path}` ({role})")),
                Some(other) if other.sha256 != *sha256 => {
                    return Some(format!("`{path}` ({role}) has SHA-256 {sha256}, expected {}", other.sha256));
                }
                Some(_) => {}
            }
        }
        if let Some(gone) = stored.inputs.iter().find(|other| !self.inputs.iter().any(|input| same(input, other))) {
            return Some(format!("names `{}` ({}), which the recipe does not read", gone.path, gone.role));
        }
        (self.tool != stored.tool).then(|| format!("was written by {}, this is {}", stored.tool, self.tool))
    }

    /// Writes it.
    pub(super) fn write(&self, path: &Path) -> Result<(), AtomicError> {
        let text = toml::to_string(self).unwrap_or_default();
        atomic::write_file(path, b"", |out| write!(out, "{HEADER}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(inputs: &[(&str, &str, &str)]) -> Lock {
        let input = |&(role, path, sha256): &(&str, &str, &str)| LockedInput {
            role: role.to_owned(),
            path: path.to_owned(),
            sha256: sha256.to_owned(),
        };
        Lock { version: 1, tool: tool(), cpu_features: Vec::new(), inputs: inputs.iter().map(input).collect() }
    }

    #[test]
    fn a_difference_names_the_input() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let first = lock(&[("model", "m", "1"), ("small.data", "a.txt", "2")]);
        assert!(!first.compare(&path).unwrap());
        first.write(&path).unwrap();
        assert!(first.compare(&path).unwrap());
        let cases = [
            (
                lock(&[("model", "m", "1"), ("small.data", "a.txt", "3")]),
                "`a.txt` (small.data) has SHA-256 3, expected 2",
            ),
            (lock(&[("model", "m", "1")]), "names `a.txt` (small.data), which the recipe does not read"),
            (
                lock(&[("model", "m", "1"), ("small.data", "a.txt", "2"), ("small.data", "b.txt", "2")]),
                "knows nothing of `b.txt` (small.data)",
            ),
            (Lock { tool: "slmc 9".to_owned(), ..first.clone() }, "this is slmc 9"),
        ];
        for (other, expected) in cases {
            let error = other.compare(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("--update-lock"), "{error}");
        }
        std::fs::write(&path, "version = 1\ntoll = 'x'\n").unwrap();
        assert!(matches!(first.compare(&path), Err(RecipeError::LockSchema { .. })));
    }
}
