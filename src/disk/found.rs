//! What a file turns out to be that is not what its name says: a Git LFS pointer, a web page, a link that leads nowhere.
//! Told by the first bytes, so that an error can say it instead of where a parser gave up.

use std::fmt;
use std::path::{Path, PathBuf};

/// The byte order mark with which some editors begin a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// First bytes of a Git LFS pointer.
const POINTER: &[u8] = b"version https://git-lfs";
/// Bytes that [`Found::by_bytes`] looks at.
pub const SNIFFED_BYTES: usize = 512;

/// The line that writes a pickled model as safetensors.
pub const PICKLE_CONVERSION: &str = "`python -c \"from transformers import AutoModelForCausalLM as M; \
                                     M.from_pretrained('DIR').save_pretrained('OUT')\"` (AutoModel for an encoder)";

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A link to a file that is not there.
    DanglingLink(PathBuf),
    /// A Git LFS pointer, with the length of the file it stands for.
    LfsPointer(Option<u64>),
    /// A page that a server sent instead of a file.
    WebPage,
    /// Text in UTF-16.
    Utf16,
    /// Nothing.
    Empty,
    /// Python objects, as `torch.save` writes them.
    Pickle,
    /// A GGUF file.
    Gguf,
    /// A compressed file.
    Compressed,
}

impl Found {
    /// What the first bytes of a file say, where they say something.
    pub fn by_bytes(bytes: &[u8]) -> Option<Found> {
        let start = bytes.trim_ascii_start();
        let page = |name: &[u8]| start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if bytes.is_empty() {
            Some(Found::Empty)
        } else if bytes.starts_with(POINTER) {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SNIFFED_BYTES)]);
            let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
            Some(Found::LfsPointer(size))
        } else if page(b"<!doctype") || page(b"<html") || page(b"<?xml") {
            Some(Found::WebPage)
        } else if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            Some(Found::Utf16)
        } else if bytes.starts_with(b"GGUF") {
            Some(Found::Gguf)
        } else if bytes.starts_with(b"PK\x03\x04") || (bytes[0] == 0x80 && bytes.get(1).is_some_and(|&b| b <= 5)) {
            Some(Found::Pickle)
        } else if bytes.starts_with(b"\x1F\x8B") || bytes.starts_with(b"\x28\xB5\x2F\xFD") {
            Some(Found::Compressed)
        } else {
            None
        }
    }

    /// A link at this path that leads nowhere.
    pub fn dangling_link(path: &Path) -> Option<Found> {
        match path.exists() {
            true => None,
            false => std::fs::read_link(path).ok().map(Found::DanglingLink),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::DanglingLink(target) => {
                write!(
                    f,
                    "a link to {}, which does not exist; fetch the file, or copy it in place of the link",
                    target.display()
                )
            }
            Found::LfsPointer(size) => {
                f.write_str("a Git LFS pointer, not the file")?;
                if let Some(size) = size {
                    write!(f, " of {size} bytes that it stands for")?;
                }
                f.write_str("; fetch that with `git lfs pull`")
            }
            Found::WebPage => f.write_str("a web page, perhaps of a login or an error; fetch the file itself"),
            Found::Utf16 => f.write_str("text in UTF-16; save it in UTF-8"),
            Found::Empty => f.write_str("empty; fetch it again"),
            Found::Pickle => write!(
                f,
                "Python objects as torch.save writes them, which can run code when they are read; save the model as \
                 safetensors: {PICKLE_CONVERSION}"
            ),
            Found::Gguf => f.write_str("a GGUF file; pass it as the model, by its own path"),
            Found::Compressed => f.write_str("compressed; unpack it"),
        }
    }
}

/// Text without the byte order mark that some editors put before it.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_say_what_a_file_is() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n";
        let cases: [(&[u8], Option<Found>); 11] = [
            (pointer, Some(Found::LfsPointer(Some(269_060_552)))),
            (&pointer[..40], Some(Found::LfsPointer(None))),
            (b"\n<!DOCTYPE html>", Some(Found::WebPage)),
            (b"<html>", Some(Found::WebPage)),
            (b"\xFF\xFE{\0", Some(Found::Utf16)),
            (b"", Some(Found::Empty)),
            (b"GGUF\x03\0\0\0", Some(Found::Gguf)),
            (b"PK\x03\x04", Some(Found::Pickle)),
            (b"\x80\x02}q\0", Some(Found::Pickle)),
            (b"\x1F\x8B\x08", Some(Found::Compressed)),
            (b"{\"a\": 1}", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Found::by_bytes(bytes), expected, "{bytes:?}");
        }
        assert_eq!(without_byte_order_mark(b"\xEF\xBB\xBF{}"), b"{}");
    }
}
