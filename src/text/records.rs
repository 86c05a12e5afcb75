//! Records of data files as training, calibration and evaluation read them: lines of a text, or one field of each row of a
//! JSONL, JSON or Parquet file, with a label where one is needed. Errors name the file, the row and the key; a file without
//! any text is an error, never an empty result.

use super::error::MissingKeys;
pub use super::error::TextError;
use super::file::{ReadNotes, read_decoded};
use super::form::{Separator, TextForm};
use super::rows::{RowFormat, first_keys, first_row, has_rows, read_rows, row_format};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// One text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Line or row where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub text: String,
}

/// The class of a text, as a file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// The number of a class, from 0: an integer in the file, as a `ClassLabel` column is exported.
    Id(u64),
    /// The name of a class, never blank.
    Name(String),
}

impl Label {
    /// The class among the names of all classes.
    pub fn class(&self, names: &[String]) -> Option<usize> {
        match self {
            Label::Id(id) => usize::try_from(*id).ok().filter(|id| *id < names.len()),
            Label::Name(label) => names.iter().position(|name| name == label),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Id(id) => id.fmt(f),
            Label::Name(name) => name.fmt(f),
        }
    }
}

/// One text with its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRecord {
    /// Line or row where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub text: String,
    /// The class of the text.
    pub label: Label,
}

/// Records of a file and the changes of reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    /// At least one.
    pub records: Vec<T>,
    /// Blank rows, byte order mark, line ends.
    pub notes: ReadNotes,
}

/// The whole text of a text file.
///
/// # Errors
/// [`TextError::Empty`] and those of decoding.
pub(super) fn read_text(path: &Path) -> Result<(String, ReadNotes), TextError> {
    let mut notes = ReadNotes::of(path);
    let text = read_decoded(path, &mut notes)?;
    if text.trim().is_empty() {
        return Err(TextError::Empty { path: path.to_owned() });
    }
    Ok((text, notes))
}

/// The documents of a text between separators, never blank.
///
/// # Errors
/// [`TextError::NoSeparator`].
pub(super) fn separated(path: &Path, text: &str, separator: &Separator) -> Result<Vec<Record>, TextError> {
    let documents = separator
        .cut(text)
        .ok_or_else(|| TextError::NoSeparator { path: path.to_owned(), separator: separator.to_string() })?;
    Ok(documents.into_iter().map(|(line, text)| Record { line, text: text.to_owned() }).collect())
}

/// The texts of a file one by one: its lines, what stands between separators, or a field of every row. Blank lines of a text
/// separate records; rows whose text is blank or null are left out and counted.
///
/// # Errors
/// Every variant of [`TextError`].
pub fn read_records(path: &Path, form: &TextForm) -> Result<Records<Record>, TextError> {
    let mut notes = ReadNotes::of(path);
    let Some(key) = form.field.as_deref() else {
        if has_rows(path)?
            && let Some(format) = row_format(path)
        {
            let first = first_keys(path)?.ok_or_else(|| TextError::Empty { path: path.to_owned() })?;
            let (format, row) = match format {
                RowFormat::JsonLines => ("JSONL", "first line"),
                RowFormat::JsonArray => ("JSON", "first object"),
                RowFormat::Parquet => ("Parquet", "first row"),
            };
            return Err(TextError::FieldNeeded { path: path.to_owned(), format, first: row, keys: first.join(", ") });
        }
        let text = read_decoded(path, &mut notes)?;
        if let Some(separator) = &form.separator {
            return filled(path, separated(path, &text, separator)?, notes);
        }
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let records = lines.map(|(index, line)| Record { line: index + 1, text: line.to_owned() }).collect();
        return filled(path, records, notes);
    };
    let (mut records, mut missing) = (Vec::new(), MissingKeys::default());
    for (line, mut row) in read_rows(path, &[key], &mut notes)? {
        match row.shift_remove(key) {
            None => missing.count(key, line, &row),
            Some(value) => match text(path, line, key, value)? {
                Some(text) => records.push(Record { line, text }),
                None => notes.blank(line),
            },
        }
    }
    complete(path, missing)?;
    filled(path, records, notes)
}

/// Whether the rows of a file have a key, by the first; not so where a file has no rows.
///
/// # Errors
/// [`TextError`].
pub fn has_key(path: &Path, key: &str) -> Result<bool, TextError> {
    Ok(has_rows(path)? && first_keys(path)?.is_some_and(|keys| keys.iter().any(|known| known == key)))
}

/// Texts with their labels from two fields of every row; an integer label is the number of a class. The text is under
/// `text_key` where the form names no field.
///
/// # Errors
/// Every variant of [`TextError`] but [`TextError::FieldNeeded`] and [`TextError::NoSeparator`].
pub fn read_labelled(
    path: &Path,
    form: &TextForm,
    text_key: &str,
    label_key: &str,
) -> Result<Records<LabelledRecord>, TextError> {
    if let Some(separator) = &form.separator {
        return Err(TextError::SeparatorOfRows { path: path.to_owned(), separator: separator.to_string() });
    }
    let text_key = form.field.as_deref().unwrap_or(text_key);
    let mut notes = ReadNotes::of(path);
    let (mut records, mut missing) = (Vec::new(), MissingKeys::default());
    for (line, mut row) in read_rows(path, &[text_key, label_key], &mut notes)? {
        for key in [text_key, label_key].into_iter().filter(|key| !row.contains_key(*key)) {
            missing.count(key, line, &row);
        }
        let (Some(value), Some(label_value)) = (row.shift_remove(text_key), row.shift_remove(label_key)) else {
            continue;
        };
        match text(path, line, text_key, value)? {
            Some(text) => {
                records.push(LabelledRecord { line, text, label: label(path, line, label_key, label_value)? })
            }
            None => notes.blank(line),
        }
    }
    complete(path, missing)?;
    filled(path, records, notes)
}

/// Refuses a file whose first row is none, or lacks one of these keys, as far as its first bytes tell.
///
/// # Errors
/// [`TextError::Json`], [`TextError::MissingKey`].
pub fn check_first_row(path: &Path, keys: &[&str]) -> Result<(), TextError> {
    let Some((line, row)) = (if keys.is_empty() { None } else { first_row(path)? }) else { return Ok(()) };
    let mut missing = MissingKeys::default();
    for key in keys.iter().filter(|key| !row.contains_key(**key)) {
        missing.count(key, line, &row);
    }
    complete(path, missing)
}

pub(super) fn complete(path: &Path, missing: MissingKeys) -> Result<(), TextError> {
    if missing.is_empty() { Ok(()) } else { Err(TextError::MissingKey { path: path.to_owned(), missing }) }
}

pub(super) fn filled<T>(path: &Path, records: Vec<T>, mut notes: ReadNotes) -> Result<Records<T>, TextError> {
    notes.records = records.len() as u64;
    if records.is_empty() { Err(TextError::Empty { path: path.to_owned() }) } else { Ok(Records { records, notes }) }
}

/// The text of a value; `None` where it is blank or null.
pub(super) fn text(path: &Path, line: usize, key: &str, value: Value) -> Result<Option<String>, TextError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        other => Err(wrong_type(path, line, key, &other, "a string")),
    }
}

pub(super) fn label(path: &Path, line: usize, key: &str, value: Value) -> Result<Label, TextError> {
    let expected = "the name of a class, or its number from 0";
    let refuse = |value: &Value| wrong_type(path, line, key, value, expected);
    match &value {
        Value::String(name) if !name.trim().is_empty() => Ok(Label::Name(name.clone())),
        Value::Bool(value) => Ok(Label::Id(u64::from(*value))),
        // Tables that had gaps once write their integers as 1.0.
        Value::Number(number) => {
            let whole = number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..1e9).contains(value));
            number.as_u64().or(whole.map(|value| value as u64)).map(Label::Id).ok_or_else(|| refuse(&value))
        }
        _ => Err(refuse(&value)),
    }
}

pub(super) fn wrong_type(path: &Path, line: usize, key: &str, value: &Value, expected: &'static str) -> TextError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.as_f64().is_some_and(|value| value < 0.0) => "a negative number",
        Value::Number(number) if number.as_f64().is_some_and(|value| value.fract() != 0.0) => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "empty",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    TextError::WrongType { path: path.to_owned(), line, key: key.to_owned(), found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writes");
        (directory, path)
    }

    #[test]
    fn texts_lines_and_fields_are_read() {
        let (_keep, path) = file("a.txt", b"one\n\n two\r\n");
        let (text, notes) = read_text(&path).expect("reads");
        assert_eq!((text.as_str(), notes.crlf), ("one\n\n two\n", true));
        let records = read_records(&path, &TextForm::default()).expect("reads").records;
        assert_eq!(records[1], Record { line: 3, text: " two".to_owned() });
        let (_keep, path) =
            file("a.jsonl", b"{\"text\": \"x\", \"label\": \"y\"}\n\n{\"text\": \"z\", \"label\": \"w\"}");
        let texts: Vec<String> = read_records(&path, &TextForm::of_field(Some("text")))
            .expect("reads")
            .records
            .into_iter()
            .map(|r| r.text)
            .collect();
        assert_eq!(texts, ["x", "z"]);
        let labelled = read_labelled(&path, &TextForm::default(), "text", "label").expect("reads").records;
        assert_eq!(labelled[1], LabelledRecord { line: 3, text: "z".to_owned(), label: Label::Name("w".to_owned()) });
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
                "a.jsonl:2: no key `text` in row 2; the object has: txt",
            ),
            ("a.jsonl", b"{\"text\": 3}", Some("text"), "a.jsonl:1: `text` is a number; expected a string"),
            ("a.jsonl", b"{\"text\": \" \"}", Some("text"), "holds no text"),
            ("a.jsonl", b"[]", Some("text"), "a.jsonl:1: expected one JSON object per line"),
            ("a.jsonl", b"", Some("text"), "holds no text"),
        ];
        for (name, content, field, expected) in cases {
            let (_keep, path) = file(name, content);
            let error = read_records(&path, &TextForm::of_field(field)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read_text(Path::new("/nowhere/a.txt")).expect_err("missing").to_string();
        assert!(error.contains("/nowhere/a.txt"), "{error}");
    }

    #[test]
    fn the_first_row_of_a_file_is_seen_without_the_others() {
        let check = |name: &str, content: &str, keys: &[&str]| {
            let (_keep, path) = file(name, content.as_bytes());
            check_first_row(&path, keys).map_err(|error| error.to_string())
        };
        let long = "{\"text\": \"x\"}\n".repeat(20_000);
        assert_eq!(check("a.jsonl", &long, &["text"]), Ok(()));
        let error = check("a.jsonl", &long, &["text", "label"]).expect_err("no label");
        assert!(error.contains("a.jsonl:1: no key `label` in row 1; the object has: text"), "{error}");
        let error = check("a.txt", "\nOnce upon a time.\n", &["text"]).expect_err("no row");
        assert!(error.contains("a.txt:2: expected one JSON object per line"), "{error}");
        // A line that is not whole says nothing, and neither do formats that are not lines.
        for (name, content) in [("a.jsonl", "{\"text\": ".to_owned()), ("a.json", "[]\n".to_owned())] {
            assert_eq!(check(name, &content, &["text"]), Ok(()));
        }
        assert_eq!(check("a.txt", "Once\n", &[]), Ok(()));
    }

    #[test]
    fn rows_without_text_are_left_out_and_counted() {
        let (_keep, path) =
            file("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\"}\n{\"text\": null}\n{\"text\": \"y\"}\n");
        let read = read_records(&path, &TextForm::of_field(Some("text"))).expect("reads");
        assert_eq!(read.records.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!((read.notes.blank_rows, read.notes.first_blank_row), (2, 2));
    }

    #[test]
    fn all_missing_keys_are_named_with_their_first_rows() {
        let content = b"{\"text\": \"x\", \"label\": 1}\n{\"label\": 0}\n{\"text\": \"y\"}\n{\"note\": 3}\n";
        let (_keep, path) = file("a.jsonl", content);
        let error = read_labelled(&path, &TextForm::default(), "text", "label").expect_err("incomplete").to_string();
        for part in [
            "a.jsonl:2: ",
            "no key `text` in 2 rows, the first being row 2",
            "no key `label` in 2 rows, the first being row 3",
            "that object has: text",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn integer_labels_are_class_numbers() {
        let read = |label: &str| {
            let (_keep, path) = file("a.jsonl", format!("{{\"text\": \"x\", \"label\": {label}}}").as_bytes());
            read_labelled(&path, &TextForm::default(), "text", "label").map(|read| read.records[0].label.clone())
        };
        for (label, id) in [("2", 2), ("2.0", 2), ("true", 1), ("0", 0)] {
            assert_eq!(read(label).expect(label), Label::Id(id));
        }
        assert_eq!(read("\"2\"").expect("a name"), Label::Name("2".to_owned()));
        for (label, found) in [("-1", "a negative number"), ("0.5", "a fraction"), ("null", "null"), ("\" \"", "empty")]
        {
            let error = read(label).expect_err(label).to_string();
            assert!(error.contains(&format!("a.jsonl:1: `label` is {found}")), "{error}");
        }
        let names = ["no", "yes"].map(str::to_owned);
        assert_eq!((Label::Id(1).class(&names), Label::Id(2).class(&names)), (Some(1), None));
        assert_eq!(Label::Name("yes".to_owned()).class(&names), Some(1));
    }
}
