//! `slmc verify`

use crate::artifact::verify::{Opener, verify};
use crate::disk::hash::file_sha256;
use crate::seal::sealing::read_stanza;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;
use crate::trust::policy::{Policy, parse_uuid};
use crate::trust::{DeviceKey, PublicKey, TrustError, bundle};
use std::path::{Path, PathBuf};

/// Check an artifact: its digests, its signatures, and its logits here
///
/// Every digest is computed again, and the golden prompts are run on this machine. Any changed byte, a file cut short,
/// or logits that differ from the build machine's are exit code 2. With --key also a file that none of the keys signed;
/// fewer signatures than --threshold, a counter below --min-counter or another --model-id are exit code 1. Without --key a
/// signature is named and not checked. With --bundle also attestations: one that is not about this very file, or that none of
/// the keys signed, is exit code 2; test results that failed are exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc verify out/mixed.slm
  slmc verify out/mixed.slm --key release.pub --min-counter 3
  slmc verify out/mixed.slm --key release.pub --key auditor.pub --threshold 2
  slmc verify out/mixed.slm --bundle out/mixed.slm.intoto.jsonl --bundle-key release.pub")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    /// Public key in SPKI PEM: a path, file:PATH or env:VAR; several may be given
    #[arg(long, value_name = "PUB")]
    key: Vec<String>,

    /// Different keys of these that must have signed, 1 or 2 [default: 1]
    #[arg(long, value_name = "N", requires = "key")]
    threshold: Option<usize>,

    /// Least counter against rollback
    #[arg(long, value_name = "N", requires = "key")]
    min_counter: Option<u64>,

    /// UUID of the product line
    #[arg(long, value_name = "UUID", requires = "key", value_parser = parse_uuid)]
    model_id: Option<[u8; 16]>,

    /// Attestations to check: a Sigstore bundle, or envelopes one a line; several may be given
    ///
    /// Everything in them must be signed by one of the keys and be about this file, as `slmc attest` writes it.
    #[arg(long, value_name = "FILE")]
    bundle: Vec<PathBuf>,

    /// Public key of who attests [default: those of --key]; several may be given
    #[arg(long, value_name = "PUB", requires = "bundle")]
    bundle_key: Vec<String>,

    /// Key of a device that opens sealed weights: a path, file:PATH or env:VAR
    ///
    /// Without it the digests and signatures of a sealed file are checked, and neither tensors nor logits.
    #[arg(long, value_name = "KEY")]
    device_key: Option<String>,

    /// Stanza of the device that travels beside the file
    #[arg(long, value_name = "FILE", requires = "device_key")]
    stanza: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let read = |places: &[String]| -> Result<Vec<PublicKey>, TrustError> {
            places.iter().map(|text| PublicKey::read(text, Path::new(""))).collect()
        };
        let keys = read(&self.key)?;
        let attesters = if self.bundle_key.is_empty() { keys.clone() } else { read(&self.bundle_key)? };
        let policy = match keys.is_empty() {
            true => None,
            false => Some(Policy::new(keys, self.threshold.unwrap_or(1), self.min_counter, self.model_id)?),
        };
        let artifact = &self.artifact.artifact;
        let opener = match &self.device_key {
            None => None,
            Some(place) => {
                let key = DeviceKey::read(place)?;
                key.warning().into_iter().for_each(|warning| shell.warn(warning));
                Some(Opener { key, stanza: self.stanza.as_deref().map(read_stanza).transpose()? })
            }
        };
        let mut report = verify(artifact, policy.as_ref(), opener.as_ref())?;
        if !self.bundle.is_empty() {
            let sha256 = file_sha256(artifact)?;
            for bundle in &self.bundle {
                report.attestations.extend(bundle::check(bundle, &attesters, &sha256)?);
            }
        }
        shell.result(&report)?;
        Ok(if report.passed() { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
