//! Token sequences of one length, checked against a model once, and what attention derives from them.

use crate::model::spec::{AttentionSpec, LayerSpec, ModelSpec, RotarySpec};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;

/// Added to scores that attention must not see. Finite, so that a row with nothing to see (before the first token of a
/// sequence padded on the left) is uniform and not NaN.
const HIDDEN_SCORE: f32 = -1e9;

/// Why tokens do not form a batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// No sequence, or no token.
    #[error("{tokens} tokens in {sequences} sequences; expected at least one token in each, and the same number")]
    Ragged {
        /// Tokens in all.
        tokens: usize,
        /// Sequences.
        sequences: usize,
    },
    /// Longer than the model's positions.
    #[error("a sequence of {length} tokens, expected at most {context}, the model's context; use a shorter window")]
    TooLong {
        /// Tokens in a sequence.
        length: usize,
        /// The model's limit.
        context: usize,
    },
    /// A token the model does not have.
    #[error(
        "token id {id} at position {position}, expected one below the vocabulary of {vocabulary}; use this model's tokenizer"
    )]
    Token {
        /// The id.
        id: u32,
        /// Where, counted through all sequences.
        position: usize,
        /// Rows of the token table.
        vocabulary: usize,
    },
    /// The mask has another shape than the tokens.
    #[error("an attention mask of {found} entries, expected {expected}")]
    Mask {
        /// Tokens.
        expected: usize,
        /// Mask entries.
        found: usize,
    },
    /// A sequence of an encoder-decoder that is not a source with what is written of it.
    #[error(
        "a sequence that is not a text, token {start}, and what is written of that text; an encoder-decoder reads such pairs alone"
    )]
    NotAPair {
        /// The token that begins what is written.
        start: u32,
    },
}

/// Token ids (batch, length), all of type 0, and which of them are padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    /// (batch, length), true where there is a token; `None` without padding.
    mask: Option<Vec<bool>>,
    sequences: usize,
    /// Position of the first tokens: how many a cache has read before them.
    start: usize,
    /// What an encoder reads, of as many sequences; the tokens are then those of its decoder.
    source: Option<Box<Batch>>,
}

impl Batch {
    /// `tokens` are `sequences` sequences of one length, one after the other. Those of an encoder-decoder are pairs, see
    /// [`ModelSpec::split`].
    pub fn new(spec: &ModelSpec, tokens: Vec<u32>, sequences: usize) -> Result<Self, BatchError> {
        Self::starting_at(spec, tokens, sequences, 0)
    }

    /// One sequence's next tokens, after `start` that a cache has read.
    pub(super) fn after(spec: &ModelSpec, start: usize, tokens: &[u32]) -> Result<Self, BatchError> {
        Self::starting_at(spec, tokens.to_vec(), 1, start)
    }

    pub(super) fn starting_at(
        spec: &ModelSpec,
        tokens: Vec<u32>,
        sequences: usize,
        start: usize,
    ) -> Result<Self, BatchError> {
        if tokens.is_empty() || sequences == 0 || !tokens.len().is_multiple_of(sequences) {
            return Err(BatchError::Ragged { tokens: tokens.len(), sequences });
        }
        match spec.stacks() {
            Some(stacks) if start == 0 => {
                let split = |sequence| spec.split(sequence).ok_or(BatchError::NotAPair { start: stacks.start });
                let pairs = tokens.chunks_exact(tokens.len() / sequences).map(split).collect::<Result<Vec<_>, _>>()?;
                Self::pairs(spec, &pairs)
            }
            _ => Self::of_stack(spec, tokens, sequences, start),
        }
    }

    /// Sources of an encoder-decoder, each with what its decoder reads, padded to one length on either side.
    pub fn pairs(spec: &ModelSpec, pairs: &[(&[u32], &[u32])]) -> Result<Self, BatchError> {
        let source = Self::padded(spec, &pairs.iter().map(|(source, _)| *source).collect::<Vec<_>>())?;
        let target = Self::padded(spec, &pairs.iter().map(|(_, target)| *target).collect::<Vec<_>>())?;
        Ok(Batch { source: Some(Box::new(source)), ..target })
    }

    fn padded(spec: &ModelSpec, sequences: &[&[u32]]) -> Result<Self, BatchError> {
        let length = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
        let at = |sequence: &&[u32]| (0..length).map(|place| sequence.get(place).copied()).collect::<Vec<_>>();
        let all: Vec<Option<u32>> = sequences.iter().flat_map(at).collect();
        if let Some(ragged) = sequences.iter().find(|sequence| sequence.is_empty()) {
            return Err(BatchError::Ragged { tokens: ragged.len(), sequences: 1 });
        }
        let mask = all.iter().map(Option::is_some).collect();
        let tokens = all.into_iter().map(Option::unwrap_or_default).collect();
        Self::of_stack(spec, tokens, sequences.len(), 0)?.with_mask(mask)
    }

    /// Tokens that one stack reads, as many of every sequence.
    fn of_stack(spec: &ModelSpec, tokens: Vec<u32>, sequences: usize, start: usize) -> Result<Self, BatchError> {
        if tokens.is_empty() {
            return Err(BatchError::Ragged { tokens: 0, sequences });
        }
        let (length, context) = (start + tokens.len() / sequences, spec.context);
        if length > context {
            return Err(BatchError::TooLong { length, context });
        }
        if let Some(index) = tokens.iter().position(|&id| id as usize >= spec.vocabulary) {
            let (id, position) = (tokens[index], start + index);
            return Err(BatchError::Token { id, position, vocabulary: spec.vocabulary });
        }
        Ok(Batch { tokens, mask: None, sequences, start, source: None })
    }

    /// With padding: `mask` is (batch, length), true where there is a token. Padded positions are not attended to; what
    /// is computed for them means nothing.
    pub fn with_mask(mut self, mask: Vec<bool>) -> Result<Self, BatchError> {
        if mask.len() != self.tokens.len() {
            return Err(BatchError::Mask { expected: self.tokens.len(), found: mask.len() });
        }
        self.mask = mask.contains(&false).then_some(mask);
        Ok(self)
    }

    /// \[batch, length\].
    pub fn dims(&self) -> [usize; 2] {
        [self.sequences, self.tokens.len() / self.sequences]
    }

    /// Position of the first token of each sequence.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// All ids, sequence by sequence.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The row of (batch · length) whose state a classifier labels a sequence by: its first token, or its last where
    /// positions see those before them alone.
    pub(super) fn labelled(&self, spec: &ModelSpec, sequence: usize) -> usize {
        let [_, length] = self.dims();
        let first = sequence * length;
        if !spec.causal {
            return first;
        }
        let last = |mask: &Vec<bool>| mask[first..first + length].iter().rposition(|&token| token);
        first + self.mask.as_ref().and_then(last).unwrap_or(length - 1)
    }

    /// What the encoder of an encoder-decoder reads, where these tokens are its decoder's first.
    pub fn source(&self) -> Option<&Batch> {
        self.source.as_deref()
    }

    /// Where there are tokens and not padding; `None` means everywhere.
    pub fn mask(&self) -> Option<&[bool]> {
        self.mask.as_deref()
    }
}

/// What the layers of one batch share: masks as numbers to add to scores, rotary tables, and where there is padding.
/// Layers with equal windows or equal rotations hold the same tensors.
#[derive(Clone, Debug)]
pub struct AttentionContext {
    /// By layer; empty for one without attention.
    pub(super) layers: Vec<LayerContext>,
    /// (batch, length, 1): 1 where there is a token, 0 where there is padding; `None` without padding.
    pub(super) present: Option<Tensor<3>>,
    /// What the decoder of an encoder-decoder attends to.
    pub(super) memory: Option<Memory>,
}

/// What an encoder made of the sources of a batch.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// (batch, source length, hidden)
    pub(super) states: Tensor<3>,
    /// Added to scores, (batch, 1, 1, source length); `None` without padding.
    pub(super) mask: Option<Tensor<4>>,
}

/// What attention of one layer derives from a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerContext {
    /// Added to scores, (1 or batch, 1 or heads, 1 or length, keys), the keys being those of the cache that are still seen, and
    /// the batch's own; `None` where everything is seen alike.
    pub(super) mask: Option<Tensor<4>>,
    /// cos and sin, (1, 1, length, head_dim / 2) each.
    pub(super) rotary: Option<(Tensor<4>, Tensor<4>)>,
}

impl AttentionContext {
    /// The context of the layers that read the batch; that of the others is empty. `bias` is added to the scores of all of them.
    pub(super) fn new(spec: &ModelSpec, batch: &Batch, bias: Option<Tensor<4>>, device: &Device) -> Self {
        let [sequences, length] = batch.dims();
        let reads = spec.layers_of(batch);
        let causal = spec.is_causal(reads.start);
        let mut masks: Vec<(Option<usize>, Option<Tensor<4>>)> = Vec::new();
        let mut tables: Vec<(RotarySpec, usize, (Tensor<4>, Tensor<4>))> = Vec::new();
        let mut layer_context = |attention: &AttentionSpec| {
            let mask = match masks.iter().find(|(window, _)| *window == attention.window) {
                Some((_, mask)) => mask.clone(),
                None => {
                    let mask = batch.scores_mask(causal, attention.window, device);
                    let mask = match (mask, &bias) {
                        (Some(mask), Some(bias)) => Some(mask + bias.clone()),
                        (mask, bias) => mask.or_else(|| bias.clone()),
                    };
                    masks.push((attention.window, mask.clone()));
                    mask
                }
            };
            let rotary = attention.rotary.map(|rotary| {
                let same = |entry: &&(RotarySpec, usize, _)| entry.0 == rotary && entry.1 == attention.head_dim;
                if let Some((_, _, tensors)) = tables.iter().find(same) {
                    return tensors.clone();
                }
                let tensors = rotary_tables(&rotary, attention.head_dim, batch.start, length, device);
                tables.push((rotary, attention.head_dim, tensors.clone()));
                tensors
            });
            LayerContext { mask, rotary }
        };
        let attention = |(n, layer): (usize, &LayerSpec)| layer.attention().filter(|_| reads.contains(&n)).copied();
        let layers = spec.layers.iter().enumerate().map(attention);
        let layers =
            layers.map(|found| found.as_ref().map_or_else(LayerContext::default, &mut layer_context)).collect();
        let present = batch.mask.as_ref().map(|mask| {
            let values: Vec<f32> = mask.iter().map(|&token| f32::from(u8::from(token))).collect();
            Tensor::from_data(TensorData::new(values, [sequences, length, 1]), device)
        });
        AttentionContext { layers, present, memory: None }
    }
}

impl Batch {
    /// What is added to scores, (1 or batch, 1, 1 or length, keys); `None` where every position sees every key.
    pub(super) fn scores_mask(&self, causal: bool, window: Option<usize>, device: &Device) -> Option<Tensor<4>> {
        let [sequences, length] = self.dims();
        let everything = !causal && window.is_none();
        if self.mask.is_none() && (everything || length == 1) {
            return None;
        }
        let rows = if everything { 1 } else { length };
        let before = kept_before(self.start, window);
        let count = if self.mask.is_some() { sequences } else { 1 };
        let mut values = Vec::with_capacity(count * rows * (before + length));
        for sequence in 0..count {
            for row in before..before + rows {
                values.extend((0..before + length).map(|column| {
                    let beyond = |from: usize, to: usize| window.is_some_and(|window| from + window <= to);
                    let future = if causal { column > row } else { beyond(row, column) };
                    let past = beyond(column, row);
                    let padding = self.mask.as_ref().is_some_and(|mask| !mask[sequence * length + column]);
                    if future || past || padding { HIDDEN_SCORE } else { 0.0 }
                }));
            }
        }
        Some(Tensor::from_data(TensorData::new(values, [count, 1, rows, before + length]), device))
    }
}

impl ModelSpec {
    /// The layers that read a batch: all, but of an encoder-decoder those of the encoder for a batch of sources, which have no
    /// sources themselves and begin at the first position, and those of the decoder for what it reads.
    pub(super) fn layers_of(&self, batch: &Batch) -> Range<usize> {
        match self.stacks() {
            Some(stacks) if batch.source.is_none() && batch.start == 0 => 0..stacks.encoder_layers,
            Some(stacks) => stacks.encoder_layers..self.layers.len(),
            None => 0..self.layers.len(),
        }
    }
}

/// How many of the positions before `start` the position there still sees.
pub(super) fn kept_before(start: usize, window: Option<usize>) -> usize {
    window.map_or(start, |window| start.min(window.saturating_sub(1)))
}

/// cos and sin of `length` positions from `start`, (length, head_dim / 2): angles in f64, by `libm`, which is the same on every
/// machine, rounded to f32 once.
pub(crate) fn rotary_values(rotary: &RotarySpec, head_dim: usize, start: usize, length: usize) -> [Vec<f32>; 2] {
    let (inverse, factors) = (rotary.frequencies(head_dim), rotary.factors(head_dim));
    let table = |function: fn(f64) -> f64| {
        let pairs = || inverse.iter().zip(&factors);
        let row = |position: usize| {
            pairs().map(move |(frequency, factor)| (function(position as f64 * frequency) * factor) as f32)
        };
        (start..start + length).flat_map(row).collect()
    };
    [table(libm::cos), table(libm::sin)]
}

/// [`rotary_values`], (1, 1, length, head_dim / 2) each.
fn rotary_tables(
    rotary: &RotarySpec,
    head_dim: usize,
    start: usize,
    length: usize,
    device: &Device,
) -> (Tensor<4>, Tensor<4>) {
    let [cos, sin] = rotary_values(rotary, head_dim, start, length)
        .map(|values| Tensor::from_data(TensorData::new(values, [1, 1, length, head_dim / 2]), device));
    (cos, sin)
}
