//! Leaving before the last layer: after a layer with an exit head its logits are computed, and their margin decides.

use super::{Session, SessionError};
use crate::exits::{confidence, margin};
use crate::format::exits::NEVER;
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};

/// What a session does at exit heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Compares with the artifact's thresholds.
    #[default]
    ByThreshold,
    /// Computes all layers, and no exit head.
    Never,
}

/// Receives the logits of a head, with the layers before it.
pub type SeeHead<'s> = dyn FnMut(usize, &[f32]) + 's;

impl Session<'_, '_> {
    /// What is done at exit heads from now on.
    pub fn set_leaving(&mut self, leaving: Leaving) {
        self.leaving = leaving;
    }

    /// Layers that the last text of a classifier was computed through: all of them, or as many as were before the exit head
    /// that it left at; 0 before the first text.
    pub fn exit_layers(&self) -> usize {
        self.left_after
    }

    /// How sure the classifier is of the last text's label: a probability at the temperature of the head that it left at,
    /// which is 1 where the artifact states none; 0 before the first text.
    pub fn confidence(&self) -> f32 {
        if self.left_after == 0 {
            return 0.0;
        }
        let head = self.artifact.head_after(self.left_after);
        confidence(&*self.buffers.output, head.map_or(1.0, |head| head.inverse_temperature))
    }

    /// Runs a text through every layer of a classifier and passes the logits of every head to `each`, with the number of
    /// layers before it; thresholds decide nothing.
    pub fn run_heads(&mut self, tokens: &[u32], each: &mut SeeHead<'_>) -> Result<(), SessionError> {
        if !self.is_classifier() {
            return Err(SessionError::NotAClassifier);
        }
        self.reset();
        if self.is_decoder() {
            let last_rows = self.read_chunks(tokens)?;
            self.label(last_rows - 1)?;
        } else {
            self.check_tokens(tokens)?;
            self.encode(tokens, Some(each))?;
            self.classify(tokens.len())?;
            self.left_after = self.artifact.spec().layers as usize;
        }
        each(self.left_after, &*self.buffers.output);
        Ok(())
    }

    /// After layer `index`: computes the exit head, where there is one that is asked for, and says whether the text leaves.
    pub(super) fn leaves(&mut self, index: usize, every: Option<&mut SeeHead<'_>>) -> Result<bool, SessionError> {
        let layers = index + 1;
        let Some(head) = self.artifact.head_after(layers).filter(|head| head.layers < self.artifact.spec().layers)
        else {
            return Ok(false);
        };
        let asked = self.leaving == Leaving::ByThreshold && head.threshold != NEVER;
        if every.is_none() && !asked {
            return Ok(false);
        }
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        self.classify_by([key(TensorRole::ExitPooler), key(TensorRole::ExitClassifier)], index)?;
        if let Some(each) = every {
            each(layers, &*self.buffers.output);
            return Ok(false);
        }
        Ok(margin(&*self.buffers.output) >= head.threshold)
    }
}
