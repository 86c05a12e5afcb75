//! Masks held through training: masked weights are zero in the forward and get no gradient.

use super::{Mask, Sparsity, Transform};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::matrix::row_major;
use crate::model::weights::{Model, ModelError};
use std::collections::BTreeMap;

/// One mask per sparse matrix; matrices without one pass unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldMasks(pub BTreeMap<LinearId, Mask>);

impl HeldMasks {
    /// The masks of a dense model's sparse matrices, as their zeros lie.
    ///
    /// # Errors
    /// [`ModelError::NotSparse`] where the values contradict `sparsity`; values that cannot be read.
    pub fn of(model: &Model, sparsity: &Sparsity) -> Result<Self, ModelError> {
        let mut masks = BTreeMap::new();
        for (id, ..) in model.spec.matrices() {
            if let Some(pattern) = sparsity.get(&id) {
                let mask = Mask::of_values(id, *pattern, model.matrix(id)?.view());
                masks.insert(id, mask.map_err(|error| ModelError::not_sparse(&model.path, error))?);
            }
        }
        Ok(HeldMasks(masks))
    }

    /// Sets the masked weights of every matrix among the parameters to zero.
    pub fn clear_all(&self, parameters: &mut BTreeMap<ParameterId, Vec<f32>>) {
        for (id, values) in parameters {
            if let ParameterId::Linear(linear, Part::Weight) = id {
                self.clear(*linear, values);
            }
        }
    }

    /// Sets the masked weights of a matrix to zero.
    pub fn clear(&self, id: LinearId, values: &mut [f32]) {
        if let Some(mask) = self.0.get(&id) {
            for (value, keep) in values.iter_mut().zip(row_major(mask.keep())) {
                if !keep {
                    *value = 0.0;
                }
            }
        }
    }
}

impl Transform for HeldMasks {
    fn changes(&self, id: LinearId) -> bool {
        self.0.contains_key(&id)
    }

    fn apply(&self, id: LinearId, trained: &[f32]) -> Vec<f32> {
        let mut seen = trained.to_vec();
        self.clear(id, &mut seen);
        seen
    }

    fn pull_back(&self, id: LinearId, _trained: &[f32], mut gradient: Vec<f32>) -> Vec<f32> {
        self.clear(id, &mut gradient);
        gradient
    }
}
