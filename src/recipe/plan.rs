//! The plan of a recipe's run: its stages in order, and which of them are done already.

use super::cache::{self, Hashes};
use super::error::RecipeError;
use super::lock::{self, Lock};
use super::reader::{self, Recipe};
use super::stage::{Chosen, Input, RecipeStage};
use crate::report::{Align, Report, Table};
use crate::stages::RunSettings;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The recipe that `slmc run` runs, and how.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The recipe.
    pub recipe: PathBuf,
    /// Directory below which outputs go.
    pub out: PathBuf,
    /// Whether stages that are done run again.
    pub force: bool,
    /// Whether a lock is kept beside the recipe.
    pub lock: bool,
    /// Whether it is written anew.
    pub update_lock: bool,
    /// Settings of every stage; a stage with a seed of its own starts from that.
    pub run: RunSettings,
}

/// A recipe, its lock and the hashes of its inputs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) recipe: Recipe,
    pub(super) hashes: Hashes,
    /// The lock to be written, and where.
    pub(super) new_lock: Option<(Lock, PathBuf)>,
}

/// Reads the recipe and compares its lock.
pub(super) fn prepare(options: &RunOptions) -> Result<Prepared, RecipeError> {
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

/// Seed of a stage.
pub(super) fn seed(stage: &RecipeStage, default: u64) -> u64 {
    let own = stage.choices.iter().find(|choice| choice.flag == "seed");
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
    /// Path of its output.
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
pub fn plan(options: &RunOptions) -> Result<PlanReport, RecipeError> {
    let Prepared { recipe, mut hashes, .. } = prepare(options)?;
    let mut cached: Vec<bool> = Vec::new();
    let mut planned = Vec::new();
    for stage in &recipe.stages {
        let ready = !options.force && stage.waits_for().all(|other| cached[other]);
        let done = ready && {
            let key = cache::key(stage, seed(stage, options.run.seed), &|source| recipe.path(source), &mut hashes)?;
            cache::look_up(&key, stage, &mut hashes).is_some()
        };
        cached.push(done);
        planned.push(PlannedStage {
            stage: stage.label(),
            kind: stage.kind.name(),
            inputs: inputs(stage, &recipe),
            output: stage.output.clone(),
            cached: done,
        });
    }
    Ok(PlanReport { recipe: recipe.name, stages: planned })
}

/// The models that a stage reads, by the names the recipe has for them.
pub(super) fn inputs(stage: &RecipeStage, recipe: &Recipe) -> Vec<String> {
    let mut names = Vec::new();
    for choice in &stage.choices {
        let Chosen::Reads { source, written } = &choice.value else { continue };
        let name = match source {
            Input::Model => "model".to_owned(),
            Input::Stage(stage) => recipe.stages[*stage].label(),
            Input::Path(path) if is_model(path) => written.clone(),
            Input::Path(_) => continue,
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
