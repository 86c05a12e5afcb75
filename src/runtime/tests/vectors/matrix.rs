//! Matrices in both storages and every layout, and the largest sums of any kernel.

use std::format;
use std::vec;
use std::vec::Vec;

use super::packer::Integers;
use super::{Differences, floats, numbers, section};
use crate::kernels::{Factors, Rows, SCALAR, Sums, scalar};
use crate::layout::{Layout, Storage};
use crate::numerics::quantize;

fn small(values: Vec<i64>) -> Vec<i8> {
    values.into_iter().map(|value| i8::try_from(value).expect("a byte")).collect()
}

/// Rows of f32 to int8, each with its scale.
fn quantize_rows(x: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
    let mut q = vec![0; x.len()];
    let rows = x.chunks_exact(width).zip(q.chunks_exact_mut(width));
    let scales = rows.map(|(x, q)| quantize(x, q).expect("small values")).collect();
    (q, scales)
}

/// The row `embedding_row_3_times_8`, an embedding scaled by a factor, is left out: it belongs to a model family that
/// the runtime does not have yet.
fn check(name: &str, storage: Storage) {
    let case = section(&format!("/ops/matrix {name}"));
    let shape = numbers(&case["weights"]["shape"]);
    let (rows, columns) = (shape[0] as usize, shape[1] as usize);
    // The integers of w4 may include the columns that pad the last group.
    let values = case["q"].as_array().expect("rows").iter().flat_map(|row| {
        let mut row = small(numbers(row));
        assert!(row.split_off(columns).iter().all(|&padding| padding == 0));
        row
    });
    let matrix = Integers {
        storage,
        rows,
        columns,
        values: values.collect(),
        multipliers: case.get("mult").map(|mult| small(numbers(mult))).unwrap_or_default(),
        scales: floats(&case["row_scale"]),
    };
    let mut differences = Differences::default();
    if storage == Storage::W8 {
        // A row of w8 is quantized as an activation is.
        let (q, scales) = quantize_rows(&floats(&case["weights"]), columns);
        differences.list("weights", &q, &matrix.values);
        differences.floats("row scales", &scales, &case["row_scale"]);
    }
    let (tokens, scales) = quantize_rows(&floats(&case["x"]), columns);
    let bias = floats(&case["bias"]);
    for layout in Layout::ALL {
        let mut y = matrix.multiply(layout, &tokens, &scales);
        for row in y.chunks_exact_mut(rows) {
            row.iter_mut().zip(&bias).for_each(|(value, bias)| *value += bias);
        }
        differences.floats(format!("{layout:?}: y"), &y, &case["y"]);
        let bytes = matrix.pack(layout);
        let mut row = vec![f32::NAN; columns];
        scalar::row(&matrix.matrix(layout, &bytes), 3, &mut row);
        differences.floats(format!("{layout:?}: row 3"), &row, &case["embedding_row_3"]);
    }
    differences.none();
}

#[test]
fn matrices_w8() {
    check("w8", Storage::W8);
}

#[test]
fn matrices_w4() {
    check("w4.g32", Storage::W4G32);
}

/// A matrix of equal values whose scales are 1, with the sum of a row.
fn uniform(storage: Storage, columns: usize, value: i8, multiplier: i8, activation: i8) -> (Integers, Vec<i8>, i64) {
    let groups = storage.def().group.map_or(0, |group| columns.div_ceil(group));
    let matrix = Integers {
        storage,
        rows: 1,
        columns,
        values: vec![value; columns],
        multipliers: vec![multiplier; groups],
        scales: vec![1.0],
    };
    let tokens = vec![activation; columns];
    let sum = (0..columns).map(|column| matrix.integer(0, column) * i64::from(tokens[column])).sum();
    (matrix, tokens, sum)
}

#[test]
fn largest_accumulators() {
    let case = section("/ops/largest_accumulators");
    let expected = |name: &str| case[name].as_i64().unwrap_or_else(|| panic!("no {name}"));
    let (w4_stated, w8_stated) = (expected("w4.g32, K 16640, q -8, mult 127, a 127"), expected("w8, K 133144"));
    let mut differences = Differences::default();
    // (storage, columns, value, multiplier, activation), and the stated sum where the vectors have one.
    let (w8, w4) = (Storage::W8, Storage::W4G32);
    let (w8_most, w4_most) = (w8.max_columns(), w4.max_columns());
    let (w4g64, w3) = (Storage::W4G64, Storage::W3G32);
    let cases = [
        (w4g64, w4g64.max_columns(), -8, -127, 127, None),
        (w3, w3.max_columns(), -4, 127, 127, None),
        (w3, w3.max_columns(), -4, 127, -127, None),
        (w4, 16_640, -8, 127, 127, Some(w4_stated)),
        (w4, 16_640, -8, -127, 127, Some(-w4_stated)),
        (w4, w4_most, -8, 127, 127, None),
        (w4, w4_most, -8, 127, -127, None),
        (w4, w4_most, 7, 127, 127, None),
        (w8, 133_144, 127, 1, 127, Some(w8_stated)),
        (w8, 133_144, -127, 1, 127, Some(-w8_stated)),
        (w8, w8_most, 127, 1, 127, None),
        (w8, w8_most, 127, 1, -127, None),
    ];
    for (storage, columns, value, multiplier, activation, stated) in cases {
        let about = format!("{storage:?}, K {columns}, q {value}, mult {multiplier}, a {activation}");
        let (matrix, tokens, sum) = uniform(storage, columns, value, multiplier, activation);
        differences.value(format!("{about}: sum"), sum, stated.unwrap_or(sum));
        differences.value(format!("{about}: fits in i32"), i32::try_from(sum).is_ok(), true);
        for layout in Layout::ALL {
            // The sum leaves the kernel as f32: a sum that wrapped has another sign or size.
            let y = matrix.multiply(layout, &tokens, &[1.0]);
            differences.list(format!("{about}, {layout:?}"), &y, &[sum as f32]);
        }
    }
    // The bounds are not larger than the rule "every sum in i32" allows, and in w4 the next group would break it.
    let most = |per_column: i64| (i64::from(i32::MAX) / per_column) as usize;
    differences.value("w8 bound", w8_most <= most(127 * 127) && most(127 * 127) == 133_144, true);
    for (storage, per_column) in [(w4, 8 * 127 * 127), (w4g64, 8 * 127 * 127), (w3, 4 * 127 * 127)] {
        let group = storage.def().group.expect("it has multipliers");
        differences.value(format!("{storage:?} bound"), most(per_column) / group * group, storage.max_columns());
    }

    let largest = [127i8; 256];
    let dot = |query: &[i8], key: &[i8]| {
        let mut score = [0u32];
        (SCALAR.scores)(Rows { values: key, scales: &[1.0] }, query, 1.0, &mut score);
        f32::from_bits(score[0]) as i64
    };
    differences.value("qk", dot(&largest, &largest), expected("qk, head_dim 256"));
    differences.value("-qk", dot(&largest, &[-127; 256]), -expected("qk, head_dim 256"));
    // Weights of the largest probability: 2^24 · 1 · ratio.
    for (name, weight, tokens) in [("pv, 1024 tokens", 16_383, 1024), ("pv plane, 32768 tokens", 127, 32_768)] {
        for sign in [1i8, -1] {
            let (values, scales) = (vec![sign * 127; 5 * tokens], vec![1.0; tokens]);
            let (weights, ratio) = (vec![1u32 << 24; tokens], weight as f32 / 16_777_216.0);
            let (mut block, mut total, mut out) = ([0; 5], [0; 5], [0.0; 5]);
            let values = Rows { values: &values, scales: &scales };
            let sums = Sums { block: &mut block, total: &mut total };
            (SCALAR.mix)(values, &weights, Factors { ratio, back: 1.0 }, sums, &mut out);
            let expected = expected(name) * i64::from(sign);
            differences.list(format!("{name}, sign {sign}"), &total, &[expected; 5]);
            differences.list(format!("{name}, sign {sign}: f32"), &out, &[expected as f32; 5]);
        }
    }
    differences.none();
}
