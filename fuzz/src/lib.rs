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
