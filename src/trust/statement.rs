//! in-toto statements, version 1: what somebody says about files that are named by their digests.
//!
//! ```text
//! {"_type": "https://in-toto.io/Statement/v1", "subject": [{"name", "digest": {"sha256": HEX}}],
//!  "predicateType": URI, "predicate": {…}}
//! ```

use super::TrustError;
use crate::disk::hash::{Hash, hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The payload type of an envelope with a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The type of a statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// A statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The type of all statements of this version.
    #[serde(rename = "_type")]
    kind: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    /// What the predicate is.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said.
    #[serde(default)]
    pub predicate: Value,
}

/// Something with a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Digests in hexadecimal by their algorithms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub annotations: Value,
}

impl Resource {
    /// A file by its SHA-256.
    pub fn file(name: impl Into<String>, sha256: &Hash) -> Self {
        Resource::digested(name, "sha256", hex(sha256))
    }

    /// Something by a digest.
    pub fn digested(name: impl Into<String>, algorithm: &str, digest: impl Into<String>) -> Self {
        let digest = BTreeMap::from([(algorithm.to_owned(), digest.into())]);
        Resource { name: Some(name.into()), digest, annotations: Value::Null }
    }

    /// The same with annotations.
    pub fn annotated(self, annotations: Value) -> Self {
        Resource { annotations, ..self }
    }

    /// Whether it is a file with this SHA-256.
    pub fn is(&self, sha256: &Hash) -> bool {
        self.digest.get("sha256").is_some_and(|digest| digest.eq_ignore_ascii_case(&hex(sha256)))
    }
}

impl Statement {
    /// A statement about some files.
    pub fn new(subject: Vec<Resource>, predicate_type: &str, predicate: Value) -> Self {
        Statement { kind: STATEMENT.to_owned(), subject, predicate_type: predicate_type.to_owned(), predicate }
    }

    /// Whether it says how tests went, in any version of that predicate.
    pub fn is_test_result(&self) -> bool {
        self.predicate_type.starts_with("https://in-toto.io/attestation/test-result/")
    }

    /// What it says, where it is a test result.
    pub fn test_result(&self) -> Option<&str> {
        self.is_test_result().then(|| self.predicate["result"].as_str()).flatten()
    }

    /// As JSON on one line, the bytes that are signed.
    pub fn to_json(&self) -> Vec<u8> {
        json!(self).to_string().into_bytes()
    }

    /// Reads the payload of an envelope.
    ///
    /// # Errors
    /// [`TrustError::Envelope`] for anything but a statement of version 1 with a subject.
    pub fn read(payload_type: &str, payload: &[u8]) -> Result<Self, TrustError> {
        let fault = |fault: String| TrustError::Envelope { fault };
        if payload_type != PAYLOAD_TYPE {
            return Err(fault(format!("the payload is of type `{payload_type}`; expected `{PAYLOAD_TYPE}`")));
        }
        let statement: Statement = serde_json::from_slice(payload)
            .map_err(|error| fault(format!("the payload is not an in-toto statement: {error}")))?;
        if statement.kind != STATEMENT {
            return Err(fault(format!("the statement is of type `{}`; expected `{STATEMENT}`", statement.kind)));
        }
        if statement.subject.is_empty() || statement.subject.iter().any(|subject| subject.digest.is_empty()) {
            return Err(fault("the statement names no subject by a digest".to_owned()));
        }
        Ok(statement)
    }
}
