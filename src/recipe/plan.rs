//! The plan of a recipe's run: its stages in order, where the result of each would come from, why one is to run, and what it
//! will take.

use super::attest::Attest;
use super::cache::{self, Made};
use super::error::RecipeError;
use super::expand::LeftOut;
use super::forecast::Rates;
use super::hashes::{Content, Hashes};
use super::key::{self, Build};
use super::lock::{self, Lock};
use super::overrides::Setting;
use super::plan_report::{Estimate, LOCAL, LeftOutStage, PlanReport, PlannedKey, PlannedStage, Totals, Variable};
use super::reader::{self, Reading, Recipe};
use super::released::Artifacts;
use super::sign::Sign;
use super::stage::{Chosen, Input, RecipeStage};
use crate::compile::ARTIFACT_MAGIC;
use crate::disk::atomic;
use crate::formats::adapter;
use crate::machine::RELEASED;
use crate::progress::Progress;
use crate::stages::{Product, RunSettings};
use crate::store::configuration::{self, CacheOptions};
use crate::store::{Chain, Origin, digest_of};
use serde_json::Value;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

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
    /// Values over those of the recipe.
    pub settings: Vec<Setting>,
    /// Most stages that run side by side; by the machine if absent.
    pub jobs: Option<NonZeroUsize>,
    /// Where results are kept.
    pub cache: CacheOptions,
    /// Settings of every stage; a stage with a seed of its own starts from that.
    pub run: RunSettings,
}

/// A recipe, its lock, the hashes of its inputs, and the caches.
pub(super) struct Prepared {
    pub(super) recipe: Arc<Recipe>,
    pub(super) hashes: Hashes,
    pub(super) chain: Arc<Chain>,
    pub(super) lock: Option<Locking>,
    pub(super) build: Build,
    /// Artifacts that gates compare with, for as long as the run takes.
    _released: TempDir,
}

/// The lock of a run.
pub(super) struct Locking {
    pub(super) path: PathBuf,
    /// As it is on disk; `None` too where it is to be written anew.
    pub(super) stored: Option<Lock>,
    /// As it was on disk before the run, where it can be read.
    pub(super) before: Option<Lock>,
    /// As it will be.
    pub(super) lock: Lock,
}

/// Reads the recipe, compares its lock, opens the caches.
pub(super) fn prepare(options: &RunOptions, progress: &dyn Progress) -> Result<Prepared, RecipeError> {
    let chain = configuration::open(&options.cache)?;
    prepare_with(options, chain, progress)
}

/// Likewise with these caches.
pub(super) fn prepare_with(
    options: &RunOptions,
    chain: Chain,
    progress: &dyn Progress,
) -> Result<Prepared, RecipeError> {
    let released = tempfile::tempdir().map_err(|source| RecipeError::Temporary { source })?;
    let artifacts = Artifacts::new(&options.recipe, &chain, &released);
    let reading =
        Reading { out: &options.out, run: &options.run, settings: &options.settings, released: Some(&artifacts) };
    let recipe = reader::read(&options.recipe, &reading)?;
    adapter::check_base(on_disk(&recipe))?;
    let mut hashes = Hashes::remembered(chain.local());
    hashes.learn(recipe.reads().map(|(path, _)| path), progress)?;
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
    Ok(Prepared { recipe: Arc::new(recipe), hashes, chain: Arc::new(chain), lock, build, _released: released })
}

fn locking(options: &RunOptions, recipe: &Recipe, hashes: &mut Hashes) -> Result<Locking, RecipeError> {
    let path = lock::beside(&options.recipe);
    let mut found = Lock::of(recipe, &options.recipe, hashes)?;
    // What cannot be read is written anew too.
    let before = if options.update_lock { Lock::read(&path).ok().flatten() } else { Lock::read(&path)? };
    let stored = before.clone().filter(|_| !options.update_lock);
    // What a condition leaves out today is there on another day, with what it reads.
    if let Some(stored) = stored.as_ref().filter(|_| !recipe.left_out.is_empty()) {
        found.keep_inputs_of(stored);
    }
    let names: Vec<&str> = recipe
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .chain(recipe.left_out.iter().map(|other| other.name.as_str()))
        .collect();
    let labels: Vec<String> = recipe.stages.iter().map(RecipeStage::label).collect();
    let left_out = |label: &str| recipe.left_out.iter().any(|other| other.is_named(label));
    let has = |label: &str| labels.iter().any(|own| own == label) || left_out(label);
    let lock = match &stored {
        None if options.locked => return Err(RecipeError::Locked { path, fault: "is not there".to_owned() }),
        // What one stage alone does not compute stays.
        None => match before.as_ref().filter(|_| options.only.is_some()) {
            Some(before) => found.with_stages_of(before, &has),
            None => found,
        },
        Some(stored) => {
            found.check_recipe(stored, &names, &path)?;
            let has_results = (0..recipe.stages.len()).any(|stage| recipe.is_held(stage));
            match options.locked {
                true => found.check_locked(stored, &path, has_results)?,
                false => found.check_inputs(stored, &path)?,
            }
            found.with_stages_of(stored, &has)
        }
    };
    Ok(Locking { path, stored, before, lock })
}

impl Prepared {
    /// The key of a stage whose inputs are all known: what other stages made, and what is on disk.
    pub(super) fn key(&mut self, index: usize, made: &[Option<Made>], seed: u64) -> Result<Value, RecipeError> {
        let Prepared { recipe, hashes, build, .. } = self;
        let stage = &recipe.stages[index];
        let mut content = |input: &Input| -> Result<Content, RecipeError> {
            match input {
                Input::Stage(other) => Ok(made[*other].as_ref().map_or_else(Content::none, Made::content)),
                Input::File(other, file) => {
                    Ok(made[*other].as_ref().map_or_else(Content::none, |made| made.content().part(file)))
                }
                Input::Model(_) | Input::Path(_) => Ok(hashes.of(&recipe.path(input))?),
            }
        };
        let is_artifact = |input: &Input| match input {
            Input::Stage(other) => recipe.stages[*other].kind.makes() == Product::Artifact,
            Input::File(..) => false,
            Input::Model(_) | Input::Path(_) => {
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
        if !self.recipe.is_held(index) {
            return Ok(());
        }
        let output = made.map(|made| made.entry.output());
        let output = output.as_ref().map(Option::as_ref);
        stored.check_stage(path, &self.recipe.stages[index].label(), &digest_of(&key::released(key)), output)
    }
}

/// Seed of a stage.
fn seed_of(stage: &RecipeStage, default: u64) -> u64 {
    stage.text_of("seed").and_then(|seed| seed.parse().ok()).unwrap_or(default)
}

/// Plans. Nothing is written but remembered hashes, beside the cache of this machine.
///
/// # Errors
/// Mistakes in the recipe, another input than the lock names, and caches that cannot be used.
pub fn plan(options: &RunOptions, progress: &dyn Progress) -> Result<PlanReport, RecipeError> {
    let mut prepared = prepare(options, progress)?;
    let mut rates = Rates::noted(prepared.chain.local());
    let mut made: Vec<Option<Made>> = Vec::new();
    let mut report = PlanReport {
        recipe: prepared.recipe.name.clone(),
        file: options.recipe.clone(),
        cells: prepared.recipe.cells,
        stages: Vec::new(),
        left_out: prepared.recipe.left_out.iter().map(left_out).collect(),
        environment: environment(&prepared.recipe, &prepared.chain),
        keys: keys(&prepared.recipe).collect(),
        to_do: Totals::default(),
        fits: true,
    };
    for index in 0..prepared.recipe.stages.len() {
        made.push(None);
        let mut one = planned(&prepared.recipe, index, &mut rates);
        settle(&mut prepared, options, index, &mut made, &mut one, progress)?;
        if !one.cached {
            report.to_do.add(&one.estimate);
        }
        let device = one.estimate.predicted.device.as_ref();
        report.fits &= device.is_none_or(|device| device.does_not_fit.is_none());
        report.stages.push(one);
    }
    prepared.hashes.save();
    Ok(report)
}

/// A stage before it is known whether it has a result.
fn planned(recipe: &Recipe, index: usize, rates: &mut Rates) -> PlannedStage {
    let stage = &recipe.stages[index];
    let predicted = recipe.predictions.get(index).cloned().unwrap_or_default();
    let (seconds, seconds_by) = rates.seconds(stage.kind.name(), &predicted).unzip();
    let mut needs: Vec<usize> = stage.waits_for().collect();
    needs.sort_unstable();
    needs.dedup();
    PlannedStage {
        stage: stage.label(),
        name: stage.name.clone(),
        cell: stage.cell.pairs(),
        target: stage.target.clone(),
        kind: stage.kind.name(),
        inputs: inputs(stage, recipe),
        needs: needs.into_iter().map(|other| recipe.stages[other].label()).collect(),
        output: stage.output.clone(),
        cached: false,
        from: None,
        made_in: None,
        in_place: false,
        key: None,
        why: None,
        estimate: Estimate { predicted, seconds, seconds_by },
        place: (stage.place.source.file.clone(), stage.place.line()),
    }
}

/// Finds the result of a stage, or says why it is to run.
fn settle(
    prepared: &mut Prepared,
    options: &RunOptions,
    index: usize,
    made: &mut [Option<Made>],
    one: &mut PlannedStage,
    progress: &dyn Progress,
) -> Result<(), RecipeError> {
    let stage = prepared.recipe.stages[index].clone();
    if let Some(other) = stage.waits_for().find(|&other| made[other].is_none()) {
        one.why = Some(format!("after `{}`", prepared.recipe.stages[other].label()));
        return Ok(());
    }
    let (key, outputs) = (prepared.key(index, made, options.run.seed)?, cache::outputs(&stage));
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
            one.made_in = Some(cache::cost(&found.entry));
            made[index] = Some(Made { entry: found.entry, origin: Some(found.origin) });
        }
        None if options.force => one.why = Some("--force".to_owned()),
        None => one.why = Some(cache::why(&prepared.chain, &options.recipe, &one.stage, &key)),
    }
    Ok(())
}

pub(super) fn left_out(stage: &LeftOut) -> LeftOutStage {
    LeftOutStage { stage: stage.label(), why: stage.why.clone() }
}

/// What a run reads from the environment: variables that the recipe names, and credentials and keys of its caches.
fn environment(recipe: &Recipe, chain: &Chain) -> Vec<Variable> {
    let of_recipe = recipe.variables.iter().map(|(name, set)| Variable {
        name: name.clone(),
        set: *set,
        secret: false,
        what_for: "named by the recipe".to_owned(),
    });
    let of_caches = chain.variables().into_iter().map(|(name, what_for)| Variable {
        name: name.to_owned(),
        set: std::env::var_os(name).is_some_and(|value| !value.is_empty()),
        secret: true,
        what_for,
    });
    let of_keys = keys(recipe).filter_map(|key| {
        let PlannedKey { variable, there, what_for, .. } = key;
        Some(Variable { name: variable?, set: there, secret: true, what_for })
    });
    of_recipe.chain(of_keys).chain(of_caches).collect()
}

/// Secret keys that a run reads.
fn keys(recipe: &Recipe) -> impl Iterator<Item = PlannedKey> + '_ {
    recipe.sign.iter().flat_map(Sign::needs).chain(recipe.attest.iter().map(Attest::needs))
}

/// The models that a stage reads, by the names the recipe has for them.
pub(super) fn inputs(stage: &RecipeStage, recipe: &Recipe) -> Vec<String> {
    let mut names = Vec::new();
    for choice in &stage.choices {
        let Chosen::Reads { source, written } = &choice.value else { continue };
        let name = match source {
            Input::Model(model) => recipe.models[*model].label(),
            Input::Stage(stage) => recipe.stages[*stage].label(),
            Input::Path(path) if is_model(path) => written.clone(),
            Input::Path(_) | Input::File(..) => continue,
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
        Chosen::Reads { source: source @ (Input::Model(_) | Input::Path(_)), .. } => Some(recipe.path(source)),
        _ => None,
    });
    paths.collect()
}

fn is_model(path: &Path) -> bool {
    crate::formats::is_model(path)
}
