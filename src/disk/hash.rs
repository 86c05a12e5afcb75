//! SHA-256 of files and of directories, by which provenance and lock files name inputs. The hash of a directory is
//! taken over its top-level regular files (links to files count, hidden files and slmc.json do not), sorted by name, each
//! contributing
//!
//! ```text
//! name, one zero byte, SHA-256 of the content (32 bytes)
//! ```
//!
//! slmc.json says how a directory was made, and is left out so that equal weights have equal hashes.

use super::PROVENANCE_FILE;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A SHA-256.
pub type Hash = [u8; 32];

/// A file or directory that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be read for hashing", path.display())]
pub struct HashError {
    /// Its path.
    pub path: PathBuf,
    /// The operating system's error.
    pub source: std::io::Error,
}

/// Hash of a file's content.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> Result<Hash, HashError> {
    file_sha256_with(path, &mut |_| {})
}

/// Likewise; `read` is told the bytes of every piece.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256_with(path: &Path, read: &mut dyn FnMut(u64)) -> Result<Hash, HashError> {
    let failed = |source| HashError { path: path.to_owned(), source };
    // A pipe gives its content once, and a device may give it without end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..length]);
        read(length as u64);
    }
}

/// The files of a directory that count in its hash.
///
/// # Errors
/// The directory cannot be listed.
pub fn counted_files(path: &Path) -> Result<Vec<OsString>, HashError> {
    let failed = |source| HashError { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && name != PROVENANCE_FILE && path.join(&name).is_file() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Hash of a directory's names and contents.
///
/// # Errors
/// A file cannot be read.
pub fn directory_sha256(path: &Path) -> Result<Hash, HashError> {
    let names = counted_files(path)?;
    let mut files = Vec::new();
    for name in &names {
        files.push((name.as_encoded_bytes(), file_sha256(&path.join(name))?));
    }
    Ok(names_sha256(&files))
}

/// Hash of a directory with files of these names and hashes, in any order.
pub fn names_sha256(files: &[(&[u8], Hash)]) -> Hash {
    let mut sorted: Vec<&(&[u8], Hash)> = files.iter().collect();
    sorted.sort();
    let mut hasher = Sha256::new();
    for (name, hash) in sorted {
        hasher.update(name);
        hasher.update([0]);
        hasher.update(hash);
    }
    hasher.finalize().into()
}

/// Hash of a path: of a directory's names and contents, or of a file's content.
pub fn path_sha256(path: &Path) -> Result<Hash, HashError> {
    if path.is_dir() { directory_sha256(path) } else { file_sha256(path) }
}

/// Hash of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Sixty-four lower-case digits.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_and_contents_count_and_hidden_files_do_not() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [a.path(), b.path()] {
            fs::write(dir.join("x"), "1").unwrap();
            fs::write(dir.join("y"), "2").unwrap();
            fs::create_dir(dir.join("sub")).unwrap();
        }
        fs::write(b.path().join(".hidden"), "3").unwrap();
        fs::write(b.path().join("slmc.json"), "4").unwrap();
        assert_eq!(directory_sha256(a.path()).unwrap(), directory_sha256(b.path()).unwrap());
        let mut bytes = Vec::new();
        for (name, content) in [("x", "1"), ("y", "2")] {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&sha256(content.as_bytes()));
        }
        assert_eq!(directory_sha256(a.path()).unwrap(), sha256(&bytes));
        fs::rename(b.path().join("y"), b.path().join("z")).unwrap();
        assert_ne!(directory_sha256(a.path()).unwrap(), directory_sha256(b.path()).unwrap());
        assert_eq!(hex(&sha256(b"")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let missing = directory_sha256(&a.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
