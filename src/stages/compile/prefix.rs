//! The tokens that sequences begin with: of a text, or those that the chat template writes before the first question.

use super::work::CompileOptions;
use crate::compile::CompileError;
use crate::model::weights::Model;
use crate::stages::StageError;
use crate::stages::arguments::CHAT;
use crate::text::chat_template::{ChatTemplate, Conversation};
use crate::text::tokenizer::Tokenizer;
use std::path::Path;

/// Questions that begin in different ways: what both prompts begin with is there before any question.
const QUESTIONS: [&str; 2] = ["What is it?", "7 + 5"];

/// The tokens; none where nothing is asked for.
pub(super) fn prefix_tokens(
    options: &CompileOptions,
    model: &Model,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<Vec<u32>, StageError> {
    let Some(source) = &options.additions.prefix else { return Ok(Vec::new()) };
    let refuse =
        |reason: &str| CompileError::PrefixText { text: source.display().to_string(), reason: reason.to_owned() };
    let tokens = match source == Path::new(CHAT) {
        true => {
            let template = template.ok_or_else(|| refuse("the model has no chat template; pass a file of text"))?;
            let prompt = |question: &str| -> Result<Vec<u32>, StageError> {
                let conversation = Conversation::ask(options.additions.system.as_deref(), question);
                let rendered = template.render(&conversation)?;
                Ok(tokenizer.encode_plain(&rendered)?)
            };
            let [first, second] = QUESTIONS.map(prompt);
            first?.into_iter().zip(second?).take_while(|(a, b)| a == b).map(|(token, _)| token).collect()
        }
        false => {
            if options.additions.system.is_some() {
                return Err(refuse("--system goes with --prefix chat").into());
            }
            let text = std::fs::read_to_string(source).map_err(|error| refuse(&error.to_string()))?;
            [model.spec.opening.clone(), tokenizer.encode_plain(&text)?].concat()
        }
    };
    let context = options.context.unwrap_or(model.spec.text_context());
    if tokens.len() >= context {
        let reason = format!("its {} tokens leave nothing of a context of {context}; pass less text", tokens.len());
        return Err(refuse(&reason).into());
    }
    if tokens.is_empty() {
        return Err(refuse("has no tokens").into());
    }
    Ok(tokens)
}
