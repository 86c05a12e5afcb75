//! The interface between evaluation and models: tokens in, logits (or hidden states) out.

use std::error::Error;

/// A model that can be run on whole sequences. The f32 model and a runtime session implement it.
pub trait Forward {
    /// Columns of the output: vocabulary, labels or hidden width.
    fn output_width(&self) -> usize;

    /// Runs each sequence on its own. One row-major output per sequence, in order: (positions, width) for token
    /// outputs, (1, width) for a sequence classifier.
    ///
    /// # Errors
    /// The implementation's error, wrapped: a token outside the vocabulary, a sequence beyond the context.
    fn logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ForwardError>;

    /// Rows that token outputs of a sequence have: one per token, of an encoder-decoder's pair one per token of the decoder.
    fn positions(&self, sequence: &[u32]) -> usize {
        sequence.len()
    }

    /// Takes outputs back that [`Forward::logits`] made, for an implementation that has a use for their memory.
    fn reuse(&self, outputs: Vec<Vec<f32>>) {
        drop(outputs);
    }
}

/// Why a model could not be run; the source is the reason.
#[derive(Debug, thiserror::Error)]
#[error("the forward pass failed")]
pub struct ForwardError(#[source] Box<dyn Error + Send + Sync>);

impl ForwardError {
    /// Wraps the error of an implementation.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        ForwardError(source.into())
    }
}
