//! Why a package is not made, not applied or not read.

use crate::artifact::host::ArtifactError;
use crate::disk::atomic::AtomicError;
use slm_runtime::format::FormatError;
use std::io;
use std::path::PathBuf;

/// A fault of an artifact or of a package.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// An artifact that cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The package cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The package.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The package is damaged, or not for this artifact.
    #[error("{}: {error}", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// What the device would say.
        error: slm_runtime::update::UpdateError,
    },
    /// What a package makes is not an artifact.
    #[error("{}: becomes an artifact that no device opens: {error}", path.display())]
    Result {
        /// The package.
        path: PathBuf,
        /// The fault.
        error: FormatError,
    },
    /// The new artifact has no leaves to send.
    #[error("{}: has no chunk list, by which a device checks what it received; `slmc sign` makes one", path.display())]
    NoChunkList {
        /// The new artifact.
        path: PathBuf,
    },
    /// Both artifacts are the same for a device.
    #[error("{}: the same as {} for a device: there is nothing to update", new.display(), old.display())]
    Same {
        /// The old artifact.
        old: PathBuf,
        /// The new one.
        new: PathBuf,
    },
    /// A device that runs the old artifact would refuse the new one.
    #[error("{}: no device that runs {} takes it: {reason}", new.display(), old.display())]
    Refused {
        /// The old artifact.
        old: PathBuf,
        /// The new one.
        new: PathBuf,
        /// The reason and the remedy.
        reason: String,
    },
    /// A page or a section table that an update cannot use.
    #[error("{}: {error}", path.display())]
    Geometry {
        /// The artifact.
        path: PathBuf,
        /// The fault.
        error: slm_runtime::update::UpdateError,
    },
    /// The output cannot be put in place.
    #[error(transparent)]
    Write(#[from] AtomicError),
}
