//! Records with a prompt, the reasoning towards an answer, and the answer, for decoders that learn to reason before they
//! answer (chain of thought). Every token of a record belongs to one of its parts, and each part is learned or not.
//!
//! ```text
//! with a chat template      user: prompt        assistant: reasoning ⏎ answer, or the template's own place for reasoning
//! without one               [opening] prompt ⏎ reasoning ⏎ answer [end]
//!
//! prompt       everything that the assistant does not say
//! reasoning    what is said up to the token in which the answer begins
//! answer       the rest of what is said, the end token included
//! ```
//!
//! A template has a place of its own if, given the reasoning as `reasoning_content`, it writes it before the answer.

use super::chat_template::{
    AnswersError, ChatTemplate, ChatTemplateError, Conversation, Marked, Message, Moment, message,
};
use super::conversations::{Spoken, SpokenFile, said};
use super::error::{MissingKeys, TextError};
use super::file::ReadNotes;
use super::rows::{first_keys, read_rows, row_format};
use super::tokenizer::{Tokenizer, TokenizerError};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Keys of a record, unless others are named.
pub const KEYS: [&str; 3] = ["prompt", "reasoning", "answer"];

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What the assistant says last
    Answer,
    /// What it says before
    Reasoning,
    /// These, and the prompt
    All,
}

/// How records are read and what of them is learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasoningForm {
    /// Key of the prompt.
    pub prompt: String,
    /// Key of the reasoning.
    pub reasoning: String,
    /// Key of the answer.
    pub answer: String,
    /// Whether the reasoning is left out of the text.
    pub without_reasoning: bool,
    /// Parts that are learned, where they are named: every file must then hold records. Otherwise reasoning and answer.
    pub parts: Vec<Part>,
}

impl Default for ReasoningForm {
    fn default() -> Self {
        let [prompt, reasoning, answer] = KEYS.map(str::to_owned);
        ReasoningForm { prompt, reasoning, answer, without_reasoning: false, parts: Vec::new() }
    }
}

impl ReasoningForm {
    /// Whether something of it was asked for.
    pub fn is_asked(&self) -> bool {
        *self != ReasoningForm::default()
    }

    fn learns(&self, part: Part) -> bool {
        match self.parts.is_empty() {
            true => part != Part::All,
            false => self.parts.contains(&part) || self.parts.contains(&Part::All),
        }
    }
}

/// Why records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReasoningError {
    /// The file cannot be read, or its rows lack a key.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model's templates cannot be used.
    #[error(transparent)]
    Templates(#[from] ChatTemplateError),
    /// A file without rows.
    #[error(
        "{}: holds no rows, and records with a prompt and an answer were asked for; pass JSONL, or leave out what names their parts",
        path.display()
    )]
    NotRecords {
        /// The file.
        path: PathBuf,
    },
    /// The reasoning is to be learned, and no row has any.
    #[error(
        "{}: no row has a text under `{key}`, which --loss-on reasoning is to learn; name its key with --reasoning-field, or \
         learn the answer alone",
        path.display()
    )]
    NoReasoning {
        /// The file.
        path: PathBuf,
        /// Key of the reasoning.
        key: String,
    },
    /// Every answer is blank.
    #[error("{}: every row's `{key}` is blank, so there is nothing to learn; name another key with --answer-field", path.display())]
    NoAnswers {
        /// The file.
        path: PathBuf,
        /// Key of the answer.
        key: String,
    },
    /// A record that the template refuses, or whose answer it hides.
    #[error("{}:{row}: {source}", path.display())]
    Answers {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: usize,
        /// Why.
        source: AnswersError,
    },
    /// The template does not write the answer as it is.
    #[error(
        "{}:{row}: the chat template does not write the answer `{answer}` as it stands, so its tokens are not known; correct \
         the template",
        path.display()
    )]
    NotThere {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: usize,
        /// The answer.
        answer: String,
    },
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasoned {
    /// Row, from 1.
    pub row: usize,
    /// Never blank.
    pub prompt: String,
    /// Never blank.
    pub reasoning: Option<String>,
    /// Never blank.
    pub answer: String,
}

/// The records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonedFile {
    path: PathBuf,
    /// At least one.
    pub records: Vec<Reasoned>,
    notes: ReadNotes,
}

/// A value as text: texts as they are, numbers as JSON writes them; `None` where it is null or blank.
fn text(path: &Path, row: usize, key: &str, value: &Value) -> Result<Option<String>, TextError> {
    let found = match value {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Value::Number(number) => return Ok(Some(number.to_string())),
        Value::Bool(_) => "a boolean",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Err(TextError::WrongType {
        path: path.to_owned(),
        line: row,
        key: key.to_owned(),
        found,
        expected: "a text or a number",
    })
}

/// The records of a file; `None` where it holds none: no rows, or their first has neither prompt nor answer. A file is read as
/// records in any case where something of them is asked for. Rows with a blank prompt or answer are left out and counted.
///
/// # Errors
/// The file cannot be read, rows lack a key, or nothing is left.
pub fn find_reasoned(path: &Path, form: &ReasoningForm) -> Result<Option<ReasonedFile>, ReasoningError> {
    if row_format(path).is_none() {
        let path = path.to_owned();
        return if form.is_asked() { Err(ReasoningError::NotRecords { path }) } else { Ok(None) };
    }
    let first = first_keys(path)?.ok_or_else(|| TextError::Empty { path: path.to_owned() })?;
    if !form.is_asked() && ![&form.prompt, &form.answer].into_iter().all(|key| first.contains(key)) {
        return Ok(None);
    }
    let mut notes = ReadNotes::of(path);
    let keys = [form.prompt.as_str(), form.answer.as_str(), form.reasoning.as_str()];
    let rows = read_rows(path, &keys, &mut notes)?;
    let has = |row: &Map<String, Value>| row.contains_key(&form.reasoning);
    // A file of answers alone has the key nowhere; of one that has it, every row must.
    let needs_reasoning = !form.without_reasoning && rows.iter().any(|(_, row)| has(row));
    let (mut records, mut missing) = (Vec::new(), MissingKeys::default());
    let (mut reasoned, mut blank_answers) = (0, 0);
    for (row, values) in &rows {
        let needed = &keys[..if needs_reasoning { 3 } else { 2 }];
        for key in needed.iter().filter(|key| !values.contains_key(**key)) {
            missing.count(key, *row, values);
        }
        let of = |key: &str| values.get(key).map_or(Ok(None), |value| text(path, *row, key, value));
        let (prompt, answer, reasoning) = (of(&form.prompt)?, of(&form.answer)?, of(&form.reasoning)?);
        let reasoning = reasoning.filter(|_| !form.without_reasoning);
        match (prompt, answer) {
            (Some(prompt), Some(answer)) => {
                reasoned += usize::from(reasoning.is_some());
                records.push(Reasoned { row: *row, prompt, reasoning, answer });
            }
            (_, answer) => {
                blank_answers += usize::from(answer.is_none());
                notes.blank(*row);
            }
        }
    }
    if !missing.is_empty() {
        return Err(TextError::MissingKey { path: path.to_owned(), missing }.into());
    }
    if records.is_empty() {
        let (path, key) = (path.to_owned(), form.answer.clone());
        let nothing =
            if blank_answers > 0 { ReasoningError::NoAnswers { path, key } } else { TextError::Empty { path }.into() };
        return Err(nothing);
    }
    if form.parts.contains(&Part::Reasoning) && reasoned == 0 {
        return Err(ReasoningError::NoReasoning { path: path.to_owned(), key: form.reasoning.clone() });
    }
    notes.records = records.len() as u64;
    Ok(Some(ReasonedFile { path: path.to_owned(), records, notes }))
}

/// A record as text.
struct Written {
    marked: Marked,
    /// Byte at which the answer begins.
    answer: usize,
}

/// Where a template's conversation has the reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the template writes `reasoning_content`.
    OfTemplate,
    /// At the beginning of what the assistant says.
    Content,
}

/// Stands for an answer, and begins as none does.
const OTHER_ANSWER: &str = "\u{fdd2}";

fn conversation(record: &Reasoned, place: Place, answer: &str) -> Conversation {
    let own: Message = match (&record.reasoning, place) {
        (None, _) => message("assistant", answer),
        (Some(reasoning), Place::Content) => message("assistant", &format!("{reasoning}\n{answer}")),
        (Some(reasoning), Place::OfTemplate) => {
            let mut own = message("assistant", answer);
            own.insert("reasoning_content".to_owned(), Value::from(reasoning.as_str()));
            own
        }
    };
    // A date that a template writes is not that of the run.
    let moment = Some(Moment::from_unix(0));
    Conversation { messages: vec![message("user", &record.prompt), own], moment, ..Conversation::default() }
}

/// A record through a template; the answer begins where the texts of two answers begin to differ.
fn through(template: &ChatTemplate, record: &Reasoned, place: Place) -> Result<Option<Written>, AnswersError> {
    let marked = template.answers(&conversation(record, place, &record.answer))?;
    let other = template.render(&conversation(record, place, OTHER_ANSWER))?;
    let mut answer = marked.text.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    while !marked.text.is_char_boundary(answer) {
        answer -= 1;
    }
    let is_said = marked.answers.iter().any(|said| said.contains(&answer));
    let found = is_said && marked.text[answer..].starts_with(&record.answer);
    Ok(found.then_some(Written { marked, answer }))
}

/// Where a template writes reasoning, by a record that has some.
fn place_of(template: &ChatTemplate, record: &Reasoned) -> Place {
    let Some(reasoning) = &record.reasoning else { return Place::Content };
    match through(template, record, Place::OfTemplate) {
        Ok(Some(Written { marked, answer })) if marked.text[..answer].contains(reasoning.as_str()) => Place::OfTemplate,
        _ => Place::Content,
    }
}

impl ReasonedFile {
    /// The changes of reading the file.
    pub fn notes(&self) -> &ReadNotes {
        &self.notes
    }

    /// As tokens, through a chat template or without one; `opening` and `ends` are the model's.
    ///
    /// # Errors
    /// The template or the tokenizer refuses a record.
    pub fn spoken(
        self,
        form: &ReasoningForm,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
        (opening, ends): (&[u32], &[u32]),
    ) -> Result<SpokenFile, ReasoningError> {
        let ReasonedFile { path, records, notes } = self;
        let first = records.iter().find(|record| record.reasoning.is_some());
        let place = template.zip(first).map_or(Place::Content, |(template, record)| place_of(template, record));
        let one = |record: &Reasoned| -> Result<Spoken, ReasoningError> {
            let Some(template) = template else { return plain(record, form, tokenizer, (opening, ends)) };
            let refused = |source| ReasoningError::Answers { path: path.clone(), row: record.row, source };
            let written = through(template, record, place).map_err(refused)?.ok_or_else(|| {
                ReasoningError::NotThere { path: path.clone(), row: record.row, answer: record.answer.clone() }
            })?;
            let (tokens, places) = tokenizer.encode_placed(&written.marked.text)?;
            let said = said(&written.marked, &tokens, &places, ends);
            let said = learned(form, &said, |token| {
                places.get(token + 1).copied().unwrap_or(written.marked.text.len()) > written.answer
            });
            Ok(Spoken { tokens, said })
        };
        let conversations = records.par_iter().map(one).collect::<Result<_, _>>()?;
        Ok(SpokenFile { conversations, notes })
    }
}

impl ReasonedFile {
    /// As sources of an encoder-decoder, each with what is written of it, by the token that begins the latter: what the prompt of
    /// a record is written to is its reasoning, where it has one, and its answer. Nothing of a source is learned.
    ///
    /// # Errors
    /// The tokenizer refuses a record.
    pub fn pairs(
        self,
        form: &ReasoningForm,
        tokenizer: &Tokenizer,
        (start, ends): (u32, &[u32]),
    ) -> Result<SpokenFile, ReasoningError> {
        let end = ends.first();
        let one = |record: &Reasoned| -> Result<Spoken, ReasoningError> {
            let mut text = String::new();
            if let Some(reasoning) = &record.reasoning {
                text.push_str(reasoning);
                text.push('\n');
            }
            let answer = text.len();
            text.push_str(&record.answer);
            let (own, places) = tokenizer.encode_placed(&text)?;
            let is_answer = |token: usize| places.get(token + 1).copied().unwrap_or(text.len()) > answer;
            let learned = |part| form.learns(part) || form.learns(Part::All);
            let said =
                (0..own.len()).map(|token| learned(if is_answer(token) { Part::Answer } else { Part::Reasoning }));
            let said: Vec<bool> = said.chain(end.map(|_| learned(Part::Answer))).collect();
            let mut tokens = source_tokens(&record.prompt, tokenizer, (start, ends))?;
            let of_source = vec![false; tokens.len()];
            tokens.extend(own.iter().chain(end));
            Ok(Spoken { tokens, said: [of_source, said].concat() })
        };
        let conversations = self.records.par_iter().map(one).collect::<Result<_, _>>()?;
        Ok(SpokenFile { conversations, notes: self.notes })
    }
}

/// A text as an encoder-decoder reads it, up to the token that begins what it writes.
///
/// # Errors
/// The tokenizer refuses the text.
pub fn source_tokens(
    text: &str,
    tokenizer: &Tokenizer,
    (start, ends): (u32, &[u32]),
) -> Result<Vec<u32>, TokenizerError> {
    let mut tokens = tokenizer.encode_plain(text)?;
    // A text that names the token would begin the other one.
    tokens.retain(|&token| token != start);
    tokens.extend(ends.first());
    tokens.push(start);
    Ok(tokens)
}

/// A record without a template.
fn plain(
    record: &Reasoned,
    form: &ReasoningForm,
    tokenizer: &Tokenizer,
    (opening, ends): (&[u32], &[u32]),
) -> Result<Spoken, ReasoningError> {
    let mut text = format!("{}\n", record.prompt);
    let reply = record.prompt.len();
    if let Some(reasoning) = &record.reasoning {
        text.push_str(reasoning);
        text.push('\n');
    }
    let answer = text.len();
    text.push_str(&record.answer);
    let (own, places) = tokenizer.encode_placed(&text)?;
    let end_of = |token: usize| places.get(token + 1).copied().unwrap_or(text.len());
    let mut said: Vec<bool> = (0..own.len()).map(|token| end_of(token) > reply).collect();
    let tokens: Vec<u32> = opening.iter().chain(&own).chain(ends.first()).copied().collect();
    said.extend(ends.first().map(|_| true));
    let is_answer = |token: usize| token >= own.len() || end_of(token) > answer;
    let said = learned(form, &said, is_answer);
    let of_opening = vec![form.learns(Part::All); opening.len()];
    Ok(Spoken { tokens, said: [of_opening, said].concat() })
}

/// Which tokens are learned, by what is said and where the answer is.
fn learned(form: &ReasoningForm, said: &[bool], is_answer: impl Fn(usize) -> bool) -> Vec<bool> {
    let part = |token: usize| match said[token] {
        false => Part::All,
        true if is_answer(token) => Part::Answer,
        true => Part::Reasoning,
    };
    (0..said.len()).map(|token| form.learns(part(token))).collect()
}

#[cfg(test)]
mod tests;
