//! The loop of generation: a sequence is read, its next token chosen by the runtime's sampler, and so on, by a session of
//! the runtime (artifacts) or by the f32 forward (directories), each with its cache. What was read is kept, so that a
//! sequence that only continues it is not read again.

use super::error::EvalError;
use super::generate::Stop;
use super::opened::{Engine, OpenedModel};
use crate::artifact::host::SessionMemory;
use crate::machine::kernels::kernels_for;
use crate::model::forward::{Cache, Forward};
use crate::text::tokenizer::Tokenizer;
use crate::text::vocabulary::TextRules;
use slm_runtime::sample::{Sampling, choose_after, mark, seen_words};
use slm_runtime::session::Session;
use std::ops::ControlFlow;
use std::time::Instant;

/// A model with a cache of what it has read.
pub(super) trait Reader {
    /// Reads the sequence's next tokens, and returns the logits of the token after them.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError>;
    /// Forgets everything read.
    fn restart(&mut self) -> Result<(), EvalError>;
}

impl Reader for Session<'_, '_> {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        Ok(self.step(tokens)?.to_vec())
    }

    fn restart(&mut self) -> Result<(), EvalError> {
        self.reset();
        Ok(())
    }
}

impl Reader for (Forward<'_>, Cache) {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        let (forward, cache) = self;
        Ok(forward.read(cache, tokens)?)
    }

    fn restart(&mut self) -> Result<(), EvalError> {
        self.1 = Cache::new(self.0.spec())?;
        Ok(())
    }
}

/// Gives a reader of the model to `body`.
pub(super) fn with_reader<T, E: From<EvalError>>(
    model: &OpenedModel,
    body: impl FnOnce(&mut dyn Reader) -> Result<T, E>,
) -> Result<T, E> {
    match model.engine() {
        Engine::Artifact(file) => {
            let view = file.view().map_err(EvalError::from)?;
            let mut memory = SessionMemory::for_artifact(&view);
            let session = Session::new(&view, kernels_for(view.layout()), memory.as_mut_slice());
            body(&mut session.map_err(EvalError::from)?)
        }
        Engine::Directory { spec, weights, device, .. } => {
            let cache = Cache::new(spec).map_err(EvalError::from)?;
            body(&mut (Forward::new(spec, weights.as_ref(), device), cache))
        }
    }
}

/// How to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Most tokens to add.
    pub(super) tokens: usize,
    /// How to choose.
    pub(super) sampling: Sampling,
    /// Seed of the draws.
    pub(super) seed: u64,
}

/// Whether a prompt can be continued.
pub(super) fn check_prompt(prompt: &[u32], context: usize) -> Result<(), EvalError> {
    match prompt.len() {
        0 => Err(EvalError::EmptyPrompt),
        tokens if tokens > context => Err(EvalError::PromptTooLong { tokens, context }),
        _ => Ok(()),
    }
}

/// Tokens that were added to a sequence.
#[derive(Clone, Debug)]
pub(super) struct Added {
    /// The ids.
    pub(super) tokens: Vec<u32>,
    /// Their bytes.
    pub(super) bytes: Vec<u8>,
    /// Why there are no more.
    pub(super) stop: Stop,
    /// Added per second, the time of what was read before them left out.
    pub(super) tokens_per_s: f64,
    /// Tokens of the sequence that had been read for an earlier one.
    pub(super) reused: usize,
}

/// A model's sequences, one after the other.
pub(super) struct Continuation<'m, 'r> {
    model: &'m OpenedModel,
    reader: &'r mut dyn Reader,
    vocabulary: Vec<Vec<u8>>,
    rules: TextRules,
    /// What the reader has read.
    read: Vec<u32>,
}

impl<'m, 'r> Continuation<'m, 'r> {
    /// With the tokenizer that the tokens are of.
    pub(super) fn new(
        model: &'m OpenedModel,
        tokenizer: &Tokenizer,
        reader: &'r mut dyn Reader,
    ) -> Result<Self, EvalError> {
        let (rules, vocabulary) = (tokenizer.text_rules()?, tokenizer.vocabulary_bytes(model.vocabulary)?);
        Ok(Continuation { model, reader, vocabulary, rules, read: Vec::new() })
    }

    /// Continues a sequence, which is read in pieces of at most `piece` tokens. `emit` receives nothing after a piece and
    /// the bytes of every token added, and may end it; `at_start` says that no text stands before them.
    pub(super) fn go_on(
        &mut self,
        prompt: &[u32],
        choice: &Choice,
        piece: usize,
        at_start: bool,
        emit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Added, EvalError> {
        let context = self.model.context;
        check_prompt(prompt, context)?;
        if self.read.len() >= prompt.len() || !prompt.starts_with(&self.read) {
            self.reader.restart()?;
            self.read.clear();
        }
        let reused = self.read.len();
        let mut added = Added { tokens: Vec::new(), bytes: Vec::new(), stop: Stop::Length, tokens_per_s: 0.0, reused };
        if choice.tokens == 0 {
            return Ok(added);
        }
        let mut logits = Vec::new();
        for part in prompt[reused..].chunks(piece) {
            if self.read.len() > reused && emit(&[]).is_break() {
                added.stop = Stop::Closed;
                return Ok(added);
            }
            logits = self.step(part)?;
        }
        let mut seen = vec![0; seen_words(logits.len())];
        prompt.iter().for_each(|&token| mark(&mut seen, token));
        let start = Instant::now();
        loop {
            let token = choose_after(&logits, &seen, &choice.sampling, choice.seed, added.tokens.len() as u64);
            if self.model.ends.contains(&token) {
                added.stop = Stop::End;
                break;
            }
            added.tokens.push(token);
            mark(&mut seen, token);
            let mut bytes = self.vocabulary.get(token as usize).map_or(&[][..], Vec::as_slice);
            if at_start && added.bytes.is_empty() {
                bytes = self.rules.start_of_text(bytes);
            }
            added.bytes.extend_from_slice(bytes);
            if emit(bytes).is_break() {
                added.stop = Stop::Closed;
                break;
            }
            if added.tokens.len() == choice.tokens {
                break;
            }
            if self.read.len() == context {
                added.stop = Stop::Context;
                break;
            }
            logits = self.step(&[token])?;
        }
        if added.tokens.len() > 1 {
            added.tokens_per_s = (added.tokens.len() - 1) as f64 / start.elapsed().as_secs_f64();
        }
        Ok(added)
    }

    /// Reads tokens; where that fails, nothing counts as read.
    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        let logits = self.reader.read(tokens);
        if logits.is_err() {
            self.read.clear();
            self.reader.restart()?;
        }
        self.read.extend(tokens.iter().filter(|_| logits.is_ok()));
        logits
    }
}
