//! Where results are kept: blobs, which are named by the SHA-256 of their content and never change, and entries, which
//! say under a key what a stage gave. The layout is that of Bazel's cache, so that any server with GET and PUT holds it:
//!
//! ```text
//! BASE/ac/KEY       an entry: an ActionResult, slmc's own part as JSON in its stdout_raw     entry, protobuf, signature
//! BASE/cas/SHA256   a blob: a file of an output, or 256 MiB of one                           outputs
//! ```
//!
//! A [`Store`] is one such place: a directory (`file`), a server (`http`), a bucket (`s3`). A [`Chain`] is the directory of
//! this machine with the shared places behind it; it verifies what it reads, warns once of a place that fails and goes on
//! without it. What a key is made of is decided by the recipe.

mod chain;
mod clean;
pub mod configuration;
mod digest;
mod entry;
mod error;
mod file;
#[cfg(feature = "remote-cache")]
mod http;
mod outputs;
mod protobuf;
pub mod report;
#[cfg(feature = "remote-cache")]
mod s3;
mod signature;
#[cfg(feature = "remote-cache")]
mod sigv4;

pub use chain::{Chain, Found, Origin, Remote};
pub use clean::{Cleaned, Listed, Verified};
pub use digest::{Blob, Digest};
pub use entry::{About, Entry, EntryFile, SCHEMA, canonical, digest_of, rest_of};
pub use error::StoreError;
pub use file::{FileStore, KeyLock};
pub use outputs::Outputs;
pub use signature::{Signer, Trusted};

use std::io::{Read, Write};

/// A place with blobs and entries. What it hands out is not to be trusted before it is verified.
pub trait Store: Send + Sync {
    /// For messages; without credentials.
    fn name(&self) -> String;

    /// Whether a blob is there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn has(&self, blob: &Blob) -> Result<bool, StoreError>;

    /// Writes the content of a blob; `false` where it is not there.
    ///
    /// # Errors
    /// [`StoreError`], after which some of it may have been written.
    fn get(&self, blob: &Blob, into: &mut dyn Write) -> Result<bool, StoreError>;

    /// Takes a blob.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(&self, blob: &Blob, content: &mut dyn Read) -> Result<(), StoreError>;

    /// The bytes of an entry.
    ///
    /// # Errors
    /// [`StoreError`].
    fn entry(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// Takes an entry, in the place of one that may be there. The blobs it names come before it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put_entry(&self, key: &Digest, entry: &[u8]) -> Result<(), StoreError>;
}

/// Longest entry that is read: a report of every matrix of a large model is a tenth of it.
const LONGEST_ENTRY: u64 = 64 << 20;
