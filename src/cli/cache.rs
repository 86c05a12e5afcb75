//! `slmc cache`, and the options of commands that have caches.

use super::global::Global;
use super::plan::SetArgs;
use crate::recipe::{Direction, RunOptions, share, why};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::size::Size;
use crate::store::configuration::{self, CacheOptions, Mode};
use crate::store::report::{Age, CleanReport, ListReport, VerifyReport};
use crate::store::{FileStore, StoreError};
use std::path::PathBuf;

/// Look at the cache of stage results, clean it, share it
///
/// Results are found by everything that decides them: options, inputs by their bytes, revision and class of the machine.
/// `slmc run` uses and fills it by itself; see docs/cache.md for shared caches, signatures and what is in a key.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc cache why recipes/llama.toml small
  slmc cache clean --older 30d --max 20GiB
  slmc cache push recipes/llama.toml --cache s3://models/slmc")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the results that this machine has
    List,
    /// Say whether a stage of a recipe would run, and why
    Why {
        /// Recipe
        recipe: PathBuf,
        /// Stage, such as small or artifact.cortex-m55
        stage: String,
        #[command(flatten)]
        set: SetArgs,
    },
    /// Hash everything that this machine has, and remove what is damaged
    ///
    /// Exit code 1 if anything was.
    Verify,
    /// Remove results that are not used any more
    ///
    /// Entries go first, then files that no entry names. Without options only the latter, and what killed runs left.
    Clean {
        /// Remove what was not used for this long: 30d, 12h
        #[arg(long, value_name = "TIME")]
        older: Option<Age>,

        /// Remove what was used longest ago until the rest is at most this: 20GiB
        #[arg(long, value_name = "SIZE")]
        max: Option<Size>,
    },
    /// Copy the results of a recipe to the shared caches
    ///
    /// Exit code 1 if a stage has none.
    Push {
        /// Recipe
        recipe: PathBuf,
        #[command(flatten)]
        set: SetArgs,
    },
    /// Copy the results of a recipe from the shared caches to this machine
    ///
    /// For machines without a network later on. Exit code 1 if a stage has none.
    Pull {
        /// Recipe
        recipe: PathBuf,
        #[command(flatten)]
        set: SetArgs,
    },
}

/// Where results are kept.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Plan, cache and lock")]
pub(super) struct CacheArgs {
    /// Where results are kept: file:DIR, https://…, s3://…, none
    ///
    /// file: is the cache of this machine, in place of $XDG_CACHE_HOME/slmc; the others are behind it and may be several. Also
    /// $SLMC_CACHE, or `url` in [cache] of slmc.toml; credentials are in the environment (docs/cache.md). none: nothing is kept.
    #[arg(long = "cache", value_name = "URL", global = true)]
    urls: Vec<String>,

    /// Shared caches: off, read-only, read-write [default: read-only]
    ///
    /// Also $SLMC_CACHE_MODE, or `mode` in [cache] of slmc.toml.
    #[arg(long = "cache-mode", value_name = "MODE", value_enum, hide_possible_values = true, global = true)]
    mode: Option<Mode>,
}

impl CacheArgs {
    pub(super) fn options(&self) -> CacheOptions {
        CacheOptions { urls: self.urls.clone(), mode: self.mode }
    }
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let status = |passes: bool| if passes { ExitStatus::Success } else { ExitStatus::Failure };
        let of_recipe = |recipe: &PathBuf, set: &SetArgs| RunOptions {
            recipe: recipe.clone(),
            settings: set.settings(),
            out: PathBuf::from("out"),
            cache: self.cache.options(),
            run: global.run_settings(),
            ..RunOptions::default()
        };
        match &self.command {
            Command::List => {
                let store = self.local()?;
                shell.result(&ListReport::new(store.root().to_owned(), store.list()?))?;
                Ok(ExitStatus::Success)
            }
            Command::Verify => {
                let store = self.local()?;
                let report = VerifyReport::new(store.root().to_owned(), store.verify(shell)?);
                shell.result(&report)?;
                Ok(status(report.sound()))
            }
            Command::Clean { older, max } => {
                let store = self.local()?;
                let cleaned = store.clean(older.map(|Age(older)| older), max.map(Size::bytes))?;
                shell.result(&CleanReport::new(store.root().to_owned(), cleaned))?;
                Ok(ExitStatus::Success)
            }
            Command::Why { recipe, stage, set } => {
                shell.result(&why(&of_recipe(recipe, set), stage, shell)?)?;
                Ok(ExitStatus::Success)
            }
            Command::Push { recipe, set } => {
                let report = share(&of_recipe(recipe, set), Direction::Push, shell)?;
                shell.result(&report)?;
                Ok(status(report.complete()))
            }
            Command::Pull { recipe, set } => {
                let report = share(&of_recipe(recipe, set), Direction::Pull, shell)?;
                shell.result(&report)?;
                Ok(status(report.complete()))
            }
        }
    }

    /// The store of this machine.
    fn local(&self) -> Result<FileStore, StoreError> {
        configuration::open_directory(&self.cache.options())
    }
}
