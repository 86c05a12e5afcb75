//! Why nothing is said about an artifact.

use crate::artifact::host::ArtifactError;
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::trust::TrustError;
use std::path::PathBuf;

/// A fault of an artifact, of the result of a run, or of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The artifact is damaged, or not one.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// It does not say how it was made.
    #[error(
        "{}: carries no provenance, so nothing can be said of how it was made; attest the whole artifact, of which a --device-only \
         file is the first part",
        path.display()
    )]
    NoProvenance {
        /// The artifact.
        path: PathBuf,
    },
    /// Its provenance is not what slmc writes.
    #[error("{}: its provenance {fault}; compile it again with this slmc", path.display())]
    Provenance {
        /// The artifact.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// A result that cannot be used.
    #[error("{}: {fault}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// The fault and the remedy.
        fault: String,
    },
    /// A result of another artifact.
    #[error(
        "{}: no stage of this run made a file with SHA-256 {sha256}, so its gates are not those of {}; pass the result of the run \
         that made it, signed there if it is signed",
        results.display(),
        artifact.display()
    )]
    OtherArtifact {
        /// The result.
        results: PathBuf,
        /// The artifact.
        artifact: PathBuf,
        /// Its hash.
        sha256: String,
    },
    /// A value of the command line.
    #[error("{option} `{value}` {fault}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The fault and the remedy.
        fault: &'static str,
    },
    /// The program's own file.
    #[error("this program's own file cannot be found, so its hash cannot be stated")]
    Program(#[source] std::io::Error),
    /// A key or a signature.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// An output.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// A file that cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
}
