//! Why a store did not do what it was asked. A fault of a store never ends a run: it is warned of, and the result computed.
//! No text here holds a credential: places are named without user, password and query.

use super::Digest;
use std::path::PathBuf;

/// A fault of a store, of its configuration or of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of a store cannot be read or written.
    #[error("{}: cannot be {action}; check permissions and free space", path.display())]
    Io {
        /// What failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file of a store cannot be put in place.
    #[error(transparent)]
    Write(#[from] crate::disk::atomic::AtomicError),
    /// A server gave another answer than the one needed.
    #[error("{place}: {action} was answered with status {status}{}", remedy(*status))]
    Status {
        /// The store.
        place: String,
        /// The request.
        action: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// A server was not reached, or not in time.
    #[error("{place}: {action} failed: {reason}")]
    Transport {
        /// The store.
        place: String,
        /// The request.
        action: &'static str,
        /// Why.
        reason: String,
    },
    /// Content that does not have the digest it is named by.
    #[error("{place}: the blob {expected} has the SHA-256 {found}; it is not used")]
    Damaged {
        /// The store.
        place: String,
        /// Its name.
        expected: Digest,
        /// Hash of what was read.
        found: Digest,
    },
    /// An entry that cannot be used.
    #[error("{place}: the entry {key} {fault}; it is not used")]
    Entry {
        /// The store.
        place: String,
        /// Its key.
        key: Digest,
        /// The fault.
        fault: String,
    },
    /// A blob that an entry names and that is nowhere.
    #[error("the blob {digest} of the entry {key} is in none of the stores")]
    Gone {
        /// The entry.
        key: Digest,
        /// The blob.
        digest: Digest,
    },
    /// An output that is stored cannot be read, or changes while it is.
    #[error("{}: {fault}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// The URL of a store.
    #[error("the cache `{url}` {fault}")]
    Url {
        /// As given, without user and password.
        url: String,
        /// The fault and the remedy.
        fault: String,
    },
    /// A setting of the environment or of slmc.toml.
    #[error("{place}: {fault}")]
    Setting {
        /// Variable, option or file.
        place: String,
        /// The fault and the remedy.
        fault: String,
    },
    /// A key for signatures.
    #[error(transparent)]
    Key(#[from] crate::trust::TrustError),
}

/// What a person can do about a status.
fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "; check the credentials in the environment, and whether they may do this",
        404 => "; check the path of the URL",
        411 | 413 => "; the server takes no blobs of this size: raise its limit to 256 MiB or more",
        _ => "",
    }
}

impl StoreError {
    /// A fault of a file.
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> StoreError {
        move |source| StoreError::Io { action, path: path.to_owned(), source }
    }
}
