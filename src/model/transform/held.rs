//! Masks held through training: masked weights are zero in the forward and get no gradient.

use super::{Mask, Transform};
use crate::model::id::LinearId;
use std::collections::BTreeMap;

/// One mask per sparse matrix; matrices without one pass unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldMasks(pub BTreeMap<LinearId, Mask>);

impl HeldMasks {
    /// Sets the masked weights of a matrix to zero.
    pub fn clear(&self, id: LinearId, values: &mut [f32]) {
        if let Some(mask) = self.0.get(&id) {
            for (value, keep) in values.iter_mut().zip(mask.keep()) {
                if !keep {
                    *value = 0.0;
                }
            }
        }
    }
}

impl Transform for HeldMasks {
    fn apply(&self, id: LinearId, weights: &[f32]) -> Vec<f32> {
        let mut seen = weights.to_vec();
        self.clear(id, &mut seen);
        seen
    }

    fn mask_gradient(&self, id: LinearId, gradient: &mut [f32]) {
        self.clear(id, gradient);
    }

    fn refresh(&mut self, _step: u64, _weights: &dyn Fn(LinearId) -> Option<Vec<f32>>) {}
}
