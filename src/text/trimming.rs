//! `slmc tokenizer trim`: the part of a vocabulary that a domain uses. Special tokens, bytes and characters stay, and of the
//! rest what the domain's text uses, with the merge closure: a token stays only if every token that it may be merged from
//! stays, and merges whose product is gone go too. A text whose tokens are all kept therefore has the same tokens as before,
//! under the map of their ids:
//!
//! ```text
//! BPE        the merge of lowest rank is taken at every step; all merges of such a text are kept, in their order, and what
//!            was lowest among all of them is lowest among fewer
//! WordPiece  the longest piece is taken at every place; the one that was longest is there
//! Unigram    the pieces with the greatest sum of scores are taken; the best of all is the best of fewer
//! ```
//!
//! New ids follow the order of the old ones. Rows of the model are cut by the same ids ([`KeptIds`]).

mod companions;
mod coverage;
mod kept;
mod selection;
#[cfg(test)]
mod tests;
mod tokenizer_file;
mod vocabulary;

pub use companions::{rewritten_companions, rewritten_config, tokens_named};
pub use coverage::{Counts, Coverage};
pub use kept::{KEPT_IDS_FILE, KeptIds};
pub use selection::{Characters, Extent, select};
pub use vocabulary::Vocabulary;

use super::records::TextError;
use super::tokenizer::TokenizerError;
use crate::disk::ConfigError;
use std::path::PathBuf;

/// Why a vocabulary cannot be trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The text cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer cannot be read, or does not encode.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A configuration, or a file of kept ids, is refused.
    #[error(transparent)]
    Files(#[from] ConfigError),
    /// A kind of tokenizer whose tokens do not follow from a part of its table.
    #[error(
        "{}: a tokenizer of type {found} cannot be trimmed; BPE, WordPiece and Unigram can, as transformers' \
         `save_pretrained` writes them to tokenizer.json",
        path.display()
    )]
    Kind {
        /// The tokenizer.
        path: PathBuf,
        /// What it says of its model.
        found: String,
    },
    /// The tokens that always stay are more.
    #[error(
        "a vocabulary of {asked} is too small: special tokens, bytes and characters of {} are {least}; pass --vocabulary \
         {least} or more{}",
        path.display(),
        if *all_characters { ", or --characters used" } else { "" }
    )]
    TooSmall {
        /// The tokenizer.
        path: PathBuf,
        /// Asked for.
        asked: usize,
        /// Tokens that always stay.
        least: usize,
        /// Whether characters are among them that the text does not use.
        all_characters: bool,
    },
    /// Kept ids of another tokenizer.
    #[error(
        "{}: made of another tokenizer than that of {}; pass --like a directory that was trimmed from the same tokenizer",
        ids.display(),
        tokenizer.display()
    )]
    OtherTokenizer {
        /// The file of kept ids.
        ids: PathBuf,
        /// The tokenizer that is to be trimmed.
        tokenizer: PathBuf,
    },
    /// A token that the model's files name is not among the ids of another model.
    #[error(
        "{}: keeps no row for token {id} `{token}`, which the files of this model name; trim both models by --data, or \
         correct the files",
        ids.display()
    )]
    NotKept {
        /// The file of kept ids.
        ids: PathBuf,
        /// The token.
        id: u32,
        /// Its spelling.
        token: String,
    },
}
