//! `slmc doctor`

use super::global::Global;
use crate::machine::doctor::examine;
use crate::shell::{ExitStatus, Shell};

/// Show what this machine and this build can do
///
/// CPU features, the kernels that run artifacts here, measured read bandwidth, and the backends that the f32 model runs
/// on.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&examine(global.threads.map(std::num::NonZero::get)))?;
        Ok(ExitStatus::Success)
    }
}
