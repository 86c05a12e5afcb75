//! The two ciphers: the crates of the features `chacha` and `aes`, or a device's hardware.

use crate::format::seal::{SealCipher, TAG_BYTES};
// One trait of one crate, by whichever of the two there is.
#[cfg(all(feature = "aes", not(feature = "chacha")))]
use aes_gcm::aead::{self, AeadInOut, KeyInit};
#[cfg(feature = "chacha")]
use chacha20poly1305::aead::{self, AeadInOut, KeyInit};

/// The answer of a [`Cipher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The bytes are open now.
    Open,
    /// The tag is not theirs by this key; the bytes are not to be used.
    Wrong,
    /// This cipher is not there.
    Unable,
}

/// What opens bytes in cipher, in their place.
pub trait Cipher {
    /// Opens bytes that were closed with this key and nonce and without further data.
    fn open(
        &self,
        cipher: SealCipher,
        key: &[u8; 32],
        nonce: &[u8; 12],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Opening;
}

/// The crates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftwareCipher;

#[cfg(any(feature = "chacha", feature = "aes"))]
fn opened<C: AeadInOut + KeyInit>(
    key: &[u8; 32],
    nonce: &[u8; 12],
    bytes: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Opening {
    let parts = (C::new_from_slice(key), aead::Nonce::<C>::try_from(&nonce[..]), aead::Tag::<C>::try_from(&tag[..]));
    let (Ok(cipher), Ok(nonce), Ok(tag)) = parts else { return Opening::Unable };
    match cipher.decrypt_inout_detached(&nonce, &[], bytes.into(), &tag) {
        Ok(()) => Opening::Open,
        Err(_) => Opening::Wrong,
    }
}

#[cfg(any(feature = "chacha", feature = "aes"))]
fn closed<C: AeadInOut + KeyInit>(key: &[u8; 32], nonce: &[u8; 12], bytes: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
    let cipher = C::new_from_slice(key).ok()?;
    let nonce = aead::Nonce::<C>::try_from(&nonce[..]).ok()?;
    let tag = cipher.encrypt_inout_detached(&nonce, &[], bytes.into()).ok()?;
    tag.as_slice().try_into().ok()
}

impl Cipher for SoftwareCipher {
    fn open(
        &self,
        cipher: SealCipher,
        key: &[u8; 32],
        nonce: &[u8; 12],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Opening {
        match cipher {
            #[cfg(feature = "chacha")]
            SealCipher::ChaCha20Poly1305 => opened::<chacha20poly1305::ChaCha20Poly1305>(key, nonce, bytes, tag),
            #[cfg(feature = "aes")]
            SealCipher::Aes256Gcm => opened::<aes_gcm::Aes256Gcm>(key, nonce, bytes, tag),
            #[cfg(not(all(feature = "chacha", feature = "aes")))]
            _ => {
                let _ = (key, nonce, bytes, tag);
                Opening::Unable
            }
        }
    }
}

impl SoftwareCipher {
    /// Closes bytes in their place, and gives their tag; `None` where the cipher is not there. A nonce is used once with a key.
    pub fn close(
        &self,
        cipher: SealCipher,
        key: &[u8; 32],
        nonce: &[u8; 12],
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        match cipher {
            #[cfg(feature = "chacha")]
            SealCipher::ChaCha20Poly1305 => closed::<chacha20poly1305::ChaCha20Poly1305>(key, nonce, bytes),
            #[cfg(feature = "aes")]
            SealCipher::Aes256Gcm => closed::<aes_gcm::Aes256Gcm>(key, nonce, bytes),
            #[cfg(not(all(feature = "chacha", feature = "aes")))]
            _ => {
                let _ = (key, nonce, bytes);
                None
            }
        }
    }
}
