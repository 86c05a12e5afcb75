//! The artifact format: one definition, shared by the writer in slmc and the reader here. docs/format.md states it in
//! prose, with the rules that a reader must check.
//!
//! | file | contents |
//! |---|---|
//! | [`artifact`] | the zero-copy reader |
//! | `check`, `error` | its checks and their errors |
//! | [`header`], `page`, [`sections`] | the header page and its checks; the table of sections |
//! | [`signature`], [`chunks`], [`tree`] | the signature area; the leaves that it covers; the tree over digests |
//! | [`spec`], [`tensor`] | the records of model, layers and tensors |
//! | `functions` | rotary tables and activation curves |
//! | [`text`], [`text_tables`], [`special_tokens`] | the tokenizer's tables; tokens that open and end a text |
//! | [`chat_frame`], [`sampling`] | the texts around messages; how tokens are chosen |
//! | [`drafts`], [`prefix`] | what guesses the next tokens; what was read before |
//! | [`exits`] | where a text may leave a classifier, and how sure its heads are |
//! | [`grammar`] | the automaton that outputs follow |
//! | [`verify`] | digests |
//! | `residency` | which tensors stay in RAM where weights are streamed; with the feature `streaming` |
//! | `seal` | stanzas and tags of weights in cipher; with the feature `seal` |
//! | `record` | the macro that defines records |

pub mod artifact;
pub mod chat_frame;
mod check;
pub mod chunks;
#[cfg(feature = "speculation")]
pub mod drafts;
mod error;
pub mod exits;
mod features;
mod functions;
pub mod grammar;
pub mod header;
pub(crate) mod page;
#[cfg(feature = "snapshots")]
pub mod prefix;
pub(crate) mod record;
#[cfg(feature = "streaming")]
pub mod residency;
pub mod sampling;
#[cfg(feature = "seal")]
pub mod seal;
pub mod sections;
pub mod signature;
pub mod spec;
pub mod special_tokens;
pub mod tensor;
pub mod text;
pub mod text_tables;
pub mod tree;
pub mod verify;

pub use error::{FormatError, Record};
