//! `slmc reproduce`

use super::global::Global;
use crate::artifact::inspect::inspect;
use crate::recipe::{ReproduceOptions, reproduce};
use crate::shell::{ExitStatus, Shell};
use std::path::PathBuf;

/// Make an artifact again from its provenance, and compare the bytes
///
/// An artifact says how it was made: every stage with its options, seed and inputs by hash. All of it runs again in a temporary
/// directory, without any cache, on the inputs that have these hashes. The first stage that gives something else is named, and
/// why: another class of machine, another version. Exit code 1 if the bytes differ.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc reproduce out/quickstart/artifact.generic.slm --recipe recipes/quickstart.toml
  slmc reproduce model.slm --inputs archive/")]
pub(super) struct Args {
    /// Artifact written by `slmc compile`, its host part included
    #[arg(value_name = "FILE.slm")]
    artifact: PathBuf,

    /// Directory with the inputs, found there by their hashes
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,

    /// Recipe that reads the inputs
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let options = ReproduceOptions {
            artifact: self.artifact.clone(),
            provenance: inspect(&self.artifact)?.provenance,
            inputs: self.inputs.clone(),
            recipe: self.recipe.clone(),
            run: global.run_settings(),
        };
        let report = reproduce(&options, shell)?;
        shell.result(&report)?;
        Ok(if report.same { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
