//! What verifies signatures: the crates of the features `ed25519` and `p256`, or a device's hardware (a PKA, a secure
//! element). Signatures come here in one form only: of the many encodings of one signature all but one are refused before,
//! so that hardware need not.

use super::Key;
#[cfg(feature = "ed25519")]
use super::key::ED25519_BYTES;
#[cfg(feature = "p256")]
use super::key::P256_BYTES;
use crate::format::signature::{SignatureAlgorithm, zero};
#[cfg(feature = "p256")]
use crate::sha256::Digest;
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
            Key::Ed25519(bytes) => ed25519_verifies(bytes, message, signature).into(),
            #[cfg(feature = "p256")]
            Key::P256(bytes) => p256_verifies(bytes, &self.digest(message), signature).into(),
            #[cfg(not(all(feature = "ed25519", feature = "p256")))]
            _ => {
                let _ = (message, signature);
                Verdict::Unable
            }
        }
    }
}

// Each algorithm's memory is on the stack while it runs, and no longer.
#[cfg(feature = "ed25519")]
#[inline(never)]
fn ed25519_verifies(key: &[u8; ED25519_BYTES], message: &[&[u8]], signature: &[u8; 64]) -> bool {
    use ed25519_compact::{PublicKey, Signature, VerifyingState};
    // Called through pointers, so that the curve stays out of line: in this crate, whose kernels are built for speed, it would be
    // unrolled to twice its size. The profile `dist` builds the curve's own crate for size.
    let begin: fn(&PublicKey, &Signature) -> Result<VerifyingState, ed25519_compact::Error> =
        core::hint::black_box(PublicKey::verify_incremental);
    let end: fn(&VerifyingState) -> Result<(), ed25519_compact::Error> = core::hint::black_box(VerifyingState::verify);
    let Ok(mut state) = begin(&PublicKey::new(*key), &Signature::new(*signature)) else { return false };
    message.iter().for_each(|piece| state.absorb(piece));
    end(&state).is_ok()
}

#[cfg(feature = "p256")]
#[inline(never)]
fn p256_verifies(key: &[u8; P256_BYTES], digest: &Digest, signature: &[u8; 64]) -> bool {
    use p256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(key), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_prehash(digest, &signature).is_ok()
}

/// Half of the order of P-256, rounded down: the largest s of a signature in the one form that is taken.
const P256_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Order of the base point of Ed25519, little-endian as S is.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10,
];

/// Whether a little-endian number is below a bound of the same length. A function of its own: with a bound that the compiler
/// sees it would be unrolled.
#[inline(never)]
fn is_below(number: &[u8], bound: &[u8]) -> bool {
    let mut borrow = 0;
    for (&digit, &bound) in number.iter().zip(bound) {
        // Opaque, so that the loop stays one.
        borrow = core::hint::black_box(i32::from(i32::from(digit) - i32::from(bound) - borrow < 0));
    }
    borrow == 1
}

/// Refuses a signature in another form than the one that signers write: whoever has one could make a second of it, which
/// would verify too.
pub(super) fn check_form(algorithm: SignatureAlgorithm, signature: &[u8; 64]) -> Result<(), &'static str> {
    let (first, second) = signature.split_at(32);
    match algorithm {
        SignatureAlgorithm::Ed25519 if is_below(second, &ED25519_ORDER) => Ok(()),
        SignatureAlgorithm::Ed25519 => Err("is not in its only form: S is not below the order"),
        SignatureAlgorithm::EcdsaP256 if zero(first) || zero(second) => Err("has a zero for r or s"),
        SignatureAlgorithm::EcdsaP256 if second > &P256_HALF_ORDER[..] => {
            Err("is the higher of two that verify: s is above half of the order")
        }
        SignatureAlgorithm::EcdsaP256 => Ok(()),
    }
}
