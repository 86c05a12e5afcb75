//! Why a data file cannot be used. Every message names the file, the row and the key, and the remedy.

use serde_json::{Map, Value};
use std::path::PathBuf;

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It cannot be read.
    #[error("cannot read {}; check that the file exists and is readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a regular file.
    #[error("{} is {found}; pass a file, which is read more than once and whose hash is recorded", path.display())]
    NotRegular {
        /// Its path.
        path: PathBuf,
        /// A directory, or something else.
        found: &'static str,
    },
    /// A compressed file that does not decompress.
    #[error("{}: the {format} data is cut short or damaged; download or export the file again", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// gzip or Zstandard.
        format: &'static str,
        /// Found by the decoder.
        source: std::io::Error,
    },
    /// A format that is known and not read.
    #[error("{} is {format}, which is not read as data; {remedy} (read are text, JSONL, JSON and Parquet; text and JSON also with gzip or Zstandard)", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// How to make it readable.
        remedy: &'static str,
    },
    /// It is not UTF-8.
    #[error("{}:{line}: not UTF-8; convert the file, for example with `iconv -t utf-8`", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first line that is not, from 1.
        line: usize,
    },
    /// Its mark says UTF-16, and it is not.
    #[error("{}: begins with the byte order mark of UTF-16 and is not UTF-16; export it again as UTF-8", path.display())]
    NotUtf16 {
        /// The file.
        path: PathBuf,
    },
    /// Two bytes a character and nothing that says in which order.
    #[error("{}: looks like UTF-16 without a byte order mark; convert it with `iconv -f utf-16le -t utf-8`", path.display())]
    NoMark {
        /// The file.
        path: PathBuf,
    },
    /// Four bytes a character.
    #[error("{}: is text in UTF-32; convert it with `iconv -f utf-32 -t utf-8`", path.display())]
    Utf32 {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that no text has.
    #[error(
        "{}:{line}: holds zero bytes, as a file does that is not text, or that was cut by a full disk; fetch it again, or take \
         them out with `tr -d '\\000'`",
        path.display()
    )]
    ZeroBytes {
        /// The file.
        path: PathBuf,
        /// The first line that has one, from 1.
        line: usize,
    },
    /// One text of a file that is read text by text.
    #[error(
        "{}:{line}: a text of more than {most} bytes; cut the file, or name what stands between its texts with --separator",
        path.display()
    )]
    LongText {
        /// The file.
        path: PathBuf,
        /// The line on which it begins, from 1.
        line: usize,
        /// Most bytes of a text.
        most: usize,
    },
    /// It holds no text.
    #[error("{} holds no text; expected at least one line that is not blank", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Nothing separates the documents of a text.
    #[error(
        "{}: the separator `{separator}` does not occur in it; correct --separator, leave it out for a text that is one \
         document, or end the file with it",
        path.display()
    )]
    NoSeparator {
        /// The file.
        path: PathBuf,
        /// As it is written on the command line.
        separator: String,
    },
    /// A separator for rows.
    #[error(
        "{}: its texts are rows, and --separator `{separator}` stands between the documents of a text file; leave it out",
        path.display()
    )]
    SeparatorOfRows {
        /// The file.
        path: PathBuf,
        /// As it is written on the command line.
        separator: String,
    },
    /// A file with rows was given without the name of its text field.
    #[error(
        "{} is a {format} file; name the field that holds the text with --field ({first} has: {keys})",
        path.display()
    )]
    FieldNeeded {
        /// The file.
        path: PathBuf,
        /// JSONL, JSON or Parquet.
        format: &'static str,
        /// Which row the keys are of.
        first: &'static str,
        /// The keys of the first row, joined by commas.
        keys: String,
    },
    /// A line is not a JSON object.
    #[error("{}:{line}: expected one JSON object per line; {}", path.display(), json_fault(fault))]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser found in the line.
        fault: serde_json::Error,
    },
    /// A JSON file that is not an array of objects.
    #[error("{}:{}: expected an array of JSON objects, or one object per line; {}", path.display(), fault.line(), json_fault(fault))]
    JsonArray {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
        fault: serde_json::Error,
    },
    /// A Parquet file that cannot be read.
    #[error(
        "{}: the Parquet file cannot be read; it is damaged, or compressed otherwise than with Snappy or gzip: write it again with compression=\"snappy\"",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Found by the reader.
        source: parquet::errors::ParquetError,
    },
    /// A Parquet file without the column.
    #[error("{}: no column `{wanted}`; the file has: {columns}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Asked for.
        wanted: String,
        /// Those there are, joined by commas.
        columns: String,
    },
    /// A Parquet column whose values are neither text nor numbers.
    #[error("{}: column `{column}` holds {found}, which is neither text nor a number; write it as a string column", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Its name.
        column: String,
        /// Its type.
        found: String,
    },
    /// Rows lack a key.
    #[error("{}:{}: {}; give every row the same keys, or remove those rows", path.display(), missing[0].row, missing.join_rows())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// One entry a key.
        missing: MissingKeys,
    },
    /// A value is of another type.
    #[error("{}:{line}: `{key}` is {found}; expected {expected}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        line: usize,
        /// Its key.
        key: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Words and labels that do not belong together.
    #[error("{}:{line}: {words} words and {labels} labels; expected one label for each word", path.display())]
    LabelsOfWords {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        line: usize,
        /// Words.
        words: usize,
        /// Labels.
        labels: usize,
    },
}

/// The keys that rows lack.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MissingKeys(Vec<MissingKey>);

/// A key that some rows lack.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingKey {
    /// The key.
    pub key: String,
    /// How many rows lack it.
    pub rows: usize,
    /// The first of them: line or row, from 1.
    pub row: usize,
    /// The keys which that row has, joined by commas.
    pub keys: String,
}

impl std::ops::Deref for MissingKeys {
    type Target = [MissingKey];

    fn deref(&self) -> &[MissingKey] {
        &self.0
    }
}

impl MissingKeys {
    /// Counts a row that lacks a key.
    pub(super) fn count(&mut self, key: &str, row: usize, object: &Map<String, Value>) {
        match self.0.iter_mut().find(|missing| missing.key == key) {
            Some(missing) => missing.rows += 1,
            None => self.0.push(MissingKey { key: key.to_owned(), rows: 1, row, keys: keys(object) }),
        }
    }

    fn join_rows(&self) -> String {
        let of_key = |missing: &MissingKey| match missing.rows {
            1 => format!("no key `{}` in row {}; the object has: {}", missing.key, missing.row, missing.keys),
            rows => format!(
                "no key `{}` in {rows} rows, the first being row {}; that object has: {}",
                missing.key, missing.row, missing.keys
            ),
        };
        self.0.iter().map(of_key).collect::<Vec<_>>().join("; and ")
    }
}

/// What a parser found in a line, with the column, and what JSON does not have where it looks as if it had.
fn json_fault(fault: &serde_json::Error) -> String {
    let text = fault.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let syntax = if fault.is_syntax() {
        " (JSON has no NaN, no comma after the last value, and double quotes around texts)"
    } else {
        ""
    };
    format!("found at column {}: {what}{syntax}", fault.column())
}

/// The keys of a row, joined by commas.
fn keys(object: &Map<String, Value>) -> String {
    object.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
