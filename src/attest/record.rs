//! An artifact's provenance as a list: its stages in the order in which they ran, and what they read that none of them made.
//! The record itself is a tree ([`crate::stages::provenance`]): every input may carry the record of what made it.

use super::AttestError;
use super::results::Results;
use crate::stages;
use crate::stages::arguments::{Meaning, meaning};
use crate::store::canonical;
use crate::trust::statement::Resource;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Deepest chain of records that is followed.
const DEEPEST: usize = 64;
/// The digest of a model, which may be a directory: SHA-256 of a file, or over the names and digests of a directory's files
/// ([`crate::disk::hash`]).
pub(super) const MODEL_DIGEST: &str = "slmcModelSha256";
/// Roles of models that are not, or no longer, options which name a model.
const MODEL_ROLES: [&str; 6] = ["model", "base", "student", "teacher", "tokenizer", "quality-model"];
/// Keys of settings that say where something ran, not what it gave.
const OF_THE_MACHINE: [&str; 4] = ["threads", "jobs", "cpu_features", "workers"];

/// A stage.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its subcommand.
    pub(super) stage: String,
    /// Its record.
    pub(super) record: Value,
}

/// Something that was read and that no stage made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dependency {
    /// The stage that reads it.
    pub(super) stage: String,
    /// The option that names it.
    pub(super) role: String,
    /// Its hash.
    pub(super) sha256: String,
    /// Whether it is a model or a tokenizer, which may be a directory; else it is a file.
    pub(super) is_model: bool,
    /// As the recipe names it, where a run's result says so.
    pub(super) path: Option<String>,
}

/// The whole of a record.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// In the order in which they ran.
    pub(super) steps: Vec<Step>,
    /// Each once, in the order in which they are met.
    pub(super) dependencies: Vec<Dependency>,
    /// `STAGE/ROLE` of what was read and whose hash nobody may know.
    pub(super) withheld: Vec<String>,
    seen: Vec<String>,
}

impl Record {
    /// Reads the provenance of an artifact.
    ///
    /// # Errors
    /// [`AttestError::Provenance`].
    pub(super) fn of(provenance: &Value, artifact: &Path, results: Option<&Results>) -> Result<Self, AttestError> {
        let mut record = Record::default();
        record.walk(provenance, 0).map_err(|fault| AttestError::Provenance { path: artifact.to_owned(), fault })?;
        for dependency in &mut record.dependencies {
            dependency.path = results.and_then(|results| results.path_of(&dependency.sha256));
        }
        Ok(record)
    }

    fn walk(&mut self, record: &Value, depth: usize) -> Result<(), String> {
        let name = canonical(record);
        if self.seen.contains(&name) {
            return Ok(());
        }
        self.seen.push(name);
        if depth > DEEPEST {
            return Err(format!("has more than {DEEPEST} stages one after the other"));
        }
        let stage = record["stage"].as_str().ok_or("has a stage without a name")?.to_owned();
        for input in record["inputs"].as_array().into_iter().flatten() {
            let role = input["role"].as_str().ok_or_else(|| format!("has an input of {stage} without a role"))?;
            // The record of a quantized directory is beside the inputs of `compile`.
            let before = if stage == "compile" && role == "model" { &record["model"] } else { &input["made"] };
            if before["stage"].is_string() {
                self.walk(before, depth + 1)?;
                continue;
            }
            let Some(sha256) = input["sha256"].as_str() else {
                self.withheld.push(format!("{stage}/{role}"));
                continue;
            };
            let dependency = Dependency {
                stage: stage.clone(),
                role: role.to_owned(),
                sha256: sha256.to_owned(),
                is_model: is_model(&stage, role),
                path: None,
            };
            let same = |other: &Dependency| other.sha256 == dependency.sha256 && other.role == dependency.role;
            if !self.dependencies.iter().any(same) {
                self.dependencies.push(dependency);
            }
        }
        self.steps.push(Step { stage, record: record.clone() });
        Ok(())
    }

    /// Name and version of the program that compiled it.
    pub(super) fn tool(&self) -> &str {
        self.steps.last().and_then(|step| step.record["tool"].as_str()).unwrap_or_default()
    }
}

impl Dependency {
    /// Whether it has weights.
    pub(super) fn is_network(&self) -> bool {
        self.role == "draft" || self.is_model && self.role != "tokenizer"
    }

    /// As in-toto names it.
    pub(super) fn resource(&self) -> Resource {
        let algorithm = if self.is_model { MODEL_DIGEST } else { "sha256" };
        let resource = Resource::digested(format!("{}/{}", self.stage, self.role), algorithm, &self.sha256);
        match &self.path {
            Some(path) => resource.annotated(json!({"path": path})),
            None => resource,
        }
    }
}

impl Step {
    /// What a person asked for.
    pub(super) fn asked(&self) -> Value {
        let mut asked = Map::new();
        asked.insert("stage".to_owned(), json!(self.stage));
        for key in ["options", "seed", "target"] {
            if let Some(value) = self.record.get(key) {
                asked.insert(key.to_owned(), value.clone());
            }
        }
        Value::Object(asked)
    }

    /// What followed from it: settings as they were resolved, the class of the arithmetic, hashes of what was read.
    pub(super) fn resolved(&self) -> Value {
        let mut resolved = Map::new();
        resolved.insert("stage".to_owned(), json!(self.stage));
        resolved.insert("tool".to_owned(), self.record["tool"].clone());
        if let Some(numerics) = self.record.get("numerics") {
            resolved.insert("numerics".to_owned(), numerics.clone());
        }
        let settings = self.record["settings"].as_object().into_iter().flatten();
        let settings: Map<String, Value> = settings
            .filter(|(key, value)| !OF_THE_MACHINE.contains(&key.as_str()) && !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        resolved.insert("settings".to_owned(), Value::Object(settings));
        let input = |input: &Value| json!({"role": input["role"], "sha256": input["sha256"]});
        let inputs: Vec<Value> = self.record["inputs"].as_array().into_iter().flatten().map(input).collect();
        resolved.insert("inputs".to_owned(), Value::Array(inputs));
        Value::Object(resolved)
    }
}

/// Whether what an option of a stage reads is a model.
fn is_model(stage: &str, role: &str) -> bool {
    if MODEL_ROLES.contains(&role) {
        return true;
    }
    let Some(kind) = stages::named(stage) else { return false };
    let command = kind.augment(clap::Command::new(kind.name()));
    command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(role) || argument.get_id() == role)
        .is_some_and(|argument| matches!(meaning(argument), Some(Meaning::Model { .. })))
}

#[cfg(test)]
pub(super) use tests::provenance as example;

#[cfg(test)]
mod tests {
    use super::*;

    /// A student of a teacher, quantized and compiled; the data of the student is withheld.
    pub(in crate::attest) fn provenance() -> Value {
        let teacher = json!({
            "schema": "slmc.provenance/1", "tool": "slmc 0.1.0", "stage": "train", "settings": {"steps": 3},
            "inputs": [{"role": "model", "sha256": "aa"}, {"role": "data", "sha256": "bb"}],
            "options": {"backend": "flex"}, "seed": 0, "numerics": "x86-64-v3", "metrics": {},
        });
        let student = json!({
            "schema": "slmc.provenance/1", "tool": "slmc 0.1.0", "stage": "distill", "settings": {"threads": 2, "steps": 3},
            "inputs": [{"role": "teacher", "sha256": "cc", "made": teacher}, {"role": "data"}],
            "options": {}, "seed": 1, "numerics": "x86-64-v3", "metrics": {},
        });
        let quantized = json!({
            "schema": "slmc.provenance/1", "tool": "slmc 0.1.0", "stage": "quantize", "settings": {"scheme": "w8"},
            "inputs": [{"role": "model", "sha256": "dd", "made": student}, {"role": "calibration", "sha256": "bb"}],
            "options": {"scheme": "w8"}, "seed": 0, "numerics": "portable", "metrics": {},
        });
        json!({
            "schema": "slmc.provenance/1", "tool": "slmc 0.1.0", "stage": "compile", "settings": {"target": "generic"},
            "inputs": [{"role": "model", "sha256": "ee"}, {"role": "grammar", "sha256": "ff"}],
            "options": {}, "seed": 0, "target": {"name": "generic"}, "model": quantized,
        })
    }

    #[test]
    fn a_tree_becomes_a_list() {
        let record = Record::of(&provenance(), Path::new("a.slm"), None).expect("a record");
        let stages: Vec<&str> = record.steps.iter().map(|step| step.stage.as_str()).collect();
        assert_eq!(stages, ["train", "distill", "quantize", "compile"]);
        let read: Vec<(&str, &str, bool)> = record
            .dependencies
            .iter()
            .map(|dependency| (dependency.role.as_str(), dependency.sha256.as_str(), dependency.is_model))
            .collect();
        assert_eq!(
            read,
            [("model", "aa", true), ("data", "bb", false), ("calibration", "bb", false), ("grammar", "ff", false)]
        );
        assert_eq!(record.withheld, ["distill/data"]);
        assert_eq!(record.tool(), "slmc 0.1.0");
        assert_eq!(record.steps[1].resolved()["settings"], json!({"steps": 3}));
    }

    #[test]
    fn records_that_are_none_are_named() {
        let mut deep = json!({"stage": "prune", "inputs": []});
        for number in 0..70 {
            deep =
                json!({"stage": "prune", "seed": number, "inputs": [{"role": "model", "sha256": "aa", "made": deep}]});
        }
        for (record, fault) in
            [(json!({}), "without a name"), (json!({"stage": "a", "inputs": [{}]}), "without a role"), (deep, "64")]
        {
            let error = Record::of(&record, Path::new("a.slm"), None).expect_err("not a record").to_string();
            assert!(error.contains("a.slm: its provenance") && error.contains(fault), "{error}");
        }
    }
}
