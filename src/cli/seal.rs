//! `slmc seal`

use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use crate::report::{Report, Table, grouped};
use crate::seal::sealing::seal;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;
use crate::trust::policy::uuid;
use crate::trust::{DeviceKey, TrustError};
use anyhow::Context;
use serde::Serialize;
use slm_runtime::format::chunks::CHUNK_SHIFTS;
use slm_runtime::format::header::{Header, MAGIC};
use slm_runtime::format::seal::SealCipher;
use std::io::Write;
use std::path::PathBuf;

/// Put the weights of an artifact into cipher, for devices that hold a key
///
/// A key of the file is drawn, and closed for every device's key that is given; `slmc key-stanza` adds devices later, beside the
/// file. Then sign it: signatures are over the cipher, and one that the file had is gone. Architecture, vocabulary, tokenizer and
/// digests stay readable (docs/seal.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc keygen --type device -o gateway
  slmc seal out/mixed.slm --device-key gateway.key -o sealed.slm
  slmc sign sealed.slm --key release.pem")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    /// Key of a device: a path, file:PATH or env:VAR; may be repeated
    #[arg(long, value_name = "KEY", required = true)]
    device_key: Vec<String>,

    /// Cipher [default: chacha20-poly1305]
    #[arg(long, value_name = "CIPHER", value_enum)]
    cipher: Option<CipherName>,

    /// Bytes of a leaf, a power of two from 4096 to 1048576 [default: as it is, 65536 at first]
    ///
    /// What is opened at once where weights are opened leaf by leaf, in as much memory. A file that `age` can open has 65536.
    #[arg(long, value_name = "N", value_parser = chunk_shift)]
    chunk_bytes: Option<u8>,

    /// File to write; replaced if slmc made it
    #[arg(short, long, value_name = "OUT.slm")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CipherName {
    /// ChaCha20-Poly1305: five times as fast as AES in software on a microcontroller
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// AES-256-GCM: for hardware that has it, and where FIPS is asked for
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
}

/// log2 of a number of bytes.
fn chunk_shift(text: &str) -> Result<u8, String> {
    let bytes = text.parse::<u32>().ok().filter(|bytes| bytes.is_power_of_two());
    let shift = bytes.map(|bytes| bytes.ilog2() as u8).filter(|shift| CHUNK_SHIFTS.contains(shift));
    shift.ok_or_else(|| format!("`{text}` is not a power of two from 4096 to 1048576"))
}

/// Result of `slmc seal`.
#[derive(Debug, Serialize)]
struct SealReport {
    /// File that was written.
    out: PathBuf,
    /// Cipher of the weights.
    cipher: &'static str,
    /// Devices that open it.
    devices: usize,
    /// Leaves of the weights, each with a tag.
    leaves: u64,
    /// Bytes of a leaf.
    chunk_bytes: u64,
    /// Whether the file before was signed: that signature, its counter and its product line are gone.
    signature_dropped: bool,
    /// That counter: sign with it again, or devices that have confirmed it refuse the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_counter: Option<u64>,
    /// That product line.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_model_id: Option<String>,
}

impl Report for SealReport {
    const SCHEMA: &'static str = "slmc.seal/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["sealed", &format!("{} ({})", self.out.display(), self.cipher)]);
        table.row(["devices", &self.devices.to_string()]);
        table.row(["leaves", &format!("{} of {} bytes", grouped(self.leaves), grouped(self.chunk_bytes))]);
        let before = if self.signature_dropped { "the signature before is gone; " } else { "" };
        // What a new signature must say again, since it is no part of a file without one.
        let counter = self.dropped_counter.map(|counter| format!(" --counter {counter}")).unwrap_or_default();
        let model_id = self.dropped_model_id.as_ref().map(|id| format!(" --model-id {id}")).unwrap_or_default();
        let next = format!("`slmc sign {}{counter}{model_id} --key KEY` comes next", self.out.display());
        table.row(["signature", &format!("none: {before}{next}")]);
        table.to_string()
    }
}

/// Reads keys of devices, and warns of those that others can read.
pub(super) fn device_keys(places: &[String], shell: &Shell) -> Result<Vec<DeviceKey>, TrustError> {
    let keys = places.iter().map(|place| DeviceKey::read(place)).collect::<Result<Vec<_>, _>>()?;
    keys.iter().filter_map(DeviceKey::warning).for_each(|warning| shell.warn(warning));
    Ok(keys)
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let path = &self.artifact.artifact;
        let keys = device_keys(&self.device_key, shell)?;
        let cipher = match self.cipher.unwrap_or(CipherName::ChaCha20Poly1305) {
            CipherName::ChaCha20Poly1305 => SealCipher::ChaCha20Poly1305,
            CipherName::Aes256Gcm => SealCipher::Aes256Gcm,
        };
        let file = ArtifactFile::open(path)?;
        let before = *file.view()?.header();
        let sealed =
            seal(&file.view()?, cipher, &keys, self.chunk_bytes).with_context(|| path.display().to_string())?;
        atomic::write_file(&self.out, &MAGIC, |out| out.write_all(&sealed.bytes))?;
        shell.result(&SealReport {
            out: self.out.clone(),
            cipher: cipher.name(),
            devices: keys.len(),
            leaves: sealed.leaves,
            chunk_bytes: 1 << Header::from_bytes(&sealed.bytes).chunk_shift,
            signature_dropped: sealed.unsigned,
            dropped_counter: sealed.unsigned.then_some(before.security_counter),
            dropped_model_id: (sealed.unsigned && before.model_id != [0; 16]).then(|| uuid(&before.model_id)),
        })?;
        Ok(ExitStatus::Success)
    }
}
