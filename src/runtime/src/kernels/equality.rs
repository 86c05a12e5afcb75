//! Every table this CPU can run equals the scalar one with `==`: over random shapes with odd numbers of rows, every
//! tail and every number of tokens, at the extremes of values, and at the bounds on columns. A table that the CPU
//! cannot run is named on stderr.

use std::format;
use std::io::Write;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::columns::Columns;
use super::tests::{Draws, legal, storages};
use super::{Factors, Kernels, Rows, SCALAR, Sums, Width, available};
use crate::format::spec::MAX_CHUNK;
use crate::layout::{BLOCK_COLUMNS, Layout, Storage};
use crate::numerics::{Curve, F32Bytes, Rotary};
use crate::vectors::packer::{Inputs, Integers};

/// Tables to compare with the scalar one; on x86 a missing table is reported on stderr.
fn tables() -> Vec<&'static Kernels> {
    let found: Vec<_> = available().filter(|table| table.name != SCALAR.name).collect();
    #[cfg(target_arch = "x86_64")]
    let found: Vec<_> = found.into_iter().chain(super::x86::narrow_vnni()).collect();
    #[cfg(target_arch = "x86_64")]
    for name in ["avx2", "avx-vnni", "avx512-vnni"] {
        if !found.iter().any(|table| table.name == name) {
            // Straight to the stream and in one piece: `eprintln!` is captured when a test passes.
            let line = format!("not run: this CPU cannot run the kernels {name}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
    found
}

impl Draws {
    /// Activations as `quantize` makes them: -128 does not occur.
    fn activations(&mut self, count: usize) -> Vec<i8> {
        self.bytes(count).into_iter().map(|value| value.max(-127)).collect()
    }

    /// Second planes of 16-bit activations.
    fn low_plane(&mut self, count: usize) -> Vec<i8> {
        self.bytes(count).into_iter().map(|value| (value >> 1).clamp(-64, 63)).collect()
    }

    /// Values of a row: most of similar magnitude, some far from it, some zero.
    fn reals(&mut self, count: usize) -> Vec<f32> {
        let real = |draw: u64| {
            let exponent = 100 + (draw >> 40) as u32 % 40;
            match draw % 16 {
                0 => 0.0,
                1 => -0.0,
                _ => f32::from_bits(((draw >> 63) as u32 * 0x8000_0000) | (exponent << 23) | (draw as u32 & 0x7f_ffff)),
            }
        };
        (0..count).map(|_| real(self.next())).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Multiplies a matrix and its inputs with every table: all tiles at once, and range by range.
fn compare(matrix: &Integers, inputs: &Inputs, about: &str) {
    for layout in Layout::ALL {
        let packed = matrix.pack(layout);
        let view = matrix.matrix(layout, &packed);
        let expected = bits(&inputs.through(&SCALAR, &view));
        for table in tables().into_iter().filter(|table| table.layout.is_none_or(|own| own == layout)) {
            let about = format!("{about}, {}, {layout:?}", table.name);
            assert_eq!(bits(&inputs.through(table, &view)), expected, "{about}");
            let tokens = inputs.activations().tokens();
            let mut output = vec![f32::NAN; tokens * view.rows];
            let mut columns = Columns::new(&mut output, view.rows);
            for size in [1, 2, 3] {
                for start in (0..view.shape.tiles).step_by(size) {
                    let tiles = start..(start + size).min(view.shape.tiles);
                    let mut part = columns.part(view.rows_of(&tiles));
                    (table.multiply)(&view, &inputs.activations(), tiles, &mut part);
                }
            }
            assert_eq!(bits(&output), expected, "{about}, in parts");
        }
    }
}

/// Rows of activations of a width.
fn rows(draws: &mut Draws, tokens: usize, columns: usize, width: Width) -> Vec<i8> {
    let mut rows = Vec::new();
    for _ in 0..tokens {
        rows.extend(draws.activations(columns));
        if width == Width::Bits16 {
            rows.extend(draws.low_plane(columns));
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_of_random_shapes(n in 1usize..=40, k in 1usize..=700, tokens in 1usize..=70, one: bool, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        let tokens = if one { 1 } else { tokens.min(MAX_CHUNK) };
        for storage in storages() {
            let k = legal(storage, k);
            let matrix = draws.matrix(storage, n, k);
            for width in [Width::Bits8, Width::Bits16] {
                let (rows, scales) = (rows(&mut draws, tokens, k, width), draws.scales(tokens));
                let about = format!("{storage:?}, {n} x {k}, {tokens} tokens, {width:?}");
                compare(&matrix, &Inputs::new(&rows, k, &scales, width), &about);
            }
        }
    }

    #[test]
    fn products_of_few_rows(n in 1usize..=40, k in 1usize..=700, tokens in 1usize..=9, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        for storage in storages() {
            let k = legal(storage, k);
            let matrix = draws.matrix(storage, n, k);
            for width in [Width::Bits8, Width::Bits16] {
                let (rows, scales) = (rows(&mut draws, tokens, k, width), draws.scales(tokens));
                let about = format!("{storage:?}, {n} x {k}, {tokens} tokens, {width:?}");
                compare(&matrix, &Inputs::new(&rows, k, &scales, width), &about);
            }
        }
    }

    #[test]
    fn rows_of_any_length(length in 1usize..=400, seed: u64) {
        let mut draws = Draws { seed, index: 0 };
        let (x, y, gain) = (draws.reals(length), draws.reals(length), draws.reals(length));
        let (gain, offset): (Vec<u8>, Vec<u8>) =
            gain.iter().zip(&y).flat_map(|(g, o)| g.to_le_bytes().into_iter().zip(o.to_le_bytes())).unzip();
        let (gain, offset) = (F32Bytes::new(&gain), F32Bytes::new(&offset));
        let points: Vec<u8> = (0..513i32).flat_map(|i| ((1 << 23) - (i * 16_369) + i % 7).to_le_bytes()).collect();
        let curve = Curve::new(&points, 5).expect("a sound curve");
        let padded = length.next_multiple_of(BLOCK_COLUMNS);
        type Entry<'e> = (&'e str, &'e dyn Fn(&Kernels) -> (Vec<u32>, Vec<i8>, Vec<i32>, bool));
        let quantized = |table: &Kernels, a16: bool| {
            let planes = if a16 { 2 } else { 1 };
            let (mut q, mut offsets) = (vec![99; padded * planes], vec![99; padded * planes / BLOCK_COLUMNS]);
            let entry = if a16 { table.quantize_a16 } else { table.quantize };
            let scale = entry(&x, &mut q, &mut offsets);
            (vec![scale.map_or(0, f32::to_bits)], q, offsets, scale.is_ok())
        };
        let on_row = |run: &dyn Fn(&mut [f32]) -> bool| {
            let mut row = x.clone();
            let fine = run(&mut row);
            (bits(&row), Vec::new(), Vec::new(), fine)
        };
        let entries: [Entry<'_>; 8] = [
            ("quantize", &|table| quantized(table, false)),
            ("quantize_a16", &|table| quantized(table, true)),
            ("rms_norm", &|table| on_row(&|row| (table.rms_norm)(row, gain, 1e-5).is_ok())),
            ("layer_norm", &|table| on_row(&|row| (table.layer_norm)(row, gain, offset, 1e-5).is_ok())),
            ("activate", &|table| on_row(&|row| { (table.activate)(&curve, row); true })),
            ("gate", &|table| on_row(&|row| { (table.gate)(&curve, row, &y); true })),
            ("add", &|table| on_row(&|row| { (table.add)(row, &y); true })),
            ("rotate", &|table| on_row(&|row| {
                let half = row.len() / 2;
                let table_of = |values: &[f32]| -> Vec<u8> {
                    (0..64 * half).flat_map(|i| values[i % values.len()].to_le_bytes()).collect()
                };
                let (cos, sin) = (table_of(&x), table_of(&y));
                let (cos, sin) = (F32Bytes::new(&cos), F32Bytes::new(&sin));
                let rotary = Rotary { low_cos: cos, low_sin: sin, high_cos: sin, high_sin: cos, half };
                (table.rotate)(&rotary, &mut row[..2 * half], 67);
                true
            })),
        ];
        for (name, run) in entries {
            let expected = run(&SCALAR);
            for table in tables() {
                prop_assert_eq!(run(table), expected.clone(), "{} of {}", name, table.name);
            }
        }
    }

    #[test]
    fn attention_over_any_number_of_positions(
        width in prop_oneof![1usize..=80, Just(48), Just(64), Just(128), Just(256), Just(300)],
        seen in prop_oneof![1usize..=40, 1000usize..=1100, 2040usize..=2060],
        spare in 0usize..=3,
        seed: u64,
    ) {
        let mut draws = Draws { seed, index: 0 };
        let query = draws.activations(width);
        let keys = draws.activations((seen + spare) * width);
        let scales: Vec<f32> = draws.scales(seen + spare).iter().map(|scale| scale * 1e-3).collect();
        // The spare positions that follow in the cache must not affect the result.
        let rows = Rows { values: &keys, scales: &scales };
        let run = |table: &Kernels| {
            let mut scores = vec![0; seen];
            let top = (table.scores)(rows, &query, 0.37, &mut scores);
            let of_scores = scores.clone();
            let (total, largest) = (table.weights)(rows.scales, top, &mut scores);
            let factors = Factors { ratio: 16_383.0 / largest, back: 1.0 / 3.0 };
            let (mut block, mut sums, mut out) = (vec![7; width], vec![7; width], vec![7.0; width]);
            (table.mix)(rows, &scores, factors, Sums { block: &mut block, total: &mut sums }, &mut out);
            (top.to_bits(), of_scores, scores, total, largest.to_bits(), bits(&out))
        };
        let expected = run(&SCALAR);
        for table in tables() {
            prop_assert_eq!(run(table), expected.clone(), "{}", table.name);
        }
    }
}

/// All values at the ends of their ranges, for widths around the steps of the kernels and at the bounds on columns.
#[test]
fn products_of_extremes() {
    let most = |storage: Storage| storage.max_columns();
    let mut cases = Vec::new();
    for storage in storages() {
        for columns in [4, 32, 36, 256, 260, 288, 512, most(storage).min(16_640), most(storage)] {
            cases.push((storage, columns));
        }
    }
    for (storage, columns) in cases {
        let (group, range) = (storage.def().group, storage.def().range);
        for (value, multiplier, activation) in
            [(127, 127, 127), (-127, 127, 127), (127, -127, -127), (-127, -127, -127)]
        {
            let keep = |k: usize| !storage.is_sparse() || matches!(k % 4, 1 | 2);
            let value: i8 = if value > 0 { range.1 } else { range.0 };
            let groups = group.map_or(0, |group| columns.div_ceil(group));
            let matrix = Integers {
                storage,
                rows: 17,
                columns,
                values: (0..17 * columns).map(|i| if keep(i % columns) { value } else { 0 }).collect(),
                multipliers: vec![multiplier; 17 * groups],
                scales: vec![1.0; 17],
            };
            let about = format!("{storage:?}, K {columns}, {value} · {multiplier} · {activation}");
            let tokens: &[usize] = match columns {
                36 | 260 => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 17],
                ..1000 => &[1, 9],
                _ => &[1, 5],
            };
            for &tokens in tokens {
                let scales = vec![1.0; tokens];
                let narrow = Inputs::new(&vec![activation; tokens * columns], columns, &scales, Width::Bits8);
                // Four columns against the next four: the sums of half a group at their ends.
                let signs =
                    (0..tokens * columns).map(|i| if i % columns / 4 % 2 == 0 { activation } else { -activation });
                let opposed = Inputs::new(&signs.collect::<Vec<i8>>(), columns, &scales, Width::Bits8);
                // Both planes at their ends: 128 · 127 and the lowest second plane.
                let planes: Vec<i8> = (0..2 * tokens * columns)
                    .map(|i| if i / columns % 2 == 0 { activation } else { activation.clamp(-64, 63) })
                    .collect();
                let broad = Inputs::new(&planes, columns, &scales, Width::Bits16);
                for inputs in [narrow, opposed, broad] {
                    only(&matrix, &inputs, &about);
                }
            }
        }
    }
}

/// [`compare`] in each table's own layout, for large matrices.
fn only(matrix: &Integers, inputs: &Inputs, about: &str) {
    for table in tables() {
        let layout = table.layout.unwrap_or(Layout::R8K4Offset8);
        let packed = matrix.pack(layout);
        let view = matrix.matrix(layout, &packed);
        let about: String = format!("{about}, {} tokens, {}", inputs.activations().tokens(), table.name);
        assert_eq!(bits(&inputs.through(table, &view)), bits(&inputs.through(&SCALAR, &view)), "{about}");
    }
}

/// Non-finite rows are rejected and all-zero rows stay zero, in every table.
#[test]
fn every_table_rejects_non_finite_rows() {
    for table in tables().into_iter().chain([&SCALAR]) {
        let (mut q, mut offsets) = ([1i8; 32], [1; 1]);
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x5880_0000)] {
            let mut row = [1.0, bad, 2.0];
            assert!((table.quantize)(&row, &mut q, &mut offsets).is_err(), "{}", table.name);
            assert!((table.quantize_a16)(&row, &mut [0; 64], &mut [0; 2]).is_err(), "{}", table.name);
            assert!((table.rms_norm)(&mut row, F32Bytes::new(&[0; 12]), 1e-5).is_err(), "{}", table.name);
        }
        assert_eq!((table.quantize)(&[0.0; 5], &mut q, &mut offsets), Ok(0.0), "{}", table.name);
        assert_eq!((q, offsets), ([0; 32], [0]), "{}", table.name);
    }
}
