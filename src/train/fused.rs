//! Gradients of a step on fused operations, for the flex device. The pieces go one after the other, each by all threads,
//! and share one copy of the weights and one of their gradients, which every operation adds to in place: a piece only bounds
//! how many activations are held at once. Weights that no transform changes are lent from the trained values, not copied.

use super::data::Piece;
use super::loss::LossParts;
use super::optimizer::Gradients;
use super::parameters::{Parameters, TrainedId};
use super::trainer::{Run, TrainError};
use super::view::{Lent, View, give_back};
use crate::model::forward::{Batch, FusedForward, FusedWeights, Unobserved, root_without_graph};
use burn::tensor::Tensor;
use slm_fused::head::{Answers, Weighting, losses};
use slm_fused::hidden::{Comparison, distance};
use slm_fused::node::Value;
use slm_fused::weights::{GradientSum, Weight};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the steps of a run share.
pub(super) struct Fused {
    teacher: Option<FusedWeights>,
    /// Memory of the last step's gradients.
    memory: Gradients,
}

impl Fused {
    /// For a run whose device and loss have fused operations: flex, and every loss but of hidden states taken for logits, which
    /// no command asks for.
    pub(super) fn new(run: &Run<'_>) -> Option<Self> {
        Value::of(Tensor::<1>::zeros([1], run.device))?;
        let loss = &run.settings.loss;
        let compares_logits = loss.cross_entropy != 0.0 || loss.divergence != 0.0;
        if compares_logits && matches!(run.spec.head, crate::model::spec::Head::Hidden) {
            return None;
        }
        let teacher = match &run.teacher {
            Some(teacher) => Some(FusedWeights::of(teacher.spec, teacher.weights)?),
            None => None,
        };
        Some(Fused { teacher, memory: Gradients::new() })
    }

    /// Takes the gradients of a step back, once they were used: their memory serves the next.
    pub(super) fn reuse(&mut self, gradients: Gradients) {
        self.memory.extend(gradients);
    }

    /// Gradients of all pieces together, and the loss.
    pub(super) fn gradients(
        &mut self,
        run: &Run<'_>,
        parameters: &mut Parameters,
        view: &View<'_>,
        pieces: &[Piece],
    ) -> Result<(Gradients, LossParts), TrainError> {
        let lent = view.lend(parameters);
        let trained = lent.iter().filter(|(_, lent)| lent.trained);
        let sums: BTreeMap<TrainedId, Arc<GradientSum>> = trained
            .map(|(id, _)| (*id, Arc::new(GradientSum::reusing(self.memory.remove(id).unwrap_or_default()))))
            .collect();
        let result = self.run_pieces(run, &lent, &sums, pieces);
        give_back(parameters, lent);
        let mut gradients = Gradients::new();
        for (id, sum) in sums {
            let Ok(sum) = Arc::try_unwrap(sum) else { continue };
            match sum.into_values() {
                (true, values) => gradients.insert(id, values),
                (false, memory) => self.memory.insert(id, memory),
            };
        }
        Ok((gradients, result?))
    }

    fn run_pieces(
        &self,
        run: &Run<'_>,
        lent: &BTreeMap<TrainedId, Lent>,
        sums: &BTreeMap<TrainedId, Arc<GradientSum>>,
        pieces: &[Piece],
    ) -> Result<LossParts, TrainError> {
        let (mut weights, mut projections) = (BTreeMap::new(), BTreeMap::new());
        for (id, lent) in lent {
            let weight = match sums.get(id) {
                Some(sum) => Weight::trained(lent.values.clone(), sum.clone()),
                None => Weight::fixed(lent.values.clone()),
            };
            match id {
                TrainedId::Parameter(id) => {
                    weights.insert(*id, weight);
                }
                TrainedId::Projection(pair) => {
                    projections.insert(*pair, weight);
                }
                // Seen as part of their matrix.
                TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => {}
            }
        }
        let weights = FusedWeights::new(run.spec, weights);
        let rows: usize = pieces.iter().map(|piece| piece.rows.len()).sum();
        let mut parts = LossParts::default();
        for piece in pieces {
            let share = piece.rows.len() as f64 / rows.max(1) as f64;
            parts.add(&self.piece(run, &weights, &projections, piece, share)?, share);
        }
        Ok(parts)
    }

    /// Adds the gradients of `share` times a piece's loss, and returns the loss.
    fn piece(
        &self,
        run: &Run<'_>,
        weights: &FusedWeights,
        projections: &BTreeMap<u16, Weight>,
        piece: &Piece,
        share: f64,
    ) -> Result<LossParts, TrainError> {
        let settings = &run.settings.loss;
        let keep = settings.needs_hidden();
        let recording = run.device.clone().autodiff();
        let failed = || TrainError::Device("a graph of fused operations needs the flex device".to_owned());
        let root = Value::of(Tensor::<1>::zeros([1], &recording).require_grad()).ok_or_else(failed)?;
        let teacher = run.teacher.as_ref().zip(self.teacher.as_ref()).filter(|_| settings.needs_teacher());
        let teacher = teacher.map(|(teacher, weights)| {
            let forward = FusedForward::new(teacher.spec, weights, keep);
            let states = forward.states(&piece.batch, &root_without_graph(), &mut Unobserved);
            (teacher, forward, states)
        });
        let forward = FusedForward::new(run.spec, weights, keep).recomputing(run.settings.recompute);
        let states = forward.states(&piece.batch, &root, &mut Unobserved);
        let mut parts = LossParts::default();
        let mut total: Option<Tensor<1>> = None;
        let mut add = |value: Value| {
            let value = value.into_tensor::<1>();
            total = Some(match total.take() {
                Some(sum) => sum + value,
                None => value,
            });
        };
        let mut answers = None;
        if let Some((teacher, forward, others)) = teacher {
            if keep {
                let rows = present_rows(&piece.batch);
                let pairs = teacher.pairs.len() as f64;
                for (number, &(own, other)) in teacher.pairs.iter().enumerate() {
                    let comparison = Comparison {
                        teacher: others.hidden_states[other].tensor(),
                        projection: projections.get(&(number as u16)).cloned(),
                        rows: rows.clone(),
                        raw: settings.hidden_raw,
                        factor: settings.hidden * share / pairs,
                    };
                    let (value, loss) = distance(&states.hidden_states[own], comparison);
                    parts.hidden += loss / pairs;
                    add(value);
                }
            }
            if settings.needs_divergence() {
                let rows = forward.head_rows(others.last, &piece.batch, &piece.rows, &mut Unobserved);
                let shared = teacher.shared_tokens;
                answers = forward.head().map(|head| Answers { rows: rows.tensor(), head, shared });
            }
        }
        drop(states.hidden_states);
        let compares_logits = settings.cross_entropy != 0.0 || settings.needs_divergence();
        if let Some(head) = forward.head().filter(|_| compares_logits && !piece.rows.is_empty()) {
            let rows = forward.head_rows(states.last, &piece.batch, &piece.rows, &mut Unobserved);
            let weighting = Weighting {
                cross_entropy: settings.cross_entropy,
                divergence: settings.divergence,
                temperature: settings.temperature,
                share,
            };
            let (value, means) = losses(&rows, &head, &piece.targets, answers.as_ref(), weighting);
            (parts.cross_entropy, parts.divergence) = (means.cross_entropy, means.divergence);
            add(value);
        }
        parts.total = settings.cross_entropy * parts.cross_entropy
            + settings.divergence * parts.divergence
            + settings.hidden * parts.hidden;
        if let Some(total) = total {
            total.backward();
        }
        Ok(parts)
    }
}

/// The rows that are not padding; `None` where all are.
fn present_rows(batch: &Batch) -> Option<Arc<Vec<usize>>> {
    let rows = |mask: &[bool]| mask.iter().enumerate().filter(|(_, there)| **there).map(|(row, _)| row).collect();
    batch.mask().map(|mask| Arc::new(rows(mask)))
}

#[cfg(test)]
mod tests;
