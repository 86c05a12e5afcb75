//! The measured cost of storing matrices otherwise: the model is run in f32 over text it was not calibrated on, with some
//! matrices as their integers stand for, and compared with itself. Language models and classifiers by KL(original ‖
//! changed) in nats per prediction; bare encoders by 1 − cosine of the mean-pooled hidden states per text. One changed
//! matrix costs only the layers from its own on: what comes before it is kept from the original's run.

use super::database::Database;
use super::items::{Coding, Item};
use crate::artifact::host::run_sequence;
use crate::compile::fit::Device as Target;
use crate::compile::{CompileError, HostSections, TextSection, compile};
use crate::disk::TensorError;
use crate::divergence::{Sample, divergence, embedding};
use crate::model::forward::{AttentionContext, Batch, BatchError, DenseWeights, Forward, NoTaps};
use crate::model::id::Class;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::model::weights::{Model, ModelError};
use crate::progress::{Progress, Silent};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::session::SessionError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A sequence does not suit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device gave tensors of another type back.
    #[error("the device did not return f32 values: {0}")]
    Device(String),
    /// An output is NaN or infinite, or an embedding has no direction.
    #[error("{what} is not finite or has no direction in sequence {sequence}; the model is damaged or overflows")]
    NotFinite {
        /// Whose output.
        what: &'static str,
        /// From 0.
        sequence: usize,
    },
    /// The chosen model does not compile.
    #[error("the chosen mix does not compile: {0}")]
    Compile(Box<CompileError>),
    /// What was compiled does not open.
    #[error("the chosen mix does not open, which is a defect of slmc: {0}")]
    Artifact(FormatError),
    /// The runtime failed.
    #[error("the chosen mix does not run: {0}")]
    Session(SessionError),
}

impl From<TensorError> for ProbeError {
    fn from(error: TensorError) -> Self {
        ProbeError::Model(error.into())
    }
}

/// A model beside which changes of it are judged.
pub struct Probe<'m> {
    spec: &'m ModelSpec,
    weights: DenseWeights,
    device: Device,
    sequences: Vec<Prepared>,
}

/// One sequence of the original's run.
struct Prepared {
    batch: Batch,
    context: AttentionContext,
    /// Output of the last layer, after the final norm, (1, length, hidden).
    finished: Tensor<3>,
}

/// One entry for every sequence.
pub type Samples = Vec<Sample>;

impl<'m> Probe<'m> {
    /// Runs the model over the sequences.
    pub fn new(model: &'m Model, sequences: &[Vec<u32>], device: &Device) -> Result<Self, ProbeError> {
        let spec = &model.spec;
        let weights = DenseWeights::new(model, device)?;
        let prepare = |tokens: &Vec<u32>| {
            // Made for every sequence: a forward is not shared between threads.
            let forward = Forward::new(spec, &weights, device);
            let batch = Batch::new(spec, tokens.clone(), 1)?;
            let context = forward.context(&batch);
            let hidden = forward.embed(&batch);
            let layers = 0..spec.layers.len();
            let hidden = layers.fold(hidden, |hidden, layer| forward.block(layer, hidden, &context, &mut NoTaps));
            Ok(Prepared { batch, context, finished: forward.finish(hidden) })
        };
        let sequences = sequences.par_iter().map(prepare).collect::<Result<_, ProbeError>>()?;
        Ok(Probe { spec, weights, device: device.clone(), sequences })
    }

    /// What a sample counts: predictions, or texts.
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

    /// The whole model with every item in the coding of `selection`.
    pub fn mix(&self, items: &[Item], selection: &[usize], database: &Database) -> Result<Samples, ProbeError> {
        let mut weights = self.weights.clone();
        for (item, &coding) in items.iter().zip(selection) {
            self.replace(&mut weights, item, item.codings[coding], database);
        }
        self.judge(&weights, |sequence| self.forward(&weights).embed(&sequence.batch), 0)
    }

    /// Another model of the same specification, with f32 activations.
    pub fn model(&self, changed: &Model) -> Result<Samples, ProbeError> {
        let weights = DenseWeights::new(changed, &self.device)?;
        self.judge(&weights, |sequence| self.forward(&weights).embed(&sequence.batch), 0)
    }

    /// Every item alone in each of its codings but the first, the others as they were: `[item][coding - 1]`.
    pub fn alone(
        &self,
        items: &[Item],
        database: &Database,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Samples>>, ProbeError> {
        let work = items.iter().map(|item| item.codings.len() as u64 - 1).sum();
        progress.begin("measuring every matrix alone", work, "variants");
        let mut states: Vec<Tensor<3>> =
            self.sequences.par_iter().map(|sequence| self.forward(&self.weights).embed(&sequence.batch)).collect();
        let (mut out, mut done) = (Vec::with_capacity(items.len()), 0);
        for item in items {
            let first = item.members[0];
            // Where the run parts from the original's: at the embedding, in a layer, or in the head.
            let layer = match (first.layer, first.role.class()) {
                (Some(layer), _) => usize::from(layer),
                (None, Class::Embedding) => 0,
                (None, _) => self.spec.layers.len(),
            };
            while done < layer {
                states = self
                    .sequences
                    .par_iter()
                    .zip(states)
                    .map(|(sequence, hidden)| {
                        self.forward(&self.weights).block(done, hidden, &sequence.context, &mut NoTaps)
                    })
                    .collect();
                done += 1;
            }
            let mut of_item = Vec::new();
            for &coding in item.codings.iter().skip(1) {
                let mut weights = self.weights.clone();
                self.replace(&mut weights, item, coding, database);
                let samples = if first.role.class() == Class::Embedding {
                    self.judge(&weights, |sequence| self.forward(&weights).embed(&sequence.batch), 0)
                } else {
                    self.judge_from(&weights, &states, layer)
                };
                of_item.push(samples?);
                progress.advance(1);
            }
            out.push(of_item);
        }
        progress.finish();
        Ok(out)
    }

    /// A quantized model as an artifact for `layout`, run by the runtime: what ships.
    pub fn artifact(&self, model: &Model, layout: Layout) -> Result<Samples, ProbeError> {
        let text = TextSection {
            vocabulary: vec![Vec::new(); self.spec.vocabulary],
            strip_leading_space: false,
            tables: None,
        };
        let longest = self.sequences.iter().map(|sequence| sequence.batch.tokens().len()).max();
        let target = Target::unlimited("probe", layout);
        let compiled = compile(model, &target, longest, &text, &HostSections::default(), &Silent)
            .map_err(|error| ProbeError::Compile(Box::new(error)))?;
        let view = ArtifactView::open(&compiled.bytes).map_err(ProbeError::Artifact)?;
        let judge = |(number, sequence): (usize, &Prepared)| {
            let output = run_sequence(&view, sequence.batch.tokens()).map_err(ProbeError::Session)?;
            let original = self.outputs(&self.weights, sequence.finished.clone())?;
            self.compare(number, &original, &output)
        };
        self.sequences.par_iter().enumerate().map(judge).collect()
    }

    fn forward<'w>(&'w self, weights: &'w DenseWeights) -> Forward<'w> {
        Forward::new(self.spec, weights, &self.device)
    }

    fn replace(&self, weights: &mut DenseWeights, item: &Item, coding: Coding, database: &Database) {
        for id in &item.members {
            let matrix = database.matrix(*id, coding.scheme);
            let data = TensorData::new(matrix.dequantize(), [matrix.rows, matrix.columns]);
            weights.replace(*id, Tensor::from_data(data, &self.device));
        }
    }

    fn judge_from(&self, weights: &DenseWeights, states: &[Tensor<3>], layer: usize) -> Result<Samples, ProbeError> {
        let judged = self.sequences.par_iter().zip(states).enumerate();
        judged.map(|(number, (sequence, state))| self.sample(number, sequence, weights, state.clone(), layer)).collect()
    }

    fn judge(
        &self,
        weights: &DenseWeights,
        start: impl Fn(&Prepared) -> Tensor<3> + Sync,
        layer: usize,
    ) -> Result<Samples, ProbeError> {
        let judged = self.sequences.par_iter().enumerate();
        judged.map(|(number, sequence)| self.sample(number, sequence, weights, start(sequence), layer)).collect()
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
        let forward = self.forward(weights);
        let layers = layer..self.spec.layers.len();
        let hidden = layers.fold(state, |hidden, layer| forward.block(layer, hidden, &sequence.context, &mut NoTaps));
        let output = self.outputs(weights, forward.finish(hidden))?;
        let original = self.outputs(&self.weights, sequence.finished.clone())?;
        self.compare(number, &original, &output)
    }

    /// Output rows of finished hidden states.
    fn outputs(&self, weights: &DenseWeights, finished: Tensor<3>) -> Result<Vec<f32>, ProbeError> {
        let logits = self.forward(weights).head(finished, &mut NoTaps);
        logits.into_data().try_to_vec::<f32>().map_err(|error| ProbeError::Device(format!("{error:?}")))
    }

    /// The divergence of one sequence: (rows, width) each.
    fn compare(&self, sequence: usize, original: &[f32], changed: &[f32]) -> Result<Sample, ProbeError> {
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
        // A decoder's last position predicts what no text checks; evaluation leaves it out too.
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
