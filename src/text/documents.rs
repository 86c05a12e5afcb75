//! Documents for decoders. A text file is one document, or several where a separator is stated; every record of a JSONL, JSON
//! or Parquet file is one. The model's end token stands after each of several documents, so that a model trained on them
//! learns to end.

use super::file::ReadNotes;
use super::records::{TextError, read_records, read_text};
use super::rows::row_format;
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::progress::Progress;
use std::path::Path;

/// The documents of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// Never blank; one where the file is a text without separators.
    pub texts: Vec<String>,
    /// Whether the texts are parts of one file and each ends with the end token.
    pub several: bool,
    /// Blank rows, byte order mark, line ends; with the name of the file.
    pub notes: ReadNotes,
}

/// Reads a text file, cut at every `separator` where one is stated, or the field `field` of every row of a file with rows.
///
/// # Errors
/// Every variant of [`TextError`].
pub fn read_documents(path: &Path, field: Option<&str>, separator: Option<&str>) -> Result<Documents, TextError> {
    if field.is_some() || row_format(path).is_some() {
        let read = read_records(path, field)?;
        let texts = read.records.into_iter().map(|record| record.text).collect();
        return Ok(Documents { texts, several: true, notes: read.notes });
    }
    let (text, notes) = read_text(path)?;
    let texts = match separator.filter(|separator| !separator.is_empty()) {
        None => return Ok(Documents { texts: vec![text], several: false, notes }),
        Some(separator) => text.split(separator).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned),
    };
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() {
        Err(TextError::Empty { path: path.to_owned() })
    } else {
        Ok(Documents { texts, several: true, notes })
    }
}

impl Documents {
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
        self.notes.warn(progress);
        if !self.several {
            return tokenizer.encode_plain(&self.texts.concat());
        }
        let Some(end) = ends.first() else {
            progress.warn(&format_args!(
                "{}: the model states no end token (eos_token_id of generation_config.json or config.json), so its \
                 documents are joined by line breaks",
                self.notes.file.display()
            ));
            return tokenizer.encode_plain(&self.texts.join("\n"));
        };
        let mut tokens = Vec::new();
        for text in &self.texts {
            tokens.extend(tokenizer.encode_plain(text)?);
            // A text that was written with its end token has it once.
            if tokens.last() != Some(end) {
                tokens.push(*end);
            }
        }
        Ok(tokens)
    }
}
