//! What a run of a recipe would do: its stages in order, and which of them are done already.

use super::cache::{self, Hashes};
use super::lock::{self, Lock, LockError};
use super::mistake::Mistakes;
use super::reader::{self, Recipe};
use super::unit::{Chosen, Source, Unit};
use crate::disk::hash::HashError;
use crate::report::{Align, Report, Table};
use crate::stages::RunSettings;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recipe.
    pub recipe: PathBuf,
    /// Below which outputs go.
    pub out: PathBuf,
    /// Whether stages that are done run again.
    pub force: bool,
    /// Whether a lock is kept beside the recipe.
    pub lock: bool,
    /// Whether it is written anew.
    pub update_lock: bool,
    /// What holds for every stage; one that has a seed of its own starts from that.
    pub run: RunSettings,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Of the recipe.
    #[error(transparent)]
    Recipe(#[from] Mistakes),
    /// Of the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Of an input.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// A recipe, its lock and what is known of its inputs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) recipe: Recipe,
    pub(super) hashes: Hashes,
    /// The lock to be written, and where.
    pub(super) new_lock: Option<(Lock, PathBuf)>,
}

/// Reads the recipe and compares its lock.
pub(super) fn prepare(options: &Options) -> Result<Prepared, PlanError> {
    let recipe = reader::read(&options.recipe, &options.out, &options.run)?;
    let mut hashes = Hashes::default();
    let mut new_lock = None;
    if options.lock {
        let path = lock::beside(&options.recipe);
        let found = Lock::of(&recipe, &mut hashes)?;
        if options.update_lock || !found.compare(&path)? {
            new_lock = Some((found, path));
        }
    }
    Ok(Prepared { recipe, hashes, new_lock })
}

/// What a stage starts its random choices from.
pub(super) fn seed(unit: &Unit, default: u64) -> u64 {
    let own = unit.choices.iter().find(|choice| choice.flag == "seed");
    match own.map(|choice| &choice.value) {
        Some(Chosen::Text(text)) => text.parse().unwrap_or(default),
        _ => default,
    }
}

/// Result of `slmc run --plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The recipe's name.
    pub recipe: String,
    /// In the order in which they run.
    pub stages: Vec<PlannedStage>,
}

/// One stage of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStage {
    /// Name, with the target where the stage has several.
    pub stage: String,
    /// Its subcommand.
    pub kind: &'static str,
    /// The stages and models that it reads.
    pub inputs: Vec<String>,
    /// What it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Whether it is done already.
    pub cached: bool,
}

impl Report for PlanReport {
    const SCHEMA: &'static str = "slmc.plan/1";

    fn text(&self) -> String {
        let columns = ["stage", "kind", "input", "output", ""].map(|name| (name, Align::Left));
        let mut table = Table::new(columns);
        for stage in &self.stages {
            let output = stage.output.as_deref().map_or_else(|| "-".to_owned(), |output| output.display().to_string());
            let state = if stage.cached { "cached" } else { "to do" };
            table.row([stage.stage.as_str(), stage.kind, &stage.inputs.join(", "), &output, state]);
        }
        table.to_string()
    }
}

/// Plans; nothing is written.
pub fn plan(options: &Options) -> Result<PlanReport, PlanError> {
    let Prepared { recipe, mut hashes, .. } = prepare(options)?;
    let mut cached: Vec<bool> = Vec::new();
    let mut stages = Vec::new();
    for unit in &recipe.units {
        let ready = !options.force && unit.waits_for().all(|other| cached[other]);
        let done = ready && {
            let key = cache::key(unit, seed(unit, options.run.seed), &|source| recipe.path(source), &mut hashes)?;
            cache::look_up(&key, unit, &mut hashes).is_some()
        };
        cached.push(done);
        stages.push(PlannedStage {
            stage: unit.label(),
            kind: unit.kind.name(),
            inputs: inputs(unit, &recipe),
            output: unit.output.clone(),
            cached: done,
        });
    }
    Ok(PlanReport { recipe: recipe.name, stages })
}

/// The models that a unit reads, by the names the recipe has for them.
pub(super) fn inputs(unit: &Unit, recipe: &Recipe) -> Vec<String> {
    let mut names = Vec::new();
    for choice in &unit.choices {
        let Chosen::Reads { source, written } = &choice.value else { continue };
        let name = match source {
            Source::Model => "model".to_owned(),
            Source::Unit(unit) => recipe.units[*unit].label(),
            Source::Path(path) if is_model(path) => written.clone(),
            Source::Path(_) => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // `input` is read last.
    names.reverse();
    names
}

fn is_model(path: &Path) -> bool {
    crate::formats::is_model(path)
}
