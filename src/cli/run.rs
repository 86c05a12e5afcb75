//! `slmc run`

use super::global::Global;
use crate::recipe::{self, Options, embedded};
use crate::shell::{ExitStatus, Shell};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Run a recipe: from a checkpoint to artifacts, measured and held to gates
///
/// A recipe is a TOML file of stages, each a subcommand with its options; paths are relative to the file. Without RECIPE
/// the quickstart that is part of slmc runs: a teacher is distilled, pruned, quantized, compiled and measured within
/// minutes. Every mistake in a recipe is reported before anything runs. Stages whose inputs have not changed are taken
/// from .slmc/cache; a run that was stopped goes on when the command is repeated. RECIPE.lock names every input by hash:
/// it is written by the first run, and later runs with other inputs are refused. Exit code 1 if a gate is missed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slmc run\n  slmc run recipes/llama.toml --plan\n  slmc run recipes/llama.toml --json"
)]
pub(super) struct Args {
    /// Recipe [default: the quickstart that is part of slmc]
    #[arg(value_name = "RECIPE")]
    recipe: Option<PathBuf>,

    /// Show the stages and which are done already, and run nothing
    #[arg(long)]
    plan: bool,

    /// Run every stage again
    #[arg(long, conflicts_with = "plan")]
    force: bool,

    /// Write the lock anew from the inputs as they are
    #[arg(long, requires = "recipe", conflicts_with = "plan")]
    update_lock: bool,

    /// Directory below which outputs go, each recipe's in its own
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        // A plan leaves nothing behind, so the quickstart is read from a directory that goes away again.
        let passing = if self.plan { Some(tempfile::tempdir().context("no temporary directory")?) } else { None };
        let recipe = match &self.recipe {
            Some(recipe) => recipe.clone(),
            None => embedded::unpack(passing.as_ref().map_or::<&Path, _>(&self.out, |directory| directory.path()))?,
        };
        let options = Options {
            recipe,
            out: self.out.clone(),
            force: self.force,
            lock: self.recipe.is_some(),
            update_lock: self.update_lock,
            run: global.run_settings(),
        };
        if self.plan {
            shell.result(&recipe::plan(&options)?)?;
            return Ok(ExitStatus::Success);
        }
        let report = recipe::run(&options, shell)?;
        shell.result(&report)?;
        Ok(if report.passed { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
