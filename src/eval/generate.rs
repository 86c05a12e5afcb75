//! Continuing a text or answering a conversation once: the prompt's tokens, and those that `continuation.rs` adds,
//! handed out as bytes as they come.

use super::continuation::{Choice, Continuation, check_prompt, with_reader};
use super::opened::{OpenError, OpenedModel, tokenizer_at};
use crate::artifact::host::ArtifactError;
use crate::model::forward::CacheError;
use crate::model::generation::sampling_json;
use crate::model::spec::ModelKind;
use crate::report::Report;
use crate::text::chat_template::{ChatTemplateError, Conversation};
use crate::text::tokenizer::TokenizerError;
use serde::Serialize;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use slm_runtime::session::SessionError;
use std::ops::ControlFlow;
use std::path::PathBuf;

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
    /// The person who asked stopped it.
    Interrupted,
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
    /// How tokens were chosen: temperature, top_k, top_p, min_p, repetition_penalty.
    pub sampling: Value,
    /// Added per second, the prompt's time left out.
    pub tokens_per_s: f64,
}

impl Report for GenerateReport {
    const SCHEMA: &'static str = "slmc.generate/1";

    fn text(&self) -> String {
        self.text.clone()
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
    tokenizer.check(model.vocabulary)?;
    let (tokens, shown, rendered) = match &options.prompt {
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
    // Before anything of it is shown.
    check_prompt(&tokens, model.context)?;
    let choice = Choice { tokens: options.tokens, sampling: options.sampling, seed: options.seed };
    let added = with_reader(model, |reader| {
        let mut continuation = Continuation::new(model, &tokenizer, reader)?;
        // Before the prompt is read, which may take a while; a reader that is gone needs no token.
        let choice = if emit(shown.as_bytes()).is_break() { Choice { tokens: 0, ..choice } } else { choice };
        continuation.go_on(&tokens, &choice, usize::MAX, shown.is_empty(), emit)
    })?;
    let text = [shown.as_bytes(), &added.bytes].concat();
    Ok(GenerateReport {
        text: String::from_utf8_lossy(&text).into_owned(),
        prompt: rendered,
        prompt_tokens: tokens.len(),
        tokens: added.tokens,
        stop: added.stop,
        sampling: sampling_json(&options.sampling),
        tokens_per_s: added.tokens_per_s,
    })
}
