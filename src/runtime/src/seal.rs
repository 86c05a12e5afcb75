//! Sealed artifacts: weights in cipher that a device's key opens, in the caller's memory, all at once or leaf by leaf. With
//! the feature `seal`; `chacha` and `aes` bring the ciphers, or a device's hardware is a [`Cipher`]. docs/seal.md says what
//! is promised.
//!
//! The construction is that of age (C2SP age.md, version 1) over the section `weights`, with the tags kept apart so that the
//! cipher lies where the weights would:
//!
//! ```text
//! stanza   = key id 16 ‖ AEAD(HKDF(device key, salt, "slmc/v1/device-key"), nonce 0, file key 16)         48 bytes
//! key id   = first 16 bytes of HKDF(device key, "", "slmc/v1/device-key-id")
//! payload  = HKDF(file key, salt, "payload")
//! leaf i   = AEAD(payload, nonce = i as 11 bytes, big-endian ‖ 1 for the last leaf, else 0; no further data)
//! ```
//!
//! File key and salt are random for every sealing, so no nonce is used twice with a key.
//!
//! | file | contents |
//! |---|---|
//! | [`cipher`] | the ciphers: crates, or hardware |
//! | [`keys`] | a device's key, stanzas, the key of a file |
//! | [`mod@unseal`] | weights opened in memory |
//! | `error` | why weights stay closed |
//!
//! ```text
//! let signed = ArtifactView::open_signed(bytes, &trust, Check::AllButWeights(&mut bitmap))?;
//! let artifact = signed.unseal(&Unsealing { keys: &DeviceKey::new(&KEY), cipher: &SoftwareCipher, stanza: None }, ram)?;
//! ```

pub mod cipher;
mod error;
pub mod keys;
#[cfg(all(test, feature = "chacha", feature = "aes"))]
mod tests;
pub mod unseal;

pub use crate::format::seal::{STANZA_BYTES, SealCipher, TAG_BYTES};
pub use cipher::{Cipher, Opening, SoftwareCipher};
pub use error::SealError;
pub use keys::{DeviceKey, FileKey, KeySource, StanzaKey};
pub use unseal::Unsealing;
