//! A conversation in turns: every question is answered after the messages before it, through the model's chat template.
//! An answer is the one that [`super::generate`] gives for the same messages. Where the new prompt continues the tokens
//! that the model has read, only the rest is read. Where the context has no room for it, the oldest turns are dropped.

use super::continuation::{Choice, Continuation, Reader, with_reader};
use super::error::EvalError;
use super::generate::{Logged, Stop};
use super::opened::{OpenedModel, tokenizer_at};
use super::speculation::Means;
use crate::model::generation::sampling_json;
use crate::model::spec::ModelKind;
use crate::report::Report;
use crate::text::chat_template::{ChatTemplate, Conversation, message};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Tokens of a prompt that are read before anyone is asked whether to go on.
const PIECE: usize = 256;
/// The share of the context that is kept free for an answer, where one may be as long.
const FREE_SHARE: usize = 4;

/// How a model is talked with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first message, where there is one.
    pub system: Option<String>,
    /// Most tokens of an answer.
    pub tokens: usize,
    /// How to choose.
    pub sampling: Sampling,
    /// Seed of the draws; every answer counts its draws from 0.
    pub seed: u64,
    /// Directory with tokenizer and template for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// What an artifact is run with.
    pub means: Means,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Its number in the conversation, from 1; those that were dropped count.
    pub turn: usize,
    /// The answer; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Their ids.
    #[serde(skip)]
    pub prompt_ids: Vec<u32>,
    /// The number of these that earlier turns had read.
    pub reused_tokens: usize,
    /// The ids of the answer.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// How tokens were chosen: temperature, top_k, top_p, min_p, repetition_penalty.
    pub sampling: Value,
    /// Added per second, the prompt's time left out.
    pub tokens_per_s: f64,
    /// The questions of the turns that were dropped before this one, since the context is full.
    pub dropped: Vec<String>,
    /// Where the answer was logged; absent where there is no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Logged>,
}

impl Report for Turn {
    const SCHEMA: &'static str = "slmc.chat/1";

    fn text(&self) -> String {
        self.text.clone()
    }
}

/// A question with its answer.
#[derive(Clone, Debug)]
struct Exchange {
    question: String,
    answer: String,
}

/// A conversation with a model.
pub struct Chat<'m, 'r> {
    model: &'m OpenedModel,
    tokenizer: &'m Tokenizer,
    template: &'m ChatTemplate,
    continuation: Continuation<'m, 'r>,
    choice: Choice,
    system: Option<String>,
    /// Those that are not dropped.
    history: Vec<Exchange>,
    /// All turns since the conversation began.
    turns: usize,
}

/// Opens a conversation with a model and gives it to `body`.
///
/// # Errors
/// [`EvalError::NotADecoder`], those of the tokenizer and of the template, and those of `body`.
pub fn converse<T, E: From<EvalError>>(
    model: &OpenedModel,
    settings: &Settings,
    body: impl FnOnce(&mut Chat<'_, '_>) -> Result<T, E>,
) -> Result<T, E> {
    let (tokenizer, template) = text_of(model, settings)?;
    with_reader(model, &settings.means, |reader: &mut dyn Reader| {
        let choice = Choice { tokens: settings.tokens, sampling: settings.sampling, seed: settings.seed };
        let vocabulary = tokenizer.vocabulary_bytes(model.vocabulary).map_err(EvalError::from)?;
        let rules = tokenizer.text_rules().map_err(EvalError::from)?;
        let continuation = Continuation::new(model, vocabulary, rules, reader);
        let (system, history) = (settings.system.clone(), Vec::new());
        let (tokenizer, template) = (&tokenizer, &template);
        body(&mut Chat { model, tokenizer, template, continuation, choice, system, history, turns: 0 })
    })
}

fn text_of(model: &OpenedModel, settings: &Settings) -> Result<(Tokenizer, ChatTemplate), EvalError> {
    if model.stacks.is_some() {
        return Err(EvalError::NoConversation);
    }
    if model.kind != ModelKind::Decoder {
        return Err(EvalError::NotADecoder);
    }
    let mut tokenizer = match &settings.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => model.tokenizer()?,
    };
    tokenizer.check(model.vocabulary)?;
    let template = model.chat_template(settings.tokenizer.as_deref())?;
    template.check(None)?;
    Ok((tokenizer, template))
}

impl Chat<'_, '_> {
    /// Positions of the model.
    pub fn context(&self) -> usize {
        self.model.context
    }

    /// Forgets all turns; the system message stays.
    pub fn reset(&mut self) {
        self.history.clear();
        self.turns = 0;
    }

    /// Sets the system message, or takes it away. The turns stay.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Answers a question. `emit` receives the bytes of every token, and nothing while the prompt is read; it may end the
    /// answer, which then stays in the conversation as far as it came. Where this fails, the conversation is as before.
    ///
    /// # Errors
    /// The template refuses the conversation, the question alone is longer than the context, or the model fails.
    pub fn ask(&mut self, question: &str, emit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<Turn, EvalError> {
        let context = self.model.context;
        let free = self.choice.tokens.min(context / FREE_SHARE).max(1);
        let mut dropped = 0;
        let prompt = loop {
            let prompt = self.prompt(&self.history[dropped..], question)?;
            let last = dropped == self.history.len();
            if prompt.len() + free <= context || last && prompt.len() <= context {
                break prompt;
            }
            if last {
                return Err(EvalError::PromptTooLong { tokens: prompt.len(), context });
            }
            dropped += 1;
        };
        let added = self.continuation.go_on(&prompt, &self.choice, PIECE, true, emit)?;
        let text = String::from_utf8_lossy(&added.bytes).into_owned();
        let dropped = self.history.drain(..dropped).map(|exchange| exchange.question).collect();
        self.history.push(Exchange { question: question.to_owned(), answer: text.clone() });
        self.turns += 1;
        Ok(Turn {
            turn: self.turns,
            text,
            prompt_tokens: prompt.len(),
            prompt_ids: prompt,
            reused_tokens: added.reused,
            tokens: added.tokens,
            stop: added.stop,
            sampling: sampling_json(&self.choice.sampling),
            tokens_per_s: added.tokens_per_s,
            dropped,
            audit: None,
        })
    }

    /// The tokens of a conversation that ends with a question.
    fn prompt(&self, history: &[Exchange], question: &str) -> Result<Vec<u32>, EvalError> {
        let system = self.system.iter().map(|system| message("system", system));
        let turns = history
            .iter()
            .flat_map(|Exchange { question, answer }| [message("user", question), message("assistant", answer)]);
        let messages = system.chain(turns).chain([message("user", question)]).collect();
        let conversation = Conversation { messages, add_generation_prompt: true, ..Conversation::default() };
        let rendered = self.template.render(&conversation)?;
        if rendered.trim().is_empty() {
            return Err(EvalError::EmptyRendering { path: self.template.path().to_owned() });
        }
        Ok(self.tokenizer.encode_plain(&rendered)?)
    }
}
