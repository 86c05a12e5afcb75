//! The two ends of the model: embeddings in, hidden states, logits or a classifier's row out.

use super::linear::{Norm, Wide};
use super::{Session, SessionError, add, range};
use crate::format::spec::{CurveId, NormKind, Output};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::scalar;
use crate::layout::GROUP;
use crate::numerics::quantize;

impl Session<'_, '_> {
    /// Embeddings of tokens at positions `first..` into residual rows `row..`.
    pub(super) fn embed(&mut self, tokens: &[u32], first: usize, row: usize) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let spec = artifact.spec();
        let hidden = spec.hidden as usize;
        let table = |role| artifact.matrix(TensorKey::global(role, TensorPart::Weight));
        let words = table(TensorRole::EmbedToken)?;
        let places = if spec.learned_positions == 1 { Some(table(TensorRole::EmbedPosition)?) } else { None };
        let types = if spec.token_types > 0 { Some(table(TensorRole::EmbedType)?) } else { None };
        let rows = &mut self.buffers.residual[row * hidden..][..tokens.len() * hidden];
        for (index, (out, &token)) in rows.chunks_exact_mut(hidden).zip(tokens).enumerate() {
            scalar::scaled_row(&words, token as usize, spec.embedding_scale, out);
            if let Some(places) = &places {
                scalar::row(places, first + index, self.buffers.row);
                add(out, self.buffers.row);
            }
            if let Some(types) = &types {
                scalar::row(types, 0, self.buffers.row);
                add(out, self.buffers.row);
            }
        }
        if let Some(kind) = NormKind::from_number(spec.embedding_norm) {
            let norm = Norm::global(&artifact, TensorRole::EmbedNorm, kind)?;
            let rows = &mut self.buffers.residual[row * hidden..][..tokens.len() * hidden];
            rows.chunks_exact_mut(hidden).try_for_each(|x| norm.apply(x)).map_err(|_| range(0))?;
        }
        Ok(())
    }

    /// Output rows of `count` residual rows to the caller; position of the first is `first`.
    pub(super) fn hand_out(
        &mut self,
        first: usize,
        count: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), SessionError> {
        let width = self.artifact.spec().output_width as usize;
        let hidden_states = self.output_kind() == Output::Hidden;
        let together = if hidden_states { 1 } else { self.artifact.spec().output_rows as usize };
        let mut row = 0;
        while row < count {
            let rows = together.min(count - row);
            self.head_rows(row, rows)?;
            if hidden_states {
                each(first + row, self.buffers.row);
            } else {
                for (offset, logits) in self.buffers.output[..rows * width].chunks_exact(width).enumerate() {
                    each(first + row + offset, logits);
                }
            }
            row += rows;
        }
        Ok(())
    }

    /// The head over `count` residual rows from `row`: logits into `output`, or one hidden state into `row`.
    pub(super) fn head_rows(&mut self, row: usize, count: usize) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let spec = artifact.spec();
        let hidden = spec.hidden as usize;
        let failed = |_| range(spec.layers as usize);
        let final_norm = match NormKind::from_number(spec.final_norm) {
            Some(kind) => Some(Norm::global(&artifact, TensorRole::FinalNorm, kind)?),
            None => None,
        };
        match self.output_kind() {
            Output::Hidden | Output::Classifier => {
                self.buffers.row.copy_from_slice(&self.buffers.residual[row * hidden..][..hidden]);
                if let Some(norm) = &final_norm {
                    norm.apply(self.buffers.row).map_err(failed)?;
                }
                return Ok(());
            }
            Output::LanguageModel => self.quantize_residual(final_norm.as_ref(), row, count).map_err(failed)?,
            Output::MaskedLanguageModel => {
                self.quantize_residual(final_norm.as_ref(), row, count).map_err(failed)?;
                self.linear(TensorKey::global(TensorRole::MlmTransform, TensorPart::Weight), count, Wide::B)?;
                let curve = self.curve(spec.head_activation)?;
                let norm = Norm::global(&artifact, TensorRole::MlmNorm, NormKind::Layer)?;
                let stride = hidden.next_multiple_of(GROUP);
                for (token, x) in self.buffers.wide_b[..count * hidden].chunks_exact_mut(hidden).enumerate() {
                    for value in x.iter_mut() {
                        *value = curve.apply(*value);
                    }
                    norm.apply(x).map_err(failed)?;
                    let out = &mut self.buffers.activations[token * stride..][..stride];
                    out[hidden..].fill(0);
                    self.buffers.activation_scales[token] = quantize(x, out).map_err(failed)?;
                }
            }
        }
        let head = TensorKey::global(TensorRole::LmHead, TensorPart::Weight);
        let role = if spec.tied_head == 1 { TensorRole::EmbedToken } else { TensorRole::LmHead };
        let matrix = artifact.matrix(TensorKey { role, ..head })?;
        self.multiply(&matrix, TensorKey { part: TensorPart::Bias, ..head }, count, Wide::Output)
    }

    /// tanh pooler over the first token, then the classifier.
    pub(super) fn classify(&mut self) -> Result<(), SessionError> {
        let head = self.artifact.spec().layers as usize;
        let failed = |_| range(head);
        self.head_rows(0, 1)?;
        let hidden = self.buffers.row.len();
        let stride = hidden.next_multiple_of(GROUP);
        self.buffers.activations[hidden..stride].fill(0);
        self.buffers.activation_scales[0] = quantize(self.buffers.row, self.buffers.activations).map_err(failed)?;
        self.linear(TensorKey::global(TensorRole::Pooler, TensorPart::Weight), 1, Wide::B)?;
        let sigmoid = self.curve(CurveId::Silu as u8)?;
        let pooled = &mut self.buffers.wide_b[..hidden];
        for value in pooled.iter_mut() {
            *value = sigmoid.tanh(*value);
        }
        self.buffers.activation_scales[0] = quantize(pooled, self.buffers.activations).map_err(failed)?;
        self.linear(TensorKey::global(TensorRole::Classifier, TensorPart::Weight), 1, Wide::Output)
    }
}
