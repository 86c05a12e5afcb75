//! The only memory map of this crate: a whole file, read-only, together with its path for error messages.

use super::huge_pages;
use memmap2::Mmap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file whose bytes are read from disk when they are touched.
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file; reads nothing yet.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(MappedFile { path: path.to_owned(), map: map(&file)? }))
    }

    /// Maps the whole file for reading it again and again: in huge pages, where the file system keeps files in them.
    pub fn open_resident(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        huge_pages::gather(&file);
        drop(file);
        let mapped = Self::open(path)?;
        huge_pages::ask(&mapped.map);
        Ok(mapped)
    }

    /// Where the file was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedFile({}, {} bytes)", self.path.display(), self.map.len())
    }
}

#[expect(unsafe_code, reason = "weights larger than memory are read in place; mapping a file has no safe form")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this module's `&[u8]`. It stays valid while nobody truncates or
    // rewrites the file in place; slmc never does (`atomic` renames new files over old ones), and a model directory
    // that another program overwrites during a run is outside what any reader of it can promise.
    unsafe { Mmap::map(file) }
}

/// Whether a page of a file is mapped huge when it is asked for and touched.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "as for `map`")]
pub(super) fn page_is_huge(file: &File, offset: u64, length: usize) -> bool {
    // SAFETY: as for `map`; the map is gone when this returns.
    let Ok(map) = (unsafe { memmap2::MmapOptions::new().offset(offset).len(length).map(file) }) else { return false };
    huge_pages::ask(&map);
    std::hint::black_box(map[0]);
    huge_pages::huge_bytes(&map).is_some_and(|bytes| bytes > 0)
}
