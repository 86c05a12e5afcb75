//! Sensitivity of a decoder's predictions to the rows it looks up in the token table: G = Σ g gᵀ, g the gradient of a
//! sequence's log-probability by one looked-up row. Like the Gram matrix of a head's inputs it is in units of the
//! Kullback–Leibler divergence, of which both are second-order terms: an error e in the row of a token costs ½ n (eᵀ G
//! e) / N as a lookup and ½ n (eᵀ H e) / N as a row of a tied head, n how often the token occurs among N. So for a tied
//! table the two add up.
//!
//! Gradients go back layer by layer: the hidden states before every layer are kept from the forward, and a layer's graph is
//! made again from them when the gradients of its outputs are there. So memory holds one layer's weights, one batch's graph
//! of one layer, and `4 · tokens · hidden · (layers + 2)` bytes of states; no gradient of a weight is ever made.

use super::CalibrateError;
use super::batches::{BATCH_TOKENS, Batches};
use super::layerwise::Layerwise;
use super::moments::{MomentSums, Moments};
use crate::model::forward::{Batch, DenseWeights, StagedForward};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::ModelSpec;
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};

/// Tokens that suffice for one channel of the table.
const TOKENS_PER_CHANNEL: usize = 4;
/// Tokens that suffice for any table.
const MOST_TOKENS: usize = 4096;

/// The states of some batches before every layer, and what gradients need beside them.
pub(super) struct Lookups<'a> {
    pass: &'a Layerwise<'a>,
    batches: &'a Batches,
    /// How many batches.
    count: usize,
    /// Where graphs of gradients are recorded, for operations that are not fused; fused ones take weights as they are.
    weights_on: Device,
    /// By layer and batch.
    states: Vec<Vec<Tensor<3>>>,
}

/// Bytes of states, of one batch's graph of a layer and of the head's logits, at most.
pub fn memory_bytes(spec: &ModelSpec) -> u64 {
    let widest = spec.layers.iter().map(|layer| layer.ffn.width).max().unwrap_or(0);
    let states = 4 * MOST_TOKENS * spec.hidden * (spec.layers.len() + 2);
    let graph = 4 * BATCH_TOKENS * (16 * spec.hidden + 6 * widest);
    (states + graph + 4 * spec.vocabulary * (spec.hidden + 256)) as u64
}

impl<'a> Lookups<'a> {
    /// How many batches suffice, from the first.
    pub(super) fn batches(spec: &ModelSpec, batches: &Batches) -> usize {
        let wanted = (TOKENS_PER_CHANNEL * spec.hidden).min(MOST_TOKENS);
        let mut tokens = 0;
        let short = |batch: &&Batch| {
            let more = tokens < wanted;
            tokens += batch.tokens().len();
            more
        };
        batches.batches.iter().take_while(short).count()
    }

    /// For the first `count` batches.
    pub(super) fn new(pass: &'a Layerwise<'a>, batches: &'a Batches, count: usize) -> Self {
        let device = pass.device.clone();
        let weights_on = if StagedForward::is_fused(&device) { device } else { device.autodiff() };
        Lookups { pass, batches, count, weights_on, states: Vec::new() }
    }

    /// Keeps the hidden states before a layer, of as many batches as there are, the first among them.
    pub(super) fn before_layer(&mut self, hidden: &[Tensor<3>]) {
        if self.count > 0 {
            self.states.push(hidden[..self.count].to_vec());
        }
    }

    fn weights(&self, wanted: impl Fn(ParameterId) -> bool) -> Result<DenseWeights, CalibrateError> {
        Ok(DenseWeights::part(self.pass.model, &self.weights_on, wanted)?)
    }

    /// Σ g gᵀ over the tokens that it was kept of. `hidden` are the outputs of the last layer.
    pub(super) fn sensitivity(
        mut self,
        hidden: &[Tensor<3>],
        progress: &dyn Progress,
    ) -> Result<Moments, CalibrateError> {
        let spec = &self.pass.model.spec;
        let mut gradients = self.of_outputs(&hidden[..self.count])?;
        for layer in (0..spec.layers.len()).rev() {
            let weights = self.weights(|id| id.layer() == Some(layer as u16))?;
            let forward = StagedForward::new(spec, &weights, &self.weights_on);
            let states = self.states.pop().unwrap_or_default();
            for ((state, gradient), batch) in states.iter().zip(&mut gradients).zip(&self.batches.batches) {
                let leaf = leaf_of(state);
                let context = forward.context(batch);
                let output = forward.block(layer, leaf.clone(), &context);
                let along = Tensor::from_inner(gradient.clone()) * output;
                *gradient = of_leaf(&leaf, &along.sum().backward())?;
            }
            progress.advance(1);
        }
        let mut sums = MomentSums::new(spec.hidden, false);
        for gradient in gradients {
            sums.add(&(gradient * f64::from(spec.embedding_scale)), None)?;
        }
        sums.finish().map_err(|source| CalibrateError::Moments { id: LinearId::global(Role::TokenEmbedding), source })
    }

    /// Gradients by the outputs of the last layer, of the batches' log-probabilities but for their sign.
    fn of_outputs(&self, hidden: &[Tensor<3>]) -> Result<Vec<Tensor<3>>, CalibrateError> {
        let spec = &self.pass.model.spec;
        let weights = self.weights(|id| id.layer().is_none())?;
        let forward = StagedForward::new(spec, &weights, &self.weights_on);
        let one = |(states, batch): (&Tensor<3>, &Batch)| {
            let [count, length] = batch.dims();
            if length < 2 {
                return Ok(states.zeros_like());
            }
            let leaf = leaf_of(states);
            let rows = forward.before_last(forward.head_input(leaf.clone())).narrow(1, 0, length - 1);
            let rows = rows.reshape([count * (length - 1), spec.hidden]);
            let next = batch.tokens().chunks_exact(length).flat_map(|tokens| &tokens[1..]);
            let next: Vec<i32> = next.map(|token| token.cast_signed()).collect();
            match forward.surprise(rows, &next) {
                Some(surprise) => of_leaf(&leaf, &surprise.backward()),
                None => Ok(states.zeros_like()),
            }
        };
        hidden.iter().zip(&self.batches.batches).map(one).collect()
    }
}

/// A leaf of the gradient graph: gradients do not go back beyond it.
fn leaf_of(states: &Tensor<3>) -> Tensor<3> {
    Tensor::from_inner(states.clone()).require_grad()
}

fn of_leaf(leaf: &Tensor<3>, gradients: &burn::tensor::Gradients) -> Result<Tensor<3>, CalibrateError> {
    leaf.grad(gradients).ok_or_else(|| CalibrateError::Device("no gradient by the looked-up rows".to_owned()))
}
