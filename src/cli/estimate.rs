//! `slmc estimate`

use crate::compile::detail::detail;
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
///
/// With --detail the instructions of one token of an artifact, by class and layer: an estimate, from costs that were measured on
/// emulators.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc estimate models/tales-6m --target cortex-m55 --context 128
  slmc estimate out/mixed --target boards/mine.toml
  slmc estimate out/mixed.slm --target cortex-m4 --detail
  slmc estimate models/tales-6m --target boards/mine.toml --resident auto")]
pub(super) struct Args {
    /// Hugging Face directory, GGUF file, or a directory written by `slmc quantize`; with --detail an artifact
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    #[command(flatten)]
    target: TargetArg,

    /// Context to plan memory for [default: the model's]
    #[arg(long, value_name = "N", help_heading = TARGET)]
    context: Option<usize>,

    /// Instructions of one token of an artifact, by class and layer
    #[arg(long, conflicts_with = "context", help_heading = DETAIL)]
    detail: bool,

    /// Position of that token [default: the middle of the context]
    #[arg(long, value_name = "N", requires = "detail", help_heading = DETAIL)]
    position: Option<usize>,

    /// Measured costs to estimate with [default: the program's]
    ///
    /// As `tests/cross/run --kernels` writes them.
    #[arg(long, value_name = "FILE.json", requires = "detail", help_heading = DETAIL)]
    instructions: Option<PathBuf>,

    #[command(flatten)]
    streaming: StreamingArgs,
}

/// Heading of the options of instructions.
const DETAIL: &str = "Instructions";

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        if self.detail {
            let target = Target::named(&self.target.target)?;
            shell.result(&detail(&self.model, &target, self.position, self.instructions.as_deref())?)?;
            return Ok(ExitStatus::Success);
        }
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
