//! The second moments of an input as rounding uses them: H = G + λ I scaled to a mean diagonal of 1, the factor U of its
//! inverse in the order of rounding (H⁻¹ = Uᵀ U), and the error measure tr(E H Eᵀ).

use crate::calibrate::linear_algebra::{InverseFactor, NoFactor};
use crate::calibrate::moments::Moments;
use crate::model::matrix::{blocks, row_major};
use crate::model::quantized::QuantizedMatrix;
use ndarray::{Array2, ArrayView2};
use slm_numerics::rounding::layerwise::{Inputs, TILE, energy};

/// The moments of the input of a group of matrices, prepared for rounding them.
#[derive(Clone, Debug)]
pub struct Hessian {
    /// H with mean diagonal 1, (columns, columns).
    gram: Array2<f32>,
    /// U in the order of rounding, (columns, columns).
    upper: Array2<f32>,
    /// Columns by falling H_jj.
    order: Vec<usize>,
    /// Mean square of every input.
    pub importance: Vec<f64>,
    /// The factor of its inverse, in the order of rounding.
    pub factor: InverseFactor,
    /// Squared error that 8-bit inputs put on every channel, in the unit of `gram`.
    rounding: f64,
    /// The channel of the largest inputs.
    pub loudest: usize,
}

impl Hessian {
    /// From the moments of an input.
    ///
    /// # Errors
    /// [`NoFactor`].
    pub fn new(moments: &Moments) -> Result<Self, NoFactor> {
        let columns = moments.columns();
        let diagonal: Vec<f64> = moments.gram.diag().to_vec();
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]).then(a.cmp(b)));
        let factor = InverseFactor::new(moments.gram.view(), &order)?;
        let mean = diagonal.iter().sum::<f64>() / columns as f64;
        let mut gram = moments.gram.mapv(|value| (value / mean) as f32);
        for (own, value) in gram.diag_mut().iter_mut().zip(&diagonal) {
            let undamped = if *value > 0.0 { value / mean } else { 1.0 };
            *own = (undamped + factor.damping) as f32;
        }
        Ok(Hessian {
            gram,
            upper: factor.upper(),
            importance: moments.mean_square(),
            rounding: moments.rounding / mean,
            loudest: order[0],
            order,
            factor,
        })
    }

    /// Width of the input.
    pub fn columns(&self) -> usize {
        self.gram.ncols()
    }

    /// tr(E H Eᵀ) / tr(W H Wᵀ).
    pub fn relative_error(&self, weights: ArrayView2<'_, f32>, matrix: &QuantizedMatrix) -> f64 {
        let miss = &weights - &matrix.dequantize();
        let size = self.energy(weights);
        if size > 0.0 { self.energy(miss.view()) / size } else { 0.0 }
    }

    /// Squared error of the outputs by rounding inputs to 8 bits, as a share of the outputs.
    pub fn activation_error(&self, weights: ArrayView2<'_, f32>) -> f64 {
        let size = self.energy(weights);
        let squares: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
        if size > 0.0 { self.rounding * squares / size } else { 0.0 }
    }

    /// As rounding takes it.
    pub(super) fn inputs(&self) -> Inputs<'_> {
        let (gram, upper) = (row_major(self.gram.view()), row_major(self.upper.view()));
        Inputs { gram, upper, order: &self.order }
    }

    /// tr(E H Eᵀ) of (rows, columns).
    fn energy(&self, rows: ArrayView2<'_, f32>) -> f64 {
        let gram = row_major(self.gram.view());
        blocks(rows, TILE).into_iter().map(|block| energy(row_major(block), gram).iter().sum::<f64>()).sum()
    }
}
