//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019) and clipping by the global norm, on the host in f32, in
//! blocks of equal size whatever the tensors: every sum has one order, so the result does not depend on threads.
//!
//! ```text
//! m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//! w ← w − rate · (m̂ / (√v̂ + ε) + decay · w),   m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
//! ```

use super::parameters::{Parameters, TrainedId};
use rayon::prelude::*;
use std::collections::BTreeMap;

const BETA_FIRST: f64 = 0.9;
const BETA_SECOND: f64 = 0.95;
const EPSILON: f32 = 1e-8;
/// Elements summed in f32 before they go into the f64 sum.
const NORM_BLOCK: usize = 4096;
/// Elements of one task.
const UPDATE_BLOCK: usize = 1 << 14;

/// First and second moment of every tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Running mean of gradients.
    pub first: BTreeMap<TrainedId, Vec<f32>>,
    /// Running mean of their squares.
    pub second: BTreeMap<TrainedId, Vec<f32>>,
}

/// Gradients by tensor, each as long as its tensor.
pub type Gradients = BTreeMap<TrainedId, Vec<f32>>;

/// Euclidean norm over all tensors: blocks in f64, tensors in their order.
pub fn global_norm(gradients: &Gradients) -> f64 {
    let blocks: Vec<(usize, &[f32])> = gradients
        .values()
        .enumerate()
        .flat_map(|(tensor, values)| values.chunks(NORM_BLOCK).map(move |block| (tensor, block)))
        .collect();
    let square =
        |&(tensor, block): &(usize, &[f32])| (tensor, block.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>());
    let blocks: Vec<(usize, f64)> = blocks.par_iter().with_min_len(16).map(square).collect();
    let mut squares = vec![0.0; gradients.len()];
    blocks.iter().for_each(|(tensor, square)| squares[*tensor] += square);
    squares.iter().sum::<f64>().sqrt()
}

impl Moments {
    /// Zero moments for these tensors.
    pub fn new(parameters: &Parameters) -> Self {
        let zeros = || parameters.iter().map(|(id, values)| (*id, vec![0.0; values.len()])).collect();
        Moments { first: zeros(), second: zeros() }
    }

    /// One update: step `step`, from 0. Gradients are multiplied by `scale` first.
    pub fn update(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        scale: f64,
        rate: f64,
        decay: f64,
        step: u64,
    ) {
        let power = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let corrections =
            (1.0 - libm::pow(BETA_FIRST, f64::from(power)), 1.0 - libm::pow(BETA_SECOND, f64::from(power)));
        let (first_inverse, second_inverse) = ((1.0 / corrections.0) as f32, (1.0 / corrections.1) as f32);
        let (beta_first, beta_second) = (BETA_FIRST as f32, BETA_SECOND as f32);
        let (scale, rate) = (scale as f32, rate as f32);
        let mut blocks = Vec::new();
        let tensors = parameters.iter_mut().zip(self.first.values_mut()).zip(self.second.values_mut());
        for (((id, values), first), second) in tensors {
            let Some(gradient) = gradients.get(id) else { continue };
            let decay = if id.decays() { decay as f32 } else { 0.0 };
            let moments = first.chunks_mut(UPDATE_BLOCK).zip(second.chunks_mut(UPDATE_BLOCK));
            let all = values.chunks_mut(UPDATE_BLOCK).zip(moments).zip(gradient.chunks(UPDATE_BLOCK));
            blocks.extend(all.map(|((values, (first, second)), gradient)| (decay, values, first, second, gradient)));
        }
        blocks.into_par_iter().for_each(|(decay, values, first, second, gradient)| {
            for (((w, m), v), &g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
                let g = g * scale;
                *m = beta_first * *m + (1.0 - beta_first) * g;
                *v = beta_second * *v + (1.0 - beta_second) * g * g;
                let step = *m * first_inverse / ((*v * second_inverse).sqrt() + EPSILON);
                *w -= rate * (step + decay * *w);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, ParameterId, Role};

    fn id(role: Role) -> TrainedId {
        TrainedId::Parameter(ParameterId::weight(LinearId::global(role)))
    }

    #[test]
    fn the_first_step_is_the_rate_against_the_sign() {
        let token = id(Role::TokenEmbedding);
        let mut parameters: Parameters = BTreeMap::from([(token, vec![1.0, -2.0, 0.5])]);
        let gradients = BTreeMap::from([(token, vec![3.0, -0.1, 0.0])]);
        Moments::new(&parameters).update(&mut parameters, &gradients, 1.0, 0.1, 0.0, 0);
        let expected = [0.9, -1.9, 0.5];
        assert!(parameters[&token].iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-5), "{parameters:?}");
    }

    #[test]
    fn norms_of_many_elements_do_not_depend_on_threads() {
        let gradients: Gradients = BTreeMap::from([
            (id(Role::TokenEmbedding), (0..5_000_000).map(|n| ((n * 7919) % 1009) as f32 * 1e-3 - 0.5).collect()),
            (id(Role::LmHead), (0..300_000).map(|n| (n % 17) as f32).collect()),
        ]);
        let norm = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| global_norm(&gradients)).to_bits()
        };
        assert!((1..=4).all(|threads| norm(threads) == norm(1)));
    }
}
