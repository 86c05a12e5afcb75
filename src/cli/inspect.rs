//! `slmc inspect`

use crate::artifact::inspect::inspect;
use crate::shell::{ExitStatus, Shell};
use std::path::PathBuf;

/// Show what is in an artifact: sizes and work per token by class, planned memory, every tensor
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Artifact
    #[arg(value_name = "FILE.slm")]
    artifact: PathBuf,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&inspect(&self.artifact)?)?;
        Ok(ExitStatus::Success)
    }
}
