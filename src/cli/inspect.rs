//! `slmc inspect`

use crate::artifact::inspect::inspect;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;

/// Show what is in an artifact: sizes, work, memory, tensors
///
/// Sizes and work per token by class, planned memory, every tensor.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc inspect out/mixed.slm
  slmc inspect out/mixed.slm --json")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&inspect(&self.artifact.artifact)?)?;
        Ok(ExitStatus::Success)
    }
}
