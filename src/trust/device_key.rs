//! The key of a device that opens sealed weights: 32 random bytes, symmetric. A file holds the bytes themselves, or 64
//! hexadecimal digits, which is what a variable holds. `openssl rand -out DEVICE.key 32` makes one too.

use super::{KeyPlace, KeyWarning, TrustError};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of a device's key.
pub const BYTES: usize = 32;

/// A device's key. Never shown; wiped when it is dropped.
pub struct DeviceKey {
    bytes: Zeroizing<[u8; BYTES]>,
    warning: Option<KeyWarning>,
}

impl DeviceKey {
    /// The key at a place ([`KeyPlace::of`]), relative to the working directory.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub fn read(text: &str) -> Result<Self, TrustError> {
        DeviceKey::at(&KeyPlace::of(text, Path::new(""))?)
    }

    /// The key at a place.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub fn at(place: &KeyPlace) -> Result<Self, TrustError> {
        let found = place.bytes()?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        let read = match found.len() == BYTES {
            true => {
                bytes.copy_from_slice(&found);
                true
            }
            false => from_hexadecimal(found.trim_ascii(), &mut bytes),
        };
        if !read {
            return Err(place.fault(format!(
                "is not a device's key: expected {BYTES} bytes or {} hexadecimal digits; make one: slmc keygen --type device \
                 -o NAME",
                2 * BYTES
            )));
        }
        // What an unprogrammed fuse or an erased page gives.
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(place.fault("has the same value in all of its bytes, so it is not a key"));
        }
        let warning = place.read_by_others().map(|path| KeyWarning::ReadByOthers { path: path.to_owned() });
        Ok(DeviceKey { bytes, warning })
    }

    /// A new key, of random bytes from the operating system.
    ///
    /// # Errors
    /// [`TrustError::Random`].
    pub fn generate() -> Result<Self, TrustError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        getrandom::fill(&mut *bytes).map_err(TrustError::Random)?;
        Ok(DeviceKey { bytes, warning: None })
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; BYTES] {
        &self.bytes
    }

    /// What to warn of before it is used.
    pub fn warning(&self) -> Option<&KeyWarning> {
        self.warning.as_ref()
    }
}

/// Reads two digits a byte; whether there were exactly these.
fn from_hexadecimal(text: &[u8], bytes: &mut [u8; BYTES]) -> bool {
    let digit = |text: u8| char::from(text).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    rest.is_empty()
        && pairs.len() == BYTES
        && bytes.iter_mut().zip(pairs).all(|(byte, [high, low])| match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::hash::hex;

    #[test]
    fn keys_are_bytes_or_digits() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.key");
        let place = path.display().to_string();
        let key: [u8; BYTES] = std::array::from_fn(|n| n as u8);
        for content in [key.to_vec(), hex(&key).into_bytes(), format!("{}\n", hex(&key)).into_bytes()] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(DeviceKey::read(&place).expect("a key").bytes(), &key);
        }
        for content in [&key[..31], &[0; 33], &[0; BYTES], &[255; BYTES], &hex(&key).as_bytes()[2..], &[b'g'; 64], b""]
        {
            std::fs::write(&path, content).expect("written");
            let error = DeviceKey::read(&place).err().expect("not a key").to_string();
            assert!(error.contains("a.key") && !error.contains("0102"), "{error}");
        }
    }
}
