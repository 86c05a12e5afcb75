//! `slmc verify`: every digest of an artifact, its signatures, then its golden prompts through the runtime on this machine.

use crate::artifact::host::{ArtifactError, ArtifactFile, SessionMemory};
use crate::artifact::text::{TokenizerSummary, compare, host_only};
use crate::disk::hash::hex;
use crate::machine::kernels::kernels_for;
use crate::report::{Report, Table};
use crate::seal::sealing::weights;
use crate::trust::DeviceKey;
use crate::trust::bundle::Checked;
use crate::trust::policy::{Policy, SignedReport};
use serde::Serialize;
use slm_runtime::format::FormatError;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::seal::{STANZA_BYTES, SealCipher};
use slm_runtime::self_test::golden_digest;
use std::path::Path;

/// Result of `slmc verify`.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Target it was compiled for.
    pub target: String,
    /// Tensors whose digests hold.
    pub tensors: usize,
    /// Prompts whose logits are the stated ones.
    pub golden_prompts: usize,
    /// Digest of those logits.
    pub golden_sha256: String,
    /// Who turns text into tokens.
    pub tokenizer: TokenizerSummary,
    /// Texts of which device and host make the same tokens; absent where one of them has no tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenized_texts: Option<u64>,
    /// Whether the file has no host part.
    pub device_only: bool,
    /// Kernels that computed them.
    pub kernel: &'static str,
    /// Cipher of the weights; absent where they are not sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<&'static str>,
    /// Whether a device's key opened them; without it neither tensors nor logits are looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsealed: Option<bool>,
    /// Who signed it; absent where nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedReport>,
    /// What is attested of it, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Checked>,
}

impl VerifyReport {
    /// Whether all that was asked for holds.
    pub fn passed(&self) -> bool {
        self.signed.as_ref().is_none_or(|signed| signed.missed.is_empty())
            && self.attestations.iter().all(Checked::passed)
    }
}

impl Report for VerifyReport {
    const SCHEMA: &'static str = "slmc.verify/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["target", &self.target]);
        match (self.sealed, self.unsealed) {
            (Some(cipher), Some(false)) => {
                table.row(["digests", "those of the file hold"]);
                table.row(["weights", &format!("sealed ({cipher}): not looked at; --device-key opens them")]);
            }
            (sealed, _) => {
                table.row(["digests", &format!("file and {} tensors hold", self.tensors)]);
                if let Some(cipher) = sealed {
                    table.row(["weights", &format!("sealed ({cipher}); the key opens every leaf")]);
                }
                table.row([
                    "golden prompts",
                    &format!("{} give the stated logits ({} kernel)", self.golden_prompts, self.kernel),
                ]);
            }
        }
        self.tokenizer.rows(&mut table);
        if let Some(texts) = self.tokenized_texts {
            table.row(["", &format!("the same tokens as the host's for {texts} texts")]);
        }
        if self.device_only {
            table.row(["host part", "absent: written for the device only"]);
        }
        if let Some(signed) = &self.signed {
            signed.rows(&mut table);
        }
        for checked in &self.attestations {
            let Checked { file, predicate_type, key_id, result, .. } = checked;
            let result = result.as_ref().map_or_else(String::new, |result| format!(": {result}"));
            table.row(["attested", &format!("{predicate_type}{result}, by {key_id} ({file})")]);
            if !checked.passed() {
                table.row(["", "does not say that the tests passed: its result is neither PASSED nor WARNED"]);
            }
        }
        table.to_string()
    }
}

/// A device's key, and the stanza that travels beside the file where it has none for the device.
pub struct Opener {
    /// The key.
    pub key: DeviceKey,
    /// The stanza.
    pub stanza: Option<[u8; STANZA_BYTES]>,
}

/// Verifies an artifact, and its signatures as far as a policy has their keys. Of a sealed one tensors and logits are looked at
/// where a device's key opens it.
pub fn verify(path: &Path, policy: Option<&Policy>, opener: Option<&Opener>) -> Result<VerifyReport, ArtifactError> {
    let file = ArtifactFile::open(path)?;
    let view = file.view()?;
    // Opening compares the file's digests. The table's are checked against the tensors as well: a file that lies about them
    // under a right digest of its own is no artifact that slmc wrote.
    view.verify_tensors().map_err(|error| ArtifactError::Format { path: path.to_owned(), error })?;
    let signed =
        SignedReport::of(&view, policy).map_err(|error| ArtifactError::Signature { path: path.to_owned(), error })?;
    let sealed = view.seal_cipher().map(SealCipher::name);
    let opened = opener
        .map(|opener| weights(&view, &opener.key, opener.stanza.as_ref()))
        .transpose()
        .map_err(|error| ArtifactError::Sealed { path: path.to_owned(), error: Box::new(error) })?;
    let unsealed = sealed.map(|_| opened.is_some());
    let (mut found, mut prompts) = (view.golden_digest(), 0);
    if unsealed != Some(false) {
        let running = match opened.as_deref() {
            None => view,
            // As long as the stored ones and aligned: otherwise they are not there.
            Some(weights) => view
                .with_weights(weights)
                .ok_or_else(|| ArtifactError::Format { path: path.to_owned(), error: FormatError::Sealed })?,
        };
        running.verify_tensors().map_err(|error| ArtifactError::Format { path: path.to_owned(), error })?;
        let mut memory = SessionMemory::for_artifact(&running);
        found = golden_digest(&running, kernels_for(view.layout()), memory.as_mut_slice())
            .map_err(|error| ArtifactError::Golden { path: path.to_owned(), error })?;
        prompts = view.golden_prompts().count();
    }
    if found != view.golden_digest() {
        let (expected, found) = (hex(&view.golden_digest()), hex(&found));
        return Err(ArtifactError::GoldenDiffers { path: path.to_owned(), expected, found });
    }
    let tokenized_texts = compare(&view, path)?;
    let provenance: Option<serde_json::Value> =
        view.section(SectionKind::Provenance).and_then(|bytes| serde_json::from_slice(bytes).ok());
    Ok(VerifyReport {
        target: view.target().to_owned(),
        tensors: view.tensor_count(),
        golden_prompts: prompts,
        golden_sha256: hex(&found),
        tokenizer: TokenizerSummary::of(&view, host_only(provenance.as_ref())),
        tokenized_texts,
        device_only: view.device_only(),
        kernel: kernels_for(view.layout()).name,
        sealed,
        unsealed,
        signed,
        attestations: Vec::new(),
    })
}
