//! Answers computed again. The arithmetic of an artifact is exact and draws follow from their seed, so the same question
//! gives the same tokens on every machine, and their digest is the record's, or the record is not of what this artifact
//! answers. What is compared: the digest of the question with its settings, the digest of the answer, and that the model ended
//! it where the record says so.

use super::AuditError;
use super::chain::Digest;
use super::prompts::{Asked, Question};
use crate::divergence::argmax;
use crate::eval::constrained::Follow;
use crate::eval::forward::Forward;
use crate::eval::generate::{GenerateOptions, GenerateReport, Prompt, Stop, generate};
use crate::eval::opened::{OpenedModel, Task, tokenizer_at};
use crate::eval::speculation::Means;
use crate::eval::{EvalError, Side};
use crate::model::spec::ModelKind;
use slm_runtime::audit::{AuditRecord, End, Exchange, Follows};
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The same question gave the same answer.
    Same,
    /// It did not, and this is how.
    Differs(String),
    /// It was not run, and this is why.
    Left(&'static str),
}

/// An artifact that records name.
pub struct ReplayModel {
    /// Its `device_digest`.
    pub digest: Digest,
    /// The model.
    pub model: OpenedModel,
}

/// What replays records.
pub struct Replay {
    /// The artifacts.
    pub models: Vec<ReplayModel>,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// Keys of digests.
    pub keys: Vec<Digest>,
}

/// A question and its answer, as tokens.
struct Again {
    input: Vec<u32>,
    output: Vec<u32>,
    sampling: Sampling,
    seed: u64,
    stop: Stop,
}

impl Replay {
    /// Runs the question of an inference again.
    ///
    /// # Errors
    /// The model cannot be run; [`AuditError::Keyed`] is for the caller, who knows the file.
    pub fn run(&self, record: &AuditRecord, asked: &Asked) -> Result<Replayed, AuditError> {
        let Some(model) = self.models.iter().find(|model| model.digest == record.artifact) else {
            return Ok(Replayed::Left("its artifact was not given"));
        };
        let model = &model.model;
        if record.status & 0xff != 0 {
            return Ok(Replayed::Left("it failed on the device"));
        }
        let follow = match record.follows() {
            Some(Follows::Artifact) => Follow::Own,
            Some(Follows::Nothing) => Follow::Free,
            _ => return Ok(Replayed::Left("its output follows a grammar that the artifact does not carry")),
        };
        let again = match (model.kind, model.task) {
            (ModelKind::Decoder, _) => self.continued(model, record, asked, follow),
            (ModelKind::Encoder, Task::Classifier) => self.labelled(model, asked),
            _ => return Ok(Replayed::Left("its artifact gives neither tokens nor labels")),
        };
        match again {
            Ok(again) => Ok(self.compared(record, &again)),
            // A question that this artifact cannot have been asked.
            Err(error @ (EvalError::EmptyPrompt | EvalError::PromptTooLong { .. } | EvalError::Session(_))) => {
                Ok(Replayed::Differs(format!("the question of line {} cannot have been asked: {error}", asked.line)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn continued(
        &self,
        model: &OpenedModel,
        record: &AuditRecord,
        asked: &Asked,
        follow: Follow,
    ) -> Result<Again, EvalError> {
        let prompt = match &asked.question {
            Question::Text(text) => Prompt::Text(text.clone()),
            Question::Chat(conversation) => Prompt::Chat(conversation.clone()),
            Question::Tokens(tokens) => Prompt::Tokens(tokens.clone()),
        };
        // One more where the model must be seen to stop.
        let stops = matches!(record.end(), Some(End::Model | End::Context));
        let options = GenerateOptions {
            prompt,
            tokens: record.tokens_out as usize + usize::from(stops),
            sampling: asked.sampling(&model.sampling),
            seed: asked.seed,
            tokenizer: self.tokenizer.clone(),
            means: Means::default(),
            follow,
        };
        let found = generate(model, &options, &mut |_| ControlFlow::Continue(()))?;
        let GenerateReport { prompt_ids: input, tokens: output, stop, .. } = found;
        Ok(Again { input, output, sampling: options.sampling, seed: options.seed, stop })
    }

    fn labelled(&self, model: &OpenedModel, asked: &Asked) -> Result<Again, EvalError> {
        let input = match &asked.question {
            Question::Tokens(tokens) => tokens.clone(),
            Question::Text(text) => {
                let mut tokenizer = match &self.tokenizer {
                    Some(directory) => tokenizer_at(directory)?,
                    None => model.tokenizer()?,
                };
                tokenizer.check(model.vocabulary)?;
                tokenizer.encode_within(text, model.context)?.0
            }
            Question::Chat(_) => return Err(EvalError::NotADecoder),
        };
        let logits = model.logits(std::slice::from_ref(&input));
        let logits = logits.map_err(|source| EvalError::Forward { side: Side::Model, first: 0, last: 0, source })?;
        let label = logits.first().map_or(0, |logits| argmax(logits)) as u32;
        Ok(Again { input, output: vec![label], sampling: Sampling::GREEDY, seed: asked.seed, stop: Stop::End })
    }

    fn compared(&self, record: &AuditRecord, again: &Again) -> Replayed {
        let digests = |key: Option<&Digest>| {
            let mut exchange = Exchange::new(key, &again.sampling, again.seed);
            exchange.input(&again.input);
            exchange.output(&again.output);
            exchange.finish()
        };
        let mut candidates: Vec<_> = match record.keyed() {
            true => self.keys.iter().map(|key| digests(Some(key))).collect(),
            false => vec![digests(None)],
        };
        candidates.sort_by_key(|found| found.input != record.input);
        let Some(found) = candidates.first() else {
            return Replayed::Left("its digests are keyed, and no key was given");
        };
        if found.tokens_in != record.tokens_in || found.input != record.input {
            return Replayed::Differs(format!(
                "the question, its settings or its seed are not those of the record ({} tokens, {} there)",
                again.input.len(),
                record.tokens_in
            ));
        }
        if found.tokens_out != record.tokens_out || found.output != record.output {
            return Replayed::Differs(format!(
                "the artifact answers something else ({} tokens, {} there)",
                again.output.len(),
                record.tokens_out
            ));
        }
        match (record.end(), again.stop) {
            (Some(End::Model), Stop::End) | (Some(End::Context), Stop::Context) => Replayed::Same,
            (Some(End::Model), _) => {
                Replayed::Differs("the artifact does not end the answer where the record says".into())
            }
            (Some(End::Context), _) => Replayed::Differs("the context is not full where the record says".into()),
            _ => Replayed::Same,
        }
    }
}
