//! Bytes of a file copied into huge pages, where the system gives them: weights that are streamed from memory once a token
//! then need one address translation per 2 MiB and not one per 4 KiB. A file's own pages are not to be had huge everywhere.

use memmap2::MmapMut;
use std::fmt;
use std::io;

/// A copy in anonymous memory for which huge pages were asked.
pub struct HugePages {
    map: MmapMut,
    length: usize,
}

/// Size of a huge page; the mapping is a multiple, so that its end is one too.
const PAGE_BYTES: usize = 2 << 20;

impl HugePages {
    /// Copies `bytes`.
    ///
    /// # Errors
    /// Where memory is short, or the system knows no huge pages.
    pub fn copy(bytes: &[u8]) -> io::Result<Self> {
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
}
