//! The gradients of a step by the trained values: of all its micro-batches together, or sample by sample where the run is private.
//! Whatever the forward runs on, what is not finite stops the run here.

use super::checkpoint::State;
use super::data::Piece;
use super::error::TrainError;
use super::fused::Fused;
use super::loss::table::LossParts;
use super::optimizer::Gradients;
use super::parameters::TrainedId;
use super::privacy::Private;
use super::trainer::Run;
use super::view::View;

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
        mut fused: Option<&mut Fused>,
        saved: u64,
    ) -> Result<StepGradients, TrainError> {
        let (gradients, parts) = match &mut fused {
            Some(fused) => fused.gradients(self, &mut state.parameters, view, pieces, now)?,
            None => self.gradients(&view.seen(&state.parameters), pieces, now)?,
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
        if let Some(fused) = fused {
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
        mut fused: Option<&mut Fused>,
        saved: u64,
    ) -> Result<StepGradients, TrainError> {
        let drawn = private.draw(self.samples, state.step);
        let zeros = |(id, values): (&TrainedId, &Vec<f32>)| (*id, vec![0.0; values.len()]);
        let mut sum: Gradients = state.parameters.iter().map(zeros).collect();
        let (mut parts, mut tokens) = (LossParts::default(), 0);
        for piece in self.samples.apart(self.spec, self.settings.seed, state.step, &drawn) {
            let piece = piece?;
            let piece = std::slice::from_ref(&piece);
            let one = self.trained_gradients(piece, state, (view, now), fused.as_deref_mut(), saved)?;
            private.add_clipped(&mut sum, &one.gradients);
            parts.add(&one.parts, 1.0 / drawn.len() as f64);
            tokens += one.tokens;
            if let Some(fused) = &mut fused {
                fused.reuse(one.gradients);
            }
        }
        private.finish(&mut sum, state.step);
        Ok(StepGradients { gradients: sum, parts, tokens })
    }
}
