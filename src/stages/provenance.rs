//! The record of a directory in slmc.json, and the provenance section of an artifact: tool, inputs by hash, stage,
//! settings.

use super::invocation::Invocation;
use crate::disk::PROVENANCE_FILE;
use crate::disk::hash::{HashError, file_sha256, hex};
use crate::formats;
use crate::formats::provenance::sparsity_json;
use crate::machine::tool;
use crate::model::transform::Sparsity;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Everything that a stage reads, by role and SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Inputs(Vec<Value>);

impl Inputs {
    /// Adds a model: a directory, or a configuration.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn model(mut self, role: &str, path: &Path) -> Result<Self, HashError> {
        self.0.push(json!({"role": role, "sha256": hex(&formats::sha256(path)?)}));
        Ok(self)
    }

    /// Adds a model with what its own slmc.json says, so that the whole chain can be made again.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn made(self, role: &str, path: &Path) -> Result<Self, HashError> {
        let mut inputs = self.model(role, path)?;
        let record = std::fs::read(path.join(PROVENANCE_FILE)).ok();
        if let (Some(record), Some(input)) =
            (record.and_then(|text| serde_json::from_slice(&text).ok()), inputs.0.last_mut())
        {
            let record: Value = record;
            input["made"] = record;
        }
        Ok(inputs)
    }

    /// Adds files of one role.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn files<'f>(mut self, role: &str, files: impl IntoIterator<Item = &'f PathBuf>) -> Result<Self, HashError> {
        for file in files {
            self.0.push(json!({"role": role, "sha256": hex(&file_sha256(file)?)}));
        }
        Ok(self)
    }

    /// Leaves out the hashes of one role: the data of a private run.
    pub fn withhold(&mut self, role: &str) {
        for input in self.0.iter_mut().filter(|input| input["role"] == role) {
            *input = json!({"role": role});
        }
    }

    /// As a list.
    pub fn json(&self) -> Value {
        Value::Array(self.0.clone())
    }
}

/// How something was made.
pub fn provenance(stage: &str, inputs: &Inputs, settings: Value, invocation: &Invocation) -> Value {
    let mut made = json!({
        "schema": "slmc.provenance/1",
        "tool": tool(),
        "inputs": inputs.json(),
        "stage": stage,
        "settings": settings,
    });
    invocation.add_to(&mut made);
    made
}

/// How the weights of a directory were made; readers find there which matrices are sparse.
/// `numerics` is their class.
pub fn of_weights(
    (stage, numerics): (&str, &str),
    inputs: &Inputs,
    (settings, invocation): (Value, &Invocation),
    sparsity: &Sparsity,
    metrics: Value,
) -> Value {
    let mut made = provenance(stage, inputs, settings, invocation);
    made["sparsity"] = sparsity_json(sparsity);
    made["numerics"] = json!(numerics);
    made["metrics"] = metrics;
    made
}
