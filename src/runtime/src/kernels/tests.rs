//! Properties of the scalar kernels, over random shapes and every layout: they agree with plain integers in the order
//! of a matrix, and a packed value stands where the address formula says.

use std::vec::Vec;

use proptest::prelude::*;

use super::scalar;
use crate::layout::{GROUP, Layout, NibbleCode, Storage};
use crate::sample::random_u64;
use crate::vectors::packer::Integers;

/// Random numbers drawn one after another.
struct Draws {
    seed: u64,
    index: u64,
}

impl Draws {
    fn next(&mut self) -> u64 {
        self.index += 1;
        random_u64(self.seed, self.index)
    }

    /// Any byte; every eighth at one of the ends.
    fn byte(&mut self) -> i8 {
        let draw = self.next();
        match draw >> 61 {
            0 => [i8::MIN, -127, i8::MAX, 0][draw as usize % 4],
            _ => draw as i8,
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Scales with full mantissas, between 2^-20 and 2^12.
    fn scales(&mut self, count: usize) -> Vec<f32> {
        let scale = |draw: u64| f32::from_bits((107 + (draw >> 32) as u32 % 32) << 23 | draw as u32 & 0x7f_ffff);
        (0..count).map(|_| scale(self.next())).collect()
    }

    fn matrix(&mut self, storage: Storage, rows: usize, columns: usize) -> Integers {
        let w4 = storage == Storage::W4G32;
        let values = self.bytes(rows * columns);
        Integers {
            storage,
            rows,
            columns,
            values: if w4 { values.into_iter().map(|value| value >> 4).collect() } else { values },
            multipliers: if w4 { self.bytes(rows * columns.div_ceil(GROUP)) } else { Vec::new() },
            scales: self.scales(rows),
        }
    }
}

const STORAGES: [Storage; 2] = [Storage::W8, Storage::W4G32];

proptest! {
    #[test]
    fn multiply_agrees_with_plain_integers(
        rows in 1usize..=40,
        columns in 1usize..=200,
        tokens in 1usize..=8,
        seed: u64,
    ) {
        let mut draws = Draws { seed, index: 0 };
        for storage in STORAGES {
            let matrix = draws.matrix(storage, rows, columns);
            let (activations, scales) = (draws.bytes(tokens * columns), draws.scales(tokens));
            let mut expected = Vec::with_capacity(tokens * rows);
            for (token, scale) in activations.chunks_exact(columns).zip(&scales) {
                for row in 0..rows {
                    let terms = token.iter().enumerate();
                    let sum: i64 = terms.map(|(column, &a)| matrix.integer(row, column) * i64::from(a)).sum();
                    expected.push(sum as f32 * matrix.scales[row] * scale);
                }
            }
            for layout in Layout::ALL {
                let actual = matrix.multiply(layout, &activations, &scales);
                prop_assert_eq!(&actual, &expected, "{:?} {:?}", layout, storage);
            }
        }
    }

    #[test]
    fn packed_values_are_where_the_formula_says(rows in 1usize..=40, columns in 1usize..=200, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        for storage in STORAGES {
            let matrix = draws.matrix(storage, rows, columns);
            for layout in Layout::ALL {
                let bytes = matrix.pack(layout);
                let view = matrix.matrix(layout, &bytes);
                let shape = view.shape;
                let mut decoded = std::vec![f32::NAN; columns];
                for row in 0..rows {
                    let (tile, within) = (&bytes[row / layout.rows() * shape.stride..], row % layout.rows());
                    for column in 0..columns {
                        let (offset, high) = shape.value_offset(within, column);
                        let byte = tile[offset];
                        let nibble = if high { byte >> 4 } else { byte & 15 };
                        let value = match (storage, layout.nibbles()) {
                            (Storage::W4G32, NibbleCode::Offset8) => nibble as i8 - 8,
                            (Storage::W4G32, NibbleCode::TwosComplement) => ((nibble ^ 8) as i8) - 8,
                            _ => byte as i8,
                        };
                        prop_assert_eq!(value, matrix.value(row, column), "{:?} {:?}", layout, storage);
                        if storage == Storage::W4G32 {
                            let group = column / GROUP;
                            let multiplier = tile[shape.multiplier_offset(within, group)] as i8;
                            prop_assert_eq!(multiplier, matrix.multiplier(row, group), "{:?}", layout);
                        }
                    }
                    let scale = &tile[shape.scale_offset(within)..][..4];
                    prop_assert_eq!(scale, &matrix.scales[row].to_le_bytes()[..], "{:?} {:?}", layout, storage);
                    scalar::row(&view, row, &mut decoded);
                    let integers = (0..columns).map(|column| matrix.integer(row, column));
                    let expected: Vec<f32> = integers.map(|integer| integer as f32 * matrix.scales[row]).collect();
                    prop_assert_eq!(&decoded, &expected, "{:?} {:?}", layout, storage);
                }
            }
        }
    }
}
