//! The gradients of a step by the trained values: of all its micro-batches together, or sample by sample where the run is private.
//! Whatever the forward runs on, what is not finite stops the run here.

use super::checkpoint::State;
use super::data::{Piece, Samples};
use super::error::TrainError;
use super::fused::Fused;
use super::loss::table::LossParts;
use super::operations::Operations;
use super::optimizer::Gradients;
use super::parameters::TrainedId;
use super::privacy::Private;
use super::privacy::samplewise::Samplewise;
use super::trainer::Run;
use super::view::View;

/// Samples whose private gradients are made together.
pub(super) const TOGETHER: usize = 64;

/// Gradients by the trained values, with the loss and the tokens that they are of.
pub(super) struct StepGradients {
    pub(super) gradients: Gradients,
    pub(super) parts: LossParts,
    pub(super) tokens: usize,
}

impl Run<'_> {
    /// Gradients by the trained values over micro-batches, checked to be finite.
    pub(super) fn trained_gradients(
        &self,
        pieces: &[Piece],
        state: &mut State,
        (view, now): (&View<'_>, &LossParts),
        operations: &mut Operations<'_>,
        saved: u64,
    ) -> Result<StepGradients, TrainError> {
        let (gradients, parts) = match operations {
            Operations::Fused(fused) => fused.gradients(self, &mut state.parameters, view, pieces, now)?,
            Operations::Plain => self.gradients(&view.seen(&state.parameters), pieces, now)?,
            Operations::Workers(on) => self.gradients_on(on, &view.seen(&state.parameters), (pieces, now), saved)?,
        };
        let not_finite = |what, place| TrainError::NotFinite { step: state.step, what, place, checkpoint: saved };
        if !parts.total.is_finite() {
            let seen = view.seen(&state.parameters);
            return Err(not_finite("the loss", self.first_not_finite(&seen, &pieces[0])));
        }
        if let Some((id, _)) = gradients.iter().find(|(_, values)| values.iter().any(|value| !value.is_finite())) {
            return Err(not_finite("the gradient", id.to_string()));
        }
        let (gradients, spent) = view.pull_back(&state.parameters, gradients);
        if let Some(fused) = operations.fused() {
            fused.reuse(spent);
        }
        Ok(StepGradients { gradients, parts, tokens: pieces.iter().map(|piece| piece.tokens).sum() })
    }

    /// Gradients of a private step: those of every drawn sample clipped, summed in their order, with noise.
    pub(super) fn private_gradients(
        &self,
        private: &Private,
        state: &mut State,
        (view, now): (&View<'_>, &LossParts),
        operations: &mut Operations<'_>,
        saved: u64,
    ) -> Result<StepGradients, TrainError> {
        let drawn = private.draw(self.samples, state.step);
        let zeros = |(id, values): (&TrainedId, &Vec<f32>)| (*id, vec![0.0; values.len()]);
        let mut sum: Gradients = state.parameters.iter().map(zeros).collect();
        let (mut parts, mut tokens) = (LossParts::default(), 0);
        let plain = view.is_plain(&state.parameters);
        let apart = match operations.fused().filter(|fused| fused.by_terms && plain) {
            Some(fused) => {
                let into = (&drawn[..], &mut parts, &mut tokens);
                self.add_together(private, (state, &mut sum), (view, now), fused, into)?
            }
            None => drawn.clone(),
        };
        for piece in self.samples.apart(self.spec, self.settings.seed, state.step, &apart) {
            let piece = piece?;
            let piece = std::slice::from_ref(&piece);
            let one = self.trained_gradients(piece, state, (view, now), operations, saved)?;
            private.add_clipped(&mut sum, &one.gradients);
            parts.add(&one.parts, 1.0 / drawn.len() as f64);
            tokens += one.tokens;
            if let Some(fused) = operations.fused() {
                fused.reuse(one.gradients);
            }
        }
        private.finish(&mut sum, state.step);
        Ok(StepGradients { gradients: sum, parts, tokens })
    }

    /// Adds the clipped gradients of the samples for which one backward pass over many gives them; the others are returned, to be
    /// computed one by one.
    fn add_together(
        &self,
        private: &Private,
        (state, sum): (&mut State, &mut Gradients),
        (view, now): (&View<'_>, &LossParts),
        fused: &mut Fused,
        (drawn, parts, tokens): (&[usize], &mut LossParts, &mut usize),
    ) -> Result<Vec<usize>, TrainError> {
        // Samples of about one length stand together, so that little is padding.
        let mut ordered = drawn.to_vec();
        ordered.sort_by_key(|sample| (self.samples.tokens(*sample).len(), *sample));
        if let Samples::Masked { .. } = self.samples {
            // Which tokens are hidden is drawn step by step, and mostly several of a sample are.
            return Ok(ordered);
        }
        let mut apart = Vec::new();
        for samples in ordered.chunks(TOGETHER) {
            let piece = self.samples.piece_of(self.spec, samples)?;
            let alone = |apart: &mut Vec<usize>| apart.extend_from_slice(samples);
            if !fused.by_terms || piece.rows.len() != samples.len() {
                alone(&mut apart);
                continue;
            }
            let (terms, own) = fused.terms(self, &mut state.parameters, view, &piece, now)?;
            let Some(samplewise) = Samplewise::new(terms, piece.batch.dims()) else {
                // The same tensors in every step: not tried again.
                fused.by_terms = false;
                alone(&mut apart);
                continue;
            };
            let norms = samplewise.norms();
            // What is not finite is named by the sample that it comes from.
            if !own.total.is_finite() || norms.iter().any(|norm| !norm.is_finite()) {
                alone(&mut apart);
                continue;
            }
            let factors: Vec<f32> = norms.iter().map(|norm| private.factor(*norm)).collect();
            samplewise.add_to(sum, &factors);
            parts.add(&own, samples.len() as f64 / drawn.len() as f64);
            *tokens += piece.tokens;
        }
        Ok(apart)
    }
}
