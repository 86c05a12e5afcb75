//! Integers of 2 to 8 bits in tensors of 32-bit words or of signed bytes. A matrix of codes has rows (outputs) and columns
//! (inputs, or groups of them). Fields follow each other along one of the two, low bits first; field f has the bits from
//! f · bits on of the stream of words, and may go over the end of a word:
//!
//! ```text
//! AlongRows     words (rows, ceil(columns · bits / 32))   field = column   compressed-tensors, AWQ's gemv
//! DownColumns   words (columns · bits / 32, rows)         field = column   GPTQ's weights
//! AcrossRows    words (columns, rows · bits / 32)         field = row      GPTQ's zeros; AWQ, in another order
//! DownRows      words (ceil(rows · bits / 32), columns)   field = row      zeros of compressed-tensors
//! Bytes         i8 (rows, columns)
//! Nibbles       i8 (rows, columns / 2)            column 2n in the low half of byte n, signed       torchao's Int4Tensor
//! Interleaved   16-bit words (rows / 4, columns)  four rows of 64 columns in 64 words               AWQ's gemv_fast
//! ```
//!
//! Interleaved: of rows 4n to 4n + 3, word 64k + 16r + 8h + j holds row 4n + r of columns 64k + 32h + j + 8 · [0, 1, 2, 3], the
//! first in its low bits.
//!
//! AWQ's order: a word holds rows 8w + [0, 2, 4, 6, 1, 3, 5, 7]. Old versions of compressed-tensors began every word anew:
//! `fields` then says how many a word has.

use crate::disk::SharedBytes;
use std::ops::Range;

/// Bits of a word.
pub(super) const WORD: usize = 32;
/// The nibble of a word of AWQ's that holds row 8w + k.
const AWQ_NIBBLE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How the codes of a matrix lie in their tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Fields along the rows of the tensor, which are rows.
    AlongRows,
    /// Fields down the columns of the tensor, which are rows.
    DownColumns,
    /// Fields along the rows of the tensor, which are columns; in AWQ's order or plain.
    AcrossRows {
        /// Whether the nibbles of a word are in AWQ's order.
        awq: bool,
    },
    /// Fields down the columns of the tensor, which are columns.
    DownRows,
    /// One signed byte each.
    Bytes,
    /// Two signed halves of a byte.
    Nibbles,
    /// Four rows in 16-bit words.
    Interleaved,
}

/// A matrix of codes.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// The words, or bytes.
    pub(super) bytes: SharedBytes,
    /// Second dimension of the tensor.
    pub(super) width: usize,
    /// Where codes lie.
    pub(super) layout: Layout,
    /// Bits of a code.
    pub(super) bits: usize,
    /// Codes in a word where none goes over its end; `None` where they follow each other without gaps.
    pub(super) fields: Option<usize>,
    /// What is added to a code.
    pub(super) add: i16,
}

/// Words that `fields` codes take.
pub(super) fn words(codes: usize, bits: usize, fields: Option<usize>) -> usize {
    match fields {
        Some(fields) => codes.div_ceil(fields),
        None => (codes * bits).div_ceil(WORD),
    }
}

impl Codes {
    /// The least and the largest that a code can be; of bytes, what they are.
    pub(super) fn range(&self) -> (i16, i16) {
        let (low, high) = match self.layout {
            Layout::Bytes => {
                let bytes = self.bytes.as_slice().iter().map(|byte| byte.cast_signed());
                let (low, high) = bytes.fold((0, 0), |(low, high), byte: i8| (byte.min(low), byte.max(high)));
                (low.into(), high.into())
            }
            Layout::Nibbles => (-8, 7),
            _ => (0, (1 << self.bits) - 1),
        };
        (low + self.add, high + self.add)
    }

    /// The code that symmetric integers have for zero.
    pub(super) fn middle(&self) -> i16 {
        match self.layout {
            Layout::Bytes | Layout::Nibbles => self.add,
            _ => self.add + (1 << (self.bits - 1)),
        }
    }

    /// The codes of some rows, (rows, columns), with what is added to them.
    pub(super) fn read(&self, rows: Range<usize>, columns: usize, out: &mut [i16]) {
        let bytes = self.bytes.as_slice();
        match self.layout {
            Layout::Bytes => {
                let from = &bytes[rows.start * columns..rows.end * columns];
                for (out, byte) in out.iter_mut().zip(from) {
                    *out = i16::from(byte.cast_signed()) + self.add;
                }
                return;
            }
            Layout::Nibbles => {
                let from = &bytes[rows.start * self.width..rows.end * self.width];
                let signed = |half: u8| i16::from(half ^ 8) - 8 + self.add;
                for (out, byte) in out.chunks_exact_mut(2).zip(from) {
                    out.copy_from_slice(&[signed(byte & 15), signed(byte >> 4)]);
                }
                return;
            }
            Layout::Interleaved => return self.interleaved(bytes.as_chunks::<2>().0, rows, columns, out),
            _ => {}
        }
        let (words, _) = bytes.as_chunks::<4>();
        match (self.layout, self.bits) {
            (Layout::DownColumns, 4 | 8 | 2) => self.whole_columns(words, rows, columns, out),
            (Layout::AlongRows, 4 | 8 | 2) => self.whole_rows(words, rows, columns, out),
            _ => {
                for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                    for (column, out) in out.iter_mut().enumerate() {
                        *out = self.code(words, row, column);
                    }
                }
            }
        }
    }

    /// Four rows in 16-bit words.
    fn interleaved(&self, words: &[[u8; 2]], rows: Range<usize>, columns: usize, out: &mut [i16]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            let words = &words[row / 4 * self.width..][..self.width];
            for (column, out) in out.iter_mut().enumerate() {
                let (half, place) = (column % 64 / 32, column % 32);
                let word = u16::from_le_bytes(words[column / 64 * 64 + 16 * (row % 4) + 8 * half + place % 8]);
                *out = (word >> (4 * (place / 8)) & 15) as i16 + self.add;
            }
        }
    }

    /// Words down the columns: a row of words at a time, so that memory is read in its order.
    fn whole_columns(&self, words: &[[u8; 4]], rows: Range<usize>, columns: usize, out: &mut [i16]) {
        let (per_word, mask) = (WORD / self.bits, (1u32 << self.bits) - 1);
        for (block, words) in words.chunks_exact(self.width).enumerate() {
            let first = block * per_word;
            for (row, word) in words[rows.clone()].iter().enumerate() {
                let mut word = u32::from_le_bytes(*word);
                let end = columns.min(first + per_word);
                for out in &mut out[row * columns..][first.min(end)..end] {
                    *out = (word & mask) as i16 + self.add;
                    word >>= self.bits;
                }
            }
        }
    }

    /// Words along the rows, no code going over the end of one.
    fn whole_rows(&self, words: &[[u8; 4]], rows: Range<usize>, columns: usize, out: &mut [i16]) {
        let (per_word, mask) = (WORD / self.bits, (1u32 << self.bits) - 1);
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            let words = &words[row * self.width..][..self.width];
            for (out, word) in out.chunks_mut(per_word).zip(words) {
                let mut word = u32::from_le_bytes(*word);
                for out in out {
                    *out = (word & mask) as i16 + self.add;
                    word >>= self.bits;
                }
            }
        }
    }

    /// The code at (row, column).
    fn code(&self, words: &[[u8; 4]], row: usize, column: usize) -> i16 {
        let (field, other, along) = match self.layout {
            Layout::AlongRows => (column, row, true),
            Layout::DownColumns => (column, row, false),
            Layout::AcrossRows { awq: true } => (row / 8 * 8 + AWQ_NIBBLE[row % 8], column, true),
            Layout::AcrossRows { awq: false } => (row, column, true),
            Layout::DownRows | Layout::Bytes | Layout::Nibbles | Layout::Interleaved => (row, column, false),
        };
        let (word, bit) = match self.fields {
            Some(fields) => (field / fields, field % fields * self.bits),
            None => (field * self.bits / WORD, field * self.bits % WORD),
        };
        let at = |word: usize| {
            let index = if along { other * self.width + word } else { word * self.width + other };
            u64::from(words.get(index).map_or(0, |word| u32::from_le_bytes(*word)))
        };
        let mut window = at(word) >> bit;
        if bit + self.bits > WORD {
            window |= at(word + 1) << (WORD - bit);
        }
        (window & ((1 << self.bits) - 1)) as i16 + self.add
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(words: &[u32], width: usize, layout: Layout, bits: usize, fields: Option<usize>) -> Codes {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Codes { bytes: SharedBytes::owned(bytes), width, layout, bits, fields, add: 0 }
    }

    fn read(codes: &Codes, rows: usize, columns: usize) -> Vec<i16> {
        let mut out = vec![0; rows * columns];
        codes.read(0..rows, columns, &mut out);
        out
    }

    #[test]
    fn words_of_every_layout_hold_the_codes_by_hand() {
        let along = codes(&[0x7654_3210, 0xFEDC_BA98], 1, Layout::AlongRows, 4, None);
        assert_eq!(read(&along, 2, 8), (0..16).collect::<Vec<i16>>());
        let down = codes(&[0x7654_3210, 0xFEDC_BA98], 2, Layout::DownColumns, 4, None);
        assert_eq!(read(&down, 2, 8), (0..16).collect::<Vec<i16>>());
        let across = codes(&[0x7654_3210, 0xFEDC_BA98], 1, Layout::AcrossRows { awq: false }, 4, None);
        assert_eq!(read(&across, 8, 2), [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]);
        // Nibble k holds row [0, 2, 4, 6, 1, 3, 5, 7][k].
        let awq = codes(&[0x7531_6420], 1, Layout::AcrossRows { awq: true }, 4, None);
        assert_eq!(read(&awq, 8, 1), (0..8).collect::<Vec<i16>>());
        let nibbles = codes(&[0x1F98_7010, 0], 4, Layout::Nibbles, 4, None);
        assert_eq!(read(&nibbles, 1, 8), [0, 1, 0, 7, -8, -7, -1, 1]);
        let down_rows = codes(&[0x0403_0201, 0x0807_0605], 2, Layout::DownRows, 8, None);
        assert_eq!(read(&down_rows, 4, 2), [1, 5, 2, 6, 3, 7, 4, 8]);
    }

    /// The steps of AutoAWQ's packer, on the positions of 8 rows and 128 columns.
    #[test]
    fn interleaved_words_are_those_of_the_packers_steps() {
        let (rows, columns) = (8, 128);
        let value = |row: usize, column: usize| (row * 5 + column * 7 + column / 16) % 16;
        let mut words = vec![0u16; rows / 4 * columns];
        for block in 0..rows / 4 {
            for step in 0..columns / 64 {
                // (4, 64) values in the packer's order, four of which are a word.
                let mut flat = Vec::new();
                for row in 0..4 {
                    for place in 0..64 {
                        // Eight of 32 columns: first of pairs two, eight apart; then the even ones before the odd ones.
                        let (eight, within) = (place % 32 / 8, place % 8);
                        let (odd, far) = (within / 4, within % 4);
                        let column = step * 64 + place / 32 * 32 + far * 8 + eight * 2 + odd;
                        flat.push(value(block * 4 + row, column));
                    }
                }
                for (word, four) in words[block * columns + step * 64..].iter_mut().zip(flat.chunks(4)) {
                    *word = four.iter().enumerate().map(|(n, value)| (value << (4 * n)) as u16).sum();
                }
            }
        }
        let wide: Vec<u32> = words.chunks(2).map(|two| u32::from(two[0]) | u32::from(two[1]) << 16).collect();
        let interleaved = codes(&wide, columns, Layout::Interleaved, 4, None);
        let expected = (0..rows).flat_map(|row| (0..columns).map(move |column| value(row, column) as i16));
        assert_eq!(read(&interleaved, rows, columns), expected.collect::<Vec<i16>>());
        assert_eq!((interleaved.range(), interleaved.middle()), ((0, 15), 8));
    }

    #[test]
    fn three_bits_go_over_the_ends_of_words_or_begin_them_anew() {
        let values: Vec<u64> = (0..32).map(|n| n * 5 % 8).collect();
        let mut stream = [0u32; 3];
        for (n, value) in values.iter().enumerate() {
            for bit in 0..3 {
                let at = n * 3 + bit;
                stream[at / 32] |= ((value >> bit & 1) as u32) << (at % 32);
            }
        }
        let expected: Vec<i16> = values.iter().map(|&value| value as i16).collect();
        for layout in [Layout::AlongRows, Layout::DownColumns] {
            let width = if layout == Layout::AlongRows { 3 } else { 1 };
            assert_eq!(read(&codes(&stream, width, layout, 3, None), 1, 32), expected);
        }
        let mut anew = [0u32; 4];
        for (n, value) in values.iter().enumerate() {
            anew[n / 10] |= (*value as u32) << (n % 10 * 3);
        }
        assert_eq!(read(&codes(&anew, 4, Layout::AlongRows, 3, Some(10)), 1, 32), expected);
        assert_eq!((words(32, 3, None), words(32, 3, Some(10)), words(33, 4, None)), (3, 4, 5));
    }
}
