//! One stage of a run: its result from a cache, or the work that is to be done and what comes of it; its output in place.

use super::work::{Computed, Work};
use super::{Run, Settled};
use crate::recipe::cache::{self, Made};
use crate::recipe::error::RecipeError;
use crate::recipe::key;
use crate::recipe::lock::LockedStage;
use crate::recipe::plan_report::duration;
use crate::recipe::run_report::{StageResult, Status};
use crate::recipe::stage::{Chosen, Input, RecipeStage, chain};
use crate::store::{Found, Origin, StoreError, digest_of};
use serde_json::Value;
use std::collections::BTreeSet;

impl Run<'_> {
    /// The state of a stage, those before it being settled.
    pub(super) fn settle(&mut self, index: usize) -> Result<Settled, RecipeError> {
        let stage = self.stage(index).clone();
        let result = StageResult {
            stage: stage.label(),
            kind: stage.kind.name(),
            cell: stage.cell.pairs(),
            status: Status::NotRun,
            cost: None,
            made_in: None,
            why: None,
            output: stage.output.clone(),
            sha256: None,
            report: None,
            place: (stage.place.source.file.clone(), stage.place.line()),
        };
        if !self.needed(index) {
            return Ok(Settled::Known(StageResult { output: None, ..result }));
        }
        let number = self.number(index);
        if stage.waits_for().any(|other| self.made[other].is_none()) {
            self.shell.status("Leaving out", &number);
            return Ok(Settled::Known(StageResult { output: None, ..result }));
        }
        let key = self.prepared.key(index, &self.made, self.options.run.seed)?;
        self.prepared.check_locked(self.options, index, &key, None)?;
        let may_compute = self.chosen.contains(&index) && !self.options.cached_only;
        if !(self.options.force && may_compute) {
            let (chain, outputs) = (&self.prepared.chain, cache::outputs(&stage));
            if let Some(found) = chain.find(&digest_of(&key), &outputs, self.shell) {
                return Ok(Settled::Known(self.cached(index, &key, found, result)?));
            }
        }
        if !may_compute {
            let why = cache::why(&self.prepared.chain, &self.options.recipe, &stage.label(), &key);
            let missing = self.not_cached(stage.label(), why);
            return if self.options.cached_only {
                Ok(Settled::Known(self.absent(index, result, missing)))
            } else {
                Err(missing)
            };
        }
        Ok(Settled::ToDo(key, result))
    }

    /// A stage that nothing computes and that no cache has: others are reported all the same. What does not fit is never kept,
    /// so that is known by the prediction, which has the device's bytes exactly.
    fn absent(&self, index: usize, result: StageResult, missing: RecipeError) -> StageResult {
        let predicted = self.prepared.recipe.predictions.get(index).and_then(|own| own.device.as_ref());
        let (status, why) = match predicted.and_then(|device| device.does_not_fit.clone()) {
            Some(why) => (Status::DoesNotFit, why),
            None => (Status::NotCached, missing.to_string()),
        };
        self.shell.status("Missing", format_args!("{}: {why}", self.number(index)));
        StageResult { status, why: Some(why), output: None, ..result }
    }

    /// A result that must come from a cache and does not.
    fn not_cached(&self, stage: String, why: String) -> RecipeError {
        let settings = self.options.settings.iter().map(|setting| format!(" --set '{setting}'")).collect();
        RecipeError::NotCached { stage, why, recipe: self.options.recipe.clone(), settings }
    }

    /// The result of a stage from a cache.
    fn cached(
        &mut self,
        index: usize,
        key: &Value,
        found: Found,
        result: StageResult,
    ) -> Result<StageResult, RecipeError> {
        let made_in = cache::cost(&found.entry);
        self.shell.status("Cached", format_args!("{}, made in {}", self.number(index), duration(made_in.seconds)));
        let Found { entry, origin } = found;
        let made = Made { entry, origin: Some(origin) };
        let result = StageResult { status: Status::Cached, made_in: Some(made_in), ..result };
        self.finished(index, key, made, result)
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
        let is_held = self.prepared.recipe.is_held(index);
        if let Some(locking) = self.prepared.lock.as_mut().filter(|_| is_held) {
            let key = digest_of(&key::released(key));
            let changed =
                locking.before.as_ref().and_then(|lock| lock.changed_output(&result.stage, &key, output.as_ref()));
            if let Some(changed) = changed {
                self.shell.warn(format_args!("{}: {changed}", locking.path.display()));
            }
            locking.lock.record(&result.stage, LockedStage::of(&key, output.as_ref()));
        }
        let report = Some(made.entry.about.report.clone());
        self.made[index] = Some(made);
        Ok(StageResult { sha256: output.map(|output| output.to_string()), report, ..result })
    }

    /// The work of a stage, what it reads being put in place; `damaged` says that its entry was found and could not be.
    pub(super) fn work(
        &mut self,
        index: usize,
        key: Value,
        result: StageResult,
        damaged: bool,
    ) -> Result<Work, RecipeError> {
        for other in self.stage(index).waits_for().collect::<BTreeSet<_>>() {
            self.place(other)?;
        }
        let label = self.stage(index).label();
        Ok(Work {
            index,
            number: self.number(index),
            shell: if self.side_by_side { self.shell.of_part(&label) } else { self.shell.again() },
            recipe: self.prepared.recipe.clone(),
            chain: self.prepared.chain.clone(),
            run: self.options.run.clone(),
            force: self.options.force,
            key,
            result,
            damaged,
        })
    }

    /// Takes over what the work of a stage gave; `alone` says that no other ran beside it.
    pub(super) fn finish(&mut self, work: Work, computed: Computed, alone: bool) -> Result<StageResult, RecipeError> {
        let Work { index, key, result, shell, .. } = work;
        let stage = self.stage(index).clone();
        let label = stage.label();
        let (mut outcome, report) = match computed {
            Computed::Found(found) => return self.cached(index, &key, *found, result),
            Computed::Ran(outcome, report) => (outcome, report),
        };
        if alone {
            let predicted = self.prepared.recipe.predictions.get(index).cloned().unwrap_or_default();
            self.rates.learn(stage.kind.name(), &predicted, outcome.cost.seconds);
        } else {
            // The peak is that of the process, and others were in it.
            outcome.cost.peak_memory_bytes = None;
        }
        let result = StageResult { cost: Some(outcome.cost), ..result };
        if !outcome.passed {
            shell.warn(format_args!("stage `{label}` has no output\n{}", outcome.text));
            let why = Some(outcome.text.trim_end().to_owned()).filter(|why| !why.is_empty());
            return Ok(StageResult { status: Status::DoesNotFit, why, output: None, report: Some(report), ..result });
        }
        let outputs = cache::outputs(&stage);
        let entry = cache::entry(&key, &outcome, &report, &outputs)?;
        if self.inputs_stayed(&stage)? {
            match self.prepared.chain.keep(entry.clone(), &outputs, &shell) {
                Ok(None) => {}
                Ok(Some(other)) => cache::shout(&label, &other, &entry, &shell),
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
        self.finished(index, &key, Made { entry, origin: None }, StageResult { status: Status::Done, ..result })
    }

    /// Whether what a stage read from disk is still what its key says.
    fn inputs_stayed(&mut self, stage: &RecipeStage) -> Result<bool, RecipeError> {
        for choice in &stage.choices {
            if let Chosen::Reads { source: source @ (Input::Model(_) | Input::Path(_)), .. } = &choice.value {
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
    pub(super) fn place(&mut self, index: usize) -> Result<(), RecipeError> {
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
                    return Err(self.not_cached(stage.label(), chain(&error)));
                }
                self.shell.warn(format_args!("stage `{}` runs again: {}", stage.label(), chain(&error)));
                let Some(result) = self.results[index].clone() else { return Err(error.into()) };
                let result = StageResult { cost: None, made_in: None, sha256: None, report: None, ..result };
                self.made[index] = None;
                let work = self.work(index, key, result, true)?;
                let (computed, _held) = work.run();
                self.results[index] = Some(self.finish(work, computed?, true)?);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
