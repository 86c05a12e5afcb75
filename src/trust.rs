//! Who made something, and what they say of it: keys, signatures of a key over bytes, and statements in envelopes that
//! other tools verify.
//!
//! | module | what it is |
//! |---|---|
//! | [`place`] | where a key is: a path, `file:PATH`, `env:VAR`, `pkcs11:…` |
//! | [`token_uri`] | names of keys on tokens |
//! | `token` | keys on tokens, with the feature `pkcs11` |
//! | [`keys`] | Ed25519 and ECDSA P-256, read from PKCS#8 and SubjectPublicKeyInfo, and named by the latter |
//! | [`signature`] | 64 bytes of either algorithm, and the forms that other tools write |
//! | [`device_key`] | the 32 bytes that a device opens sealed weights with |
//! | [`dsse`] | what is signed (the pre-authentication encoding), and the envelope around it |
//! | [`statement`] | in-toto statements: what is said about files by their digests |
//! | [`bundle`] | Sigstore bundles and files of several envelopes, written and checked |
//! | [`oms`] | the directory of a release signed as a whole, as the OpenSSF specifies it |
//! | [`keygen`] | new keys on disk |
//! | [`signing`] | the chunk list and the signatures of an artifact |
//! | [`policy`] | whose signature an artifact has, and whether it is one that is asked for |
//!
//! No cryptography is implemented here: Ed25519 is `ed25519-compact`'s, ECDSA `p256`'s.

pub mod bundle;
pub mod device_key;
pub mod dsse;
mod error;
pub mod keygen;
pub mod keys;
pub mod oms;
pub mod place;
pub mod policy;
pub mod signature;
pub mod signing;
pub mod statement;
#[cfg(feature = "pkcs11")]
mod token;
pub mod token_uri;

pub use device_key::DeviceKey;
pub use error::TrustError;
pub use keys::{Algorithm, KeyWarning, PublicKey, SecretKey};
pub use place::KeyPlace;
pub use signature::Signature;
