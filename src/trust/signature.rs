//! A signature: 64 bytes of Ed25519 (RFC 8032), or of ECDSA on P-256 with SHA-256, r ‖ s big-endian with s ≤ n/2.
//!
//! Every ECDSA signature (r, s) has a twin (r, n − s) that verifies too. Artifacts hold the lower one, and a
//! verifier refuses the other, so that nobody can change a signed file and keep it valid. Tools and tokens write either,
//! most as ASN.1 DER; [`Signature::read`] takes what they write.

use super::Algorithm;

/// A signature and the algorithm it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Signature {
    /// A signature as artifacts hold it, unchanged: an ECDSA signature with the higher s verifies with no key.
    pub fn from_bytes(algorithm: Algorithm, bytes: [u8; 64]) -> Self {
        Signature { algorithm, bytes }
    }

    /// A signature as another tool wrote it: 64 bytes, or for P-256 ASN.1 DER; of the twins the lower is taken. `None` for
    /// anything else.
    pub fn read(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let bytes = match algorithm {
            Algorithm::Ed25519 => bytes.try_into().ok()?,
            Algorithm::P256 => {
                let signature = p256::ecdsa::Signature::from_der(bytes);
                let signature = signature.or_else(|_| p256::ecdsa::Signature::from_slice(bytes)).ok()?;
                signature.normalize_s().to_bytes().into()
            }
        };
        Some(Signature { algorithm, bytes })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// As artifacts hold it.
    pub fn to_bytes(&self) -> [u8; 64] {
        self.bytes
    }

    /// As other tools expect it: ASN.1 DER for P-256, the 64 bytes for Ed25519. Zeros, which are not a signature, have no
    /// DER and stay as they are.
    pub fn to_standard(&self) -> Vec<u8> {
        match self.p256() {
            Some(signature) => signature.to_der().as_bytes().to_vec(),
            None => self.bytes.to_vec(),
        }
    }

    /// The signature for the crate that verifies it, where it is one of P-256 in range.
    pub(super) fn p256(&self) -> Option<p256::ecdsa::Signature> {
        let of_p256 = self.algorithm == Algorithm::P256;
        of_p256.then(|| p256::ecdsa::Signature::from_slice(&self.bytes).ok()).flatten()
    }
}
