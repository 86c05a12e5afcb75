//! `slmc explain`

use crate::recipe::explain;
use crate::shell::{ExitStatus, Shell};

/// Explain a mistake's code, a gate, or an option of a stage
///
/// Codes stand in every message about a recipe. Gates and options are named as in a recipe.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc explain S011
  slmc explain kld_max
  slmc explain quantize.scheme")]
pub(super) struct Args {
    /// Such as S011, kld_max or quantize.scheme
    #[arg(value_name = "TOPIC")]
    topic: String,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&explain(&self.topic)?)?;
        Ok(ExitStatus::Success)
    }
}
