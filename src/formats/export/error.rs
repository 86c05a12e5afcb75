//! Why a model is not exported. What is wrong with its files or the output is said by their own errors.

use super::plan::Loss;
use crate::model::id::ParameterId;
use std::path::PathBuf;

/// Why a model is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A family that the format's readers do not have.
    #[error("{format} has no counterpart of {family}{detail}; it has {known}")]
    Family {
        /// The format.
        format: &'static str,
        /// `model_type`.
        family: String,
        /// Which models of it, where it is not all.
        detail: &'static str,
        /// Families that it has.
        known: String,
    },
    /// Something of the model that the format cannot say.
    #[error("{format} cannot say {what}: {why}")]
    NotSaid {
        /// The format.
        format: &'static str,
        /// What.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// A parameter for which the format has no name.
    #[error("{format} has no place for `{id}`; export the model as safetensors")]
    NoPlace {
        /// The format.
        format: &'static str,
        /// The parameter.
        id: ParameterId,
    },
    /// The tokenizer is of a kind that the format does not have.
    #[error("{}: {format} cannot hold this tokenizer: {problem}", file.display())]
    Tokenizer {
        /// The format.
        format: &'static str,
        /// The file.
        file: PathBuf,
        /// What it has, and what to do.
        problem: String,
    },
    /// What the file would not have, without the word that allows it.
    #[error(
        "{format} does not hold all that this model is: {}; pass --lossy to write it without, or export a model that was made without",
        losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Lossy {
        /// The format.
        format: &'static str,
        /// What is lost.
        losses: Vec<Loss>,
    },
    /// A data type that the format does not take.
    #[error("--dtype {found} is not for {format}, which {takes}")]
    DataType {
        /// The format.
        format: &'static str,
        /// As it was asked for.
        found: &'static str,
        /// What the format takes.
        takes: &'static str,
    },
    /// A variant that the format does not have.
    #[error("--variant {found} is not one of {format}{}", if known.is_empty() { ", which has none: leave it out".to_owned() } else { format!("; it has {known}") })]
    Variant {
        /// The format.
        format: &'static str,
        /// As it was asked for.
        found: String,
        /// Those that it has.
        known: String,
    },
}
