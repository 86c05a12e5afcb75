//! Why a model writes no text.

use std::path::PathBuf;

/// Why a model writes no text.
#[derive(Debug, thiserror::Error)]
pub enum SynthesisError {
    /// An encoder.
    #[error("{}: is an encoder, which writes no text; pass a decoder", path.display())]
    NotADecoder {
        /// The model.
        path: PathBuf,
    },
    /// Nothing to begin with.
    #[error("{}: has neither a token that opens a text nor one that ends it, so it cannot begin one; pass --prompts FILE", path.display())]
    NoOpening {
        /// The model.
        path: PathBuf,
    },
    /// `--chat` without a template.
    #[error(
        "{}: has no chat template, and --chat asks through one; add the chat_template.jinja of the model, or leave --chat \
         out to have the prompts continued",
        path.display()
    )]
    NoTemplate {
        /// The model.
        path: PathBuf,
    },
    /// The template wrote nothing.
    #[error("{}: the chat template makes an empty text of prompt {number}", path.display())]
    EmptyRendering {
        /// The prompts.
        path: PathBuf,
        /// From 1.
        number: usize,
    },
    /// A conversation in which nobody asks.
    #[error("{}: conversation {number} has no message of the user that could be answered", path.display())]
    NoQuestion {
        /// The prompts.
        path: PathBuf,
        /// From 1.
        number: usize,
    },
    /// `--prefix` of conversations.
    #[error(
        "{}: holds conversations, of which the last question is answered, and --prefix says how much of a text is given; leave \
         --prefix out",
        path.display()
    )]
    PrefixOfConversations {
        /// The prompts.
        path: PathBuf,
    },
    /// No prompt has room for a token after it.
    #[error(
        "{}: every prompt fills the window of {window} tokens, the shortest having {shortest}; raise --window, or give less of \
         each with --prefix",
        path.display()
    )]
    TooLong {
        /// The prompts.
        path: PathBuf,
        /// Tokens of the shortest, those that open a text included.
        shortest: usize,
        /// Most tokens of a text.
        window: usize,
    },
    /// Prompts without a token.
    #[error("{}: no prompt has a token, and the model has none that opens a text", path.display())]
    Empty {
        /// The prompts.
        path: PathBuf,
    },
    /// All texts were left out.
    #[error("all {texts} texts are left out ({reasons}); loosen the limits, or change --temperature or the prompts")]
    NothingLeft {
        /// Texts written.
        texts: usize,
        /// Reasons with counts.
        reasons: String,
    },
}
