//! Signed artifacts behind a reader: external flash, a file, a server. The header page and the chunk list are read once and
//! kept in the caller's memory; every leaf is hashed in the caller's memory each time it is read, so what it is read from
//! need not be trusted, neither before nor afterwards. A target with little memory takes files with leaves of 4 KiB
//! (`chunk_shift` 12).

use super::signed::list_of;
use super::{Trust, TrustError, Verifier};
use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::chunks::{ChunkList, Leaf, Leaves, check_list};
use crate::format::header::{HEADER_BYTES, Header, SectionKind};
use crate::format::tree::{leaf_digest, root};

/// What reads a file.
pub trait Source {
    /// Fills a buffer with the bytes from `offset`; false where it cannot.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool;
}

impl Source for &[u8] {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        found.map(|found| buffer.copy_from_slice(found)).is_some()
    }
}

/// A signed artifact whose header page and chunk list are in memory and hold.
pub struct SignedStream<'m, 't> {
    page: &'m [u8],
    list: ChunkList<'m>,
    list_bytes: &'m [u8],
    header: Header,
    verifier: &'t dyn Verifier,
}

impl core::fmt::Debug for SignedStream<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SignedStream").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<'m, 't> SignedStream<'m, 't> {
    /// Reads and checks the header page and the chunk list of a file. They stay in `memory`; where it is too small, the
    /// error says how much is needed, once the page's signature holds.
    ///
    /// # Errors
    /// Why the file is refused.
    pub fn open(source: &mut impl Source, memory: &'m mut [u8], trust: &Trust<'t>) -> Result<Self, TrustError> {
        let given = memory.len();
        let too_small = |needed| TrustError::Memory { needed, given };
        let (page, rest) = memory.split_at_mut_checked(HEADER_BYTES).ok_or(too_small(HEADER_BYTES as u64))?;
        read(source, 0, page)?;
        let header = trust.check_page(page)?;
        check_list(page, &header)?;
        let place = list_of(page, &header).ok_or(TrustError::outside(SectionKind::Chunks as u32))?;
        let needed = (HEADER_BYTES + place.len()) as u64;
        let list = rest.get_mut(..place.len()).ok_or(too_small(needed))?;
        read(source, place.start as u64, list)?;
        let (page, list): (&'m [u8], &'m [u8]) = (page, list);
        if root(ChunkList::new(list).iter(), trust.verifier) != header.chunks_root {
            return Err(FormatError::Digest("chunk list").into());
        }
        let stream =
            SignedStream { page, list: ChunkList::new(list), list_bytes: list, header, verifier: trust.verifier };
        // So that no later read leaves the device part. The sections follow each other, so the last leaf is the farthest,
        // but a table may lie.
        let ends_inside = |leaf: &Leaf| leaf_end(leaf).is_some_and(|end| end <= header.device_bytes);
        let inside = |leaf: &Leaf| leaf.offset >= HEADER_BYTES as u64 && ends_inside(leaf);
        match stream.leaves().iter().find(|leaf| !inside(leaf)) {
            Some(leaf) => Err(TrustError::outside(leaf.kind)),
            None => Ok(stream),
        }
    }

    /// What was checked, to be put together again by [`SignedStream::from_parts`].
    #[cfg(any(test, feature = "c-api"))]
    pub(crate) fn into_parts(self) -> (Header, &'m [u8], &'m [u8]) {
        (self.header, self.page, self.list_bytes)
    }

    /// A stream of what was checked before.
    #[cfg(any(test, feature = "c-api"))]
    pub(crate) fn from_parts(header: Header, page: &'m [u8], list: &'m [u8], verifier: &'t dyn Verifier) -> Self {
        SignedStream { page, list: ChunkList::new(list), list_bytes: list, header, verifier }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its leaves.
    pub fn leaves(&self) -> Leaves<'m> {
        Leaves::of(self.page, &self.header)
    }

    /// Reads a leaf into the start of a buffer, and checks it there. The result is the leaf's bytes.
    ///
    /// # Errors
    /// It is not what was signed, or cannot be read, or there is no such leaf, or the buffer is too small.
    pub fn read_leaf<'b>(
        &self,
        source: &mut impl Source,
        number: u64,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], TrustError> {
        let leaf = self.leaves().get(number).ok_or(TrustError::Range)?;
        let given = buffer.len();
        let small = TrustError::Memory { needed: leaf.bytes.into(), given };
        let bytes = buffer.get_mut(..leaf.bytes as usize).ok_or(small)?;
        self.fetch(source, number, &leaf, bytes)?;
        Ok(bytes)
    }

    /// Reads bytes of a section, and checks every leaf that they are in: those that `out` takes as a whole there, the ends
    /// in `buffer`, which has as many bytes as a leaf ([`Leaves::most_bytes`]).
    ///
    /// # Errors
    /// As for [`SignedStream::read_leaf`]; what `out` holds then is not to be used.
    pub fn read(
        &self,
        source: &mut impl Source,
        section: u32,
        offset: u64,
        out: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<(), TrustError> {
        let end = offset.checked_add(out.len() as u64).ok_or(TrustError::Range)?;
        if out.is_empty() {
            return Ok(());
        }
        let leaves = self.leaves();
        let numbers = leaves.holding(section, &(offset..end));
        if numbers.is_empty() {
            return Err(TrustError::Range);
        }
        for number in numbers {
            let leaf = leaves.get(number).ok_or(TrustError::Range)?;
            // Both within `out`, since the leaf holds some of its bytes.
            let from = leaf.within.max(offset);
            let to = (leaf.within + u64::from(leaf.bytes)).min(end);
            let place = &mut out[(from - offset) as usize..(to - offset) as usize];
            if place.len() == leaf.bytes as usize {
                self.fetch(source, number, &leaf, place)?;
            } else {
                let bytes = self.read_leaf(source, number, buffer)?;
                let start = (from - leaf.within) as usize;
                place.copy_from_slice(&bytes[start..start + place.len()]);
            }
        }
        Ok(())
    }

    /// Reads the device part into memory of its length, every leaf checked there, and opens it: for targets that run from
    /// RAM. [`Header::device_bytes`] says how much; memory of sessions starts on 64 bytes, and so should this.
    ///
    /// # Errors
    /// As for [`SignedStream::read_leaf`], or the structure is not sound.
    pub fn load<'b>(&self, source: &mut impl Source, memory: &'b mut [u8]) -> Result<ArtifactView<'b>, TrustError> {
        let (needed, given) = (self.header.device_bytes, memory.len());
        let small = TrustError::Memory { needed, given };
        let length = usize::try_from(needed).map_err(|_| small)?;
        let memory = memory.get_mut(..length).ok_or(small)?;
        // Padding is zero, and the page and the list are those in memory, which were checked.
        memory.fill(0);
        memory[..HEADER_BYTES].copy_from_slice(self.page);
        let list = list_of(self.page, &self.header).and_then(|range| memory.get_mut(range)).ok_or(TrustError::Range)?;
        list.copy_from_slice(self.list_bytes);
        for (number, leaf) in (0..).zip(self.leaves().iter()) {
            // `open` has checked that leaves lie within the device part.
            let place = &mut memory[leaf.offset as usize..][..leaf.bytes as usize];
            self.fetch(source, number, &leaf, place)?;
        }
        Ok(ArtifactView::open(memory)?)
    }

    fn fetch(&self, source: &mut impl Source, number: u64, leaf: &Leaf, bytes: &mut [u8]) -> Result<(), TrustError> {
        read(source, leaf.offset, bytes)?;
        if Some(&leaf_digest(self.verifier, bytes)) != self.list.get(number) {
            // Nobody takes it for what was signed.
            bytes.fill(0);
            return Err(TrustError::Leaf { leaf: number, section: leaf.kind });
        }
        Ok(())
    }
}

fn leaf_end(leaf: &Leaf) -> Option<u64> {
    leaf.offset.checked_add(leaf.bytes.into())
}

fn read(source: &mut impl Source, offset: u64, bytes: &mut [u8]) -> Result<(), TrustError> {
    if source.read(offset, bytes) { Ok(()) } else { Err(TrustError::Read { offset }) }
}
