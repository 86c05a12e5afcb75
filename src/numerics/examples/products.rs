//! GFLOPS of products of f32 on one thread and on all: the shapes of a training step of a Llama of 8.3 M parameters (288, 768,
//! 2,048 rows), of SmolLM2-135M (576, 1,536, 512 rows) and a large square.
//!
//!     cargo run --release -p slm-numerics --example products

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use std::hint::black_box;
use std::time::Instant;

/// Seconds that a shape is repeated for.
const SECONDS: f64 = 0.4;

fn main() {
    let shapes =
        [[2048, 2048, 2048], [2048, 288, 768], [2048, 768, 288], [512, 576, 1536], [288, 2048, 288], [64, 384, 384]];
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("m × k × n, on {threads} threads   A·Bᵀ 1   all    A·B 1   all   Aᵀ·B 1   all");
    for [m, k, n] in shapes {
        let (a, b, mut out) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0.0f32; m * n]);
        let lefts = [
            (Left::Rows(Matrix::new(&a, k)), Right::Columns(Matrix::new(&b, k))),
            (Left::Rows(Matrix::new(&a, k)), Right::Rows(Matrix::new(&b, n))),
            (Left::Columns(Matrix::new(&a, m)), Right::Rows(Matrix::new(&b, n))),
        ];
        print!("{:26}", format!("{m} × {k} × {n}"));
        for (left, right) in lefts {
            for threads in [1, threads] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let rate = pool.install(|| {
                    let (mut best, begin) = (f64::MAX, Instant::now());
                    while begin.elapsed().as_secs_f64() < SECONDS {
                        let one = Instant::now();
                        multiply(Output::over(black_box(&mut out), n), left, right);
                        best = best.min(one.elapsed().as_secs_f64());
                    }
                    2.0 * (m * k * n) as f64 / best / 1e9
                });
                print!("{rate:8.0}");
            }
        }
        println!();
    }
}
