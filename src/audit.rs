//! Logs of what artifacts were asked and answered (docs/audit.md): read, checked record by record, sealed and replayed, and
//! written by this program as a device writes them. The record itself is [`slm_runtime::audit`]'s.
//!
//! | module | what it is |
//! |---|---|
//! | [`chain`] | the records of a file: whole, in order, each after the one before it; the first that is not, by number |
//! | [`keys`] | keys that check seals and make them |
//! | [`seals`] | what the seals of a log vouch for |
//! | [`prompts`] | what was asked, by the numbers of records |
//! | [`replay`] | answers computed again by the integer runtime |
//! | [`review`] | all of it: `slmc audit` |
//! | [`writer`] | a log that this program writes |

pub mod chain;
mod error;
pub mod keys;
pub mod prompts;
pub mod replay;
mod report;
pub mod review;
pub mod seals;
pub mod writer;

pub use chain::{Broken, Chain, Fault};
pub use error::AuditError;
pub use report::{AuditReport, Finding, ReplaySummary};
