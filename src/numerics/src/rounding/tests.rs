use super::compensate::compensate;
use super::descend::descend;
use super::layerwise::{Inputs, energy, round};
use super::*;
use crate::factor::Factor;
use slm_runtime::sample::random_u64;

fn random(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|n| (random_u64(seed, n) >> 40) as f32 / (1 << 24) as f32 - 0.5).collect()
}

/// H of inputs whose neighbouring channels move together, with mean diagonal near 1, U and the order of the columns.
fn inputs(columns: usize) -> (Vec<f32>, Vec<f32>, Vec<usize>) {
    let x = random(9, 600 * (columns + 3));
    let mut gram = vec![0.0f64; columns * columns];
    for token in x.chunks_exact(columns + 3) {
        let x: Vec<f64> = (0..columns).map(|j| token[j..j + 4].iter().map(|v| f64::from(*v)).sum()).collect();
        (0..columns * columns).for_each(|n| gram[n] += x[n / columns] * x[n % columns] / 200.0);
    }
    (0..columns).for_each(|n| gram[n * (columns + 1)] += 0.01);
    let order: Vec<usize> = (0..columns).map(|n| (n * 7 + 3) % columns).collect();
    let place = |n: usize| order[columns - 1 - n];
    let reversed = (0..columns * columns).map(|n| gram[place(n / columns) * columns + place(n % columns)]);
    let inverse = Factor::new(reversed.collect(), columns).expect("positive definite").inverse();
    let upper = inverse.iter().rev().map(|value| *value as f32).collect();
    (gram.iter().map(|value| *value as f32).collect(), upper, order)
}

const GRIDS: [Grid; 2] = [
    Grid { limits: (-8.0, 7.0), group: Some(32), most: 127.0, scales: Scales::Any },
    Grid { limits: (-127.0, 127.0), group: None, most: 127.0, scales: Scales::Any },
];

fn plain(weights: &[f32], columns: usize, grid: Grid) -> Rows {
    let importance = vec![1.0; columns];
    let mut rows = Rows { grid, columns, scales: vec![], multipliers: vec![], integers: vec![] };
    for row in weights.chunks(columns) {
        let row = search::round_row(row, &importance, grid);
        rows.scales.push(row.scale);
        rows.multipliers.extend(row.multipliers.iter().map(|m| f32::from(*m)));
        rows.integers.extend(row.integers.iter().map(|q| f32::from(*q)));
    }
    rows
}

/// One column after the other, one row at a time.
#[test]
fn compensation_is_the_plain_loop_bit_for_bit() {
    let (count, columns) = (19, 300);
    let (_, upper, order) = inputs(columns);
    let weights = random(1, count * columns);
    let held: Vec<bool> = (0..count * columns).map(|n| n % 5 == 0).collect();
    for (grid, held) in GRIDS.into_iter().flat_map(|grid| [(grid, None), (grid, Some(held.as_slice()))]) {
        let mut rows = plain(&weights, columns, grid);
        let mut wanted = rows.clone();
        for row in 0..count {
            let mut left: Vec<f32> = order.iter().map(|&column| weights[row * columns + column]).collect();
            for (place, &column) in order.iter().enumerate() {
                let factors = &upper[place * columns..][..columns];
                let (weight, step) = (left[place], rows.step(row, column));
                let zero = held.is_some_and(|held| held[row * columns + column]) || step == 0.0;
                let integer = if zero { 0.0 } else { nearest(weight / step, grid.limits) };
                wanted.integers[row * columns + column] = integer;
                let step = if zero { 0.0 } else { step };
                let error = -((weight - step * integer) * (1.0 / factors[place]));
                (place + 1..columns).for_each(|k| left[k] = factors[k].mul_add(error, left[k]));
            }
        }
        compensate(&weights, &mut rows, (&upper, &order), held);
        assert_eq!(rows, wanted);
    }
}

#[test]
fn descent_lowers_the_error_and_knows_what_is_left() {
    let (count, columns) = (19, 300);
    let (gram, _, _) = inputs(columns);
    let weights = random(2, count * columns);
    let mut weights_gram = vec![0.0; weights.len()];
    layerwise::times_gram(&weights, &gram, &mut weights_gram);
    for grid in GRIDS {
        let mut rows = plain(&weights, columns, grid);
        let miss = |rows: &Rows| {
            let mut out = vec![0.0; weights.len()];
            rows.weights(&mut out);
            weights.iter().zip(out).map(|(w, r)| w - r).collect::<Vec<f32>>()
        };
        let before = energy(&miss(&rows), &gram);
        let mut product = vec![0.0; weights.len()];
        descend(&weights, &weights_gram, &mut rows, &gram, None, &mut product);
        let after = energy(&miss(&rows), &gram);
        assert!(before.iter().zip(&after).all(|(before, after)| after < before), "{grid:?}: {before:?} {after:?}");
        assert!(after.iter().sum::<f64>() < 0.8 * before.iter().sum::<f64>(), "{grid:?}");
        let mut exact = vec![0.0; weights.len()];
        layerwise::times_gram(&miss(&rows), &gram, &mut exact);
        assert!(product.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-4));
        let (low, high) = grid.limits;
        assert!(rows.integers.iter().all(|q| q.fract() == 0.0 && (low..=high).contains(q)));
        assert!(rows.multipliers.iter().all(|m| m.fract() == 0.0 && *m != 0.0 && m.abs() <= grid.most));
    }
}

/// A row is rounded as if it were alone, whatever lies beside it and however many threads there are.
#[test]
fn rows_are_independent() {
    let (count, columns) = (37, 200);
    let (gram, upper, order) = inputs(columns);
    let inputs = Inputs { gram: &gram, upper: &upper, order: &order };
    let weights = random(3, count * columns);
    let held: Vec<bool> = (0..count * columns).map(|n| n % 4 < 2).collect();
    let masked: Vec<f32> = weights.iter().zip(&held).map(|(w, held)| if *held { 0.0 } else { *w }).collect();
    for grid in GRIDS {
        let all = round(&weights, plain(&masked, columns, grid), inputs, Some(&held));
        assert!(all.rows.integers.iter().zip(&held).all(|(q, held)| !held || *q == 0.0), "{grid:?}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        let again = pool.install(|| round(&weights, plain(&masked, columns, grid), inputs, Some(&held)));
        assert_eq!(all, again);
        for row in [0, 15, 16, 36] {
            let of_row = row * columns..(row + 1) * columns;
            let masked = plain(&masked[of_row.clone()], columns, grid);
            let alone = round(&weights[of_row.clone()], masked, inputs, Some(&held[of_row]));
            assert_eq!(alone.rows, all.rows.selected(&[row]), "{row}");
            assert_eq!(alone.errors[0], all.errors[row]);
        }
    }
}

#[test]
fn nearest_is_rounding_to_even_within_bounds() {
    for n in -40..40 {
        let value = n as f32 / 4.0;
        assert_eq!(nearest(value, (-8.0, 7.0)), value.round_ties_even().clamp(-8.0, 7.0), "{value}");
    }
    assert_eq!((nearest(f32::INFINITY, (-8.0, 7.0)), nearest(-1e30, (-127.0, 127.0))), (7.0, -127.0));
}
