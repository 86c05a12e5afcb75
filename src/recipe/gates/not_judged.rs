//! Gates that a run cannot judge, since conditions leave out the stages that they are on: reports list them.

use crate::recipe::document::Entry;
use crate::report::annotation::{Annotation, Level};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// A gate whose stage a condition leaves out, so that nothing is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NotJudged {
    /// Such as `kld_max`.
    pub gate: String,
    /// The stage that is left out; of a gate that names none, all that are.
    pub stage: String,
    /// The file that sets it, as the recipe was named.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
    /// Why the stage is left out.
    pub why: String,
}

impl NotJudged {
    /// On a stage that is left out.
    pub(super) fn of(entry: &Entry, stage: String, why: String) -> Self {
        let (file, line) = (entry.place.source.file.display().to_string(), entry.place.line());
        NotJudged { gate: entry.key.clone(), stage, file, line, why }
    }

    /// `kld_max on quality: …`.
    pub(in crate::recipe) fn words(&self) -> String {
        format!("{} on {}: {}", self.gate, self.stage, self.why)
    }

    /// For the checks of a pull request.
    pub(in crate::recipe) fn annotation(&self) -> Annotation {
        let end_column = 1 + self.gate.chars().count();
        let (file, title) = (PathBuf::from(&self.file), format!("slmc gate {}", self.gate));
        let message = format!("not judged: {}", self.words());
        Annotation { level: Level::Warning, file, line: self.line, column: 1, end_column, title, message }
    }
}
