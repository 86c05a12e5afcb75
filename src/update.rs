//! Update packages on the build machine: what a device's second slot becomes, made from two artifacts, applied here as a
//! device applies it, and looked into. The package and its coder are slm-runtime's (`slm_runtime::update`); docs/update.md
//! states the layout.
//!
//! | module | what it is |
//! |---|---|
//! | [`pack`] | a package from an old and a new artifact |
//! | [`mod@apply`] | the new artifact from the old one and a package, by the device's own code |
//! | [`inspect`] | what a package holds |
//! | [`summary`] | its bytes by op |
//! | `memory` | slots and protected storage in memory |

pub mod apply;
mod error;
pub mod inspect;
mod memory;
pub mod pack;
pub mod summary;

pub use error::UpdateError;
