//! Properties of the scalar kernels, over random shapes and every layout: they agree with plain integers in matrix
//! order, and a packed value is at the address that the formula gives.

use std::vec::Vec;

use proptest::prelude::*;

use super::{SCALAR, Width, scalar};
use crate::layout::{BLOCK_COLUMNS, Coding, KEPT, Layout, NibbleCode, STORAGES, Storage};
use crate::sample::random_u64;
use crate::vectors::packer::{Inputs, Integers, kept_columns};

/// Random numbers drawn one after another.
pub(super) struct Draws {
    pub(super) seed: u64,
    pub(super) index: u64,
}

impl Draws {
    pub(super) fn next(&mut self) -> u64 {
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

    pub(super) fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Scales with full mantissas, between 2^-20 and 2^12.
    pub(super) fn scales(&mut self, count: usize) -> Vec<f32> {
        let scale = |draw: u64| f32::from_bits((107 + (draw >> 32) as u32 % 32) << 23 | draw as u32 & 0x7f_ffff);
        (0..count).map(|_| scale(self.next())).collect()
    }

    pub(super) fn matrix(&mut self, storage: Storage, rows: usize, columns: usize) -> Integers {
        let mut values = self.bytes(rows * columns);
        if storage.is_sparse() {
            for four in values.chunks_exact_mut(4) {
                // The two columns that may be nonzero, in any order.
                let draw = self.next() as usize;
                let first = draw % 4;
                let second = (first + 1 + draw / 4 % 3) % 4;
                (0..4).filter(|k| ![first, second].contains(k)).for_each(|k| four[k] = 0);
            }
        }
        Integers {
            storage,
            rows,
            columns,
            values: values.into_iter().map(|value| value >> (8 - storage.def().coding.bits())).collect(),
            multipliers: match storage.def().group {
                Some(group) => self.bytes(rows * columns.div_ceil(group)),
                None => Vec::new(),
            },
            scales: self.scales(rows),
        }
    }
}

/// Every storage of matrices.
pub(super) fn storages() -> impl Iterator<Item = Storage> {
    STORAGES.iter().filter(|def| def.coding != Coding::F32).map(|def| def.storage)
}

/// The number of columns, rounded up to one that a storage allows.
pub(super) fn legal(storage: Storage, columns: usize) -> usize {
    if storage.is_sparse() { columns.next_multiple_of(4) } else { columns }
}

proptest! {
    #[test]
    fn multiply_agrees_with_plain_integers(
        rows in 1usize..=40,
        columns in 1usize..=200,
        tokens in 1usize..=8,
        seed: u64,
    ) {
        let mut draws = Draws { seed, index: 0 };
        for storage in storages() {
            let columns = legal(storage, columns);
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
        for storage in storages() {
            let columns = legal(storage, columns);
            let matrix = draws.matrix(storage, rows, columns);
            for layout in Layout::ALL {
                let bytes = matrix.pack(layout);
                let view = matrix.matrix(layout, &bytes);
                let shape = view.shape;
                let mut decoded = std::vec![f32::NAN; columns];
                for row in 0..rows {
                    let (tile, within) = (&bytes[row / layout.rows() * shape.stride..], row % layout.rows());
                    let dense: Vec<i8> = (0..columns).map(|column| matrix.value(row, column)).collect();
                    let kept = if storage.is_sparse() { kept_columns(&dense) } else { (0..columns).collect() };
                    for (stored, &column) in kept.iter().enumerate() {
                        let (offset, high) = shape.value_offset(within, stored);
                        let [(low, shift), (sign, bit)] = shape.plane_offsets(within, stored);
                        let nibble = || if high { tile[offset] >> 4 } else { tile[offset] & 15 };
                        let value = match (storage.def().coding, layout.nibbles()) {
                            (Coding::Nibble, NibbleCode::Offset8) => nibble() as i8 - 8,
                            (Coding::Nibble, NibbleCode::TwosComplement) => ((nibble() ^ 8) as i8) - 8,
                            (Coding::ThreeBits, _) => (tile[low] >> shift & 3) as i8 - 4 * (tile[sign] >> bit & 1) as i8,
                            (Coding::Byte | Coding::F32, _) => tile[offset] as i8,
                        };
                        prop_assert_eq!(shape.value(tile, within, stored), value, "{:?} {:?}", layout, storage);
                        prop_assert_eq!(value, matrix.value(row, column), "{:?} {:?}", layout, storage);
                        if storage.is_sparse() {
                            let (offset, shift) = shape.index_offset(within, stored);
                            let index = usize::from(tile[offset] >> shift & 3);
                            prop_assert_eq!(stored / 2 * 4 + index, column, "{:?} {:?}", layout, storage);
                        }
                        if let Some(group) = storage.def().group {
                            let group = column / group;
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

    #[test]
    fn sparse_products_are_those_of_the_dense_matrix(
        rows in 1usize..=40,
        fours in 1usize..=50,
        tokens in 1usize..=8,
        seed: u64,
    ) {
        let mut draws = Draws { seed, index: 0 };
        for (sparse, dense) in [(Storage::W8S24, Storage::W8), (Storage::W4G32S24, Storage::W4G32)] {
            let matrix = draws.matrix(sparse, rows, 4 * fours);
            let same = Integers { storage: dense, ..matrix.clone() };
            let (activations, scales) = (draws.bytes(tokens * 4 * fours), draws.scales(tokens));
            let expected = same.multiply(Layout::R4K4, &activations, &scales);
            for layout in Layout::ALL {
                prop_assert_eq!(&matrix.multiply(layout, &activations, &scales), &expected, "{:?} {:?}", layout, sparse);
            }
        }
    }

    /// Any bytes decode to three-bit values in range, and their products neither panic nor leave the tile.
    #[test]
    fn damaged_planes_of_three_bits_are_values_of_the_range(columns in 1usize..=200, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        let matrix = draws.matrix(Storage::W3G32, 20, columns);
        let activations = draws.bytes(columns);
        for layout in Layout::ALL {
            let mut bytes = matrix.pack(layout);
            bytes.iter_mut().for_each(|byte| *byte ^= draws.next() as u8);
            let view = matrix.matrix(layout, &bytes);
            let output = Inputs::new(&activations, columns, &[1.0], Width::Bits8).through(&SCALAR, &view);
            for (n, found) in output.into_iter().enumerate() {
                let (tile, within) = (&bytes[n / layout.rows() * view.shape.stride..], n % layout.rows());
                let mut sum = 0i64;
                for (column, &activation) in activations.iter().enumerate() {
                    let value = view.shape.value(tile, within, column);
                    prop_assert!((-4..=3).contains(&value));
                    let multiplier = tile[view.shape.multiplier_offset(within, column / 32)] as i8;
                    sum += i64::from(multiplier) * i64::from(value) * i64::from(activation);
                }
                let at = view.shape.scale_offset(within);
                let scale = f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]);
                let expected = sum as f32 * scale * 1.0;
                prop_assert!(found == expected || expected.is_nan(), "{:?}", layout);
            }
        }
    }

    /// No byte of a plane selects outside the activations, and equal indices add up, in every layout.
    #[test]
    fn damaged_planes_select_within_their_four_columns(fours in 1usize..=50, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        let columns = 4 * fours;
        for storage in [Storage::W8S24, Storage::W4G32S24] {
            let matrix = draws.matrix(storage, 20, columns);
            let mut activations = draws.bytes(columns);
            activations.resize(columns.next_multiple_of(BLOCK_COLUMNS), 0);
            for layout in Layout::ALL {
                let mut bytes = matrix.pack(layout);
                bytes.iter_mut().for_each(|byte| *byte ^= draws.next() as u8);
                let view = matrix.matrix(layout, &bytes);
                let mut row = std::vec![0.0; columns];
                let input = Inputs::new(&activations, activations.len(), &[1.0], Width::Bits8);
                let output = input.through(&SCALAR, &view);
                for n in 0..20 {
                    scalar::row(&view, n, &mut row);
                    let (tile, within) = (&bytes[n / layout.rows() * view.shape.stride..], n % layout.rows());
                    let mut sum = 0i64;
                    for kept in 0..view.shape.blocks * KEPT {
                        let (offset, high) = view.shape.value_offset(within, kept);
                        let value = match (storage.is_nibbles(), layout.nibbles(), high) {
                            (false, ..) => tile[offset] as i8,
                            (_, NibbleCode::Offset8, false) => (tile[offset] & 15) as i8 - 8,
                            (_, NibbleCode::Offset8, true) => (tile[offset] >> 4) as i8 - 8,
                            (_, NibbleCode::TwosComplement, false) => (tile[offset] << 4) as i8 >> 4,
                            (_, NibbleCode::TwosComplement, true) => tile[offset] as i8 >> 4,
                        };
                        let multiplier = match storage.is_nibbles() {
                            true => i64::from(tile[view.shape.multiplier_offset(within, kept / KEPT)] as i8),
                            false => 1,
                        };
                        let (offset, shift) = view.shape.index_offset(within, kept);
                        let column = kept / 2 * 4 + usize::from(tile[offset] >> shift & 3);
                        sum += multiplier * i64::from(value) * i64::from(activations[column]);
                    }
                    let at = view.shape.scale_offset(within);
                    let scale = f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]);
                    let expected = sum as f32 * scale * 1.0;
                    prop_assert!(output[n] == expected || expected.is_nan(), "{:?} {:?}", layout, storage);
                }
            }
        }
    }
}
