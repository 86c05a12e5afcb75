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
    /// A file of attestations that does not hold.
    #[error("{place}: {fault}")]
    Bundle {
        /// The file, with the line of one that has several.
        place: String,
        /// The fault.
        fault: String,
    },
    /// A directory that cannot be signed as a whole.
    #[error("{place}: {fault}")]
    Directory {
        /// The directory or file.
        place: String,
        /// The fault and the remedy.
        fault: String,
    },
    /// A file that cannot be hashed.
    #[error(transparent)]
    Hash(#[from] crate::disk::hash::HashError),
    /// A key of an algorithm that the readers of what is signed do not take.
    #[error(
        "the key is one of {found}, and {what} are signed with ECDSA P-256: the tools that verify them take no other; make one: slmc \
         keygen --type p256 -o NAME"
    )]
    Algorithm {
        /// What it is.
        found: super::Algorithm,
        /// What was to be signed.
        what: &'static str,
    },
    /// An envelope that says nothing.
    #[error("{fault}")]
    Envelope {
        /// The fault.
        fault: String,
    },
}
