//! `slmc estimate`

use crate::compile::estimate::{Rates, estimate};
use crate::formats;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{StreamingArgs, TARGET, TargetArg};
use crate::stages::stage::say_notes;
use crate::target::Target;
use std::path::{Path, PathBuf};

/// Say what a checkpoint would cost on a target
///
/// Without reading its weights: bytes of flash and RAM for every scheme, whether they fit, and the most tokens per
/// second that the flash bandwidth allows when every token reads the weights once. A dense directory gives one row per
/// scheme, a quantized one the row of its own schemes. Where the model holds integers already, a row says how many matrices
/// `slmc quantize --method keep` would take over. Exit code 1 if nothing fits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc estimate models/tales-6m --target cortex-m55 --context 128
  slmc estimate out/mixed --target boards/mine.toml
  slmc estimate models/tales-6m --target boards/mine.toml --resident auto")]
pub(super) struct Args {
    /// Hugging Face directory, GGUF file, or a directory written by `slmc quantize`
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    #[command(flatten)]
    target: TargetArg,

    /// Context to plan memory for [default: the model's]
    #[arg(long, value_name = "N", help_heading = TARGET)]
    context: Option<usize>,

    #[command(flatten)]
    streaming: StreamingArgs,
}

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        say_notes(&self.model, shell);
        let target = Target::named(&self.target.target)?;
        if let Some(schemes) = &formats::open_outline(&self.model)?.schemes {
            target.check_schemes(schemes)?;
        }
        let streaming = self.streaming.streaming();
        let report = estimate(&self.model, &target, &Rates::of(&target), self.context, streaming)?;
        shell.result(&report)?;
        Ok(if report.schemes.iter().any(|row| row.fits) { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
