//! Continuing a text or answering a conversation once: the prompt's tokens, and those that `continuation.rs` adds,
//! handed out as bytes as they come.

use super::constrained::{Follow, Followed, FollowedReport};
use super::continuation::{Choice, Continuation, check_prompt, with_reader};
use super::error::EvalError;
use super::opened::{OpenedModel, tokenizer_at};
use super::speculation::{Means, SpeculationReport};
use crate::artifact::streamed::StreamingReport;
use crate::model::generation::sampling_json;
use crate::model::spec::ModelKind;
use crate::report::Report;
use crate::text::chat_template::Conversation;
use crate::text::reasoning::source_tokens;
use serde::Serialize;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Prompt of a generation.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A text to continue.
    Text(String),
    /// A conversation to answer, through the model's chat template.
    Chat(Conversation),
    /// Tokens to continue, opening ones included.
    Tokens(Vec<u32>),
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
    /// What an artifact is run with.
    pub means: Means,
    /// What the output follows.
    pub follow: Follow,
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
    /// Prompt and continuation, or the answer alone where a conversation was asked or an encoder-decoder a text; bytes that are
    /// not UTF-8 are replaced.
    pub text: String,
    /// The prompt that the template made, where a conversation was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Tokens of the prompt, opening ones included.
    pub prompt_tokens: usize,
    /// Their ids.
    #[serde(skip)]
    pub prompt_ids: Vec<u32>,
    /// Of these, those that the artifact has read already; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused_tokens: Option<usize>,
    /// The ids added.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// How tokens were chosen: temperature, top_k, top_p, min_p, repetition_penalty.
    pub sampling: Value,
    /// Added per second, the prompt's time left out.
    pub tokens_per_s: f64,
    /// What the grammar did; absent where the output was free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar: Option<FollowedReport>,
    /// What the author of the grammar should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What drafts did; absent where there were no drafters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<SpeculationReport>,
    /// What was read of a streamed artifact; absent where weights are read where they lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<StreamingReport>,
    /// Where the answer was logged; absent where there is no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Logged>,
}

/// A record of an audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// The log.
    pub file: PathBuf,
    /// Number of the record.
    pub sequence: u64,
    /// What stands for the log with all that was written since, 64 hexadecimal digits.
    pub head: String,
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
) -> Result<GenerateReport, EvalError> {
    if model.kind == ModelKind::Encoder {
        return Err(EvalError::NotADecoder);
    }
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => model.tokenizer()?,
    };
    tokenizer.check(model.vocabulary)?;
    let (tokens, shown, rendered) = match (&options.prompt, model.stacks) {
        (Prompt::Text(text), Some(stacks)) => (source_tokens(text, &tokenizer, (stacks.start, &model.ends))?, "", None),
        (Prompt::Text(text), None) => {
            ([model.opening.clone(), tokenizer.encode_plain(text)?].concat(), text.as_str(), None)
        }
        (Prompt::Tokens(tokens), _) => (tokens.clone(), "", None),
        (Prompt::Chat(_), Some(_)) => return Err(EvalError::NoConversation),
        (Prompt::Chat(conversation), None) => {
            let template = model.chat_template(options.tokenizer.as_deref())?;
            let rendered = template.render(conversation)?;
            if rendered.trim().is_empty() {
                return Err(EvalError::EmptyRendering { path: template.path().to_owned() });
            }
            (tokenizer.encode_plain(&rendered)?, "", Some(rendered))
        }
    };
    // Before anything of it is shown.
    check_prompt(&tokens, model)?;
    let choice = Choice { tokens: options.tokens, sampling: options.sampling, seed: options.seed };
    let vocabulary = tokenizer.vocabulary_bytes(model.vocabulary)?;
    let followed = Followed::of(model, &tokenizer, &vocabulary, &options.follow)?;
    let (added, grammar, speculation, streaming) = with_reader(model, &options.means, |reader| {
        let mut continuation = Continuation::new(model, vocabulary, tokenizer.text_rules()?, reader);
        // Before the prompt is read, which may take a while; a reader that is gone needs no token.
        let choice = if emit(shown.as_bytes()).is_break() { Choice { tokens: 0, ..choice } } else { choice };
        let at_start = shown.is_empty();
        let (added, grammar) = match &followed {
            Some(followed) => {
                let (added, report) = continuation.go_on_by(followed, &tokens, &choice, emit)?;
                (added, Some(report))
            }
            None => (continuation.go_on(&tokens, &choice, usize::MAX, at_start, emit)?, None),
        };
        Ok::<_, EvalError>((added, grammar, continuation.speculation(), continuation.streaming()))
    })?;
    let text = [shown.as_bytes(), &added.bytes].concat();
    Ok(GenerateReport {
        text: String::from_utf8_lossy(&text).into_owned(),
        prompt: rendered,
        prompt_tokens: tokens.len(),
        prompt_ids: tokens,
        reused_tokens: (added.reused > 0).then_some(added.reused),
        tokens: added.tokens,
        stop: added.stop,
        sampling: sampling_json(&options.sampling),
        tokens_per_s: added.tokens_per_s,
        grammar,
        notes: followed.map_or_else(Vec::new, |followed| followed.notes),
        speculation,
        streaming,
        audit: None,
    })
}
