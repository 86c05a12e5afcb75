//! Conversations of data files: rows of JSONL whose field is a list of messages, rendered by the model's chat template. For
//! training, every token is known to be the assistant's or not, as trl counts them with `assistant_only_loss`: by the marks
//! of the template, else what comes after the prompt for an answer, up to its end token.

use super::chat_template::{AnswersError, ChatTemplate, ChatTemplateError, Conversation, MessageFault, messages};
use super::file::ReadNotes;
use super::records::TextError;
use super::rows::{RowFormat, read_rows, row_format};
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::model::companions::Companions;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The field that is looked for where none is named.
pub const MESSAGES: &str = "messages";
/// Most faults of a file that are shown.
const SHOWN: usize = 8;

/// A conversation as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Token ids, with those that open the text.
    pub tokens: Vec<u32>,
    /// Which of them the assistant says, one by one.
    pub said: Vec<bool>,
}

/// Why the conversations of a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConversationsError {
    /// The file cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Rows that are not conversations.
    #[error("{}:{}; every row needs a list of messages, objects with `role` and `content`", path.display(), shown(faults))]
    Rows {
        /// The file.
        path: PathBuf,
        /// Rows with what is wrong, ascending.
        faults: Vec<(usize, String)>,
    },
    /// The model's templates cannot be used.
    #[error(transparent)]
    Templates(#[from] ChatTemplateError),
    /// The model has none.
    #[error(
        "{}: holds conversations, and {} has no chat template; add the chat_template.jinja of the model they are for",
        path.display(),
        model.display()
    )]
    NoTemplate {
        /// The file.
        path: PathBuf,
        /// The model.
        model: PathBuf,
    },
    /// A conversation that the template refuses, or whose answers it hides.
    #[error("{}:{row}: {source}", path.display())]
    Answers {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: usize,
        /// Why.
        source: AnswersError,
    },
}

fn shown(faults: &[(usize, String)]) -> String {
    let mut text: Vec<String> = faults.iter().take(SHOWN).map(|(row, fault)| format!("{row}: {fault}")).collect();
    if faults.len() > SHOWN {
        text.push(format!("and {} more", faults.len() - SHOWN));
    }
    text.join("; ")
}

/// The conversations of a file; `None` where it holds texts: another kind of file, or a field that is not a list.
///
/// # Errors
/// Rows are not all conversations.
fn conversations(path: &Path, field: Option<&str>) -> Result<Option<Vec<(usize, Conversation)>>, ConversationsError> {
    if !matches!(row_format(path), Some(RowFormat::JsonLines | RowFormat::JsonArray)) {
        return Ok(None);
    }
    let key = field.unwrap_or(MESSAGES);
    // Texts are read again, and their notes are told then; of conversations only blank lines are left out.
    let rows = read_rows(path, &[], &mut ReadNotes::of(path))?;
    if !rows.first().is_some_and(|(_, row)| row.get(key).is_some_and(Value::is_array)) {
        return Ok(None);
    }
    let (mut conversations, mut faults) = (Vec::new(), Vec::new());
    for (row, mut values) in rows {
        let list = match values.shift_remove(key) {
            Some(Value::Array(list)) if list.is_empty() => Err(format!("`{key}` has no messages")),
            Some(Value::Array(list)) => messages(list)
                .map_err(|faults| faults.iter().map(MessageFault::to_string).collect::<Vec<_>>().join("; ")),
            Some(_) => Err(format!("`{key}` is not a list")),
            None => Err(format!("no key `{key}`")),
        };
        let tools = match values.shift_remove("tools") {
            Some(Value::Array(tools)) => Some(tools),
            _ => None,
        };
        match list {
            Ok(messages) => conversations.push((row, Conversation { messages, tools, ..Conversation::default() })),
            Err(fault) => faults.push((row, fault)),
        }
    }
    if faults.is_empty() {
        Ok(Some(conversations))
    } else {
        Err(ConversationsError::Rows { path: path.to_owned(), faults })
    }
}

/// The conversations of a file as tokens, through the chat template among `companions`; `None` where the file holds texts.
///
/// # Errors
/// Every variant of [`ConversationsError`].
pub fn read_conversations(
    path: &Path,
    field: Option<&str>,
    companions: &Companions,
    tokenizer: &Tokenizer,
    ends: &[u32],
) -> Result<Option<Vec<Spoken>>, ConversationsError> {
    let Some(conversations) = conversations(path, field)? else { return Ok(None) };
    let template = ChatTemplate::of(companions)?.ok_or_else(|| ConversationsError::NoTemplate {
        path: path.to_owned(),
        model: companions.origin().to_owned(),
    })?;
    let spoken = conversations.par_iter().map(|(row, conversation)| {
        let refused = |source| ConversationsError::Answers { path: path.to_owned(), row: *row, source };
        let marked = template.answers(conversation).map_err(refused)?;
        let (tokens, places) = tokenizer.encode_placed(&marked.text)?;
        let mut said = vec![false; tokens.len()];
        for answer in &marked.answers {
            let of_answer: Vec<usize> = (0..tokens.len())
                .filter(|&token| answer.contains(&places[token]))
                .filter(|&token| places.get(token + 1).is_none_or(|&end| end <= answer.end))
                .collect();
            let (Some(&first), Some(&last)) = (of_answer.first(), of_answer.last()) else { continue };
            let is_end = |token: &usize| tokens.get(*token).is_some_and(|token| ends.contains(token));
            let mut last = last;
            if !marked.by_template {
                // A model stops at its end token: what the template writes after it is not said.
                let end = of_answer.iter().copied().rev().find(is_end);
                last = end.or(Some(last + 1).filter(is_end)).unwrap_or(last);
            }
            said[first..=last].fill(true);
        }
        Ok(Spoken { tokens, said })
    });
    spoken.collect::<Result<_, _>>().map(Some)
}
