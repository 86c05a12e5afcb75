//! The chunk list: the digests of the leaves that a signature covers through `chunks_root`. Every device section but the
//! list itself, in table order, is cut into pieces of 2^`chunk_shift` bytes from the section's start; a section's last leaf
//! may be short. What is between sections is zero by the rules of [`super::artifact::ArtifactView::open`], and where they
//! lie is in the header page, so the page's signature covers every byte of the device part.
//!
//! ```text
//! leaf   = SHA-256(0 ‖ stored bytes)
//! chunks = leaf 0 ‖ leaf 1 ‖ …            chunks_root = the root over them (RFC 6962)
//! ```

#[cfg(any(test, feature = "signed"))]
use super::FormatError;
use super::header::{Header, MAX_SECTIONS, SECTION_TABLE_OFFSET, SectionKind, SectionRecord};
use crate::sha256::Digest;
use core::ops::Range;

/// log2 of the leaf sizes that a file may have, in bytes.
pub const CHUNK_SHIFTS: core::ops::RangeInclusive<u8> = 12..=20;
/// The one that slmc writes unless asked: 64 KiB.
pub const DEFAULT_CHUNK_SHIFT: u8 = 16;
/// Bytes of an entry of the list.
pub const ENTRY_BYTES: usize = 32;

/// Where a leaf's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// A [`SectionKind`], or the number of a section that this version does not know.
    pub kind: u32,
    /// Bytes before it in its section.
    pub within: u64,
    /// From the start of the file.
    pub offset: u64,
    /// Length, 1 to 2^`chunk_shift`.
    pub bytes: u32,
}

/// The section table of a header page, or nothing where it runs past the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    pub(crate) fn of(page: &'a [u8], header: &Header) -> Self {
        let sections = (header.sections as usize).min(MAX_SECTIONS);
        let table = SECTION_TABLE_OFFSET..SECTION_TABLE_OFFSET + sections * SectionRecord::BYTES;
        Records(page.get(table).unwrap_or_default())
    }
}

impl Iterator for Records<'_> {
    type Item = SectionRecord;

    // A function of its own: whoever walks the table would have a copy of it.
    #[inline(never)]
    fn next(&mut self) -> Option<SectionRecord> {
        let (record, rest) = self.0.split_at_checked(SectionRecord::BYTES)?;
        self.0 = rest;
        Some(SectionRecord::from_bytes(record))
    }
}

/// The leaves of a file, by its section table.
#[derive(Clone, Copy, Debug)]
pub struct Leaves<'a> {
    records: Records<'a>,
    shift: u8,
}

/// A section that is cut into leaves.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    kind: u32,
    offset: u64,
    bytes: u64,
    /// Its leaves.
    first: u64,
    end: u64,
}

/// The sections that are cut into leaves.
struct Cuts<'a> {
    records: Records<'a>,
    shift: u8,
    first: u64,
}

impl Iterator for Cuts<'_> {
    type Item = Cut;

    #[inline(never)]
    fn next(&mut self) -> Option<Cut> {
        let of_leaves = |record: &SectionRecord| record.host == 0 && record.kind != SectionKind::Chunks as u32;
        let SectionRecord { kind, offset, bytes, .. } = self.records.find(of_leaves)?;
        let first = self.first;
        self.first = first.saturating_add(leaves_in(bytes, self.shift));
        Some(Cut { kind, offset, bytes, first, end: self.first })
    }
}

impl<'a> Leaves<'a> {
    /// The leaves of the file with a header page. A table that runs past the page has no leaves, as has a shift that is not
    /// one of [`CHUNK_SHIFTS`].
    pub fn of(page: &'a [u8], header: &Header) -> Self {
        let known = CHUNK_SHIFTS.contains(&header.chunk_shift);
        let records = if known { Records::of(page, header) } else { Records(&[]) };
        Leaves { records, shift: header.chunk_shift }
    }

    /// The sections that are cut into leaves.
    fn sections(&self) -> Cuts<'a> {
        Cuts { records: self.records, shift: self.shift, first: 0 }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.sections().last().map_or(0, |cut| cut.end)
    }

    /// Most bytes of a leaf.
    pub fn most_bytes(&self) -> usize {
        if self.records.0.is_empty() { 0 } else { 1 << self.shift }
    }

    /// Leaf `index`; `None` past the last.
    pub fn get(&self, index: u64) -> Option<Leaf> {
        let cut = self.sections().find(|cut| index < cut.end)?;
        let within = index.checked_sub(cut.first)? << self.shift;
        let bytes = (cut.bytes - within).min(1 << self.shift) as u32;
        Some(Leaf { kind: cut.kind, within, offset: cut.offset.checked_add(within)?, bytes })
    }

    /// All leaves, in order.
    pub fn iter(&self) -> impl Iterator<Item = Leaf> + use<'a> {
        let shift = self.shift;
        self.sections().flat_map(move |cut| {
            (0..cut.end - cut.first).map(move |index| {
                let within = index << shift;
                let bytes = (cut.bytes - within).min(1 << shift) as u32;
                Leaf { kind: cut.kind, within, offset: cut.offset.saturating_add(within), bytes }
            })
        })
    }

    /// The section of a kind, where it is cut into leaves.
    #[inline(never)]
    fn section(&self, kind: u32) -> Option<Cut> {
        self.sections().find(|cut| cut.kind == kind)
    }

    /// The numbers of the leaves of a section; empty where there is no such section.
    pub fn of_section(&self, kind: u32) -> Range<u64> {
        self.section(kind).map_or(0..0, |cut| cut.first..cut.end)
    }

    /// The numbers of the leaves that hold some bytes of a section; empty where the section lacks any of them.
    pub fn holding(&self, kind: u32, bytes: &Range<u64>) -> Range<u64> {
        let found = self.section(kind).filter(|cut| bytes.start < bytes.end && bytes.end <= cut.bytes);
        let Some(Cut { first, .. }) = found else { return 0..0 };
        first + (bytes.start >> self.shift)..first + ((bytes.end - 1) >> self.shift) + 1
    }
}

/// Leaves of a section.
fn leaves_in(bytes: u64, shift: u8) -> u64 {
    bytes.div_ceil(1 << shift)
}

/// The list of a file, whose length [`super::artifact::ArtifactView::open`] has checked.
#[derive(Clone, Copy, Debug)]
pub struct ChunkList<'a>(&'a [u8]);

impl<'a> ChunkList<'a> {
    /// The list in the bytes of its section.
    pub fn new(bytes: &'a [u8]) -> Self {
        ChunkList(bytes)
    }

    /// Digest of leaf `index`.
    pub fn get(&self, index: u64) -> Option<&'a Digest> {
        let start = usize::try_from(index).ok()?.checked_mul(ENTRY_BYTES)?;
        self.0.get(start..)?.first_chunk()
    }

    /// All digests.
    pub fn iter(&self) -> impl Iterator<Item = Digest> + use<'a> {
        self.0.as_chunks::<ENTRY_BYTES>().0.iter().copied()
    }
}

/// Checks the place and the length of the chunk list in a section table whose sections lie within the file.
#[cfg(any(test, feature = "signed"))]
pub(crate) fn check_list(page: &[u8], header: &Header) -> Result<(), FormatError> {
    let fault = |fault| Err(FormatError::section(SectionKind::Chunks, fault));
    let (mut list, mut lists, mut last) = (None, 0, true);
    for record in Records::of(page, header) {
        // Device sections stand first, so what follows the list must be of the host part.
        last &= lists == 0 || record.host == 1;
        if record.kind == SectionKind::Chunks as u32 {
            last &= lists > 0 || record.host == 0;
            list = list.or(Some(record.bytes));
            lists += 1;
        }
    }
    match list {
        None if header.chunk_shift == 0 => Ok(()),
        None => fault("missing, and `chunk_shift` says that it is there"),
        Some(_) if header.chunk_shift == 0 => fault("there, and `chunk_shift` says that it is not"),
        Some(_) if !last => fault("not the last section of the device part"),
        Some(_) if lists > 1 => fault("there twice"),
        Some(bytes) if Leaves::of(page, header).count().checked_mul(ENTRY_BYTES as u64) != Some(bytes) => {
            fault("length is not that of a digest for every leaf")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn page(records: &[SectionRecord]) -> (Vec<u8>, Header) {
        let mut page = std::vec![0; super::super::header::HEADER_BYTES];
        for (n, record) in records.iter().enumerate() {
            page[SECTION_TABLE_OFFSET + n * 32..][..32].copy_from_slice(&record.to_bytes());
        }
        let mut header = Header::from_bytes(&page);
        (header.sections, header.chunk_shift) = (records.len() as u32, 12);
        (page, header)
    }

    #[test]
    fn leaves_begin_with_their_section_and_the_last_may_be_short() {
        let section = |kind, host, offset, bytes| SectionRecord { kind, host, offset, bytes, reserved: 0 };
        let (page, header) = page(&[
            section(1, 0, 4096, 4096),
            section(2, 0, 8192, 0),
            section(4, 0, 8192, 4097),
            section(SectionKind::Chunks as u32, 0, 12352, 96),
            section(0x8000_0001, 1, 12480, 9000),
        ]);
        let leaves = Leaves::of(&page, &header);
        let expected = [
            Leaf { kind: 1, within: 0, offset: 4096, bytes: 4096 },
            Leaf { kind: 4, within: 0, offset: 8192, bytes: 4096 },
            Leaf { kind: 4, within: 4096, offset: 12288, bytes: 1 },
        ];
        assert_eq!(leaves.iter().collect::<Vec<_>>(), expected);
        assert_eq!((0..4).map(|n| leaves.get(n)).collect::<Vec<_>>()[..3], expected.map(Some));
        assert_eq!((leaves.count(), leaves.get(3), leaves.get(u64::MAX)), (3, None, None));
        assert_eq!((leaves.of_section(4), leaves.of_section(2), leaves.of_section(9)), (1..3, 1..1, 0..0));
        assert_eq!(leaves.holding(4, &(4095..4097)), 1..3);
        assert_eq!(leaves.holding(4, &(4096..4097)), 2..3);
        assert_eq!((leaves.holding(4, &(0..4098)), leaves.holding(4, &(5..5))), (0..0, 0..0));
        assert_eq!(check_list(&page, &header), Ok(()));
    }
}
