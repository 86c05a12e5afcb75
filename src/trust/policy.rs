//! Whose signature an artifact has, and whether it is one that somebody asks for: `slmc verify --key`. Signatures are
//! verified by the runtime, as on a device.

use super::PublicKey;
use super::signing::{id_of, runtime_key};
use crate::disk::hash::hex;
use crate::report::Table;
use serde::Serialize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaves;
use slm_runtime::format::signature::{SignatureAlgorithm, slots};
use slm_runtime::sha256::{Digest, Software};
use slm_runtime::trust::{Check, Key, Trust, TrustError};

/// Why a signed artifact is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file is not what one of the keys signed.
    #[error("{0}")]
    Refused(TrustError),
    /// More signatures are asked for than the keys can make.
    #[error(
        "--threshold {threshold} needs as many different keys, and there are {keys}; pass each with --key, at most two"
    )]
    Threshold {
        /// Signatures asked for.
        threshold: usize,
        /// Different keys given.
        keys: usize,
    },
}

/// What is asked of an artifact.
#[derive(Clone)]
pub struct Policy {
    keys: Vec<PublicKey>,
    threshold: usize,
    min_counter: Option<u64>,
    model_id: Option<[u8; 16]>,
}

impl Policy {
    /// Signatures by `threshold` of some keys, a least counter, a product line.
    ///
    /// # Errors
    /// [`PolicyError::Threshold`].
    pub fn new(
        keys: Vec<PublicKey>,
        threshold: usize,
        min_counter: Option<u64>,
        model_id: Option<[u8; 16]>,
    ) -> Result<Self, PolicyError> {
        let mut distinct: Vec<PublicKey> = Vec::new();
        for key in keys {
            if !distinct.iter().any(|other| other.id() == key.id()) {
                distinct.push(key);
            }
        }
        if !(1..=2).contains(&threshold) || threshold > distinct.len() {
            return Err(PolicyError::Threshold { threshold, keys: distinct.len() });
        }
        Ok(Policy { keys: distinct, threshold, min_counter, model_id })
    }
}

/// A signature of an artifact.
#[derive(Clone, Debug, Serialize)]
pub struct SignatureReport {
    /// Number of the slot, from 1.
    pub slot: usize,
    /// Ed25519 or ECDSA P-256.
    pub algorithm: &'static str,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_id: String,
    /// Whether the key was given, and the signature is its own over the file; false where no key was given for it.
    pub checked: bool,
}

/// What an artifact says of who signed it, and how much of that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct SignedReport {
    /// Its signatures.
    pub signatures: Vec<SignatureReport>,
    /// Counter against rollback.
    pub security_counter: u64,
    /// Product line, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Bytes of a leaf.
    pub chunk_bytes: u64,
    /// Leaves that the signatures cover.
    pub leaves: u64,
    /// What was asked for and does not hold.
    pub missed: Vec<String>,
}

impl SignedReport {
    /// What a file says, checked as far as keys are given.
    ///
    /// # Errors
    /// A signature by one of the keys does not hold, there is none, or the file is not what was signed.
    pub fn of(artifact: &ArtifactView<'_>, policy: Option<&Policy>) -> Result<Option<Self>, PolicyError> {
        let (bytes, header) = (artifact.bytes(), artifact.header());
        if let Some(policy) = policy {
            check(bytes, policy).map_err(PolicyError::Refused)?;
        } else if header.signature == 0 {
            return Ok(None);
        }
        let known = |id: &Digest| policy.is_some_and(|policy| policy.keys.iter().any(|key| id_of(key) == *id));
        let found: Vec<_> = slots(bytes).collect();
        let signatures: Vec<SignatureReport> = found
            .iter()
            .map(|(slot, content)| SignatureReport {
                slot: *slot,
                algorithm: SignatureAlgorithm::from_number(content.algorithm)
                    .map_or("unknown", SignatureAlgorithm::name),
                key_id: hex(&content.key_id),
                checked: known(&content.key_id),
            })
            .collect();
        let mut signers: Vec<&Digest> = found.iter().map(|(_, slot)| &slot.key_id).filter(|id| known(id)).collect();
        signers.dedup();
        let leaves = Leaves::of(bytes, header);
        let mut report = SignedReport {
            signatures,
            security_counter: header.security_counter,
            model_id: (header.model_id != [0; 16]).then(|| uuid(&header.model_id)),
            chunk_bytes: leaves.most_bytes() as u64,
            leaves: leaves.count(),
            missed: Vec::new(),
        };
        if let Some(policy) = policy {
            report.missed = missed(&report, policy, signers.len(), &header.model_id);
        }
        Ok(Some(report))
    }

    /// Rows of a table for people.
    pub fn rows(&self, table: &mut Table) {
        for signature in &self.signatures {
            let checked = if signature.checked { "and the signature holds" } else { "not checked" };
            let (id, algorithm) = (&signature.key_id, signature.algorithm);
            table.row(["signature", &format!("signed by {id}, {checked} ({algorithm})")]);
        }
        table.row(["security_counter", &self.security_counter.to_string()]);
        if let Some(id) = &self.model_id {
            table.row(["model_id", id]);
        }
        for missed in &self.missed {
            table.row(["missed", missed]);
        }
    }
}

/// Opens a file as a device would that has these keys, any of which suffices here.
fn check(bytes: &[u8], policy: &Policy) -> Result<(), TrustError> {
    let raw: Vec<Vec<u8>> = policy.keys.iter().map(PublicKey::to_raw).collect();
    let keys: Vec<Key<'_>> = policy.keys.iter().zip(&raw).filter_map(|(key, raw)| runtime_key(key, raw)).collect();
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
    ArtifactView::open_signed(bytes, &trust, Check::Everything)?.artifact().map(|_| ())
}

/// What a policy asks for and the file does not have.
fn missed(report: &SignedReport, policy: &Policy, signers: usize, model_id: &[u8; 16]) -> Vec<String> {
    let mut missed = Vec::new();
    if signers < policy.threshold {
        missed.push(format!("{signers} of the keys signed it, and --threshold asks for {}", policy.threshold));
    }
    if let Some(least) = policy.min_counter.filter(|&least| report.security_counter < least) {
        missed.push(format!("security_counter {} is below --min-counter {least}", report.security_counter));
    }
    if let Some(id) = policy.model_id.filter(|id| id != model_id) {
        let found = report.model_id.as_deref().unwrap_or("none");
        missed.push(format!("model_id is {found}, and --model-id asks for {}", uuid(&id)));
    }
    missed
}

/// A UUID as people write it.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// The UUID in a text: 32 hexadecimal digits, with hyphens or without.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let fault = || format!("`{text}` is not a UUID, such as 6f1d2c3b-0a4e-4c5d-9e8f-001122334455");
    let hyphens: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'-').collect();
    if digits.len() != 32 || !(hyphens.is_empty() || hyphens == [8, 13, 18, 23]) {
        return Err(fault());
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(fault)?;
    }
    if id == [0; 16] {
        return Err(format!("`{text}` stands for no product line; leave the option out"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_they_are_written() {
        let text = "6f1d2c3b-0a4e-4c5d-9e8f-001122334455";
        let id = parse_uuid(text).expect("a UUID");
        assert_eq!((id[0], id[15], uuid(&id).as_str()), (0x6f, 0x55, text));
        assert_eq!(parse_uuid(&text.replace('-', "").to_uppercase()), Ok(id));
        let wrong = ["", "6f1d2c3b", "6f1d2c3b0a4e4c5d9e8f00112233445g", "6-f1d2c3b0a4e4c5d9e8f001122334455"];
        for text in wrong.into_iter().chain(["00000000-0000-0000-0000-000000000000"]) {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }
}
