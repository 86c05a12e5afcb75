//! `slmc targets`

use crate::shell::{ExitStatus, Shell};
use crate::target::{Target, TargetsReport};

/// List the targets that ship with slmc, or show one
///
/// A target is a file: copy one from targets/ in the repository, change it, and pass its path to --target.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc targets
  slmc targets cortex-m55
  slmc targets boards/mine.toml")]
pub(super) struct Args {
    /// Name of a target, or a target file [default: all that ship with slmc]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let targets = match &self.name {
            Some(name) => vec![Target::named(name)?],
            None => Target::all()?,
        };
        shell.result(&TargetsReport { targets })?;
        Ok(ExitStatus::Success)
    }
}
