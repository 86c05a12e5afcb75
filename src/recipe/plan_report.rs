//! What `slmc plan` says: every stage of every cell with the state of its result, what it will take, and what a run needs
//! from its environment. Figures of stages that are cached are those of when they were made, the others estimates.

use super::cache::NEVER_RUN;
use super::forecast::Basis;
use crate::report::annotation::{Annotation, Level};
use crate::report::{Align, Report, Table, visible};
use crate::stages::{Cost, DeviceNeed, Prediction};
use crate::trust::KeyPlace;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of this machine's cache in reports.
pub(super) const LOCAL: &str = "local";

/// Result of `slmc plan`, and of `slmc run --plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The recipe's name.
    pub recipe: String,
    /// Its file, as it was named.
    pub file: PathBuf,
    /// How many cells its matrix has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<usize>,
    /// Those of every cell, in the order in which they run.
    pub stages: Vec<PlannedStage>,
    /// Stages that conditions leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutStage>,
    /// Variables of the environment that a run reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Variable>,
    /// Secret keys that a run needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PlannedKey>,
    /// Sums over the stages that are to run.
    pub to_do: Totals,
    /// Whether every artifact fits its target, as far as that can be told.
    pub fits: bool,
}

/// One stage of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStage {
    /// Name, with the values of the matrix, and with the target where the stage has several: that of `--only`, keys and locks.
    pub stage: String,
    /// The key of its table.
    pub name: String,
    /// The values of the matrix that it has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cell: BTreeMap<String, String>,
    /// Its target, of a stage that makes artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its subcommand.
    pub kind: &'static str,
    /// The stages and models that it reads.
    pub inputs: Vec<String>,
    /// The stages among them, by which it waits.
    pub needs: Vec<String>,
    /// Path of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Whether its result is known.
    pub cached: bool,
    /// Which cache has it: `local`, or a name without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it took when it was made, where its result is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_in: Option<Cost>,
    /// Whether the output is in its place already.
    pub in_place: bool,
    /// Digest of everything that decides the result; absent while it waits for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it will take, or would.
    pub estimate: Estimate,
    /// Where it is written: a line of a file, from 1.
    #[serde(skip)]
    pub(super) place: (PathBuf, usize),
}

/// What a stage will take; every number but the device's is an estimate.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// From shapes, settings and lengths of files.
    #[serde(flatten)]
    pub predicted: Prediction,
    /// Wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Where that comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_by: Option<Basis>,
}

/// A stage that a condition leaves out.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LeftOutStage {
    /// Its name.
    pub stage: String,
    /// The reason.
    pub why: String,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name; what it says is not told.
    pub name: String,
    /// Whether it is set.
    pub set: bool,
    /// Whether a secret is expected there.
    pub secret: bool,
    /// Its use.
    pub what_for: String,
}

/// A secret key that a run needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedKey {
    /// Where it is; never the key.
    pub place: String,
    /// The variable of the environment, where that is the place.
    #[serde(skip)]
    pub variable: Option<String>,
    /// Whether something is there.
    pub there: bool,
    /// Its use.
    pub what_for: String,
}

impl PlannedKey {
    /// A key at a place.
    pub(super) fn at(place: &KeyPlace, what_for: &str) -> Self {
        let (there, variable) = match place {
            KeyPlace::Variable(name) => {
                (std::env::var_os(name).is_some_and(|value| !value.is_empty()), Some(name.clone()))
            }
            KeyPlace::File(path) => (path.is_file(), None),
            // A plan opens no token, whose PIN may be asked for.
            KeyPlace::Token(_) => (true, None),
        };
        PlannedKey { place: place.name(), variable, there, what_for: what_for.to_owned() }
    }
}

/// Sums over the stages that are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// How many there are.
    pub stages: usize,
    /// Bytes on disk: outputs, the same in the cache, and the state of one stage to go on from.
    pub disk_bytes: u64,
    /// Memory at the peak of the largest, as far as it is known.
    pub peak_memory_bytes: u64,
    /// Wall time one after the other, as far as it is known.
    pub seconds: f64,
    /// How many of them have no estimate of their time.
    pub without_seconds: usize,
}

impl Totals {
    /// Adds a stage.
    pub(super) fn add(&mut self, estimate: &Estimate) {
        let Prediction { output_bytes, state_bytes, peak_memory_bytes, .. } = estimate.predicted;
        self.stages += 1;
        self.disk_bytes += 2 * output_bytes.unwrap_or(0) + state_bytes.unwrap_or(0);
        self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes.unwrap_or(0));
        match estimate.seconds {
            Some(seconds) => self.seconds += seconds,
            None => self.without_seconds += 1,
        }
    }

    fn words(&self, all: usize) -> String {
        if all == 0 {
            return "nothing to do: every stage is left out".to_owned();
        }
        if self.stages == 0 {
            return format!("nothing to do: all {all} results are known");
        }
        let unknown = match self.without_seconds {
            0 => String::new(),
            count => format!(" and {count} without an estimate"),
        };
        format!(
            "to do: {} of {all} stages, about {}{unknown}, {} of memory, {} of disk",
            self.stages,
            duration(self.seconds),
            size(self.peak_memory_bytes),
            size(self.disk_bytes)
        )
    }
}

/// `12 s`, `3.5 min`, `2.1 h`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 9.95 => format!("{seconds:.1} s"),
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        seconds if seconds < 5970.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// `812 B`, `24.0 KiB`, `3.1 MiB`, `1.2 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

impl PlannedStage {
    /// Whether it is cached and where, else why it is to run.
    pub(super) fn state(&self) -> String {
        let made = self.made_in.map_or_else(String::new, |cost| format!(", made in {}", duration(cost.seconds)));
        match (self.cached, self.from.as_deref(), self.why.as_deref()) {
            (true, Some(LOCAL) | None, _) => format!("cached{made}"),
            (true, Some(from), _) => format!("cached in {from}{made}"),
            (false, _, Some(why)) if why != NEVER_RUN => format!("to do: {why}"),
            (false, ..) => "to do".to_owned(),
        }
    }

    /// Output, memory and time: of when it was made, or `~` and an estimate.
    pub(super) fn figures(&self) -> [String; 3] {
        let Estimate { predicted, seconds, .. } = &self.estimate;
        let about = |text: String| format!("~{text}");
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let bytes = or_dash(predicted.output_bytes.map(size).map(about));
        match self.made_in {
            Some(cost) => [bytes, or_dash(cost.peak_memory_bytes.map(size)), duration(cost.seconds)],
            None => [
                bytes,
                or_dash(predicted.peak_memory_bytes.map(size).map(about)),
                or_dash(seconds.map(duration).map(about)),
            ],
        }
    }

    fn device(&self) -> Option<&DeviceNeed> {
        self.estimate.predicted.device.as_ref()
    }
}

impl PlanReport {
    /// For the checks of a pull request: artifacts that do not fit.
    pub fn annotations(&self) -> Vec<Annotation> {
        let of_stage = |stage: &PlannedStage| {
            let message = stage.device()?.does_not_fit.clone()?;
            let (file, line) = stage.place.clone();
            let title = format!("slmc plan {}", stage.stage);
            Some(Annotation { level: Level::Error, file, line, column: 1, end_column: 1, title, message })
        };
        self.stages.iter().filter_map(of_stage).collect()
    }

    /// Names of the stages that are to run.
    pub fn names_to_do(&self) -> Vec<&str> {
        self.stages.iter().filter(|stage| !stage.cached).map(|stage| stage.stage.as_str()).collect()
    }

    fn table(&self) -> Table {
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new([
            ("stage", left),
            ("kind", left),
            ("input", left),
            ("output", left),
            ("bytes", right),
            ("memory", right),
            ("time", right),
            ("", left),
        ]);
        for stage in &self.stages {
            let output = stage.output.as_deref().map_or_else(|| "-".to_owned(), |output| output.display().to_string());
            let [bytes, memory, time] = stage.figures();
            let inputs = stage.inputs.join(", ");
            table.row([stage.stage.as_str(), stage.kind, &inputs, &output, &bytes, &memory, &time, &stage.state()]);
        }
        table
    }

    /// What is said below the table.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stage in &self.stages {
            match stage.device() {
                Some(DeviceNeed { does_not_fit: Some(why), .. }) => lines.push(format!("{}: {why}", stage.stage)),
                Some(DeviceNeed { target, flash_bytes, ram_bytes, .. }) => lines.push(format!(
                    "{}: {} of flash and {} of RAM on {target}",
                    stage.stage,
                    size(*flash_bytes),
                    size(*ram_bytes)
                )),
                None => {}
            }
        }
        lines.extend(self.left_out.iter().map(|left_out| format!("left out: {}: {}", left_out.stage, left_out.why)));
        for Variable { name, set, what_for, .. } in &self.environment {
            let state = if *set { "set" } else { "not set" };
            lines.push(format!("environment: {name} ({state}): {what_for}"));
        }
        // Those of the environment are among its variables.
        for PlannedKey { place, there, what_for, .. } in self.keys.iter().filter(|key| key.variable.is_none()) {
            lines.push(format!("key: {place} ({}): {what_for}", if *there { "there" } else { "not there" }));
        }
        lines.push(self.to_do.words(self.stages.len()));
        lines
    }
}

impl Report for PlanReport {
    const SCHEMA: &'static str = "slmc.plan/2";

    fn text(&self) -> String {
        visible(&format!("{}\n\n{}", self.table(), self.lines().join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_at_a_glance() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 40, "5120.0 GiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        let times = [(0.04, "0.0 s"), (9.9, "9.9 s"), (12.4, "12 s"), (150.0, "2.5 min"), (7200.0, "2.0 h")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
    }
}
