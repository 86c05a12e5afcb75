//! Masks that may still move while a model is trained back (SR-STE, Zhou et al. 2021): the forward sees the N weights of
//! largest score of every group, gradients go to all, and those that are not seen shrink by a share every step, so that a
//! weight comes back where its gradient insists. From a share of the steps on the masks stand: what is not seen is zero.
//!
//! ```text
//! seen      m ⊙ w,  m from |w| · √h,  h the mean square of the weight's input, or from |w|
//! gradient  ∂/∂w = ∂/∂(m ⊙ w)
//! decay     w ← (1 − DECAY) · w where m is 0
//! ```

use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::matrix::row_major;
use crate::model::transform::{HeldMasks, Mask, NmPattern, Transform};
use ndarray::ArrayView2;
use std::collections::BTreeMap;

/// The share that a weight loses in a step in which it is not seen.
const DECAY: f32 = 2e-2;

/// A matrix whose mask moves.
struct Moving {
    pattern: NmPattern,
    /// √h by column.
    roots: Vec<f32>,
}

/// Masks that move up to a share of the steps, and others that are held.
pub struct MovingMasks {
    moving: BTreeMap<LinearId, Moving>,
    held: HeldMasks,
    until: f64,
}

impl MovingMasks {
    /// Matrices with their patterns and √h of their columns; `held` are the masks of others, `until` the share of the steps
    /// from which on all masks stand.
    pub fn new(moving: BTreeMap<LinearId, (NmPattern, Vec<f32>)>, held: HeldMasks, until: f64) -> Self {
        let moving = moving.into_iter().map(|(id, (pattern, roots))| (id, Moving { pattern, roots })).collect();
        MovingMasks { moving, held, until }
    }

    /// The mask of a matrix as its values are; `None` for one whose mask does not move.
    pub fn mask(&self, id: LinearId, values: &[f32]) -> Option<Mask> {
        let Moving { pattern, roots } = self.moving.get(&id)?;
        let columns = roots.len();
        let score = |(place, value): (usize, &f32)| value.abs() * roots[place % columns];
        let scores: Vec<f32> = values.iter().enumerate().map(score).collect();
        let scores = ArrayView2::from_shape((values.len() / columns, columns), &scores).ok()?;
        Mask::of_largest(id, *pattern, scores).ok()
    }

    /// Sets what the masks do not keep of every matrix among the parameters to zero.
    pub fn clear_all(&self, parameters: &mut BTreeMap<ParameterId, Vec<f32>>) {
        for (id, values) in parameters {
            if let ParameterId::Linear(linear, Part::Weight) = id {
                *values = self.apply(*linear, values);
            }
        }
    }

    /// Changes the values that a mask does not keep.
    fn change_hidden(&self, id: LinearId, trained: &[f32], values: &mut [f32], change: impl Fn(&mut f32)) {
        match self.mask(id, trained) {
            Some(mask) => {
                let pairs = values.iter_mut().zip(row_major(mask.keep()));
                pairs.filter(|(_, keep)| !**keep).for_each(|(value, _)| change(value));
            }
            None => self.held.clear(id, values),
        }
    }
}

impl Transform for MovingMasks {
    fn changes(&self, id: LinearId) -> bool {
        self.moving.contains_key(&id) || self.held.changes(id)
    }

    fn apply(&self, id: LinearId, trained: &[f32]) -> Vec<f32> {
        let mut seen = trained.to_vec();
        self.change_hidden(id, trained, &mut seen, |value| *value = 0.0);
        seen
    }

    fn pull_back(&self, id: LinearId, trained: &[f32], mut gradient: Vec<f32>) -> Vec<f32> {
        if !self.moving.contains_key(&id) {
            return self.held.pull_back(id, trained, gradient);
        }
        // A weight that was let go of stays so.
        gradient.iter_mut().zip(trained).filter(|(_, value)| **value == 0.0).for_each(|(slope, _)| *slope = 0.0);
        gradient
    }

    fn settle(&self, id: LinearId, share: f64, trained: &mut [f32]) {
        if self.moving.contains_key(&id) {
            let left = if share >= self.until { 0.0 } else { 1.0 - DECAY };
            let values = trained.to_vec();
            self.change_hidden(id, &values, trained, |value| *value *= left);
        }
    }
}
