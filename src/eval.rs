//! Quality, measured: perplexity and divergence of language models, accuracy of classifiers, agreement of embeddings,
//! each over [`forward::Forward`], so that the f32 model and an artifact's runtime are judged by the same code. All
//! means are f64 sums in a fixed order: the same outputs give the same report for any number of threads.

pub mod answers;
pub mod chat;
pub mod classify;
pub mod drift;
pub mod embed;
pub mod exits;
pub mod extraction;
pub mod forward;
pub mod generate;
pub mod label;
pub mod lm;
pub mod opened;
pub mod routing;
pub mod spans;
pub mod speculation;
pub mod subject;
pub mod sums;
pub mod token_labels;

pub mod constrained;
mod continuation;
mod error;
mod outputs;
mod pooling;

pub use error::{EvalError, Side};
pub use forward::{Forward, ForwardError};
pub(crate) use outputs::BATCH_BYTES;
pub use subject::{Numerics, Subject};

/// Name and version of every evaluation's JSON form.
pub const SCHEMA: &str = "slmc.eval/1";
