//! What the layer-wise solvers need of a Gram matrix H: a damped Cholesky factor of it, solutions of H x = b, and the
//! upper factor U of the inverse, H⁻¹ = Uᵀ U, whose row j says how the columns after j make up for an error in column j.
//! Everything in f64 and on one thread, so that results do not depend on threads; callers run several at once.
//!
//! H + λ I with λ = 0.01 · mean(diag H), raised tenfold while the factorization fails. Channels that are always zero get
//! the mean of the diagonal, which ties them to nothing.

use faer::linalg::solvers::{Llt, Solve};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, MatMut, MatRef, Par, Side};

/// λ / mean(diag H) of a matrix that gives no trouble.
pub const LEAST_DAMPING: f64 = 0.01;
/// What is tried in turn.
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
    columns: usize,
    /// λ / mean(diag H) that it took.
    pub damping: f64,
    /// λ.
    pub added: f64,
    /// Channels that are always zero.
    pub dead: Vec<usize>,
}

impl Factored {
    /// Of a symmetric (columns, columns) matrix, raising the damping until it succeeds.
    ///
    /// # Errors
    /// [`NoFactor`].
    ///
    /// # Panics
    /// If the matrix has another number of values.
    pub fn new(gram: &[f64], columns: usize) -> Result<Self, NoFactor> {
        Self::in_order(gram, columns, None)
    }

    /// Of the matrix with its rows and columns taken in another order: element (i, j) is (order\[i\], order\[j\]) of H.
    fn in_order(gram: &[f64], columns: usize, order: Option<&[usize]>) -> Result<Self, NoFactor> {
        assert_eq!(gram.len(), columns * columns);
        if let Some(index) = gram.iter().position(|value| !value.is_finite()) {
            return Err(NoFactor::NotFinite { column: index % columns });
        }
        let mean = (0..columns).map(|j| gram[j * (columns + 1)]).sum::<f64>() / columns as f64;
        if mean <= 0.0 {
            return Err(NoFactor::Zero);
        }
        let dead: Vec<usize> = (0..columns).filter(|j| gram[j * (columns + 1)] <= 0.0).collect();
        let place = |index: usize| order.map_or(index, |order| order[index]);
        for damping in DAMPING {
            let added = damping * mean;
            let damped = Mat::from_fn(columns, columns, |i, j| {
                let value = gram[place(i) * columns + place(j)];
                match i == j {
                    true if value <= 0.0 => mean + added,
                    true => value + added,
                    false => value,
                }
            });
            if let Ok(llt) = Llt::new(damped.as_ref(), Side::Lower) {
                return Ok(Factored { llt, columns, damping, added, dead });
            }
        }
        Err(NoFactor::Singular { damping: DAMPING[DAMPING.len() - 1] })
    }

    /// Solves (H + λ I) xᵀ = bᵀ for every row of `rows`, (count, columns) row-major, in place.
    ///
    /// # Panics
    /// If the values are no whole number of rows.
    pub fn solve_rows(&self, rows: &mut [f64]) {
        assert!(rows.len().is_multiple_of(self.columns));
        let count = rows.len() / self.columns;
        self.llt.solve_in_place(MatMut::from_column_major_slice_mut(rows, self.columns, count));
    }
}

/// The upper factor of an inverse: H⁻¹ = Uᵀ U.
#[derive(Clone, Debug, PartialEq)]
pub struct InverseFactor {
    /// U, (columns, columns) row-major, zero below the diagonal.
    pub upper: Vec<f32>,
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
pub fn inverse_factor(gram: &[f64], order: &[usize]) -> Result<InverseFactor, NoFactor> {
    let columns = order.len();
    let reversed: Vec<usize> = order.iter().rev().copied().collect();
    let factored = Factored::in_order(gram, columns, Some(&reversed))?;
    let mut inverse = Mat::<f64>::zeros(columns, columns);
    invert_lower_triangular(inverse.as_mut(), factored.llt.L(), Par::Seq);
    let mut upper = vec![0.0f32; columns * columns];
    for (i, row) in upper.chunks_exact_mut(columns).enumerate() {
        for (j, value) in row.iter_mut().enumerate().skip(i) {
            *value = inverse[(columns - 1 - i, columns - 1 - j)] as f32;
        }
    }
    Ok(InverseFactor { upper, damping: factored.damping, dead: factored.dead })
}

/// The weights that make a changed model's matrix do what the original's did on the original's inputs: with W of
/// (rows, columns), W* = W + W (C − G)(G + λ I)⁻¹ minimises ‖W* X̃ − W X‖² + λ ‖W* − W‖² (Frantar 2023; GPTAQ, 2025). `gram`
/// is G and `cross` C of the module `moments`.
///
/// # Errors
/// [`NoFactor`].
///
/// # Panics
/// If the lengths do not match.
pub fn corrected(weights: &[f32], columns: usize, gram: &[f64], cross: &[f64]) -> Result<Vec<f32>, NoFactor> {
    assert_eq!(cross.len(), gram.len());
    if let Some(index) = cross.iter().position(|value| !value.is_finite()) {
        return Err(NoFactor::NotFinite { column: index % columns });
    }
    let factored = Factored::new(gram, columns)?;
    let difference: Vec<f64> = cross.iter().zip(gram).map(|(cross, gram)| cross - gram).collect();
    let difference = MatRef::from_row_major_slice(&difference, columns, columns);
    let mut out = Vec::with_capacity(weights.len());
    for block in weights.chunks(256 * columns) {
        let rows = block.len() / columns;
        let wide: Vec<f64> = block.iter().map(|weight| f64::from(*weight)).collect();
        let product = MatRef::from_row_major_slice(&wide, rows, columns) * difference;
        let mut change: Vec<f64> =
            (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|at| product[at]).collect();
        factored.solve_rows(&mut change);
        out.extend(block.iter().zip(&change).map(|(weight, change)| (f64::from(*weight) + change) as f32));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    fn random(seed: u64, count: usize) -> Vec<f64> {
        (0..count as u64).map(|n| (random_u64(seed, n) >> 11) as f64 / (1u64 << 53) as f64 - 0.5).collect()
    }

    /// Σ x yᵀ of rows of width `columns`.
    fn product(x: &[f64], y: &[f64], columns: usize) -> Vec<f64> {
        let mut sums = vec![0.0; columns * columns];
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact(columns)) {
            (0..columns * columns).for_each(|n| sums[n] += x[n / columns] * y[n % columns]);
        }
        sums
    }

    #[test]
    fn the_upper_factor_squares_to_the_inverse() {
        let columns = 37;
        let x = random(1, 200 * columns);
        let gram = product(&x, &x, columns);
        let order: Vec<usize> = (0..columns).map(|j| (j * 5) % columns).collect();
        let factor = inverse_factor(&gram, &order).expect("it is positive definite");
        let mean = (0..columns).map(|j| gram[j * (columns + 1)]).sum::<f64>() / columns as f64;
        let upper = |row: usize, column: usize| f64::from(factor.upper[row * columns + column]);
        let inverse = |i: usize, k: usize| (0..columns).map(|l| upper(l, i) * upper(l, k)).sum::<f64>();
        let damped =
            |k: usize, j: usize| gram[order[k] * columns + order[j]] + if k == j { factor.damping * mean } else { 0.0 };
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
        let x = random(2, tokens * columns);
        // The changed model sees a fifth of a neighbour in every channel.
        let changed: Vec<f64> = x
            .chunks_exact(columns)
            .flat_map(|row| (0..columns).map(|j| 0.8 * row[j] + 0.2 * row[(j + 1) % columns]).collect::<Vec<_>>())
            .collect();
        let (gram, cross) = (product(&changed, &changed, columns), product(&x, &changed, columns));
        let weights: Vec<f32> = random(3, 8 * columns).iter().map(|w| *w as f32).collect();
        let fixed = corrected(&weights, columns, &gram, &cross).expect("it is positive definite");
        let outputs = |weights: &[f32], x: &[f64]| -> Vec<f64> {
            let token = |x: &[f64]| -> Vec<f64> {
                let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
                weights.chunks_exact(columns).map(dot).collect()
            };
            x.chunks_exact(columns).flat_map(token).collect()
        };
        let target = outputs(&weights, &x);
        let distance = |outputs: Vec<f64>| -> f64 { outputs.iter().zip(&target).map(|(a, b)| (a - b).powi(2)).sum() };
        let (before, after) = (distance(outputs(&weights, &changed)), distance(outputs(&fixed, &changed)));
        assert!(after < 0.1 * before, "{before} {after}");
    }

    #[test]
    fn matrices_without_a_factor_are_named_for_what_they_are() {
        assert_eq!(Factored::new(&[0.0; 9], 3).err(), Some(NoFactor::Zero));
        assert_eq!(Factored::new(&[1.0, f64::NAN, 0.0, 1.0], 2).err(), Some(NoFactor::NotFinite { column: 1 }));
        // Not a Gram matrix: one eigenvalue is far below zero.
        assert_eq!(Factored::new(&[1.0, 9.0, 9.0, 1.0], 2).err(), Some(NoFactor::Singular { damping: 1.0 }));
        // Rank one: damping makes it definite. A channel that is always zero is told.
        let factored = Factored::new(&[1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 3).expect("damped");
        assert_eq!((factored.damping, factored.dead), (0.01, vec![2]));
    }
}
