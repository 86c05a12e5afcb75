//! `slmc diff`

use crate::diff::diff;
use crate::shell::{ExitStatus, Shell};
use std::path::{Path, PathBuf};

/// Compare two artifacts, model directories, recipes, locks or reports
///
/// Settings, sizes, schemes, metrics, texts: everything that the two say, key by key. Of two directories with the same
/// matrices also how far the weights are apart. Times and peaks are left out, since no run repeats them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc diff released.slm out/llama/artifact.generic.slm
  slmc diff out/w4 out/mixed
  slmc diff before.json after.json --exit-code")]
pub(super) struct Args {
    /// Artifact, directory, *.toml, *.lock or *.json
    #[arg(value_name = "A")]
    a: PathBuf,

    /// Another of the same kind
    #[arg(value_name = "B")]
    b: PathBuf,

    /// End with exit code 1 if anything differs
    #[arg(long)]
    exit_code: bool,
}

impl Args {
    /// What is compared.
    pub(super) fn both(&self) -> [&Path; 2] {
        [&self.a, &self.b]
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let report = diff(&self.a, &self.b)?;
        shell.result(&report)?;
        Ok(if self.exit_code && !report.same { ExitStatus::Failure } else { ExitStatus::Success })
    }
}
