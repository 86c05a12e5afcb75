//! What was asked, by the numbers of records: JSONL, one object a line.
//!
//! ```text
//! {"sequence": 3, "prompt": "Once upon a time", "seed": 7, "sampling": {"temperature": 0.8}}
//! {"sequence": 4, "messages": [{"role": "user", "content": "And then?"}]}
//! {"sequence": 5, "tokens": [1, 403, 407]}
//! ```
//!
//! `prompt` is a text as `slmc generate --prompt` takes it, and what encoders are asked; `messages` go through the chat
//! template; `tokens` are what the model read. `seed` is 0 and `sampling` the artifact's own where they are not there; the names
//! in `sampling` are those of the command line's options.

use super::AuditError;
use crate::model::generation::in_parts;
use crate::text::chat_template::{Conversation, messages};
use serde::Deserialize;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::collections::BTreeMap;
use std::path::Path;

/// What a model was asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// A text to continue, or to classify.
    Text(String),
    /// A conversation to answer.
    Chat(Conversation),
    /// What the model read.
    Tokens(Vec<u32>),
}

/// A question with its settings.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Line of the file, from 1.
    pub line: usize,
    /// The question.
    pub question: Question,
    /// Seed of the draws.
    pub seed: u64,
    sampling: Option<AskedSampling>,
}

/// Settings that differ from the artifact's own.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedSampling {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f32>,
}

#[derive(Deserialize)]
struct Row {
    sequence: u64,
    prompt: Option<String>,
    messages: Option<Vec<Value>>,
    tokens: Option<Vec<u32>>,
    seed: Option<u64>,
    sampling: Option<AskedSampling>,
}

impl Asked {
    /// How tokens were chosen, over the artifact's own settings.
    pub fn sampling(&self, own: &Sampling) -> Sampling {
        let asked = self.sampling.unwrap_or_default();
        Sampling {
            temperature: asked.temperature.unwrap_or(own.temperature),
            top_k: asked.top_k.unwrap_or(own.top_k),
            top_p: asked.top_p.map_or(own.top_p, |share| in_parts(share).max(1)),
            min_p: asked.min_p.map_or(own.min_p, in_parts),
            repetition_penalty: asked.repetition_penalty.unwrap_or(own.repetition_penalty),
        }
    }
}

/// The questions of a file by the numbers of their records.
pub type Prompts = BTreeMap<u64, Asked>;

/// Reads the questions of a log.
///
/// # Errors
/// A line that is not one, or a number that is there twice.
pub fn read_prompts(path: &Path) -> Result<Prompts, AuditError> {
    let text = std::fs::read_to_string(path).map_err(|source| AuditError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let mut prompts = Prompts::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = index + 1;
        let fault = |fault: String| AuditError::Prompt { path: path.to_owned(), line: line_number, fault };
        let row: Row = serde_json::from_str(line).map_err(|error| fault(format!("{error}; {EXPECTED}")))?;
        let question = match (row.prompt, row.messages, row.tokens) {
            (Some(prompt), None, None) => Question::Text(prompt),
            (None, Some(list), None) => {
                let messages = messages(list).map_err(|faults| {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    fault(format!("{}; a message is an object with `role` and `content`", faults.join("; ")))
                })?;
                Question::Chat(Conversation { messages, add_generation_prompt: true, ..Conversation::default() })
            }
            (None, None, Some(tokens)) => Question::Tokens(tokens),
            _ => return Err(fault(EXPECTED.to_owned())),
        };
        let asked = Asked { line: line_number, question, seed: row.seed.unwrap_or(0), sampling: row.sampling };
        if !asked.sampling(&Sampling::GREEDY).is_valid() {
            return Err(fault(
                "`sampling` is out of range; `slmc generate --help` says what each setting may be".to_owned(),
            ));
        }
        if let Some(other) = prompts.insert(row.sequence, asked) {
            return Err(fault(format!("record {} has a row already, line {}", row.sequence, other.line)));
        }
    }
    Ok(prompts)
}

const EXPECTED: &str = "expected {\"sequence\": N} and one of `prompt`, `messages` and `tokens`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_or_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("prompts.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_prompts(&path)
        };
        let rows = "{\"sequence\": 3, \"prompt\": \"a\", \"seed\": 18446744073709551615, \"other\": 1}\n\n\
                    {\"sequence\": 1, \"tokens\": [1, 2], \"sampling\": {\"temperature\": 0.5, \"top_p\": 0.25}}\n";
        let prompts = read(rows).expect("sound");
        assert_eq!(prompts.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!((prompts[&3].seed, prompts[&3].sampling(&Sampling::GREEDY)), (u64::MAX, Sampling::GREEDY));
        let sampling = prompts[&1].sampling(&Sampling { top_k: 4, ..Sampling::GREEDY });
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.5, 4, 16_384));
        for (rows, expected) in [
            ("{\"prompt\": \"a\"}", ":1: missing field `sequence`"),
            ("{\"sequence\": 1}", ":1: expected"),
            ("{\"sequence\": 1, \"prompt\": \"a\", \"tokens\": []}", ":1: expected"),
            ("{\"sequence\": -1, \"prompt\": \"a\"}", ":1: invalid value"),
            ("\n{\"sequence\": 1, \"messages\": [1]}", ":2: message 1"),
            ("{\"sequence\": 1, \"prompt\": \"a\", \"sampling\": {\"temprature\": 1}}", "unknown field `temprature`"),
            ("{\"sequence\": 1, \"prompt\": \"a\", \"sampling\": {\"temperature\": -1}}", "out of range"),
            ("{\"sequence\": 1, \"prompt\": \"a\"}\n{\"sequence\": 1, \"prompt\": \"b\"}", "already, line 1"),
        ] {
            let error = read(rows).expect_err(rows).to_string();
            assert!(error.contains(expected), "{rows}: {error}");
        }
    }
}
