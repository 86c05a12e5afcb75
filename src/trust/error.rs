//! Why a key, a signature or a statement is not used. No text here holds a secret: keys are named by their place.

use crate::disk::atomic::AtomicError;
use std::path::PathBuf;

/// A fault of a key or of what a key signed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A key that cannot be used.
    #[error("{place}: {fault}")]
    Key {
        /// File or variable.
        place: String,
        /// The fault and the remedy.
        fault: String,
    },
    /// A key that another file would replace.
    #[error("{}: exists, and keys are never replaced; pass another name, or remove it first", path.display())]
    KeyExists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
    /// An output that cannot be put in place.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// An envelope that says nothing.
    #[error("{fault}")]
    Envelope {
        /// The fault.
        fault: String,
    },
}
