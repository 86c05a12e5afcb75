//! Times the parts of rounding a matrix of random weights: `rounding [ROWS COLUMNS]`, 2048 × 5632 where they are not given.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use slm_numerics::factor::{Factor, solve_rows};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::rounding::layerwise::{Inputs, TILE, round};
use slm_numerics::rounding::search::round_row;
use slm_numerics::rounding::{Grid, Rows, Scales};
use std::time::Instant;

fn timed<R>(what: &str, operations: f64, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:24} {seconds:8.2} s {:8.1} GFLOPS", operations / seconds / 1e9);
    result
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| draw()).collect()
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let (rows, columns) = (numbers.next().unwrap_or(2048), numbers.next().unwrap_or(5632));
    let (r, c) = (rows as f64, columns as f64);
    let tokens = 2048;
    let inputs = random(1, tokens * columns);
    let mut gram = vec![0.0f32; columns * columns];
    timed("second moments", 2.0 * tokens as f64 * c * c, || {
        let of_inputs = Matrix::new(&inputs, columns);
        multiply(Output::over(&mut gram, columns), Left::Columns(of_inputs), Right::Rows(of_inputs));
    });
    let mean = (0..columns).map(|n| f64::from(gram[n * (columns + 1)])).sum::<f64>() / c;
    let mut scaled: Vec<f64> = gram.iter().map(|value| f64::from(*value) / mean).collect();
    (0..columns).for_each(|n| scaled[n * (columns + 1)] += 0.01);
    gram.iter_mut().zip(&scaled).for_each(|(own, scaled)| *own = *scaled as f32);
    let factor = timed("factor, f64", c * c * c / 3.0, || Factor::new(scaled, columns)).expect("positive definite");
    let inverse = timed("inverse, f64", c * c * c / 3.0, || factor.inverse());
    let mut solved: Vec<f64> = random(2, rows * columns).iter().map(|value| f64::from(*value)).collect();
    timed("rows solved, f64", 2.0 * r * c * c, || solve_rows(&inverse, &mut solved));
    // What the factor is of does not change how long rounding takes: the order is that of the columns.
    let upper: Vec<f32> = inverse.iter().rev().map(|value| *value as f32).collect();
    let order: Vec<usize> = (0..columns).collect();
    let weights = random(3, rows * columns);
    let grid = Grid { limits: (-8.0, 7.0), group: Some(32), most: 127.0, scales: Scales::Any };
    let importance = vec![1.0; columns];
    let mut tiles = Vec::new();
    timed("plain rounding", 0.0, || {
        use rayon::prelude::*;
        for weights in weights.chunks(TILE * columns) {
            let found: Vec<_> = weights.par_chunks(columns).map(|row| round_row(row, &importance, grid)).collect();
            tiles.push(Rows {
                grid,
                columns,
                scales: found.iter().map(|row| row.scale).collect(),
                multipliers: found.iter().flat_map(|row| &row.multipliers).map(|m| f32::from(*m)).collect(),
                integers: found.iter().flat_map(|row| &row.integers).map(|q| f32::from(*q)).collect(),
            });
        }
    });
    let inputs = Inputs { gram: &gram, upper: &upper, order: &order };
    let (mut error, mut plain) = (0.0, 0.0);
    timed("layer-wise rounding", 38.0 * r * c * c, || {
        for (weights, tile) in weights.chunks(TILE * columns).zip(tiles) {
            let rounded = round(weights, tile, inputs, None);
            error += rounded.errors.iter().sum::<f64>();
            plain += rounded.plain_errors.iter().sum::<f64>();
        }
    });
    println!("error {error:.6e}, plain {plain:.6e}, ratio {:.4}", error / plain);
}
