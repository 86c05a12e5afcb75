//! HMAC-SHA-256 (RFC 2104) and HKDF-SHA-256 (RFC 5869), over [`crate::sha256`]:
//!
//! ```text
//! HMAC(K, m)      = H((K' ^ 5c…5c) || H((K' ^ 36…36) || m))      K' = K padded with zeros to 64 bytes, H(K) where longer
//! extract(s, ikm) = HMAC(s, ikm)
//! expand(p, info) = HMAC(p, info || 01)                          the first block of T, 32 bytes
//! ```

use crate::sha256::{Digest, Sha256};

/// Bytes that one compression of SHA-256 takes.
const BLOCK: usize = 64;

/// A keyed digest of bytes that come in pieces.
#[derive(Clone)]
pub struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    /// Starts a digest, with no bytes in it yet.
    pub fn new(key: &[u8]) -> Self {
        let mut padded = [0; BLOCK];
        if key.len() > BLOCK {
            padded[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            padded[..key.len()].copy_from_slice(key);
        }
        let keyed = |pad: u8| {
            let mut hash = Sha256::new();
            let mut block = padded.map(|byte| byte ^ pad);
            hash.update(&block);
            wipe(&mut block);
            hash
        };
        let hmac = Hmac { inner: keyed(0x36), outer: keyed(0x5c) };
        wipe(&mut padded);
        hmac
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The keyed digest of all bytes appended.
    pub fn finish(self) -> Digest {
        let Hmac { inner, mut outer } = self;
        outer.update(&inner.finish());
        outer.finish()
    }

    /// The keyed digest of `bytes`.
    pub fn digest(key: &[u8], bytes: &[u8]) -> Digest {
        let mut hmac = Hmac::new(key);
        hmac.update(bytes);
        hmac.finish()
    }
}

/// HKDF with an output of 32 bytes: a key derived from `secret` for the purpose that `info` names.
pub fn hkdf(secret: &[u8], salt: &[u8], info: &[u8]) -> Digest {
    let mut extracted = Hmac::digest(salt, secret);
    let mut hmac = Hmac::new(&extracted);
    wipe(&mut extracted);
    hmac.update(info);
    hmac.update(&[1]);
    hmac.finish()
}

/// Whether two digests are equal, in a time that does not depend on where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && core::hint::black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

/// Overwrites a secret with zeros. The compiler must assume that the zeros are looked at, so they are written.
pub fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    core::hint::black_box(secret);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
        digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| std::format!("{byte:02x}")).collect()
    }

    /// The cases of RFC 4231: key, data, HMAC-SHA-256. Case 5 is of a truncated output.
    #[test]
    fn the_vectors_of_rfc_4231() {
        let cases: [(Vec<u8>, Vec<u8>, &str); 7] = [
            (
                [0x0b; 20].to_vec(),
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                [0xaa; 20].to_vec(),
                [0xdd; 50].to_vec(),
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                (1..=25).collect(),
                [0xcd; 50].to_vec(),
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            ([0x0c; 20].to_vec(), b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
            (
                [0xaa; 131].to_vec(),
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                [0xaa; 131].to_vec(),
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to \
                  be hashed before being used by the HMAC algorithm."
                    .to_vec(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, data, expected) in cases {
            let found = hex(&Hmac::digest(&key, &data));
            assert_eq!(found[..expected.len()], *expected);
            // In pieces.
            let mut hmac = Hmac::new(&key);
            data.chunks(7).for_each(|piece| hmac.update(piece));
            assert_eq!(hex(&hmac.finish()), found);
        }
    }

    /// The first 32 bytes of the SHA-256 cases of RFC 5869.
    #[test]
    fn the_vectors_of_rfc_5869() {
        let first = hkdf(&[0x0b; 22], &bytes("000102030405060708090a0b0c"), &bytes("f0f1f2f3f4f5f6f7f8f9"));
        assert_eq!(hex(&first), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let [secret, salt, info]: [Vec<u8>; 3] = [(0..0x50).collect(), (0x60..0xb0).collect(), (0xb0..=0xff).collect()];
        let second = hkdf(&secret, &salt, &info);
        assert_eq!(hex(&second), "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c");
        let third = hkdf(&[0x0b; 22], &[], &[]);
        assert_eq!(hex(&third), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    }

    #[test]
    fn digests_are_compared_whole_and_secrets_wiped() {
        assert!(equal(&[1, 2, 3], &[1, 2, 3]) && equal(&[], &[]));
        assert!(!equal(&[1, 2, 3], &[1, 2]) && !equal(&[1, 2, 3], &[1, 2, 2]) && !equal(&[0x81], &[1]));
        let mut secret = [7; 32];
        wipe(&mut secret);
        assert_eq!(secret, [0; 32]);
    }
}
