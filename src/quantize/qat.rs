//! Quantization-aware training: the training loop with every matrix rounded to the grid of its scheme on the way to the
//! forward, gradients straight through (Bengio et al. 2013). Grids are searched anew every few steps, and the artifact's
//! integers are the last rounding of the last grids: what was trained is what ships.

use super::search::{Grid, quantize_matrix};
use crate::calibrate::Statistics;
use crate::model::id::{LinearId, Role};
use crate::model::quantized::QuantizedMatrix;
use crate::model::size::Assignment;
use crate::model::spec::ModelSpec;
use crate::model::transform::{HeldMasks, Transform};
use std::collections::BTreeMap;

/// Rounds every matrix to its scheme.
pub struct FakeQuantize {
    shapes: BTreeMap<LinearId, (usize, usize)>,
    assignment: Assignment,
    importance: BTreeMap<LinearId, Vec<f64>>,
    grids: BTreeMap<LinearId, Grid>,
    /// Zeros that stay zero.
    masks: HeldMasks,
}

impl FakeQuantize {
    /// For a model; `statistics` weigh columns in the search as post-training quantization does, `masks` hold what is
    /// sparse.
    pub fn new(spec: &ModelSpec, assignment: &Assignment, statistics: &Statistics, masks: HeldMasks) -> Self {
        let mut importance = BTreeMap::new();
        for (id, ..) in spec.matrices() {
            let tied = id.role == Role::TokenEmbedding && spec.tied_head();
            let source = if tied { LinearId::global(Role::LmHead) } else { id };
            if let Some(stats) = statistics.linears.get(&source) {
                importance.insert(id, stats.mean_square.clone());
            }
        }
        FakeQuantize {
            shapes: spec.matrices().into_iter().map(|(id, rows, columns)| (id, (rows, columns))).collect(),
            assignment: assignment.clone(),
            importance,
            grids: BTreeMap::new(),
            masks,
        }
    }

    /// A matrix rounded to its current grid; to a fresh one before the first search.
    pub fn round(&self, id: LinearId, weights: &[f32]) -> Option<QuantizedMatrix> {
        let weights = self.masks.apply(id, weights);
        match self.grids.get(&id) {
            Some(grid) => Some(grid.round(&weights)),
            None => self.search(id, &weights),
        }
    }

    fn search(&self, id: LinearId, weights: &[f32]) -> Option<QuantizedMatrix> {
        let ((rows, columns), scheme) = (*self.shapes.get(&id)?, *self.assignment.get(&id)?);
        Some(quantize_matrix(weights, rows, columns, scheme, self.importance.get(&id).map(Vec::as_slice)))
    }
}

impl Transform for FakeQuantize {
    fn apply(&self, id: LinearId, weights: &[f32]) -> Vec<f32> {
        self.round(id, weights).map_or_else(|| weights.to_vec(), |matrix| matrix.dequantize())
    }

    fn mask_gradient(&self, id: LinearId, gradient: &mut [f32]) {
        self.masks.mask_gradient(id, gradient);
    }

    fn refresh(&mut self, _step: u64, weights: &dyn Fn(LinearId) -> Option<Vec<f32>>) {
        for id in self.shapes.keys().copied().collect::<Vec<_>>() {
            if let Some(matrix) = weights(id).and_then(|weights| self.search(id, &self.masks.apply(id, &weights))) {
                self.grids.insert(id, Grid::of(&matrix));
            }
        }
    }
}
