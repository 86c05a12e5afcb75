//! Input and output of the model: embeddings; hidden states, logits or a classifier's row.

use super::linear::{Destination, Failure, Finish, Input, Product, Stop};
use super::{Session, SessionError, range};
use crate::attention::Cap;
use crate::format::spec::{CurveId, Output, Pooling};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::parallel::{Rows, each};
use crate::kernels::scalar;
use crate::numerics::{maximum, mean, unit_length};

impl Session<'_, '_> {
    /// Writes embeddings of tokens at positions `first..` to residual rows `row..`.
    pub(super) fn embed(&mut self, tokens: &[u32], first: usize, row: usize) -> Result<(), SessionError> {
        #[cfg(feature = "streaming")]
        if self.has_streamed_tables() {
            return self.embed_streamed(tokens, first, row);
        }
        let artifact = self.artifact;
        let spec = artifact.spec();
        let (hidden, width) = (spec.hidden as usize, spec.embedding_width());
        let table = |role| self.matrix(TensorKey::global(role, TensorPart::Weight));
        let words = self.parts(TensorKey::global(TensorRole::EmbedToken, TensorPart::Weight))?;
        let places = if spec.learned_positions == 1 { Some(table(TensorRole::EmbedPosition)?) } else { None };
        let types = if spec.token_types > 0 { Some(table(TensorRole::EmbedType)?) } else { None };
        let norm = self.global_norm(TensorRole::EmbedNorm, spec.embedding_norm)?;
        let kernels = self.kernels;
        let second_type = self.second_type;
        let to = match spec.embedding_width {
            0 => &mut self.buffers.residual[row * hidden..],
            _ => &mut *self.buffers.scratch_a,
        };
        let rows = Rows::new(&mut to[..tokens.len() * width], width);
        let failure = Failure::default();
        let scratch = &mut self.scratch[..self.seats];
        each(self.workers, tokens.len() == 1, scratch, rows, |index, out, scratch| {
            let token = tokens[index] as usize;
            scalar::scaled_row(words.of_row(token), token, spec.embedding_scale, out);
            if let Some(places) = &places {
                scalar::row(places, first + index, &mut scratch.row[..width]);
                (kernels.add)(out, &scratch.row[..width]);
            }
            if let Some(types) = &types {
                scalar::row(types, usize::from(first + index >= second_type), &mut scratch.row[..width]);
                (kernels.add)(out, &scratch.row[..width]);
            }
            if let Some(norm) = &norm {
                failure.note(norm.apply(kernels, out));
            }
        });
        failure.result().map_err(|_| range(0))?;
        if spec.embedding_width == 0 { Ok(()) } else { self.project(row, tokens.len()) }
    }

    /// Projects embeddings in `scratch_a` to residual rows.
    pub(super) fn project(&mut self, row: usize, count: usize) -> Result<(), SessionError> {
        let (hidden, width) = (self.scratch[0].row.len(), self.artifact.spec().embedding_width());
        let projection = TensorKey::global(TensorRole::EmbedProjection, TensorPart::Weight);
        let projection = [self.product(projection, Destination::B)?];
        self.linear(Input::ScratchA(width), &projection, count, Finish::None).map_err(|stop| stop.at(0))?;
        let to = &mut self.buffers.residual[row * hidden..][..count * hidden];
        to.copy_from_slice(&self.buffers.scratch_b[..count * hidden]);
        Ok(())
    }

    /// Passes the output rows of `count` residual rows to the caller; the position of the first is `first`.
    pub(super) fn hand_out(
        &mut self,
        first: usize,
        count: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), SessionError> {
        let width = self.artifact.spec().output_width as usize;
        let hidden_states = self.output_kind() == Output::Hidden;
        let together = if hidden_states { 1 } else { self.rows };
        let mut row = 0;
        while row < count {
            let rows = together.min(count - row);
            self.head_rows(row, rows)?;
            if hidden_states {
                each(first + row, self.scratch[0].row);
            } else {
                for (offset, logits) in self.buffers.output[..rows * width].chunks_exact(width).enumerate() {
                    each(first + row + offset, logits);
                }
            }
            row += rows;
        }
        Ok(())
    }

    /// Runs the head over `count` residual rows from `row`: logits into `output`, or one hidden state into `row`.
    pub(super) fn head_rows(&mut self, row: usize, count: usize) -> Result<(), SessionError> {
        self.head_rows_of(row, count, None)
    }

    /// The same for the logits of a set of tokens: tiles of the head that have none of them are not multiplied, and their
    /// logits are -inf.
    pub(super) fn head_rows_of(
        &mut self,
        row: usize,
        count: usize,
        needed: Option<&[u32]>,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let spec = artifact.spec();
        let hidden = spec.hidden as usize;
        let layers = spec.layers as usize;
        let failed = |stop: Stop| stop.at(layers);
        let norm = self.global_norm(TensorRole::FinalNorm, spec.final_norm)?;
        let mut input = Input::Residual(norm, row);
        let mut role = if spec.has_tied_head() { TensorRole::EmbedToken } else { TensorRole::LmHead };
        let mut bias = TensorRole::LmHead;
        match self.output_kind() {
            Output::Classifier if !spec.has_pooler() => {
                (role, bias) = (TensorRole::Classifier, TensorRole::Classifier);
            }
            Output::Hidden | Output::Classifier => {
                let out = &mut *self.scratch[0].row;
                out.copy_from_slice(&self.buffers.residual[row * hidden..][..hidden]);
                return norm.map_or(Ok(()), |norm| norm.apply(self.kernels, out)).map_err(|_| range(layers));
            }
            Output::LanguageModel => {}
            Output::TokenClassifier | Output::Answers => {
                (role, bias) = (TensorRole::Classifier, TensorRole::Classifier)
            }
            Output::MaskedLanguageModel => {
                let transform = TensorKey::global(TensorRole::MlmTransform, TensorPart::Weight);
                let transform = [self.product(transform, Destination::B)?];
                let curve = self.curve(spec.head_activation)?;
                let norm = self.global_norm(TensorRole::MlmNorm, spec.head_norm())?;
                self.linear(input, &transform, count, Finish::Activate(curve)).map_err(failed)?;
                for x in self.buffers.scratch_b[..count * hidden].chunks_exact_mut(hidden) {
                    norm.map_or(Ok(()), |norm| norm.apply(self.kernels, x)).map_err(|_| range(layers))?;
                }
                input = Input::ScratchB(hidden);
            }
        }
        let parts = self.parts(TensorKey::global(role, TensorPart::Weight))?;
        let head = Product {
            matrix: parts.first,
            rest: parts.rest,
            bias: self.optional_vector(TensorKey::global(bias, TensorPart::Bias))?,
            destination: Destination::Output,
            needed,
            #[cfg(feature = "streaming")]
            sources: self.sources(self.record(TensorKey::global(role, TensorPart::Weight)), &parts),
        };
        self.linear(input, &[head], count, Finish::None).map_err(failed)?;
        if spec.logit_cap.to_bits() != 0 {
            let cap = Cap::new(spec.logit_cap, self.curve(CurveId::Silu as u8)?);
            // Logits that were not computed are -inf and stay it.
            let all = &mut self.buffers.output[..count * spec.output_width as usize];
            for logit in all.iter_mut().filter(|logit| **logit > f32::NEG_INFINITY) {
                *logit = cap.of(*logit);
            }
        }
        Ok(())
    }

    /// Pools the final states of residual rows `0..count` into `output`, row after row: the first, their mean, the largest
    /// of each column or the last; then to length one where the model says so. A decoder's rows are those of its last chunk.
    pub(super) fn pool(&mut self, count: usize) -> Result<(), SessionError> {
        let spec = self.artifact.spec();
        let (pooling, normalize, head) = (spec.pooling(), spec.normalize == 1, spec.layers as usize);
        let rows = match pooling {
            Some(Pooling::First) => 0..1,
            Some(Pooling::Last) => count - 1..count,
            _ => 0..count,
        };
        for row in rows.clone() {
            self.head_rows(row, 1)?;
            let (state, pooled) = (&*self.scratch[0].row, &mut *self.buffers.output);
            match pooling {
                _ if row == rows.start => pooled.copy_from_slice(state),
                Some(Pooling::Maximum) => maximum(pooled, state),
                _ => (self.kernels.add)(pooled, state),
            }
        }
        let pooled = &mut *self.buffers.output;
        if pooling == Some(Pooling::Mean) {
            mean(pooled, count);
        }
        if normalize { unit_length(pooled).map_err(|_| range(head)) } else { Ok(()) }
    }

    /// A decoder's classifier, over a residual row of the last token.
    pub(super) fn label(&mut self, row: usize) -> Result<(), SessionError> {
        self.head_rows(row, 1)?;
        #[cfg(feature = "exits")]
        {
            self.left_after = self.artifact.spec().layers as usize;
        }
        Ok(())
    }

    /// The pooler over the first token or the mean of `count`, with tanh or the head's activation, then the classifier.
    pub(super) fn classify(&mut self, count: usize) -> Result<(), SessionError> {
        let means = self.artifact.spec().classifies_mean();
        let hidden = self.scratch[0].row.len();
        // The first residual row is overwritten by its final norm, and by the sum: nothing reads it afterwards.
        for row in 0..if means { count } else { 1 } {
            self.head_rows(row, 1)?;
            let (pooled, state) = (&mut self.buffers.residual[..hidden], &*self.scratch[0].row);
            if row == 0 { pooled.copy_from_slice(state) } else { (self.kernels.add)(pooled, state) }
        }
        if means {
            mean(&mut self.buffers.residual[..hidden], count);
        }
        let key = |role| TensorKey::global(role, TensorPart::Weight);
        self.classify_by([key(TensorRole::Pooler), key(TensorRole::Classifier)], self.artifact.spec().layers as usize)
    }

    /// A pooler over the first residual row, which stays as it is, then a classifier. Their errors name `layer`.
    pub(super) fn classify_by(
        &mut self,
        [pooler, classifier]: [TensorKey; 2],
        layer: usize,
    ) -> Result<(), SessionError> {
        let failed = |stop: Stop| stop.at(layer);
        let hidden = self.scratch[0].row.len();
        let pooler = [self.product(pooler, Destination::B)?];
        let classifier = [self.product(classifier, Destination::Output)?];
        let tanh = self.artifact.spec().head_activation == 0;
        let curve = self.curve(if tanh { CurveId::Silu as u8 } else { self.artifact.spec().head_activation })?;
        let finish = if tanh { Finish::None } else { Finish::Activate(curve) };
        self.linear(Input::Residual(None, 0), &pooler, 1, finish).map_err(failed)?;
        if tanh {
            for value in &mut self.buffers.scratch_b[..hidden] {
                *value = curve.tanh(*value);
            }
        }
        if let Some(norm) = self.global_norm(TensorRole::MlmNorm, self.artifact.spec().head_norm())? {
            norm.apply(self.kernels, &mut self.buffers.scratch_b[..hidden]).map_err(|_| range(layer))?;
        }
        self.linear(Input::ScratchB(hidden), &classifier, 1, Finish::None).map_err(failed)
    }
}
