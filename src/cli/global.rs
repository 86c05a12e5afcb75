//! Options that mean the same in every subcommand.

use crate::shell::{ProgressMode, Shell, ShellOptions, Verbosity};
use crate::stages::RunSettings;
use crate::stages::arguments::size::Size;
use clap::{ArgAction, Args};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Options of every subcommand; they may stand before or after its name.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print the result as one JSON line on stdout
    ///
    /// The line is an object that starts with its schema, such as {"schema":"slmc.eval/1", …}. Everything else, errors
    /// included, goes to stderr. The exit code is the same as without it: 0 for a result that passes, 1 for a result
    /// that does not (a gate is missed, the model does not fit), 2 for no result.
    #[arg(long, global = true)]
    pub json: bool,

    /// Progress on stderr: auto, json, none
    ///
    /// auto: a bar where stderr is a terminal, nothing elsewhere and nothing with -q or --json. json: every line on
    /// stderr is one object with "schema":"slmc.progress/1" and an "event": begin, advance, finish, memory, status, note,
    /// warning or error. none: nothing.
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t, hide_possible_values = true)]
    pub progress: ProgressMode,

    /// Show details: files read, sizes, choices made
    #[arg(short, long, global = true, action = ArgAction::SetTrue, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Show only the result, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Use at most N threads [default: one per core]
    ///
    /// Never changes a result: artifacts, logits and metrics are the same bits for any number.
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Seed of every random choice
    ///
    /// Calibration text that a model samples from itself, the order of training data, and sampled generation follow
    /// from it. The same seed gives the same result.
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Refuse work that needs more memory than SIZE
    ///
    /// A number of bytes, or with a unit: 512MiB, 4GiB. The need is estimated before the work begins.
    #[arg(long, global = true, value_name = "SIZE")]
    pub max_ram: Option<Size>,

    /// The model that a LoRA adapter changes
    ///
    /// Where a command is passed the directory of an adapter in the place of a model. Without it the adapter's own
    /// word counts, if it is a path to a model.
    #[arg(long, global = true, value_name = "DIR")]
    pub base: Option<PathBuf>,

    /// Print a summary (-h), or everything (--help)
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,

    /// End as a kill would, with exit code 2, once the resume state of step N or a later one is on disk
    ///
    /// Steps are those of training; before them, `quantize` counts the groups of matrices that gptq has rounded.
    #[arg(long, global = true, value_name = "N", hide = true)]
    pub stop_after_step: Option<u64>,
}

impl Global {
    /// Verbosity, JSON and progress for the shell.
    pub fn shell_options(&self) -> ShellOptions {
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        ShellOptions { verbosity, json: self.json, progress: self.progress, stop_after_step: self.stop_after_step }
    }

    /// The part that reaches stages.
    pub fn run_settings(&self) -> RunSettings {
        RunSettings { seed: self.seed, max_ram: self.max_ram.map(Size::bytes), ..RunSettings::default() }
    }

    /// The shell on this process's streams.
    pub fn shell(&self) -> Shell {
        Shell::new(self.shell_options())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser, Subcommand};

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Program {
        #[command(flatten)]
        global: Global,
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        Eval,
    }

    #[test]
    fn options_stand_before_or_after_the_subcommand() {
        Program::command().debug_assert();
        let program = Program::parse_from(["slmc", "--json", "eval", "-q", "--max-ram", "4GiB", "--threads", "2"]);
        assert!(matches!(program.command, Command::Eval));
        let options = program.global.shell_options();
        assert_eq!((options.json, options.verbosity, options.progress), (true, Verbosity::Quiet, ProgressMode::Auto));
        assert_eq!(program.global.max_ram.map(Size::bytes), Some(4 << 30));
        assert_eq!((program.global.threads.map(NonZeroUsize::get), program.global.seed), (Some(2), 0));
        let program = Program::parse_from(["slmc", "eval", "-v", "--progress", "json", "--seed", "7"]);
        let options = program.global.shell_options();
        assert_eq!((options.verbosity, options.progress), (Verbosity::Verbose, ProgressMode::Json));
        for wrong in [["-q", "-v"], ["--threads", "0"], ["--max-ram", "4G"], ["--progress", "bars"]] {
            assert!(Program::try_parse_from(["slmc", "eval"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
