//! Continuing a text: token after token from a session of the runtime (artifacts) or from the f32 forward
//! (directories), each with its cache, chosen by the runtime's sampler, handed out as bytes as they come.

use super::opened::{Engine, OpenError, OpenedModel, tokenizer_at};
use crate::artifact::host::{ArtifactError, SessionMemory};
use crate::machine::kernels::kernels_for;
use crate::model::forward::{Cache, CacheError, Forward};
use crate::model::spec::ModelKind;
use crate::report::Report;
use crate::text::chat_template::{ChatTemplateError, Conversation};
use crate::text::tokenizer::TokenizerError;
use serde::Serialize;
use slm_runtime::sample::{Sampling, choose};
use slm_runtime::session::{Session, SessionError};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Prompt of a generation.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A text to continue.
    Text(String),
    /// A conversation to answer, through the model's chat template.
    Chat(Conversation),
}

/// Options of a generation.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Prompt to continue or answer.
    pub prompt: Prompt,
    /// Most tokens to add.
    pub tokens: usize,
    /// Choice of tokens.
    pub sampling: Sampling,
    /// Seed of the draws.
    pub seed: u64,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The model does not continue text.
    #[error("this model is an encoder: it does not continue text; use `slmc eval` with --task embed or classify")]
    NotADecoder,
    /// The prompt has no tokens and the model no opening one.
    #[error("the prompt is empty, and the model has no token that opens a text; pass --prompt TEXT")]
    EmptyPrompt,
    /// The template wrote nothing.
    #[error("{}: the chat template makes an empty text of this conversation; correct it, or pass --prompt TEXT", path.display())]
    EmptyRendering {
        /// Where the template is.
        path: PathBuf,
    },
    /// The prompt alone is too long.
    #[error(
        "the prompt has {tokens} tokens, the context holds {context}; shorten it, or, for an artifact, compile with a larger --context"
    )]
    PromptTooLong {
        /// Tokens of the prompt, those that open a text included.
        tokens: usize,
        /// Positions there are.
        context: usize,
    },
    /// The model cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The tokenizer cannot be opened or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template refuses the conversation, or fails.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// The f32 forward failed.
    #[error(transparent)]
    Forward(#[from] CacheError),
    /// The runtime failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// As many tokens as were asked for.
    Length,
    /// The model ended the text.
    End,
    /// No positions are left.
    Context,
    /// The reader went away.
    Closed,
}

/// Result of `slmc generate`.
#[derive(Clone, Debug, Serialize)]
pub struct GenerateReport {
    /// Prompt and continuation, or the answer alone where a conversation was asked; bytes that are not UTF-8 are
    /// replaced.
    pub text: String,
    /// The prompt that the template made, where a conversation was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Tokens of the prompt, opening ones included.
    pub prompt_tokens: usize,
    /// The ids added.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Added per second, the prompt's time left out.
    pub tokens_per_s: f64,
}

impl Report for GenerateReport {
    const SCHEMA: &'static str = "slmc.generate/1";

    fn text(&self) -> String {
        self.text.clone()
    }
}

/// A model with its cache of one text.
trait Reader {
    /// Reads the text's next tokens, and returns the logits of the token after them.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError>;
}

impl Reader for Session<'_, '_> {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        Ok(self.step(tokens)?.to_vec())
    }
}

impl Reader for (Forward<'_>, Cache) {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let (forward, cache) = self;
        Ok(forward.read(cache, tokens)?)
    }
}

/// Continues a text or answers a conversation. `emit` receives the text and then the bytes of every token; it may end
/// generation. A template writes the tokens that open a text itself.
pub fn generate(
    model: &OpenedModel,
    options: &GenerateOptions,
    emit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<GenerateReport, GenerateError> {
    if model.kind != ModelKind::Decoder {
        return Err(GenerateError::NotADecoder);
    }
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => model.tokenizer()?,
    };
    let rules = tokenizer.text_rules()?;
    tokenizer.check(model.vocabulary)?;
    let (mut tokens, shown, rendered) = match &options.prompt {
        Prompt::Text(text) => ([model.opening.clone(), tokenizer.encode_plain(text)?].concat(), text.as_str(), None),
        Prompt::Chat(conversation) => {
            let template = model.chat_template(options.tokenizer.as_deref())?;
            let rendered = template.render(conversation)?;
            if rendered.trim().is_empty() {
                return Err(GenerateError::EmptyRendering { path: template.path().to_owned() });
            }
            (tokenizer.encode_plain(&rendered)?, "", Some(rendered))
        }
    };
    let (prompt_tokens, context) = (tokens.len(), model.context);
    if tokens.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt_tokens > context {
        return Err(GenerateError::PromptTooLong { tokens: prompt_tokens, context });
    }
    let vocabulary = tokenizer.vocabulary_bytes(model.vocabulary)?;
    let mut text = shown.as_bytes().to_vec();
    let mut run = |reader: &mut dyn Reader| {
        let mut stop = if emit(shown.as_bytes()).is_break() { Stop::Closed } else { Stop::Length };
        let mut read = 0;
        let mut start = Instant::now();
        while stop == Stop::Length && tokens.len() - prompt_tokens < options.tokens {
            if tokens.len() > context {
                stop = Stop::Context;
                break;
            }
            let logits = reader.read(&tokens[read..])?;
            if read == 0 {
                start = Instant::now();
            }
            read = tokens.len();
            let token = choose(&logits, &options.sampling, options.seed, (read - prompt_tokens) as u64);
            if model.ends.contains(&token) {
                stop = Stop::End;
                break;
            }
            tokens.push(token);
            let mut bytes = vocabulary.get(token as usize).map_or(&[][..], Vec::as_slice);
            if text.is_empty() {
                bytes = rules.start_of_text(bytes);
            }
            text.extend_from_slice(bytes);
            if emit(bytes).is_break() {
                stop = Stop::Closed;
            }
        }
        let added = tokens.len() - prompt_tokens;
        let seconds = start.elapsed().as_secs_f64();
        let tokens_per_s = if added > 1 { (added - 1) as f64 / seconds } else { 0.0 };
        Ok::<_, GenerateError>((stop, tokens_per_s))
    };
    let (stop, tokens_per_s) = match model.engine() {
        Engine::Artifact(file) => {
            let view = file.view()?;
            let mut memory = SessionMemory::for_artifact(&view);
            run(&mut Session::new(&view, kernels_for(view.layout()), memory.as_mut_slice())?)?
        }
        Engine::Directory { spec, weights, device, .. } => {
            run(&mut (Forward::new(spec, weights.as_ref(), device), Cache::new(spec)?))?
        }
    };
    Ok(GenerateReport {
        text: String::from_utf8_lossy(&text).into_owned(),
        prompt: rendered,
        prompt_tokens,
        tokens: tokens.split_off(prompt_tokens),
        stop,
        tokens_per_s,
    })
}
