//! Calibration sequences as batches: sequences of one length go through the forward together, up to [`BATCH_TOKENS`]
//! tokens. The size is fixed, so that sums over batches do not depend on the machine.

use super::CalibrateError;
use crate::model::forward::{Batch, StagedContext, StagedForward};
use crate::model::spec::ModelSpec;
use burn::tensor::Tensor;
use slm_fused::node::{Value, slice};
use std::collections::BTreeMap;

/// Most tokens of a batch, but for a sequence that is longer alone.
pub(crate) const BATCH_TOKENS: usize = 2048;

/// Batches, and what attention needs for every shape there is.
pub(crate) struct Batches {
    /// In the order of the first sequence that each of them has.
    pub(crate) batches: Vec<Batch>,
    contexts: BTreeMap<[usize; 2], StagedContext>,
}

impl Batches {
    /// Batches of the sequences that are not empty, checked against the model.
    pub(crate) fn new(
        spec: &ModelSpec,
        sequences: &[Vec<u32>],
        forward: &StagedForward<'_>,
    ) -> Result<Self, CalibrateError> {
        // By length: the number of the first sequence, and all of them.
        let mut open: BTreeMap<usize, (usize, Vec<u32>)> = BTreeMap::new();
        let mut closed: Vec<(usize, usize, Vec<u32>)> = Vec::new();
        for (number, sequence) in sequences.iter().enumerate().filter(|(_, sequence)| !sequence.is_empty()) {
            let length = sequence.len();
            let (_, tokens) = open.entry(length).or_insert_with(|| (number, Vec::new()));
            tokens.extend_from_slice(sequence);
            if tokens.len() + length > BATCH_TOKENS
                && let Some((first, tokens)) = open.remove(&length)
            {
                closed.push((first, length, tokens));
            }
        }
        closed.extend(open.into_iter().map(|(length, (first, tokens))| (first, length, tokens)));
        closed.sort_by_key(|(first, ..)| *first);
        let mut batches = Batches { batches: Vec::new(), contexts: BTreeMap::new() };
        for (_, length, tokens) in closed {
            let count = tokens.len() / length;
            let batch = Batch::new(spec, tokens, count)?;
            batches.contexts.entry(batch.dims()).or_insert_with(|| forward.context(&batch));
            batches.batches.push(batch);
        }
        if batches.batches.is_empty() { Err(CalibrateError::Nothing) } else { Ok(batches) }
    }

    pub(crate) fn context(&self, batch: &Batch) -> &StagedContext {
        &self.contexts[&batch.dims()]
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.batches.iter().map(|batch| batch.tokens().len() as u64).sum()
    }

    pub(crate) fn sequences(&self) -> u64 {
        self.batches.iter().map(|batch| batch.dims()[0] as u64).sum()
    }
}

/// Shows the values of a tensor, without a copy where they are on the flex device.
pub(crate) fn with_values<const D: usize, R>(
    tensor: &Tensor<D>,
    look: impl FnOnce(&[f32]) -> R,
) -> Result<R, CalibrateError> {
    match Value::of(tensor.clone()) {
        Some(value) => Ok(look(slice(&value.tensor()))),
        None => match tensor.to_data().as_slice::<f32>() {
            Ok(values) => Ok(look(values)),
            Err(error) => Err(CalibrateError::Device(format!("{error:?}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::model::device::device;
    use crate::model::forward::DenseWeights;
    use std::path::Path;

    #[test]
    fn sequences_of_one_length_go_together_in_the_order_of_the_first() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/gpt2");
        let model = open_model(&folder).expect("a golden checkpoint opens");
        let (spec, device) = (&model.spec, device("flex").expect("a device"));
        let weights = DenseWeights::part(&model, &device, |_| false).expect("no weights");
        let forward = StagedForward::new(spec, &weights, &device);
        let lengths = [5, 3, 0, 5, 7, 3, 5];
        let sequences: Vec<Vec<u32>> = lengths.iter().zip(1..).map(|(length, id)| vec![id; *length]).collect();
        let batches = Batches::new(spec, &sequences, &forward).expect("batches");
        let tokens: Vec<&[u32]> = batches.batches.iter().map(|batch| batch.tokens()).collect();
        let of = |ids: &[usize]| ids.iter().flat_map(|id| sequences[*id].clone()).collect::<Vec<u32>>();
        assert_eq!(tokens, [of(&[0, 3, 6]), of(&[1, 5]), of(&[4])]);
        assert_eq!((batches.tokens(), batches.sequences()), (28, 6));
        // Never more tokens than a batch may have.
        let many = vec![vec![1; 7]; 1000];
        let batches = Batches::new(spec, &many, &forward).expect("batches");
        assert!(batches.batches.iter().all(|batch| batch.tokens().len() <= BATCH_TOKENS));
        assert_eq!(batches.batches[0].dims(), [BATCH_TOKENS / 7, 7]);
        let nothing = Batches::new(spec, &[vec![]], &forward);
        assert!(matches!(nothing, Err(CalibrateError::Nothing)));
    }
}
