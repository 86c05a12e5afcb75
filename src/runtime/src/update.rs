//! Updates on the device: a package of changed leaves becomes a second artifact beside the active one, runs on trial, and
//! replaces it once it is confirmed. Nothing is allocated; flash, protected storage and the package are the caller's, behind
//! three small traits. docs/update.md has the layouts and the reasons.
//!
//! | file | contents |
//! |---|---|
//! | [`package`] | the `.slmu` package: head, ops |
//! | [`coder`], [`contexts`], [`delta`], [`surroundings`] | op 3: differences through a range coder with adaptive contexts |
//! | [`flash`] | what a device lends |
//! | [`mod@apply`], `leaves`, `memory` | the new artifact, made in the slot that is not active |
//! | [`slots`] | which slot runs: `boot`, `confirm`, the record of the slots |
//! | [`geometry`] | where the parts of an artifact lie in a slot |
//! | [`error`] | why an update is refused |

pub mod apply;
pub mod coder;
pub mod contexts;
pub mod delta;
pub mod error;
pub mod flash;
pub mod geometry;
mod leaves;
mod memory;
pub mod package;
pub mod slots;
pub mod surroundings;
#[cfg(test)]
mod tests;

pub use apply::{Applied, Device, apply, required_bytes};
pub use error::UpdateError;
pub use flash::{DeviceFailed, Flash, Package, Protected, RECORD_BYTES, Slot};
pub use slots::{Boot, Slots, Trial, Trust, boot, confirm, install, reject};
