//! Runs over time: the reports of earlier runs, or what locks say of them, side by side. A report is a file that `slmc run
//! --report json=FILE` wrote; of a lock the stages' reports come from the cache, by key.
//!
//! A report has no time, since the same run gives the same bytes: runs stand in the order in which they are named, those of a
//! directory in the order of their files' names.

mod render;
mod table;

pub use render::{HistoryFormat, HistoryRequest};
pub use table::{TableReport, TableRow};

use super::gates::GateResult;
use super::lock::{Lock, Released};
use super::released;
use super::run_report::RunVerdict;
use crate::progress::Progress;
use crate::stages::summary::Figures;
use crate::store::configuration::{self, CacheOptions};
use crate::store::{Chain, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Schema of the reports that are read.
const RUN: &str = "slmc.run/2";
/// Largest file that is looked at.
const MOST_BYTES: u64 = 256 << 20;

/// Numbers of stages that are compared, and whether a larger one is better; `None` where neither is.
pub(super) const FIGURES: [(&str, Option<bool>); 14] = [
    ("file_bytes", Some(false)),
    ("weight_bytes", Some(false)),
    ("flash_bytes", Some(false)),
    ("ram_bytes", Some(false)),
    ("bits_per_weight", None),
    ("kld_mean", Some(false)),
    ("top1_agreement", Some(true)),
    ("perplexity", Some(false)),
    ("accuracy", Some(true)),
    ("exact_match", Some(true)),
    ("cosine_mean", Some(true)),
    ("psi_max", Some(false)),
    ("seconds", Some(false)),
    ("peak_memory_bytes", Some(false)),
];

/// Why runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Nothing of the kind is there.
    #[error("{}: {fault}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        fault: String,
    },
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A lock that cannot be read.
    #[error(transparent)]
    Lock(#[from] super::RecipeError),
    /// The caches cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct PastRun {
    /// The file, and of a lock the class of the machine.
    pub name: String,
    /// The recipe.
    pub recipe: String,
    /// Name and version of the program.
    pub tool: String,
    /// Whether it passed; absent of a lock, which says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    /// The same, and whether there was anything to judge; absent of a lock, and of reports of an older slmc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RunVerdict>,
    /// Its stages.
    pub stages: Vec<PastStage>,
    /// Its gates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
}

/// One stage of a run.
#[derive(Clone, Debug, Serialize)]
pub struct PastStage {
    /// Name, with the target where the stage has several.
    pub stage: String,
    /// Its subcommand; absent where only a lock knows the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The values of the matrix that it has; empty too where only a lock knows the stage.
    #[serde(skip)]
    pub cell: BTreeMap<String, String>,
    /// SHA-256 of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Path of its output, as the run had it.
    #[serde(skip)]
    pub output: Option<PathBuf>,
    /// Numbers of its report, by their keys.
    pub figures: BTreeMap<String, f64>,
    /// All of its report.
    #[serde(skip)]
    pub report: Option<Value>,
}

/// One number of one stage over all runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// The stage.
    pub stage: String,
    /// The number's key in the stage's report.
    pub figure: &'static str,
    /// In the order of the runs; null where a run does not have it.
    pub values: Vec<Option<f64>>,
    /// The last over the one before it, less one; absent where there are not two, or the one before is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
    /// Whether that is for the better; absent where it is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<bool>,
}

/// Result of `slmc report`.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryReport {
    /// In the order in which they were named.
    pub runs: Vec<PastRun>,
    /// What was measured in any of them.
    pub courses: Vec<Course>,
}

/// Reads runs.
///
/// # Errors
/// [`HistoryError`]: a path that holds none, a file that cannot be read.
pub fn history(
    paths: &[PathBuf],
    cache: &CacheOptions,
    progress: &dyn Progress,
) -> Result<HistoryReport, HistoryError> {
    let mut reader = Reader { cache, chain: None, progress };
    let mut runs = Vec::new();
    for path in paths {
        runs.extend(reader.path(path)?);
    }
    let courses = courses(&runs);
    Ok(HistoryReport { runs, courses })
}

impl PastRun {
    /// Whether another run may be of the same recipe: a lock may have been copied under any name.
    fn may_be_of_recipe(&self, other: &PastRun) -> bool {
        self.recipe == other.recipe || self.passed.is_none() || other.passed.is_none()
    }
}

impl HistoryReport {
    /// The recipes, each once, of which there are reports.
    fn recipes(&self) -> Vec<&str> {
        let mut recipes: Vec<&str> = Vec::new();
        for run in self.runs.iter().filter(|run| run.passed.is_some()) {
            if !recipes.contains(&run.recipe.as_str()) {
                recipes.push(&run.recipe);
            }
        }
        recipes
    }

    /// What is to be said before everything else.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let recipes = self.recipes();
        if recipes.len() > 1 {
            remarks.push(format!(
                "runs of different recipes ({}): a change is that of the last run since the one before it of the same recipe",
                recipes.join(", ")
            ));
        }
        if self.courses.is_empty() {
            remarks.push("nothing was measured in these runs, or their results are in none of the caches".to_owned());
        }
        remarks
    }
}

struct Reader<'r> {
    cache: &'r CacheOptions,
    /// Opened with the first lock.
    chain: Option<Chain>,
    progress: &'r dyn Progress,
}

impl Reader<'_> {
    fn path(&mut self, path: &Path) -> Result<Vec<PastRun>, HistoryError> {
        let fault = |fault: &str| HistoryError::Path { path: path.to_owned(), fault: fault.to_owned() };
        if path.is_dir() {
            return directory(path);
        }
        if !path.exists() {
            return Err(fault("does not exist; pass a directory of reports, a report, or a lock"));
        }
        if path.extension().is_some_and(|extension| extension == "lock") {
            return self.lock(path);
        }
        match read_run(path)? {
            Some(run) => Ok(vec![run]),
            None => Err(fault("is neither a report of `slmc run --report json=FILE` (slmc.run/2) nor a lock")),
        }
    }

    /// A run for every class of machine.
    fn lock(&mut self, path: &Path) -> Result<Vec<PastRun>, HistoryError> {
        let missing = || HistoryError::Path { path: path.to_owned(), fault: "does not exist".to_owned() };
        let lock = Lock::read(path)?.ok_or_else(missing)?;
        let chain = match self.chain.take() {
            Some(chain) => chain,
            None => configuration::open(self.cache)?,
        };
        let recipe = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let runs: Vec<PastRun> = lock
            .classes()
            .map(|(class, stages)| PastRun {
                name: format!("{} ({class})", path.display()),
                recipe: recipe.clone(),
                tool: lock.tool().to_owned(),
                passed: None,
                verdict: None,
                stages: stages.map(|(label, released)| of_lock(label, &released, &chain, self.progress)).collect(),
                gates: Vec::new(),
            })
            .collect();
        self.chain = Some(chain);
        match runs.is_empty() {
            true => Err(HistoryError::Path { path: path.to_owned(), fault: "has no results of any stage".to_owned() }),
            false => Ok(runs),
        }
    }
}

fn of_lock(label: &str, released: &Released, chain: &Chain, progress: &dyn Progress) -> PastStage {
    let about = released::entry(chain, released, progress).map(|entry| entry.about);
    let mut stage = PastStage {
        stage: label.to_owned(),
        kind: about.as_ref().map(|about| about.kind.clone()),
        cell: BTreeMap::new(),
        sha256: released.output.map(|output| output.to_string()),
        output: None,
        figures: about.as_ref().map(|about| figures(&about.report)).unwrap_or_default(),
        report: about.as_ref().map(|about| about.report.clone()),
    };
    if let Some(about) = about {
        stage.figures.insert("seconds".to_owned(), about.seconds);
        stage.figures.extend(about.peak_memory_bytes.map(|bytes| ("peak_memory_bytes".to_owned(), bytes as f64)));
    }
    stage
}

fn figures(report: &Value) -> BTreeMap<String, f64> {
    let number = |(key, _): (&str, Option<bool>)| Some((key.to_owned(), Figures(report).number(key)?));
    FIGURES.into_iter().filter_map(number).collect()
}

/// The reports of a directory, by name; other files are passed over.
fn directory(path: &Path) -> Result<Vec<PastRun>, HistoryError> {
    let failed = |source| HistoryError::Read { path: path.to_owned(), source };
    let entries = std::fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut runs = Vec::new();
    for file in files {
        runs.extend(read_run(&file)?);
    }
    if runs.is_empty() {
        let fault = "holds no report of a run; write one with `slmc run RECIPE --report json=DIR/NAME.json`";
        return Err(HistoryError::Path { path: path.to_owned(), fault: fault.to_owned() });
    }
    Ok(runs)
}

/// The parts of a report that are compared.
#[derive(Deserialize)]
struct Stored {
    recipe: String,
    tool: String,
    passed: bool,
    verdict: Option<RunVerdict>,
    stages: Vec<StoredStage>,
    gates: Vec<GateResult>,
}

#[derive(Deserialize)]
struct StoredStage {
    stage: String,
    kind: String,
    #[serde(default)]
    cell: BTreeMap<String, String>,
    output: Option<PathBuf>,
    sha256: Option<String>,
    seconds: Option<f64>,
    peak_memory_bytes: Option<f64>,
    report: Option<Value>,
}

/// The run that a file reports; `None` for JSON of another kind.
fn read_run(path: &Path) -> Result<Option<PastRun>, HistoryError> {
    let fault = |fault: String| HistoryError::Path { path: path.to_owned(), fault };
    let failed = |source| HistoryError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MOST_BYTES {
        return Err(fault(format!("has more than {MOST_BYTES} bytes, which no report has")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let value: Value = serde_json::from_str(&text).map_err(|error| fault(format!("is not JSON: {error}")))?;
    match value.get("schema").and_then(Value::as_str) {
        Some(RUN) => {}
        Some(other) if other.starts_with("slmc.run/") => {
            return Err(fault(format!("is a report of schema {other}; this slmc reads {RUN}: run the recipe again")));
        }
        _ => return Ok(None),
    }
    let stored: Stored =
        serde_json::from_value(value).map_err(|error| fault(format!("is not a report of {RUN}: {error}")))?;
    let stages = stored.stages.into_iter().map(|stage| {
        let mut figures = stage.report.as_ref().map(figures).unwrap_or_default();
        figures.extend(stage.seconds.map(|seconds| ("seconds".to_owned(), seconds)));
        figures.extend(stage.peak_memory_bytes.map(|bytes| ("peak_memory_bytes".to_owned(), bytes)));
        PastStage {
            stage: stage.stage,
            kind: Some(stage.kind),
            cell: stage.cell,
            sha256: stage.sha256,
            output: stage.output,
            figures,
            report: stage.report,
        }
    });
    Ok(Some(PastRun {
        name: path.display().to_string(),
        recipe: stored.recipe,
        tool: stored.tool,
        passed: Some(stored.passed),
        verdict: stored.verdict,
        stages: stages.collect(),
        gates: stored.gates,
    }))
}

/// Every number that any run has, stages in the order in which they first appear.
fn courses(runs: &[PastRun]) -> Vec<Course> {
    let mut labels: Vec<&str> = Vec::new();
    for stage in runs.iter().flat_map(|run| &run.stages) {
        if !labels.contains(&stage.stage.as_str()) {
            labels.push(&stage.stage);
        }
    }
    let mut courses = Vec::new();
    for label in labels {
        for (figure, larger_is_better) in FIGURES {
            let of_run = |run: &PastRun| {
                let stage = run.stages.iter().find(|stage| stage.stage == label)?;
                stage.figures.get(figure).copied().filter(|value| value.is_finite())
            };
            let values: Vec<Option<f64>> = runs.iter().map(of_run).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            // A change is one of the same recipe, whatever stands between.
            let last = runs.last();
            let alike = runs.iter().zip(&values).filter(|(run, _)| last.is_some_and(|last| last.may_be_of_recipe(run)));
            let alike: Vec<f64> = alike.filter_map(|(_, value)| *value).collect();
            let mut known = alike.iter().rev();
            let change = match (known.next(), known.next()) {
                (Some(last), Some(before)) if *before != 0.0 && values.last().is_some_and(Option::is_some) => {
                    Some(last / before - 1.0)
                }
                _ => None,
            };
            let better = change
                .filter(|change| *change != 0.0)
                .zip(larger_is_better)
                .map(|(change, larger)| (change > 0.0) == larger);
            courses.push(Course { stage: label.to_owned(), figure, values, change, better });
        }
    }
    courses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, figures: &[(&str, f64)]) -> PastRun {
        let figures = figures.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let stage = PastStage {
            stage: "quality".to_owned(),
            kind: None,
            cell: BTreeMap::new(),
            sha256: None,
            output: None,
            figures,
            report: None,
        };
        PastRun {
            name: name.to_owned(),
            recipe: String::new(),
            tool: String::new(),
            passed: None,
            verdict: None,
            stages: vec![stage],
            gates: Vec::new(),
        }
    }

    #[test]
    fn a_change_is_that_of_the_last_run_and_says_its_direction() {
        let runs = [
            run("a", &[("kld_mean", 0.1), ("accuracy", 0.5)]),
            run("b", &[("accuracy", 0.5)]),
            run("c", &[("kld_mean", 0.05), ("accuracy", 0.6), ("seconds", 3.0)]),
        ];
        let courses = courses(&runs);
        let of = |figure: &str| courses.iter().find(|course| course.figure == figure).expect("it was measured");
        assert_eq!(of("kld_mean").values, [Some(0.1), None, Some(0.05)]);
        assert_eq!((of("kld_mean").change, of("kld_mean").better), (Some(-0.5), Some(true)));
        assert!(of("accuracy").change.is_some_and(|change| (change - 0.2).abs() < 1e-9));
        assert_eq!((of("seconds").change, of("seconds").better), (None, None));
        // A number that the last run lacks has not changed with it.
        assert_eq!(
            super::courses(&runs[..2]).iter().find(|course| course.figure == "kld_mean").and_then(|c| c.change),
            None
        );
    }
}
