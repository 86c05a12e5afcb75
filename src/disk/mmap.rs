//! The only memory map of this crate: a whole file, read-only, together with its path for error messages.

use memmap2::Mmap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file whose bytes are read from disk on access.
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file without reading it.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file; put the file itself in its place",
            ));
        }
        Ok(Arc::new(MappedFile { path: path.to_owned(), map: map(&file)? }))
    }

    /// Asks the system to map the file in huge pages, before the first access; small pages serve as well.
    pub fn ask_for_huge_pages(&self) {
        ask_for_huge_pages(&self.map);
    }

    /// Path of the file when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content.
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
    // that another program overwrites during a run is outside any reader's guarantees.
    unsafe { Mmap::map(file) }
}

fn ask_for_huge_pages(map: &Mmap) {
    #[cfg(target_os = "linux")]
    drop(map.advise(memmap2::Advice::HugePage));
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

/// Maps a part of a file, in huge pages where available, touches it, and passes its bytes to `look`; `None` where it
/// cannot be mapped.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "as for `map`")]
pub(crate) fn with_touched_part<T>(
    file: &File,
    offset: u64,
    length: usize,
    look: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    // SAFETY: as for `map`; the map is gone when this returns.
    let map = unsafe { memmap2::MmapOptions::new().offset(offset).len(length).map(file) }.ok()?;
    ask_for_huge_pages(&map);
    std::hint::black_box(map.first());
    Some(look(&map))
}
