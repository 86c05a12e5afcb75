//! Why a session cannot go on.

use crate::format::FormatError;

/// Why a session stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The memory is not the planned number of bytes.
    MemorySize {
        /// [`super::Session::required_bytes`].
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// The memory does not start on 64 bytes.
    MemoryAlignment,
    /// A token is outside the vocabulary.
    Token(u32),
    /// More positions than the context holds.
    ContextFull {
        /// Positions planned for.
        context: u32,
    },
    /// An encoder has no steps: it reads whole sequences.
    NotADecoder,
    /// The model has no labels.
    #[cfg(feature = "exits")]
    NotAClassifier,
    /// No tokens.
    Empty,
    /// The sequence cannot be shortened that far.
    Shortened {
        /// The fewest positions it can have.
        least: u32,
    },
    /// A value in this layer reached 2^50 or is NaN (the layer count denotes the head).
    NumericRange {
        /// The layer.
        layer: u32,
    },
    /// An earlier step failed in the middle of the sequence, which must begin anew.
    Interrupted,
    /// The artifact is not valid.
    Format(FormatError),
    /// Weights could not be read.
    #[cfg(feature = "streaming")]
    Read(crate::streaming::ReadError),
}

impl From<FormatError> for SessionError {
    fn from(error: FormatError) -> Self {
        SessionError::Format(error)
    }
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use SessionError as E;
        match self {
            E::MemorySize { expected, actual } => write!(f, "expected {expected} bytes of memory, got {actual}"),
            E::MemoryAlignment => f.write_str("the memory does not start on 64 bytes"),
            E::Token(token) => write!(f, "token {token} is outside the vocabulary"),
            E::ContextFull { context } => write!(
                f,
                "the sequence is longer than the {context} positions planned for; compile with a larger --context"
            ),
            E::NotADecoder => f.write_str("the model is an encoder: it has no steps"),
            #[cfg(feature = "exits")]
            E::NotAClassifier => f.write_str("the model is not a classifier: it has no labels"),
            E::Empty => f.write_str("there are no tokens"),
            E::Shortened { least } => write!(
                f,
                "the sequence can be shortened to {least} positions and no further: what came before is no longer kept"
            ),
            E::NumericRange { layer } => {
                write!(f, "a value in layer {layer} reached 2^50 or is not a number: the model's weights are broken")
            }
            E::Interrupted => f.write_str("an earlier step failed in the middle of the sequence; reset the session"),
            E::Format(error) => write!(f, "{error}"),
            #[cfg(feature = "streaming")]
            E::Read(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SessionError {}

/// A value in a layer out of the range of numbers.
pub(super) fn range(layer: usize) -> SessionError {
    SessionError::NumericRange { layer: layer as u32 }
}
