//! Second moments of the inputs of a matrix: with x the input of the original model and x̃ that of the model as changed
//! so far, over all calibration tokens
//!
//! ```text
//! G = Σ x̃ x̃ᵀ        D = Σ (x − x̃) x̃ᵀ
//! ```
//!
//! D is small where the change is, so that f32 holds it well, and is what a correction needs. Tokens are summed in f32 in
//! blocks of 2,048, and blocks in f64 in the order of the batches; a product of [`slm_numerics::product`] is one
//! chain of multiply-adds over tokens. So the sums depend neither on threads nor on the width of vectors. Only one
//! triangle of G is computed, which is then mirrored.

use super::batches::with_values;
use super::{CalibrateError, batches::BATCH_TOKENS};
use burn::tensor::Tensor;
use ndarray::Array2;
use rayon::prelude::*;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// Tokens that are summed in f32, at least: batches that are smaller are taken together.
const BLOCK_TOKENS: usize = BATCH_TOKENS;
/// Columns of G that are computed together, over the rows from the first of them on.
const PANEL: usize = 192;
/// Rows of sums that one task adds.
const TASK_ROWS: usize = 64;

/// Sums over `rows` tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Tokens.
    pub rows: u64,
    /// G, (columns, columns), symmetric.
    pub gram: Array2<f64>,
    /// D, (columns, columns): element (i, j) is Σ (x_i − x̃_i) x̃_j. `None` where both models are one.
    pub difference: Option<Array2<f64>>,
    /// Σ a² / (12 · 127²), a the largest magnitude of a token's x̃: the squared error that rounding x̃ to 8 bits puts
    /// on every channel.
    pub rounding: f64,
}

/// Why moments cannot be taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MomentsError {
    /// NaN or infinity among the sums.
    #[error(
        "the inputs hold values that are not finite (channel {column}); the checkpoint overflows on the calibration text"
    )]
    NotFinite {
        /// The first such channel.
        column: usize,
    },
}

impl Moments {
    /// Empty sums.
    pub fn new(columns: usize, with_original: bool) -> Self {
        let zeros = || Array2::zeros((columns, columns));
        Moments { rows: 0, gram: zeros(), difference: with_original.then(zeros), rounding: 0.0 }
    }

    /// Width of the input.
    pub fn columns(&self) -> usize {
        self.gram.ncols()
    }

    /// Mean square of every channel of x̃, (columns).
    pub fn mean_square(&self) -> Vec<f64> {
        let rows = self.rows.max(1) as f64;
        self.gram.diag().iter().map(|square| square / rows).collect()
    }
}

/// Moments as batches are added.
pub struct MomentSums {
    /// Of `gram` the lower triangle, and no more.
    moments: Moments,
    /// The block that is being summed, of both products.
    block: Vec<Vec<f32>>,
    /// Tokens in it.
    pending: usize,
}

impl MomentSums {
    /// Empty sums.
    pub fn new(columns: usize, with_original: bool) -> Self {
        let block = vec![vec![0.0; columns * columns]; 1 + usize::from(with_original)];
        MomentSums { moments: Moments::new(columns, with_original), block, pending: 0 }
    }

    /// Adds a batch: `changed`, (…, columns), and `original` of the same shape where both models run.
    ///
    /// # Errors
    /// [`CalibrateError::Device`].
    pub fn add<const D: usize>(
        &mut self,
        changed: &Tensor<D>,
        original: Option<&Tensor<D>>,
    ) -> Result<(), CalibrateError> {
        with_values(changed, |changed| match original {
            Some(original) => with_values(original, |original| self.add_values(changed, Some(original))),
            None => {
                self.add_values(changed, None);
                Ok(())
            }
        })?
    }

    /// [`MomentSums::add`] of values, row-major.
    pub fn add_values(&mut self, changed: &[f32], original: Option<&[f32]>) {
        let columns = self.moments.columns();
        let tokens = changed.len() / columns.max(1);
        let inputs = Matrix::new(changed, columns);
        let add = self.pending > 0;
        for first in (0..columns).step_by(PANEL) {
            let (count, left) = (PANEL.min(columns - first), inputs.columns(first, columns - first));
            let rows = &mut self.block[0][first * columns..];
            let output = Output { add, ..Output::over(rows, columns).at(first) };
            multiply(output, Left::Columns(left), Right::Rows(inputs.columns(first, count)));
        }
        if let (Some(block), Some(original)) = (self.block.get_mut(1), original) {
            let mut moved = vec![0.0; changed.len()];
            let parts =
                moved.par_chunks_mut(1 << 14).zip(original.par_chunks(1 << 14)).zip(changed.par_chunks(1 << 14));
            parts.for_each(|((moved, original), changed)| {
                let values = original.iter().zip(changed);
                moved.iter_mut().zip(values).for_each(|(moved, (original, changed))| *moved = original - changed);
            });
            let output = Output { add, ..Output::over(block, columns) };
            multiply(output, Left::Columns(Matrix::new(&moved, columns)), Right::Rows(inputs));
        }
        let largest = |row: &[f32]| f64::from(row.iter().fold(0.0f32, |most, value| most.max(value.abs())));
        let squares = changed.par_chunks_exact(columns).map(|row| largest(row).powi(2) / (12.0 * 127.0 * 127.0));
        self.moments.rounding += squares.collect::<Vec<f64>>().iter().sum::<f64>();
        self.moments.rows += tokens as u64;
        self.pending += tokens;
        if self.pending >= BLOCK_TOKENS {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let sums = [Some(&mut self.moments.gram), self.moments.difference.as_mut()];
        for ((sums, block), triangle) in sums.into_iter().flatten().zip(&self.block).zip([true, false]) {
            let columns = sums.ncols();
            let Some(sums) = sums.as_slice_mut() else { unreachable!("matrices are row-major") };
            let size = (TASK_ROWS * columns).max(1);
            sums.par_chunks_mut(size).zip(block.par_chunks(size)).enumerate().for_each(|(task, (sums, block))| {
                let rows = sums.chunks_exact_mut(columns).zip(block.chunks_exact(columns)).enumerate();
                for (row, (sums, block)) in rows {
                    let many = if triangle { task * TASK_ROWS + row + 1 } else { columns };
                    sums[..many].iter_mut().zip(block).for_each(|(sum, value)| *sum += f64::from(*value));
                }
            });
        }
        self.pending = 0;
    }

    /// The moments.
    ///
    /// # Errors
    /// [`MomentsError::NotFinite`], with the first channel that is not.
    pub fn finish(mut self) -> Result<Moments, MomentsError> {
        if self.pending > 0 {
            self.close_block();
        }
        let mut moments = self.moments;
        for row in 0..moments.columns() {
            for column in 0..row {
                moments.gram[[column, row]] = moments.gram[[row, column]];
            }
        }
        let mut all = moments.gram.indexed_iter().chain(moments.difference.iter().flat_map(|sums| sums.indexed_iter()));
        match all.find(|(_, value)| !value.is_finite()) {
            Some(((_, column), _)) => Err(MomentsError::NotFinite { column }),
            None => Ok(moments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    fn values(stream: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// Batches of several sizes, over more tokens than a block has and more columns than a panel.
    fn sums(columns: usize, batches: &[usize]) -> (Moments, Array2<f64>, Array2<f64>) {
        let mut sums = MomentSums::new(columns, true);
        let (mut gram, mut difference) = (Array2::zeros((columns, columns)), Array2::zeros((columns, columns)));
        for (stream, tokens) in batches.iter().enumerate() {
            let changed = values(stream as u64, tokens * columns);
            let original: Vec<f32> =
                changed.iter().zip(values(99, tokens * columns)).map(|(x, y)| x + 0.01 * y).collect();
            sums.add_values(&changed, Some(&original));
            for (changed, original) in changed.chunks(columns).zip(original.chunks(columns)) {
                for i in 0..columns {
                    for j in 0..columns {
                        gram[[i, j]] += f64::from(changed[i]) * f64::from(changed[j]);
                        difference[[i, j]] += f64::from(original[i] - changed[i]) * f64::from(changed[j]);
                    }
                }
            }
        }
        (sums.finish().expect("finite"), gram, difference)
    }

    #[test]
    fn sums_are_those_of_all_tokens() {
        for (columns, batches) in [(7, vec![3, 1, 2100, 900]), (PANEL + 5, vec![40, 64])] {
            let (moments, gram, difference) = sums(columns, &batches);
            let tokens = batches.iter().sum::<usize>() as f64;
            assert_eq!(moments.rows as f64, tokens);
            assert_eq!(moments.gram, moments.gram.t());
            let worst = |found: &Array2<f64>, expected: &Array2<f64>| {
                (found - expected).iter().fold(0.0f64, |most, error| most.max(error.abs()))
            };
            assert!(worst(&moments.gram, &gram) < 2e-6 * tokens, "{}", worst(&moments.gram, &gram));
            let found = moments.difference.expect("the original is there");
            assert!(worst(&found, &difference) < 2e-8 * tokens, "{}", worst(&found, &difference));
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| sums(PANEL + 30, &[300, 5]).0)
        };
        assert_eq!(of(1), of(2));
        assert_eq!(of(1), of(3));
    }

    #[test]
    fn what_is_not_finite_is_named_by_its_channel() {
        let mut sums = MomentSums::new(3, false);
        sums.add_values(&[1.0, 2.0, 3.0, 1.0, f32::INFINITY, 0.0], None);
        assert_eq!(sums.finish(), Err(MomentsError::NotFinite { column: 1 }));
    }
}
