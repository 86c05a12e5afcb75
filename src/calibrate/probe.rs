//! Divergence of a changed model from the original: the original is run once in f32 over some texts, and changes are
//! measured against that run. Language models and classifiers by KL(original ‖ changed) in nats per prediction; bare
//! encoders by 1 − cosine of the mean-pooled hidden states per text.

use crate::disk::TensorError;
use crate::divergence::{Sample, divergence, embedding};
use crate::model::forward::{Batch, BatchError, DenseWeights, StagedContext, StagedForward};
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::model::weights::{Model, ModelError};
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A sequence does not suit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The weights cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device gave tensors of another type back.
    #[error("the device did not return f32 values: {0}")]
    Device(String),
    /// An output is NaN or infinite, or an embedding has no direction.
    #[error("{what} is not finite or has no direction in sequence {sequence}; the model is damaged or overflows")]
    NotFinite {
        /// The output at fault.
        what: &'static str,
        /// From 0.
        sequence: usize,
    },
}

impl From<TensorError> for ProbeError {
    fn from(error: TensorError) -> Self {
        ProbeError::Model(error.into())
    }
}

/// A reference model against which changes are measured. Models are run layer by layer, so that no more than one layer's
/// weights and what is around the layers are in memory.
pub struct Probe<'m> {
    pub(crate) spec: &'m ModelSpec,
    /// The original's head.
    head: DenseWeights,
    pub(crate) device: Device,
    pub(crate) sequences: Vec<Prepared>,
}

/// One sequence of the original's run.
pub(crate) struct Prepared {
    pub(crate) batch: Batch,
    pub(crate) context: StagedContext,
    /// What the head reads, (1, length, hidden), or (1, 1, hidden) for a classifier.
    finished: Tensor<3>,
    /// What the head writes, where there is room to keep it.
    output: Option<Vec<f32>>,
}

/// Bytes of the original's outputs that are kept; those of the other sequences are computed for every comparison.
pub const KEPT_OUTPUTS: usize = 512 << 20;

/// One entry for every sequence.
pub type Samples = Vec<Sample>;

impl<'m> Probe<'m> {
    /// Runs the model over the sequences.
    pub fn new(model: &'m Model, sequences: &[Vec<u32>], device: &Device) -> Result<Self, ProbeError> {
        let spec = &model.spec;
        let head = around(model, device)?;
        let forward = StagedForward::new(spec, &head, device);
        let prepare = |tokens: &Vec<u32>| {
            let batch = Batch::new(spec, tokens.clone(), 1)?;
            Ok(Prepared { context: forward.context(&batch), finished: forward.embed(&batch), output: None, batch })
        };
        let sequences = sequences.iter().map(prepare).collect::<Result<_, ProbeError>>()?;
        let mut probe = Probe { spec, head: head.clone(), device: device.clone(), sequences };
        let finished = probe.outputs_of_layers(model, &head)?;
        for (sequence, hidden) in probe.sequences.iter_mut().zip(finished) {
            sequence.finished = forward.head_input(hidden);
        }
        Ok(probe)
    }

    /// Keeps the original's outputs, for many comparisons.
    pub fn keep_outputs(&mut self) -> Result<(), ProbeError> {
        let mut room = KEPT_OUTPUTS / 4;
        for number in 0..self.sequences.len() {
            let finished = self.sequences[number].finished.clone();
            let Some(rest) = room.checked_sub(self.spec.output_width() * finished.dims()[1]) else { break };
            room = rest;
            self.sequences[number].output = Some(self.outputs(&self.head, finished)?);
        }
        Ok(())
    }

    /// The unit a sample counts: predictions, or texts.
    pub fn unit(&self) -> &'static str {
        match self.spec.head {
            Head::Hidden => "1 - cosine",
            _ => "KLD, nats",
        }
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.batch.tokens().len() as u64).sum()
    }

    /// Sequences.
    pub fn sequences(&self) -> u64 {
        self.sequences.len() as u64
    }

    /// Another model of the same specification, with f32 activations.
    pub fn model(&self, changed: &Model) -> Result<Samples, ProbeError> {
        let around = around(changed, &self.device)?;
        let states = self.outputs_of_layers(changed, &around)?;
        self.judge_from(&around, &states, self.spec.layers.len())
    }

    /// A model of another specification that writes the same outputs: a student.
    pub fn other(&self, other: &Model) -> Result<Samples, ProbeError> {
        let tokens: Vec<Vec<u32>> = self.sequences.iter().map(|own| own.batch.tokens().to_vec()).collect();
        let probe = Probe::new(other, &tokens, &self.device)?;
        let compared = self.sequences.par_iter().zip(&probe.sequences).enumerate().map(|(number, (own, other))| {
            let output = probe.outputs(&probe.head, other.finished.clone())?;
            self.compare(number, &self.original(own)?, &output)
        });
        compared.collect()
    }

    /// The output of the last layer of a model over every sequence, a layer at a time.
    fn outputs_of_layers(&self, model: &Model, around: &DenseWeights) -> Result<Vec<Tensor<3>>, ProbeError> {
        let embed = |sequence: &Prepared| self.forward(around).embed(&sequence.batch);
        let mut states: Vec<Tensor<3>> = self.sequences.par_iter().map(embed).collect();
        for layer in 0..self.spec.layers.len() {
            let weights = DenseWeights::part(model, &self.device, |id| id.layer() == Some(layer as u16))?;
            let block = |(sequence, hidden): (&Prepared, Tensor<3>)| {
                self.forward(&weights).block(layer, hidden, &sequence.context)
            };
            states = self.sequences.par_iter().zip(states).map(block).collect();
        }
        Ok(states)
    }

    /// The output of the original over a sequence.
    pub(crate) fn original<'s>(&self, sequence: &'s Prepared) -> Result<Cow<'s, [f32]>, ProbeError> {
        Ok(match &sequence.output {
            Some(output) => Cow::Borrowed(output),
            None => Cow::Owned(self.outputs(&self.head, sequence.finished.clone())?),
        })
    }

    pub(crate) fn forward<'w>(&'w self, weights: &'w DenseWeights) -> StagedForward<'w> {
        StagedForward::new(self.spec, weights, &self.device)
    }

    /// A model whose `states` before a layer are those of the first sequences.
    pub(crate) fn judge_from(
        &self,
        weights: &DenseWeights,
        states: &[Tensor<3>],
        layer: usize,
    ) -> Result<Samples, ProbeError> {
        let judged = self.sequences.par_iter().zip(states).enumerate();
        judged.map(|(number, (sequence, state))| self.sample(number, sequence, weights, state.clone(), layer)).collect()
    }

    /// A whole model over some of the sequences.
    pub(crate) fn judge(&self, weights: &DenseWeights, sequences: Range<usize>) -> Result<Samples, ProbeError> {
        let judged = sequences.into_par_iter().map(|number| {
            let sequence = &self.sequences[number];
            self.sample(number, sequence, weights, self.forward(weights).embed(&sequence.batch), 0)
        });
        judged.collect()
    }

    /// Runs the layers from `layer` on, and the head.
    fn sample(
        &self,
        number: usize,
        sequence: &Prepared,
        weights: &DenseWeights,
        state: Tensor<3>,
        layer: usize,
    ) -> Result<Sample, ProbeError> {
        // One for every sequence: a forward is not shared between threads.
        let forward = self.forward(weights);
        let layers = layer..self.spec.layers.len();
        let hidden = layers.fold(state, |hidden, layer| forward.block(layer, hidden, &sequence.context));
        let output = self.outputs(weights, forward.head_input(hidden))?;
        let original = self.original(sequence)?;
        self.compare(number, &original, &output)
    }

    /// Output rows of what the head reads.
    fn outputs(&self, weights: &DenseWeights, finished: Tensor<3>) -> Result<Vec<f32>, ProbeError> {
        let forward = self.forward(weights);
        let logits = forward.last(forward.before_last(finished)).into_data();
        logits.try_to_vec::<f32>().map_err(|error| ProbeError::Device(format!("{error:?}")))
    }

    /// The divergence of one sequence: (rows, width) each.
    pub(crate) fn compare(&self, sequence: usize, original: &[f32], changed: &[f32]) -> Result<Sample, ProbeError> {
        let width = self.spec.output_width();
        if let Head::Hidden = self.spec.head {
            let direction =
                |what, states: &[f32]| embedding(states, width).ok_or(ProbeError::NotFinite { what, sequence });
            let (own, other) = (direction("the changed embedding", changed)?, direction("the embedding", original)?);
            let cosine: f64 = own.iter().zip(&other).map(|(a, b)| a * b).sum();
            return Ok(Sample { sum: (1.0 - cosine).max(0.0), count: 1 });
        }
        let mut sample = Sample::default();
        let rows = original.len() / width;
        // A decoder's last position has no target; evaluation leaves it out too.
        let counted = if self.spec.kind == ModelKind::Decoder { rows.saturating_sub(1).max(1) } else { rows };
        for (original, changed) in original.chunks_exact(width).zip(changed.chunks_exact(width)).take(counted) {
            let value = divergence(original, changed);
            if !value.is_finite() {
                return Err(ProbeError::NotFinite { what: "the divergence", sequence });
            }
            sample.sum += value;
            sample.count += 1;
        }
        Ok(sample)
    }
}

/// Embeddings and head.
fn around(model: &Model, device: &Device) -> Result<DenseWeights, ProbeError> {
    Ok(DenseWeights::part(model, device, |id| id.layer().is_none())?)
}
