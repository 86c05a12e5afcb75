//! Addresses of every storage in every layout: distinct, full, and those of docs/format.md.

use super::*;

#[test]
fn addresses_of_a_tile_are_distinct_and_fill_its_values() {
    for layout in Layout::ALL {
        assert_eq!(Layout::from_id(layout as u8), Some(layout));
        assert_eq!(Layout::from_name(layout.name()), Some(layout));
        for storage in [Storage::W8, Storage::W4G32, Storage::W4G64] {
            let shape = TileShape::new(storage, layout, layout.rows(), 70).expect("small");
            assert_eq!(shape.blocks, 3);
            let slots = if storage == Storage::W8 { 1 } else { 2 };
            let mut seen = [0u8; 16 * 96];
            for row in 0..layout.rows() {
                for column in 0..96 {
                    let (offset, high) = shape.value_offset(row, column);
                    seen[offset] += if high { 16 } else { 1 };
                }
            }
            let full = if slots == 1 { 1 } else { 17 };
            assert!(seen[..shape.value_bytes].iter().all(|&n| n == full), "{layout:?} {storage:?}");
            assert!(seen[shape.value_bytes..].iter().all(|&n| n == 0), "{layout:?} {storage:?}");
        }
    }
}

/// Every bit of the planes belongs to exactly one three-bit value, in every layout, and is read back.
#[test]
fn planes_of_three_bits_are_distinct_and_full() {
    for layout in Layout::ALL {
        let shape = TileShape::new(Storage::W3G32, layout, layout.rows(), 70).expect("small");
        assert_eq!((shape.blocks, shape.groups, shape.stored_columns()), (3, 3, 96));
        assert_eq!(shape.value_bytes, layout.rows() * 96 * 3 / 8);
        let mut tile = [0u8; 16 * 96];
        for row in 0..layout.rows() {
            for column in 0..96 {
                let [(low, shift), (sign, bit)] = shape.plane_offsets(row, column);
                assert_eq!((tile[low] >> shift & 3, tile[sign] >> bit & 1), (0, 0), "{layout:?}");
                shape.put_value(&mut tile, row, column, -1);
                assert_eq!(shape.value(&tile, row, column), -1, "{layout:?}");
            }
        }
        assert!(tile[..shape.value_bytes].iter().all(|&byte| byte == 0xff), "{layout:?}");
        assert!(tile[shape.value_bytes..].iter().all(|&byte| byte == 0), "{layout:?}");
    }
}

#[test]
fn every_value_of_a_range_is_put_and_read() {
    for def in STORAGES.iter().filter(|def| def.coding != Coding::F32) {
        assert_eq!(Storage::from_id(def.storage as u8), Some(def.storage));
        for layout in Layout::ALL {
            let shape = TileShape::new(def.storage, layout, layout.rows(), 64).expect("small");
            for value in def.range.0..=def.range.1 {
                let mut tile = [0u8; 16 * 96];
                shape.put_value(&mut tile, 1, 33 % shape.stored_columns(), value);
                assert_eq!(shape.value(&tile, 1, 33 % shape.stored_columns()), value, "{layout:?} {}", def.name);
            }
        }
    }
    assert_eq!(Storage::from_id(STORAGES.len() as u8), None);
}

#[test]
fn sparse_addresses_are_distinct_and_sizes_those_of_the_format() {
    for layout in Layout::ALL {
        for (storage, columns, stored) in [
            (Storage::W8S24, 68, 48),
            (Storage::W8S24, 256, 128),
            (Storage::W4G32S24, 68, 64),
            (Storage::W4G32S24, 256, 128),
        ] {
            let shape = TileShape::new(storage, layout, layout.rows(), columns).expect("small");
            assert_eq!(shape.stored_columns(), stored, "{layout:?} {storage:?}");
            let mut seen = [0u8; 16 * 256];
            for row in 0..layout.rows() {
                for kept in 0..stored {
                    let (offset, high) = shape.value_offset(row, kept);
                    assert!(offset < shape.value_bytes);
                    seen[offset] += if high { 16 } else { 1 };
                }
                for kept in 0..shape.blocks * KEPT {
                    let (offset, shift) = shape.index_offset(row, kept);
                    assert_eq!(seen[offset] >> shift & 3, 0, "{layout:?} {storage:?}");
                    seen[offset] |= 3 << shift;
                }
            }
            let full = if storage == Storage::W8S24 { 1 } else { 17 };
            assert!(seen[..shape.value_bytes].iter().all(|&n| n == full), "{layout:?} {storage:?}");
            let planes = &seen[shape.value_bytes..][..shape.plane_bytes];
            assert!(planes.iter().all(|&bits| bits == 0xff), "{layout:?} {storage:?}");
            assert!(seen[shape.value_bytes + shape.plane_bytes..].iter().all(|&n| n == 0), "{layout:?} {storage:?}");
            if columns == 256 {
                // 5 and 3.25 bits a weight besides row scales and the padding of the tile.
                let bits = 8 * (shape.value_bytes + shape.plane_bytes + shape.multiplier_bytes);
                let quarters = if storage == Storage::W8S24 { 20 } else { 13 };
                assert_eq!(4 * bits, quarters * layout.rows() * columns, "{layout:?} {storage:?}");
            }
        }
        assert_eq!(TileShape::new(Storage::W8S24, layout, 8, 70), None);
    }
}

/// The example of docs/format.md: row 9, column 37 of a 10 × 40 matrix, the second one kept of its four.
#[test]
fn sparse_addresses_are_those_of_the_document() {
    let address = |storage: Storage| {
        let shape = TileShape::new(storage, Layout::R8K4Offset8, 10, 40).expect("small");
        let tile = shape.stride;
        let ((value, high), (index, shift)) = (shape.value_offset(1, 19), shape.index_offset(1, 19));
        let multiplier = tile + shape.multiplier_offset(1, 1);
        (shape.bytes(), tile + value, high, tile + index, shift, multiplier, tile + shape.scale_offset(1))
    };
    let (bytes, value, high, index, shift, _, scale) = address(Storage::W8S24);
    assert_eq!((bytes, value, high, index, shift, scale), (768, 519, false, 679, 0, 708));
    assert_eq!(address(Storage::W4G32S24), (512, 263, true, 423, 0, 457, 468));
}

/// The same element where a multiplier spans 64 columns, and in three bits.
#[test]
fn addresses_of_groups_of_64_and_of_planes_are_those_of_the_document() {
    let shape = |storage| TileShape::new(storage, Layout::R8K4Offset8, 10, 40).expect("small");
    let w4g64 = shape(Storage::W4G64);
    let tile = w4g64.stride;
    let (value, high) = w4g64.value_offset(1, 37);
    assert_eq!((w4g64.bytes(), tile + value, high), (640, 485, false));
    assert_eq!((tile + w4g64.multiplier_offset(1, 0), tile + w4g64.scale_offset(1)), (577, 588));
    let planes = shape(Storage::W3G32);
    let tile = planes.stride;
    let [(low, shift), (sign, bit)] = planes.plane_offsets(1, 37);
    assert_eq!((planes.bytes(), tile + low, shift, tile + sign, bit), (512, 357, 2, 421, 1));
    assert_eq!((tile + planes.multiplier_offset(1, 1), tile + planes.scale_offset(1)), (457, 468));
}

#[test]
fn sizes_that_overflow_are_refused() {
    assert_eq!(tensor_bytes(Storage::W8, Layout::R8K4, usize::MAX, 64), None);
    assert_eq!(tensor_bytes(Storage::W4G32, Layout::R8K4, 8, usize::MAX), None);
    assert_eq!(tensor_bytes(Storage::W4G64, Layout::R8K4, 8, usize::MAX), None);
    assert_eq!(tensor_bytes(Storage::W3G32, Layout::R8K4, 8, usize::MAX), None);
    assert_eq!(tensor_bytes(Storage::F32, Layout::R8K4, usize::MAX / 2, 8), None);
    for layout in Layout::ALL {
        for storage in [Storage::W8S24, Storage::W4G32S24] {
            assert_eq!(tensor_bytes(storage, layout, 8, usize::MAX - 3), None);
            assert_eq!(tensor_bytes(storage, layout, usize::MAX, 64), None);
        }
    }
}
