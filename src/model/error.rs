//! Names that mean nothing to slmc: a matrix, a scheme, a preset, a pattern or a backend that is misspelled or does not
//! exist.

use super::device::{FEATURE_BACKENDS, WORKERS_VARIABLE};
use slm_runtime::layout::SPLIT_ROWS;

/// A string that is not the name it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Not a matrix.
    #[error("`{0}` is not the name of a matrix; names look like `layers.3.attn.q`, `embed.token` or `head.lm`")]
    Matrix(String),
    /// Not a scheme.
    #[error("unknown scheme `{text}`; known: {known}, and of a token table or LM head w8:ROWS+w4")]
    Scheme {
        /// As written.
        text: String,
        /// Every scheme that all rows of a matrix can share.
        known: String,
    },
    /// A split within a tile.
    #[error(
        "`{text}`: the first part of a split has a multiple of {SPLIT_ROWS} rows, more than 0, so that it is whole tiles on \
         every target; nearest is w8:{nearest}+w4"
    )]
    SplitRows {
        /// As written.
        text: String,
        /// The nearest number that is one.
        nearest: u32,
    },
    /// Not a preset.
    #[error("unknown scheme `{0}`; known: w8, mixed, w4")]
    Preset(String),
    /// Not a pattern N:M.
    #[error("`{0}` is not a pattern N:M with 0 < N < M and M one of 4, 8, 16, such as 2:4")]
    Pattern(String),
    /// Not a backend.
    #[error("unknown backend `{0}`; this build has flex, ndarray{more}", more = more_backends())]
    Backend(String),
    /// A backend that this build was made without.
    #[error(
        "backend `{name}` is not in this build, which has flex, ndarray{more}; build slmc with `--features {feature}`, or take flex",
        more = more_backends()
    )]
    BackendFeature {
        /// As asked for.
        name: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// Not an address of a worker.
    #[error(
        "the address `{address}` of --backend remote {fault}; write remote:HOST:PORT, several with commas between: what \
         each `slmc worker` says it listens at"
    )]
    WorkerAddress {
        /// As written.
        address: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// Workers, and no address.
    #[error(
        "--backend remote names no worker: write remote:HOST:PORT,… with the address of every `slmc worker`, or have \
         HOST:PORT,… in {WORKERS_VARIABLE}"
    )]
    NoWorkers,
    /// Workers in the place of a device.
    #[error(
        "--backend remote is for training: `train`, `distill`, `prune --recover`, and `quantize` with --qat or --tune have \
         workers compute their steps; take flex here"
    )]
    OnlyTraining,
}

/// The further backends that this build has, as they go on a list.
fn more_backends() -> String {
    FEATURE_BACKENDS.iter().filter(|(.., there)| *there).map(|(name, ..)| format!(", {name}")).collect()
}
