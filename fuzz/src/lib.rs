//! What the fuzz targets share: a directory for parsers that read files, and the comparison of host and device tokens.

use slm_runtime::format::text_tables::TextTables;
use slm_runtime::tokenizer::Tokenizer;
use slmc::artifact::text::device_tokens;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Most memory that a device's tokenizer gets.
const MEMORY: usize = 1 << 24;

/// A directory of this process, in memory where the machine has /dev/shm.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
    };
    DIRECTORY.get_or_init(make).path()
}

/// Writes a file anew: what still maps the one before keeps its bytes.
pub fn put(directory: &Path, name: &str, bytes: &[u8]) {
    let path = directory.join(name);
    let _ = fs::remove_file(&path);
    fs::write(path, bytes).expect("the file can be written");
}

/// Configuration, header and values of an input, which zero bytes part; the header is JSON and has none.
pub fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    Some((parts.next()?, parts.next()?, parts.next().unwrap_or_default()))
}

/// A safetensors file of a header, whose data are some values over and over, as many as the header has and at most a quarter
/// of a megabyte.
pub fn tensor_file(header: &[u8], values: &[u8]) -> Vec<u8> {
    const MOST: usize = 1 << 18;
    let mut largest = 0usize;
    let mut number: Option<usize> = None;
    for &byte in header {
        match byte {
            b'0'..=b'9' => {
                number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(usize::from(byte - b'0')));
            }
            // The last tensor ends at the largest number before a bracket, in a header that is sound.
            b']' => largest = largest.max(number.take().unwrap_or(0)),
            _ => number = None,
        }
    }
    let values = if values.is_empty() { &[0] } else { values };
    let data = values.iter().copied().cycle().take(largest.min(MOST));
    (header.len() as u64).to_le_bytes().into_iter().chain(header.iter().copied()).chain(data).collect()
}

/// Reads a text section, encodes the text with it, and compares.
pub fn compare(section: &[u8], text: &str, expected: &[u32]) {
    let tables = TextTables::read(section, u32::MAX).expect("slmc wrote the section");
    let tokenizer = Tokenizer::new(&tables);
    if tokenizer.required_bytes(text.len()).is_none_or(|bytes| bytes > MEMORY) {
        return;
    }
    match device_tokens(&tokenizer, text, false) {
        Ok(tokens) => assert_eq!(tokens, expected, "device and host differ on {text:?}"),
        Err(error) => panic!("the device refuses {text:?}: {error}"),
    }
}
