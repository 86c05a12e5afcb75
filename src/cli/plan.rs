//! `slmc plan`

use super::cache::CacheArgs;
use super::global::Global;
use super::run::{of_mistakes, unpacked};
use crate::recipe::emit::{EmitOptions, Engine, emit};
use crate::recipe::reports::{self, Request};
use crate::recipe::{self, RunOptions, Setting};
use crate::report::Report;
use crate::shell::{ExitStatus, Shell};
use serde::Serialize;
use std::path::PathBuf;

/// Say what a run of a recipe would do, and compute nothing
///
/// Every stage of every cell: whether a cache has its result, else the first thing that is another than last time; bytes, memory,
/// time and disk that it will take (~ stands before estimates); what an artifact takes of its device, and whether it fits; which
/// variables of the environment a run reads. Every mistake in the recipe at once, with its line and what to write instead.
/// Exit code 1 if an artifact would not fit its target, 2 for mistakes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc plan recipes/llama.toml
  slmc plan recipes/llama.toml --set stages.small.scheme=w4
  slmc plan recipes/llama.toml --locked --report github")]
pub(super) struct Args {
    /// Recipe [default: the quickstart that is part of slmc]
    #[arg(value_name = "RECIPE", help_heading = RECIPE, display_order = 0)]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    set: SetArgs,

    /// Refuse anything that differs from the lock
    #[arg(long, requires = "recipe", conflicts_with = "set", help_heading = CACHE)]
    locked: bool,

    #[command(flatten)]
    cache: CacheArgs,

    /// Write the plan, or the mistakes, in another format too
    ///
    /// text=FILE and json=FILE: as on stdout. markdown=FILE: for the summary of a job. github: annotations for GitHub Actions on
    /// stdout, at the lines of the recipe; the job's summary and outputs where its environment names their files.
    #[arg(long, value_name = "KIND=FILE", value_parser = str::parse::<Request>, help_heading = RECIPE)]
    report: Vec<Request>,

    /// Print the plan as a workflow: github, gitlab, slurm, json, dot
    ///
    /// Every stage of every cell is a job `slmc run RECIPE --only STAGE` after those it reads; outputs travel through a cache that
    /// all jobs reach (docs/cache.md). json: the graph, for other engines. dot: the graph, for Graphviz.
    #[arg(long, value_name = "ENGINE", value_enum, hide_possible_values = true, conflicts_with = "report", requires = "recipe", help_heading = RECIPE)]
    emit: Option<Engine>,

    /// Directory for outputs
    ///
    /// Every recipe gets a directory of its name there.
    #[arg(short, long, value_name = "DIR", default_value = "out", help_heading = RECIPE)]
    out: PathBuf,
}

/// Result of `slmc plan --emit`.
#[derive(Debug, Serialize)]
struct Emitted {
    engine: Engine,
    /// The workflow.
    text: String,
}

impl Report for Emitted {
    const SCHEMA: &'static str = "slmc.emit/1";

    fn text(&self) -> String {
        self.text.trim_end().to_owned()
    }
}

/// Values over those of a recipe.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Recipe and output")]
pub(super) struct SetArgs {
    /// Set a key of the recipe: stages.small.budget=4MiB
    ///
    /// Repeatable. KEY is dotted as in TOML; VALUE is TOML, or text without quotes. A key that nothing reads is the same mistake as
    /// in the file; paths are relative to the working directory. Such a run writes no lock.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = str::parse::<Setting>, display_order = 1)]
    set: Vec<Setting>,
}

impl SetArgs {
    pub(super) fn settings(&self) -> Vec<Setting> {
        self.set.clone()
    }
}

/// Heading of the options for the recipe and its results.
const RECIPE: &str = "Recipe and output";
/// Heading of the options that say which stages run.
const CACHE: &str = "Plan, cache and lock";

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let outcome = self.outcome(global, shell);
        of_mistakes(outcome, &self.report, shell)
    }

    fn outcome(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        reports::check_plan(&self.report, global.json)?;
        // A plan leaves nothing behind, so the quickstart is read from a directory that goes away again.
        let passing = tempfile::tempdir()?;
        let options = RunOptions {
            recipe: unpacked(self.recipe.as_ref(), passing.path())?,
            out: self.out.clone(),
            lock: self.recipe.is_some(),
            locked: self.locked,
            settings: self.set.settings(),
            cache: self.cache.options(),
            run: global.run_settings(),
            ..RunOptions::default()
        };
        let Some(engine) = self.emit else { return show(&options, &self.report, shell) };
        let plan = recipe::plan(&options, shell)?;
        let settings = EmitOptions { settings: options.settings, locked: self.locked, out: self.out.clone() };
        shell.result(&Emitted { engine, text: emit(&plan, engine, &settings)? })?;
        Ok(if plan.fits { ExitStatus::Success } else { ExitStatus::Failure })
    }
}

/// Plans, and hands the plan out.
pub(super) fn show(options: &RunOptions, report: &[Request], shell: &Shell) -> anyhow::Result<ExitStatus> {
    let plan = recipe::plan(options, shell)?;
    let more = reports::write_plan(report, &plan)?;
    shell.result(&plan)?;
    let _ = shell.stream(more)?;
    Ok(if plan.fits { ExitStatus::Success } else { ExitStatus::Failure })
}
