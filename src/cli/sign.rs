//! `slmc sign`

use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use crate::report::{Report, Table};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;
use crate::trust::policy::{parse_uuid, uuid};
use crate::trust::signing::{SigningFields, Slot, ToSign, parse_chunk_bytes};
use crate::trust::{PublicKey, SecretKey, Signature};
use anyhow::{Context, bail};
use clap::ArgGroup;
use serde::Serialize;
use slm_runtime::format::header::MAGIC;
use slm_runtime::format::signature::SIGNED_PREFIX;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Sign an artifact, so that a device can tell who released it
///
/// Adds the digests of the file's leaves and signs the header page, which covers every byte of the file; a device-only file cut
/// from it keeps the signature. A second signature goes into slot 2: of the next key during a rotation, or of another party.
/// Where the key never leaves a token, a service or an air gap, --to-sign writes the bytes to sign and --signature puts
/// the result in place.
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("way").required(true).args(["key", "to_sign", "signature"])),
    after_help = "\
Examples:
  slmc sign out/mixed.slm --key release.pem --counter 3
  slmc sign out/mixed.slm --key env:NEXT_KEY --slot 2 -o out/rotated.slm
  slmc sign out/mixed.slm --to-sign header.bin
  openssl dgst -sha256 -sign hsm.pem -out header.sig header.bin
  slmc sign out/mixed.slm --signature header.sig --public-key hsm.pub"
)]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    /// Secret key in PKCS#8 PEM: a path, file:PATH, env:VAR or pkcs11:…
    // A key that is passed itself begins with hyphens: it must not come back in a message about an unknown option.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    key: Option<String>,

    /// Write the bytes that are to be signed, and nothing else
    #[arg(long, value_name = "OUT.bin")]
    to_sign: Option<PathBuf>,

    /// Signature over the bytes of --to-sign: 64 bytes, or DER for ECDSA P-256
    ///
    /// ECDSA is over their SHA-256, Ed25519 over the bytes themselves.
    #[arg(long, value_name = "SIG", requires = "public_key")]
    signature: Option<PathBuf>,

    /// Public key of --signature in SPKI PEM: a path, file:PATH or env:VAR
    #[arg(long, value_name = "PUB", requires = "signature")]
    public_key: Option<String>,

    /// Counter against rollback [default: as it is, 0 at first]
    ///
    /// A device that has confirmed a file with a higher one refuses this one. Raise it when older files must not run again.
    #[arg(long, value_name = "N")]
    counter: Option<u64>,

    /// UUID of the product line [default: as it is, none at first]
    ///
    /// A device that names one refuses the files of others.
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    model_id: Option<[u8; 16]>,

    /// Bytes of a leaf, a power of two from 4096 to 1048576 [default: as it is, 65536 at first]
    ///
    /// What is checked at once when the file is read in pieces, in as much memory. Smaller leaves make a longer list: 32 bytes
    /// for each.
    #[arg(long, value_name = "N", value_parser = parse_chunk_bytes)]
    chunk_bytes: Option<u8>,

    /// Place of the signature, 1 or 2 [default: 1]
    #[arg(long, value_name = "N", value_parser = slot)]
    slot: Option<Slot>,

    /// File to write instead of replacing FILE.slm; replaced if slmc made it
    #[arg(short, long, value_name = "OUT", conflicts_with = "to_sign")]
    out: Option<PathBuf>,
}

fn slot(text: &str) -> Result<Slot, String> {
    let slot = text.parse().ok().and_then(Slot::from_number);
    slot.ok_or_else(|| format!("`{text}` is not a slot; there are two, 1 and 2"))
}

/// Result of `slmc sign`.
#[derive(Debug, Serialize)]
struct SignReport {
    /// File that was written.
    out: PathBuf,
    /// Slot of the signature; absent where the bytes to sign were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u8>,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// How it was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    /// Counter against rollback.
    security_counter: u64,
    /// Product line.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
    /// Bytes of a leaf.
    chunk_bytes: u64,
    /// Leaves that are covered.
    leaves: u64,
    /// Slots whose signature was of the header before, and is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped_slots: Vec<u8>,
}

impl Report for SignReport {
    const SCHEMA: &'static str = "slmc.sign/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        match (&self.key_id, &self.algorithm, self.slot) {
            (Some(id), Some(algorithm), Some(slot)) => {
                table.row(["signature", &format!("signed by {id} ({algorithm}), slot {slot}")]);
            }
            _ => {
                let what = "SHA-256 of it for ECDSA P-256, as it is for Ed25519";
                table.row(["to sign", &format!("{}: {what}", self.out.display())]);
            }
        }
        table.row(["security_counter", &self.security_counter.to_string()]);
        if let Some(id) = &self.model_id {
            table.row(["model_id", id]);
        }
        table.row(["leaves", &format!("{} of {} bytes", self.leaves, self.chunk_bytes)]);
        for slot in &self.dropped_slots {
            table.row(["dropped", &format!("the signature in slot {slot}, which was of other values of the header")]);
        }
        table.to_string()
    }
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let path = &self.artifact.artifact;
        let key = self.key.as_deref().map(SecretKey::read).transpose()?;
        if let Some(warning) = key.as_ref().and_then(SecretKey::warning) {
            shell.warn(warning);
        }
        let public = self.public_key.as_deref().map(|text| PublicKey::read(text, Path::new(""))).transpose()?;
        let artifact = ArtifactFile::open(path)?;
        let fields = SigningFields { counter: self.counter, model_id: self.model_id, chunk_shift: self.chunk_bytes };
        let to_sign = ToSign::new(artifact.view()?.bytes(), &fields).with_context(|| path.display().to_string())?;
        let header = to_sign.header();
        let mut report = SignReport {
            out: self.out.clone().unwrap_or_else(|| path.clone()),
            slot: None,
            key_id: None,
            algorithm: None,
            security_counter: header.security_counter,
            model_id: (header.model_id != [0; 16]).then(|| uuid(&header.model_id)),
            chunk_bytes: 1 << header.chunk_shift,
            leaves: to_sign.leaves(),
            dropped_slots: to_sign.dropped().to_vec(),
        };
        if let Some(out) = &self.to_sign {
            atomic::write_file(out, SIGNED_PREFIX, |file| file.write_all(&to_sign.message()))?;
            report.out = out.clone();
            report.dropped_slots.clear();
            shell.result(&report)?;
            return Ok(ExitStatus::Success);
        }
        let (public, signature) = match (&key, &self.signature, &public) {
            (Some(key), ..) => (key.public(), key.sign(&to_sign.message())?),
            (None, Some(file), Some(public)) => (public, read_signature(file, public)?),
            // clap requires one of them.
            _ => bail!("pass --key, --to-sign, or --signature with --public-key"),
        };
        let slot = self.slot.unwrap_or(Slot::FIRST);
        let signed = to_sign.signed(slot, public, &signature).with_context(|| path.display().to_string())?;
        atomic::write_file(&report.out, &MAGIC, |file| file.write_all(&signed))?;
        report.slot = Some(slot.number());
        report.key_id = Some(crate::disk::hash::hex(&public.id()));
        report.algorithm = Some(public.algorithm().to_string());
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}

/// Longest file that is read as a signature: DER of P-256 has at most 72 bytes.
const LONGEST_SIGNATURE: u64 = 1024;

fn read_signature(path: &Path, key: &PublicKey) -> anyhow::Result<Signature> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    file.take(LONGEST_SIGNATURE)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    let signature = Signature::read(key.algorithm(), &bytes);
    signature.ok_or(crate::trust::signing::SigningError::NotASignature).with_context(|| path.display().to_string())
}
