//! Why bits cannot be allocated: options that cannot be met, found before any work, and failures while assignments are measured.

use crate::artifact::runner::RunnerError;
use crate::calibrate::probe::ProbeError;
use crate::compile::fit::FitError;
use crate::model::id::LinearId;
use crate::model::scheme::QuantScheme;
use crate::model::size::SizeError;
use crate::model::weights::ModelError;
use crate::quantize::error::CalibrationError;
use crate::quantize::policy::PolicyError;
use slm_runtime::format::FormatError;
use slm_runtime::session::SessionError;

/// Why schemes are not allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// The exceptions (`--keep`) are refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A matrix cannot be stored.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Matrices of one item are to differ.
    #[error(
        "--keep gives `{first}` {first_scheme} and `{second}` {second_scheme}, but with --scheme auto the matrices of \
         {item} share a scheme, since a runtime computes them as one; give them the same"
    )]
    Split {
        /// The item.
        item: String,
        /// A matrix of it.
        first: LinearId,
        /// Asked for.
        first_scheme: QuantScheme,
        /// Another.
        second: LinearId,
        /// Asked for.
        second_scheme: QuantScheme,
    },
    /// A budget that nothing fits.
    #[error(
        "a budget of {budget} bytes ({}) is not possible: the smallest allocation for target {target} takes {smallest} bytes \
         ({}), {fixed} of them norms, biases and key maps{}; raise the budget to that at least, or take a smaller model",
        bits(*budget, *parameters),
        bits(*smallest, *parameters),
        if *pinned { ", under the --keep options given" } else { "" }
    )]
    Infeasible {
        /// Asked for.
        budget: u64,
        /// The least there is.
        smallest: u64,
        /// Bytes that are the same in every scheme.
        fixed: u64,
        /// Parameters of the model.
        parameters: u64,
        /// Whose packing was counted.
        target: String,
        /// Whether exceptions raise the least.
        pinned: bool,
    },
    /// RAM that nothing fits.
    #[error(
        "{ram} bytes of RAM are not possible on target {target} at a context of {context}: the smallest allocation takes \
         {smallest}, {plan} of them arena, cache and stack{}; allow that at least, or take a smaller --context or model",
        if *artifact > 0 { format!(" and {artifact} the artifact, which lies in RAM where a target states no flash") } else { String::new() }
    )]
    Ram {
        /// Asked for.
        ram: u64,
        /// The least there is.
        smallest: u64,
        /// The part that a session needs.
        plan: u64,
        /// The part that is the artifact.
        artifact: u64,
        /// The target.
        target: String,
        /// Positions planned for.
        context: usize,
    },
    /// A time that nothing keeps.
    #[error(
        "{latency} ms a token are not possible on target {target}: by its rates the fastest allocation takes {least:.4} ms{}; \
         allow that at least, or take a smaller model",
        if *pinned { " under the --keep options given" } else { "" }
    )]
    Latency {
        /// Asked for.
        latency: f64,
        /// The least there is.
        least: f64,
        /// The target.
        target: String,
        /// Whether exceptions raise the least.
        pinned: bool,
    },
    /// A number that cannot be a time.
    #[error("--latency {0} is not a time; pass milliseconds above 0, such as 12.5")]
    NoTime(f64),
    /// A target without rates.
    #[error(
        "target {0} states neither flash_bandwidth_bytes_per_s nor clock_hz with macs_per_cycle of w8 and w4, by which --latency \
         predicts; pass a target that does, such as cortex-a76, or a target file with them"
    )]
    NoPace(String),
    /// A time of an encoder.
    #[error("--latency is the time of a token of a decoder, and an encoder reads its weights once for a whole text")]
    EncoderLatency,
    /// Bounds that can be kept, but not together.
    #[error("each bound can be kept, but not all together; raise --budget (or --bits-per-weight), --ram or --latency")]
    Both,
    /// The plan on the target.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A number that cannot be a budget.
    #[error("{0} bits per weight is no budget; pass a number above 0, such as 4.9")]
    BitsPerWeight(f64),
    /// The text to measure on is refused.
    #[error(transparent)]
    HeldOut(#[from] CalibrationError),
    /// The f32 model could not be run, or compared with itself.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The chosen model does not compile.
    #[error("the chosen assignment does not compile: {0}")]
    Compile(RunnerError),
    /// The compiled model does not open.
    #[error("the chosen assignment does not open, which is a defect of slmc: {0}")]
    Artifact(FormatError),
    /// The runtime failed.
    #[error("the chosen assignment does not run: {0}")]
    Session(SessionError),
}

impl AllocationError {
    /// The option at fault, where it is one of the bounds.
    pub fn option(&self) -> Option<&'static str> {
        match self {
            AllocationError::Ram { .. } => Some("ram"),
            AllocationError::Latency { .. }
            | AllocationError::NoTime(_)
            | AllocationError::NoPace(_)
            | AllocationError::EncoderLatency => Some("latency"),
            _ => None,
        }
    }
}

impl From<ModelError> for AllocationError {
    fn from(error: ModelError) -> Self {
        AllocationError::Probe(error.into())
    }
}

/// `4.49 bits per weight`.
fn bits(bytes: u64, parameters: u64) -> String {
    format!("{:.3} bits per weight", 8.0 * bytes as f64 / parameters as f64)
}
