//! Why there is no chat template or no text of one.

use super::engine::{self, Failure};
use super::functions::Raised;
use super::guards::Unbounded;
use super::source::SourceError;
use crate::checkpoint::ConfigError;
use minijinja::ErrorKind;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest part of a template's own message that is repeated, in characters.
const MAX_MESSAGE: usize = 1000;

/// A place in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file that holds it.
    pub path: PathBuf,
    /// Its name: `default`, `tool_use` …
    pub template: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: chat template `{}`", self.path.display(), self.template)?;
        self.line.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChatTemplateError {
    /// A JSON file beside the template cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A template's file cannot be read.
    #[error("{}: cannot be read; check that it is a file and readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A template is longer than any real one.
    #[error("{}: a chat template of {bytes} bytes; at most {limit} are read", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// There are more templates, or more text in them, than in any real directory.
    #[error("{}: more than {limit} chat templates; keep those that are used", path.display())]
    TooMany {
        /// The file or directory.
        path: PathBuf,
        /// The most that are allowed.
        limit: usize,
    },
    /// A template is not text.
    #[error("{}: not UTF-8; save the chat template as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A JSON value is not what transformers writes.
    #[error("{}: `{key}` is not {expected}; write it as transformers' `save_pretrained` does", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// An artifact's section is damaged.
    #[error("{}: its chat template is damaged ({message}); compile the model again", path.display())]
    Section {
        /// The artifact.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// An artifact's section is of another version.
    #[error(
        "{}: its chat template is of schema `{found}`, and this slmc reads `{known}`; compile the model again, or use \
         the slmc that made it",
        path.display()
    )]
    Schema {
        /// The artifact.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What is known.
        known: &'static str,
    },
    /// There is no template of the name asked for.
    #[error("{}: no chat template `{name}`; there are: {names}", path.display())]
    UnknownTemplate {
        /// The file or directory.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// Those there are, joined by commas.
        names: String,
    },
    /// There are several templates, and none is the default.
    #[error("{}: several chat templates and no `default`; name one of: {names}", path.display())]
    NoDefault {
        /// The file or directory.
        path: PathBuf,
        /// Those there are, joined by commas.
        names: String,
    },
    /// An argument has the name of a variable that a conversation sets.
    #[error("the argument `{name}` would hide the conversation's own `{name}`; give it another name")]
    Reserved {
        /// The argument.
        name: String,
    },
    /// The template called `raise_exception`.
    #[error("{place}: the template refuses this conversation: {message}; change the messages as it asks")]
    Refused {
        /// Where.
        place: Place,
        /// The template's words.
        message: String,
    },
    /// The text is not a template.
    #[error("{place}: {message}; fix the template, or take the model's original one")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A variable that the template needs has no value.
    #[error("{place}: {message}; give it as an argument or in the messages, if this conversation should have it")]
    Undefined {
        /// Where.
        place: Place,
        /// Which.
        message: String,
    },
    /// The template uses what slmc's engine does not have.
    #[error(
        "{place}: {message}; slmc knows what transformers gives templates, so use the model's original template, or \
         write it without"
    )]
    Unknown {
        /// Where.
        place: Place,
        /// Which function, filter, test or method.
        message: String,
    },
    /// The template makes a value whose size slmc could not bound.
    #[error("{place}: {message}, which a template may not make; use the model's original template")]
    Unbounded {
        /// Where.
        place: Place,
        /// What it makes.
        message: String,
    },
    /// The template takes more than a real one.
    #[error(
        "{place}: stopped, since it does not end or makes too long a text; shorten the conversation, if that is long"
    )]
    Exhausted {
        /// Where.
        place: Place,
    },
    /// The template takes longer than a real one.
    #[error("{place}: stopped after {seconds} seconds; use the model's original template")]
    Slow {
        /// Which template.
        place: Place,
        /// How long it ran.
        seconds: u64,
    },
    /// Some other step of the template failed.
    #[error("{place}: {message}; check that the conversation has what the template expects")]
    Render {
        /// Where.
        place: Place,
        /// What failed.
        message: String,
    },
    /// The engine failed, whatever the template.
    #[error("{place}: the template engine panicked; use the model's original template, and report this one")]
    Panicked {
        /// Which template.
        place: Place,
    },
    /// The engine's thread could not be started.
    #[error("{place}: no thread to render it in; free memory")]
    Thread {
        /// Which template.
        place: Place,
        /// Why.
        source: std::io::Error,
    },
}

impl ChatTemplateError {
    /// A failure of the engine on the template `name` of `path`.
    pub(super) fn from_failure(failure: Failure, path: &Path, name: &str) -> Self {
        let mut place = Place { path: path.to_owned(), template: name.to_owned(), line: None };
        let raised = failure.said().map(|Raised(message)| printable(message));
        let unbounded = failure.said().map(|Unbounded(message)| message.clone());
        let error = match failure {
            Failure::Engine(error) => error,
            Failure::Source(SourceError { line, message }) => {
                place.line = Some(line);
                return ChatTemplateError::Syntax { place, message };
            }
            Failure::Slow => return ChatTemplateError::Slow { place, seconds: engine::DEADLINE.as_secs() },
            Failure::Panicked => return ChatTemplateError::Panicked { place },
            Failure::Thread(source) => return ChatTemplateError::Thread { place, source },
        };
        place.line = error.line();
        if let Some(message) = raised {
            return ChatTemplateError::Refused { place, message };
        }
        if let Some(message) = unbounded {
            return ChatTemplateError::Unbounded { place, message };
        }
        let message = printable(&engine::message(&error));
        match error.kind() {
            ErrorKind::SyntaxError | ErrorKind::BadEscape => ChatTemplateError::Syntax { place, message },
            ErrorKind::UndefinedError => ChatTemplateError::Undefined { place, message },
            ErrorKind::UnknownFunction
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownMethod => ChatTemplateError::Unknown { place, message },
            ErrorKind::OutOfFuel => ChatTemplateError::Exhausted { place },
            _ => ChatTemplateError::Render { place, message },
        }
    }
}

/// A text that a terminal shows as it is: without control characters, and of bounded length.
fn printable(text: &str) -> String {
    let shown = |character: char| if character.is_control() { ' ' } else { character };
    let mut printed: String = text.chars().take(MAX_MESSAGE).map(shown).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        printed.push('…');
    }
    printed
}
