//! Conversations of data files: rows of JSONL, JSON or Parquet whose field is a list of messages, rendered by the model's chat
//! template. Every token is known to be the assistant's or not, as trl counts them with `assistant_only_loss`: by the marks
//! of the template, else what comes after the prompt for an answer, up to its end token.

use super::chat_template::{
    AnswersError, ChatTemplate, ChatTemplateError, Conversation, Marked, Message, MessageFault, messages,
};
use super::file::ReadNotes;
use super::records::TextError;
use super::rows::{has_lists, read_rows};
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::model::companions::Companions;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The field that is looked for where none is named.
pub const MESSAGES: &str = "messages";
/// The field of a conversation's tools.
const TOOLS: &str = "tools";
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

/// The conversations of a file, not yet rendered.
#[derive(Debug)]
pub struct Conversations {
    path: PathBuf,
    /// By their rows, from 1.
    list: Vec<(usize, Conversation)>,
    notes: ReadNotes,
}

/// The conversations of a file as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpokenFile {
    /// At least one.
    pub conversations: Vec<Spoken>,
    /// The changes of reading it.
    pub notes: ReadNotes,
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

/// The conversations of a file; `None` where it holds texts: another kind of file, or a field that is not a list. Rows whose
/// list is empty or null are left out and counted.
///
/// # Errors
/// The file cannot be read, or some of its rows are not conversations.
pub fn find_conversations(path: &Path, field: Option<&str>) -> Result<Option<Conversations>, ConversationsError> {
    let key = field.unwrap_or(MESSAGES);
    if !has_lists(path, key)? {
        return Ok(None);
    }
    let (mut list, mut faults, mut notes) = (Vec::new(), Vec::new(), ReadNotes::of(path));
    for (row, mut values) in read_rows(path, &[key, TOOLS], &mut notes)? {
        let found = match values.shift_remove(key) {
            Some(Value::Null) => None,
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(Value::Array(list)) => Some(
                messages(list)
                    .map_err(|faults| faults.iter().map(MessageFault::to_string).collect::<Vec<_>>().join("; ")),
            ),
            Some(_) => Some(Err(format!("`{key}` is not a list"))),
            None => Some(Err(format!("no key `{key}`"))),
        };
        match (found, tools(values.shift_remove(TOOLS))) {
            (None, _) => notes.blank(row),
            (Some(Ok(messages)), Ok(tools)) => {
                list.push((row, Conversation { messages, tools, ..Conversation::default() }))
            }
            (Some(found), tools) => {
                let all: Vec<String> = found.err().into_iter().chain(tools.err()).collect();
                faults.push((row, all.join("; ")));
            }
        }
    }
    if !faults.is_empty() {
        return Err(ConversationsError::Rows { path: path.to_owned(), faults });
    }
    if list.is_empty() {
        return Err(TextError::Empty { path: path.to_owned() }.into());
    }
    notes.records = list.len() as u64;
    Ok(Some(Conversations { path: path.to_owned(), list, notes }))
}

/// The tools of a row: a list, or, as tables often hold it, its JSON.
fn tools(value: Option<Value>) -> Result<Option<Vec<Value>>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(tools)) => Ok(Some(tools)),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map(Some).map_err(|_| format!("`{TOOLS}` is a text that is not a list in JSON"))
        }
        Some(_) => Err(format!("`{TOOLS}` is not a list")),
    }
}

impl Conversations {
    /// The changes of reading the file.
    pub fn notes(&self) -> &ReadNotes {
        &self.notes
    }

    /// The messages of each.
    pub fn into_messages(self) -> Vec<Vec<Message>> {
        self.list.into_iter().map(|(_, conversation)| conversation.messages).collect()
    }

    /// As tokens, through a chat template; `ends` are the model's end tokens.
    ///
    /// # Errors
    /// [`ConversationsError::Answers`] or [`ConversationsError::Tokenizer`].
    pub fn spoken(
        self,
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
        ends: &[u32],
    ) -> Result<SpokenFile, ConversationsError> {
        let Conversations { path, list, notes } = self;
        let spoken = list.par_iter().map(|(row, conversation)| {
            let refused = |source| ConversationsError::Answers { path: path.clone(), row: *row, source };
            let marked = template.answers(conversation).map_err(refused)?;
            let (tokens, places) = tokenizer.encode_placed(&marked.text)?;
            let said = said(&marked, &tokens, &places, ends);
            Ok(Spoken { tokens, said })
        });
        let conversations = spoken.collect::<Result<_, ConversationsError>>()?;
        Ok(SpokenFile { conversations, notes })
    }
}

/// Which tokens of a text the assistant says; `places` are the bytes at which they begin.
pub(super) fn said(marked: &Marked, tokens: &[u32], places: &[usize], ends: &[u32]) -> Vec<bool> {
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
    said
}

impl SpokenFile {
    /// Pairs of an encoder-decoder whose source and what is written of it have at most `most` tokens each and `window` together;
    /// longer ones are left out, and counted in the notes.
    pub fn fitting(
        &mut self,
        split: impl Fn(&[u32]) -> Option<(usize, usize)>,
        most: usize,
        window: usize,
    ) -> Vec<Spoken> {
        let mut pairs = std::mem::take(&mut self.conversations);
        let count = pairs.len();
        pairs.retain(|spoken| {
            let fits = split(&spoken.tokens).is_some_and(|(source, target)| source <= most && target <= most);
            fits && spoken.tokens.len() <= window && spoken.said.iter().any(|&said| said)
        });
        self.notes.without_answer += (count - pairs.len()) as u64;
        pairs
    }

    /// Conversations cut to `window` tokens, those left out in which the assistant then says nothing after the first token;
    /// both are counted in the notes.
    pub fn within(&mut self, window: usize) -> Vec<Spoken> {
        let mut conversations = std::mem::take(&mut self.conversations);
        let count = conversations.len();
        let cut = conversations.iter().filter(|spoken| spoken.tokens.len() > window).count();
        for spoken in &mut conversations {
            spoken.tokens.truncate(window);
            spoken.said.truncate(window);
        }
        conversations.retain(|spoken| spoken.said.iter().skip(1).any(|&said| said));
        self.notes.count_cut(cut, window);
        self.notes.without_answer += (count - conversations.len()) as u64;
        conversations
    }
}

/// Longest file that is looked into before the work.
const LONGEST_CHECKED: u64 = 32 << 20;

/// Refuses conversations for a model without a chat template, as far as the first row of a file tells; what else is wrong with
/// a file, and longer ones, are left to the work.
///
/// # Errors
/// [`ConversationsError::NoTemplate`], and templates that cannot be used.
pub fn check_template(path: &Path, field: Option<&str>, companions: &Companions) -> Result<(), ConversationsError> {
    let short = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= LONGEST_CHECKED);
    if !short || !has_lists(path, field.unwrap_or(MESSAGES)).unwrap_or(false) {
        return Ok(());
    }
    match ChatTemplate::of(companions)? {
        Some(_) => Ok(()),
        None => Err(ConversationsError::NoTemplate { path: path.to_owned(), model: companions.origin().to_owned() }),
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
) -> Result<Option<SpokenFile>, ConversationsError> {
    let Some(conversations) = find_conversations(path, field)? else { return Ok(None) };
    let template = ChatTemplate::of(companions)?.ok_or_else(|| ConversationsError::NoTemplate {
        path: path.to_owned(),
        model: companions.origin().to_owned(),
    })?;
    conversations.spoken(&template, tokenizer, ends).map(Some)
}
