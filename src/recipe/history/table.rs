//! One row for every artifact of a run, as device teams list what they have: precision, parameters, bytes, RAM, latency,
//! accuracy, power. Latency is measured here where this machine is the target, or is not there: then it is the number of
//! instructions per token, counted in an emulator and passed in. Power is nothing that slmc measures, and the row says so.

use super::{HistoryReport, PastRun, PastStage};
use crate::artifact::host::ArtifactFile;
use crate::bench::{BenchOptions, bench};
use crate::disk::hash::{file_sha256, hex};
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped, visible};
use crate::target::Target;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Tokens of the prompt, and decoded after it, when latency is measured.
const TOKENS: (NonZeroUsize, usize) = (NonZeroUsize::new(16).unwrap(), 32);

/// An artifact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableRow {
    /// The run that made it.
    pub run: String,
    /// Its recipe.
    pub recipe: String,
    /// The stage, with the target where it has several.
    pub artifact: String,
    /// The target.
    pub target: String,
    /// Bits of a weight on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
    /// Weights, a tied tensor once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Length of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Arena, cache and stack on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_bytes: Option<u64>,
    /// Median time of a decoded token, of an encoder of a text of 16 tokens, on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// The kernels that it was measured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Instructions that the device executes for a token, as they were passed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_token: Option<u64>,
    /// Why there is no latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_note: Option<String>,
    /// What eval stages measured, by key: `accuracy`, `exact_match`, `top1_agreement`, `kld_mean`, `perplexity`,
    /// `cosine_mean`.
    pub quality: BTreeMap<&'static str, f64>,
    /// Always `not measured`.
    pub power: &'static str,
}

/// Result of `slmc report --table`.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// In the order of the runs, then of their stages.
    pub rows: Vec<TableRow>,
}

/// Numbers of quality, the most telling first.
const QUALITY: [&str; 6] = ["accuracy", "exact_match", "top1_agreement", "kld_mean", "perplexity", "cosine_mean"];

impl HistoryReport {
    /// The artifacts of the last run of each recipe. `instructions` are counts by stage, by stage and target, or by target.
    pub fn table(
        &self,
        instructions: &BTreeMap<String, u64>,
        threads: NonZeroUsize,
        progress: &dyn Progress,
    ) -> TableReport {
        let is_last =
            |(index, run): &(usize, &PastRun)| self.runs[index + 1..].iter().all(|later| later.recipe != run.recipe);
        let mut rows = Vec::new();
        for (_, run) in self.runs.iter().enumerate().filter(is_last) {
            let artifacts = run.stages.iter().filter(|stage| stage.kind.as_deref() == Some("compile"));
            rows.extend(artifacts.filter_map(|stage| row(run, stage, instructions, threads, progress)));
        }
        TableReport { rows }
    }
}

/// The names by which instructions may be passed in for an artifact, the most telling first.
fn names(artifact: &str, target: &str) -> [String; 3] {
    [artifact.to_owned(), format!("{artifact}.{target}"), target.to_owned()]
}

/// `None` where the model did not fit, or the report is in no cache.
fn row(
    run: &PastRun,
    stage: &PastStage,
    instructions: &BTreeMap<String, u64>,
    threads: NonZeroUsize,
    progress: &dyn Progress,
) -> Option<TableRow> {
    let report = stage.report.as_ref()?;
    let count = |key: &str| report.get(key).and_then(Value::as_u64);
    count("file_bytes")?;
    let target = report.get("target").and_then(Value::as_str)?.to_owned();
    let counted = names(&stage.stage, &target).iter().find_map(|name| instructions.get(name).copied());
    let measured = match counted {
        Some(_) => Err(String::new()),
        None => latency(stage, &target, threads, progress),
    };
    let (latency_ms, kernel, latency_note) = match measured {
        Ok((milliseconds, kernel)) => (Some(milliseconds), Some(kernel), None),
        Err(reason) => (None, None, Some(reason).filter(|reason| !reason.is_empty())),
    };
    Some(TableRow {
        run: run.name.clone(),
        recipe: run.recipe.clone(),
        artifact: stage.stage.clone(),
        target,
        bits_per_weight: report.get("bits_per_weight").and_then(Value::as_f64),
        parameters: count("parameters"),
        file_bytes: count("file_bytes"),
        ram_bytes: count("ram_bytes"),
        latency_ms,
        kernel,
        instructions_per_token: counted,
        latency_note,
        quality: quality(run, stage),
        power: "not measured",
    })
}

/// The name of an artifact without its target: what is packed for several says the same on each.
fn without_target(stage: &PastStage) -> &str {
    let target = stage.report.as_ref().and_then(|report| report.get("target")).and_then(Value::as_str);
    let name = target.and_then(|target| stage.stage.strip_suffix(target)?.strip_suffix('.'));
    name.unwrap_or(&stage.stage)
}

/// What eval stages say of the artifact, known by the length of its file, which their reports have. Where other artifacts are
/// as long, such as those of other seeds, it must be of the same cell too; nothing is said where that does not tell.
fn quality(run: &PastRun, stage: &PastStage) -> BTreeMap<&'static str, f64> {
    let is_artifact = |other: &PastStage| other.kind.as_deref() == Some("compile");
    let as_long = |other: &&PastStage| other.figures.get("file_bytes") == stage.figures.get("file_bytes");
    let alike: Vec<&PastStage> = run.stages.iter().filter(|other| is_artifact(other)).filter(as_long).collect();
    let within =
        |inner: &PastStage, outer: &PastStage| inner.cell.iter().all(|(key, value)| outer.cell.get(key) == Some(value));
    let of_same_weights =
        |artifact: &&PastStage| artifact.cell == stage.cell && without_target(artifact) == without_target(stage);
    let of_it = |other: &&PastStage| match alike.as_slice() {
        [_] => true,
        _ => within(stage, other) && alike.iter().filter(|artifact| within(artifact, other)).all(of_same_weights),
    };
    let mut found = BTreeMap::new();
    for other in run.stages.iter().filter(|other| !is_artifact(other)).filter(as_long).filter(of_it) {
        for key in QUALITY {
            if let Some(value) = other.figures.get(key) {
                found.entry(key).or_insert(*value);
            }
        }
    }
    found
}

/// Median milliseconds of a token and the kernels, or why it is not measured.
fn latency(
    stage: &PastStage,
    target: &str,
    threads: NonZeroUsize,
    progress: &dyn Progress,
) -> Result<(f64, String), String> {
    let here = std::env::consts::ARCH;
    let described = Target::named(target).map_err(|_| "its target is not known here".to_owned())?;
    if let Some(triple) = described.triple.as_deref().filter(|triple| !triple.starts_with(here)) {
        return Err(format!("another machine ({triple}); pass --instructions {}=N", stage.stage));
    }
    let path = stage.output.as_ref().filter(|path| path.is_file()).ok_or("the artifact is not on disk")?;
    let said = |error: &dyn std::error::Error| error.to_string();
    let own = file_sha256(path).map_err(|error| said(&error))?;
    if stage.sha256.as_ref().is_some_and(|sha256| *sha256 != hex(&own)) {
        return Err("another artifact is in its place now".to_owned());
    }
    let file = ArtifactFile::open(path).map_err(|error| said(&error))?;
    let (context, decoder) = {
        let view = file.view().map_err(|error| said(&error))?;
        (view.spec().context as usize, view.spec().is_decoder())
    };
    let prefill = TOKENS.0.min(NonZeroUsize::new(context / 2).unwrap_or(NonZeroUsize::MIN));
    let decode = if decoder { TOKENS.1.min(context.saturating_sub(prefill.get())) } else { 0 };
    let rounds = NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN);
    let options = BenchOptions { prefill, decode, rounds, huge_pages: false, threads, rows: None, drafts_right: None };
    let report = bench(file, &options, progress).map_err(|error| said(&error))?;
    Ok((report.token_ms_p50.unwrap_or(report.first_token_ms), report.kernel))
}

impl TableRow {
    /// Whether instructions passed in under a name are its own.
    pub fn is_called(&self, name: &str) -> bool {
        names(&self.artifact, &self.target).iter().any(|own| own == name)
    }

    fn latency_words(&self) -> String {
        match (self.latency_ms, self.instructions_per_token) {
            (Some(milliseconds), _) => format!("{milliseconds:.3} ms here ({})", self.kernel.as_deref().unwrap_or("-")),
            (None, Some(count)) => format!("{} instructions per token", grouped(count)),
            (None, None) => format!("not measured: {}", self.latency_note.as_deref().unwrap_or("-")),
        }
    }

    fn quality_words(&self) -> String {
        let word = |key: &&'static str| {
            let value = *self.quality.get(*key)?;
            let text = match *key {
                "kld_mean" => format!("KLD {value:.4}"),
                "perplexity" => format!("perplexity {value:.3}"),
                "cosine_mean" => format!("cosine {value:.4}"),
                "top1_agreement" => format!("top-1 {:.2} %", 100.0 * value),
                "exact_match" => format!("exact match {:.2} %", 100.0 * value),
                _ => format!("{:.2} %", 100.0 * value),
            };
            Some(text)
        };
        let words: Vec<String> = QUALITY.iter().filter_map(word).take(2).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }
}

impl Report for TableReport {
    const SCHEMA: &'static str = "slmc.table/1";

    fn text(&self) -> String {
        let (left, right) = (Align::Left, Align::Right);
        let several = self.rows.iter().any(|row| row.recipe != self.rows[0].recipe);
        let recipe = several.then(|| ("recipe".to_owned(), left));
        let headings = [
            ("artifact", left),
            ("target", left),
            ("bits/weight", right),
            ("parameters", right),
            ("bytes", right),
            ("RAM", right),
            ("latency", left),
            ("accuracy", left),
            ("power", left),
        ];
        let headings = headings.map(|(heading, align)| (heading.to_owned(), align));
        let mut table = Table::of(recipe.into_iter().chain(headings).collect());
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), grouped);
        for row in &self.rows {
            let cells = [
                row.artifact.as_str(),
                &row.target,
                &row.bits_per_weight.map_or_else(|| "-".to_owned(), |bits| format!("{bits:.2}")),
                &count(row.parameters),
                &count(row.file_bytes),
                &count(row.ram_bytes),
                &row.latency_words(),
                &row.quality_words(),
                row.power,
            ];
            let recipe = several.then_some(row.recipe.as_str());
            table.row(recipe.into_iter().chain(cells));
        }
        visible(&table.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, kind: &str, seed: &str, figures: &[(&str, f64)]) -> PastStage {
        PastStage {
            stage: name.to_owned(),
            kind: Some(kind.to_owned()),
            cell: BTreeMap::from([("seed".to_owned(), seed.to_owned())]),
            sha256: None,
            output: None,
            figures: figures.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
            report: None,
        }
    }

    #[test]
    fn artifacts_of_one_length_have_the_quality_of_their_own_cell() {
        let mut run = PastRun {
            verdict: None,
            name: String::new(),
            recipe: String::new(),
            tool: String::new(),
            passed: None,
            stages: vec![
                stage("artifact.0", "compile", "0", &[("file_bytes", 9.0)]),
                stage("artifact.1", "compile", "1", &[("file_bytes", 9.0)]),
                stage("quality.0", "eval", "0", &[("file_bytes", 9.0), ("accuracy", 0.5)]),
                stage("quality.1", "eval", "1", &[("file_bytes", 9.0), ("accuracy", 0.75)]),
            ],
            gates: Vec::new(),
        };
        let accuracy = |run: &PastRun, index: usize| quality(run, &run.stages[index]).get("accuracy").copied();
        assert_eq!((accuracy(&run, 0), accuracy(&run, 1)), (Some(0.5), Some(0.75)));
        // A lock has no cells, so nothing tells which of the two was measured.
        run.stages.iter_mut().for_each(|stage| stage.cell.clear());
        assert_eq!((accuracy(&run, 0), accuracy(&run, 1)), (None, None));
        run.stages.remove(1);
        assert_eq!(accuracy(&run, 0), Some(0.5));
    }
}
