//! The report of a training run, and the log of its steps as a file.

use super::privacy::{PrivacyReport, Private};
use super::trainer::{Run, Trained};
use crate::disk::atomic::{self, AtomicError};
use crate::report::{Report, Table, grouped};
use crate::text::file::{ReadNotes, rows_of_files};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Most points of a curve.
const CURVE_POINTS: usize = 400;

/// Result of `slmc train` and `slmc distill`.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    /// Weights of the model.
    pub parameters: u64,
    /// Values trained, where that is another number: a part of the weights, or adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained: Option<u64>,
    /// Samples in the data.
    pub samples: u64,
    /// Steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean loss over the last tenth of the steps.
    pub loss: f64,
    /// Its parts by their keys, each over those of these steps in which it has a weight; without those that have none there.
    #[serde(flatten)]
    pub parts: Map<String, Value>,
    /// Loss by step, `[step, loss]`: of a long run the means of at most 400 stretches of steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(u64, f64)>,
    /// What a private run has spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyReport>,
    /// Step a killed run was resumed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// The files of the data, and the changes of reading them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_read: Vec<ReadNotes>,
}

impl Report for TrainReport {
    const SCHEMA: &'static str = "slmc.train/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["parameters", &grouped(self.parameters)]);
        if let Some(trained) = self.trained {
            table.row(["trained", &grouped(trained)]);
        }
        table.row(["samples", &grouped(self.samples)]);
        table.row(["steps", &grouped(self.steps)]);
        table.row(["tokens", &grouped(self.tokens)]);
        table.row(["loss", &format!("{:.4}", self.loss)]);
        for (key, value) in &self.parts {
            table.row([key, &format!("{:.4}", value.as_f64().unwrap_or(f64::NAN))]);
        }
        if let Some(privacy) = &self.privacy {
            privacy.rows(&mut table);
        }
        if let Some(step) = self.resumed_from {
            table.row(["resumed from", &format!("step {step}")]);
        }
        rows_of_files(&self.files_read, &mut table);
        table.to_string()
    }
}

impl TrainReport {
    /// The figures for provenance: the same for a resumed run. Losses and tokens are functions of the data, without noise, and
    /// provenance goes where the model goes: of a private run it has neither.
    pub fn metrics(&self) -> Value {
        match &self.privacy {
            Some(_) => json!({"steps": self.steps}),
            None => json!({"loss": self.loss, "steps": self.steps, "tokens": self.tokens}),
        }
    }

    /// The report of a finished run, without the files of its data.
    pub fn of(run: &Run<'_>, trained: &Trained) -> Self {
        let tokens = trained.log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        TrainReport {
            parameters: run.spec.parameter_count(),
            trained: (!run.scope.is_all()).then(|| run.scope.trained_count(run.spec)),
            samples: run.samples.len() as u64,
            steps: trained.steps,
            tokens: tokens.filter_map(|line| line["tokens"].as_u64()).sum(),
            loss: trained.last.total,
            parts: trained.last.parts.clone(),
            curve: curve(&trained.log),
            privacy: run.privacy.map(Private::report),
            resumed_from: trained.resumed,
            files_read: Vec::new(),
        }
    }
}

/// Losses of a log by step, neighbouring steps averaged where there are more than [`CURVE_POINTS`].
fn curve(log: &[String]) -> Vec<(u64, f64)> {
    let point = |line: &String| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line["step"].as_u64()?, line["loss"].as_f64()?))
    };
    let points: Vec<(u64, f64)> = log.iter().filter_map(point).collect();
    let mean = |steps: &[(u64, f64)]| {
        let loss = steps.iter().map(|step| step.1).sum::<f64>() / steps.len() as f64;
        // Six digits are more than a figure or a table shows.
        (steps[steps.len() / 2].0, (loss * 1e6).round() / 1e6)
    };
    points.chunks(points.len().div_ceil(CURVE_POINTS).max(1)).map(mean).collect()
}

/// First bytes of a log: a file that begins otherwise is not replaced by one.
pub const LOG_MAGIC: &[u8] = b"{\"step\":";

/// One JSON line per step.
pub fn write_log(path: &Path, log: &[String]) -> Result<(), AtomicError> {
    atomic::write_file(path, LOG_MAGIC, |out| log.iter().try_for_each(|line| writeln!(out, "{line}")))
}
