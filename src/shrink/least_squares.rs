//! The change Δ of a matrix that makes its outputs on the student's inputs x̃ what the teacher's are: with r the residual of
//! one token before the change, over all tokens
//!
//! ```text
//! min Σ ‖r − Δ x̃‖² + λ ‖Δ‖²        Δ = R (G + λ I)⁻¹,   R = Σ r x̃ᵀ,   G = Σ x̃ x̃ᵀ,   λ = damping · mean(diag G)
//! ```
//!
//! The penalty is on the change, so a matrix that is right already stays, and the residuals never grow. A matrix with a bias
//! has one more input, which is always 1. Tokens are summed in f32 within a batch and in f64 over batches, in their order.

use ndarray::Array2;
use slm_numerics::factor::{Factor, solve_rows};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// λ / mean(diag G), tried in turn until the system has a factor.
const DAMPING: [f64; 4] = [1e-3, 1e-2, 1e-1, 1.0];

/// Sums over tokens for matrices that share an input.
pub(super) struct Residuals {
    /// Rows of all matrices.
    rows: usize,
    /// Columns, the bias among them.
    columns: usize,
    bias: bool,
    /// G, (columns, columns).
    gram: Array2<f64>,
    /// R, (rows, columns).
    products: Vec<f64>,
    /// Σ ‖r‖².
    energy: f64,
    /// Σ of squares of what the outputs should be.
    target: f64,
}

/// Squared errors of a group of matrices, relative to their targets.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Fitted {
    /// Σ ‖r‖² / Σ ‖target‖² before.
    pub before: f64,
    /// The same after, on the tokens that were fitted on.
    pub after: f64,
}

impl Residuals {
    pub(super) fn new(rows: usize, inputs: usize, bias: bool) -> Self {
        let columns = inputs + usize::from(bias);
        Residuals {
            rows,
            columns,
            bias,
            gram: Array2::zeros((columns, columns)),
            products: vec![0.0; rows * columns],
            energy: 0.0,
            target: 0.0,
        }
    }

    /// Adds tokens: `inputs` (tokens, inputs), `residuals` (tokens, rows), and the squares of their targets.
    pub(super) fn add(&mut self, inputs: &[f32], residuals: &[f32], target: f64) {
        let width = self.columns - usize::from(self.bias);
        let with_one: Vec<f32>;
        let inputs = if self.bias {
            with_one = inputs.chunks_exact(width).flat_map(|row| row.iter().copied().chain([1.0])).collect();
            &with_one
        } else {
            inputs
        };
        let columns = self.columns;
        let mut block = vec![0.0f32; columns * columns.max(self.rows)];
        let right = || Right::Rows(Matrix::new(inputs, columns));
        let gram = &mut block[..columns * columns];
        multiply(Output::over(gram, columns), Left::Columns(Matrix::new(inputs, columns)), right());
        self.gram.iter_mut().zip(gram.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
        let products = &mut block[..self.rows * columns];
        multiply(Output::over(products, columns), Left::Columns(Matrix::new(residuals, self.rows)), right());
        self.products.iter_mut().zip(products.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
        self.energy += residuals.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        self.target += target;
    }

    /// Sums that were taken elsewhere: G and R of matrices without a bias, whose errors are not counted.
    pub(super) fn of(gram: Array2<f64>, products: Vec<f64>) -> Self {
        let columns = gram.ncols();
        let rows = products.len() / columns.max(1);
        Residuals { rows, columns, bias: false, gram, products, energy: 0.0, target: 0.0 }
    }

    /// Δ, (rows, columns), the bias last in every row, and the errors; `None` where every input is zero, or a sum is not
    /// finite.
    pub(super) fn solve(&self) -> Option<(Vec<f64>, Fitted)> {
        let columns = self.columns;
        let mean = self.gram.diag().iter().sum::<f64>() / columns as f64;
        if mean <= 0.0 || !mean.is_finite() || self.products.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let factor = DAMPING.into_iter().find_map(|damping| {
            let mut damped: Vec<f64> = self.gram.iter().copied().collect();
            // G is symmetric but for the rounding of its sums.
            for row in 0..columns {
                for column in 0..row {
                    damped[column * columns + row] = damped[row * columns + column];
                }
            }
            damped.iter_mut().step_by(columns + 1).for_each(|own| *own += damping * mean);
            Factor::new(damped, columns)
        })?;
        let mut delta = self.products.clone();
        solve_rows(&factor.inverse(), &mut delta);
        let mut changed = vec![0.0; delta.len()];
        let gram: Vec<f64> = self.gram.iter().copied().collect();
        let (left, right) = (Left::Rows(Matrix::new(&delta, columns)), Right::Rows(Matrix::new(&gram, columns)));
        multiply(Output::over(&mut changed, columns), left, right);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let after = self.energy - 2.0 * dot(&delta, &self.products) + dot(&changed, &delta);
        let target = if self.target > 0.0 { self.target } else { 1.0 };
        Some((delta, Fitted { before: self.energy / target, after: after.max(0.0) / target }))
    }
}
