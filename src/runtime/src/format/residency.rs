//! Which tensors stay in RAM where the weights are streamed from slow storage: a section of the device part, little-endian,
//! planned by the compiler so that the device plans nothing. It changes no result, and whoever maps the file may leave it
//! unread.
//!
//! ```text
//! ResidencyRecord, 32 bytes
//! u32 for each record of the tensor table: where the tensor lies in the resident memory, in units of 64 bytes;
//!     0xffffffff: it is streamed
//! u32 × order_count: the streamed tensors, as numbers of records, in the order in which a token reads them
//! ```
//!
//! Resident tensors lie one after the other in the order of the table. Tensors in f32 are resident. Both parts of a split
//! matrix are resident, or both are streamed.

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::header::SectionKind;
use super::record::record;
use crate::layout::{ALIGNMENT, Layout, Storage, TileShape};

/// The place of a tensor that is streamed.
pub const STREAMED: u32 = u32::MAX;
/// Largest buffer that an artifact may state.
pub const MAX_BUFFER_BYTES: u32 = 1 << 30;

record! {
    /// The fixed fields of the section.
    ResidencyRecord: 32 bytes {
        /// Bytes of the resident tensors.
        resident_bytes: u64,
        /// Bytes of each of the two buffers, a multiple of 64; 0 where nothing is streamed.
        buffer_bytes: u32,
        /// Entries of the order.
        order_count: u32,
        /// Zero.
        reserved: [u8; 16],
    }
}

/// The section of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Residency<'a> {
    /// The fixed fields.
    pub record: ResidencyRecord,
    places: &'a [u8],
    order: &'a [u8],
}

impl<'a> Residency<'a> {
    /// Where a tensor lies in the resident memory, in bytes; `None` where it is streamed, or there is no such record.
    pub fn place(&self, record: usize) -> Option<u64> {
        let place = u32_at(self.places, record.checked_mul(4)?)?;
        (place != STREAMED).then_some(u64::from(place) * ALIGNMENT as u64)
    }

    /// The streamed tensors in the order in which a token reads them.
    pub fn order(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.order.chunks_exact(4).filter_map(|entry| u32_at(entry, 0)).map(|record| record as usize)
    }

    /// The tensor that is read after one; the first after the last, and after one that is not in the order.
    pub fn after(&self, record: usize) -> Option<usize> {
        self.order().skip_while(|&entry| entry != record).nth(1).or_else(|| self.order().next())
    }

    pub(super) fn read(content: &'a [u8], tensors: usize) -> Result<Self, FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Residency, fault);
        if content.len() < ResidencyRecord::BYTES {
            return Err(fault("too short"));
        }
        let (record, rest) = content.split_at(ResidencyRecord::BYTES);
        let record = ResidencyRecord::from_bytes(record);
        let order = u64::from(record.order_count) * 4;
        let places = tensors.checked_mul(4).filter(|&places| places as u64 + order == rest.len() as u64);
        let (places, order) = rest.split_at(places.ok_or(fault("length is not that of its entries"))?);
        Ok(Residency { record, places, order })
    }
}

impl<'a> ArtifactView<'a> {
    /// What is planned for weights in slow storage, where the artifact says it.
    pub fn residency(&self) -> Option<Residency<'a>> {
        self.residency
    }

    /// Reads and checks the section.
    pub(super) fn read_residency(&mut self) -> Result<(), FormatError> {
        let Some(content) = self.single_device_section(SectionKind::Residency)? else { return Ok(()) };
        let residency = Residency::read(content, self.tensor_count())?;
        self.check_residency(&residency)?;
        self.residency = Some(residency);
        Ok(())
    }

    fn check_residency(&self, residency: &Residency<'_>) -> Result<(), FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Residency, fault);
        let record = &residency.record;
        if record.reserved != [0; 16] {
            return Err(fault("has a value of a later version of the format: a newer runtime is needed"));
        }
        let aligned = record.buffer_bytes.is_multiple_of(ALIGNMENT as u32);
        if !aligned || record.buffer_bytes > MAX_BUFFER_BYTES {
            return Err(fault("the size of its buffers is illegal"));
        }
        let (mut end, mut streamed, mut before) = (0u64, 0usize, None);
        for index in 0..self.tensor_count() {
            let tensor = self.tensor_record(index);
            let place = residency.place(index);
            let second = index > 0 && self.tensor_key(index) == self.tensor_key(index - 1);
            if second && Some(place.is_some()) != before {
                return Err(fault("one part of a split matrix is resident and the other is not"));
            }
            before = Some(place.is_some());
            match place {
                Some(place) if place == end => end += tensor.bytes,
                Some(_) => return Err(fault("a tensor does not lie where the one before it ends")),
                None if tensor.storage == Storage::F32 as u8 => return Err(fault("a tensor in f32 is not resident")),
                None if self.is_of_experts(&tensor) => return Err(fault("a mixture's experts are not resident")),
                None if self.tile_bytes(index).is_none_or(|bytes| bytes > u64::from(record.buffer_bytes)) => {
                    return Err(fault("a buffer is smaller than a tile of a streamed tensor"));
                }
                None => streamed += 1,
            }
        }
        if end != record.resident_bytes {
            return Err(fault("the resident tensors have other bytes than it states"));
        }
        let known = |entry: usize| entry < self.tensor_count() && residency.place(entry).is_none();
        if record.order_count as usize > streamed || !residency.order().all(known) {
            return Err(fault("its order has a tensor that is not streamed"));
        }
        Ok(())
    }

    /// Bytes of the largest tile of a streamed tensor; `None` where nothing is streamed or planned.
    pub fn largest_streamed_tile(&self) -> Option<u64> {
        let residency = self.residency?;
        let streamed = (0..self.tensor_count()).filter(|&index| residency.place(index).is_none());
        streamed.filter_map(|index| self.tile_bytes(index)).max()
    }

    /// Bytes of a tile of a quantized tensor.
    fn tile_bytes(&self, index: usize) -> Option<u64> {
        let tensor = self.tensor_record(index);
        let (storage, layout) = (Storage::from_id(tensor.storage)?, Layout::from_id(tensor.layout)?);
        let shape = TileShape::new(storage, layout, tensor.rows as usize, tensor.columns as usize)?;
        Some(shape.stride as u64)
    }
}
