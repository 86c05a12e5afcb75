//! The work of one stage, on whichever thread: waiting for another run that computes the same, then the stage itself.

use crate::progress::Silent;
use crate::recipe::cache;
use crate::recipe::error::RecipeError;
use crate::recipe::reader::Recipe;
use crate::recipe::run_report::StageResult;
use crate::recipe::stage::{RecipeStage, chain};
use crate::shell::Shell;
use crate::stages::{Outcome, Resumes, RunSettings};
use crate::store::{Chain, Found, KeyLock, digest_of};
use crate::train::checkpoint;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What a stage needs, what it reads being in place.
pub(super) struct Work {
    pub(super) index: usize,
    /// For people.
    pub(super) number: String,
    pub(super) shell: Shell,
    pub(super) recipe: Arc<Recipe>,
    pub(super) chain: Arc<Chain>,
    pub(super) run: RunSettings,
    pub(super) force: bool,
    pub(super) key: Value,
    /// As far as it is known before.
    pub(super) result: StageResult,
    /// Whether an entry was found that cannot be used.
    pub(super) damaged: bool,
}

/// What came of it.
pub(super) enum Computed {
    /// Another run has made it meanwhile.
    Found(Box<Found>),
    /// How it ended, with its report.
    Ran(Outcome, Value),
}

impl Work {
    /// Does it. The lock is to be held until the result is kept.
    pub(super) fn run(&self) -> (Result<Computed, RecipeError>, Option<KeyLock>) {
        let Work { shell, number, .. } = self;
        let mut waited = false;
        let waiting = |since: Duration| {
            waited = true;
            match since.as_secs() {
                0 => shell.status("Waiting", format_args!("{number}: another run computes it")),
                seconds => {
                    shell.status("Waiting", format_args!("{number}: another run computes it ({seconds} s so far)"))
                }
            }
        };
        // Without a lock two runs may both compute: the results are the same.
        let held = self.chain.lock(&digest_of(&self.key), waiting);
        let held = held.map_err(|error| shell.warn(chain(&error))).ok().flatten();
        (self.computed(waited), held)
    }

    fn computed(&self, waited: bool) -> Result<Computed, RecipeError> {
        let Work { shell, number, recipe, .. } = self;
        let stage = &recipe.stages[self.index];
        // Another run may have finished it since it was looked for, whether this one had to wait or not. What is wrong with an
        // entry was said then.
        if (waited || !self.force)
            && !self.damaged
            && let Some(found) = self.chain.find_here(&digest_of(&self.key), &cache::outputs(stage), &Silent)
        {
            return Ok(Computed::Found(Box::new(found)));
        }
        shell.status("Stage", number);
        leftovers(stage, self.force, shell)?;
        let failed = |source: anyhow::Error| RecipeError::Stage {
            stage: stage.label(),
            kind: stage.kind.name(),
            source: source.into(),
        };
        let outcome = stage.run(&self.run, &|source| recipe.path(source), shell).map_err(failed)?;
        let report: Value = serde_json::from_str(&outcome.json).map_err(|error| failed(error.into()))?;
        Ok(Computed::Ran(outcome, report))
    }
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
