//! The loop of generation: a sequence is read, its next token chosen by the runtime's sampler, and so on, by a session of
//! the runtime (artifacts) or by the f32 forward (directories), each with its cache. What was read is kept, so that a
//! sequence that only continues it is not read again.

use super::error::EvalError;
use super::forward::Forward as _;
use super::generate::Stop;
use super::opened::{Engine, OpenedModel};
use super::speculation::{Means, SpeculationReport, with_artifact};
use crate::artifact::streamed::StreamingReport;
use crate::model::forward::{Cache, Forward};
use crate::text::vocabulary::TextRules;
use slm_runtime::sample::{Sampling, choose_after, mark, seen_words};
use slm_runtime::speculate::Draws;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

/// A model with a cache of what it has read.
pub(super) trait Reader {
    /// Reads the sequence's next tokens, and returns the logits of the token after them.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError>;

    /// As [`Reader::read`], where only the logits of a set of tokens are needed; the others may be anything.
    fn read_allowed(&mut self, tokens: &[u32], _: &[u32]) -> Result<Vec<f32>, EvalError> {
        self.read(tokens)
    }

    /// Forgets what it has read after the first `positions`, or more; returns how many are left.
    fn keep(&mut self, positions: usize) -> Result<usize, EvalError>;

    /// Reads the last token of a sequence, which `choose` continues by the logits after it, and as many of the tokens
    /// chosen as it guessed; returns their number. `None` ends the sequence.
    fn round(
        &mut self,
        sequence: &[u32],
        draws: &Draws<'_>,
        choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
    ) -> Result<usize, EvalError>;

    /// Takes up what sequences begin with, where that is known; returns its tokens.
    fn restore_prefix(&mut self) -> Result<Vec<u32>, EvalError> {
        Ok(Vec::new())
    }

    /// What sequences begin with, as [`Reader::restore_prefix`] takes it up.
    fn prefix(&self) -> Vec<u32> {
        Vec::new()
    }

    /// What guesses did so far; `None` where there are none.
    fn speculation(&self) -> Option<SpeculationReport> {
        None
    }

    /// What was read of a streamed artifact; `None` of any other.
    fn streaming(&self) -> Option<StreamingReport> {
        None
    }
}

impl Reader for (Forward<'_>, Cache) {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        let (forward, cache) = self;
        Ok(forward.read(cache, tokens)?)
    }

    fn keep(&mut self, _: usize) -> Result<usize, EvalError> {
        self.1 = Cache::new(self.0.spec())?;
        Ok(0)
    }

    fn round(
        &mut self,
        sequence: &[u32],
        _: &Draws<'_>,
        choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
    ) -> Result<usize, EvalError> {
        let logits = self.read(&sequence[sequence.len().saturating_sub(1)..])?;
        choose(&logits);
        Ok(0)
    }
}

/// Gives a reader of the model to `body`.
pub(super) fn with_reader<T, E: From<EvalError>>(
    model: &OpenedModel,
    means: &Means,
    body: impl FnOnce(&mut dyn Reader) -> Result<T, E>,
) -> Result<T, E> {
    match model.engine() {
        Engine::Artifact(file) => with_artifact(file, means, body),
        Engine::Directory { spec, weights, device, .. } => {
            if means.streamed {
                return Err(EvalError::StreamedDirectory.into());
            }
            if let Some(draft) = &means.draft_model {
                return Err(EvalError::DraftOfDirectory { path: draft.path().to_owned() }.into());
            }
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

/// Whether a prompt can be continued; of an encoder-decoder it is a source and what its decoder begins with.
pub(super) fn check_prompt(prompt: &[u32], model: &OpenedModel) -> Result<(), EvalError> {
    let context = model.context;
    let written = model.positions(prompt);
    match prompt.len() {
        0 => Err(EvalError::EmptyPrompt),
        tokens if written.max(tokens - written) > context => Err(EvalError::PromptTooLong { tokens, context }),
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
    pub(super) model: &'m OpenedModel,
    reader: &'r mut dyn Reader,
    /// Bytes of every token.
    pub(super) vocabulary: Rc<[Vec<u8>]>,
    pub(super) rules: TextRules,
    /// What the reader has read.
    pub(super) read: Vec<u32>,
}

impl<'m, 'r> Continuation<'m, 'r> {
    /// With the bytes of every token, and how they make a text.
    pub(super) fn new(
        model: &'m OpenedModel,
        vocabulary: Vec<Vec<u8>>,
        rules: TextRules,
        reader: &'r mut dyn Reader,
    ) -> Self {
        Continuation { model, reader, vocabulary: vocabulary.into(), rules, read: Vec::new() }
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
        let context = self.model.most_tokens(prompt);
        check_prompt(prompt, self.model)?;
        let reused = self.recall(prompt)?;
        let added = Added { tokens: Vec::new(), bytes: Vec::new(), stop: Stop::Length, tokens_per_s: 0.0, reused };
        if choice.tokens == 0 {
            return Ok(added);
        }
        let mut logits = Vec::new();
        for part in prompt[reused..].chunks(piece) {
            if self.read.len() > reused && emit(&[]).is_break() {
                return Ok(Added { stop: Stop::Closed, ..added });
            }
            logits = self.step(part)?;
        }
        let Continuation { model, reader, vocabulary, rules, read } = self;
        let mut writing = Writing::new(model, vocabulary, at_start.then_some(&*rules), choice, emit);
        writing.added.reused = reused;
        writing.see(prompt);
        let start = Instant::now();
        let mut going = writing.choose(&logits).is_some();
        let mut sequence = prompt.to_vec();
        while going {
            sequence.extend(&writing.added.tokens[sequence.len() - prompt.len()..]);
            if read.len() == context {
                writing.added.stop = Stop::Context;
                break;
            }
            let penalised = choice.sampling.repetition_penalty != 1.0;
            let seen = if penalised { writing.seen().to_vec() } else { Vec::new() };
            let index = writing.added.tokens.len() as u64;
            let draws = Draws { sampling: choice.sampling, seed: choice.seed, index, seen: &seen };
            let found = reader.round(&sequence, &draws, &mut |logits| {
                let chosen = writing.choose(logits);
                going = chosen.is_some();
                chosen
            });
            match found {
                Ok(confirmed) => {
                    let added = &writing.added.tokens[sequence.len() - prompt.len()..];
                    read.extend(sequence.last());
                    read.extend(&added[..confirmed]);
                }
                Err(error) => {
                    read.clear();
                    reader.keep(0)?;
                    return Err(error);
                }
            }
        }
        let mut added = writing.added;
        if added.tokens.len() > 1 {
            added.tokens_per_s = (added.tokens.len() - 1) as f64 / start.elapsed().as_secs_f64();
        }
        Ok(added)
    }

    /// Keeps what was read of a prompt, or takes up what the artifact's sequences begin with; returns the tokens of it. The
    /// last one is left to be read.
    pub(super) fn recall(&mut self, prompt: &[u32]) -> Result<usize, EvalError> {
        let common =
            |tokens: &[u32]| tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        if common(&self.reader.prefix()) > common(&self.read) {
            self.read = self.reader.restore_prefix()?;
        }
        let known = common(&self.read);
        if known < self.read.len() {
            let kept = self.reader.keep(known)?;
            self.read.truncate(kept);
        }
        Ok(self.read.len())
    }

    /// As [`Continuation::step`], where only the logits of a set of tokens are needed.
    pub(super) fn step_allowed(&mut self, tokens: &[u32], allowed: &[u32]) -> Result<Vec<f32>, EvalError> {
        let logits = self.reader.read_allowed(tokens, allowed);
        self.note(tokens, logits)
    }

    /// What was read of a streamed artifact; `None` of any other.
    pub(super) fn streaming(&self) -> Option<StreamingReport> {
        self.reader.streaming()
    }

    /// What guesses did so far; `None` where there are none.
    pub(super) fn speculation(&self) -> Option<SpeculationReport> {
        self.reader.speculation()
    }

    /// Reads tokens and gives the logits after them.
    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        let logits = self.reader.read(tokens);
        self.note(tokens, logits)
    }

    /// Notes what was read; where that failed, nothing counts as read.
    fn note(&mut self, tokens: &[u32], logits: Result<Vec<f32>, EvalError>) -> Result<Vec<f32>, EvalError> {
        if logits.is_err() {
            self.read.clear();
            self.reader.keep(0)?;
        }
        self.read.extend(tokens.iter().filter(|_| logits.is_ok()));
        logits
    }
}

/// What a token adds to a text, by how texts begin: that is over with the first token that has bytes, also where nothing of them
/// is left.
fn in_text<'b>(bytes: &'b [u8], start_rules: &mut Option<&TextRules>) -> &'b [u8] {
    start_rules.take_if(|_| !bytes.is_empty()).map_or(bytes, |rules| rules.start_of_text(bytes))
}

/// The tokens that are added, as they come.
pub(super) struct Writing<'w> {
    pub(super) added: Added,
    /// The set of the sequence's tokens.
    seen: Vec<u32>,
    choice: &'w Choice,
    ends: &'w [u32],
    vocabulary: &'w [Vec<u8>],
    /// How a text begins, where no text stands before: until a token had bytes.
    start_rules: Option<&'w TextRules>,
    emit: &'w mut dyn FnMut(&[u8]) -> ControlFlow<()>,
}

impl<'w> Writing<'w> {
    pub(super) fn new(
        model: &'w OpenedModel,
        vocabulary: &'w [Vec<u8>],
        start_rules: Option<&'w TextRules>,
        choice: &'w Choice,
        emit: &'w mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Self {
        let added = Added { tokens: Vec::new(), bytes: Vec::new(), stop: Stop::Length, tokens_per_s: 0.0, reused: 0 };
        let seen = vec![0; seen_words(model.vocabulary)];
        Writing { added, seen, choice, ends: &model.ends, vocabulary, start_rules, emit }
    }

    /// Notes tokens that stand before.
    pub(super) fn see(&mut self, tokens: &[u32]) {
        tokens.iter().for_each(|&token| mark(&mut self.seen, token));
    }

    /// The set of the sequence's tokens.
    pub(super) fn seen(&self) -> &[u32] {
        &self.seen
    }

    /// Adds a token; `Break` where nobody reads any more.
    pub(super) fn add(&mut self, token: u32) -> ControlFlow<()> {
        self.added.tokens.push(token);
        mark(&mut self.seen, token);
        let bytes = self.vocabulary.get(token as usize).map_or(&[][..], Vec::as_slice);
        let bytes = in_text(bytes, &mut self.start_rules);
        self.added.bytes.extend_from_slice(bytes);
        (self.emit)(bytes)
    }

    /// Adds the token that the logits give; `None` where it is the last, or ends the text.
    fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let Choice { tokens, sampling, seed } = self.choice;
        let token = choose_after(logits, &self.seen, sampling, *seed, self.added.tokens.len() as u64);
        if self.ends.contains(&token) {
            self.added.stop = Stop::End;
            return None;
        }
        if self.add(token).is_break() {
            self.added.stop = Stop::Closed;
            return None;
        }
        (self.added.tokens.len() < *tokens).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_space_is_left_out_and_by_one_token() {
        let rules = TextRules { strip_leading_space: true };
        for (tokens, text) in
            [(vec![" ", " x"], " x"), (vec!["", " x", " y"], "x y"), (vec!["x", " y"], "x y"), (vec!["", "", " "], "")]
        {
            let mut start = Some(&rules);
            let found: Vec<&[u8]> = tokens.iter().map(|token| in_text(token.as_bytes(), &mut start)).collect();
            assert_eq!(found.concat(), text.as_bytes(), "{tokens:?}");
        }
    }
}
