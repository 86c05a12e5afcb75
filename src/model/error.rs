//! Names that mean nothing to slmc: a matrix, a scheme, a preset, a pattern or a backend that is misspelled or does not
//! exist.

use super::device::GPU_BACKENDS;
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
    #[error("unknown backend `{0}`; this build has flex, ndarray{more}", more = gpu_backends())]
    Backend(String),
    /// A backend that this build was made without.
    #[error(
        "backend `{name}` is not in this build, which has flex, ndarray{more}; build slmc with `--features {feature}`, or take flex",
        more = gpu_backends()
    )]
    BackendFeature {
        /// As asked for.
        name: String,
        /// The cargo feature.
        feature: &'static str,
    },
}

/// The backends on a GPU that this build has, as they go on a list.
fn gpu_backends() -> String {
    GPU_BACKENDS.iter().filter(|(_, there)| *there).map(|(name, _)| format!(", {name}")).collect()
}
