//! `slmc verify`

use crate::artifact::verify::verify;
use crate::shell::{ExitStatus, Shell};
use std::path::PathBuf;

/// Check an artifact: every digest, and the golden prompts' logits on this machine
///
/// Any changed byte, a file cut short, or logits that differ from the build machine's are exit code 2.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Artifact
    #[arg(value_name = "FILE.slm")]
    artifact: PathBuf,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&verify(&self.artifact)?)?;
        Ok(ExitStatus::Success)
    }
}
