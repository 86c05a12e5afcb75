//! A packer for tests, written from the two lines at the head of `layout.rs` and from nothing else there, so that it
//! and `TileShape` check each other.

use std::vec;
use std::vec::Vec;

use crate::format::artifact::Matrix;
use crate::kernels::Activations;
use crate::kernels::scalar;
use crate::layout::{ALIGNMENT, GROUP, Layout, NibbleCode, Storage, TileShape};

/// A quantized matrix as plain integers.
#[derive(Clone, Debug)]
pub(crate) struct Integers {
    pub(crate) storage: Storage,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// (rows, columns)
    pub(crate) values: Vec<i8>,
    /// (rows, groups); none in w8.
    pub(crate) multipliers: Vec<i8>,
    /// (rows)
    pub(crate) scales: Vec<f32>,
}

impl Integers {
    pub(crate) fn value(&self, row: usize, column: usize) -> i8 {
        self.values[row * self.columns + column]
    }

    pub(crate) fn multiplier(&self, row: usize, group: usize) -> i8 {
        match self.storage {
            Storage::W4G32 => self.multipliers[row * self.columns.div_ceil(GROUP) + group],
            _ => 1,
        }
    }

    /// Value times multiplier.
    pub(crate) fn integer(&self, row: usize, column: usize) -> i64 {
        i64::from(self.value(row, column)) * i64::from(self.multiplier(row, column / GROUP))
    }

    /// All tiles.
    pub(crate) fn pack(&self, layout: Layout) -> Vec<u8> {
        let (r, kq, groups) = (layout.rows(), layout.run(), self.columns.div_ceil(GROUP));
        let w4 = self.storage == Storage::W4G32;
        let value_bytes = groups * r * if w4 { 16 } else { 32 };
        let scales_at = value_bytes + if w4 { groups * r } else { 0 };
        let stride = (scales_at + 4 * r).next_multiple_of(ALIGNMENT);
        let mut bytes = vec![0; self.rows.div_ceil(r) * stride];
        for (tile_index, tile) in bytes.chunks_exact_mut(stride).enumerate() {
            for within in 0..r {
                let n = tile_index * r + within;
                for k in 0..groups * GROUP {
                    let value = if n < self.rows && k < self.columns { self.value(n, k) } else { 0 };
                    if !w4 {
                        tile[(k / 32) * 32 * r + ((k % 32) / kq) * r * kq + (n % r) * kq + k % kq] = value as u8;
                        continue;
                    }
                    let nibble = match layout.nibbles() {
                        NibbleCode::Offset8 => (value + 8) as u8,
                        NibbleCode::TwosComplement => value as u8 & 15,
                    };
                    let at = (k / 32) * 16 * r + ((k % 16) / kq) * r * kq + (n % r) * kq + k % kq;
                    tile[at] |= if k % 32 < 16 { nibble } else { nibble << 4 };
                }
                if n >= self.rows {
                    continue;
                }
                if w4 {
                    for group in 0..groups {
                        tile[value_bytes + group * r + within] = self.multiplier(n, group) as u8;
                    }
                }
                tile[scales_at + 4 * within..][..4].copy_from_slice(&self.scales[n].to_le_bytes());
            }
        }
        bytes
    }

    /// A matrix over packed bytes.
    pub(crate) fn matrix<'a>(&self, layout: Layout, bytes: &'a [u8]) -> Matrix<'a> {
        let shape = TileShape::new(self.storage, layout, self.rows, self.columns).expect("a small shape");
        assert_eq!(shape.bytes(), bytes.len(), "{layout:?} {:?}", self.storage);
        Matrix { bytes, shape, rows: self.rows, columns: self.columns }
    }

    /// The scalar kernel over tokens (tokens, columns), packed in `layout`.
    pub(crate) fn multiply(&self, layout: Layout, tokens: &[i8], scales: &[f32]) -> Vec<f32> {
        let stride = self.columns.next_multiple_of(GROUP);
        let mut values = vec![0; scales.len() * stride];
        for (padded, token) in values.chunks_exact_mut(stride).zip(tokens.chunks_exact(self.columns)) {
            padded[..self.columns].copy_from_slice(token);
        }
        let bytes = self.pack(layout);
        let mut output = vec![f32::NAN; scales.len() * self.rows];
        scalar::multiply(&self.matrix(layout, &bytes), Activations { values: &values, stride, scales }, &mut output);
        output
    }
}
