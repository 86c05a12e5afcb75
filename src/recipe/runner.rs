//! Runs a recipe: stage after stage, those whose results are known taken from the caches, then the gates and the sample. A
//! run that was killed goes on when it is repeated: finished stages are in the cache, training goes on from its checkpoint.
//!
//! The result of a stage that is known need not be on disk: it is put in place when a stage that runs reads it, and at the end
//! where this machine has it, or where it is what the recipe is for. Two runs at once compute a key once: the second waits.

use super::cache::{self, Made};
use super::error::RecipeError;
use super::hashes::Hashes;
use super::key;
use super::lock::LockedStage;
use super::plan::{self, Prepared, RunOptions};
use super::reader::{Recipe, Sample};
use super::run_report::{InputDigest, RunReport, SampleResult, StageResult, Status};
use super::stage::{Chosen, Input, RecipeStage, chain};
use crate::disk::schema::nearest;
use crate::eval::EvalError;
use crate::eval::generate::{GenerateOptions, Prompt, generate};
use crate::eval::opened::OpenedModel;
use crate::formats;
use crate::progress::Silent;
use crate::shell::Shell;
use crate::stages::{Product, Resumes};
use crate::store::{Found, Origin, StoreError, digest_of};
use crate::train::checkpoint;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Runs it.
pub fn run(options: &RunOptions, shell: &Shell) -> Result<RunReport, RecipeError> {
    run_prepared(options, plan::prepare(options)?, shell)
}

/// Likewise, what a plan reads being read.
pub(super) fn run_prepared(options: &RunOptions, prepared: Prepared, shell: &Shell) -> Result<RunReport, RecipeError> {
    let chosen = chosen(options, &prepared.recipe)?;
    let count = prepared.recipe.stages.len();
    let mut run = Run { options, shell, prepared, chosen, made: vec![None; count], results: Vec::new() };
    run.begin()?;
    let settled = run.stages();
    // What is finished is written down, whatever stopped the run.
    let written = run.write_lock();
    run.prepared.hashes.save();
    settled?;
    written?;
    run.report()
}

/// The stages that are to have a result: all, or those that `--only` names.
fn chosen(options: &RunOptions, recipe: &Recipe) -> Result<BTreeSet<usize>, RecipeError> {
    let Some(name) = &options.only else { return Ok((0..recipe.stages.len()).collect()) };
    let named = |stage: &RecipeStage| stage.name == *name || stage.label() == *name;
    let chosen: BTreeSet<usize> = (0..recipe.stages.len()).filter(|&stage| named(&recipe.stages[stage])).collect();
    if chosen.is_empty() {
        let labels: Vec<String> = recipe.stages.iter().map(RecipeStage::label).collect();
        let hint = match nearest(name, labels.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("stages: {}", labels.join(", ")),
        };
        return Err(RecipeError::UnknownStage { name: name.clone(), hint });
    }
    Ok(chosen)
}

/// A run under way.
struct Run<'r> {
    options: &'r RunOptions,
    shell: &'r Shell,
    prepared: Prepared,
    /// Stages that are to have a result.
    chosen: BTreeSet<usize>,
    /// Results so far.
    made: Vec<Option<Made>>,
    /// Likewise for people, of every stage so far.
    results: Vec<StageResult>,
}

impl Run<'_> {
    fn stage(&self, index: usize) -> &RecipeStage {
        &self.prepared.recipe.stages[index]
    }

    /// What is to be known before the first stage: outputs must have a place, and results should be kept.
    fn begin(&mut self) -> Result<(), RecipeError> {
        let shell = self.shell;
        if let Some(locking) = self.prepared.lock.as_mut().filter(|locking| locking.stored.is_none()) {
            locking.lock.write(&locking.path)?;
            shell.status("Locked", locking.path.display());
            locking.stored = Some(locking.lock.clone());
        }
        let out = self.prepared.recipe.out.clone();
        let writable = |out: &Path| std::fs::create_dir_all(out).and_then(|()| tempfile::tempfile_in(out).map(drop));
        writable(&out).map_err(|source| RecipeError::OutDirectory { path: out, source })?;
        match self.prepared.chain.local().map(|local| local.check_writable()) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let error = chain(&error);
                shell.warn(format_args!("{error}; the outputs are written, and the next run computes them again"));
                self.prepared.chain.without_local();
            }
            None if self.prepared.chain.is_disabled() => {}
            None => shell.warn(
                "no directory for the cache: none of XDG_CACHE_HOME and HOME is set; the outputs are written, and the next run \
                 computes them again",
            ),
        }
        if let Some(key) = self.prepared.chain.signer().and_then(|signer| signer.readable_by_others()) {
            shell.warn(format_args!("{key}: others can read this secret key; chmod 600 it"));
        }
        if self.prepared.recipe.stages.iter().any(|stage| stage.kind.resumes() == Resumes::Always) {
            shell.note("a run that is stopped goes on where it was when the same command is repeated");
        }
        Ok(())
    }

    /// Settles every stage, and puts outputs in place.
    fn stages(&mut self) -> Result<(), RecipeError> {
        for index in 0..self.prepared.recipe.stages.len() {
            let result = self.settle(index)?;
            self.results.push(result);
        }
        for index in 0..self.prepared.recipe.stages.len() {
            if self.belongs_on_disk(index) {
                self.place(index)?;
            }
        }
        Ok(())
    }

    /// The stages that something chosen needs, itself included.
    fn needed(&self, index: usize) -> bool {
        self.chosen.contains(&index)
            || self.chosen.iter().any(|&chosen| {
                let mut open = vec![chosen];
                while let Some(stage) = open.pop() {
                    if stage == index {
                        return true;
                    }
                    open.extend(self.stage(stage).waits_for());
                }
                false
            })
    }

    /// Whether an output is to be in place when the run is over: what this machine has, and of what only others have the
    /// artifacts, what no other stage reads, and what would stand in an old output's place.
    fn belongs_on_disk(&self, index: usize) -> bool {
        let Some(made) = &self.made[index] else { return false };
        if self.options.only.is_some() && !self.chosen.contains(&index) {
            return false;
        }
        let stage = self.stage(index);
        let stages = &self.prepared.recipe.stages;
        !matches!(made.origin, Some(Origin::Remote(_)))
            || stage.kind.makes() == Product::Artifact
            || !stages.iter().any(|other| other.waits_for().any(|read| read == index))
            || stage.output.as_ref().is_some_and(|output| output.exists())
    }

    /// One stage, those before it being settled: its result from a cache, or from work.
    fn settle(&mut self, index: usize) -> Result<StageResult, RecipeError> {
        let stage = self.stage(index).clone();
        let result = StageResult {
            stage: stage.label(),
            kind: stage.kind.name(),
            status: Status::NotRun,
            cost: None,
            output: stage.output.clone(),
            sha256: None,
            report: None,
        };
        if !self.needed(index) {
            return Ok(StageResult { output: None, ..result });
        }
        let number = self.number(index);
        if stage.waits_for().any(|other| self.made[other].is_none()) {
            self.shell.status("Leaving out", &number);
            return Ok(StageResult { output: None, ..result });
        }
        let key = self.prepared.key(index, &self.made, self.options.run.seed)?;
        self.prepared.check_locked(self.options, index, &key, None)?;
        let may_compute = self.chosen.contains(&index) && !self.options.cached_only;
        if !(self.options.force && may_compute) {
            let (chain, outputs) = (&self.prepared.chain, cache::outputs(&stage));
            if let Some(Found { entry, origin }) = chain.find(&digest_of(&key), &outputs, self.shell) {
                self.shell.status("Cached", &number);
                let made = Made { entry, origin: Some(origin) };
                return self.finished(index, &key, made, StageResult { status: Status::Cached, ..result });
            }
        }
        if !may_compute {
            let recipe = self.options.recipe.clone();
            let why = cache::why(&self.prepared.chain, &recipe, &stage.label(), &key);
            return Err(RecipeError::NotCached { stage: stage.label(), why, recipe });
        }
        self.compute(index, &key, result, false)
    }

    fn number(&self, index: usize) -> String {
        let stage = self.stage(index);
        format!("{}/{} {} ({})", index + 1, self.prepared.recipe.stages.len(), stage.label(), stage.kind.name())
    }

    /// Notes the result of a stage.
    fn finished(
        &mut self,
        index: usize,
        key: &Value,
        made: Made,
        result: StageResult,
    ) -> Result<StageResult, RecipeError> {
        self.prepared.check_locked(self.options, index, key, Some(&made))?;
        cache::note_key(&self.prepared.chain, &self.options.recipe, &result.stage, key);
        let output = made.entry.output();
        if let Some(locking) = self.prepared.lock.as_mut() {
            locking.lock.record(&result.stage, LockedStage::of(&digest_of(&key::released(key)), output.as_ref()));
        }
        let report = Some(made.entry.about.report.clone());
        self.made[index] = Some(made);
        Ok(StageResult { sha256: output.map(|output| output.to_string()), report, ..result })
    }

    /// Runs a stage; `damaged` says that its entry was found and could not be put in place.
    fn compute(
        &mut self,
        index: usize,
        key: &Value,
        result: StageResult,
        damaged: bool,
    ) -> Result<StageResult, RecipeError> {
        let stage = self.stage(index).clone();
        let (shell, label, number) = (self.shell, stage.label(), self.number(index));
        let outputs = cache::outputs(&stage);
        for other in stage.waits_for().collect::<BTreeSet<_>>() {
            self.place(other)?;
        }
        let mut waited = false;
        let waiting = || {
            waited = true;
            shell.status("Waiting", format_args!("{number}: another run computes it"));
        };
        // Held until the result is kept. Without a lock two runs may both compute: the results are the same.
        let held = self.prepared.chain.lock(&digest_of(key), waiting);
        let _held = held.map_err(|error| shell.warn(chain(&error))).ok();
        // Another run may have finished it since it was looked for, whether this one had to wait or not. What is wrong with an
        // entry was said then.
        if (waited || !self.options.force)
            && !damaged
            && let Some(Found { entry, origin }) = self.prepared.chain.find_here(&digest_of(key), &outputs, &Silent)
        {
            shell.status("Cached", &number);
            let made = Made { entry, origin: Some(origin) };
            return self.finished(index, key, made, StageResult { status: Status::Cached, ..result });
        }
        shell.status("Stage", &number);
        leftovers(&stage, self.options.force, shell)?;
        let failed = |source: anyhow::Error| RecipeError::Stage {
            stage: label.clone(),
            kind: stage.kind.name(),
            source: source.into(),
        };
        let recipe = &self.prepared.recipe;
        let outcome = stage.run(&self.options.run, &|source| recipe.path(source), shell).map_err(failed)?;
        let result = StageResult { cost: Some(outcome.cost), ..result };
        let report: Value = serde_json::from_str(&outcome.json).map_err(|error| failed(error.into()))?;
        if !outcome.passed {
            shell.warn(format_args!("stage `{label}` has no output\n{}", outcome.text));
            return Ok(StageResult { status: Status::DoesNotFit, output: None, report: Some(report), ..result });
        }
        let entry = cache::entry(key, &outcome, &report, &outputs)?;
        if self.inputs_stayed(&stage)? {
            match self.prepared.chain.keep(entry.clone(), &outputs, shell) {
                Ok(None) => {}
                Ok(Some(other)) => cache::shout(&label, &other, &entry, shell),
                // The disk may have filled up: the output is there, and only the next run's time is lost.
                Err(error) => shell.warn(format_args!(
                    "stage `{label}` is finished and not remembered: {}; the next run computes it again",
                    chain(&error)
                )),
            }
        } else {
            shell.warn(format_args!(
                "an input of stage `{label}` was changed while the stage ran; its result is not kept, and the next run computes \
                 it again"
            ));
        }
        self.finished(index, key, Made { entry, origin: None }, StageResult { status: Status::Done, ..result })
    }

    /// Whether what a stage read from disk is still what its key says.
    fn inputs_stayed(&mut self, stage: &RecipeStage) -> Result<bool, RecipeError> {
        for choice in &stage.choices {
            if let Chosen::Reads { source: source @ (Input::Model | Input::Path(_)), .. } = &choice.value {
                let path = self.prepared.recipe.path(source);
                let before = self.prepared.hashes.of(&path)?;
                if self.prepared.hashes.again(&path)? != before {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Puts the output of a settled stage in place, where it is not.
    fn place(&mut self, index: usize) -> Result<(), RecipeError> {
        let Some(made) = self.made[index].clone() else { return Ok(()) };
        let stage = self.stage(index).clone();
        let outputs = cache::outputs(&stage);
        if cache::in_place(&made.entry, &outputs, &mut self.prepared.hashes) {
            return Ok(());
        }
        let Made { entry, origin } = made;
        let key = entry.about.key.clone();
        let found = Found { entry, origin: origin.unwrap_or(Origin::Local) };
        match self.prepared.chain.restore(&found, &outputs, self.shell) {
            Ok(()) => {
                self.shell.status("Restored", stage.label());
                Ok(())
            }
            // A blob that is gone or damaged: the result is made anew.
            Err(error @ (StoreError::Gone { .. } | StoreError::Damaged { .. })) => {
                if self.options.cached_only || !self.chosen.contains(&index) {
                    let (stage, recipe) = (stage.label(), self.options.recipe.clone());
                    return Err(RecipeError::NotCached { stage, why: chain(&error), recipe });
                }
                self.shell.warn(format_args!("stage `{}` runs again: {}", stage.label(), chain(&error)));
                let result = StageResult { cost: None, sha256: None, report: None, ..self.results[index].clone() };
                self.made[index] = None;
                self.results[index] = self.compute(index, &key, result, true)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what the stages gave into the lock, where it says something else.
    fn write_lock(&self) -> Result<(), RecipeError> {
        match &self.prepared.lock {
            Some(locking) if !self.options.locked && locking.stored.as_ref() != Some(&locking.lock) => {
                Ok(locking.lock.write(&locking.path)?)
            }
            _ => Ok(()),
        }
    }

    /// Gates and samples over the results.
    fn report(self) -> Result<RunReport, RecipeError> {
        let Run { options, shell, prepared: Prepared { recipe, mut hashes, .. }, chosen, results, .. } = self;
        let gates = super::gates::verdicts(&recipe, &results, &|stage| chosen.contains(&stage), shell);
        let samples = match &recipe.sample {
            Some(sample) if options.only.is_none() => samples(sample, &recipe, &results, options.run.seed)?,
            _ => Vec::new(),
        };
        let inputs = inputs(&recipe, &mut hashes)?;
        let stages: Vec<StageResult> = results
            .into_iter()
            .enumerate()
            .filter(|(index, _)| chosen.contains(index))
            .map(|(_, result)| result)
            .collect();
        let gave = |result: &StageResult| matches!(result.status, Status::Done | Status::Cached);
        let passed = stages.iter().all(gave) && gates.iter().all(|gate| gate.passed);
        let (file, tool) = (options.recipe.display().to_string(), crate::machine::tool());
        Ok(RunReport { recipe: recipe.name, file, tool, inputs, stages, gates, samples, passed })
    }
}

/// Everything that stages read and that none of them made, with hashes, by name.
fn inputs(recipe: &Recipe, hashes: &mut Hashes) -> Result<Vec<InputDigest>, RecipeError> {
    let mut inputs = Vec::new();
    if let Some((path, written)) = &recipe.model {
        inputs.push(InputDigest { path: written.clone(), sha256: hashes.of(path)?.sha256.to_string() });
    }
    for choice in recipe.stages.iter().flat_map(|stage| &stage.choices) {
        if let Chosen::Reads { source: Input::Path(path), written } = &choice.value {
            inputs.push(InputDigest { path: written.clone(), sha256: hashes.of(path)?.sha256.to_string() });
        }
    }
    inputs.sort();
    inputs.dedup();
    Ok(inputs)
}

/// The checkpoint of a run that was killed: gone with --force, else worth a word.
fn leftovers(stage: &RecipeStage, force: bool, shell: &Shell) -> Result<(), RecipeError> {
    let resumes = stage.kind.resumes() != Resumes::Never;
    let Some(output) = stage.output.as_deref().filter(|_| resumes) else { return Ok(()) };
    let path = checkpoint::path_beside(output);
    if force {
        return checkpoint::forget(output)
            .map_err(|error| RecipeError::OutDirectory { path, source: std::io::Error::other(error) });
    }
    if path.exists() {
        shell.status("Resuming", format_args!("from {}", path.display()));
    }
    Ok(())
}

/// The prompt continued by the model and by the last artifact.
fn samples(
    sample: &Sample,
    recipe: &Recipe,
    results: &[StageResult],
    seed: u64,
) -> Result<Vec<SampleResult>, RecipeError> {
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    // A configuration alone says nothing.
    let has_weights = |path: &Path| formats::contents(path).weights;
    if let Some((path, _)) = recipe.model.as_ref().filter(|(path, _)| has_weights(path)) {
        all.push(("model".to_owned(), path.clone()));
    }
    let mut stages = recipe.stages.iter().zip(results);
    let artifact = stages.rfind(|(stage, _)| stage.kind.makes() == Product::Artifact);
    if let Some((result, path)) = artifact.and_then(|(_, result)| Some((result, result.output.as_ref()?))) {
        all.push((result.stage.clone(), path.clone()));
    }
    let mut texts = Vec::new();
    for (of, path) in all {
        match continued(sample, &path, recipe, seed) {
            Ok(text) => texts.push(SampleResult { of, text }),
            Err(source) => return Err(RecipeError::Sample { of, source }),
        }
    }
    Ok(texts)
}

fn continued(sample: &Sample, path: &Path, recipe: &Recipe, seed: u64) -> Result<String, EvalError> {
    let model = OpenedModel::open_stored(path, &sample.device)?;
    let tokenizer = match model.tokenizer() {
        Err(EvalError::NoTokenizer { .. }) => recipe.model.as_ref().map(|(path, _)| path.clone()),
        _ => None,
    };
    let options = GenerateOptions {
        prompt: Prompt::Text(sample.prompt.clone()),
        tokens: sample.tokens,
        sampling: Sampling::GREEDY,
        seed,
        tokenizer,
    };
    Ok(generate(&model, &options, &mut |_| ControlFlow::Continue(()))?.text)
}
