//! How a stage ended where nothing failed, and what it took.

use crate::machine::{forget_peak_memory, peak_memory_bytes};
use crate::report::{Report, Table, grouped, json_line};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Instant;

/// How a stage ended where nothing failed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The report as one JSON line, its schema first.
    pub json: String,
    /// The report as text.
    pub text: String,
    /// Whether there is a result that passes; a model that does not fit has none.
    pub passed: bool,
    /// What it took.
    pub cost: Cost,
}

/// What a stage took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// Most memory that was resident while it ran; `None` where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl Cost {
    /// Does some work and measures it.
    pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        forget_peak_memory();
        let start = Instant::now();
        let result = work();
        // To the millisecond: more says nothing.
        let seconds = (start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        (result, Cost { seconds, peak_memory_bytes: peak_memory_bytes() })
    }
}

impl Outcome {
    /// With a result.
    ///
    /// # Errors
    /// A report that cannot be JSON.
    pub fn passed<R: Report>(report: &R) -> anyhow::Result<Self> {
        Ok(Outcome { json: json_line(report)?, text: report.text(), passed: true, cost: Cost::default() })
    }

    /// With an answer that is not a result.
    ///
    /// # Errors
    /// A report that cannot be JSON.
    pub fn failed<R: Report>(report: &R) -> anyhow::Result<Self> {
        Ok(Outcome { passed: false, ..Outcome::passed(report)? })
    }

    /// The report with the cost, as one JSON line.
    pub fn json_with_cost(&self) -> String {
        let cost = serde_json::to_string(&self.cost).unwrap_or_default();
        // Both are objects that are not empty.
        match (self.json.strip_suffix('}'), cost.strip_prefix('{')) {
            (Some(report), Some(cost)) => format!("{report},{cost}"),
            _ => self.json.clone(),
        }
    }

    /// The report with the cost, as text.
    pub fn text_with_cost(&self) -> String {
        let mut table = Table::pairs();
        table.row(["seconds", &format!("{:.1}", self.cost.seconds)]);
        if let Some(bytes) = self.cost.peak_memory_bytes {
            table.row(["peak_memory_bytes", &grouped(bytes)]);
        }
        format!("{}\n\n{table}", self.text)
    }
}
