//! A data file as text, in the encodings that exporters write: gzip and Zstandard by their first bytes, UTF-8 with or
//! without a byte order mark, UTF-16 with one, line ends of any platform. Every change made on the way is in
//! [`ReadNotes`].

use super::error::TextError;
use crate::disk::found::Found;
use crate::progress::Progress;
use crate::report::{Table, grouped};
use serde::{Deserialize, Serialize, Serializer};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Most bytes that a compressed file may hold: what a text of a training run can have, far below what a hostile archive of
/// a few megabytes decompresses to.
const MOST_BYTES: u64 = 16 << 30;

/// The changes and omissions of reading one file, for a warning and for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadNotes {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Texts, documents or conversations that were read, without those that are blank.
    pub records: u64,
    /// It began with a byte order mark, which is not part of the text.
    pub byte_order_mark: bool,
    /// Lines ended with carriage return and line feed, which were read as line feeds.
    pub crlf: bool,
    /// Rows whose text is empty, blank or null; they were left out.
    pub blank_rows: u64,
    /// The first of those rows, from 1; 0 if there is none.
    pub first_blank_row: u64,
    /// Records that were longer than `cut_to` tokens, and were cut.
    pub cut: u64,
    /// Most tokens of a record; 0 where none was cut.
    pub cut_to: u64,
    /// Conversations in which the assistant says nothing that could be learned or judged; they were left out.
    pub without_answer: u64,
}

/// A path as text: a report is written whatever bytes a name has.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl ReadNotes {
    /// Nothing to say about a file yet.
    pub(super) fn of(path: &Path) -> ReadNotes {
        ReadNotes { file: path.to_owned(), ..ReadNotes::default() }
    }

    /// Counts a row without text.
    pub(super) fn blank(&mut self, row: usize) {
        self.blank_rows += 1;
        if self.first_blank_row == 0 {
            self.first_blank_row = row as u64;
        }
    }

    /// Counts records that were cut to `tokens` tokens.
    pub fn count_cut(&mut self, records: usize, tokens: usize) {
        if records > 0 {
            (self.cut, self.cut_to) = (self.cut + records as u64, tokens as u64);
        }
    }

    /// Says what was changed or left out, one warning each. A byte order mark is part of no text, and no loss.
    pub fn warn(&self, progress: &dyn Progress) {
        let file = self.file.display();
        self.losses().into_iter().for_each(|loss| progress.warn(&format_args!("{file}: {loss}")));
    }

    /// The same for a report, and what was changed without losing anything; nothing where the file was read as it stands.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        let mark = self.byte_order_mark.then(|| "its byte order mark is left out".to_owned());
        mark.into_iter().chain(self.losses()).map(move |remark| format!("{name}: {remark}"))
    }

    fn losses(&self) -> Vec<String> {
        let (records, mut losses) = (grouped(self.records), Vec::new());
        let verb = |count, one: &'static str, several: &'static str| if count == 1 { one } else { several };
        if self.crlf {
            losses.push("lines end with CR LF; they are read as LF".to_owned());
        }
        if self.blank_rows > 0 {
            losses.push(format!(
                "{} {} no text and {} left out (the first is row {})",
                grouped(self.blank_rows),
                verb(self.blank_rows, "row has", "rows have"),
                verb(self.blank_rows, "is", "are"),
                self.first_blank_row
            ));
        }
        if self.cut > 0 {
            let (cut, are) = (grouped(self.cut), verb(self.cut, "is", "are"));
            losses.push(format!("{cut} of {records} {are} longer than {} tokens and cut", self.cut_to));
        }
        if self.without_answer > 0 {
            losses.push(format!(
                "{} of {records} conversations {} left out, in which the assistant says nothing",
                grouped(self.without_answer),
                verb(self.without_answer, "is", "are"),
            ));
        }
        losses
    }
}

/// Rows of a report for the files that were read otherwise than as they are.
pub fn rows_of_files(files: &[ReadNotes], table: &mut Table) {
    for remark in files.iter().flat_map(ReadNotes::remarks) {
        table.row(["data", &remark]);
    }
}

/// Refuses what is not a regular file: a pipe gives its content once, and it is read more often, a device may give it
/// without end.
pub(super) fn check_regular(path: &Path) -> Result<(), TextError> {
    let metadata = std::fs::metadata(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() {
        return Ok(());
    }
    let found = if metadata.is_dir() { "a directory" } else { "a pipe or a device" };
    Err(TextError::NotRegular { path: path.to_owned(), found })
}

/// The bytes of a file, decompressed.
///
/// # Errors
/// [`TextError::Read`], [`TextError::Archive`] or [`TextError::Foreign`].
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, TextError> {
    check_regular(path)?;
    let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    let broken = |format, source| TextError::Archive { path: path.to_owned(), format, source };
    match bytes.as_slice() {
        [0x1F, 0x8B, ..] => {
            let mut text = Vec::new();
            let decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            limited(decoder, &mut text).map_err(|source| broken("gzip", source))?;
            Ok(text)
        }
        [0x28, 0xB5, 0x2F, 0xFD, ..] => zstd_frames(&bytes).map_err(|source| broken("Zstandard", source)),
        _ => foreign(path, &bytes).map(|()| bytes),
    }
}

/// Refuses by name what is not text and never rows: by the ending of the name, and by the first bytes.
pub(super) fn foreign(path: &Path, bytes: &[u8]) -> Result<(), TextError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let parquet = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".parquet"));
    let found = match bytes {
        _ if ending == "csv" || ending == "tsv" => Some((
            "a table of separated values",
            "write it as JSONL, with pandas `read_csv(…).to_json(…, orient=\"records\", lines=True)`",
        )),
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive", "unpack it with `unzip`")),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(("compressed with xz", "decompress it with `xz -d`")),
        [b'B', b'Z', b'h', ..] => Some(("compressed with bzip2", "decompress it with `bzip2 -d`")),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Some(("an Arrow file", "export it as Parquet or JSONL")),
        [b'P', b'A', b'R', b'1', ..] if !parquet => Some(("a Parquet file", "give it a name that ends in .parquet")),
        [0x1F, 0x8B, ..] if parquet => Some(("compressed with gzip", "decompress it with `gunzip`")),
        _ => match Found::by_bytes(bytes) {
            Some(Found::LfsPointer(_)) => {
                Some(("a Git LFS pointer", "fetch the file it stands for with `git lfs pull`"))
            }
            Some(Found::Pickle) => Some(("a pickle of Python objects", "export them as JSONL")),
            Some(Found::Gguf) => Some(("a GGUF model", "pass text")),
            _ => None,
        },
    };
    match found {
        Some((format, remedy)) => Err(TextError::Foreign { path: path.to_owned(), format, remedy }),
        None => Ok(()),
    }
}

/// All frames of a Zstandard file, skippable ones left out.
fn zstd_frames(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
    let (mut text, mut source) = (Vec::new(), Cursor::new(bytes));
    while source.position() < bytes.len() as u64 {
        match ruzstd::decoding::StreamingDecoder::new(&mut source) {
            Ok(decoder) => limited(decoder, &mut text)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                source.set_position(source.position().saturating_add(u64::from(length)));
            }
            Err(error) => return Err(std::io::Error::other(error)),
        }
    }
    Ok(text)
}

fn limited(decoder: impl Read, text: &mut Vec<u8>) -> std::io::Result<()> {
    let left = MOST_BYTES.saturating_sub(text.len() as u64);
    let read = decoder.take(left.saturating_add(1)).read_to_end(text)?;
    if read as u64 > left {
        return Err(std::io::Error::other(format!("holds more than {MOST_BYTES} bytes")));
    }
    Ok(())
}

/// A file as text, with LF as the end of every line.
///
/// # Errors
/// The errors of [`read_bytes`], and [`TextError::NotUtf8`] or [`TextError::NotUtf16`].
pub(super) fn read_decoded(path: &Path, notes: &mut ReadNotes) -> Result<String, TextError> {
    decode(path, read_bytes(path)?, notes)
}

fn decode(path: &Path, mut bytes: Vec<u8>, notes: &mut ReadNotes) -> Result<String, TextError> {
    let text = match bytes.as_slice() {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Err(TextError::Utf32 { path: path.to_owned() }),
        [0xEF, 0xBB, 0xBF, ..] => {
            notes.byte_order_mark = true;
            bytes.drain(..3);
            utf8(path, bytes)?
        }
        [0xFF, 0xFE, units @ ..] => {
            notes.byte_order_mark = true;
            utf16(path, units, u16::from_le_bytes)?
        }
        [0xFE, 0xFF, units @ ..] => {
            notes.byte_order_mark = true;
            utf16(path, units, u16::from_be_bytes)?
        }
        start if looks_like_utf16(start) => return Err(TextError::NoMark { path: path.to_owned() }),
        _ => utf8(path, bytes)?,
    };
    if let Some(at) = text.find('\0') {
        let line = 1 + text[..at].bytes().filter(|&byte| byte == b'\n').count();
        return Err(TextError::ZeroBytes { path: path.to_owned(), line });
    }
    if text.contains("\r\n") {
        notes.crlf = true;
        return Ok(text.replace("\r\n", "\n"));
    }
    Ok(text)
}

/// Whether every other byte at the beginning is zero, as in UTF-16 of Latin text.
fn looks_like_utf16(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(64) & !1];
    let zeros = |odd: usize| start.chunks_exact(2).filter(|pair| pair[odd] == 0).count() * 2;
    start.len() >= 8 && (zeros(0) > start.len() * 3 / 4 || zeros(1) > start.len() * 3 / 4)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, TextError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        TextError::NotUtf8 { path: path.to_owned(), line }
    })
}

fn utf16(path: &Path, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, TextError> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    match text {
        Ok(text) if bytes.len().is_multiple_of(2) => Ok(text),
        _ => Err(TextError::NotUtf16 { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Result<(String, ReadNotes), TextError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.txt");
        std::fs::write(&path, bytes).expect("writes");
        let mut notes = ReadNotes::default();
        read_decoded(&path, &mut notes).map(|text| (text, notes))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn every_encoding_of_a_text_gives_the_text() {
        let text = "Grüße\nzwei\n";
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect()
        };
        let cases = [
            ("plain", text.as_bytes().to_vec()),
            ("mark", [b"\xEF\xBB\xBF", text.as_bytes()].concat()),
            ("CRLF", text.replace('\n', "\r\n").into_bytes()),
            ("UTF-16LE", utf16([0xFF, 0xFE], u16::to_le_bytes)),
            ("UTF-16BE", utf16([0xFE, 0xFF], u16::to_be_bytes)),
            ("gzip", gzip(text.as_bytes())),
            ("gzip in two members", [gzip(b"Gr\xC3\xBC"), gzip("ße\nzwei\n".as_bytes())].concat()),
            ("gzip with a mark", gzip(&[b"\xEF\xBB\xBF", text.as_bytes()].concat())),
            ("zstd", zstd(text.as_bytes())),
            (
                "zstd in two frames with a skippable one between",
                [zstd(b"Gr\xC3\xBC"), vec![0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 9, 9], zstd("ße\nzwei\n".as_bytes())]
                    .concat(),
            ),
        ];
        for (name, bytes) in cases {
            let (found, notes) = read(&bytes).expect(name);
            assert_eq!(found, text, "{name}");
            assert_eq!(notes.crlf, name == "CRLF", "{name}");
            assert_eq!(notes.byte_order_mark, name.contains("mark") || name.contains("UTF-16"), "{name}");
        }
    }

    #[test]
    fn an_archive_cut_short_is_an_error_at_every_length() {
        let long: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        for (name, whole) in [("gzip", gzip(long.as_bytes())), ("Zstandard", zstd(long.as_bytes()))] {
            for length in [5, 9, 20, whole.len() / 2, whole.len() - 1] {
                let error = read(&whole[..length]).expect_err(name).to_string();
                assert!(error.contains(name) && error.contains("cut short or damaged"), "{length}: {error}");
            }
        }
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let cases: [(&[u8], &str); 6] = [
            (b"PK\x03\x04....", "zip"),
            (b"\xFD7zXZ\0....", "xz -d"),
            (b"BZh91AY", "bzip2 -d"),
            (b"ARROW1\0\0", "Arrow"),
            (b"o\0n\0e\0 \0t\0w\0o\0", "UTF-16 without a byte order mark"),
            (b"\xFF\xFE\x00\xD8\x00", "UTF-16"),
        ];
        for (bytes, expected) in cases {
            let error = read(bytes).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
