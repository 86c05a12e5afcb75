//! The stages as subcommands, by their table: `slmc train`, `slmc quantize` and so on.

use super::global::Global;
use crate::shell::{ExitStatus, Shell};
use crate::stages::known::Known;
use crate::stages::{self, AnyStage, Product, STAGES};
use clap::error::ErrorKind;
use clap::{ArgMatches, Command, Error, FromArgMatches, Subcommand};
use std::path::PathBuf;

/// A stage and its options.
#[derive(Debug)]
pub(super) struct StageCommand {
    stage: &'static dyn AnyStage,
    matches: ArgMatches,
}

impl StageCommand {
    /// A stage with what clap found of its options.
    pub(super) fn of(stage: &'static dyn AnyStage, matches: &ArgMatches) -> Self {
        StageCommand { stage, matches: matches.clone() }
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let resolved = self.stage.resolve(&self.matches, &global.run_settings(), &Known::OnDisk);
        let outcome = resolved.checked().map_err(stages::Faults::first)?.run(shell)?;
        shell.rendered(&outcome.json_with_cost(), &outcome.text_with_cost())?;
        Ok(if outcome.passed { ExitStatus::Success } else { ExitStatus::Failure })
    }
}

impl StageCommand {
    /// The models that it reads.
    pub(super) fn models(&self) -> Vec<PathBuf> {
        self.stage.models(&self.matches)
    }

    /// Whether it estimates the memory that it needs: every stage that makes a model does.
    pub(super) fn estimates_memory(&self) -> bool {
        !matches!(self.stage.makes(), Product::Nothing | Product::Data)
    }
}

impl FromArgMatches for StageCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (name, matches) = matches.subcommand().ok_or_else(|| Error::new(ErrorKind::MissingSubcommand))?;
        let stage = stages::named(name).ok_or_else(|| Error::new(ErrorKind::InvalidSubcommand))?;
        Ok(StageCommand { stage, matches: matches.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for StageCommand {
    fn augment_subcommands(command: Command) -> Command {
        let own = |stage: &'static dyn AnyStage| stage.augment(Command::new(stage.name()));
        STAGES.into_iter().fold(command, |command, stage| command.subcommand(own(stage)))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        stages::named(name).is_some()
    }
}
