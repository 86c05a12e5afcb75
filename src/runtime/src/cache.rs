//! Keys and values of one layer. The layout of its part of the cache is
//!
//! ```text
//! keys (kv heads, slots, head_dim) i8 | values likewise, or (kv heads, slots, head_dim / 2) nibbles
//! | key scales (kv heads, slots) f32 | value scales
//! ```
//!
//! Position p is in slot p % slots. A layer that sees all positions has a slot for each. One with a sliding window may
//! keep a ring of the last window + chunk − 1: the first token of a chunk sees window − 1 positions before it, and the
//! chunk's own are written before any of its tokens attends.
//!
//! Values in nibbles are those of [`crate::numerics::quantize_nibbles`], which rotates them first; attention's sum is
//! rotated back.

use crate::format::spec::{LayerCacheFormat, LayerRecord};
use crate::kernels::Rows;
use crate::layout::ALIGNMENT;
use crate::memory::Memory;
use crate::numerics::unpack_nibbles;
use core::ops::Range;

/// Sizes of one layer's part of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheShape {
    /// Heads of keys and values.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Positions that are held.
    pub(crate) slots: usize,
    /// Whether values are nibbles; read by [`CacheShape::nibbles`].
    nibbles: bool,
}

impl CacheShape {
    /// For a layer with attention, `context` positions and chunks of `chunk` tokens.
    pub(crate) fn of(layer: &LayerRecord, context: usize, chunk: usize) -> Self {
        let format = LayerCacheFormat::from_number(layer.cache_format).unwrap_or(LayerCacheFormat::OfHeader);
        let ring = (layer.window as usize).saturating_add(chunk).saturating_sub(1);
        CacheShape {
            heads: layer.key_value_heads as usize,
            head_dim: layer.head_dim as usize,
            slots: if format.is_ring() { context.min(ring) } else { context },
            nibbles: format.has_nibble_values(),
        }
    }

    /// Whether values are nibbles: known to the compiler where the feature is missing, so that their code is left out.
    pub(crate) fn nibbles(&self) -> bool {
        cfg!(feature = "nibble-values") && self.nibbles
    }

    /// Bytes; `None` where they overflow.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let region = |count: usize, bytes: u64| {
            u64::try_from(count).ok()?.checked_mul(bytes)?.checked_next_multiple_of(ALIGNMENT as u64)
        };
        let positions = self.heads.checked_mul(self.slots)?;
        let values = region(positions.checked_mul(self.value_bytes())?, 1)?;
        let scales = region(positions, 4)?.checked_mul(2)?;
        region(positions.checked_mul(self.head_dim)?, 1)?.checked_add(values)?.checked_add(scales)
    }

    /// Bytes of a value.
    pub(crate) fn value_bytes(&self) -> usize {
        if self.nibbles() { self.head_dim / 2 } else { self.head_dim }
    }

    /// The slots of consecutive positions: a run, and where it wraps the run at the front.
    pub(crate) fn runs(&self, positions: Range<usize>) -> [Range<usize>; 2] {
        let count = positions.len().min(self.slots);
        let start = positions.start % self.slots;
        let first = count.min(self.slots - start);
        [start..start + first, 0..count - first]
    }
}

/// Keys and values of one layer.
pub(crate) struct Cache<'c> {
    pub(crate) keys: &'c mut [i8],
    /// Integers, or bytes of two nibbles.
    pub(crate) values: &'c mut [i8],
    pub(crate) key_scales: &'c mut [f32],
    pub(crate) value_scales: &'c mut [f32],
    pub(crate) shape: CacheShape,
}

impl<'c> Cache<'c> {
    /// A view of a layer's cache; `None` if the bytes are too few or misaligned.
    pub(crate) fn new(bytes: &'c mut [u8], shape: CacheShape) -> Option<Self> {
        let positions = shape.heads * shape.slots;
        let mut memory = Memory::new(bytes).ok()?;
        Some(Cache {
            keys: memory.i8s(positions * shape.head_dim)?,
            values: memory.i8s(positions * shape.value_bytes())?,
            key_scales: memory.f32s(positions)?,
            value_scales: memory.f32s(positions)?,
            shape,
        })
    }

    /// Keys of a head from a slot on, to the end of the cache.
    pub(crate) fn keys_from(&self, head: usize, slot: usize) -> Rows<'_> {
        let first = head * self.shape.slots + slot;
        Rows { values: &self.keys[first * self.shape.head_dim..], scales: &self.key_scales[first..] }
    }

    /// Values of a head from a slot on: those of `slots`, whose nibbles are unpacked to `unpacked`, or all to the end of
    /// the cache.
    pub(crate) fn values_of<'v>(&'v self, head: usize, slots: Range<usize>, unpacked: &'v mut [i8]) -> Rows<'v> {
        let first = head * self.shape.slots + slots.start;
        let width = self.shape.value_bytes();
        let (values, scales) = (&self.values[first * width..], &self.value_scales[first..]);
        if !self.shape.nibbles() {
            return Rows { values, scales };
        }
        let unpacked = &mut unpacked[..slots.len() * self.shape.head_dim];
        let places = unpacked.chunks_exact_mut(self.shape.head_dim).zip(values.chunks_exact(width));
        for ((out, bytes), &scale) in places.zip(scales) {
            unpack_nibbles(bytes, scale, out);
        }
        Rows { values: unpacked, scales: &scales[..slots.len()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn runs_cover_positions_in_order() {
        let shape = CacheShape { heads: 1, head_dim: 2, slots: 7, nibbles: false };
        for start in 0..30 {
            for count in 1..=7 {
                let slots: Vec<usize> = shape.runs(start..start + count).into_iter().flatten().collect();
                let expected: Vec<usize> = (start..start + count).map(|position| position % 7).collect();
                assert_eq!(slots, expected);
            }
        }
    }
}
