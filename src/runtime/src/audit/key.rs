//! The secret key of a log, derived from 32 secret bytes (the root) of which the device keeps nothing else:
//!
//! ```text
//! digests  = HKDF(root, "slm log digest key v1")        keys the digests of questions and answers
//! name     = HKDF(root, "slm log key id v1")            is in the seals
//! seal 0   = HKDF(root, "slm log seal key v1")          makes a seal, once
//! seal n+1 = HKDF(seal n, "slm log next key v1")        and seal n is wiped
//! ```
//!
//! So whoever takes a device over finds the key of seals to come, and none of a seal that is in the log: what was sealed
//! cannot be written anew. The root is kept where logs are checked.

use super::record::SEAL_MESSAGE_BYTES;
use crate::hmac::{Hmac, hkdf, wipe};
use crate::sha256::Digest;

const DIGESTS: &[u8] = b"slm log digest key v1";
const NAME: &[u8] = b"slm log key id v1";
const SEAL: &[u8] = b"slm log seal key v1";
const NEXT: &[u8] = b"slm log next key v1";

/// Bytes of a key as it is kept over a restart: name, digest key, seal key, number.
pub const SAVED_KEY_BYTES: usize = 100;

/// The key of a log, at the number it has reached.
#[derive(Clone)]
pub struct LogKey {
    name: Digest,
    digests: Digest,
    seal: Digest,
    number: u32,
}

impl LogKey {
    /// The first key of a root. The caller wipes the root where the key is for a device.
    pub fn new(root: &[u8; 32]) -> Self {
        LogKey {
            name: hkdf(root, &[], NAME),
            digests: hkdf(root, &[], DIGESTS),
            seal: hkdf(root, &[], SEAL),
            number: 0,
        }
    }

    /// The key that follows the one [`LogKey::save`] gave before a restart: that one may have made a seal already.
    pub fn restore(saved: &[u8; SAVED_KEY_BYTES]) -> Self {
        let part = |at: usize| {
            let mut part = [0; 32];
            part.copy_from_slice(&saved[at..at + 32]);
            part
        };
        let number = u32::from_le_bytes([saved[96], saved[97], saved[98], saved[99]]);
        let mut key = LogKey { name: part(0), digests: part(32), seal: part(64), number };
        key.advance();
        key
    }

    /// What to keep over a restart, where nobody else can read it: after every seal and after [`LogKey::restore`], in the
    /// place of what was kept before.
    pub fn save(&self) -> [u8; SAVED_KEY_BYTES] {
        let mut saved = [0; SAVED_KEY_BYTES];
        saved[..32].copy_from_slice(&self.name);
        saved[32..64].copy_from_slice(&self.digests);
        saved[64..96].copy_from_slice(&self.seal);
        saved[96..].copy_from_slice(&self.number.to_le_bytes());
        saved
    }

    /// The name of the key in seals.
    pub fn name(&self) -> &Digest {
        &self.name
    }

    /// The key of digests.
    pub fn digests(&self) -> &Digest {
        &self.digests
    }

    /// How often the seal key has moved on.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The seal of a message by the key at its number.
    pub fn seal(&self, message: &[u8; SEAL_MESSAGE_BYTES]) -> Digest {
        Hmac::digest(&self.seal, message)
    }

    /// Moves the seal key on and wipes the one before.
    pub fn advance(&mut self) {
        let next = hkdf(&self.seal, &[], NEXT);
        wipe(&mut self.seal);
        self.seal = next;
        self.number = self.number.saturating_add(1);
    }
}

impl Drop for LogKey {
    fn drop(&mut self) {
        wipe(&mut self.seal);
        wipe(&mut self.digests);
    }
}

impl core::fmt::Debug for LogKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LogKey at number {}", self.number)
    }
}
