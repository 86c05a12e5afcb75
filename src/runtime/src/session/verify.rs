//! Several tokens that may come next, read at once and confirmed one by one. The logits of a position do not depend on
//! what is read with it, so the tokens chosen are those of reading one at a time, bit for bit, greedy or sampled.

use super::{Session, SessionError};
use crate::format::spec::{MAX_CHUNK, Output};

impl Session<'_, '_> {
    /// Positions whose logits are computed together: one more than the drafts that [`Session::verify`] takes.
    pub fn rows(&self) -> usize {
        self.verified.min(self.artifact.spec().chunk as usize)
    }

    /// Reads `token`, and after it `drafts`, as many as the session's rows and the context allow. `choose` receives the
    /// logits after the token, and after each draft as long as it returned that draft; `None` ends the sequence. What was
    /// not confirmed is taken back; the number of drafts that were is returned.
    pub fn verify(
        &mut self,
        token: u32,
        drafts: &[u32],
        choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
    ) -> Result<usize, SessionError> {
        if !self.is_decoder() || self.output_kind() != Output::LanguageModel {
            return Err(SessionError::NotADecoder);
        }
        let first = self.length;
        let left = (self.artifact.spec().context as usize).saturating_sub(first + 1);
        let drafts = &drafts[..drafts.len().min(self.rows() - 1).min(left)];
        let mut tokens = [0; MAX_CHUNK];
        let tokens = &mut tokens[..1 + drafts.len()];
        tokens[0] = token;
        tokens[1..].copy_from_slice(drafts);
        self.check_tokens(tokens)?;
        if !drafts.is_empty() {
            self.mark();
        }
        self.read_chunk(tokens)?;
        // Drafts that nobody has confirmed are in the sequence until they are taken back.
        self.whole = false;
        self.head_rows(0, tokens.len())?;
        self.whole = true;
        let width = self.artifact.spec().output_width as usize;
        let mut confirmed = 0;
        for logits in self.buffers.output[..tokens.len() * width].chunks_exact(width) {
            let chosen = choose(logits);
            if chosen.is_none() || drafts.get(confirmed) != chosen.as_ref() {
                break;
            }
            confirmed += 1;
        }
        self.truncate(first + 1 + confirmed)?;
        Ok(confirmed)
    }
}
