//! Artifacts whose weights are in cipher (docs/seal.md): closed for devices' keys, opened again, stanzas for further devices.
//! The construction is [`slm_runtime::seal`]'s, the ciphers are the crates `chacha20poly1305` and `aes-gcm`.
//!
//! | module | what it is |
//! |---|---|
//! | [`sealing`] | weights closed and opened |
//! | [`age`] | a copy that `age` opens |
//! | [`layout`] | the file around them: sections in order, chunk list, digests |

pub mod age;
mod error;
pub mod layout;
pub mod sealing;

pub use error::SealingError;
