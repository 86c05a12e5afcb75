//! Preparing training data, `slmc data`: texts of several files, each read two or three times from beginning to end, so that
//! memory holds one batch of texts and a few numbers of each, however long the files are.
//!
//! ```text
//! first pass    scrub, tag; rules of length, characters, repetition; content hash, MinHash signature
//! then          exact and near duplicates; a second pass scores the rest by a model, where one is given
//! choice        held-out split by whole clusters; weights and balance over a field
//! last pass     data.jsonl, held-out.jsonl; examples of what was taken out
//! ```
//!
//! Everything follows from the texts, the options and the seed; threads change nothing.

mod choice;
pub mod duplicates;
mod error;
pub mod filters;
pub mod minhash;
mod options;
mod passes;
pub mod quality;
pub mod report;
pub mod sampling;
pub mod scrub;
mod seen;
pub mod tags;
mod work;
mod writing;

pub use error::DataError;
pub use options::{DataOptions, FieldWeight, HELD_OUT_FILE, QualityOptions, TEXTS_FILE};
pub use report::DataReport;
pub use work::prepare;
