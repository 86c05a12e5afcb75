//! `slmc tokenizer`

use super::global::Global;
use super::stage::StageCommand;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{DATA, OutArg};
use crate::stages::{AnyStage, trim};
use crate::text::tokenizer_training::train;
use clap::{ArgMatches, FromArgMatches};
use std::path::PathBuf;

/// Make a tokenizer for a model that is trained from nothing, or cut a model's to a domain
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc tokenizer train --vocab 4096 --data tales.txt -o tok
  slmc tokenizer trim models/smollm2 --data tales.txt -o out/small")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train a byte-level BPE tokenizer on text and write a directory with tokenizer.json
    Train {
        /// Tokens, the 256 bytes and <s>, </s>, <pad> among them
        #[arg(long, value_name = "N", help_heading = DATA)]
        vocab: usize,

        /// Text files
        #[arg(long, value_name = "FILE", num_args = 1.., required = true, help_heading = DATA)]
        data: Vec<PathBuf>,

        #[command(flatten)]
        out: OutArg,
    },
    Trim(TrimArgs),
}

/// The stage `trim`, whose options and help are its own.
#[derive(Debug)]
struct TrimArgs(StageCommand);

impl clap::Args for TrimArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        trim::Trim.augment(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TrimArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(TrimArgs(StageCommand::of(&trim::Trim, matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    /// The stage that it is another name of.
    pub(super) fn stage(&self) -> Option<&StageCommand> {
        match &self.command {
            Command::Trim(TrimArgs(stage)) => Some(stage),
            Command::Train { .. } => None,
        }
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match &self.command {
            Command::Trim(TrimArgs(stage)) => stage.run(global, shell),
            Command::Train { vocab, data, out } => {
                shell.result(&train(data, *vocab, &out.out)?)?;
                Ok(ExitStatus::Success)
            }
        }
    }
}
