//! What stands between a trained weight and its use: masks that hold zeros, grids that round as the artifact will. The
//! training loop knows only [`Transform`]; pruning and quantization bring their own.

mod held;
pub mod mask;

pub use held::HeldMasks;
pub use mask::{Mask, MaskError, NmPattern, Sparsity, UnknownPattern};

use super::id::LinearId;

/// A change of matrices that training looks through. Gradients pass straight through it but where a mask holds a zero.
pub trait Transform: Send + Sync {
    /// The matrix the forward sees, row-major, for the trained one.
    fn apply(&self, id: LinearId, weights: &[f32]) -> Vec<f32>;

    /// Takes away the part of a gradient that must not move the trained matrix.
    fn mask_gradient(&self, id: LinearId, gradient: &mut [f32]);

    /// Looks at all trained matrices before step `step`: grids are searched anew at fixed steps, so that a run that is
    /// resumed does what an uninterrupted one does.
    fn refresh(&mut self, step: u64, weights: &dyn Fn(LinearId) -> Option<Vec<f32>>);
}

/// No change.
pub struct Identity;

impl Transform for Identity {
    fn apply(&self, _id: LinearId, weights: &[f32]) -> Vec<f32> {
        weights.to_vec()
    }

    fn mask_gradient(&self, _id: LinearId, _gradient: &mut [f32]) {}

    fn refresh(&mut self, _step: u64, _weights: &dyn Fn(LinearId) -> Option<Vec<f32>>) {}
}
