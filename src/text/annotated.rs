//! Records of data files whose texts are marked: words with a label each, and questions about texts with the answers that stand
//! in them.

use super::error::{MissingKeys, TextError};
use super::file::ReadNotes;
use super::form::TextForm;
use super::records::{Label, Records, complete, filled, has_key, label, text, wrong_type};
use super::rows::read_rows;
use serde_json::Value;
use std::path::Path;

/// Key of the words where no field is named.
const WORDS: &str = "tokens";
/// Keys of a question, the text that it is about where no field is named, and its answers where the key of labels is not there.
const QUESTION: &str = "question";
const CONTEXT: &str = "context";
const ANSWERS: &str = "answers";

/// Words of a text, each with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordsRecord {
    /// Line or row where it starts, from 1.
    pub line: usize,
    /// At least one.
    pub words: Vec<String>,
    /// As many.
    pub labels: Vec<Label>,
}

/// A question with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionRecord {
    /// Line or row where it starts, from 1.
    pub line: usize,
    /// Never blank.
    pub question: String,
    /// Never blank.
    pub text: String,
    /// Any of them is right; none where the text has no answer.
    pub answers: Vec<String>,
}

/// The values under some keys of every row, null where a row has none.
fn rows_of<const N: usize>(
    path: &Path,
    form: &TextForm,
    keys: [&str; N],
    notes: &mut ReadNotes,
) -> Result<Vec<(usize, [Value; N])>, TextError> {
    if let Some(separator) = &form.separator {
        return Err(TextError::SeparatorOfRows { path: path.to_owned(), separator: separator.to_string() });
    }
    let (mut found, mut missing) = (Vec::new(), MissingKeys::default());
    for (line, mut row) in read_rows(path, &keys, notes)? {
        let absent: Vec<&str> = keys.into_iter().filter(|key| !row.contains_key(*key)).collect();
        absent.iter().for_each(|key| missing.count(key, line, &row));
        if absent.is_empty() {
            found.push((line, keys.map(|key| row.shift_remove(key).unwrap_or_default())));
        }
    }
    complete(path, missing)?;
    Ok(found)
}

/// Lists of words with lists of labels. The words are under `tokens` where the form names no field.
///
/// # Errors
/// [`TextError`].
pub fn read_words(path: &Path, form: &TextForm, label_key: &str) -> Result<Records<WordsRecord>, TextError> {
    let key = form.field.as_deref().unwrap_or(WORDS);
    let mut notes = ReadNotes::of(path);
    let mut records = Vec::new();
    for (line, [words, labels]) in rows_of(path, form, [key, label_key], &mut notes)? {
        let list = |key: &str, value: Value, expected| match value {
            Value::Array(values) => Ok(values),
            other => Err(wrong_type(path, line, key, &other, expected)),
        };
        let words = list(key, words, "a list of words")?;
        let labels = list(label_key, labels, "a list of labels, one for each word")?;
        if words.len() != labels.len() {
            let (words, labels) = (words.len(), labels.len());
            return Err(TextError::LabelsOfWords { path: path.to_owned(), line, words, labels });
        }
        if words.is_empty() {
            notes.blank(line);
            continue;
        }
        let word = |value: Value| match value {
            Value::String(word) => Ok(word),
            other => Err(wrong_type(path, line, key, &other, "a list of words")),
        };
        records.push(WordsRecord {
            line,
            words: words.into_iter().map(word).collect::<Result<_, _>>()?,
            labels: labels.into_iter().map(|value| label(path, line, label_key, value)).collect::<Result<_, _>>()?,
        });
    }
    filled(path, records, notes)
}

/// Questions under `question`, texts under `context` where the form names no field, and answers: a string, a list of strings, or
/// an object with such a list under `text`, as SQuAD has it. They are under `answer_key`, else under `answers`.
///
/// # Errors
/// [`TextError`].
pub fn read_questions(path: &Path, form: &TextForm, answer_key: &str) -> Result<Records<QuestionRecord>, TextError> {
    let key = form.field.as_deref().unwrap_or(CONTEXT);
    let answer_key = if has_key(path, answer_key)? { answer_key } else { ANSWERS };
    let mut notes = ReadNotes::of(path);
    let mut records = Vec::new();
    for (line, [question, context, answers]) in rows_of(path, form, [QUESTION, key, answer_key], &mut notes)? {
        let read = (text(path, line, QUESTION, question)?, text(path, line, key, context)?);
        let (Some(question), Some(context)) = read else {
            notes.blank(line);
            continue;
        };
        records.push(QuestionRecord {
            line,
            question,
            text: context,
            answers: texts(path, line, answer_key, answers)?,
        });
    }
    filled(path, records, notes)
}

fn texts(path: &Path, line: usize, key: &str, value: Value) -> Result<Vec<String>, TextError> {
    let expected = "a string, a list of strings, or an object with such a list under `text`";
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text]),
        Value::Object(mut map) if map.contains_key("text") => {
            texts(path, line, key, map.shift_remove("text").unwrap_or_default())
        }
        Value::Array(values) => {
            let one = |value: Value| match value {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(path, line, key, &other, expected)),
            };
            values.into_iter().map(one).collect()
        }
        other => Err(wrong_type(path, line, key, &other, expected)),
    }
}
