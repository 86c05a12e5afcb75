//! Documents for decoders. A text file is one document; every record of a JSONL file is one, and the model's end token
//! stands after it, so that a model trained on records learns to end them.

use super::records::{TextError, is_jsonl, read_records, read_text};
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::progress::Progress;
use std::path::{Path, PathBuf};

/// The documents of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Documents {
    /// A text file.
    Text(String),
    /// The records of a JSONL file.
    Records {
        /// The file.
        path: PathBuf,
        /// One text a record, never blank.
        texts: Vec<String>,
    },
}

/// Reads a text file, or the field `field` of every line of a JSONL file.
///
/// # Errors
/// Every variant of [`TextError`].
pub fn read_documents(path: &Path, field: Option<&str>) -> Result<Documents, TextError> {
    if field.is_none() && !is_jsonl(path) {
        return read_text(path).map(Documents::Text);
    }
    let texts = read_records(path, field)?.into_iter().map(|record| record.text).collect();
    Ok(Documents::Records { path: path.to_owned(), texts })
}

impl Documents {
    /// The texts.
    pub fn texts(&self) -> &[String] {
        match self {
            Documents::Text(text) => std::slice::from_ref(text),
            Documents::Records { texts, .. } => texts,
        }
    }

    /// Token ids of all documents, one after the other; the first of a model's end tokens after each record. Records for a
    /// model that states none are joined by line breaks, with a warning.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn tokens(
        &self,
        tokenizer: &Tokenizer,
        ends: &[u32],
        progress: &dyn Progress,
    ) -> Result<Vec<u32>, TokenizerError> {
        let (path, texts) = match self {
            Documents::Text(text) => return tokenizer.encode_plain(text),
            Documents::Records { path, texts } => (path, texts),
        };
        let Some(end) = ends.first() else {
            progress.warn(&format_args!(
                "{}: the model states no end token (eos_token_id of generation_config.json or config.json), so its \
                 records are joined by line breaks",
                path.display()
            ));
            return tokenizer.encode_plain(&texts.join("\n"));
        };
        let mut tokens = Vec::new();
        for text in texts {
            tokens.extend(tokenizer.encode_plain(text)?);
            // A text that was written with its end token has it once.
            if tokens.last() != Some(end) {
                tokens.push(*end);
            }
        }
        Ok(tokens)
    }
}
