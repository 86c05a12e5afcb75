//! The forward of a decoder's next tokens: what attention and convolutions need of the positions before is kept, and only
//! the last position gets logits. Per attention layer the rotated keys and the values of every position that a later one
//! may still see; per short convolution its last taps − 1 gated inputs. Everything else is [`Forward::block`]'s own code.

use super::batch::{Batch, BatchError, kept_before};
use super::layer::Operations;
use super::{AttentionContext, Forward, Unobserved};
use crate::model::spec::{ModelKind, ModelSpec};
use burn::tensor::{Tensor, s};
use std::ops::Range;

/// Most tokens computed at once, so that scores take memory for this many rows however long the prompt.
const PIECE: usize = 256;
/// Least positions that there is room for.
const LEAST_ROOM: usize = 64;

/// Why there are no logits of next tokens.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CacheError {
    /// The model sees positions that are still to come.
    #[error(
        "{family} is an encoder, expected a decoder: its outputs depend on the tokens that follow; run it on whole texts"
    )]
    Encoder {
        /// The model.
        family: &'static str,
    },
    /// The tokens are refused: none, one the model does not have, or more than the context has room for.
    #[error(transparent)]
    Tokens(#[from] BatchError),
    /// The device gave logits of another type back.
    #[error("the device did not return f32 logits: {0}")]
    Device(String),
}

/// What the next tokens of one text need of those already read.
#[derive(Clone, Debug)]
pub struct Cache {
    read: usize,
    /// Tokens of the source that an encoder has read.
    source: usize,
    /// Keys, values and inputs, a cache for each of the decoder's layers.
    layers: Vec<LayerCache>,
}

impl Cache {
    /// Nothing read yet.
    ///
    /// # Errors
    /// [`CacheError::Encoder`]
    pub fn new(spec: &ModelSpec) -> Result<Self, CacheError> {
        match spec.kind {
            ModelKind::Decoder | ModelKind::EncoderDecoder(_) => {
                let decoder = spec.layers.len() - spec.encoder_layers();
                Ok(Cache { read: 0, source: 0, layers: vec![LayerCache::default(); decoder] })
            }
            ModelKind::Encoder => Err(CacheError::Encoder { family: spec.family }),
        }
    }

    /// Tokens read so far, an encoder's among them.
    pub fn read(&self) -> usize {
        self.source + self.read
    }
}

/// The part of one layer: keys and values of attention, or inputs of a convolution.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerCache {
    keys: Positions,
    values: Positions,
    /// (1, taps − 1, hidden), oldest first; zeros where absent.
    pub(super) inputs: Option<Tensor<3>>,
    /// Keys and values of an encoder's states, which no token changes.
    pub(super) source: Option<[Tensor<4>; 2]>,
}

impl LayerCache {
    /// Takes in the keys and values of new positions, and returns those with what they see of the earlier ones.
    pub(super) fn extend(&mut self, key: Tensor<4>, value: Tensor<4>, window: Option<usize>) -> (Tensor<4>, Tensor<4>) {
        let kept = kept_before(self.keys.held.len(), window);
        (self.keys.extend(kept, key), self.values.extend(kept, value))
    }
}

/// Rows of consecutive positions, (1, heads, positions, width), in a buffer with room for more: one more is written where
/// it belongs, and nothing else is copied but when the room is used up.
#[derive(Clone, Debug, Default)]
struct Positions {
    buffer: Option<Tensor<4>>,
    /// Which of the buffer's positions are held.
    held: Range<usize>,
}

impl Positions {
    /// Forgets all but the last `kept`, appends, and returns all that are held.
    fn extend(&mut self, kept: usize, next: Tensor<4>) -> Tensor<4> {
        let [batch, heads, count, width] = next.dims();
        self.held.start = self.held.end - kept;
        let full = |buffer: &Tensor<4>| self.held.end + count > buffer.dims()[2];
        let buffer = match self.buffer.take() {
            Some(buffer) if !full(&buffer) => buffer,
            old => {
                let room = (2 * (kept + count)).max(LEAST_ROOM);
                let mut buffer = Tensor::zeros([batch, heads, room, width], &next.device());
                if let Some(old) = old.filter(|_| kept > 0) {
                    buffer = buffer.slice_assign(s![.., .., 0..kept, ..], old.narrow(2, self.held.start, kept));
                }
                self.held = 0..kept;
                buffer
            }
        };
        // In place: the views of earlier calls are gone.
        let end = self.held.end + count;
        let buffer = buffer.slice_assign(s![.., .., self.held.end..end, ..], next);
        self.held.end = end;
        let all = buffer.clone().narrow(2, self.held.start, self.held.len());
        self.buffer = Some(buffer);
        all
    }
}

impl Forward<'_> {
    /// Reads a text's next tokens, a whole prompt or one, of an encoder-decoder first a source with what its decoder begins with, and returns the logits after the last of them, (vocabulary).
    /// `cache` is of the same model, and unchanged where this fails.
    ///
    /// # Errors
    /// [`CacheError::Device`], and [`CacheError::Tokens`]: no tokens, one outside the vocabulary, or more than the context has room for.
    pub fn read(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, CacheError> {
        Batch::after(self.spec(), cache.read, tokens)?;
        // On a thread of the pool, so that a product wakes one thread fewer and puts none to sleep.
        rayon::scope(|_| self.read_pieces(cache, tokens))
    }

    fn read_pieces(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, CacheError> {
        let mut last = None;
        let (first, size) = match self.spec().stacks() {
            // A source is read whole.
            Some(stacks) => (stacks.encoder_layers, tokens.len()),
            None => (0, PIECE),
        };
        for piece in tokens.chunks(size) {
            let batch = Batch::after(self.spec(), cache.read, piece)?;
            let memory = batch.source().map(|source| self.memory(source, &mut Vec::new(), &mut Unobserved));
            let context = AttentionContext { memory, ..self.context(&batch) };
            let mut hidden = self.embed(&batch);
            for (layer, past) in cache.layers.iter_mut().enumerate() {
                hidden = self.layer(first + layer, hidden, &context, Some(past), &mut Unobserved);
            }
            let [_, length] = batch.dims();
            cache.read += length;
            cache.source += piece.len() - length;
            last = Some(hidden.narrow(1, length - 1, 1));
        }
        // The caller has refused an empty list, so there is a last piece.
        let Some(hidden) = last else { return Ok(Vec::new()) };
        let logits = self.head(self.finish(hidden), &mut Unobserved).into_data();
        logits.try_into_vec().map_err(|error| CacheError::Device(format!("{error:?}")))
    }
}
