//! Linear algebra on a Gram matrix H for the layer-wise solvers: a damped Cholesky factor, solutions of H x = b, and
//! the upper factor U of the inverse, H⁻¹ = Uᵀ U, whose row j says how the columns after j compensate an error in
//! column j. Everything is computed in f64 on one thread, so that results do not depend on threads; callers run several
//! at once.
//!
//! H + λ I with λ = 0.01 · mean(diag H), raised tenfold while the factorization fails. Channels that are always zero
//! get the mean of the diagonal and stay uncorrelated with all others.

use crate::model::matrix::row_major;
use faer::linalg::solvers::{Llt, Solve};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, MatMut, MatRef, Par, Side};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

/// The first λ / mean(diag H) that is tried.
pub const LEAST_DAMPING: f64 = 0.01;
/// λ / mean(diag H), tried in turn.
const DAMPING: [f64; 3] = [LEAST_DAMPING, 10.0 * LEAST_DAMPING, 100.0 * LEAST_DAMPING];

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

/// A factorization of H + λ I, lower · lowerᵀ.
pub struct Factored {
    llt: Llt<f64>,
    /// λ / mean(diag H) that succeeded.
    pub damping: f64,
    /// λ.
    pub added: f64,
    /// Channels that are always zero.
    pub dead: Vec<usize>,
}

impl Factored {
    /// Factorizes a symmetric (columns, columns) matrix, raising the damping until it succeeds.
    ///
    /// # Errors
    /// [`NoFactor`].
    ///
    /// # Panics
    /// If the matrix is not square.
    pub fn new(gram: ArrayView2<'_, f64>) -> Result<Self, NoFactor> {
        Self::in_order(gram, None)
    }

    /// Factorizes H with rows and columns permuted: element (i, j) is (order\[i\], order\[j\]) of H.
    fn in_order(gram: ArrayView2<'_, f64>, order: Option<&[usize]>) -> Result<Self, NoFactor> {
        assert!(gram.is_square());
        check_finite(gram)?;
        let columns = gram.ncols();
        let mean = gram.diag().iter().sum::<f64>() / columns as f64;
        if mean <= 0.0 {
            return Err(NoFactor::Zero);
        }
        let dead: Vec<usize> = (0..columns).filter(|&j| gram[[j, j]] <= 0.0).collect();
        let place = |index: usize| order.map_or(index, |order| order[index]);
        for damping in DAMPING {
            let added = damping * mean;
            let damped = Mat::from_fn(columns, columns, |i, j| {
                let value = gram[[place(i), place(j)]];
                match i == j {
                    true if value <= 0.0 => mean + added,
                    true => value + added,
                    false => value,
                }
            });
            if let Ok(llt) = Llt::new(damped.as_ref(), Side::Lower) {
                return Ok(Factored { llt, damping, added, dead });
            }
        }
        Err(NoFactor::Singular { damping: DAMPING[DAMPING.len() - 1] })
    }

    /// Solves (H + λ I) xᵀ = bᵀ for every row of `rows`, (count, columns), in place.
    ///
    /// # Panics
    /// If the rows have another width.
    pub fn solve_rows(&self, mut rows: ArrayViewMut2<'_, f64>) {
        let (count, columns) = rows.dim();
        let values = rows.as_slice_mut().expect("matrices are row-major");
        self.llt.solve_in_place(MatMut::from_column_major_slice_mut(values, columns, count));
    }
}

fn check_finite(matrix: ArrayView2<'_, f64>) -> Result<(), NoFactor> {
    match row_major(matrix).iter().position(|value| !value.is_finite()) {
        Some(index) => Err(NoFactor::NotFinite { column: index % matrix.ncols() }),
        None => Ok(()),
    }
}

/// The upper factor of an inverse: H⁻¹ = Uᵀ U.
#[derive(Clone, Debug, PartialEq)]
pub struct InverseFactor {
    /// U, (columns, columns), zero below the diagonal.
    pub upper: Array2<f32>,
    /// λ / mean(diag H) that it took.
    pub damping: f64,
    /// Channels that are always zero, in the order of H.
    pub dead: Vec<usize>,
}

/// U of H + λ I with rows and columns in `order`. With J the reversal, J H J = L Lᵀ makes H = (J L J)(J L J)ᵀ, and
/// U = (J L J)⁻¹ = J L⁻¹ J: one factorization and one triangular inverse.
///
/// # Errors
/// [`NoFactor`].
///
/// # Panics
/// If the lengths do not match.
pub fn inverse_factor(gram: ArrayView2<'_, f64>, order: &[usize]) -> Result<InverseFactor, NoFactor> {
    let columns = order.len();
    let reversed: Vec<usize> = order.iter().rev().copied().collect();
    let factored = Factored::in_order(gram, Some(&reversed))?;
    let mut inverse = Mat::<f64>::zeros(columns, columns);
    invert_lower_triangular(inverse.as_mut(), factored.llt.L(), Par::Seq);
    let upper = Array2::from_shape_fn((columns, columns), |(i, j)| match j < i {
        true => 0.0,
        false => inverse[(columns - 1 - i, columns - 1 - j)] as f32,
    });
    Ok(InverseFactor { upper, damping: factored.damping, dead: factored.dead })
}

/// The weights with which a matrix gives the original's outputs on the changed model's inputs: with W of (rows,
/// columns), W* = W + W D (G + λ I)⁻¹ minimises ‖W* X̃ − W X‖² + λ ‖W* − W‖² (Frantar 2023; GPTAQ, 2025). `gram` is G
/// and `difference` D of the module `moments`.
///
/// # Errors
/// [`NoFactor`].
///
/// # Panics
/// If the lengths do not match.
pub fn corrected(
    weights: ArrayView2<'_, f32>,
    gram: ArrayView2<'_, f64>,
    difference: ArrayView2<'_, f64>,
) -> Result<Array2<f32>, NoFactor> {
    assert_eq!(difference.dim(), gram.dim());
    check_finite(difference)?;
    let factored = Factored::new(gram)?;
    let difference = as_faer(difference);
    let mut out = weights.to_owned();
    for mut block in out.axis_chunks_iter_mut(Axis(0), 256) {
        let in_f64 = block.mapv(f64::from);
        let product = as_faer(in_f64.view()) * difference;
        let mut change = Array2::from_shape_fn(block.dim(), |at| product[at]);
        factored.solve_rows(change.view_mut());
        block.zip_mut_with(&change, |weight, change| *weight = (f64::from(*weight) + change) as f32);
    }
    Ok(out)
}

/// The same matrix for faer's products.
fn as_faer(matrix: ArrayView2<'_, f64>) -> MatRef<'_, f64> {
    let (rows, columns) = matrix.dim();
    MatRef::from_row_major_slice(row_major(matrix), rows, columns)
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
        let factor = inverse_factor(gram.view(), &order).expect("it is positive definite");
        let mean = gram.diag().iter().sum::<f64>() / columns as f64;
        let upper = |row: usize, column: usize| f64::from(factor.upper[[row, column]]);
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
        let fixed = corrected(weights.view(), gram.view(), difference.view()).expect("it is positive definite");
        let outputs = |weights: &Array2<f32>, x: &Array2<f64>| x.dot(&weights.mapv(f64::from).t());
        let target = outputs(&weights, &x);
        let distance = |outputs: Array2<f64>| (outputs - &target).mapv(|miss| miss.powi(2)).sum();
        let (before, after) = (distance(outputs(&weights, &changed)), distance(outputs(&fixed, &changed)));
        assert!(after < 0.1 * before, "{before} {after}");
    }

    #[test]
    fn matrices_without_a_factor_are_named_for_what_they_are() {
        let error = |gram: Array2<f64>| Factored::new(gram.view()).err();
        assert_eq!(error(Array2::zeros((3, 3))), Some(NoFactor::Zero));
        assert_eq!(error(array![[1.0, f64::NAN], [0.0, 1.0]]), Some(NoFactor::NotFinite { column: 1 }));
        // Not a Gram matrix: one eigenvalue is far below zero.
        assert_eq!(error(array![[1.0, 9.0], [9.0, 1.0]]), Some(NoFactor::Singular { damping: 1.0 }));
        // Rank one: damping makes it definite. A channel that is always zero is reported.
        let gram = array![[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]];
        let factored = Factored::new(gram.view()).expect("damped");
        assert_eq!((factored.damping, factored.dead), (0.01, vec![2]));
    }
}
