//! Memory ahead of products with one token, which read every weight once: asked for as one stream, from the last byte of
//! the last tile to the first of the first, a fixed distance ahead of what is multiplied.
//!
//! Backwards, since what values are multiplied with stands behind them in a tile (multipliers, index planes, row scales), and
//! so is there when the values arrive. What a core fetches ahead by itself is not enough: it stumbles where a second stream
//! runs beside the first, and falls behind where each line is worked on, since its loads do not run as far ahead then.
#![expect(unsafe_code, reason = "prefetch is an intrinsic")]

use crate::layout::{GROUP, KEPT, TileShape};
use core::arch::x86_64::*;

/// Bytes from what is multiplied to what is asked for. Fewer do not keep as many lines under way as a core can have; what is
/// asked for much earlier falls out of the first cache again.
const LEAD: usize = 8 * 1024;
/// The least of it, in bytes, for a tile's values, which come after all that stands behind them: less than [`LEAD`], for what
/// stands behind takes room in the first cache too.
const LEAD_OF_VALUES: usize = 5 * 1024;
/// The most of it: rows so wide that their index planes fill the first cache gain nothing from more.
const MOST: usize = 2 * LEAD;

/// Bytes of a group of a tile by storage: values, indices and multipliers of 8 rows.
pub(super) const GROUP8: usize = 8 * GROUP;
pub(super) const GROUP4: usize = 8 * (GROUP / 2 + 1);
pub(super) const GROUP8_SPARSE: usize = 8 * (KEPT + KEPT / 4);
pub(super) const GROUP4_SPARSE: usize = 8 * (KEPT / 2 + KEPT / 4 + 1);

/// What is asked for while some tiles are multiplied from the last to the first: their memory as one stream, from its end.
pub(super) struct Stream {
    /// Address of the matrix: nothing before it is asked for. What stands before these tiles often comes next.
    floor: usize,
    /// Bytes from what is multiplied to what is asked for.
    distance: usize,
}

impl Stream {
    /// Of tiles at the end of `bytes`; asks for the end of them.
    #[inline(always)]
    pub(super) fn new(shape: &TileShape, bytes: &[u8]) -> Self {
        let behind = shape.stride - shape.value_bytes;
        let distance = (behind + LEAD_OF_VALUES).clamp(LEAD, MOST);
        for line in (bytes.len().saturating_sub(distance)..bytes.len()).step_by(64).rev() {
            prefetch(bytes.as_ptr().wrapping_add(line));
        }
        Stream { floor: bytes.as_ptr().addr(), distance }
    }

    /// What is asked for during one tile: all but its row scales group by group, those here.
    #[inline(always)]
    pub(super) fn during(&self, shape: &TileShape, tile: *const u8) -> Ahead {
        let ahead = Ahead { start: tile.wrapping_sub(self.distance), floor: self.floor };
        for at in (shape.scale_offset(0)..shape.stride).step_by(64) {
            ahead.ask::<64>(at);
        }
        ahead
    }
}

/// What is asked for while one tile is multiplied: as many bytes, from `start`.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    start: *const u8,
    floor: usize,
}

impl Ahead {
    /// Asks for `BYTES` bytes from byte `at`. Of consecutive parts no line is left out: none of the addresses asked for is
    /// more than a line from the next. Of a part that reaches before the matrix all lines are asked for.
    #[inline(always)]
    pub(super) fn ask<const BYTES: usize>(self, at: usize) {
        let from = self.start.wrapping_add(at);
        if from.addr().wrapping_add(BYTES) > self.floor {
            for line in 0..BYTES.div_ceil(64) {
                prefetch(from.wrapping_add(line * 64));
            }
        }
    }
}

/// Asks for a line of memory.
#[inline(always)]
fn prefetch(line: *const u8) {
    // SAFETY: SSE is part of x86-64; a prefetch of any address is harmless.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Storage};

    #[test]
    fn groups_are_all_that_stands_before_the_row_scales() {
        for (storage, group) in [
            (Storage::W8, GROUP8),
            (Storage::W4G32, GROUP4),
            (Storage::W8S24, GROUP8_SPARSE),
            (Storage::W4G32S24, GROUP4_SPARSE),
        ] {
            for groups in 1..8 {
                let shape = TileShape::new(storage, Layout::R8K4Offset8, 8, groups * GROUP).expect("small");
                // In w4 with 2:4 the values of a last group without a second take the place of two.
                let padding = if storage == Storage::W4G32S24 && groups % 2 == 1 { 8 * KEPT / 2 } else { 0 };
                assert_eq!(groups * group + padding, shape.scale_offset(0), "{storage:?}");
            }
        }
    }
}
