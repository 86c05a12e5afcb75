//! Conversations from JSON: an array of messages, or an object with `messages` and, as in requests of common servers,
//! `tools` and `documents`. A message is an object with `role` and `content`; keys beyond these go to the template as they
//! are. All faults of a file are found at once, each with the number of its message and its key.

use super::{Conversation, Message};
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest part of a key or role that an error repeats, in characters.
const MAX_SHOWN: usize = 60;

/// A message that no template could be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFault {
    /// From 1.
    pub message: usize,
    /// What is wrong, with the key.
    pub fault: String,
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}: {}", self.message, self.fault)
    }
}

/// Why a file has no conversation.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// It cannot be read.
    #[error("cannot read {}; check that the file exists and is readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not JSON.
    #[error("{}: not JSON; expected an array of messages, [{{\"role\": \"user\", \"content\": \"…\"}}]", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
        source: serde_json::Error,
    },
    /// It is JSON of another form.
    #[error("{}: {fault}; expected an array of messages, or an object with `messages`", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What it has.
        fault: String,
    },
    /// Messages are not as templates read them.
    #[error("{}: {}; a message is an object with `role` and `content`", path.display(), joined(faults))]
    Messages {
        /// The file.
        path: PathBuf,
        /// All of them.
        faults: Vec<MessageFault>,
    },
}

fn joined(faults: &[MessageFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads the conversation of a file, to be answered by the assistant.
///
/// # Errors
/// Every variant of [`MessagesError`].
pub fn read_conversation(path: &Path) -> Result<Conversation, MessagesError> {
    let bytes = std::fs::read(path).map_err(|source| MessagesError::Read { path: path.to_owned(), source })?;
    // Editors put a byte order mark before JSON too.
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let value = serde_json::from_slice(text).map_err(|source| MessagesError::Json { path: path.to_owned(), source })?;
    let shape = |fault: String| MessagesError::Shape { path: path.to_owned(), fault };
    let (list, mut object) = match value {
        Value::Array(list) => (list, Map::new()),
        Value::Object(mut object) => match object.shift_remove("messages") {
            Some(Value::Array(list)) => (list, object),
            Some(other) => return Err(shape(format!("`messages` is {}", kind(&other)))),
            None => return Err(shape(format!("an object without `messages` (it has: {})", keys(&object)))),
        },
        other => return Err(shape(kind(&other).to_owned())),
    };
    if list.is_empty() {
        return Err(shape("there are no messages".to_owned()));
    }
    let messages = messages(list).map_err(|faults| MessagesError::Messages { path: path.to_owned(), faults })?;
    let mut list_of = |key: &str| match object.shift_remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(shape(format!("`{key}` is {}, expected an array", kind(&other)))),
    };
    let (tools, documents) = (list_of("tools")?, list_of("documents")?);
    Ok(Conversation { messages, tools, documents, add_generation_prompt: true, ..Conversation::default() })
}

/// The messages of a JSON array, or everything that is wrong with them.
///
/// # Errors
/// One fault for each key that is missing or of another type.
pub fn messages(list: Vec<Value>) -> Result<Vec<Message>, Vec<MessageFault>> {
    let (mut messages, mut faults) = (Vec::new(), Vec::new());
    for (index, value) in list.into_iter().enumerate() {
        let mut fault = |fault: String| faults.push(MessageFault { message: index + 1, fault });
        let Value::Object(message) = value else {
            fault(format!("{}, expected an object", kind(&value)));
            continue;
        };
        match message.get("role") {
            Some(Value::String(role)) if !role.trim().is_empty() => {}
            Some(Value::String(_)) => fault("`role` is empty".to_owned()),
            Some(other) => fault(format!("`role` is {}, expected a text", kind(other))),
            None => fault(format!("no `role` (it has: {})", keys(&message))),
        }
        let calls = message.get("tool_calls").is_some_and(|calls| !calls.is_null());
        match message.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) if parts.iter().all(Value::is_object) => {}
            Some(Value::Array(_)) => {
                fault("`content` is an array, expected one of objects such as {\"type\": \"text\"}".to_owned())
            }
            None | Some(Value::Null) if calls => {}
            Some(other) => fault(format!("`content` is {}, expected a text", kind(other))),
            None => fault(format!("no `content` (it has: {})", keys(&message))),
        }
        messages.push(message);
    }
    if faults.is_empty() { Ok(messages) } else { Err(faults) }
}

fn keys(object: &Map<String, Value>) -> String {
    if object.is_empty() {
        return "nothing".to_owned();
    }
    object.keys().map(|key| key.chars().take(MAX_SHOWN).collect()).collect::<Vec<String>>().join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Conversation, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("talk.json");
        std::fs::write(&path, text).expect("writes");
        read_conversation(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_and_objects_are_read() {
        let asked = Conversation::ask(Some("Be brief."), "Hi");
        let list = r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]"#;
        assert_eq!(read(list.as_bytes()), Ok(asked.clone()));
        assert_eq!(read(format!("\u{feff}{{\"id\": 7, \"messages\": {list}}}").as_bytes()), Ok(asked));
        let tools = read(br#"{"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}]}"#);
        assert_eq!(tools.expect("a conversation").tools.map(|tools| tools.len()), Some(1));
        // A call of a tool needs no text, and contents may come in parts.
        assert!(read(br#"[{"role": "assistant", "content": null, "tool_calls": [{}]}]"#).is_ok());
        assert!(read(br#"[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]"#).is_ok());
    }

    #[test]
    fn every_fault_is_named_with_message_and_key() {
        let faults = read(
            br#"[{"role": "user", "content": "x"}, {"rol": "user", "content": 3}, "hi", {"role": "", "text": "x"},
                {"role": "user", "content": null}]"#,
        );
        let faults = faults.expect_err("faults");
        for expected in [
            "talk.json: message 2: no `role` (it has: rol, content); message 2: `content` is a number, expected a text;",
            "message 3: a text, expected an object; message 4: `role` is empty; message 4: no `content` (it has: role, text);",
            "message 5: `content` is null",
        ] {
            assert!(faults.contains(expected), "{expected}: {faults}");
        }
        for (text, expected) in [
            ("[", "not JSON; expected an array of messages"),
            ("3", "talk.json: a number; expected an array"),
            ("[]", "there are no messages"),
            (r#"{"message": []}"#, "an object without `messages` (it has: message)"),
            (r#"{"messages": "x"}"#, "`messages` is a text"),
            (
                r#"{"messages": [{"role": "user", "content": "x"}], "tools": 3}"#,
                "`tools` is a number, expected an array",
            ),
        ] {
            let error = read(text.as_bytes()).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
