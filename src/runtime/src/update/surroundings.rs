//! What op 3 sees beside the leaf that it makes: the base, what is already written of the new artifact, and the new tensor
//! table. Bytes are read through three windows, so that a device is asked for 64 bytes at a time.

use super::flash::{Flash, Slot};
use super::geometry::{Extent, Geometry};
use crate::format::chunks::Leaf;
use crate::format::header::SectionKind;
use crate::format::tensor::TensorRecord;

const WINDOW_BYTES: u64 = 64;

/// The bytes around an offset.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    length: u64,
    bytes: [u8; WINDOW_BYTES as usize],
}

impl Window {
    const EMPTY: Window = Window { start: 0, length: 0, bytes: [0; WINDOW_BYTES as usize] };
}

/// The base and the new artifact around a leaf.
pub struct Surroundings<'f> {
    flash: &'f mut dyn Flash,
    base: Slot,
    /// The leaf's length, and its section's and its base's places: offsets count from the leaf's start.
    leaf_bytes: u64,
    new: Extent,
    old: Extent,
    /// Bytes of `weights` before the leaf, where it is one of theirs.
    within_weights: Option<u64>,
    tensors: Extent,
    /// Three sources: the base within the leaf, the base beyond it, the new artifact.
    windows: [Window; 3],
    failed: bool,
}

impl<'f> Surroundings<'f> {
    /// Around a leaf that is made from a leaf of the base, the other slot holding what is there of the new artifact.
    pub fn new(
        flash: &'f mut dyn Flash,
        base: Slot,
        (new, leaf): (&Geometry<'_>, &Leaf),
        (old, from): (&Geometry<'_>, &Leaf),
    ) -> Self {
        let rest = |geometry: &Geometry<'_>, leaf: &Leaf| {
            let end = geometry.section(leaf.kind).map_or(leaf.offset, |section| section.end());
            Extent { offset: leaf.offset, bytes: end.saturating_sub(leaf.offset) }
        };
        Surroundings {
            flash,
            base,
            leaf_bytes: leaf.bytes.into(),
            new: rest(new, leaf),
            old: rest(old, from),
            within_weights: (leaf.kind == SectionKind::Weights as u32).then_some(leaf.within),
            tensors: new.section(SectionKind::Tensors as u32).unwrap_or(Extent { offset: 0, bytes: 0 }),
            windows: [Window::EMPTY; 3],
            failed: false,
        }
    }

    /// Bytes of `weights` before the leaf; `None` in other sections.
    pub fn within_weights(&self) -> Option<u64> {
        self.within_weights
    }

    /// Whether the device failed at any time.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// A byte of the base at the same place, or after it; zero beyond its section.
    pub fn old(&mut self, at: u64) -> u8 {
        self.byte(usize::from(at >= self.leaf_bytes), self.base, self.old, at)
    }

    /// Four of them.
    pub fn old_word(&mut self, at: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|n| self.old(at + n)))
    }

    /// A byte of the new artifact after the leaf; zero beyond its section.
    pub fn written(&mut self, at: u64) -> u8 {
        self.byte(2, self.base.other(), self.new, at)
    }

    #[inline(never)]
    fn byte(&mut self, window: usize, slot: Slot, section: Extent, at: u64) -> u8 {
        let Window { start, length, bytes } = &self.windows[window];
        if let Some(within) = at.checked_sub(*start).filter(|within| within < length) {
            return bytes[within as usize];
        }
        if at >= section.bytes {
            return 0;
        }
        let length = (section.bytes - at).min(WINDOW_BYTES);
        let window = &mut self.windows[window];
        (window.start, window.length) = (at, length);
        let into = &mut window.bytes[..length as usize];
        if self.flash.read(slot, section.offset + at, into).is_err() {
            into.fill(0);
            self.failed = true;
        }
        window.bytes[0]
    }

    /// The tensor that a byte of `weights` is of, by the new tensor table.
    pub fn tensor_at(&mut self, within: u64) -> Option<TensorRecord> {
        let (mut low, mut high) = (0, self.tensors.bytes / TensorRecord::BYTES as u64);
        // The last record that begins at `within` or before it.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle)?.offset <= within {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let record = self.record(low.checked_sub(1)?)?;
        (record.bytes <= 1 << 62 && record.offset <= 1 << 62 && within - record.offset < record.bytes).then_some(record)
    }

    fn record(&mut self, index: u64) -> Option<TensorRecord> {
        let mut bytes = [0; TensorRecord::BYTES];
        let offset = self.tensors.offset + index * TensorRecord::BYTES as u64;
        match self.flash.read(self.base.other(), offset, &mut bytes) {
            Ok(()) => Some(TensorRecord::from_bytes(&bytes)),
            Err(_) => {
                self.failed = true;
                None
            }
        }
    }
}
