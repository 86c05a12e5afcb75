//! `slmc init`

use crate::init::{InitOptions, Priority, init};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{DATA, MODEL_AND_OUTPUT, TARGET, TargetArg};
use std::path::PathBuf;

/// Write a first recipe for a checkpoint, with a reason for every choice
///
/// Looks at the configuration, the headers of the weights, the tokenizer, the chat template and the licence, and writes a
/// recipe that passes `slmc run --plan`. Limits are not guessed: `slmc gates suggest` takes them from the first run. Exit
/// code 1 if the model does not fit the target by the estimate, or, with --priority compliance, if its licence is missing,
/// unknown or restricts what one may do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc init models/tales-6m --target cortex-m55 --priority size
  slmc init models/tales-6m --target boards/mine.toml --priority quality --data held-out.txt -o recipes/tales.toml")]
pub(super) struct Args {
    /// Hugging Face directory, or a GGUF file
    #[arg(value_name = "MODEL", help_heading = MODEL_AND_OUTPUT)]
    model: PathBuf,

    /// Recipe to write [default: the model's name with .toml]
    #[arg(short, long, value_name = "FILE.toml", help_heading = MODEL_AND_OUTPUT)]
    out: Option<PathBuf>,

    /// Replace a recipe that is there
    #[arg(long, help_heading = MODEL_AND_OUTPUT)]
    force: bool,

    #[command(flatten)]
    target: TargetArg,

    /// What matters most: size, quality, latency, time, power, compliance
    ///
    /// size: fewest bytes. quality: as near to the checkpoint as the target holds. latency: most tokens per second by the
    /// target's rates. time: a first artifact soon, without calibration. power: fewest weight bytes read for a token; energy
    /// is not measured. compliance: same bytes on every CPU, no text of others, seeds written, the licence checked.
    #[arg(long, value_name = "WHAT", value_enum, default_value = "quality", hide_possible_values = true, help_heading = TARGET)]
    priority: Priority,

    /// Text to measure on, which the model was not trained on
    ///
    /// Without it the recipe has the stage that measures as a comment.
    #[arg(long, value_name = "TEXT", help_heading = DATA)]
    data: Option<PathBuf>,

    /// JSONL key of the text; plain text has none
    #[arg(long, value_name = "KEY", requires = "data", help_heading = DATA)]
    field: Option<String>,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let report = init(&InitOptions {
            model: self.model.clone(),
            target: self.target.target.to_string(),
            priority: self.priority,
            out: self.out.clone(),
            data: self.data.clone(),
            field: self.field.clone(),
            force: self.force,
        })?;
        for warning in report.warnings() {
            shell.warn(warning);
        }
        shell.result(&report)?;
        Ok(if report.passed() { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
