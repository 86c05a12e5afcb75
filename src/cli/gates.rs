//! `slmc gates`

use super::cache::CacheArgs;
use super::global::Global;
use crate::recipe::{RunOptions, suggest};
use crate::shell::{ExitStatus, Shell};
use std::path::PathBuf;

/// Propose limits for a recipe from what was measured
///
/// A gate is a limit on a number that a stage measures (docs/gates.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc gates suggest recipes/llama.toml
  slmc gates suggest mine.toml >> mine.toml")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Limits that the last results of a recipe hold, with the number of windows that decides them
    ///
    /// Results come from the cache. A limit is the bound of the measurement and a tenth of its distance from perfection
    /// more; bytes may grow by a fiftieth. What is printed is TOML: append it to a recipe that has no [gates] yet.
    Suggest {
        /// Recipe
        recipe: PathBuf,
    },
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let Command::Suggest { recipe } = &self.command;
        let options = RunOptions {
            recipe: recipe.clone(),
            out: PathBuf::from("out"),
            cache: self.cache.options(),
            run: global.run_settings(),
            ..RunOptions::default()
        };
        shell.result(&suggest(&options, shell)?)?;
        Ok(ExitStatus::Success)
    }
}
