//! `slmc tokenizer`

use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{DATA, OutArg};
use crate::text::tokenizer_training::train;
use std::path::PathBuf;

/// Make a tokenizer for a model that is trained from nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  slmc tokenizer train --vocab 4096 --data tales.txt -o tok")]
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
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let Command::Train { vocab, data, out } = &self.command;
        shell.result(&train(data, *vocab, &out.out)?)?;
        Ok(ExitStatus::Success)
    }
}
