//! The result of the run that made an artifact, as `slmc run --json` and `slmc run --report json=FILE` write it
//! (`slmc.run/2`): its gates, the names of its inputs, and which of its stages made the artifact.

use super::AttestError;
use super::subject::Subject;
use crate::disk::hash::{Hash, hex, sha256};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The form that is read.
const SCHEMA: &str = "slmc.run/2";

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Results {
    /// The file, or what stands for it in messages.
    pub(super) path: PathBuf,
    /// SHA-256 of the file.
    pub(super) sha256: Hash,
    pub(super) run: Run,
}

/// What is looked at of it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Run {
    schema: String,
    /// The recipe's name.
    pub(super) recipe: String,
    /// Its file, as it was named.
    pub(super) file: String,
    /// Values of the command line over the recipe's.
    #[serde(default)]
    pub(super) settings: Vec<String>,
    inputs: Vec<RunInput>,
    stages: Vec<RunStage>,
    gates: Vec<RunGate>,
    #[serde(default)]
    signed: Vec<SignedArtifact>,
}

#[derive(Clone, Debug, Deserialize)]
struct RunInput {
    path: String,
    sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
struct RunStage {
    stage: String,
    #[serde(default)]
    cell: BTreeMap<String, String>,
    status: String,
    #[serde(default)]
    sha256: Option<String>,
}

/// The artifact of a stage, signed.
#[derive(Clone, Debug, Deserialize)]
struct SignedArtifact {
    stage: String,
    sha256: String,
}

/// A gate.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunGate {
    pub(super) gate: String,
    pub(super) stage: String,
    pub(super) limit: f64,
    pub(super) at_least: bool,
    #[serde(default)]
    pub(super) value: Option<f64>,
    #[serde(default)]
    pub(super) lower: Option<f64>,
    #[serde(default)]
    pub(super) upper: Option<f64>,
    #[serde(default)]
    pub(super) confidence: Option<f64>,
    #[serde(default)]
    pub(super) against: Option<String>,
    pub(super) verdict: String,
    pub(super) passed: bool,
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AttestError::Results`].
    pub fn read(path: &Path) -> Result<Self, AttestError> {
        let fault = |fault: String| AttestError::Results { path: path.to_owned(), fault };
        let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        Results::of(path, &bytes)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// [`AttestError::Results`].
    pub fn of(path: &Path, bytes: &[u8]) -> Result<Self, AttestError> {
        let fault = |fault: String| AttestError::Results { path: path.to_owned(), fault };
        let expected = "expected the result of a run: slmc run RECIPE --report json=FILE";
        let run: Run = serde_json::from_slice(bytes).map_err(|error| fault(format!("{error}; {expected}")))?;
        if run.schema != SCHEMA {
            return Err(fault(format!("is of the form `{}`, not `{SCHEMA}`; {expected}", run.schema)));
        }
        Ok(Results { path: path.to_owned(), sha256: sha256(bytes), run })
    }

    /// The name that a recipe has for an input.
    pub(super) fn path_of(&self, sha256: &str) -> Option<String> {
        self.run.inputs.iter().find(|input| input.sha256 == sha256).map(|input| input.path.clone())
    }

    /// The gates that are about an artifact: those of stages that do not belong to another cell of the matrix.
    ///
    /// # Errors
    /// [`AttestError::OtherArtifact`] where the run did not make it.
    pub(super) fn gates_of(&self, subject: &Subject) -> Result<Vec<&RunGate>, AttestError> {
        let own = hex(&subject.sha256);
        let signed = self.run.signed.iter().find(|signed| signed.sha256 == own).map(|signed| signed.stage.as_str());
        let is_own = |stage: &&RunStage| stage.sha256.as_deref() == Some(&own) || signed == Some(&stage.stage);
        let made = self.run.stages.iter().find(is_own);
        let made = made.ok_or_else(|| AttestError::OtherArtifact {
            results: self.path.clone(),
            artifact: subject.path.clone(),
            sha256: own.clone(),
        })?;
        let together = |gate: &&RunGate| {
            let measured = self.run.stages.iter().find(|stage| stage.stage == gate.stage);
            measured.is_none_or(|stage| {
                stage.cell.iter().all(|(axis, value)| made.cell.get(axis).is_none_or(|own| own == value))
            })
        };
        Ok(self.run.gates.iter().filter(together).collect())
    }

    /// Stages that gave no result.
    pub(super) fn without_result(&self) -> impl Iterator<Item = &str> {
        let gave = |stage: &&RunStage| !["done", "cached"].contains(&stage.status.as_str());
        self.run.stages.iter().filter(gave).map(|stage| stage.stage.as_str())
    }
}

impl RunGate {
    /// `STAGE/GATE`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.stage, self.gate)
    }

    /// Limit, value and bounds, as far as there are any.
    pub(super) fn figures(&self) -> Value {
        let mut figures = serde_json::Map::new();
        figures.insert(if self.at_least { "atLeast" } else { "atMost" }.to_owned(), self.limit.into());
        let numbers =
            [("value", self.value), ("lower", self.lower), ("upper", self.upper), ("confidence", self.confidence)];
        for (name, number) in numbers {
            if let Some(number) = number {
                figures.insert(name.to_owned(), number.into());
            }
        }
        if let Some(against) = &self.against {
            figures.insert("against".to_owned(), against.clone().into());
        }
        figures.insert("verdict".to_owned(), self.verdict.clone().into());
        Value::Object(figures)
    }
}
