//! The artifact that something is said about: checked whole, with its hashes and its own provenance.

use super::AttestError;
use crate::artifact::host::ArtifactFile;
use crate::artifact::inspect::{InspectReport, inspect};
use crate::disk::hash::{Hash, sha256};
use crate::trust::statement::Resource;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// An artifact, every digest of which holds.
pub struct Subject {
    /// Where it is.
    pub path: PathBuf,
    /// Its file name.
    pub name: String,
    /// SHA-256 of the whole file.
    pub sha256: Hash,
    /// SHA-256 of its device part, which is what `compile --device-only` writes.
    pub device_sha256: Hash,
    /// Whether its header page is signed.
    pub signed: bool,
    /// How it was made.
    pub provenance: Value,
    /// What is in it.
    pub content: InspectReport,
}

impl Subject {
    /// Opens an artifact and checks every digest of it.
    ///
    /// # Errors
    /// [`AttestError`] for a damaged file, and for one without provenance.
    pub fn open(path: &Path) -> Result<Self, AttestError> {
        let file = ArtifactFile::open(path)?;
        let view = file.view()?;
        let bytes = view.bytes();
        let device = usize::try_from(view.header().device_bytes).unwrap_or(usize::MAX).min(bytes.len());
        let content = inspect(path)?;
        let no_provenance = || AttestError::NoProvenance { path: path.to_owned() };
        let provenance = content.provenance.clone().ok_or_else(no_provenance)?;
        Ok(Subject {
            path: path.to_owned(),
            name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            sha256: sha256(bytes),
            device_sha256: sha256(&bytes[..device]),
            signed: view.header().signature != 0,
            provenance,
            content,
        })
    }

    /// The file, and its first part as a device has it.
    pub(super) fn resources(&self) -> Vec<Resource> {
        vec![
            Resource::file(&self.name, &self.sha256),
            Resource::file(format!("{} (device part)", self.name), &self.device_sha256),
        ]
    }
}
