//! Signed artifacts: whether a file is one that a holder of the firmware's keys released, for this product, and not older
//! than what the device has confirmed. With the feature `signed`; `ed25519` and `p256` bring the arithmetic, or a device's
//! hardware is a [`Verifier`]. docs/trust.md says what is promised.
//!
//! | file | contents |
//! |---|---|
//! | [`key`] | public keys and their names |
//! | [`verifier`] | what verifies: crates, or hardware |
//! | [`policy`] | what a device trusts, and the check of a header page |
//! | [`signed`] | artifacts in memory: every leaf at once, or those of the weights before their first use |
//! | [`stream`] | artifacts behind a reader: every leaf each time it is read |
//! | `error` | why a file is refused |
//!
//! ```text
//! let trust = Trust { keys: &[Key::ed25519(&PUBLIC)], threshold: 1, model_id: Some(ID), counter: &nv, verifier: &Software };
//! let signed = ArtifactView::open_signed(bytes, &trust, Check::Everything)?;
//! let artifact = signed.artifact()?;
//! ```

mod error;
pub mod key;
pub mod policy;
pub mod signed;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod verifier;

pub use crate::sha256::Software;
pub use error::TrustError;
pub use key::Key;
pub use policy::{Counter, Trust};
pub use signed::{Check, Signed, bitmap_bytes, open_whole};
pub use stream::{SignedStream, Source};
pub use verifier::{Verdict, Verifier};
