//! Digests of what the loops compute, recorded once: whatever runs these tests (vectors of AVX-512, AVX2, NEON, or none) gives
//! these bits.

use crate::doubles::{compared_exponentials, sum_of_exponentials};
use crate::factor::{Factor, solve_rows};
use crate::lanes::{dot, erf, exp, largest, sigmoid, sum, vectorised};
use crate::product::{Left, Matrix, Output, Right, Value, multiply};
use crate::rounding::layerwise::{Inputs, round};
use crate::rounding::{Grid, Rows, Scales, search};
use slm_runtime::sample::random_u64;
use slm_runtime::sha256::Sha256;

/// Even draws from [−½, ½).
fn random(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|n| (random_u64(seed, n) >> 40) as f32 / (1 << 24) as f32 - 0.5).collect()
}

fn digest(values: impl IntoIterator<Item = u64>) -> String {
    let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
    Sha256::digest(&bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bits(values: &[f32]) -> impl Iterator<Item = u64> + '_ {
    values.iter().map(|value| u64::from(value.to_bits()))
}

fn bits_of_doubles(values: &[f64]) -> impl Iterator<Item = u64> + '_ {
    values.iter().map(|value| value.to_bits())
}

/// Shapes (m, k, n): within a tile, across tiles, with rests, along a k of several blocks.
const SHAPES: [[usize; 3]; 4] = [[1, 70, 33], [13, 513, 97], [40, 1300, 64], [200, 64, 260]];

fn products<T: Value>(values: impl Fn(u64, usize) -> Vec<T>, bits: impl Fn(&[T]) -> Vec<u64>) -> String {
    let mut all = Vec::new();
    for [m, k, n] in SHAPES {
        let (a, b) = (values(1, m * k), values(2, k * n));
        let lefts = [Left::Rows(Matrix::new(&a, k)), Left::Columns(Matrix::new(&a, m))];
        let rights = [Right::Rows(Matrix::new(&b, n)), Right::Columns(Matrix::new(&b, k))];
        for (left, right) in lefts.into_iter().flat_map(|left| rights.into_iter().map(move |right| (left, right))) {
            let mut out = values(3, m * n);
            multiply(Output::over(&mut out, n), left, right);
            multiply(Output::onto(&mut out, n), left, right);
            all.extend(bits(&out));
        }
    }
    digest(all)
}

#[test]
fn products_have_the_recorded_bits() {
    let doubles = |seed, count| random(seed, count).into_iter().map(f64::from).map(|x| x / 3.0).collect();
    let all = [
        products(random, |values| bits(values).collect()),
        products(doubles, |values| bits_of_doubles(values).collect()),
    ];
    assert_eq!(all, ["06d55875f3e3352b", "48d1a6ff99671ffc"]);
}

/// H of correlated inputs, (columns, columns).
fn gram(columns: usize) -> Vec<f64> {
    let x: Vec<f64> = random(9, 3 * columns * columns).into_iter().map(f64::from).collect();
    let mut gram = vec![0.0; columns * columns];
    multiply(
        Output::over(&mut gram, columns),
        Left::Columns(Matrix::new(&x, columns)),
        Right::Rows(Matrix::new(&x, columns)),
    );
    (0..columns).for_each(|n| gram[n * (columns + 1)] += 0.5);
    gram
}

#[test]
fn factors_have_the_recorded_bits() {
    let columns = 300;
    let factor = Factor::new(gram(columns), columns).expect("positive definite");
    let inverse = factor.inverse();
    let mut rows: Vec<f64> = random(4, 5 * columns).into_iter().map(f64::from).collect();
    let mut one = rows[..columns].to_vec();
    factor.solve(&mut one);
    solve_rows(&inverse, &mut rows);
    let all = [factor.lower(), &inverse, &one, &rows].map(|values| digest(bits_of_doubles(values)));
    assert_eq!(all.join(" "), "7fef6d266dc5756d 58ac7eee9ca735af dbd392d9d64c4670 814422a9cbff9971");
}

#[test]
fn functions_have_the_recorded_bits() {
    let x: Vec<f32> = random(5, 20_003).into_iter().map(|x| x * 200.0).collect();
    let all = vectorised(
        #[inline(always)]
        || {
            let each = |function: fn(f32) -> f32, factor: f32| -> Vec<f32> {
                x.iter().map(|x| function(x * factor)).collect()
            };
            [each(exp, 1.0), each(sigmoid, 0.2), each(erf, 0.05), vec![sum(&x), dot(&x, &x[1..20_000]), largest(&x)]]
        },
    );
    let mut all = all.map(|values| digest(bits(&values))).join(" ");
    let [compared, sum] =
        [compared_exponentials([&x[1..], &x[..20_002]], [100.0, 99.0]).to_vec(), vec![sum_of_exponentials(&x, 98.0)]];
    all = [all, digest(bits_of_doubles(&compared)), digest(bits_of_doubles(&sum))].join(" ");
    assert_eq!(
        all,
        "a945a026dceefd30 2073aabb44ebced2 c511a04241e187ca 9b9a0a02388bc8da e5fa8f96237e4221 ed234081dda300e1"
    );
}

#[test]
fn roundings_have_the_recorded_bits() {
    let (count, columns) = (21, 300);
    let weights = random(6, count * columns);
    let gram = gram(columns);
    let order: Vec<usize> = (0..columns).map(|n| (n * 7 + 3) % columns).collect();
    let place = |n: usize| order[columns - 1 - n];
    let reversed = (0..columns * columns).map(|n| gram[place(n / columns) * columns + place(n % columns)]);
    let inverse = Factor::new(reversed.collect(), columns).expect("positive definite").inverse();
    let upper: Vec<f32> = inverse.iter().rev().map(|value| *value as f32).collect();
    let gram: Vec<f32> = gram.iter().map(|value| *value as f32).collect();
    let importance: Vec<f32> = (0..columns).map(|n| gram[n * (columns + 1)]).collect();
    let grids = [
        Grid { limits: (-8.0, 7.0), group: Some(32), most: 127.0, scales: Scales::Any },
        Grid { limits: (-127.0, 127.0), group: None, most: 127.0, scales: Scales::Any },
    ];
    let all = grids.map(|grid| {
        let mut plain = Rows { grid, columns, scales: vec![], multipliers: vec![], integers: vec![] };
        for row in weights.chunks(columns) {
            let row = search::round_row(row, &importance, grid);
            plain.scales.push(row.scale);
            plain.multipliers.extend(row.multipliers.iter().map(|m| f32::from(*m)));
            plain.integers.extend(row.integers.iter().map(|q| f32::from(*q)));
        }
        let searched = [&plain.scales, &plain.multipliers, &plain.integers].map(|values| digest(bits(values)));
        let inputs = Inputs { gram: &gram, upper: &upper, order: &order };
        let solved = round(&weights, plain, inputs, None);
        let rows = &solved.rows;
        let found = [&rows.scales, &rows.multipliers, &rows.integers].map(|values| digest(bits(values)));
        let errors = [&solved.errors, &solved.plain_errors].map(|values| digest(bits_of_doubles(values)));
        [searched.join(" "), found.join(" "), errors.join(" ")].join(" ")
    });
    let expected = [
        "39e26b6035aec448 d4b415156a480c4d 4700985989c34f56 7b44de9415991a58 cd52914a010f86f0 e253b8513bcaecf9 2aba222855c40f75 \
         3fbc2f881af499ca",
        "98a5e5f8f6fdb426 e3b0c44298fc1c14 acff3cbf665ac26a 20b70533f18e7c23 e3b0c44298fc1c14 489b8488f2cb3f63 e036f672450b04f7 \
         ace024760f7e5bad",
    ];
    assert_eq!(all, expected);
}
