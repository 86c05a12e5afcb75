//! Passes over the files: batches of texts in the order of the files, and what is made of each text on the way.

use super::DataError;
use super::scrub::{self, Kind};
use super::tags::Tags;
use crate::disk::hash::sha256;
use crate::progress::Progress;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::records::TextError;
use crate::text::stream::{Streamed, TextStream};
use serde_json::Value;
use std::path::PathBuf;

/// Texts of a batch.
const BATCH_TEXTS: usize = 1024;
/// Bytes after which a batch ends.
const BATCH_BYTES: usize = 8 << 20;

/// What texts are read from.
pub(super) struct Files<'f> {
    pub(super) paths: &'f [PathBuf],
    pub(super) form: &'f TextForm,
}

impl Files<'_> {
    /// Calls `work` with batches of texts, each with the number of its file; all batches of a file come one after the other.
    pub(super) fn each_batch(
        &self,
        what: &str,
        progress: &dyn Progress,
        mut work: impl FnMut(usize, Vec<Streamed>) -> Result<(), DataError>,
    ) -> Result<Vec<ReadNotes>, DataError> {
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        progress.begin(what, self.paths.iter().map(length).sum(), "bytes");
        let mut notes = Vec::new();
        for (number, path) in self.paths.iter().enumerate() {
            let mut stream = TextStream::open(path, self.form)?;
            loop {
                let (mut batch, mut bytes) = (Vec::new(), 0);
                while batch.len() < BATCH_TEXTS && bytes < BATCH_BYTES {
                    let Some(text) = stream.next().transpose()? else { break };
                    bytes += text.text.len() + 1;
                    batch.push(text);
                }
                if batch.is_empty() {
                    break;
                }
                work(number, batch)?;
                progress.advance(bytes as u64);
            }
            let read = stream.notes();
            if read.records == 0 {
                return Err(TextError::Empty { path: path.clone() }.into());
            }
            notes.push(read);
        }
        progress.finish();
        Ok(notes)
    }

    /// The name of a file in examples.
    pub(super) fn name(&self, number: usize) -> String {
        self.paths[number].file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// What is made of every text before anything else.
pub(super) struct Preparation {
    pub(super) kinds: Vec<Kind>,
    pub(super) tags: Option<Tags>,
}

/// The key under which tags are written.
pub(super) const TAGS: &str = "tags";

impl Preparation {
    /// Replaces what is scrubbed, and puts tags into the fields; the counts are those of the kinds.
    pub(super) fn prepare(&self, mut text: Streamed) -> (Streamed, Vec<u64>) {
        let mut counts = Vec::new();
        if !self.kinds.is_empty() {
            (text.text, counts) = scrub::scrubbed(&text.text, &self.kinds);
        }
        if let Some(tags) = &self.tags {
            let tags = tags.of(&text.text).into_iter().map(Value::from).collect();
            text.fields.insert(TAGS.to_owned(), Value::Array(tags));
        }
        (text, counts)
    }
}

/// 128 bits of a text whose runs of spaces and line breaks count as one space: equal of exact duplicates.
pub(super) fn content(text: &str) -> [u8; 16] {
    let words: Vec<&str> = text.split_whitespace().collect();
    let hash = sha256(words.join(" ").as_bytes());
    let mut content = [0; 16];
    content.copy_from_slice(&hash[..16]);
    content
}

/// The value of a field as text: of a list its entries, joined; nothing where it is absent.
pub(super) fn value_of(text: &Streamed, field: &str) -> Option<String> {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.fields.get(field)? {
        Value::Null => None,
        Value::Array(entries) => Some(entries.iter().map(shown).collect::<Vec<_>>().join("+")),
        value => Some(shown(value)),
    }
}
