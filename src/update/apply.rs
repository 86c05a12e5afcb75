//! A package applied on this machine, by the code that a device runs: slot A is the old artifact, slot B becomes the new one's
//! device part. Its signature is not looked at here; `slmc verify --key` does.

use super::UpdateError;
use super::memory::{Fresh, Growing};
use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use crate::disk::hash::hex;
use crate::disk::mmap::MappedFile;
use crate::report::{Report, Table, grouped};
use serde::Serialize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::MAGIC;
use slm_runtime::update::{Device, Slot, install, required_bytes};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Most bytes of an artifact by those of what it is made of: a package that states more is not sound.
const MOST_GROWTH: u64 = 1 << 10;

/// Result of `slmc update apply`.
#[derive(Clone, Debug, Serialize)]
pub struct ApplyReport {
    /// The file written.
    pub out: PathBuf,
    /// Its length: the device part alone.
    pub bytes: u64,
    /// Leaves that were made.
    pub leaves: u32,
    /// `device_digest` of it.
    pub device_sha256: String,
}

impl Report for ApplyReport {
    const SCHEMA: &'static str = "slmc.update.apply/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["written", &self.out.display().to_string()]);
        table.row(["bytes", &format!("{}: the device part", grouped(self.bytes))]);
        table.row(["leaves", &grouped(self.leaves.into())]);
        table.row(["device digest", &self.device_sha256]);
        table.to_string()
    }
}

/// Makes the device part of the new artifact from the old artifact and a package.
///
/// # Errors
/// The package is refused, or the output cannot be written.
pub fn apply(old: &Path, package: &Path, out: &Path) -> Result<ApplyReport, UpdateError> {
    atomic::check_file(out, &MAGIC)?;
    let old = ArtifactFile::open(old)?;
    let view = old.view()?;
    let file = MappedFile::open(package).map_err(|source| UpdateError::Read { path: package.to_owned(), source })?;
    let bytes =
        updated(&view, file.bytes()).map_err(|error| UpdateError::Package { path: package.to_owned(), error })?;
    let result = |error| UpdateError::Result { path: package.to_owned(), error };
    let new = ArtifactView::open(&bytes).map_err(result)?;
    new.verify_digests().map_err(result)?;
    atomic::write_file(out, &MAGIC, |file| file.write_all(&bytes))?;
    Ok(ApplyReport {
        out: out.to_owned(),
        bytes: bytes.len() as u64,
        leaves: leaves_of(file.bytes()),
        device_sha256: hex(&new.header().device_digest),
    })
}

fn leaves_of(package: &[u8]) -> u32 {
    use slm_runtime::update::package::Head;
    package.first_chunk::<{ Head::BYTES }>().map_or(0, |start| Head::from_bytes(start).leaves)
}

/// What a device's second slot holds after a package: the device part of the new artifact.
///
/// # Errors
/// What the device says.
pub fn updated(old: &ArtifactView<'_>, package: &[u8]) -> Result<Vec<u8>, slm_runtime::update::UpdateError> {
    let mut source = package;
    let mut memory = vec![0; required_bytes(&mut source)?];
    let mut protected = Fresh::default();
    install(&mut protected, Slot::A, &old.header().device_digest)?;
    // Each leaf needs a record, so that a package bounds what can be made of it.
    let slot_bytes = (old.bytes().len() as u64 + package.len() as u64).saturating_mul(MOST_GROWTH);
    let mut flash = Growing { old: old.bytes(), new: Vec::new(), slot_bytes };
    let device = Device { package: &mut source, flash: &mut flash, protected: &mut protected, trust: &mut |_| true };
    slm_runtime::update::apply(device, &mut memory)?;
    Ok(flash.new)
}
