//! Second moments of the inputs of a matrix: with x the input of the original model and x̃ that of the model as changed
//! so far, G = Σ x̃ x̃ᵀ and D = Σ (x − x̃) x̃ᵀ over all calibration tokens. A block of tokens is one f32 product; blocks are
//! summed in f64 in the order of the sequences, so that neither depends on threads.

use burn::tensor::Tensor;
use ndarray::Array2;

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
    /// The device gave another type back.
    #[error("the device did not return f32 values: {0}")]
    Device(String),
}

impl Moments {
    /// Empty sums.
    pub fn new(columns: usize, with_difference: bool) -> Self {
        let zeros = || Array2::zeros((columns, columns));
        Moments { rows: 0, gram: zeros(), difference: with_difference.then(zeros), rounding: 0.0 }
    }

    /// Width of the input.
    pub fn columns(&self) -> usize {
        self.gram.ncols()
    }

    /// Adds tokens: `changed`, (tokens, columns), and `original` of the same shape where the difference is kept.
    ///
    /// # Errors
    /// [`MomentsError::Device`].
    pub fn add(&mut self, changed: &Tensor<2>, original: Option<&Tensor<2>>) -> Result<(), MomentsError> {
        add_product(&mut self.gram, changed.clone().transpose().matmul(changed.clone()))?;
        if let (Some(difference), Some(original)) = (&mut self.difference, original) {
            let miss = original.clone() - changed.clone();
            add_product(difference, miss.transpose().matmul(changed.clone()))?;
        }
        let largest = changed.clone().abs().max_dim(1).into_data().try_to_vec::<f32>();
        let largest = largest.map_err(|error| MomentsError::Device(format!("{error:?}")))?;
        self.rounding += largest.iter().map(|a| f64::from(*a).powi(2) / (12.0 * 127.0 * 127.0)).sum::<f64>();
        self.rows += changed.dims()[0] as u64;
        Ok(())
    }

    /// Whether all sums are finite.
    ///
    /// # Errors
    /// [`MomentsError::NotFinite`], with the first channel that is not.
    pub fn check(&self) -> Result<(), MomentsError> {
        let mut all = self.gram.indexed_iter().chain(self.difference.iter().flat_map(|sums| sums.indexed_iter()));
        match all.find(|(_, value)| !value.is_finite()) {
            Some(((_, column), _)) => Err(MomentsError::NotFinite { column }),
            None => Ok(()),
        }
    }

    /// Mean square of every channel of x̃, (columns).
    pub fn mean_square(&self) -> Vec<f64> {
        let rows = self.rows.max(1) as f64;
        self.gram.diag().iter().map(|square| square / rows).collect()
    }
}

fn add_product(sums: &mut Array2<f64>, product: Tensor<2>) -> Result<(), MomentsError> {
    let values = product.into_data().try_to_vec::<f32>().map_err(|error| MomentsError::Device(format!("{error:?}")))?;
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
    Ok(())
}
