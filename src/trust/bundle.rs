//! Sigstore bundles of version 0.3 with one envelope and a plain public key, and files of several envelopes:
//!
//! ```text
//! {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
//!  "verificationMaterial": {"publicKey": {"hint": HINT}, "tlogEntries": []},
//!  "dsseEnvelope": {…}}                                             NAME.sigstore.json
//! an envelope on each line, without what is around it               NAME.intoto.jsonl
//! ```
//!
//! Nothing of a bundle but its envelope is believed: hints say which key might be meant, and the keys come from whoever
//! verifies. Bundles with certificates or transparency logs are Sigstore's own; they are refused by name, and cosign
//! verifies them.

use super::dsse::Envelope;
use super::statement::{PAYLOAD_TYPE, Statement};
use super::{PublicKey, SecretKey, TrustError};
use crate::disk::hash::{Hash, hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// What a bundle begins with.
pub const MAGIC: &[u8] = br#"{"mediaType":"application/vnd.dev.sigstore.bundle"#;
/// What a file of several envelopes begins with.
pub const LINES_MAGIC: &[u8] = br#"{"payload":""#;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Longest file that is read: a statement that names every file of a large checkpoint is a hundredth of it.
const LONGEST: u64 = 16 << 20;

/// The parts of a bundle that are looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    media_type: Option<String>,
    #[serde(default)]
    verification_material: Value,
    dsse_envelope: Option<Envelope>,
    #[serde(default)]
    message_signature: Value,
}

/// A statement signed and in a bundle, as one line with its end. `hint` and `keyid` name the key as the reader of the bundle
/// expects it.
///
/// # Errors
/// As for [`SecretKey::sign`].
pub fn sign(
    statement: &Statement,
    key: &SecretKey,
    (hint, keyid): (String, String),
) -> Result<(Envelope, String), TrustError> {
    let envelope = Envelope::sign(PAYLOAD_TYPE, &statement.to_json(), key, keyid)?;
    let text = of_envelope(&envelope, hint);
    Ok((envelope, text))
}

/// A bundle around an envelope, as one line with its end.
pub fn of_envelope(envelope: &Envelope, hint: String) -> String {
    let bundle = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    });
    format!("{bundle}\n")
}

/// Envelopes, one a line.
pub fn lines(envelopes: &[Envelope]) -> String {
    envelopes.iter().map(|envelope| format!("{}\n", json!(envelope))).collect()
}

/// A statement whose signature was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The file, with the line of one that has several.
    pub file: String,
    /// What is said of the artifact.
    pub predicate_type: String,
    /// The key that signed it.
    pub key_id: String,
    /// What a test result says: PASSED, WARNED or FAILED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The statement.
    #[serde(skip)]
    pub statement: Statement,
}

impl Checked {
    /// Whether it says nothing against the artifact: of a test result, that the tests passed, in the words of its specification.
    pub fn passed(&self) -> bool {
        !self.statement.is_test_result() || matches!(self.result.as_deref(), Some("PASSED" | "WARNED"))
    }
}

/// Envelopes of a bundle or of a file of several, each with its place.
///
/// # Errors
/// [`TrustError::Bundle`].
pub fn read(path: &Path) -> Result<Vec<(String, Envelope)>, TrustError> {
    let name = path.display().to_string();
    let unread =
        |error: std::io::Error| TrustError::Bundle { place: name.clone(), fault: format!("cannot be read: {error}") };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unread)?;
    envelopes(&bytes)
        .map_err(|(line, fault)| TrustError::Bundle { place: place(&name, line), fault })
        .map(|found| found.into_iter().map(|(line, envelope)| (place(&name, line), envelope)).collect())
}

fn place(name: &str, line: Option<usize>) -> String {
    line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
}

/// Where something is in a file of several envelopes: its line, from 1.
type Line = Option<usize>;

/// Envelopes of the content of a file, each with its line where there are several. The error is a fault with its line.
///
/// # Errors
/// Anything but bundles and envelopes.
pub fn envelopes(bytes: &[u8]) -> Result<Vec<(Line, Envelope)>, (Line, String)> {
    if bytes.len() as u64 > LONGEST {
        return Err((None, format!("is longer than {LONGEST} bytes, which no attestation is")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| (None, "is not UTF-8, and so not JSON".to_owned()))?;
    // A bundle may be spread over lines; a file of several has one on each.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return Ok(vec![(None, envelope(value).map_err(|fault| (None, fault))?)]);
    }
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = Some(index + 1);
        let value = serde_json::from_str(line).map_err(|error| (line_number, format!("is not JSON: {error}")))?;
        found.push((line_number, envelope(value).map_err(|fault| (line_number, fault))?));
    }
    match found.is_empty() {
        true => Err((None, "is empty; expected a Sigstore bundle, or envelopes one a line".to_owned())),
        false => Ok(found),
    }
}

/// The envelope of a bundle, or one that stands alone.
fn envelope(value: Value) -> Result<Envelope, String> {
    let wrong = |error: serde_json::Error| format!("is not a Sigstore bundle with an envelope: {error}");
    if value.get("payloadType").is_some() {
        return serde_json::from_value(value).map_err(wrong);
    }
    let parts: Parts = serde_json::from_value(value).map_err(wrong)?;
    match parts.media_type.as_deref() {
        Some(kind) if kind.starts_with("application/vnd.dev.sigstore.bundle") => {}
        Some(kind) => return Err(format!("is of media type `{kind}`; expected a Sigstore bundle")),
        None => return Err("is not a Sigstore bundle: it has no `mediaType`".to_owned()),
    }
    if !parts.message_signature.is_null() {
        return Err("signs a file's digest and states nothing; expected a bundle with a `dsseEnvelope`".to_owned());
    }
    let material = &parts.verification_material;
    for of_sigstore in ["certificate", "x509CertificateChain"] {
        if material.get(of_sigstore).is_some_and(|value| !value.is_null()) {
            return Err("is signed by a certificate of Sigstore, not by a key; cosign verifies it".to_owned());
        }
    }
    let envelope = parts.dsse_envelope.ok_or("is a Sigstore bundle without a `dsseEnvelope`")?;
    match envelope.signatures.len() {
        1 => Ok(envelope),
        count => Err(format!("has {count} signatures; a Sigstore bundle has exactly one")),
    }
}

/// Checks that everything in a file is a statement about a file with this SHA-256, signed by one of some keys.
///
/// # Errors
/// [`TrustError::Bundle`] for the first that is not.
pub fn check(path: &Path, keys: &[PublicKey], sha256: &Hash) -> Result<Vec<Checked>, TrustError> {
    read(path)?.into_iter().map(|(place, envelope)| check_one(place, &envelope, keys, sha256)).collect()
}

fn check_one(place: String, envelope: &Envelope, keys: &[PublicKey], sha256: &Hash) -> Result<Checked, TrustError> {
    let fault = |fault: String| TrustError::Bundle { place: place.clone(), fault };
    if keys.is_empty() {
        return Err(fault(
            "cannot be checked without a key; pass --key with the public key of who signed it".to_owned(),
        ));
    }
    // Whether it is damaged is the same for every key; what the first says is what is said.
    let mut first = None;
    for key in keys {
        match envelope.open(key) {
            Ok(body) => {
                let statement =
                    Statement::read(&envelope.payload_type, &body).map_err(|error| fault(error.to_string()))?;
                if !statement.subject.iter().any(|subject| subject.is(sha256)) {
                    let about: Vec<&str> =
                        statement.subject.iter().filter_map(|subject| subject.name.as_deref()).collect();
                    return Err(fault(format!(
                        "is about {}, and not about a file with SHA-256 {}; it was made for another artifact, or the artifact was \
                         changed since",
                        if about.is_empty() { "files without names".to_owned() } else { about.join(", ") },
                        hex(sha256)
                    )));
                }
                return Ok(Checked {
                    file: place,
                    predicate_type: statement.predicate_type.clone(),
                    key_id: hex(&key.id()),
                    result: statement.test_result().map(str::to_owned),
                    statement,
                });
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(fault(first.map_or_else(String::new, |error| error.to_string())))
}

#[cfg(test)]
mod tests;
