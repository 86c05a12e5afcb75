//! Products of which only some rows are needed: those equal the whole product's with `==`, the others are the product's or
//! -inf.

use super::*;
use crate::kernels::available;
use crate::layout::{Layout, Storage};
use crate::sample::{mark, random_u64, seen_words};
use crate::vectors::packer::{Inputs, Integers};
use std::vec::Vec;

fn matrix(storage: Storage, rows: usize, columns: usize) -> Integers {
    let value = |index: usize| (random_u64(7, index as u64) as i8) >> (8 - storage.def().coding.bits());
    let multipliers = storage.def().group.map_or(0, |group| rows * columns.div_ceil(group));
    Integers {
        storage,
        rows,
        columns,
        values: (0..rows * columns).map(value).collect(),
        multipliers: (0..multipliers).map(|index| random_u64(8, index as u64) as i8).collect(),
        scales: (0..rows).map(|row| 1.0 + row as f32 / 64.0).collect(),
    }
}

#[test]
fn needed_rows_are_those_of_the_whole_product() {
    const COLUMNS: usize = 96;
    let activations: Vec<i8> = (0..COLUMNS).map(|index| (random_u64(9, index as u64) as i8).max(-127)).collect();
    let inputs = Inputs::new(&activations, COLUMNS, &[0.01], Width::Bits8);
    let bias: Vec<u8> = (0..203u32).flat_map(|row| (row as f32 * 0.25 - 9.0).to_le_bytes()).collect();
    for (storage, rows) in [(Storage::W8, 203), (Storage::W4G32, 203), (Storage::W4G32, 64)] {
        let integers = matrix(storage, rows, COLUMNS);
        for layout in Layout::ALL {
            let packed = integers.pack(layout);
            let view = integers.matrix(layout, &packed);
            let bias = (rows == 203).then(|| F32Bytes::new(&bias));
            let product = Product {
                matrix: view,
                rest: None,
                bias,
                destination: Destination::Output,
                needed: None,
                #[cfg(feature = "streaming")]
                sources: [None; 2],
            };
            for kernels in available().filter(|kernels| kernels.layout.is_none_or(|own| own == layout)) {
                let input = inputs.activations();
                let mut whole = std::vec![f32::NAN; rows];
                run(kernels, &product, &input, 0..view.shape.tiles, &mut Columns::new(&mut whole, rows));
                for share in [1, 2, 9, 70, 1000] {
                    let mut needed = std::vec![0; seen_words(rows)];
                    let ids: Vec<usize> =
                        (0..rows).filter(|&id| random_u64(share, id as u64).is_multiple_of(share)).collect();
                    ids.iter().for_each(|&id| mark(&mut needed, id as u32));
                    let mut some = std::vec![f32::NAN; rows];
                    let mut columns = Columns::new(&mut some, rows);
                    run_needed(kernels, &product, &needed, &input, 0..view.shape.tiles, &mut columns);
                    for (row, (some, whole)) in some.iter().zip(&whole).enumerate() {
                        let tile = row / layout.rows() * layout.rows();
                        let computed = ids.iter().any(|id| (tile..tile + layout.rows()).contains(id));
                        let expected = if computed { *whole } else { f32::NEG_INFINITY };
                        assert_eq!(some.to_bits(), expected.to_bits(), "{}, {layout:?}, row {row}", kernels.name);
                    }
                }
            }
        }
    }
}

#[test]
fn ranges_of_sets() {
    let mut set = [0; 3];
    [0, 31, 40, 95].iter().for_each(|&id| mark(&mut set, id));
    for start in 0..100 {
        for end in start..100 {
            let expected = [0, 31, 40, 95].iter().any(|id| (start..end).contains(id));
            assert_eq!(has_any(&set, start..end), expected, "{start}..{end}");
        }
    }
}
