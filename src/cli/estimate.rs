//! `slmc estimate`

use crate::compile::estimate::{Rates, estimate};
use crate::formats;
use crate::shell::{ExitStatus, Shell};
use crate::stages::stage::say_notes;
use crate::target::Target;
use std::path::PathBuf;

/// Say what a checkpoint would cost on a target, without reading its weights
///
/// Bytes of flash and RAM for every scheme, whether they fit, and the ceiling of tokens per second that reading the
/// weights once a token allows. A dense directory gives one row per scheme, a quantized one the row that it is.
/// Exit code 1 if nothing fits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  slmc estimate models/tales-6m --target cortex-m55 --context 128")]
pub(super) struct Args {
    /// Hugging Face directory, or one written by `slmc quantize`
    #[arg(value_name = "DIR")]
    model: PathBuf,

    /// A name of `slmc targets`, or a target file
    #[arg(long, value_name = "NAME", default_value = "generic")]
    target: String,

    /// Positions to plan memory for [default: the model's maximum]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        say_notes(&self.model, shell);
        let target = Target::named(&self.target)?;
        if let Some(schemes) = &formats::open_outline(&self.model)?.schemes {
            target.check_schemes(schemes)?;
        }
        let rates = Rates {
            bandwidth_bytes_per_s: target.flash_bandwidth_bytes_per_s,
            macs_per_cycle: target.macs_per_cycle.map(|rates| (rates.w8, rates.w4)),
            clock_hz: target.clock_hz,
            cores: target.cores,
        };
        let report = estimate(&self.model, &target, &rates, self.context)?;
        shell.result(&report)?;
        Ok(if report.schemes.iter().any(|row| row.fits) { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
