//! Documents for decoders. A text file is one document, or several where a separator is stated; every record of a JSONL, JSON
//! or Parquet file is one. The model's end token stands after each of several documents, so that a model trained on them
//! learns to end.

use super::error::TextError;
use super::file::ReadNotes;
use super::form::TextForm;
use super::records::{read_records, read_text, separated};
use super::rows::has_rows;
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

/// Reads a text file, cut at every separator where one is stated, or a field of every row of a file with rows.
///
/// # Errors
/// Every variant of [`TextError`].
pub fn read_documents(path: &Path, form: &TextForm) -> Result<Documents, TextError> {
    if form.field.is_some() || has_rows(path)? {
        let read = read_records(path, form)?;
        let texts = read.records.into_iter().map(|record| record.text).collect();
        return Ok(Documents { texts, several: true, notes: read.notes });
    }
    let (text, mut notes) = read_text(path)?;
    let Some(separator) = &form.separator else {
        notes.records = 1;
        return Ok(Documents { texts: vec![text], several: false, notes });
    };
    let texts: Vec<_> = separated(path, &text, separator)?.into_iter().map(|record| record.text).collect();
    notes.records = texts.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &str, content: &str, field: Option<&str>, separator: Option<&str>) -> Result<Documents, TextError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writes");
        let separator = separator.map(|separator| separator.parse().expect("a separator"));
        read_documents(&path, &TextForm { field: field.map(str::to_owned), separator })
    }

    #[test]
    fn files_become_documents_by_rows_and_separators() {
        let whole = texts("a.txt", "one<end>two", None, None).expect("reads");
        assert_eq!((whole.texts.len(), whole.several), (1, false));
        let cut = texts("a.txt", "one<end>\n<end> two\n", None, Some("<end>")).expect("reads");
        assert_eq!((cut.texts, cut.several), (vec!["one".to_owned(), "two".to_owned()], true));
        let error = texts("a.txt", "one\n", None, Some(r"\n\n")).expect_err("one document").to_string();
        assert!(error.contains(r"a.txt: the separator `\n\n` does not occur in it; correct --separator"), "{error}");
        assert!(matches!(texts("a.txt", "x x", None, Some("x")), Err(TextError::Empty { .. })));
        let rows = texts("a.jsonl", "{\"t\": \"one\"}\n{\"t\": \"two\"}\n", Some("t"), None).expect("reads");
        assert_eq!((rows.texts.len(), rows.several), (2, true));
        // Any JSON can be a text; an array of objects has rows, and their field must be named.
        let json = texts("a.json", "{\n \"t\": 1\n}", None, None).expect("reads");
        assert_eq!((json.texts.len(), json.several), (1, false));
        let error = texts("a.json", "[{\"t\": \"one\"}]", None, None).expect_err("no field").to_string();
        assert!(
            error.contains("is a JSON file; name the field that holds the text with --field (first object has: t)")
        );
    }
}
