//! Why an artifact is not sealed or opened.

use crate::disk::atomic::AtomicError;
use slm_runtime::format::FormatError;
use slm_runtime::format::header::MAX_SECTIONS;
use slm_runtime::format::seal::{MAX_STANZAS, STANZA_BYTES};
use slm_runtime::seal::SealError;
use std::path::PathBuf;

/// A fault of sealing or opening.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// Not a sound artifact.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The weights stay closed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The weights are in cipher already.
    #[error("is sealed already; `slmc unseal` opens it, `slmc key-stanza` adds a device to it")]
    Sealed,
    /// The host part was cut off, and its digest is in the header.
    #[error("its host part was cut off, and the header has its digest; pass the whole file")]
    DeviceOnly,
    /// Another model's weights would stay readable.
    #[error(
        "carries a draft model, whose weights would stay readable: sealing closes the section `weights` alone; compile without \
         --draft"
    )]
    Draft,
    /// No key would open it.
    #[error("nobody could open it: name at least one device's key with --device-key")]
    NoKeys,
    /// Too many keys.
    #[error(
        "{keys} keys are more than the {MAX_STANZAS} stanzas that a file can have; stanzas of further devices travel beside it"
    )]
    Keys {
        /// Keys that were given.
        keys: usize,
    },
    /// One key twice.
    #[error("two of the keys are the same")]
    SameKeys,
    /// No room in the section table.
    #[error("the file would have more than the {MAX_SECTIONS} sections that a file can have")]
    Sections,
    /// A stanza cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file that is not a stanza.
    #[error("{}: has {found} bytes, and a stanza has {STANZA_BYTES}; `slmc key-stanza` writes one", path.display())]
    Stanza {
        /// The file.
        path: PathBuf,
        /// Bytes that there are.
        found: usize,
    },
    /// A stanza that another would replace.
    #[error("{}: exists, and stanzas are not replaced; pass another name, or remove it first", path.display())]
    StanzaExists {
        /// The file.
        path: PathBuf,
    },
    /// A recipient that is not one of age.
    #[error("{text}: not a recipient of age: expected age1 and 58 letters, as `age-keygen` writes it")]
    Recipient {
        /// What was passed.
        text: String,
    },
    /// An output that cannot be put in place.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
    /// What was opened is not what was compiled.
    #[error("what the key opened is not what the tensors' digests are of: {0}")]
    Opened(FormatError),
}
