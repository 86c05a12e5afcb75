//! Memory ahead of products with one token, which read every weight once: asked for as one stream, from the last byte of
//! the last tile to the first of the first, a fixed distance ahead of what is multiplied.
//!
//! Backwards, since what values are multiplied with stands behind them in a tile (multipliers, index planes, row scales), and
//! so is there when the values arrive. What a core fetches ahead by itself is not enough: it keeps up with a plain read,
//! stumbles where a second stream runs beside the first, and loses a fifth where each line is worked on about as long as it
//! takes to arrive.
#![expect(unsafe_code, reason = "prefetch is an intrinsic")]

use crate::layout::TileShape;
use core::arch::x86_64::*;

/// How far ahead of what is multiplied memory is asked for. Less does not keep as many lines under way as a core can
/// have; what is asked for much earlier falls out of the first cache again.
const LEAD: usize = 8 * 1024;
/// The least lead of a tile's values, which stand before what they are multiplied with.
const LEAD_OF_VALUES: usize = 5 * 1024;

/// What is asked for while some tiles are multiplied from the last to the first: their memory as one stream, from its end.
pub(super) struct Stream {
    /// The start of the matrix: nothing before it is asked for. What stands before these tiles is most likely next.
    floor: usize,
    /// From what is multiplied to what is asked for.
    distance: usize,
}

impl Stream {
    /// Of tiles at the end of `bytes`; asks for the end of them.
    #[inline(always)]
    pub(super) fn new(shape: &TileShape, bytes: &[u8]) -> Self {
        let behind = shape.stride - shape.value_bytes;
        let distance = LEAD.max(behind + LEAD_OF_VALUES);
        for line in (bytes.len().saturating_sub(distance)..bytes.len()).step_by(64).rev() {
            prefetch(bytes.as_ptr().wrapping_add(line));
        }
        Stream { floor: bytes.as_ptr().addr(), distance }
    }

    /// What is asked for during one tile, of which `asked` bytes are asked for group by group; asks for the rest.
    #[inline(always)]
    pub(super) fn during(&self, shape: &TileShape, tile: *const u8, asked: usize) -> Ahead {
        let ahead = Ahead { start: tile.wrapping_sub(self.distance), floor: self.floor };
        for at in (asked..shape.stride).step_by(64) {
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
    /// more than a line from the next.
    #[inline(always)]
    pub(super) fn ask<const BYTES: usize>(self, at: usize) {
        let from = self.start.wrapping_add(at);
        if from.addr() >= self.floor {
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
