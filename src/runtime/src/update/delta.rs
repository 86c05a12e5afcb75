//! Op 3: a leaf as coded differences from a leaf of the base. One walk over the leaf serves encoder and decoder
//! ([`super::coder::BitCoder`]). In `weights` it follows the new tensor table; in any other section, and where the table names
//! nothing that is coded better, bytes are coded as bytes.
//!
//! A tile is coded in order: the row scales that lie in the leaf, then the multipliers, then the values. Scales and
//! multipliers that lie beyond the leaf's end are read from the slot that is written, where later leaves are already. With s
//! and s' the old and the new row scale, m and m' the old and the new multiplier of a group (1 where there are none), q the old
//! value and ⌊ ⌉ rounding to the nearest,
//!
//! ```text
//! ratio r = s / s' in 1/65536, cut to ±16                    scale(), by integers alone
//! m' = ⌊m · r⌉ + difference
//! q' = ⌊q · r · m / m'⌉ + difference
//! ```
//!
//! The fraction that rounding cut off says which differences are likely, and so do the last differences of the row.

use super::coder::BitCoder;
use super::contexts::{
    ACTIVITIES, ADDED, BYTES, CHANGED, Contexts, ESCAPE, MULTIPLIERS, NIBBLES, SCALES, UNARY, VECTORS, ValueContexts,
    WordContexts,
};
use super::surroundings::Surroundings;
use crate::format::tensor::TensorRecord;
use crate::layout::{BLOCK_COLUMNS, Coding, KEPT, Layout, Storage, TileShape, tensor_bytes};
use core::ops::Range;

/// Most rows of a tile.
const ROWS: usize = 16;
/// 1 in ratios.
const ONE: i32 = 1 << 16;
/// Largest ratio.
const MAX_RATIO: i32 = 16 * ONE;
/// Activity of rows of which every value differs by one.
const ACTIVITY_ONE: i32 = 64;

/// Codes a leaf: what the encoder finds in `leaf` is what the decoder leaves there. Failures of the device show as zeros and
/// are kept by `around`.
pub fn code_leaf<C: BitCoder>(
    coder: &mut C,
    contexts: &mut Contexts<'_>,
    leaf: &mut [u8],
    around: &mut Surroundings<'_>,
) {
    let mut walk = Walk { coder, contexts, leaf, around, changes: 0, typical: ACTIVITY_ONE / 4 };
    let Some(start) = walk.around.within_weights() else {
        return walk.bytes(0..walk.leaf.len());
    };
    let (mut at, end) = (0, walk.leaf.len());
    while at < end {
        let within = start + at as u64;
        let Some(tensor) = walk.around.tensor_at(within) else {
            return walk.bytes(at..end);
        };
        // The tensor table says that `within` lies in the tensor, so this is more than `at`.
        let stop = usize::try_from(tensor.offset + tensor.bytes - start).unwrap_or(end).min(end);
        walk.tensor(&tensor, within - tensor.offset, at..stop);
        at = stop;
    }
}

struct Walk<'w, 'm, 'f, C> {
    coder: &'w mut C,
    contexts: &'w mut Contexts<'m>,
    leaf: &'w mut [u8],
    around: &'w mut Surroundings<'f>,
    /// Which of the last three bytes of [`Walk::bytes`] changed, a bit each.
    changes: u8,
    /// Activity that the rows of a tile begin with.
    typical: i32,
}

/// A part of a tile that lies in the leaf.
struct Tile {
    /// Where the tile begins, from the leaf's start; before it where this is negative.
    start: i64,
    shape: TileShape,
    /// old scale / new scale of each row.
    ratios: [i32; ROWS],
}

impl<C: BitCoder> Walk<'_, '_, '_, C> {
    /// Never inlined, nor is [`Walk::value`]: a device's flash would hold the coder a dozen times.
    #[inline(never)]
    fn bit(&mut self, index: usize, bit: bool) -> bool {
        self.coder.bit(self.contexts, index, bit)
    }

    /// `range` of the leaf, which begins `skipped` bytes into a tensor.
    fn tensor(&mut self, tensor: &TensorRecord, skipped: u64, range: Range<usize>) {
        let (rows, columns) = (tensor.rows as usize, tensor.columns as usize);
        let layout = Layout::from_id(tensor.layout);
        let storage = Storage::from_id(tensor.storage);
        let sound = |bytes: Option<usize>| bytes.is_some_and(|bytes| bytes as u64 == tensor.bytes);
        match (storage, layout) {
            (Some(Storage::F32), _) if sound(tensor_bytes(Storage::F32, Layout::R4K4, rows, columns)) => {
                self.words(VECTORS, range);
            }
            (Some(storage), Some(layout)) => match TileShape::new(storage, layout, rows, columns) {
                Some(shape) if sound(Some(shape.bytes())) => self.tiles(shape, skipped, range),
                _ => self.bytes(range),
            },
            _ => self.bytes(range),
        }
    }

    /// Any bytes.
    #[inline(never)]
    fn bytes(&mut self, range: Range<usize>) {
        for at in range {
            let (old, new) = (self.around.old(at as u64), self.leaf[at]);
            let changed = self.bit(CHANGED + (self.changes & 7).count_ones() as usize, old != new);
            self.changes = self.changes << 1 | u8::from(changed);
            self.leaf[at] = old;
            if changed {
                let added = new.wrapping_sub(old);
                let mut node = 1;
                for shift in (0..8).rev() {
                    node = node << 1 | usize::from(self.bit(ADDED + node, added >> shift & 1 == 1));
                }
                self.leaf[at] = old.wrapping_add(node as u8);
            }
        }
    }

    /// Words of 32 bits; a tensor's and a tile's words begin on multiples of four.
    #[inline(never)]
    fn words(&mut self, set: WordContexts, range: Range<usize>) {
        let whole = range.start + (range.end - range.start) / 4 * 4;
        for at in (range.start..whole).step_by(4) {
            let old = self.around.old_word(at as u64);
            let new = word(&self.leaf[at..at + 4]);
            let new = old.wrapping_add(self.word_difference(set, new.wrapping_sub(old) as i32) as u32);
            self.leaf[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        self.bytes(whole..range.end);
    }

    fn word_difference(&mut self, set: WordContexts, difference: i32) -> i32 {
        let magnitude = difference.unsigned_abs();
        let stated = 32 - magnitude.leading_zeros();
        let mut node = 1;
        for shift in (0..6).rev() {
            node = node << 1 | usize::from(self.bit(set.length(node), stated >> shift & 1 == 1));
        }
        let length = node - 64;
        if length == 0 {
            return 0;
        }
        let length = length.min(32);
        let negative = self.bit(set.negative(), difference < 0);
        let (mut value, mut node) = (1u32, 1);
        for shift in (0..length - 1).rev() {
            let bit = magnitude >> shift & 1 == 1;
            let index = if node < 4 { set.high(length, node) } else { set.low(shift) };
            let bit = self.bit(index, bit);
            node = node << 1 | usize::from(bit);
            value = value << 1 | u32::from(bit);
            // Only its first values are an index.
            node = node.min(4);
        }
        if negative { value.wrapping_neg() as i32 } else { value as i32 }
    }

    /// `range` of the leaf, which begins `skipped` bytes into the tiles of a matrix.
    fn tiles(&mut self, shape: TileShape, skipped: u64, range: Range<usize>) {
        let stride = shape.stride as u64;
        let mut start = range.start as i64 - (skipped % stride) as i64;
        while start < range.end as i64 {
            let mut tile = Tile { start, shape, ratios: [ONE; ROWS] };
            self.tile(&mut tile, &range);
            start += shape.stride as i64;
        }
    }

    fn tile(&mut self, tile: &mut Tile, range: &Range<usize>) {
        let shape = tile.shape;
        let rows = shape.layout.rows();
        // What the leaf has of a part of the tile.
        let part = |from: usize, to: usize| {
            let place = |at: usize| (tile.start + at as i64).clamp(range.start as i64, range.end as i64) as usize;
            place(from)..place(to)
        };
        let (values, planes) = (shape.value_bytes, shape.value_bytes + shape.plane_bytes);
        let multipliers = planes + shape.multiplier_bytes;
        let scales = multipliers + rows * size_of::<f32>();
        let [values, planes, multipliers, scales, padding] = [
            part(0, values),
            part(values, planes),
            part(planes, multipliers),
            part(multipliers, scales),
            part(scales, shape.stride),
        ];
        self.words(SCALES, scales);
        self.bytes(padding);
        self.bytes(planes);
        if multipliers.is_empty() && values.is_empty() {
            return;
        }
        for (row, out) in tile.ratios.iter_mut().enumerate().take(rows) {
            let at = tile.start + shape.scale_offset(row) as i64;
            let old = self.around.old_word(at as u64);
            *out = ratio(old, self.new_word(at));
        }
        self.multipliers(tile, multipliers);
        match shape.storage.def().coding {
            Coding::Byte | Coding::Nibble => self.values(tile, values),
            Coding::F32 | Coding::ThreeBits => self.bytes(values),
        }
    }

    fn multipliers(&mut self, tile: &Tile, range: Range<usize>) {
        let rows = tile.shape.layout.rows();
        let first = tile.shape.multiplier_offset(0, 0) as i64;
        let mut activities = [ACTIVITY_ONE / 4; ROWS];
        for at in range {
            let row = (at as i64 - tile.start - first) as usize % rows;
            let old = self.around.old(at as u64) as i8;
            let expected = i32::from(old) * tile.ratios[row];
            let actual = i32::from(self.leaf[at] as i8);
            let value = self.value(MULTIPLIERS, expected, (-128, 127), &mut activities[row], actual);
            self.leaf[at] = value as u8;
        }
    }

    /// Values of one byte or of four bits, in the order of their bytes; of a byte, the low nibble first.
    fn values(&mut self, tile: &Tile, range: Range<usize>) {
        let (rows, run) = (tile.shape.layout.rows(), tile.shape.layout.run());
        let coding = tile.shape.storage.def().coding;
        let block_bytes = coding.block_bytes() * rows;
        let nibbles = (coding == Coding::Nibble).then(|| tile.shape.layout.nibbles());
        let mut activities = [self.typical; ROWS];
        let mut ratios = [tile.ratios; 2];
        let mut block = usize::MAX;
        for at in range.clone() {
            let within = (at as i64 - tile.start) as usize;
            if within / block_bytes != block {
                block = within / block_bytes;
                self.block_ratios(tile, block, &mut ratios);
            }
            let row = within % (rows * run) / run;
            let (old, new) = (self.around.old(at as u64), self.leaf[at]);
            self.leaf[at] = if let Some(code) = nibbles {
                let mut byte = 0;
                for (high, ratios) in ratios.iter().enumerate() {
                    let shift = 4 * high;
                    let expected = i32::from(code.decode(old >> shift)) * ratios[row];
                    let actual = i32::from(code.decode(new >> shift));
                    let value = self.value(NIBBLES, expected, (-8, 7), &mut activities[row], actual);
                    byte |= code.encode(value as i8) << shift;
                }
                byte
            } else {
                let expected = i32::from(old as i8) * ratios[0][row];
                self.value(BYTES, expected, (-128, 127), &mut activities[row], i32::from(new as i8)) as u8
            };
        }
        if !range.is_empty() {
            self.typical = activities[..rows].iter().sum::<i32>() / rows as i32;
        }
    }

    /// old / new of what multiplies the values of a block of 32 stored columns: in the low nibbles, or in bytes, and in the
    /// high nibbles.
    fn block_ratios(&mut self, tile: &Tile, block: usize, ratios: &mut [[i32; ROWS]; 2]) {
        let shape = &tile.shape;
        let Some(columns) = shape.storage.def().group.filter(|_| shape.groups > 0) else { return };
        // In a sparse matrix, a block of stored columns is two groups of its columns.
        let groups = match shape.storage.is_sparse() {
            true => [2 * block, 2 * block + 1],
            false => [block * BLOCK_COLUMNS / columns; 2],
        };
        for (ratios, group) in ratios.iter_mut().zip(groups) {
            for (row, ratio) in ratios.iter_mut().enumerate().take(shape.layout.rows()) {
                let at = tile.start + shape.multiplier_offset(row, group.min(shape.groups - 1)) as i64;
                let (old, new) = (self.around.old(at as u64) as i8, self.new_byte(at as usize) as i8);
                let product = tile.ratios[row] * i32::from(old);
                let exact = product.checked_div(i32::from(new)).unwrap_or(tile.ratios[row]);
                *ratio = exact.clamp(-MAX_RATIO, MAX_RATIO);
            }
        }
    }

    /// An integer near `expected`, which is in 1/65536.
    #[inline(never)]
    fn value(
        &mut self,
        set: ValueContexts,
        expected: i32,
        (least, most): (i32, i32),
        activity: &mut i32,
        actual: i32,
    ) -> i32 {
        let shifted = expected + ONE / 2;
        let (prediction, rest) = ((shifted >> 16).clamp(least, most), shifted & (ONE - 1));
        // On which side of the integer, and how far: eighths of a half.
        let above = rest >= ONE / 2;
        let fraction = (if above { rest - ONE / 2 } else { ONE / 2 - 1 - rest } >> 12) as usize;
        let level = LEVELS.iter().filter(|&&level| *activity >= level).count();
        let difference = self.difference(set, level, fraction, above, actual - prediction);
        *activity += (difference.abs().min(4) * ACTIVITY_ONE - *activity) >> 3;
        prediction + difference
    }

    fn difference(&mut self, set: ValueContexts, level: usize, fraction: usize, above: bool, actual: i32) -> i32 {
        if !self.bit(set.differs(level, fraction), actual != 0) {
            return 0;
        }
        let away = self.bit(set.away(fraction), (actual > 0) != above);
        let mut magnitude = 1;
        while magnitude <= UNARY && self.bit(set.more(level, magnitude), actual.unsigned_abs() as usize > magnitude) {
            magnitude += 1;
        }
        if magnitude > UNARY {
            // What is left, and one, as the number of its bits and those after the first.
            let left = (actual.unsigned_abs() as usize).wrapping_sub(UNARY);
            let mut bits = 1;
            while bits < ESCAPE && self.bit(set.longer(bits), left >> bits != 0) {
                bits += 1;
            }
            let mut value = 1;
            for shift in (0..bits - 1).rev() {
                value = value << 1 | usize::from(self.coder.even_bit(left >> shift & 1 == 1));
            }
            magnitude = UNARY + value;
        }
        if away == above { -(magnitude as i32) } else { magnitude as i32 }
    }

    fn new_byte(&mut self, at: usize) -> u8 {
        match self.leaf.get(at) {
            Some(&byte) => byte,
            None => self.around.written(at as u64),
        }
    }

    fn new_word(&mut self, at: i64) -> u32 {
        let at = at as usize;
        u32::from_le_bytes([0, 1, 2, 3].map(|n| self.new_byte(at + n)))
    }
}

/// Activities from which on the higher contexts apply.
const LEVELS: [i32; ACTIVITIES - 1] = [6, 16, 32, 64, 110];
const _: () = assert!(KEPT * 2 == BLOCK_COLUMNS && ROWS == Layout::R16K1.rows());

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// old / new of two positive f32 in 1/65536; 1 where one of them is zero, subnormal or not a number.
fn ratio(old: u32, new: u32) -> i32 {
    let parts = |bits: u32| ((bits >> 23 & 0xff) as i32, u64::from(bits & 0x7f_ffff | 0x80_0000));
    let ((old_exponent, old), (new_exponent, new)) = (parts(old), parts(new));
    if !(1..255).contains(&old_exponent) || !(1..255).contains(&new_exponent) {
        return ONE;
    }
    // Between 2^15 and 2^17.
    let quotient = ((old << 16) / new) as i32;
    match old_exponent - new_exponent {
        shift @ 0..=5 => (quotient << shift).min(MAX_RATIO),
        shift if shift > 0 => MAX_RATIO,
        shift => quotient.checked_shr(shift.unsigned_abs()).unwrap_or(0),
    }
}
