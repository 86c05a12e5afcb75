//! A copy of an artifact that `age` opens (age-encryption.org/v1, C2SP age.md), for one X25519 recipient:
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 SHARE                        share = X25519(secret, 9), secret drawn for this file
//! BODY                                   ChaCha20-Poly1305(HKDF(X25519(secret, recipient), share ‖ recipient, info), 0, file key)
//! --- MAC                                HMAC-SHA-256(HKDF(file key, "", "header"), all of the header up to and including ---)
//! nonce 16 ‖ chunks of 64 KiB, each with its tag
//! ```
//!
//! Payload key and nonces of chunks are those of sealed weights, [`slm_runtime::seal::FileKey`]. X25519 is the crate
//! `ed25519-compact`'s.

use super::SealingError;
use ct_codecs::{Base64NoPadding, Encoder};
use ed25519_compact::x25519::{PublicKey, SecretKey};
use slm_runtime::hmac::{Hmac, hkdf};
use slm_runtime::seal::keys::FILE_KEY_BYTES;
use slm_runtime::seal::{FileKey, SealCipher, SealError, SoftwareCipher};
use zeroize::Zeroizing;

const CHUNK_BYTES: usize = 64 << 10;
const INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// Prefix of recipients, before the separator.
const PREFIX: &str = "age";
/// Digits of bech32 (BIP 173), by their values.
const DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Who can open a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// A recipient as `age-keygen` writes it: `age1…`, in bech32.
    ///
    /// # Errors
    /// [`SealingError::Recipient`].
    pub fn parse(text: &str) -> Result<Self, SealingError> {
        let fault = || SealingError::Recipient { text: text.to_owned() };
        let (prefix, data) = text.rsplit_once('1').filter(|(prefix, _)| *prefix == PREFIX).ok_or_else(fault)?;
        let value = |digit: u8| DIGITS.iter().position(|&known| known == digit).map(|value| value as u8);
        let values: Vec<u8> = data.bytes().map(value).collect::<Option<_>>().ok_or_else(fault)?;
        let spread = prefix.bytes().map(|byte| byte >> 5).chain([0]).chain(prefix.bytes().map(|byte| byte & 31));
        // The checksum of bech32 makes this 1, and so tells a recipient from one that was mistyped.
        if checksum(spread.chain(values.iter().copied())) != 1 {
            return Err(fault());
        }
        let payload = values.len().checked_sub(6).ok_or_else(fault)?;
        let (mut bytes, mut held, mut bits) = (Vec::with_capacity(32), 0u32, 0);
        for value in &values[..payload] {
            held = held << 5 | u32::from(*value);
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits) as u8);
                held &= (1 << bits) - 1;
            }
        }
        let key = bytes.try_into().ok().filter(|_| held == 0 && bits < 5).ok_or_else(fault)?;
        Ok(Recipient(key))
    }
}

fn checksum(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR
            .iter()
            .enumerate()
            .fold(next, |next, (bit, term)| if top >> bit & 1 == 1 { next ^ term } else { next })
    })
}

/// The copy of some bytes for a recipient.
///
/// # Errors
/// No random bytes, or a recipient that is not a point of the curve's large group.
pub fn encrypted(bytes: &[u8], recipient: &Recipient) -> Result<Vec<u8>, SealingError> {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(SealingError::Random);
    let (mut file_key, mut secret, mut nonce) = (Zeroizing::new([0; FILE_KEY_BYTES]), Zeroizing::new([0; 32]), [0; 16]);
    random(&mut *file_key)?;
    random(&mut *secret)?;
    random(&mut nonce)?;
    let mut out = header(&file_key, &SecretKey::new(*secret), recipient)?;
    out.extend(nonce);
    let chunks = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    let key = FileKey::new(SealCipher::ChaCha20Poly1305, &mut file_key, &nonce, chunks as u64);
    for chunk in 0..chunks {
        let part = &bytes[chunk * CHUNK_BYTES..bytes.len().min((chunk + 1) * CHUNK_BYTES)];
        let start = out.len();
        out.extend_from_slice(part);
        let tag = key.close(chunk as u64, &mut out[start..]).ok_or(SealError::Unable(SealCipher::ChaCha20Poly1305))?;
        out.extend(tag);
    }
    Ok(out)
}

fn header(file_key: &[u8; FILE_KEY_BYTES], secret: &SecretKey, recipient: &Recipient) -> Result<Vec<u8>, SealingError> {
    let weak = |_| SealingError::Recipient { text: "the recipient".to_owned() };
    let share = PublicKey::base_point().dh(secret).map_err(weak)?;
    let shared = PublicKey::new(recipient.0).dh(secret).map_err(weak)?;
    let salt = [&share[..], &recipient.0].concat();
    let key = Zeroizing::new(hkdf(&shared[..], &salt, INFO));
    let mut body = file_key.to_vec();
    let tag = SoftwareCipher.close(SealCipher::ChaCha20Poly1305, &key, &[0; 12], &mut body);
    body.extend(tag.ok_or(SealError::Unable(SealCipher::ChaCha20Poly1305))?);
    let text = |bytes: &[u8]| Base64NoPadding::encode_to_string(bytes).unwrap_or_default();
    let signed = format!("age-encryption.org/v1\n-> X25519 {}\n{}\n---", text(&share[..]), text(&body));
    let mac = Hmac::digest(&*Zeroizing::new(hkdf(file_key, &[], b"header")), signed.as_bytes());
    Ok(format!("{signed} {}\n", text(&mac)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recipient of age's own documentation, and mistakes of one letter.
    #[test]
    fn recipients_are_read_or_refused() {
        let text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        let recipient = Recipient::parse(text).expect("a recipient");
        assert_ne!(recipient.0, [0; 32]);
        for at in 4..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'q' { b'p' } else { b'q' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(Recipient::parse(&changed).is_err(), "{changed}");
        }
        for wrong in [
            "",
            "age1",
            "age",
            "1",
            "bge1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
            "ssh-ed25519 AAAA",
        ] {
            assert!(Recipient::parse(wrong).is_err(), "{wrong}");
        }
    }
}
