//! The quantized inputs of a linear: one or two rows of bytes per token, one scale per token, and the group sums that
//! offset-8 nibbles need.

use super::columns::Columns;
use crate::format::artifact::Matrix;
use crate::layout::BLOCK_COLUMNS;
use core::ops::Range;

/// Bits of a linear's quantized input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// One row of bytes per token.
    Bits8 = 8,
    /// Two rows of bytes per token: the value is 128 · (first) + (second).
    Bits16 = 16,
}

impl Width {
    /// The width with the tensor table's number; `None` for any other number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Width::Bits8, Width::Bits16].into_iter().find(|width| *width as u8 == number)
    }

    /// Rows of bytes per token.
    pub const fn planes(self) -> usize {
        match self {
            Width::Bits8 => 1,
            Width::Bits16 => 2,
        }
    }
}

/// Quantized inputs of a linear: `planes` rows of bytes and one scale per token.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// (tokens · planes, stride): values in [-127, 127], zero from the linear's width up to the next multiple of 32.
    pub values: &'a [i8],
    /// (tokens · planes, stride / 32): -8 times the sum of each group of 32 values, which offset-8 nibbles need.
    pub offsets: &'a [i32],
    /// Distance between rows, the linear's width padded to a multiple of 32.
    pub stride: usize,
    /// (tokens)
    pub scales: &'a [f32],
    /// Rows per token.
    pub width: Width,
}

impl<'a> Activations<'a> {
    /// Number of tokens.
    #[inline]
    pub fn tokens(&self) -> usize {
        self.scales.len()
    }

    /// Rows of bytes: tokens times planes.
    #[inline]
    pub fn rows(&self) -> usize {
        self.scales.len() * self.width.planes()
    }

    /// The bytes of one row.
    #[inline]
    pub fn row(&self, row: usize) -> &'a [i8] {
        &self.values[row * self.stride..][..self.stride]
    }

    /// Asserts the bounds of a product once, for its inner loops.
    ///
    /// # Panics
    /// If a slice is shorter than its shape.
    #[inline]
    pub fn check(&self, matrix: &Matrix<'_>, tiles: &Range<usize>, output: &Columns<'_>) {
        let shape = &matrix.shape;
        assert!(self.stride == shape.blocks * BLOCK_COLUMNS && self.values.len() >= self.rows() * self.stride);
        assert!(self.offsets.len() >= self.rows() * shape.blocks);
        assert!(tiles.start <= tiles.end && tiles.end <= shape.tiles && matrix.bytes.len() >= shape.bytes());
        assert!(output.tokens() == self.tokens() && output.range() == matrix.rows_of(tiles));
    }
}
