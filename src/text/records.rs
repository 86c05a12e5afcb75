//! Text files as evaluation and calibration read them: a UTF-8 text, lines of a text, or one field of each object in a
//! JSONL file. Errors name the file, the line and the key; an empty text is an error, never an empty result.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why a text file is of no use.
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
    /// It is not UTF-8.
    #[error("{}:{line}: not UTF-8; convert the file, for example with `iconv -t utf-8`", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first line that is not, from 1.
        line: usize,
    },
    /// It holds no text.
    #[error("{} holds no text; expected at least one line that is not blank", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A JSONL file was given without the name of its text field.
    #[error(
        "{} is a JSONL file; name the field that holds the text with --field (first line has: {keys})",
        path.display()
    )]
    FieldNeeded {
        /// The file.
        path: PathBuf,
        /// The keys of the first line, joined by commas.
        keys: String,
    },
    /// A line is not a JSON object.
    #[error("{}:{line}: expected one JSON object per line", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// An object lacks the key.
    #[error("{}:{line}: no key `{key}`; the object has: {keys}", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The key that was asked for.
        key: String,
        /// The keys that are there, joined by commas.
        keys: String,
    },
    /// A value is not a string.
    #[error("{}:{line}: `{key}` is {found}; expected a string", path.display())]
    NotAString {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Its key.
        key: String,
        /// What it is.
        found: &'static str,
    },
    /// A string is blank.
    #[error("{}:{line}: `{key}` is empty; give it a text or remove the line", path.display())]
    EmptyValue {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Its key.
        key: String,
    },
}

/// One text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub text: String,
}

/// One text with its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRecord {
    /// Where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub text: String,
    /// Never blank.
    pub label: String,
}

/// The whole text of a text file.
///
/// # Errors
/// [`TextError::Read`], [`TextError::NotUtf8`] or [`TextError::Empty`].
pub(super) fn read_text(path: &Path) -> Result<String, TextError> {
    let text = read_utf8(path)?;
    if text.trim().is_empty() {
        return Err(TextError::Empty { path: path.to_owned() });
    }
    Ok(text)
}

/// The texts of a file one by one: its lines, or with `field` that field of every JSONL line. Blank lines separate
/// records and are none themselves.
///
/// # Errors
/// Every variant of [`TextError`].
pub fn read_records(path: &Path, field: Option<&str>) -> Result<Vec<Record>, TextError> {
    let text = read_utf8(path)?;
    let mut records = Vec::new();
    for (line, content) in filled_lines(&text) {
        let text = match field {
            Some(key) => string(path, line, &object(path, line, content)?, key)?,
            None if is_jsonl(path) => {
                let keys = keys(&object(path, line, content)?);
                return Err(TextError::FieldNeeded { path: path.to_owned(), keys });
            }
            None => content.to_owned(),
        };
        records.push(Record { line, text });
    }
    not_empty(path, records)
}

/// Texts with their labels from two fields of every JSONL line.
///
/// # Errors
/// Every variant of [`TextError`] but [`TextError::FieldNeeded`].
pub fn read_labelled(path: &Path, text_key: &str, label_key: &str) -> Result<Vec<LabelledRecord>, TextError> {
    let text = read_utf8(path)?;
    let mut records = Vec::new();
    for (line, content) in filled_lines(&text) {
        let object = object(path, line, content)?;
        let (text, label) = (string(path, line, &object, text_key)?, string(path, line, &object, label_key)?);
        records.push(LabelledRecord { line, text, label });
    }
    not_empty(path, records)
}

/// The objects of a JSONL file with their lines, from 1.
///
/// # Errors
/// [`TextError::Read`], [`TextError::NotUtf8`], [`TextError::Json`].
pub(super) fn read_rows(path: &Path) -> Result<Vec<(usize, Map<String, Value>)>, TextError> {
    let text = read_utf8(path)?;
    filled_lines(&text).map(|(line, content)| Ok((line, object(path, line, content)?))).collect()
}

/// Whether a file is JSONL by its name.
pub(super) fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

fn not_empty<T>(path: &Path, records: Vec<T>) -> Result<Vec<T>, TextError> {
    if records.is_empty() { Err(TextError::Empty { path: path.to_owned() }) } else { Ok(records) }
}

/// (number from 1, content) of every line that is not blank.
fn filled_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

fn read_utf8(path: &Path) -> Result<String, TextError> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        TextError::NotUtf8 { path: path.to_owned(), line }
    })
}

fn object(path: &Path, line: usize, content: &str) -> Result<Map<String, Value>, TextError> {
    serde_json::from_str(content).map_err(|source| TextError::Json { path: path.to_owned(), line, source })
}

fn keys(object: &Map<String, Value>) -> String {
    object.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn string(path: &Path, line: usize, object: &Map<String, Value>, key: &str) -> Result<String, TextError> {
    let (path, owned) = (path.to_owned(), key.to_owned());
    let found = match object.get(key) {
        None => return Err(TextError::MissingKey { path, line, key: owned, keys: keys(object) }),
        Some(Value::String(text)) if text.trim().is_empty() => {
            return Err(TextError::EmptyValue { path, line, key: owned });
        }
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    };
    Err(TextError::NotAString { path, line, key: owned, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writes");
        (directory, path)
    }

    #[test]
    fn texts_lines_and_fields_are_read() {
        let (_keep, path) = file("a.txt", b"one\n\n two\r\n");
        assert_eq!(read_text(&path).expect("reads"), "one\n\n two\r\n");
        let records = read_records(&path, None).expect("reads");
        assert_eq!(records[1], Record { line: 3, text: " two".to_owned() });
        let (_keep, path) =
            file("a.jsonl", b"{\"text\": \"x\", \"label\": \"y\"}\n\n{\"text\": \"z\", \"label\": \"w\"}");
        let texts: Vec<String> =
            read_records(&path, Some("text")).expect("reads").into_iter().map(|r| r.text).collect();
        assert_eq!(texts, ["x", "z"]);
        let labelled = read_labelled(&path, "text", "label").expect("reads");
        assert_eq!(labelled[1], LabelledRecord { line: 3, text: "z".to_owned(), label: "w".to_owned() });
    }

    #[test]
    fn errors_name_line_and_key() {
        let cases: [(&str, &[u8], Option<&str>, &str); 8] = [
            ("a.txt", b"\n \n", None, "holds no text"),
            ("a.txt", b"ok\n\xFF\n", None, "a.txt:2: not UTF-8"),
            ("a.jsonl", b"{\"text\": \"x\", \"n\": 1}", None, "--field (first line has: text, n)"),
            (
                "a.jsonl",
                b"{\"text\": \"x\"}\n{\"txt\": \"y\"}",
                Some("text"),
                "a.jsonl:2: no key `text`; the object has: txt",
            ),
            ("a.jsonl", b"{\"text\": 3}", Some("text"), "a.jsonl:1: `text` is a number; expected a string"),
            ("a.jsonl", b"{\"text\": \" \"}", Some("text"), "a.jsonl:1: `text` is empty"),
            ("a.jsonl", b"[]", Some("text"), "a.jsonl:1: expected one JSON object per line"),
            ("a.jsonl", b"", Some("text"), "holds no text"),
        ];
        for (name, content, field, expected) in cases {
            let (_keep, path) = file(name, content);
            let error = read_records(&path, field).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read_text(Path::new("/nowhere/a.txt")).expect_err("missing").to_string();
        assert!(error.contains("/nowhere/a.txt"), "{error}");
    }
}
