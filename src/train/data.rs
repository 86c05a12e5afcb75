//! The training data of a step. Every sample is a pure function of (data, settings, step), so that a resumed run sees
//! the same samples as an uninterrupted one: they are drawn without replacement, in a new shuffled order for every
//! epoch.

use crate::model::forward::{Batch, BatchError};
use crate::model::spec::ModelSpec;
use crate::text::masking::Masking;
use slm_runtime::sample::random_u64;

/// Texts as tokens, by task.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Windows of one length; every token predicts the next.
    Causal(Vec<Vec<u32>>),
    /// Conversations; every token of the assistant is predicted from those before it.
    Answers {
        /// Token ids.
        sequences: Vec<Vec<u32>>,
        /// Which of them the assistant says; of each sequence at least one after the first.
        said: Vec<Vec<bool>>,
    },
    /// Sequences with special tokens, without targets: for losses that only compare with a teacher.
    Compared(Vec<Vec<u32>>),
    /// Sequences with special tokens; hidden tokens are predicted.
    Masked {
        /// Token ids.
        sequences: Vec<Vec<u32>>,
        /// How tokens are hidden.
        masking: Masking,
    },
    /// Sequences with special tokens, and the label of each.
    Classified {
        /// Token ids.
        sequences: Vec<Vec<u32>>,
        /// Label ids.
        labels: Vec<u32>,
    },
}

/// A micro-batch: a piece of a step's batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Inputs, padded to one length.
    pub batch: Batch,
    /// Rows of the logits, (batch · length), that count: those with a target; for a classifier all of (batch).
    pub rows: Vec<i32>,
    /// Token or label id per row; 0 where the only target is a teacher.
    pub targets: Vec<i32>,
    /// Inputs that are not padding.
    pub tokens: usize,
    /// Numbers of the samples, in order.
    pub samples: Vec<usize>,
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Samples::Causal(sequences) | Samples::Compared(sequences) => sequences.len(),
            Samples::Answers { sequences, .. }
            | Samples::Masked { sequences, .. }
            | Samples::Classified { sequences, .. } => sequences.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every sample's tokens.
    pub fn sequences(&self) -> &[Vec<u32>] {
        match self {
            Samples::Causal(sequences) | Samples::Compared(sequences) => sequences,
            Samples::Answers { sequences, .. }
            | Samples::Masked { sequences, .. }
            | Samples::Classified { sequences, .. } => sequences,
        }
    }

    pub(super) fn tokens(&self, sample: usize) -> &[u32] {
        &self.sequences()[sample]
    }

    /// Tokens of the longest sample.
    pub fn longest(&self) -> usize {
        (0..self.len()).map(|sample| self.tokens(sample).len()).max().unwrap_or(0)
    }

    /// Mean tokens per sample, by which the tokens of a step are counted.
    pub fn mean_tokens(&self) -> f64 {
        (0..self.len()).map(|sample| self.tokens(sample).len()).sum::<usize>() as f64 / self.len().max(1) as f64
    }

    /// The micro-batches of step `step`.
    pub fn pieces(
        &self,
        spec: &ModelSpec,
        seed: u64,
        step: u64,
        batch: usize,
        pieces: usize,
    ) -> Result<Vec<Piece>, BatchError> {
        let first = step * batch as u64;
        let drawn: Vec<(u64, usize)> =
            (first..first + batch as u64).map(|draw| (draw, self.shuffled(seed, draw))).collect();
        let size = batch.div_ceil(pieces);
        drawn.chunks(size).map(|samples| self.piece(spec, seed, samples)).collect()
    }

    /// Chosen samples of step `step`, each a micro-batch of its own.
    pub fn apart(
        &self,
        spec: &ModelSpec,
        seed: u64,
        step: u64,
        chosen: &[usize],
    ) -> impl Iterator<Item = Result<Piece, BatchError>> {
        let first = step * self.len() as u64;
        chosen.iter().map(move |&sample| self.piece(spec, seed, &[(first + sample as u64, sample)]))
    }

    /// The samples that the first `steps` steps draw, ascending.
    pub fn drawn(&self, seed: u64, steps: u64, batch: usize) -> Vec<usize> {
        let draws = steps.saturating_mul(batch as u64);
        if draws >= self.len() as u64 {
            return (0..self.len()).collect();
        }
        let mut drawn: Vec<usize> = (0..draws).map(|draw| self.shuffled(seed, draw)).collect();
        drawn.sort_unstable();
        drawn
    }

    /// Rows of the logits that a sample has, but for samples whose tokens are hidden.
    pub fn rows_of(&self, sample: usize, spec: &ModelSpec) -> usize {
        match self {
            Samples::Causal(sequences) => sequences[sample].len() - 1,
            Samples::Answers { said, .. } => said[sample].iter().skip(1).filter(|said| **said).count(),
            Samples::Compared(sequences) if !spec.is_classifier() => sequences[sample].len(),
            Samples::Compared(_) | Samples::Classified { .. } => 1,
            Samples::Masked { .. } => 0,
        }
    }

    /// A sample as bytes: its tokens, and which of them are predicted where that is not all.
    pub(super) fn bytes_of(&self, sample: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.tokens(sample).iter().flat_map(|token| token.to_le_bytes()).collect();
        if let Samples::Answers { said, .. } = self {
            bytes.extend(said[sample].iter().map(|said| u8::from(*said)));
        }
        bytes
    }

    /// Some samples as a micro-batch, in their order. Of samples whose tokens are hidden it hides the same ones whatever the run
    /// and its step: [`apart`](Self::apart) follows both.
    pub fn piece_of(&self, spec: &ModelSpec, samples: &[usize]) -> Result<Piece, BatchError> {
        let drawn: Vec<(u64, usize)> = samples.iter().map(|&sample| (0, sample)).collect();
        self.piece(spec, 0, &drawn)
    }

    /// Sample `draw` of the endless sequence of epochs, each in an order of its own.
    pub(super) fn shuffled(&self, seed: u64, draw: u64) -> usize {
        let count = self.len() as u64;
        permuted(draw % count, count, random_u64(seed, draw / count)) as usize
    }

    pub(super) fn piece(&self, spec: &ModelSpec, seed: u64, samples: &[(u64, usize)]) -> Result<Piece, BatchError> {
        if spec.stacks().is_some() {
            return self.pairs(spec, samples);
        }
        let causal = matches!(self, Samples::Causal(_) | Samples::Answers { .. });
        // The last token of a causal sequence is a target only.
        let input = |sample: usize| self.tokens(sample).len() - usize::from(causal);
        let length = samples.iter().map(|&(_, sample)| input(sample)).max().unwrap_or(1);
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (index, &(draw, sample)) in samples.iter().enumerate() {
            let own = self.tokens(sample);
            let first_row = (index * length) as i32;
            let mut inputs = own[..input(sample)].to_vec();
            match self {
                Samples::Causal(_) => {
                    rows.extend(first_row..first_row + inputs.len() as i32);
                    targets.extend(own[1..].iter().map(|&token| token as i32));
                }
                Samples::Answers { said, .. } => {
                    for place in (1..own.len()).filter(|&place| said[sample][place]) {
                        rows.push(first_row + place as i32 - 1);
                        targets.push(own[place] as i32);
                    }
                }
                Samples::Compared(_) => {
                    let of_sample = if spec.is_classifier() {
                        index as i32..index as i32 + 1
                    } else {
                        first_row..first_row + inputs.len() as i32
                    };
                    targets.extend(of_sample.clone().map(|_| 0));
                    rows.extend(of_sample);
                }
                Samples::Masked { masking, .. } => {
                    for (place, target) in masking.hide(&mut inputs, random_u64(!seed, draw)) {
                        rows.push(first_row + place as i32);
                        targets.push(target as i32);
                    }
                }
                Samples::Classified { labels, .. } => {
                    rows.push(index as i32);
                    targets.push(labels[sample] as i32);
                }
            }
            mask.extend((0..length).map(|place| place < inputs.len()));
            inputs.resize(length, 0);
            tokens.extend(inputs);
        }
        let count = mask.iter().filter(|&&there| there).count();
        let batch = Batch::new(spec, tokens, samples.len())?.with_mask(mask)?;
        let samples = samples.iter().map(|(_, sample)| *sample).collect();
        Ok(Piece { batch, rows, targets, tokens: count, samples })
    }
}

impl Samples {
    /// Some pairs of an encoder-decoder as a micro-batch. Rows are those of the decoder.
    fn pairs(&self, spec: &ModelSpec, samples: &[(u64, usize)]) -> Result<Piece, BatchError> {
        let start = spec.stacks().map_or(0, |stacks| stacks.start);
        let split = |&(_, sample): &(u64, usize)| {
            let (source, target) = spec.split(self.tokens(sample)).ok_or(BatchError::NotAPair { start })?;
            // The last token is a target only.
            Ok((source, &target[..target.len() - 1]))
        };
        let pairs = samples.iter().map(split).collect::<Result<Vec<_>, BatchError>>()?;
        let batch = Batch::pairs(spec, &pairs)?;
        let [_, length] = batch.dims();
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (index, (&(_, sample), (source, inputs))) in samples.iter().zip(&pairs).enumerate() {
            let own = self.tokens(sample);
            let counts = |place: usize| match self {
                Samples::Answers { said, .. } => said[sample][place],
                _ => true,
            };
            for row in 0..inputs.len() {
                let place = source.len() + row + 1;
                if counts(place) {
                    rows.push((index * length + row) as i32);
                    targets.push(own[place] as i32);
                }
            }
        }
        let tokens = pairs.iter().map(|(source, target)| source.len() + target.len()).sum();
        let samples = samples.iter().map(|(_, sample)| *sample).collect();
        Ok(Piece { batch, rows, targets, tokens, samples })
    }
}

/// Element `index` of the permutation of `0..count` with key `key`: a four-round Feistel network over the next even
/// number of bits, iterated until the value is in range.
fn permuted(index: u64, count: u64, key: u64) -> u64 {
    let half = (64 - count.max(2).leading_zeros()).div_ceil(2);
    let low = (1u64 << half) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & low);
        for round in 0..4 {
            let mixed = random_u64(key, round << 40 | right) & low;
            (left, right) = (right, left ^ mixed);
        }
        value = left << half | right;
        if value < count {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_conversations_only_answers_are_targets() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart/teacher");
        let spec = crate::formats::open_model(directory.as_ref()).expect("a model of this repository").spec;
        let samples = Samples::Answers {
            sequences: vec![vec![5, 6, 7, 8, 9], vec![5, 6, 7]],
            said: vec![vec![false, false, true, false, true], vec![true, true, false]],
        };
        let pieces = samples.pieces(&spec, 0, 0, 2, 1).expect("pieces");
        let piece = &pieces[0];
        // Both are padded to four inputs; which comes first is the seed's choice.
        let first = piece.batch.tokens()[2] == 7 && piece.batch.tokens()[3] == 8;
        let (rows, targets) = if first { ([1, 3, 4], [7, 9, 6]) } else { ([0, 5, 7], [6, 7, 9]) };
        assert_eq!((&piece.rows[..], &piece.targets[..], piece.tokens), (&rows[..], &targets[..], 6));
    }

    #[test]
    fn every_pass_meets_every_sample_once_in_another_order() {
        let samples = Samples::Causal((0..37).map(|n| vec![n, n]).collect());
        let pass =
            |number: u64| -> Vec<usize> { (0..37).map(|draw| samples.shuffled(5, number * 37 + draw)).collect() };
        for number in 0..4 {
            let mut met = pass(number);
            met.sort_unstable();
            assert_eq!(met, (0..37).collect::<Vec<_>>());
        }
        assert_ne!(pass(0), pass(1));
        assert_ne!(pass(0), (0..37).collect::<Vec<_>>());
    }
}
