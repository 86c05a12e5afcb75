//! Reparameterisations between a trained weight and its use: masks that hold zeros, grids that round as the artifact will. The
//! training loop knows only [`Transform`]; pruning and quantization bring their own.

mod held;
pub mod mask;

pub use held::HeldMasks;
pub use mask::{Mask, MaskError, NmPattern, Sparsity};

use super::id::LinearId;

/// A reparameterisation of matrices: the trained values of a matrix need not be its weights.
pub trait Transform: Send + Sync {
    /// Whether the matrix the forward sees is another than the trained values.
    fn changes(&self, id: LinearId) -> bool;

    /// The matrix the forward sees, row-major, for the trained values.
    fn apply(&self, id: LinearId, trained: &[f32]) -> Vec<f32>;

    /// The gradient by the trained values, from that by the matrix the forward sees.
    fn pull_back(&self, id: LinearId, trained: &[f32], gradient: Vec<f32>) -> Vec<f32>;

    /// Changes the trained values of a matrix after a step, where `share` of the steps are done.
    fn settle(&self, _id: LinearId, _share: f64, _trained: &mut [f32]) {}
}

/// No change.
pub struct Identity;

impl Transform for Identity {
    fn changes(&self, _id: LinearId) -> bool {
        false
    }

    fn apply(&self, _id: LinearId, trained: &[f32]) -> Vec<f32> {
        trained.to_vec()
    }

    fn pull_back(&self, _id: LinearId, _trained: &[f32], gradient: Vec<f32>) -> Vec<f32> {
        gradient
    }
}
