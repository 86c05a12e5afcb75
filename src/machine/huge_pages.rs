//! Huge pages for weights, which are streamed from memory once a token and then need one address translation per 2 MiB
//! and not one per 4 KiB.
//!
//! Linux maps a file in huge pages where its file system caches it in large pieces (ext4 from 6.16 on, XFS, Btrfs), the
//! pieces are as large as a huge page, and the mapping asked for it. A file is cached in such pieces when it is written
//! in large writes, or read by a mapping that asked; one that was copied or downloaded is not, until it is read again.
//! Nothing here changes the bytes that are read, and where the system does not do it, nothing happens.

use crate::disk::mmap::MappedFile;
use memmap2::MmapMut;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Size of a huge page.
const PAGE_BYTES: usize = 2 << 20;

/// A copy in anonymous memory for which huge pages were asked.
pub struct HugePages {
    map: MmapMut,
    length: usize,
}

impl HugePages {
    /// Copies `bytes`.
    ///
    /// # Errors
    /// Where memory is short, or the system knows no huge pages.
    pub fn copy(bytes: &[u8]) -> io::Result<Self> {
        // A multiple of a page, so that its end is one too.
        let mut map = MmapMut::map_anon(bytes.len().max(1).next_multiple_of(PAGE_BYTES))?;
        advise(&map)?;
        map[..bytes.len()].copy_from_slice(bytes);
        Ok(HugePages { map, length: bytes.len() })
    }

    /// The copy; it starts on a page.
    pub fn bytes(&self) -> &[u8] {
        &self.map[..self.length]
    }
}

#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) -> io::Result<()> {
    map.advise(memmap2::Advice::HugePage)
}

#[cfg(not(target_os = "linux"))]
fn advise(_map: &MmapMut) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "huge pages are asked for on Linux only"))
}

impl fmt::Debug for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugePages({} bytes)", self.length)
    }
}

/// Maps a file for reading it again and again: in huge pages, where the file system keeps files in them.
///
/// # Errors
/// A file that cannot be opened or mapped.
pub fn map_resident(path: &Path) -> io::Result<Arc<MappedFile>> {
    gather(&File::open(path)?);
    let mapped = MappedFile::open(path)?;
    mapped.ask_for_huge_pages();
    Ok(mapped)
}

/// Pieces of a file that [`gather`] looks at.
#[cfg(target_os = "linux")]
const SAMPLES: u64 = 16;

/// Whether a page of a file is mapped huge when it is asked for and touched.
#[cfg(target_os = "linux")]
fn page_is_huge(file: &File, offset: u64) -> bool {
    let huge = |bytes: &[u8]| huge_bytes(bytes).is_some_and(|bytes| bytes > 0);
    crate::disk::mmap::with_touched_part(file, offset, PAGE_BYTES, huge).unwrap_or(false)
}

/// Drops a file's cache if sampled pages are not huge but become huge when they are read again.
fn gather(file: &File) {
    #[cfg(target_os = "linux")]
    {
        let page = PAGE_BYTES as u64;
        let pages = file.metadata().map_or(0, |metadata| metadata.len()) / page;
        // Dropping is a wish as well; pages not written yet, or mapped by another program, stay.
        let forget = |offset, length| {
            let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
        };
        for sample in 0..SAMPLES.min(pages) {
            let offset = sample * pages / SAMPLES.min(pages) * page;
            if page_is_huge(file, offset) {
                continue;
            }
            forget(offset, page);
            if page_is_huge(file, offset) {
                forget(0, 0);
            }
            return;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// How many bytes of the mapping that holds `bytes` are in huge pages; `None` where the system does not tell.
pub fn huge_bytes(bytes: &[u8]) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let address = bytes.as_ptr().addr() as u64;
    let mut here = false;
    let mut sum = None;
    for line in text.lines() {
        if let Some(range) = address_range(line) {
            here = range.contains(&address);
        } else if let Some((_, kibibytes)) = line
            .split_once(':')
            .filter(|(name, _)| here && matches!(*name, "FilePmdMapped" | "AnonHugePages" | "ShmemPmdMapped"))
        {
            let kibibytes: u64 = kibibytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
            *sum.get_or_insert(0) += kibibytes * 1024;
        }
    }
    sum
}

/// The addresses of a mapping, from the first line of its entry.
fn address_range(line: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        match HugePages::copy(&bytes) {
            Ok(copy) => assert_eq!(copy.bytes(), bytes),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }

    #[test]
    fn files_are_equal_however_they_were_cached() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let bytes: Vec<u8> = (0..9_000_001u32).map(|n| (n / 7) as u8).collect();
        // In small pieces, as a download is written.
        let mut file = File::create(&path).expect("a file");
        for piece in bytes.chunks(5000) {
            std::io::Write::write_all(&mut file, piece).expect("written");
        }
        file.sync_all().expect("written");
        drop(file);
        for _ in 0..2 {
            let mapped = map_resident(&path).expect("mapped");
            assert_eq!(mapped.bytes(), bytes);
            if let Some(huge) = huge_bytes(mapped.bytes()) {
                assert!(huge <= bytes.len() as u64 && huge.is_multiple_of(PAGE_BYTES as u64), "{huge}");
            }
        }
    }

    #[test]
    fn mappings_are_told_from_their_lines() {
        assert_eq!(address_range("7f00-7f80 r--p 0 00:00 0"), Some(0x7f00..0x7f80));
        assert_eq!(address_range("FilePmdMapped:    2048 kB"), None);
    }
}
