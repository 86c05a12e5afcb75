//! Texts of a file one after the other, for work on files that memory does not hold: lines of a text, what stands between
//! separators, or rows of JSONL, plain or compressed with gzip. One text is in memory at a time. Zstandard, UTF-16, JSON
//! arrays and Parquet are read whole, a file at a time. Files are refused for the same reasons as everywhere, but at the text
//! that shows them.

use super::error::{MissingKeys, TextError};
use super::file::{ReadNotes, check_regular, foreign, read_decoded};
use super::form::TextForm;
use super::records::text;
use super::rows::{RowFormat, has_rows, read_rows, row_format};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Most bytes of one text: as a line of that length is a file without line breaks, and would fill memory.
pub const MOST_TEXT_BYTES: usize = 64 << 20;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 16;

/// One text with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Line or row where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub text: String,
    /// The other values of its row, in their order, without the text; empty for a text file.
    pub fields: Map<String, Value>,
}

/// The texts of one file.
pub struct TextStream {
    path: PathBuf,
    form: TextForm,
    source: Source,
    notes: ReadNotes,
}

enum Source {
    /// Parts of a text file.
    Pieces(Pieces),
    /// Lines that are rows.
    Lines(Pieces),
    /// Rows that were read.
    Rows(std::vec::IntoIter<(usize, Map<String, Value>)>),
}

impl TextStream {
    /// Opens a file. Rows have their text under the field of the form, or `text`.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn open(path: &Path, form: &TextForm) -> Result<Self, TextError> {
        check_regular(path)?;
        let mut notes = ReadNotes::of(path);
        let rows = form.field.is_some() || has_rows(path)?;
        if let Some(separator) = form.separator.as_ref().filter(|_| rows) {
            let separator = separator.to_string();
            return Err(TextError::SeparatorOfRows { path: path.to_owned(), separator });
        }
        let mut form = form.clone();
        let source = match (rows, row_format(path)) {
            (true, Some(RowFormat::JsonArray | RowFormat::Parquet)) => {
                Source::Rows(read_rows(path, &[], &mut notes)?.into_iter())
            }
            (true, _) => Source::Lines(Pieces::open(path, "\n", &mut notes)?),
            (false, _) => {
                let separator = form.separator.as_ref().map_or("\n", |separator| separator.as_text());
                Source::Pieces(Pieces::open(path, separator, &mut notes)?)
            }
        };
        if rows && form.field.is_none() {
            form.field = Some("text".to_owned());
        }
        Ok(TextStream { path: path.to_owned(), form, source, notes })
    }

    /// The changes and omissions so far; all of them where nothing is left.
    pub fn notes(&self) -> ReadNotes {
        let mut notes = self.notes.clone();
        if let Source::Pieces(pieces) | Source::Lines(pieces) = &self.source {
            notes.crlf |= pieces.crlf;
        }
        notes
    }

    /// The text of a row; `None` where it has none.
    fn of_row(&mut self, line: usize, mut fields: Map<String, Value>) -> Result<Option<Streamed>, TextError> {
        let key = self.form.field.as_deref().unwrap_or("text");
        let Some(value) = fields.shift_remove(key) else {
            let mut missing = MissingKeys::default();
            missing.count(key, line, &fields);
            return Err(TextError::MissingKey { path: self.path.clone(), missing });
        };
        match text(&self.path, line, key, value)? {
            Some(text) => Ok(Some(Streamed { line, text, fields })),
            None => {
                self.notes.blank(line);
                Ok(None)
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Streamed>, TextError> {
        loop {
            let found = match &mut self.source {
                Source::Rows(rows) => match rows.next() {
                    None => return Ok(None),
                    Some((line, row)) => self.of_row(line, row)?,
                },
                Source::Lines(lines) => match lines.next(&self.path)? {
                    None => return Ok(None),
                    Some((_, line)) if line.trim().is_empty() => None,
                    Some((line, row)) => {
                        let row = serde_json::from_str(&row);
                        let row = row.map_err(|fault| TextError::Json { path: self.path.clone(), line, fault })?;
                        self.of_row(line, row)?
                    }
                },
                Source::Pieces(pieces) => match pieces.next(&self.path)? {
                    None if pieces.separators == 0 && self.form.separator.is_some() && self.notes.records > 0 => {
                        let separator = self.form.separator.as_ref().map_or_else(String::new, ToString::to_string);
                        return Err(TextError::NoSeparator { path: self.path.clone(), separator });
                    }
                    None => return Ok(None),
                    Some((_, piece)) if piece.trim().is_empty() => None,
                    Some((line, piece)) => {
                        let space = piece.len() - piece.trim_start().len();
                        let breaks = piece[..space].bytes().filter(|&byte| byte == b'\n').count();
                        let text = piece.trim().to_owned();
                        Some(Streamed { line: line + breaks, text, fields: Map::new() })
                    }
                },
            };
            if found.is_some() {
                self.notes.records += 1;
                return Ok(found);
            }
        }
    }
}

impl Iterator for TextStream {
    type Item = Result<Streamed, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// A file cut at every separator, decoded as it is read: line ends of any platform are LF, a byte order mark is left out.
struct Pieces {
    source: Box<dyn Read + Send>,
    separator: Vec<u8>,
    /// Bytes that are read and not given yet, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Where the search for a separator goes on.
    searched: usize,
    /// Line on which the next piece begins, from 1.
    line: usize,
    /// A carriage return ended the last chunk.
    held: bool,
    crlf: bool,
    ended: bool,
    /// How many were found.
    separators: u64,
}

impl Pieces {
    fn open(path: &Path, separator: &str, notes: &mut ReadNotes) -> Result<Self, TextError> {
        let read = |source| TextError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read)?;
        let mut start = Vec::new();
        (&mut file).take(64).read_to_end(&mut start).map_err(read)?;
        let gzip = start.starts_with(&[0x1F, 0x8B]);
        let whole = matches!(start.as_slice(), [0x28, 0xB5, 0x2F, 0xFD, ..] | [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..])
            || start.starts_with(&[0, 0, 0xFE, 0xFF])
            || (start.contains(&0) && !gzip);
        let source: Box<dyn Read + Send> = match whole {
            // Marks and zero bytes are told apart there.
            true => Box::new(Cursor::new(read_decoded(path, notes)?.into_bytes())),
            false if gzip => Box::new(flate2::read::MultiGzDecoder::new(Cursor::new(start).chain(file))),
            false => {
                foreign(path, &start)?;
                Box::new(Cursor::new(start).chain(file))
            }
        };
        let mut pieces = Pieces {
            source,
            separator: separator.as_bytes().to_vec(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            line: 1,
            held: false,
            crlf: false,
            ended: false,
            separators: 0,
        };
        pieces.fill(path)?;
        if pieces.buffer.starts_with(b"\xEF\xBB\xBF") {
            notes.byte_order_mark = true;
            pieces.start = 3;
            pieces.searched = 3;
        }
        Ok(pieces)
    }

    /// Reads a chunk more.
    fn fill(&mut self, path: &Path) -> Result<(), TextError> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        let mut chunk = [0; CHUNK];
        let read = match self.source.read(&mut chunk) {
            Ok(read) => read,
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => {
                return Err(match source.kind() {
                    std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::UnexpectedEof => {
                        TextError::Archive { path: path.to_owned(), format: "gzip", source }
                    }
                    _ => TextError::Read { path: path.to_owned(), source },
                });
            }
        };
        self.ended = read == 0;
        for &byte in &chunk[..read] {
            if std::mem::take(&mut self.held) {
                match byte {
                    b'\n' => self.crlf = true,
                    _ => self.buffer.push(b'\r'),
                }
            }
            if byte == b'\r' {
                self.held = true;
            } else {
                self.buffer.push(byte);
            }
        }
        if self.ended && std::mem::take(&mut self.held) {
            self.buffer.push(b'\r');
        }
        Ok(())
    }

    /// The next piece with its line; the last one ends with the file.
    fn next(&mut self, path: &Path) -> Result<Option<(usize, String)>, TextError> {
        loop {
            let rest = &self.buffer[self.searched..];
            let found = match self.separator[..] {
                [byte] => rest.iter().position(|&other| other == byte),
                _ => rest.windows(self.separator.len()).position(|window| window == self.separator),
            };
            if let Some(found) = found {
                let end = self.searched + found;
                self.separators += 1;
                return self.give(path, end, end + self.separator.len()).map(Some);
            }
            if self.ended {
                if self.start == self.buffer.len() {
                    return Ok(None);
                }
                return self.give(path, self.buffer.len(), self.buffer.len()).map(Some);
            }
            // A separator may have begun at the end.
            let tail = self.separator.len() - 1;
            self.searched = self.buffer.len().saturating_sub(tail).max(self.start);
            if self.buffer.len() - self.start > MOST_TEXT_BYTES {
                return Err(TextError::LongText { path: path.to_owned(), line: self.line, most: MOST_TEXT_BYTES });
            }
            self.fill(path)?;
        }
    }

    /// The piece up to `end`; the next one begins at `next`.
    fn give(&mut self, path: &Path, end: usize, next: usize) -> Result<(usize, String), TextError> {
        let (line, bytes) = (self.line, &self.buffer[self.start..end]);
        let breaks = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        if let Some(zero) = bytes.iter().position(|&byte| byte == 0) {
            return Err(TextError::ZeroBytes { path: path.to_owned(), line: line + breaks(&bytes[..zero]) });
        }
        let piece = std::str::from_utf8(bytes).map_err(|error| TextError::NotUtf8 {
            path: path.to_owned(),
            line: line + breaks(&bytes[..error.valid_up_to()]),
        })?;
        let piece = piece.to_owned();
        self.line += breaks(&self.buffer[self.start..next]);
        (self.start, self.searched) = (next, next);
        Ok((line, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn stream(name: &str, content: &[u8], form: &TextForm) -> Result<(Vec<Streamed>, ReadNotes), TextError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("writes");
        let mut stream = TextStream::open(&path, form)?;
        let texts = stream.by_ref().collect::<Result<Vec<_>, _>>()?;
        Ok((texts, stream.notes()))
    }

    fn separated(separator: &str) -> TextForm {
        TextForm { field: None, separator: Some(separator.parse().expect("a separator")) }
    }

    fn pairs(texts: &[Streamed]) -> Vec<(usize, &str)> {
        texts.iter().map(|text| (text.line, text.text.as_str())).collect()
    }

    #[test]
    fn texts_are_told_apart_as_everywhere() {
        let (texts, notes) = stream("a.txt", b"\xEF\xBB\xBFone\r\n\r\n two\r\n", &TextForm::default()).expect("reads");
        assert_eq!(pairs(&texts), [(1, "one"), (3, "two")]);
        assert_eq!((notes.byte_order_mark, notes.crlf, notes.records), (true, true, 2));
        let (texts, _) = stream("a.txt", b"a\nb\n\n\nc\n\nd", &separated(r"\n\n")).expect("reads");
        assert_eq!(pairs(&texts), [(1, "a\nb"), (5, "c"), (7, "d")]);
        let rows =
            b"{\"text\": \"x\", \"label\": 1}\n\n{\"text\": null, \"label\": 2}\n{\"text\": \"y\", \"label\": 3}";
        let (texts, notes) = stream("a.jsonl", rows, &TextForm::default()).expect("reads");
        assert_eq!(pairs(&texts), [(1, "x"), (4, "y")]);
        assert_eq!((texts[1].fields["label"].as_u64(), notes.blank_rows), (Some(3), 1));
        let (texts, _) =
            stream("a.json", b"[{\"t\": \"x\"}, {\"t\": \"y\"}]", &TextForm::of_field(Some("t"))).expect("reads");
        assert_eq!(pairs(&texts), [(1, "x"), (2, "y")]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all("é\nb\n".as_bytes()).expect("in memory");
        let archive = encoder.finish().expect("in memory");
        assert_eq!(pairs(&stream("a.txt.gz", &archive, &TextForm::default()).expect("reads").0), [(1, "é"), (2, "b")]);
        let cut = stream("a.txt.gz", &archive[..archive.len() - 9], &TextForm::default()).expect_err("cut").to_string();
        assert!(cut.contains("cut short or damaged"), "{cut}");
    }

    #[test]
    fn separators_and_line_ends_may_stand_between_chunks() {
        for offset in CHUNK - 4..CHUNK + 2 {
            let content = format!("{}\r\n<end>\r\nb<end>", "a".repeat(offset));
            let (texts, _) = stream("a.txt", content.as_bytes(), &separated("<end>")).expect("reads");
            assert_eq!(pairs(&texts), [(1, "a".repeat(offset).as_str()), (3, "b")], "{offset}");
        }
    }

    #[test]
    fn hostile_files_are_refused_by_line() {
        let cases: [(&str, &[u8], TextForm, &str); 8] = [
            ("a.txt", b"ok\n\xFF\n", TextForm::default(), "a.txt:2: not UTF-8"),
            (
                "a.txt",
                &[b"ok\n".repeat(40), b"x\0y".to_vec()].concat(),
                TextForm::default(),
                "a.txt:41: holds zero bytes",
            ),
            ("a.txt", b"ok\n\0", TextForm::default(), "a.txt:2: holds zero bytes"),
            ("a.txt", b"one", separated("<end>"), "the separator `<end>` does not occur"),
            ("a.jsonl", b"{\"text\": 3}", TextForm::default(), "`text` is a number"),
            ("a.jsonl", b"{\"txt\": \"x\"}", TextForm::default(), "no key `text`"),
            ("a.jsonl", b"{\"text\": \"x\"}\n[]", TextForm::default(), "a.jsonl:2: expected one JSON object per line"),
            ("a.jsonl", b"{}", separated("x"), "its texts are rows"),
        ];
        for (name, content, form, expected) in cases {
            let error = stream(name, content, &form).map(|_| ()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let giant = vec![b'a'; MOST_TEXT_BYTES + 2 * CHUNK];
        let error =
            stream("a.txt", &[b"b\n".to_vec(), giant].concat(), &TextForm::default()).map(|_| ()).expect_err("giant");
        assert!(error.to_string().contains("a.txt:2: a text of more than 67108864 bytes"), "{error}");
    }
}
