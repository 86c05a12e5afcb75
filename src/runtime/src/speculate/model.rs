//! Drafts from a smaller model of the same tokens, in a session of its own. It chooses with the draws of the model that it
//! guesses: where both distributions are alike, the same draw gives the same token.

use super::{Drafter, Draws};
use crate::sample::choose_after;
use crate::session::{Session, SessionError};

/// Drafts what a smaller model chooses.
pub struct ModelDrafter<'a, 'm, 't> {
    session: Session<'a, 'm>,
    /// The tokens that its session has read, (context).
    read: &'t mut [u32],
}

impl<'a, 'm, 't> ModelDrafter<'a, 'm, 't> {
    /// With a session without tokens and a place for as many as its context.
    pub fn new(session: Session<'a, 'm>, read: &'t mut [u32]) -> Self {
        ModelDrafter { session, read }
    }

    /// Takes back what is not of the sequence, and reads the rest of it; the last token is left to be read.
    fn follow(&mut self, sequence: &[u32]) -> Result<(), SessionError> {
        let known = &self.read[..self.session.positions()];
        let common = known.iter().zip(sequence).take_while(|(a, b)| a == b).count().min(sequence.len() - 1);
        if self.session.truncate(common).is_err() {
            self.session.reset();
        }
        let start = self.session.positions();
        let missing = &sequence[start..sequence.len() - 1];
        if !missing.is_empty() {
            self.session.read(missing)?;
            self.read[start..][..missing.len()].copy_from_slice(missing);
        }
        Ok(())
    }
}

impl Drafter for ModelDrafter<'_, '_, '_> {
    fn draft(&mut self, sequence: &[u32], draws: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let Some(&last) = sequence.last() else { return Ok(0) };
        // A draft model may have a shorter context than the model.
        let most = drafts.len().min(self.read.len().saturating_sub(sequence.len()));
        if most == 0 {
            return Ok(0);
        }
        self.follow(sequence)?;
        self.session.mark();
        let mut token = last;
        for (number, draft) in drafts[..most].iter_mut().enumerate() {
            let position = self.session.positions();
            let logits = self.session.step(&[token])?;
            self.read[position] = token;
            token = choose_after(logits, draws.seen, &draws.sampling, draws.seed, draws.index + number as u64);
            *draft = token;
        }
        Ok(most)
    }

    fn behind(&self, length: usize) -> usize {
        length.saturating_sub(1 + self.session.positions())
    }
}
