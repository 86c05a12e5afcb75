//! The audit log: 160-byte records, each with the digest of the one before it, handed to the caller one at a time; seals
//! make rewriting visible. Nothing is allocated and nothing is kept but the head of the chain. docs/audit.md has the layout,
//! `slmc audit` reads it.
//!
//! | file | contents |
//! |---|---|
//! | [`record`] | the record, its kinds, the words of its status |
//! | [`digests`] | what was asked and answered, as two digests |
//! | [`key`] | a secret key: digests that cannot be guessed, seals by a key that moves on |
//! | [`log`] | the writer |

pub mod digests;
pub mod key;
pub mod log;
pub mod record;

pub use digests::Exchange;
pub use key::{LogKey, SAVED_KEY_BYTES};
pub use log::{AuditError, AuditLog, Event, Outcome, Signer};
pub use record::{AuditRecord, End, Follows, Kind, SealKind, chained};
