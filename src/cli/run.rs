//! `slmc run`

use super::global::Global;
use crate::shell::{ExitStatus, Shell};

/// x
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
impl Args {
    pub(super) fn run(&self, _global: &Global, _shell: &Shell) -> anyhow::Result<ExitStatus> {
        anyhow::bail!("later")
    }
}
