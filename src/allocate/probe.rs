//! The measured cost of storing matrices otherwise: the model is run in f32 over text it was not calibrated on, with some
//! matrices as their integers stand for, and compared with itself ([`crate::calibrate::probe`]). One changed
//! matrix costs only the layers from its own on: the layers before it are kept from the original's run. The model that is
//! chosen is measured as the artifact it will be.

use super::database::Database;
use super::error::AllocationError;
use super::items::{Coding, Item};
use crate::artifact::host::run_sequence;
use crate::artifact::runner::ModelRunner;
use crate::calibrate::probe::{Prepared, Probe as Comparison, ProbeError};
use crate::model::forward::DenseWeights;
use crate::model::id::Class;
use crate::model::matrix::into_values;
use crate::model::spec::ModelKind;
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use std::ops::Range;

pub use crate::calibrate::probe::Samples;

/// The first sequences are one of so many.
const FIRST_OF_DECODERS: usize = 4;

/// The sequences in an order in which the first are from all of the text.
fn spread(kind: ModelKind, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let step = if kind == ModelKind::Decoder { FIRST_OF_DECODERS } else { 1 };
    (0..step).flat_map(|first| sequences.iter().skip(first).step_by(step).cloned()).collect()
}

/// A model beside which its assignments are judged.
pub struct Probe<'m> {
    original: Comparison<'m>,
    /// All of the original's weights, since its assignments are many.
    weights: DenseWeights,
    runner: &'m dyn ModelRunner,
}

impl<'m> Probe<'m> {
    /// Runs the model over the sequences; artifacts are made by `runner`.
    pub fn new(
        model: &'m Model,
        sequences: &[Vec<u32>],
        runner: &'m dyn ModelRunner,
        device: &Device,
    ) -> Result<Self, AllocationError> {
        let weights = DenseWeights::new(model, device).map_err(ProbeError::from)?;
        let mut original = Comparison::new(model, &spread(model.spec.kind, sequences), device)?;
        original.keep_outputs()?;
        Ok(Probe { original, weights, runner })
    }

    /// The unit of a sample: predictions, or texts.
    pub fn unit(&self) -> &'static str {
        self.original.unit()
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.original.tokens()
    }

    /// Sequences.
    pub fn sequences(&self) -> u64 {
        self.original.sequences()
    }

    /// The whole model with every item in the coding of `selection`, over some of the sequences.
    pub fn assignment(
        &self,
        items: &[Item],
        selection: &[usize],
        database: &Database,
        sequences: Range<usize>,
    ) -> Result<Samples, AllocationError> {
        let mut weights = self.weights.clone();
        for (item, &coding) in items.iter().zip(selection) {
            self.replace(&mut weights, item, item.codings[coding], database);
        }
        Ok(self.original.judge(&weights, sequences)?)
    }

    /// All sequences.
    pub fn all(&self) -> Range<usize> {
        0..self.original.sequences.len()
    }

    /// The first sequences, on which items are measured alone and neighbours are looked at first. Windows of a decoder have
    /// hundreds of predictions each; an encoder's texts have one.
    pub fn first(&self) -> Range<usize> {
        let all = self.original.sequences.len();
        0..match self.original.spec.kind {
            ModelKind::Decoder => all.div_ceil(FIRST_OF_DECODERS),
            ModelKind::Encoder | ModelKind::EncoderDecoder(_) => all,
        }
    }

    /// Every item alone in each of its codings but the first, over the first sequences, the others as they were: `[item][coding - 1]`.
    pub fn alone(
        &self,
        items: &[Item],
        database: &Database,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Samples>>, AllocationError> {
        let original = &self.original;
        let work = items.iter().map(|item| item.codings.len() as u64 - 1).sum();
        progress.begin("measuring every matrix alone", work, "variants");
        let first = self.first();
        let sequences = &original.sequences[first.clone()];
        let embed = |sequence: &Prepared| original.forward(&self.weights).embed(&sequence.batch);
        let mut states: Vec<Tensor<3>> = sequences.par_iter().map(embed).collect();
        let (mut out, mut done) = (Vec::with_capacity(items.len()), 0);
        for item in items {
            let member = item.members[0];
            // Where the run parts from the original's: at the embedding, in a layer, or in the head.
            let layer = match (member.layer, member.role.class()) {
                (Some(layer), _) => usize::from(layer),
                (None, Class::Embedding) => 0,
                (None, _) => original.spec.layers.len(),
            };
            while done < layer {
                states = sequences
                    .par_iter()
                    .zip(states)
                    .map(|(sequence, hidden)| original.forward(&self.weights).block(done, hidden, &sequence.context))
                    .collect();
                done += 1;
            }
            let mut of_item = Vec::new();
            for &coding in item.codings.iter().skip(1) {
                let mut weights = self.weights.clone();
                self.replace(&mut weights, item, coding, database);
                let samples = if member.role.class() == Class::Embedding {
                    original.judge(&weights, first.clone())
                } else {
                    original.judge_from(&weights, &states, layer)
                };
                of_item.push(samples?);
                progress.advance(1);
            }
            out.push(of_item);
        }
        progress.finish();
        Ok(out)
    }

    /// A quantized model as the artifact that ships, but for the layout, run by the runtime.
    pub fn artifact(&self, model: &Model) -> Result<Samples, AllocationError> {
        let sequences = &self.original.sequences;
        let longest = sequences.iter().map(|sequence| sequence.batch.tokens().len()).max();
        let bytes = self.runner.artifact(model, "probe", longest).map_err(AllocationError::Compile)?;
        let view = ArtifactView::open(&bytes).map_err(AllocationError::Artifact)?;
        let judge = |(number, sequence): (usize, &Prepared)| {
            let output = run_sequence(&view, sequence.batch.tokens()).map_err(AllocationError::Session)?;
            let original = self.original.original(sequence)?;
            Ok(self.original.compare(number, &original, &output)?)
        };
        sequences.par_iter().enumerate().map(judge).collect()
    }

    fn replace(&self, weights: &mut DenseWeights, item: &Item, coding: Coding, database: &Database) {
        for id in &item.members {
            let matrix = database.matrix(*id, coding.scheme);
            let data = TensorData::new(into_values(matrix.dequantize()), [matrix.rows(), matrix.columns()]);
            weights.replace(*id, Tensor::from_data(data, &self.original.device));
        }
    }
}
