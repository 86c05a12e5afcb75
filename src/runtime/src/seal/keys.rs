//! Keys: a device's own, which opens stanzas, and the one of a file, which opens its weights.

use super::cipher::{Cipher, Opening, SoftwareCipher};
use super::error::SealError;
use crate::format::seal::{STANZA_BYTES, Seal, SealCipher, TAG_BYTES};
use crate::hmac::{equal, hkdf, wipe};

const PAYLOAD: &[u8] = b"payload";
const DEVICE_KEY: &[u8] = b"slmc/v1/device-key";
const DEVICE_KEY_ID: &[u8] = b"slmc/v1/device-key-id";
/// Bytes of a file's key, as in age.
pub const FILE_KEY_BYTES: usize = 16;
/// Bytes of a stanza that name its key.
const ID_BYTES: usize = 16;

/// What a stanza is to a device.
pub enum StanzaKey {
    /// The key of the file.
    Opened([u8; FILE_KEY_BYTES]),
    /// The stanza is of another device.
    NotMine,
    /// It names this device's key, and was not made by it.
    Wrong,
    /// The cipher is not there.
    Unable,
}

/// Where a device's key is: a fuse or a key unique to the hardware behind PSA or OP-TEE, a TPM that unseals, a constant.
pub trait KeySource {
    /// The key of a file, from a stanza.
    fn file_key(&self, cipher: SealCipher, stanza: &[u8; STANZA_BYTES], salt: &[u8; 16]) -> StanzaKey;
}

/// A device's key in memory. What is derived from it is wiped after use; the key itself is the caller's to wipe.
#[derive(Clone, Copy)]
pub struct DeviceKey<'k>(&'k [u8; 32]);

impl<'k> DeviceKey<'k> {
    /// A device key made of 32 random bytes.
    pub fn new(key: &'k [u8; 32]) -> Self {
        DeviceKey(key)
    }

    /// The name of the key in stanzas; says nothing of the key.
    pub fn id(&self) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hkdf(self.0, &[], DEVICE_KEY_ID)[..ID_BYTES]);
        id
    }

    /// A stanza by which this device opens a file; `None` where the cipher is not there.
    pub fn stanza(
        &self,
        cipher: SealCipher,
        file_key: &[u8; FILE_KEY_BYTES],
        salt: &[u8; 16],
    ) -> Option<[u8; STANZA_BYTES]> {
        let mut key = hkdf(self.0, salt, DEVICE_KEY);
        let mut body = *file_key;
        let tag = SoftwareCipher.close(cipher, &key, &[0; 12], &mut body);
        wipe(&mut key);
        let mut stanza = [0; STANZA_BYTES];
        stanza[..ID_BYTES].copy_from_slice(&self.id());
        stanza[ID_BYTES..ID_BYTES + FILE_KEY_BYTES].copy_from_slice(&body);
        stanza[ID_BYTES + FILE_KEY_BYTES..].copy_from_slice(&tag?);
        Some(stanza)
    }
}

impl core::fmt::Debug for DeviceKey<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DeviceKey")
    }
}

impl KeySource for DeviceKey<'_> {
    fn file_key(&self, cipher: SealCipher, stanza: &[u8; STANZA_BYTES], salt: &[u8; 16]) -> StanzaKey {
        if !equal(&stanza[..ID_BYTES], &self.id()) {
            return StanzaKey::NotMine;
        }
        let (mut body, mut tag) = ([0; FILE_KEY_BYTES], [0; TAG_BYTES]);
        body.copy_from_slice(&stanza[ID_BYTES..ID_BYTES + FILE_KEY_BYTES]);
        tag.copy_from_slice(&stanza[ID_BYTES + FILE_KEY_BYTES..]);
        let mut key = hkdf(self.0, salt, DEVICE_KEY);
        let opening = SoftwareCipher.open(cipher, &key, &[0; 12], &mut body, &tag);
        wipe(&mut key);
        match opening {
            Opening::Open => StanzaKey::Opened(body),
            Opening::Wrong => StanzaKey::Wrong,
            Opening::Unable => StanzaKey::Unable,
        }
    }
}

/// The key that opens the leaves of a file's weights. Wiped when it is dropped.
pub struct FileKey {
    payload: [u8; 32],
    cipher: SealCipher,
    leaves: u64,
}

impl FileKey {
    /// The key that the file key and the salt give, for weights of so many leaves. The file key is wiped.
    pub fn new(cipher: SealCipher, file_key: &mut [u8; FILE_KEY_BYTES], salt: &[u8; 16], leaves: u64) -> Self {
        let payload = hkdf(file_key, salt, PAYLOAD);
        wipe(file_key);
        FileKey { payload, cipher, leaves }
    }

    /// Finds the stanza of a device: one that travels beside the file first, then those of the file.
    ///
    /// # Errors
    /// None is for the device's key, or one was changed.
    pub fn find(
        keys: &dyn KeySource,
        cipher: SealCipher,
        seal: &Seal<'_>,
        beside: Option<&[u8; STANZA_BYTES]>,
        leaves: u64,
    ) -> Result<Self, SealError> {
        let (mut wrong, mut looked_at) = (false, 0);
        for stanza in beside.into_iter().chain(seal.stanzas()) {
            looked_at += 1;
            match keys.file_key(cipher, stanza, seal.salt) {
                StanzaKey::Opened(mut file_key) => return Ok(FileKey::new(cipher, &mut file_key, seal.salt, leaves)),
                StanzaKey::NotMine => {}
                StanzaKey::Wrong => wrong = true,
                StanzaKey::Unable => return Err(SealError::Unable(cipher)),
            }
        }
        if wrong { Err(SealError::Stanza) } else { Err(SealError::NoStanza { stanzas: looked_at }) }
    }

    /// The nonce of a leaf of the weights, counted from their first.
    fn nonce(&self, leaf: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&leaf.to_be_bytes());
        nonce[11] = u8::from(leaf + 1 == self.leaves);
        nonce
    }

    /// Opens a leaf in its place. Where that fails its bytes are zeros.
    ///
    /// # Errors
    /// It was not closed with this key, or there is no such leaf.
    pub fn open(
        &self,
        cipher: &dyn Cipher,
        leaf: u64,
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), SealError> {
        if leaf >= self.leaves {
            return Err(SealError::Range);
        }
        let opening = cipher.open(self.cipher, &self.payload, &self.nonce(leaf), bytes, tag);
        match opening {
            Opening::Open => return Ok(()),
            Opening::Wrong => bytes.fill(0),
            Opening::Unable => return Err(SealError::Unable(self.cipher)),
        }
        Err(SealError::Tag { leaf })
    }

    /// Closes a leaf in its place, and gives its tag; `None` where the cipher is not there, or there is no such leaf.
    pub fn close(&self, leaf: u64, bytes: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        if leaf >= self.leaves {
            return None;
        }
        SoftwareCipher.close(self.cipher, &self.payload, &self.nonce(leaf), bytes)
    }
}

impl Drop for FileKey {
    fn drop(&mut self) {
        wipe(&mut self.payload);
    }
}

impl core::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FileKey of {} leaves", self.leaves)
    }
}
