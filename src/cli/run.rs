//! `slmc run`

use super::cache::CacheArgs;
use super::global::Global;
use super::plan::{SetArgs, show};
use crate::recipe::reports::{self, Request};
use crate::recipe::{self, RecipeError, RunOptions, RunVerdict, embedded};
use crate::shell::{ExitStatus, Shell};
use anyhow::Context;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Run a recipe: from a checkpoint to measured artifacts
///
/// A recipe is a TOML file of stages, each a subcommand with its options; paths are relative to the file. Without
/// RECIPE the quickstart that is part of slmc runs: a teacher is distilled, pruned, quantized, compiled and measured
/// within minutes.
///
/// Every mistake in a recipe is reported before anything runs. Results of stages are kept in a cache, which machines can share,
/// and taken from there where nothing that decides them has changed; a run that was stopped goes on when the command is
/// repeated. RECIPE.lock names every input and result by hash: runs with other inputs are refused. Exit code 1 if a gate is
/// missed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc run
  slmc run recipes/llama.toml --plan
  slmc run recipes/llama.toml --locked --only small --cache https://cache/slmc
  slmc run recipes/llama.toml --json")]
pub(super) struct Args {
    /// Recipe [default: the quickstart that is part of slmc]
    #[arg(value_name = "RECIPE", help_heading = RECIPE, display_order = 0)]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    set: SetArgs,

    /// As `slmc plan`: show what would be done, and run nothing
    #[arg(long, help_heading = CACHE)]
    plan: bool,

    /// Run every stage again, whether it is done or not
    #[arg(long, conflicts_with = "plan", help_heading = CACHE)]
    force: bool,

    /// Run this stage only; what it reads comes from the cache
    ///
    /// Also the name of one of several targets, such as artifact.cortex-m55. An input that is in no cache is exit code 2.
    #[arg(long, value_name = "STAGE", conflicts_with = "plan", help_heading = CACHE)]
    only: Option<String>,

    /// Compute nothing: every result comes from the cache
    ///
    /// For the last job of several that share a cache: gates, sample and report. A result that is in no cache is exit code 2.
    #[arg(long, conflicts_with_all = ["plan", "force"], help_heading = CACHE)]
    cached_only: bool,

    /// Write the lock anew from the inputs as they are
    #[arg(long, requires = "recipe", conflicts_with = "plan", help_heading = CACHE)]
    update_lock: bool,

    /// Refuse anything that differs from the lock
    ///
    /// Inputs, recipe, keys of stages and their outputs; the lock is not written. For CI.
    #[arg(long, requires = "recipe", conflicts_with_all = ["update_lock", "set"], help_heading = CACHE)]
    locked: bool,

    /// Run at most N stages side by side [default: by cores and memory]
    ///
    /// Stages that do not wait for each other, as long as the memory they need together is there. The results are the same
    /// for any N. 1: one after the other.
    #[arg(short, long, value_name = "N", conflicts_with = "plan", help_heading = CACHE)]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    cache: CacheArgs,
    /// Write the result, or the mistakes, in another format too
    ///
    /// text=FILE and json=FILE: as on stdout. markdown=FILE: for the summary of a job. junit=FILE: JUnit XML, a test case
    /// for every stage and gate. html=FILE: one page with figures, without scripts. github: annotations for GitHub Actions
    /// on stdout, at the lines of the recipe; the job's summary and outputs where its environment names their files. May
    /// be given several times; a file that something else wrote is not replaced.
    #[arg(long, value_name = "KIND=FILE", value_parser = str::parse::<Request>, help_heading = RECIPE)]
    report: Vec<Request>,

    /// Directory for outputs
    ///
    /// Every recipe gets a directory of its name there.
    #[arg(short, long, value_name = "DIR", default_value = "out", help_heading = RECIPE)]
    out: PathBuf,
}

/// Heading of the options for the recipe and its results.
const RECIPE: &str = "Recipe and output";
/// Heading of the options that say which stages run.
const CACHE: &str = "Plan, cache and lock";

/// The recipe that is named, or the quickstart, written below a directory.
pub(super) fn unpacked(recipe: Option<&PathBuf>, place: &Path) -> Result<PathBuf, RecipeError> {
    recipe.cloned().map_or_else(|| embedded::unpack(place), Ok)
}

/// Says the mistakes in a recipe, which are a result as well, in the formats that are asked for.
pub(super) fn of_mistakes(
    outcome: anyhow::Result<ExitStatus>,
    report: &[Request],
    shell: &Shell,
) -> anyhow::Result<ExitStatus> {
    if let Err(error) = &outcome
        && let Some(RecipeError::Mistakes(mistakes)) = error.downcast_ref()
    {
        shell.error(error);
        if shell.options().json {
            shell.result(mistakes)?;
        }
        let _ = shell.stream(reports::of_mistakes(report, mistakes))?;
        return Ok(ExitStatus::Error);
    }
    outcome
}

impl Args {
    /// Mistakes are a result as well: an editor or a job wants them as JSON, or at their lines.
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        of_mistakes(self.outcome(global, shell), &self.report, shell)
    }

    fn outcome(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match self.plan {
            true => reports::check_plan(&self.report, global.json)?,
            false => reports::check(&self.report, global.json)?,
        }
        // A plan leaves nothing behind, so the quickstart is read from a directory that goes away again.
        let passing = if self.plan { Some(tempfile::tempdir().context("no temporary directory")?) } else { None };
        let place = passing.as_ref().map_or::<&Path, _>(&self.out, |directory| directory.path());
        let options = RunOptions {
            recipe: unpacked(self.recipe.as_ref(), place)?,
            out: self.out.clone(),
            force: self.force,
            lock: self.recipe.is_some(),
            update_lock: self.update_lock,
            locked: self.locked,
            only: self.only.clone(),
            cached_only: self.cached_only,
            settings: self.set.settings(),
            jobs: self.jobs,
            cache: self.cache.options(),
            run: global.run_settings(),
        };
        if self.plan {
            return show(&options, &self.report, shell);
        }
        let report = recipe::run(&options, shell)?;
        // Reports come first: where stdout is closed, they are still written.
        let more = reports::write(&self.report, &report)?;
        if self.report.contains(&Request::GitHub) {
            let _ = shell.stream(reports::fenced(&report))?;
        } else {
            shell.result(&report)?;
        }
        let _ = shell.stream(more)?;
        let missing: Vec<&str> = report.not_cached().collect();
        if !missing.is_empty() {
            anyhow::bail!("{}", missing.join("; "));
        }
        // What a condition leaves out is its author's wish, and not a failure.
        Ok(if report.verdict == RunVerdict::NotPassed { ExitStatus::Failure } else { ExitStatus::Success })
    }
}
