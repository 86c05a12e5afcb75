//! Why data cannot be prepared.

use crate::disk::atomic::AtomicError;
use crate::eval::EvalError;
use crate::text::records::TextError;
use crate::text::tokenizer::TokenizerError;
use std::path::PathBuf;

/// Why data cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// A file of the output.
    #[error("{}: cannot be written; check permissions and free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model that scores texts cannot be opened or run.
    #[error(transparent)]
    Model(#[from] EvalError),
    /// Its tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A model without next-token logits.
    #[error("{}: gives {output}, and --quality-model needs a language model, which predicts the next token; pass a decoder", path.display())]
    NoLanguageHead {
        /// The model.
        path: PathBuf,
        /// What it gives.
        output: &'static str,
    },
    /// A file of tags.
    #[error("{}: cannot be used for --tags: {fault}", path.display())]
    Tags {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A field that no text has.
    #[error("no text has the field `{field}`, which {option} names; fields that rows have: {known}")]
    NoField {
        /// The field.
        field: String,
        /// The option.
        option: &'static str,
        /// Those of the first row.
        known: String,
    },
    /// A value that no text has.
    #[error("no text has `{field}` = `{value}`, for which --weights gives a weight; values there are: {known}")]
    NoValue {
        /// The field.
        field: String,
        /// The value.
        value: String,
        /// Some of those there are.
        known: String,
    },
    /// A field with too many values to choose by.
    #[error("`{field}` has more than {most} values; choose by a field that names classes")]
    ManyValues {
        /// The field, or several.
        field: String,
        /// Most values.
        most: usize,
    },
    /// Nothing is left to write.
    #[error("none of {read} texts is left: {rules}; raise or lower the limits that took most, or pass --rules none")]
    NothingLeft {
        /// Texts read.
        read: u64,
        /// How many each rule took.
        rules: String,
    },
    /// No text is held out.
    #[error(
        "--held-out {share} of {texts} texts in {clusters} clusters of near duplicates holds out none; pass a larger share, more texts, or a higher --similarity"
    )]
    NothingHeldOut {
        /// Asked for.
        share: f64,
        /// Texts there are.
        texts: usize,
        /// Clusters that they are in.
        clusters: usize,
    },
    /// A file is another than in the first pass.
    #[error("{}: changed while it was read; run again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// More texts than places are counted in.
    #[error("more than {most} texts; prepare the files in parts")]
    ManyTexts {
        /// Most texts.
        most: u64,
    },
}
