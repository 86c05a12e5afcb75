//! Prefetch for products with one token or a few rows of activations: walk the weights backwards, from the last byte of
//! the last tile to the first of the first, a fixed distance ahead of the multiply.
//!
//! Backwards, since multipliers, index planes and row scales follow the values of a tile: they are in the cache when
//! the values arrive. The hardware prefetcher alone does not suffice: a second stream confuses it, and it falls behind
//! when each line takes many instructions, because the core's own loads then run less far ahead.
#![expect(unsafe_code, reason = "prefetch is an intrinsic")]

use crate::layout::{BLOCK_COLUMNS, KEPT, TileShape};
use core::arch::x86_64::*;

/// Bytes from the multiply to the prefetch. A shorter distance keeps fewer lines in flight than a core supports; at a
/// much longer one, lines are evicted from the L1 cache before use.
const PREFETCH_DISTANCE: usize = 8 * 1024;
/// Smallest distance for a tile's values, which are read after everything that follows them in the tile: less than
/// [`PREFETCH_DISTANCE`], since the bytes between occupy the L1 cache too.
const VALUES_DISTANCE: usize = 5 * 1024;
/// Bytes from one prefetch to another one further ahead, into the L2 cache only. A core has few lines in flight to its L1
/// cache, 10 to 16: where memory answers after 150 ns, as in servers with large last caches, those alone are half of what
/// it can read; and the activations of a few rows leave them too little room.
const FURTHER: usize = 8 * 1024;
/// Largest distance: more does not help rows so long that their index planes fill the L1 cache.
const MAX_DISTANCE: usize = 2 * PREFETCH_DISTANCE;

/// Bytes of a group of a tile, by storage: values, indices and multipliers of 8 rows.
pub(super) const GROUP8: usize = 8 * BLOCK_COLUMNS;
pub(super) const GROUP4: usize = 8 * (BLOCK_COLUMNS / 2 + 1);
pub(super) const GROUP8_SPARSE: usize = 8 * (KEPT + KEPT / 4);
pub(super) const GROUP4_SPARSE: usize = 8 * (KEPT / 2 + KEPT / 4 + 1);

/// Prefetch stream over tiles that are multiplied from the last to the first.
pub(super) struct Stream {
    /// Address of the matrix, the lower bound of the prefetch. Bytes before these tiles are fetched, since they are
    /// often next.
    floor: usize,
    /// Bytes from the multiply to the prefetch.
    distance: usize,
}

impl Stream {
    /// The stream of the tiles that end where `bytes` ends; prefetches the last of them.
    #[inline(always)]
    pub(super) fn new(shape: &TileShape, bytes: &[u8]) -> Self {
        let behind = shape.stride - shape.value_bytes;
        let distance = (behind + VALUES_DISTANCE).clamp(PREFETCH_DISTANCE, MAX_DISTANCE);
        for line in (bytes.len().saturating_sub(distance)..bytes.len()).step_by(64).rev() {
            prefetch_line(bytes.as_ptr().wrapping_add(line));
        }
        Stream { floor: bytes.as_ptr().addr(), distance }
    }

    /// The prefetch of one tile. Its row scales are fetched here, the rest group by group.
    #[inline(always)]
    pub(super) fn tile(&self, shape: &TileShape, tile: *const u8) -> TilePrefetch {
        let prefetch = TilePrefetch { start: tile.wrapping_sub(self.distance), floor: self.floor };
        for at in (shape.scale_offset(0)..shape.stride).step_by(64) {
            prefetch.lines::<64>(at);
        }
        prefetch
    }
}

/// Prefetch during one tile: the bytes of one tile from `start`.
#[derive(Clone, Copy)]
pub(super) struct TilePrefetch {
    start: *const u8,
    floor: usize,
}

impl TilePrefetch {
    /// Prefetches `BYTES` bytes from byte `at`, and as many [`FURTHER`] ahead. Consecutive calls cover every line, since
    /// neighbouring addresses are at most a line apart. A range that begins before the matrix and reaches into it is
    /// fetched whole.
    #[inline(always)]
    pub(super) fn lines<const BYTES: usize>(self, at: usize) {
        let from = self.start.wrapping_add(at);
        if from.addr().wrapping_add(BYTES) > self.floor {
            for line in 0..BYTES.div_ceil(64) {
                prefetch_line(from.wrapping_add(line * 64));
            }
        }
        let further = from.wrapping_sub(FURTHER);
        if further.addr().wrapping_add(BYTES) > self.floor {
            for line in 0..BYTES.div_ceil(64) {
                // SAFETY: SSE is part of x86-64; a prefetch of any address is harmless.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(further.wrapping_add(line * 64).cast()) };
            }
        }
    }
}

/// Prefetches a cache line.
#[inline(always)]
fn prefetch_line(line: *const u8) {
    // SAFETY: SSE is part of x86-64; a prefetch of any address is harmless.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Storage};

    #[test]
    fn groups_fill_a_tile_up_to_the_row_scales() {
        for (storage, group) in [
            (Storage::W8, GROUP8),
            (Storage::W4G32, GROUP4),
            (Storage::W8S24, GROUP8_SPARSE),
            (Storage::W4G32S24, GROUP4_SPARSE),
        ] {
            for groups in 1..8 {
                let shape = TileShape::new(storage, Layout::R8K4Offset8, 8, groups * BLOCK_COLUMNS).expect("small");
                // In 2:4 w4, the values of a last unpaired group take the space of two.
                let padding = if storage == Storage::W4G32S24 && groups % 2 == 1 { 8 * KEPT / 2 } else { 0 };
                assert_eq!(groups * group + padding, shape.scale_offset(0), "{storage:?}");
            }
        }
    }
}
