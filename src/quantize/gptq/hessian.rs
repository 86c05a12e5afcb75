//! The second moments of an input as rounding uses them: H = G + λ I scaled to a mean diagonal of 1, the factor U of its
//! inverse in the order of rounding (H⁻¹ = Uᵀ U), and the error measure tr(E H Eᵀ).

use super::BLOCK;
use crate::calibrate::linear_algebra::{NoFactor, inverse_factor};
use crate::calibrate::moments::Moments;
use crate::model::matrix::{blocks, row_major, row_major_mut};
use crate::model::quantized::QuantizedMatrix;
use crate::quantize::vector::{add, wide};
use ndarray::{Array2, ArrayView2};
use pulp::NullaryFnOnce;
use rayon::prelude::*;

/// The moments of the input of a group of matrices, prepared for rounding them.
#[derive(Clone, Debug)]
pub struct Hessian {
    /// H with mean diagonal 1, (columns, columns).
    pub(super) gram: Array2<f32>,
    /// U in the order of rounding, (columns, columns).
    pub(super) upper: Array2<f32>,
    /// Columns by falling H_jj.
    pub(super) order: Vec<usize>,
    /// Mean square of every input.
    pub importance: Vec<f64>,
    /// λ / mean(diag G).
    pub damping: f64,
    /// Inputs that were never other than zero.
    pub dead: usize,
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
        let factor = inverse_factor(moments.gram.view(), &order)?;
        let mean = diagonal.iter().sum::<f64>() / columns as f64;
        let mut gram = moments.gram.mapv(|value| (value / mean) as f32);
        for (own, value) in gram.diag_mut().iter_mut().zip(&diagonal) {
            let undamped = if *value > 0.0 { value / mean } else { 1.0 };
            *own = (undamped + factor.damping) as f32;
        }
        Ok(Hessian {
            gram,
            upper: factor.upper,
            importance: moments.mean_square(),
            damping: factor.damping,
            dead: factor.dead.len(),
            rounding: moments.rounding / mean,
            loudest: order[0],
            order,
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

    /// tr(E H Eᵀ) of (rows, columns).
    pub(super) fn energy(&self, rows: ArrayView2<'_, f32>) -> f64 {
        let blocks = blocks(rows, BLOCK).into_par_iter().map(|block| {
            let products = self.products(block);
            block.iter().zip(&products).map(|(e, g)| f64::from(e * g)).sum::<f64>()
        });
        // Summed in order, so that the result does not depend on threads.
        blocks.collect::<Vec<f64>>().iter().sum()
    }

    /// E H of a block of rows.
    pub(super) fn products(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut out = Array2::zeros(rows.dim());
        let gram = row_major(self.gram.view());
        wide(AddProducts { rows: row_major(rows), gram, columns: self.columns(), out: row_major_mut(&mut out) });
        out
    }
}

/// Adds E G to `out`.
struct AddProducts<'w> {
    /// E, (rows, columns)
    rows: &'w [f32],
    /// G, (columns, columns)
    gram: &'w [f32],
    columns: usize,
    /// (rows, columns)
    out: &'w mut [f32],
}

impl NullaryFnOnce for AddProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let AddProducts { rows, gram, columns, out } = self;
        for (j, of_column) in gram.chunks_exact(columns).enumerate() {
            for (row, out) in rows.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
                add(out, row[j], of_column);
            }
        }
    }
}
