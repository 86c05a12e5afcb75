//! What a model is given to write on from: the token that opens a text, beginnings of texts, or questions that its chat template
//! makes into prompts.

use super::PREFIX;
use super::error::SynthesisError;
use super::work::SynthesisOptions;
use crate::model::companions::Companions;
use crate::model::spec::ModelSpec;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::text::chat_template::{ChatTemplate, Conversation, Message, Moment, message};
use crate::text::conversations::{ConversationsError, find_conversations};
use crate::text::documents::read_documents;
use crate::text::file::ReadNotes;
use crate::text::records::{Records, read_records};
use crate::text::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

/// The prompts of a run.
pub(super) struct Prompts {
    /// At least one.
    pub(super) list: Vec<Given>,
    /// How many were left out, since they fill the window.
    pub(super) too_long: u64,
    /// The changes of reading the file.
    pub(super) notes: Option<ReadNotes>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    /// Tokens, those that open a text included.
    pub(super) tokens: Vec<u32>,
    /// How many of them are not part of the text.
    pub(super) opening: usize,
    /// The conversation that is to be answered, where it is one.
    pub(super) messages: Option<Vec<Message>>,
}

/// The tokens that a text begins with: those that open one, else the one that ends the text before it.
pub(super) fn begins_with(spec: &ModelSpec) -> &[u32] {
    if spec.opening.is_empty() { spec.ends.get(..1).unwrap_or(&[]) } else { &spec.opening }
}

/// The model that is asked.
#[derive(Clone, Copy)]
pub(super) struct Model<'m> {
    /// Its specification.
    pub(super) spec: &'m ModelSpec,
    /// Its files.
    pub(super) companions: &'m Companions,
    /// Its tokenizer.
    pub(super) tokenizer: &'m Tokenizer,
}

/// The prompts that options name.
///
/// # Errors
/// A file that cannot be read or holds no prompt that fits, a template that is missing or refuses one.
pub(super) fn read(
    options: &SynthesisOptions,
    model: Model<'_>,
    progress: &dyn Progress,
) -> Result<Prompts, StageError> {
    let Some(path) = &options.prompts else {
        let tokens = begins_with(model.spec).to_vec();
        if tokens.is_empty() {
            return Err(SynthesisError::NoOpening { path: options.model.clone() }.into());
        }
        let list = vec![Given { opening: tokens.len(), tokens, messages: None }];
        return Ok(Prompts { list, too_long: 0, notes: None });
    };
    let (all, notes) = match find_conversations(path, options.form.field.as_deref())? {
        Some(_) if options.prefix.is_some() => {
            return Err(SynthesisError::PrefixOfConversations { path: path.clone() }.into());
        }
        Some(conversations) => {
            let notes = conversations.notes().clone();
            let asked = conversations.into_messages().into_iter().map(until_question);
            (questions(path, asked, model, options)?, notes)
        }
        None if options.chat => {
            let Records { records, notes } = read_records(path, &options.form)?;
            let system = options.system.as_deref();
            let asked = records.iter().map(|record| Some(Conversation::ask(system, &record.text).messages));
            (questions(path, asked, model, options)?, notes)
        }
        None => beginnings(path, model, options)?,
    };
    notes.warn(progress);
    fitting(path, all, notes, options.window, progress)
}

/// Without prompts that have no token or no room after them.
fn fitting(
    path: &Path,
    all: Vec<Given>,
    notes: ReadNotes,
    window: usize,
    progress: &dyn Progress,
) -> Result<Prompts, StageError> {
    let filled: Vec<Given> = all.into_iter().filter(|given| !given.tokens.is_empty()).collect();
    let Some(shortest) = filled.iter().map(|given| given.tokens.len()).min() else {
        return Err(SynthesisError::Empty { path: path.to_owned() }.into());
    };
    let count = filled.len();
    let list: Vec<Given> = filled.into_iter().filter(|given| given.tokens.len() < window).collect();
    if list.is_empty() {
        return Err(SynthesisError::TooLong { path: path.to_owned(), shortest, window }.into());
    }
    let too_long = (count - list.len()) as u64;
    if too_long > 0 {
        let file = path.display();
        progress
            .warn(&format_args!("{file}: {too_long} of {count} prompts fill the window of {window} tokens; left out"));
    }
    Ok(Prompts { list, too_long, notes: Some(notes) })
}

/// A conversation up to its last question.
fn until_question(mut messages: Vec<Message>) -> Option<Vec<Message>> {
    let last = messages.iter().rposition(|message| message.get("role").and_then(Value::as_str) == Some("user"))?;
    messages.truncate(last + 1);
    Some(messages)
}

fn questions(
    path: &Path,
    asked: impl Iterator<Item = Option<Vec<Message>>>,
    model: Model<'_>,
    options: &SynthesisOptions,
) -> Result<Vec<Given>, StageError> {
    let origin = model.companions.origin().to_owned();
    let template = ChatTemplate::of(model.companions)?.ok_or_else(|| match options.chat {
        true => StageError::from(SynthesisError::NoTemplate { path: origin.clone() }),
        false => ConversationsError::NoTemplate { path: path.to_owned(), model: origin.clone() }.into(),
    })?;
    let one = |(index, messages): (usize, Option<Vec<Message>>)| -> Result<Given, StageError> {
        let number = index + 1;
        let mut messages = messages.ok_or_else(|| SynthesisError::NoQuestion { path: path.to_owned(), number })?;
        let has_system = messages.first().and_then(|first| first.get("role")).and_then(Value::as_str) == Some("system");
        if let Some(system) = options.system.as_ref().filter(|_| !has_system) {
            messages.insert(0, message("system", system));
        }
        // A date that a template writes is not that of the run, so that the same command writes the same.
        let moment = Some(Moment::from_unix(0));
        let add_generation_prompt = true;
        let conversation = Conversation { messages, add_generation_prompt, moment, ..Conversation::default() };
        let rendered = template.render(&conversation)?;
        if rendered.trim().is_empty() {
            return Err(SynthesisError::EmptyRendering { path: path.to_owned(), number }.into());
        }
        let tokens = model.tokenizer.encode_plain(&rendered)?;
        Ok(Given { opening: tokens.len(), tokens, messages: Some(conversation.messages) })
    };
    asked.enumerate().map(one).collect()
}

/// Beginnings of texts: of a text file, of every stretch that fills a window; of rows and documents, of each.
fn beginnings(
    path: &Path,
    model: Model<'_>,
    options: &SynthesisOptions,
) -> Result<(Vec<Given>, ReadNotes), StageError> {
    let documents = read_documents(path, &options.form)?;
    let opening = &model.spec.opening;
    let given = |tokens: &[u32]| Given {
        tokens: [opening.as_slice(), tokens].concat(),
        opening: opening.len(),
        messages: None,
    };
    let mut all = Vec::new();
    for text in &documents.texts {
        let tokens = model.tokenizer.encode_plain(text)?;
        if documents.several {
            let most = options.prefix.unwrap_or(tokens.len()).min(tokens.len());
            all.push(given(&tokens[..most]));
        } else {
            let stretch = options.window.saturating_sub(opening.len()).max(1);
            let prefix = options.prefix.unwrap_or(PREFIX.min(stretch / 2));
            let whole = tokens.chunks(stretch).filter(|stretch| stretch.len() >= prefix.max(1));
            all.extend(whole.map(|stretch| given(&stretch[..prefix.min(stretch.len())])));
        }
    }
    Ok((all, documents.notes))
}
