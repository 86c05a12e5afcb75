//! Rows of a data file as JSON objects: lines of JSONL, objects of a JSON array, rows of a Parquet file. A row is known by
//! its number from 1: the line in JSONL, the position otherwise.

mod parquet;

use super::error::TextError;
use super::file::{ReadNotes, read_decoded};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Number of a row and its values by key.
pub(super) type Row = (usize, Map<String, Value>);

/// How the rows of a file are stored, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    /// One JSON object a line.
    JsonLines,
    /// One array of JSON objects.
    JsonArray,
    /// A table by columns.
    Parquet,
}

/// The format of a file with rows; `None` for a text file. The ending of a compressed file counts without `.gz` and
/// `.zst`.
pub(crate) fn row_format(path: &Path) -> Option<RowFormat> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Some(RowFormat::JsonLines),
        "json" => Some(RowFormat::JsonArray),
        "parquet" => Some(RowFormat::Parquet),
        _ => None,
    }
}

/// Whether a file has rows rather than text where no field is named: by its name, and of `.json` by its first character,
/// since any JSON can be a text.
///
/// # Errors
/// The file cannot be read.
pub(super) fn has_rows(path: &Path) -> Result<bool, TextError> {
    match row_format(path) {
        None => Ok(false),
        Some(RowFormat::JsonArray) => {
            let text = read_decoded(path, &mut ReadNotes::default())?;
            Ok(text.trim_start().starts_with('['))
        }
        Some(RowFormat::JsonLines | RowFormat::Parquet) => Ok(true),
    }
}

/// Whether the field `key` of a file's rows holds lists: by the first row in which it is not null, and of a Parquet file by
/// the type of the column. A text file has none.
///
/// # Errors
/// [`TextError`].
pub(super) fn has_lists(path: &Path, key: &str) -> Result<bool, TextError> {
    let format = match row_format(path) {
        None => return Ok(false),
        Some(RowFormat::Parquet) => return parquet::is_list(path, key),
        Some(format) => format,
    };
    let text = read_decoded(path, &mut ReadNotes::default())?;
    let not_null = |row: Map<String, Value>| row.get(key).filter(|value| !value.is_null()).map(Value::is_array);
    if format == RowFormat::JsonArray && text.trim_start().starts_with('[') {
        return Ok(json_array(path, &text)?.into_iter().find_map(|(_, row)| not_null(row)).unwrap_or(false));
    }
    if let Some(row) = one_object(&text).filter(|_| format == RowFormat::JsonArray) {
        return Ok(not_null(row).unwrap_or(false));
    }
    for row in lines_of_json(path, &text) {
        match row {
            Ok((_, row)) => {
                if let Some(list) = not_null(row) {
                    return Ok(list);
                }
            }
            // Any JSON can be a text.
            Err(_) if format == RowFormat::JsonArray => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The keys of a file's first row; `None` where it has no rows.
///
/// # Errors
/// [`TextError`].
pub(super) fn first_keys(path: &Path) -> Result<Option<Vec<String>>, TextError> {
    match row_format(path) {
        Some(RowFormat::Parquet) => parquet::columns(path).map(Some),
        _ => {
            let rows = read_rows(path, &[], &mut ReadNotes::default())?;
            Ok(rows.into_iter().next().map(|(_, row)| row.into_iter().map(|(key, _)| key).collect()))
        }
    }
}

/// The first row of a file of lines, if it is within the first bytes; of one of any other name as JSONL. `None` where that
/// cannot be told without the whole file.
///
/// # Errors
/// [`TextError::Read`], [`TextError::Json`].
pub(super) fn first_row(path: &Path) -> Result<Option<Row>, TextError> {
    const HEAD_BYTES: u64 = 64 << 10;
    if !matches!(row_format(path), None | Some(RowFormat::JsonLines)) {
        return Ok(None);
    }
    let failed = |source| TextError::Read { path: path.to_owned(), source };
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head)).map_err(failed)?;
    let Some(end) = head.iter().rposition(|&byte| byte == b'\n') else { return Ok(None) };
    // Compressed files, and other encodings, are left to whoever reads the whole.
    let Ok(lines) = std::str::from_utf8(&head[..end]) else { return Ok(None) };
    lines_of_json(path, lines.trim_start_matches('\u{feff}')).next().transpose()
}

/// The rows of a file; one of any other name is read as JSONL. `keys` are the ones that are needed: of a Parquet file, only
/// these columns are read, and all where `keys` is empty.
///
/// # Errors
/// [`TextError`].
pub(super) fn read_rows(path: &Path, keys: &[&str], notes: &mut ReadNotes) -> Result<Vec<Row>, TextError> {
    match row_format(path) {
        Some(RowFormat::Parquet) => parquet::read(path, keys),
        Some(RowFormat::JsonArray) => {
            let text = read_decoded(path, notes)?;
            match (text.trim_start().starts_with('{'), one_object(&text)) {
                (true, Some(row)) => Ok(vec![(1, row)]),
                // Some exporters give lines of JSON this name.
                (true, None) => lines_of_json(path, &text).collect(),
                (false, _) => json_array(path, &text),
            }
        }
        Some(RowFormat::JsonLines) | None => lines_of_json(path, &read_decoded(path, notes)?).collect(),
    }
}

fn lines_of_json(path: &Path, text: &str) -> impl Iterator<Item = Result<Row, TextError>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| {
        let row = serde_json::from_str(line);
        row.map(|row| (index + 1, row)).map_err(|fault| TextError::Json {
            path: path.to_owned(),
            line: index + 1,
            fault,
        })
    })
}

/// The object that a whole text is: a single row.
fn one_object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

fn json_array(path: &Path, text: &str) -> Result<Vec<Row>, TextError> {
    let rows: Vec<Map<String, Value>> =
        serde_json::from_str(text).map_err(|fault| TextError::JsonArray { path: path.to_owned(), fault })?;
    Ok(rows.into_iter().enumerate().map(|(index, row)| (index + 1, row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(name: &str, content: &str) -> Result<Vec<Row>, TextError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writes");
        read_rows(&path, &["text"], &mut ReadNotes::default())
    }

    #[test]
    fn lines_and_arrays_give_the_same_rows() {
        let lines = rows("a.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n").expect("reads");
        assert_eq!(lines.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3]);
        let array = rows("a.json", "[{\"text\": \"x\"},\n {\"text\": \"y\"}]").expect("reads");
        assert_eq!(array.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(array[1].1["text"], json!("y"));
        assert_eq!(rows("a.json", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n").expect("reads"), array);
        for wrong in ["[{\"text\": \"x\"}", "[3]", "3"] {
            let error = rows("a.json", wrong).expect_err(wrong).to_string();
            assert!(error.contains("a.json:1: expected an array of JSON objects"), "{error}");
        }
    }

    #[test]
    fn the_name_says_how_rows_are_stored() {
        let cases = [
            ("a.jsonl", Some(RowFormat::JsonLines)),
            ("a.ndjson.gz", Some(RowFormat::JsonLines)),
            ("a.b.json.zst", Some(RowFormat::JsonArray)),
            ("a.parquet", Some(RowFormat::Parquet)),
            ("a.txt.gz", None),
            ("jsonl", None),
        ];
        for (name, format) in cases {
            assert_eq!(row_format(Path::new(name)), format, "{name}");
        }
    }
}
