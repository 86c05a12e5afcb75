//! The plan of a recipe's run: its stages in order, where the result of each would come from, and why one is to run.

use super::cache::{self, Made};
use super::error::RecipeError;
use super::hashes::{Content, Hashes};
use super::key::{self, Build, RELEASED};
use super::lock::{self, Lock};
use super::reader::{self, Recipe};
use super::stage::{Chosen, Input, RecipeStage};
use crate::compile::ARTIFACT_MAGIC;
use crate::disk::atomic;
use crate::formats::adapter;
use crate::progress::Progress;
use crate::report::{Align, Report, Table};
use crate::stages::{Product, RunSettings};
use crate::store::configuration::{self, CacheOptions};
use crate::store::{Chain, Origin, digest_of};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The recipe that `slmc run` runs, and how.
#[derive(Clone, Debug, Default)]
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
    /// Whether anything that is another than in the lock is refused.
    pub locked: bool,
    /// The one stage to run; what it reads comes from the caches.
    pub only: Option<String>,
    /// Whether nothing is computed.
    pub cached_only: bool,
    /// Where results are kept.
    pub cache: CacheOptions,
    /// Settings of every stage; a stage with a seed of its own starts from that.
    pub run: RunSettings,
}

/// A recipe, its lock, the hashes of its inputs, and the caches.
pub(super) struct Prepared {
    pub(super) recipe: Recipe,
    pub(super) hashes: Hashes,
    pub(super) chain: Chain,
    pub(super) lock: Option<Locking>,
    pub(super) build: Build,
}

/// The lock of a run.
pub(super) struct Locking {
    pub(super) path: PathBuf,
    /// As it is on disk.
    pub(super) stored: Option<Lock>,
    /// As it will be.
    pub(super) lock: Lock,
}

/// Reads the recipe, compares its lock, opens the caches.
pub(super) fn prepare(options: &RunOptions) -> Result<Prepared, RecipeError> {
    let chain = configuration::open(&options.cache)?;
    prepare_with(options, chain)
}

/// Likewise with these caches.
pub(super) fn prepare_with(options: &RunOptions, chain: Chain) -> Result<Prepared, RecipeError> {
    let recipe = reader::read(&options.recipe, &options.out, &options.run)?;
    adapter::check_base(on_disk(&recipe))?;
    let mut hashes = Hashes::remembered(chain.local());
    let lock = match options.lock {
        true => Some(locking(options, &recipe, &mut hashes)?),
        false => None,
    };
    let build = match RELEASED {
        true => None,
        false => {
            let program = std::env::current_exe().map_err(|source| RecipeError::Program { source })?;
            Some(hashes.file(&program)?)
        }
    };
    Ok(Prepared { recipe, hashes, chain, lock, build })
}

fn locking(options: &RunOptions, recipe: &Recipe, hashes: &mut Hashes) -> Result<Locking, RecipeError> {
    let path = lock::beside(&options.recipe);
    let found = Lock::of(recipe, &options.recipe, hashes)?;
    let stored = if options.update_lock { None } else { Lock::read(&path)? };
    let lock = match &stored {
        None if options.locked => return Err(RecipeError::Locked { path, fault: "is not there".to_owned() }),
        None => found,
        Some(stored) => {
            match options.locked {
                true => found.check_locked(stored, &path)?,
                false => found.check_inputs(stored, &path)?,
            }
            let labels: Vec<String> = recipe.stages.iter().map(RecipeStage::label).collect();
            found.with_stages_of(stored, &labels)
        }
    };
    Ok(Locking { path, stored, lock })
}

impl Prepared {
    /// The key of a stage whose inputs are all known: what other stages made, and what is on disk.
    pub(super) fn key(&mut self, index: usize, made: &[Option<Made>], seed: u64) -> Result<Value, RecipeError> {
        let Prepared { recipe, hashes, build, .. } = self;
        let stage = &recipe.stages[index];
        let mut content = |input: &Input| -> Result<Content, RecipeError> {
            match input {
                Input::Stage(other) => Ok(made[*other].as_ref().map_or_else(Content::none, Made::content)),
                Input::Model | Input::Path(_) => Ok(hashes.of(&recipe.path(input))?),
            }
        };
        let is_artifact = |input: &Input| match input {
            Input::Stage(other) => recipe.stages[*other].kind.makes() == Product::Artifact,
            Input::Model | Input::Path(_) => {
                let path = recipe.path(input);
                path.is_file() && atomic::check_file(&path, ARTIFACT_MAGIC).is_ok()
            }
        };
        key::key(stage, seed_of(stage, seed), *build, &mut content, &is_artifact)
    }

    /// With `--locked`: refuses a stage whose key is another than the lock's.
    pub(super) fn check_locked(
        &self,
        options: &RunOptions,
        index: usize,
        key: &Value,
        made: Option<&Made>,
    ) -> Result<(), RecipeError> {
        let Some(Locking { path, stored: Some(stored), .. }) = self.lock.as_ref().filter(|_| options.locked) else {
            return Ok(());
        };
        let output = made.map(|made| made.entry.output());
        let output = output.as_ref().map(Option::as_ref);
        stored.check_stage(path, &self.recipe.stages[index].label(), &digest_of(&key::released(key)), output)
    }
}

/// Seed of a stage.
fn seed_of(stage: &RecipeStage, default: u64) -> u64 {
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
    /// Whether its result is known.
    pub cached: bool,
    /// Which cache has it: `local`, or a name without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether the output is in its place already.
    pub in_place: bool,
    /// Digest of everything that decides the result; absent while it waits for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl PlannedStage {
    fn state(&self) -> String {
        match (self.cached, self.from.as_deref(), self.why.as_deref()) {
            (true, Some(LOCAL) | None, _) => "cached".to_owned(),
            (true, Some(from), _) => format!("cached in {from}"),
            (false, _, Some(why)) if why != cache::NEVER_RUN => format!("to do: {why}"),
            (false, ..) => "to do".to_owned(),
        }
    }
}

/// The name of this machine's cache in reports.
const LOCAL: &str = "local";

impl Report for PlanReport {
    const SCHEMA: &'static str = "slmc.plan/2";

    fn text(&self) -> String {
        let columns = ["stage", "kind", "input", "output", ""].map(|name| (name, Align::Left));
        let mut table = Table::new(columns);
        for stage in &self.stages {
            let output = stage.output.as_deref().map_or_else(|| "-".to_owned(), |output| output.display().to_string());
            table.row([stage.stage.as_str(), stage.kind, &stage.inputs.join(", "), &output, &stage.state()]);
        }
        table.to_string()
    }
}

/// Plans. Nothing is written but remembered hashes, beside the cache of this machine.
pub fn plan(options: &RunOptions, progress: &dyn Progress) -> Result<PlanReport, RecipeError> {
    let mut prepared = prepare(options)?;
    let mut made: Vec<Option<Made>> = Vec::new();
    let mut planned = Vec::new();
    for index in 0..prepared.recipe.stages.len() {
        let stage = prepared.recipe.stages[index].clone();
        let (label, outputs) = (stage.label(), cache::outputs(&stage));
        let mut one = PlannedStage {
            stage: label.clone(),
            kind: stage.kind.name(),
            inputs: inputs(&stage, &prepared.recipe),
            output: stage.output.clone(),
            cached: false,
            from: None,
            in_place: false,
            key: None,
            why: None,
        };
        made.push(None);
        if let Some(other) = stage.waits_for().find(|&other| made[other].is_none()) {
            one.why = Some(format!("after `{}`", prepared.recipe.stages[other].label()));
            planned.push(one);
            continue;
        }
        let key = prepared.key(index, &made, options.run.seed)?;
        prepared.check_locked(options, index, &key, None)?;
        one.key = Some(digest_of(&key).to_string());
        let found = if options.force { None } else { prepared.chain.find(&digest_of(&key), &outputs, progress) };
        match found {
            Some(found) => {
                one.cached = true;
                one.in_place = cache::in_place(&found.entry, &outputs, &mut prepared.hashes);
                one.from = Some(match &found.origin {
                    Origin::Local => LOCAL.to_owned(),
                    Origin::Remote(name) => name.clone(),
                });
                made[index] = Some(Made { entry: found.entry, origin: Some(found.origin) });
            }
            None if options.force => one.why = Some("--force".to_owned()),
            None => one.why = Some(cache::why(&prepared.chain, &options.recipe, &label, &key)),
        }
        planned.push(one);
    }
    prepared.hashes.save();
    Ok(PlanReport { recipe: prepared.recipe.name, stages: planned })
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

/// What the stages of a recipe read that no stage makes.
fn on_disk(recipe: &Recipe) -> BTreeSet<PathBuf> {
    let choices = recipe.stages.iter().flat_map(|stage| &stage.choices);
    let paths = choices.filter_map(|choice| match &choice.value {
        Chosen::Reads { source: source @ (Input::Model | Input::Path(_)), .. } => Some(recipe.path(source)),
        _ => None,
    });
    paths.collect()
}

fn is_model(path: &Path) -> bool {
    crate::formats::is_model(path)
}
