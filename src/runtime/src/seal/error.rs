//! Why weights stay closed. Plain data: nothing is allocated.

use crate::format::FormatError;
use crate::format::seal::SealCipher;
use crate::trust::TrustError;

/// Why weights stay closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The artifact is not one that was signed.
    Trust(TrustError),
    /// The weights are not in cipher.
    NotSealed,
    /// No stanza is for this device's key.
    NoStanza {
        /// Stanzas that were looked at.
        stanzas: usize,
    },
    /// A stanza names this device's key, and its body is not by it.
    Stanza,
    /// The key did not close this leaf of the weights.
    Tag {
        /// Number of the leaf, from the first of the weights.
        leaf: u64,
    },
    /// This build has no such cipher.
    Unable(SealCipher),
    /// Memory for the weights is too small.
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: usize,
    },
    /// Memory for the weights does not start on 64 bytes.
    Alignment,
    /// There is no such leaf.
    Range,
}

impl From<TrustError> for SealError {
    fn from(error: TrustError) -> Self {
        SealError::Trust(error)
    }
}

impl From<FormatError> for SealError {
    fn from(error: FormatError) -> Self {
        SealError::Trust(error.into())
    }
}

impl core::fmt::Display for SealError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use SealError as E;
        match self {
            E::Trust(error) => error.fmt(f),
            E::NotSealed => f.write_str("the weights are not sealed"),
            E::NoStanza { stanzas } => {
                write!(f, "none of {stanzas} stanzas is for this device's key; `slmc key-stanza` makes one")
            }
            E::Stanza => f.write_str("the stanza of this device's key was changed, or is of another file"),
            E::Tag { leaf } => {
                write!(f, "leaf {leaf} of the weights was not sealed with this file's key, or was changed")
            }
            E::Unable(cipher) => write!(
                f,
                "this build has no {}: build the runtime with the feature `{}`, or pass a cipher that can",
                cipher.name(),
                cipher.feature()
            ),
            E::Memory { needed, given } => {
                write!(f, "the open weights take {needed} bytes of memory, and {given} were given")
            }
            E::Alignment => f.write_str("memory for the open weights must start on 64 bytes"),
            E::Range => f.write_str("there is no such leaf of the weights"),
        }
    }
}

impl core::error::Error for SealError {}
