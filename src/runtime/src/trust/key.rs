//! Public keys, which come from the firmware and never from a file. A key is named by the SHA-256 of its
//! SubjectPublicKeyInfo in DER, which for these two kinds is constant bytes before the key's own:
//!
//! ```text
//! Ed25519 (RFC 8410)  30 2a … 03 21 00 ‖ 32 bytes
//! P-256 (RFC 5480)    30 59 … 03 42 00 ‖ 04 ‖ x ‖ y, 32 bytes each
//! ```

use crate::format::signature::SignatureAlgorithm;
use crate::sha256::{Digest, Engine};

const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Bytes of an Ed25519 key.
pub const ED25519_BYTES: usize = 32;
/// Bytes of a P-256 key: an uncompressed point (SEC 1).
pub const P256_BYTES: usize = 65;

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'k> {
    /// A key of Ed25519.
    Ed25519(&'k [u8; ED25519_BYTES]),
    /// A key of ECDSA on P-256.
    P256(&'k [u8; P256_BYTES]),
}

impl<'k> Key<'k> {
    /// A key of Ed25519.
    pub const fn ed25519(bytes: &'k [u8; ED25519_BYTES]) -> Self {
        Key::Ed25519(bytes)
    }

    /// A key of ECDSA on P-256, as an uncompressed point: 4, x, y.
    pub const fn p256(point: &'k [u8; P256_BYTES]) -> Self {
        Key::P256(point)
    }

    /// A key of an algorithm; `None` where it has another length.
    pub fn from_bytes(algorithm: SignatureAlgorithm, bytes: &'k [u8]) -> Option<Self> {
        match algorithm {
            SignatureAlgorithm::Ed25519 => bytes.try_into().ok().map(Key::Ed25519),
            SignatureAlgorithm::EcdsaP256 => bytes.try_into().ok().map(Key::P256),
        }
    }

    /// What it verifies.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Key::Ed25519(_) => SignatureAlgorithm::Ed25519,
            Key::P256(_) => SignatureAlgorithm::EcdsaP256,
        }
    }

    /// Its own bytes.
    pub fn bytes(&self) -> &'k [u8] {
        match self {
            Key::Ed25519(bytes) => &bytes[..],
            Key::P256(bytes) => &bytes[..],
        }
    }

    /// The name that a signature slot has.
    pub fn id(&self, engine: &(impl Engine + ?Sized)) -> Digest {
        let prefix: &[u8] = match self {
            Key::Ed25519(_) => &ED25519_PREFIX,
            Key::P256(_) => &P256_PREFIX,
        };
        engine.digest(&[prefix, self.bytes()])
    }

    /// Refuses memory that was never written: flash that was erased or cleared must not become a key. Whether it is a point
    /// of the curve is the verifier's to say.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let bytes = self.bytes();
        let same = bytes.iter().all(|byte| byte == &bytes[0]);
        match self {
            _ if same && bytes[0] == 0 => Err("is all zeros: no key was written there"),
            _ if same && bytes[0] == 0xff => Err("is all ones: no key was written there"),
            Key::P256(bytes) if bytes[0] != 4 => Err("is not an uncompressed point: it does not begin with 4"),
            _ => Ok(()),
        }
    }
}
