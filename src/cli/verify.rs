//! `slmc verify`

use crate::artifact::verify::verify;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;

/// Check an artifact: its digests, and its logits here
///
/// Every digest is computed again, and the golden prompts are run on this machine. Any changed byte, a file cut short,
/// or logits that differ from the build machine's are exit code 2.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  slmc verify out/mixed.slm")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&verify(&self.artifact.artifact)?)?;
        Ok(ExitStatus::Success)
    }
}
