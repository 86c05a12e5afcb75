//! Where the parts of an artifact lie in a slot, by its header page alone: what an update writes, and in which order.
//! Leaves are those of [`crate::format::chunks`]; what lies between a leaf's end and the next section is zero.

use super::error::UpdateError;
use crate::format::chunks::{ENTRY_BYTES, Leaf, Leaves, check_list};
use crate::format::header::{HEADER_BYTES, Header, MAX_SECTIONS, SECTION_TABLE_OFFSET, SectionKind, SectionRecord};
use crate::format::page::read_page;
use crate::layout::ALIGNMENT;

/// Most leaves of an artifact that can be updated: 64 GiB in leaves of 64 KiB.
pub const MAX_LEAVES: u32 = 1 << 20;

/// A section of the device part, or what is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// From the artifact's start; a multiple of 64.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

impl Extent {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// A header page whose sections lie within the device part, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'p> {
    header: Header,
    table: &'p [u8],
    leaves: Leaves<'p>,
    count: u32,
}

impl<'p> Geometry<'p> {
    /// Reads a page. Leaves are those of its own chunk list; of a base, which may have none, those that `shift` says.
    pub fn read(page: &'p [u8; HEADER_BYTES], shift: Option<u8>) -> Result<Self, UpdateError> {
        let stated = Header::from_bytes(page).device_bytes;
        let mut header = read_page(page, stated).map_err(UpdateError::Page)?;
        let require = |holds: bool, field| if holds { Ok(()) } else { Err(UpdateError::Place(field)) };
        // Room to add without overflow.
        require(header.file_bytes <= 1 << 62 && header.device_bytes.is_multiple_of(ALIGNMENT as u64), "device_bytes")?;
        let table =
            &page[SECTION_TABLE_OFFSET..][..(header.sections as usize).min(MAX_SECTIONS) * SectionRecord::BYTES];
        if shift.is_none() {
            check_list(page, &header).map_err(UpdateError::Page)?;
        }
        header.chunk_shift = shift.unwrap_or(header.chunk_shift);
        let leaves = Leaves::of(page, &header);
        require(leaves.most_bytes() > 0, "chunk_shift")?;
        let count = u32::try_from(leaves.count()).ok().filter(|&count| count <= MAX_LEAVES);
        let geometry = Geometry { header, table, leaves, count: count.ok_or(UpdateError::Place("section bytes"))? };
        let mut end = HEADER_BYTES as u64;
        for section in geometry.sections() {
            require(section.offset.is_multiple_of(ALIGNMENT as u64), "section offset")?;
            require(section.offset >= end && section.offset <= header.device_bytes, "section offset")?;
            require(section.bytes <= header.device_bytes - section.offset, "section bytes")?;
            end = section.offset + section.bytes;
        }
        Ok(geometry)
    }

    /// The fields of the page.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of a whole leaf.
    pub fn leaf_bytes(&self) -> usize {
        self.leaves.most_bytes()
    }

    /// The device sections, in order.
    fn sections(&self) -> impl Iterator<Item = SectionRecord> + use<'p> {
        let records = self.table.chunks_exact(SectionRecord::BYTES).map(SectionRecord::from_bytes);
        records.filter(|record| record.host == 0)
    }

    /// Number of leaves.
    pub fn leaves(&self) -> u32 {
        self.count
    }

    /// Leaf `index`.
    pub fn leaf(&self, index: u32) -> Option<Leaf> {
        self.leaves.get(index.into())
    }

    /// Number of the leaf of a section that has `within` bytes before it.
    pub fn leaf_of(&self, kind: u32, within: u64) -> Option<u32> {
        let range = self.leaves.of_section(kind);
        let index = range.start + within / self.leaf_bytes() as u64;
        range.contains(&index).then_some(index as u32)
    }

    /// Where the zeros after some bytes end: at the next section that has bytes, or at the device part's end.
    pub fn padded_end(&self, end: u64) -> u64 {
        let next = self.sections().find(|section| section.bytes > 0 && section.offset + section.bytes > end);
        next.map_or(self.header.device_bytes, |next| next.offset.max(end))
    }

    /// A device section.
    pub fn section(&self, kind: u32) -> Option<Extent> {
        let found = self.sections().find(|section| section.kind == kind)?;
        Some(Extent { offset: found.offset, bytes: found.bytes })
    }

    /// The chunk list: a digest for every leaf.
    pub fn chunk_list(&self) -> Result<Extent, UpdateError> {
        let list = self.section(SectionKind::Chunks as u32);
        list.filter(|list| list.bytes == u64::from(self.count) * ENTRY_BYTES as u64).ok_or(UpdateError::Place("chunks"))
    }

    /// The order in which a package has the leaves: the small sections as they stand, then `weights` from its last leaf to
    /// its first, so that the scales at the end of a tile are there before the values that they predict.
    pub fn order(&self) -> impl Iterator<Item = u32> + use<> {
        let weights = self.leaves.of_section(SectionKind::Weights as u32);
        let (start, end) = (weights.start as u32, weights.end as u32);
        (0..start).chain(end..self.count).chain((start..end).rev())
    }
}
