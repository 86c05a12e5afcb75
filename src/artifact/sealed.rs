//! How the weights of an artifact are closed, as the file says it: the cipher, and for which devices. Nothing here is secret.

use crate::report::Table;
use serde::Serialize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaves;

/// The seal of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SealSummary {
    /// ChaCha20-Poly1305 or AES-256-GCM.
    pub cipher: &'static str,
    /// Bytes that are closed at once.
    pub chunk_bytes: u64,
    /// Names of the devices' keys that the file has a stanza for, 16 bytes each; they say nothing of the keys.
    pub device_key_ids: Vec<String>,
}

impl SealSummary {
    /// The seal; `None` where the weights are open.
    pub fn of(view: &ArtifactView<'_>) -> Option<Self> {
        let (seal, cipher) = view.seal().zip(view.seal_cipher())?;
        Some(SealSummary {
            cipher: cipher.name(),
            chunk_bytes: Leaves::of(view.bytes(), view.header()).most_bytes() as u64,
            device_key_ids: seal.stanzas().iter().map(|stanza| named(&stanza[..16])).collect(),
        })
    }

    /// Rows of a table for people.
    pub fn rows(&self, table: &mut Table) {
        table.row(["weights", &format!("sealed by {}; what follows of them is read without a key", self.cipher)]);
        if self.device_key_ids.is_empty() {
            table.row(["sealed for", "no device by itself: each needs a stanza beside the file (slmc key-stanza)"]);
        }
        for id in &self.device_key_ids {
            table.row(["sealed for", &format!("device key {id}")]);
        }
    }
}

/// The name of a key in hexadecimal digits.
fn named(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
