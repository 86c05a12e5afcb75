//! Why a signed artifact is refused. Plain data: nothing is allocated.

use crate::format::FormatError;
use crate::format::header::SectionKind;
use crate::format::signature::SignatureAlgorithm;
use crate::sha256::Digest;

/// Why a file is refused. Every variant names the part at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// The file is not a sound artifact.
    Format(FormatError),
    /// What the firmware trusts makes no sense: a fault of the program, not of the file.
    Policy(&'static str),
    /// A key of the firmware is not a key.
    Key {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        fault: &'static str,
    },
    /// The file is not signed.
    NotSigned,
    /// No key of the firmware signed the file.
    KeyUnknown {
        /// The key of the first slot in use.
        id: Digest,
    },
    /// A signature by a key of the firmware does not hold.
    Signature {
        /// Number of the slot, from 1.
        slot: usize,
        /// What is wrong.
        fault: &'static str,
    },
    /// The verifier lacks an algorithm that a key of the firmware is for.
    Unable(SignatureAlgorithm),
    /// Fewer keys signed the file than must.
    Threshold {
        /// Keys that did.
        valid: usize,
        /// Keys that must.
        needed: usize,
    },
    /// The file is of another product line.
    ModelId {
        /// Its `model_id`.
        found: [u8; 16],
    },
    /// The file is older than what the device has confirmed.
    Rollback {
        /// Its `security_counter`.
        found: u64,
        /// The device's counter.
        minimum: u64,
    },
    /// The device's counter could not be read.
    Counter,
    /// A leaf's bytes are not the signed ones.
    Leaf {
        /// Number of the leaf.
        leaf: u64,
        /// The section that it is of.
        section: u32,
    },
    /// Leaves of the weights have not been checked yet.
    Unchecked {
        /// How many.
        leaves: u64,
    },
    /// There is no such leaf, or no such bytes of a section.
    Range,
    /// Memory of the caller is too small.
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: usize,
    },
    /// The caller's reader failed.
    Read {
        /// Where, from the start of the file.
        offset: u64,
    },
}

impl From<FormatError> for TrustError {
    fn from(error: FormatError) -> Self {
        TrustError::Format(error)
    }
}

impl core::fmt::Display for TrustError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use TrustError as E;
        match self {
            E::Format(error) => error.fmt(f),
            E::Policy(fault) => write!(f, "what is trusted makes no sense: {fault}"),
            E::Key { index, fault } => write!(f, "trusted key {index} {fault}"),
            E::NotSigned => f.write_str("the artifact is not signed; `slmc sign` signs it"),
            E::KeyUnknown { id } => {
                f.write_str("the artifact is signed by key ")?;
                id[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("…, which is not one of the trusted keys")
            }
            E::Signature { slot, fault } => write!(f, "the signature in slot {slot} {fault}"),
            E::Unable(algorithm) => write!(
                f,
                "this build cannot verify {}: build the runtime with the feature `{}`, or pass a verifier that can",
                algorithm.name(),
                algorithm.feature()
            ),
            E::Threshold { valid, needed } => {
                write!(f, "{valid} trusted keys signed the artifact, and {needed} must")
            }
            E::ModelId { found } => {
                f.write_str("the artifact is of another product line: its model_id is ")?;
                found.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            E::Rollback { found, minimum } => write!(
                f,
                "the artifact's security_counter {found} is below {minimum}: an older release than was confirmed already"
            ),
            E::Counter => f.write_str("the device's counter cannot be read"),
            E::Leaf { leaf, section } => {
                write!(
                    f,
                    "leaf {leaf}, of section {section:#x}, is not what was signed: the file was changed or damaged"
                )
            }
            E::Unchecked { leaves } => write!(f, "{leaves} leaves of the weights have not been checked"),
            E::Range => f.write_str("there are no such leaves or bytes"),
            E::Memory { needed, given } => write!(f, "{needed} bytes of memory are needed, and {given} were given"),
            E::Read { offset } => write!(f, "the bytes at {offset} cannot be read"),
        }
    }
}

impl core::error::Error for TrustError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        None
    }
}

impl TrustError {
    /// A section that lies outside of the file.
    pub(super) fn outside(section: u32) -> Self {
        FormatError::Section(section, "runs past the end of the file").into()
    }

    /// The section of the weights is not where it must be.
    pub(super) fn no_weights() -> Self {
        FormatError::section(SectionKind::Weights, "missing or out of order").into()
    }
}

impl SignatureAlgorithm {
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            SignatureAlgorithm::Ed25519 => "Ed25519",
            SignatureAlgorithm::EcdsaP256 => "ECDSA P-256",
        }
    }

    /// The feature of this crate that verifies it.
    pub const fn feature(self) -> &'static str {
        match self {
            SignatureAlgorithm::Ed25519 => "ed25519",
            SignatureAlgorithm::EcdsaP256 => "p256",
        }
    }
}
