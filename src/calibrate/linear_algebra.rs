//! Linear algebra on a Gram matrix H for the layer-wise solvers: the upper factor U of the inverse, H⁻¹ = Uᵀ U, whose row j
//! says how the columns after j compensate an error in column j, and the correction of weights for changed inputs. In f64
//! on the factors of [`slm_numerics::factor`], whose bits do not depend on threads.
//!
//! H + λ I with λ = 0.01 · mean(diag H), raised tenfold while the factorization fails. Channels that are always zero
//! get the mean of the diagonal and stay uncorrelated with all others.

use crate::model::matrix::{from_rows, row_major, row_major_mut};
use ndarray::{Array2, ArrayView2};
use slm_numerics::factor::{Factor, solve_rows};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// The first λ / mean(diag H) that is tried.
pub const LEAST_DAMPING: f64 = 0.01;
/// λ / mean(diag H), tried in turn.
const DAMPING: [f64; 3] = [LEAST_DAMPING, 10.0 * LEAST_DAMPING, 100.0 * LEAST_DAMPING];
/// Rows corrected at once, which bounds the memory.
const TILE: usize = 1024;

/// Why a Gram matrix has no factor.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NoFactor {
    /// NaN or infinity.
    #[error("the Gram matrix of its inputs holds a value that is not finite in column {column}")]
    NotFinite {
        /// The first such column.
        column: usize,
    },
    /// No input was ever other than zero.
    #[error("its inputs are zero throughout the calibration text")]
    Zero,
    /// No damping makes it positive definite.
    #[error("the Gram matrix of its inputs stays singular with {damping} of its mean diagonal added")]
    Singular {
        /// The last share tried.
        damping: f64,
    },
}

/// The factor of the inverse of H + λ I in an order of its columns.
///
/// With J the reversal of the order, J H J = L Lᵀ makes H = (J L J)(J L J)ᵀ, and U = (J L J)⁻¹ = J L⁻¹ J: one
/// factorization and one triangular inverse.
#[derive(Clone, Debug, PartialEq)]
pub struct InverseFactor {
    /// L⁻¹ of H + λ I in the reversed order, (columns, columns).
    inverse: Vec<f64>,
    /// The columns of H in that order.
    reversed: Vec<usize>,
    /// λ / mean(diag H) that succeeded.
    pub damping: f64,
    /// λ.
    pub added: f64,
    /// Channels that are always zero, in the order of H.
    pub dead: Vec<usize>,
}

impl InverseFactor {
    /// Factorizes a symmetric (columns, columns) matrix, raising the damping until it succeeds.
    ///
    /// # Errors
    /// [`NoFactor`].
    ///
    /// # Panics
    /// If the matrix is not square, or the order not that of its columns.
    pub fn new(gram: ArrayView2<'_, f64>, order: &[usize]) -> Result<Self, NoFactor> {
        let columns = gram.ncols();
        assert!(gram.is_square() && order.len() == columns);
        check_finite(gram)?;
        let mean = gram.diag().iter().sum::<f64>() / columns as f64;
        if mean <= 0.0 {
            return Err(NoFactor::Zero);
        }
        let dead: Vec<usize> = (0..columns).filter(|&j| gram[[j, j]] <= 0.0).collect();
        let reversed: Vec<usize> = order.iter().rev().copied().collect();
        let values = row_major(gram);
        for damping in DAMPING {
            let added = damping * mean;
            let mut damped = Vec::with_capacity(values.len());
            for &row in &reversed {
                let row = &values[row * columns..][..columns];
                damped.extend(reversed.iter().map(|&column| row[column]));
            }
            for own in damped.iter_mut().step_by(columns + 1) {
                *own = added + if *own <= 0.0 { mean } else { *own };
            }
            if let Some(factor) = Factor::new(damped, columns) {
                return Ok(InverseFactor { inverse: factor.inverse(), reversed, damping, added, dead });
            }
        }
        Err(NoFactor::Singular { damping: DAMPING[DAMPING.len() - 1] })
    }

    /// U in the order of its columns, (columns, columns), zero below the diagonal.
    pub fn upper(&self) -> Array2<f32> {
        from_rows(self.inverse.iter().rev().map(|value| *value as f32).collect(), self.reversed.len())
    }

    /// Solves (H + λ I) xᵀ = bᵀ for every row of `rows`, (count, columns), in place.
    fn solve_rows(&self, rows: &mut [f64]) {
        let columns = self.reversed.len();
        let mut in_order = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(columns) {
            in_order.extend(self.reversed.iter().map(|&column| row[column]));
        }
        solve_rows(&self.inverse, &mut in_order);
        for (row, in_order) in rows.chunks_exact_mut(columns).zip(in_order.chunks_exact(columns)) {
            self.reversed.iter().zip(in_order).for_each(|(&column, value)| row[column] = *value);
        }
    }

    /// What makes matrices of `rows` rows in all give the original's outputs on the changed model's inputs; `difference`
    /// is D of the module `moments`, (columns, columns), and this the factor of G.
    ///
    /// # Errors
    /// [`NoFactor::NotFinite`].
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn correction<'a>(&'a self, difference: ArrayView2<'_, f64>, rows: usize) -> Result<Correction<'a>, NoFactor> {
        check_finite(difference)?;
        let columns = self.reversed.len();
        assert_eq!(difference.dim(), (columns, columns));
        let mut product = row_major(difference).to_vec();
        let solved = rows > columns;
        if solved {
            self.solve_rows(&mut product);
        }
        let product = from_rows(product.iter().map(|value| *value as f32).collect(), columns);
        Ok(Correction { factor: (!solved).then_some(self), product })
    }
}

fn check_finite(matrix: ArrayView2<'_, f64>) -> Result<(), NoFactor> {
    match row_major(matrix).iter().position(|value| !value.is_finite()) {
        Some(index) => Err(NoFactor::NotFinite { column: index % matrix.ncols() }),
        None => Ok(()),
    }
}

/// W* = W + W D (G + λ I)⁻¹ of any W, (rows, columns), which minimises ‖W* X̃ − W X‖² + λ ‖W* − W‖² (Frantar 2023; GPTAQ,
/// 2025). Many rows share D (G + λ I)⁻¹; for few it is cheaper to solve for W D.
#[derive(Clone, Debug)]
pub struct Correction<'a> {
    /// `None` where `product` is solved.
    factor: Option<&'a InverseFactor>,
    /// D, or D (G + λ I)⁻¹.
    product: Array2<f32>,
}

impl Correction<'_> {
    /// W*
    ///
    /// # Panics
    /// If the weights have another number of columns.
    pub fn apply(&self, weights: ArrayView2<'_, f32>) -> Array2<f32> {
        let columns = weights.ncols();
        let mut change = Array2::<f32>::zeros(weights.dim());
        let right = Right::Rows(Matrix::new(row_major(self.product.view()), columns));
        let left = Left::Rows(Matrix::new(row_major(weights), columns));
        multiply(Output::over(row_major_mut(&mut change), columns), left, right);
        if let Some(factor) = self.factor {
            for block in row_major_mut(&mut change).chunks_mut(TILE * columns) {
                let mut solved: Vec<f64> = block.iter().map(|value| f64::from(*value)).collect();
                factor.solve_rows(&mut solved);
                block.iter_mut().zip(solved).for_each(|(value, solved)| *value = solved as f32);
            }
        }
        change += &weights;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use slm_runtime::sample::random_u64;

    fn random(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
        let draw = |n: usize| (random_u64(seed, n as u64) >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        Array2::from_shape_fn((rows, columns), |(row, column)| draw(row * columns + column))
    }

    /// Σ x yᵀ over rows.
    fn product(x: &Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((x.ncols(), y.ncols()), |(i, j)| {
            x.column(i).iter().zip(y.column(j)).map(|(x, y)| x * y).sum()
        })
    }

    #[test]
    fn the_upper_factor_squares_to_the_inverse() {
        let columns = 37;
        let x = random(1, 200, columns);
        let gram = product(&x, &x);
        let order: Vec<usize> = (0..columns).map(|j| (j * 5) % columns).collect();
        let factor = InverseFactor::new(gram.view(), &order).expect("it is positive definite");
        let upper = factor.upper();
        let mean = gram.diag().iter().sum::<f64>() / columns as f64;
        let upper = |row: usize, column: usize| f64::from(upper[[row, column]]);
        let inverse = |i: usize, k: usize| (0..columns).map(|l| upper(l, i) * upper(l, k)).sum::<f64>();
        let damped = |k: usize, j: usize| gram[[order[k], order[j]]] + if k == j { factor.damping * mean } else { 0.0 };
        // (Uᵀ U)(H + λ I) is the identity.
        for i in 0..columns {
            for j in 0..columns {
                let value: f64 = (0..columns).map(|k| inverse(i, k) * damped(k, j)).sum();
                assert!((value - f64::from(u8::from(i == j))).abs() < 1e-4, "{i} {j}: {value}");
            }
        }
    }

    #[test]
    fn correction_restores_what_a_change_of_inputs_took() {
        let (columns, tokens) = (16, 400);
        let x = random(2, tokens, columns);
        // Inputs of the changed model: every channel mixes in a fifth of its neighbour.
        let changed = Array2::from_shape_fn(x.dim(), |(row, j)| 0.8 * x[[row, j]] + 0.2 * x[[row, (j + 1) % columns]]);
        let (gram, difference) = (product(&changed, &changed), product(&(&x - &changed), &changed));
        let weights = random(3, 8, columns).mapv(|w| w as f32);
        let order: Vec<usize> = (0..columns).rev().collect();
        let factor = InverseFactor::new(gram.view(), &order).expect("it is positive definite");
        let [fixed, shared] =
            [8, 80].map(|rows| factor.correction(difference.view(), rows).expect("finite").apply(weights.view()));
        assert!(fixed.iter().zip(&shared).all(|(a, b)| (a - b).abs() < 1e-5), "both ways give the same");
        let outputs = |weights: &Array2<f32>, x: &Array2<f64>| x.dot(&weights.mapv(f64::from).t());
        let target = outputs(&weights, &x);
        let distance = |outputs: Array2<f64>| (outputs - &target).mapv(|miss| miss.powi(2)).sum();
        let (before, after) = (distance(outputs(&weights, &changed)), distance(outputs(&fixed, &changed)));
        assert!(after < 0.1 * before, "{before} {after}");
    }

    #[test]
    fn matrices_without_a_factor_are_named_for_what_they_are() {
        let factor = |gram: &Array2<f64>| InverseFactor::new(gram.view(), &Vec::from_iter(0..gram.ncols()));
        let error = |gram: Array2<f64>| factor(&gram).err();
        assert_eq!(error(Array2::zeros((3, 3))), Some(NoFactor::Zero));
        assert_eq!(error(array![[1.0, f64::NAN], [0.0, 1.0]]), Some(NoFactor::NotFinite { column: 1 }));
        // Not a Gram matrix: one eigenvalue is far below zero.
        assert_eq!(error(array![[1.0, 9.0], [9.0, 1.0]]), Some(NoFactor::Singular { damping: 1.0 }));
        // Rank one: damping makes it definite. A channel that is always zero is reported.
        let gram = array![[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]];
        let factor = factor(&gram).expect("damped");
        assert_eq!((factor.damping, factor.dead), (0.01, vec![2]));
    }
}
