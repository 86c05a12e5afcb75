//! What verifies signatures: the crates of the features `ed25519` and `p256`, or a device's hardware (a PKA, a secure
//! element). Signatures come here in one form only: of the many encodings of one signature all but one are refused before,
//! so that hardware need not.

use super::Key;
use crate::format::signature::SignatureAlgorithm;
use crate::sha256::{Engine, Software};

/// The answer of a [`Verifier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The signature is the key's over the message.
    Valid,
    /// It is not, or the key is not a key.
    Invalid,
    /// This verifier lacks the algorithm.
    Unable,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Verdict::Valid } else { Verdict::Invalid }
    }
}

/// What verifies signatures and computes the digests beside them.
pub trait Verifier: Engine {
    /// Whether a signature (64 bytes as in [`crate::format::signature::SignatureSlot`]) is a key's over a message, whose
    /// pieces follow each other. Keys of small order are not keys.
    fn verify(&self, key: &Key<'_>, message: &[&[u8]], signature: &[u8; 64]) -> Verdict;
}

impl Verifier for Software {
    fn verify(&self, key: &Key<'_>, message: &[&[u8]], signature: &[u8; 64]) -> Verdict {
        match key {
            #[cfg(feature = "ed25519")]
            Key::Ed25519(bytes) => {
                let key = ed25519_compact::PublicKey::new(**bytes);
                let signature = ed25519_compact::Signature::new(*signature);
                let Ok(mut state) = key.verify_incremental(&signature) else { return Verdict::Invalid };
                message.iter().for_each(|piece| state.absorb(piece));
                state.verify().is_ok().into()
            }
            #[cfg(feature = "p256")]
            Key::P256(bytes) => {
                use p256::ecdsa::signature::hazmat::PrehashVerifier;
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&bytes[..]);
                let signature = p256::ecdsa::Signature::from_slice(signature);
                let (Ok(key), Ok(signature)) = (key, signature) else { return Verdict::Invalid };
                key.verify_prehash(&self.digest(message), &signature).is_ok().into()
            }
            #[cfg(not(all(feature = "ed25519", feature = "p256")))]
            _ => {
                let _ = (message, signature);
                Verdict::Unable
            }
        }
    }
}

/// Half of the order of P-256, rounded down: the largest s of a signature in the one form that is taken.
const P256_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Order of the base point of Ed25519, big-endian.
const ED25519_ORDER: [u8; 32] = [
    0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x14, 0xde, 0xf9,
    0xde, 0xa2, 0xf7, 0x9c, 0xd6, 0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3, 0xed,
];

/// Refuses a signature in another form than the one that signers write: whoever has one could make a second of it, which
/// would verify too.
pub(super) fn check_form(algorithm: SignatureAlgorithm, signature: &[u8; 64]) -> Result<(), &'static str> {
    let mut second = [0; 32];
    second.copy_from_slice(&signature[32..]);
    let zero = |half: &[u8]| half.iter().all(|&byte| byte == 0);
    match algorithm {
        SignatureAlgorithm::Ed25519 => {
            second.reverse();
            if second >= ED25519_ORDER { Err("is not in its only form: S is not below the order") } else { Ok(()) }
        }
        SignatureAlgorithm::EcdsaP256 if zero(&signature[..32]) || zero(&second) => Err("has a zero for r or s"),
        SignatureAlgorithm::EcdsaP256 if second > P256_HALF_ORDER => {
            Err("is the higher of two that verify: s is above half of the order")
        }
        SignatureAlgorithm::EcdsaP256 => Ok(()),
    }
}
