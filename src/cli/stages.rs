//! The subcommands as stages of a recipe: their options as clap knows them, what can be told from configurations before
//! they run, and their reports as JSON.

use super::compile::Compiled;
use super::global::Global;
use super::{compile, distill, eval, prune, quantize, train};
use crate::model::spec::ModelSpec;
use crate::recipe::{Commands, Kind, Known, Outcome};
use crate::report::{Report, json_line};
use crate::shell::Shell;
use anyhow::ensure;
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::path::Path;

/// The options of a stage: those of its subcommand, and the seed, which on a command line is global.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    args: A,

    /// Start every random choice from N
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl<A: clap::Args> Line<A> {
    /// With the global options of `slmc run`, the stage's seed over them.
    fn parse_over(arguments: &[OsString], global: &Global) -> anyhow::Result<(A, Global)> {
        let line = Line::<A>::try_parse_from(arguments)?;
        let global = Global { seed: line.seed.unwrap_or(global.seed), ..global.clone() };
        Ok((line.args, global))
    }
}

/// The subcommands, run with the global options of `slmc run`.
pub(super) struct Stages<'g> {
    pub(super) global: &'g Global,
}

impl Commands for Stages<'_> {
    fn command(&self, kind: Kind) -> clap::Command {
        match kind {
            Kind::Train => Line::<train::Args>::command(),
            Kind::Distill => Line::<distill::Args>::command(),
            Kind::Prune => Line::<prune::Args>::command(),
            Kind::Quantize => Line::<quantize::Args>::command(),
            Kind::Compile => Line::<compile::Args>::command(),
            Kind::Eval => Line::<eval::Args>::command(),
        }
    }

    fn check(&self, kind: Kind, arguments: &[OsString], known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        fn parsed<A: clap::Args>(arguments: &[OsString], global: &Global) -> anyhow::Result<(A, Global)> {
            Line::<A>::parse_over(arguments, global)
        }
        match kind {
            Kind::Train => {
                parsed::<train::Args>(arguments, self.global).and_then(|(args, global)| args.check(&global, known))
            }
            Kind::Distill => {
                parsed::<distill::Args>(arguments, self.global).and_then(|(args, global)| args.check(&global, known))
            }
            Kind::Prune => {
                parsed::<prune::Args>(arguments, self.global).and_then(|(args, global)| args.check(&global, known))
            }
            Kind::Quantize => {
                parsed::<quantize::Args>(arguments, self.global).and_then(|(args, global)| args.check(&global, known))
            }
            Kind::Compile => parsed::<compile::Args>(arguments, self.global).and_then(|(args, _)| args.check(known)),
            Kind::Eval => parsed::<eval::Args>(arguments, self.global).and_then(|(args, _)| args.check(known)),
        }
    }

    fn execute(&self, kind: Kind, arguments: &[OsString], shell: &Shell) -> anyhow::Result<Outcome> {
        match kind {
            Kind::Train => {
                let (args, global) = Line::<train::Args>::parse_over(arguments, self.global)?;
                outcome(&args.execute(&global, shell)?, true)
            }
            Kind::Distill => {
                let (args, global) = Line::<distill::Args>::parse_over(arguments, self.global)?;
                outcome(&args.execute(&global, shell)?, true)
            }
            Kind::Prune => {
                let (args, global) = Line::<prune::Args>::parse_over(arguments, self.global)?;
                outcome(&args.execute(&global, shell)?, true)
            }
            Kind::Quantize => {
                let (args, global) = Line::<quantize::Args>::parse_over(arguments, self.global)?;
                outcome(&args.execute(&global, shell)?, true)
            }
            Kind::Compile => {
                let (args, global) = Line::<compile::Args>::parse_over(arguments, self.global)?;
                match args.execute(&global, shell)? {
                    Compiled::Fits(report) => outcome(report.as_ref(), true),
                    Compiled::DoesNotFit(answer) => outcome(answer.as_ref(), false),
                }
            }
            Kind::Eval => {
                let (args, global) = Line::<eval::Args>::parse_over(arguments, self.global)?;
                outcome(&args.execute(&global, shell)?, true)
            }
        }
    }
}

fn outcome<R: Report>(report: &R, passed: bool) -> anyhow::Result<Outcome> {
    Ok(Outcome { report: serde_json::from_str(&json_line(report)?)?, text: report.text(), passed })
}

/// Refuses two models whose tokens cannot mean the same, where both are known.
pub(super) fn same_vocabulary(known: &Known, own: (&str, &Path), other: (&str, &Path)) -> anyhow::Result<()> {
    if let (Some(a), Some(b)) = (known.at(own.1), known.at(other.1)) {
        let (ours, theirs) = (a.vocabulary, b.vocabulary);
        ensure!(
            ours == theirs,
            "{} and {} have different vocabularies: {ours} and {theirs}; they must share one",
            own.0,
            other.0
        );
    }
    Ok(())
}
