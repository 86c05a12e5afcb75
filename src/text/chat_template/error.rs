//! Errors of finding, carrying and rendering chat templates.

use super::engine::{self, Failure};
use super::functions::Raised;
use super::guards::Unbounded;
use super::source::SourceError;
use crate::disk::ConfigError;
use minijinja::ErrorKind;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest part of a template's own message that is repeated, in characters.
const MAX_MESSAGE: usize = 1000;

/// A place in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateLocation {
    /// The file that holds it.
    pub path: PathBuf,
    /// Its name: `default`, `tool_use` …
    pub template: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for TemplateLocation {
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
    /// A JSON value has another form than transformers writes.
    #[error("{}: `{key}` is not {expected}; write it as transformers' `save_pretrained` does", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The accepted forms.
        expected: &'static str,
    },
    /// An artifact's section is damaged.
    #[error("{}: its chat template is damaged ({message}); compile the model again", path.display())]
    Section {
        /// The artifact.
        path: PathBuf,
        /// The fault.
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
        /// The artifact's schema.
        found: String,
        /// The schema that is read.
        known: &'static str,
    },
    /// There is no template of the name asked for.
    #[error("{}: no chat template `{name}`; there are: {names}", path.display())]
    UnknownTemplate {
        /// The file or directory.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// Those there are, joined by commas.
        names: String,
    },
    /// There are several templates, and none is the default.
    #[error("{}: several chat templates ({names}) and none of them is called `default`, which is the one that a conversation is given to; rename one", path.display())]
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
        place: TemplateLocation,
        /// The template's words.
        message: String,
    },
    /// The text is not a template.
    #[error("{place}: {message}; fix the template, or take the model's original one")]
    Syntax {
        /// Where.
        place: TemplateLocation,
        /// The fault.
        message: String,
    },
    /// A variable that the template needs has no value.
    #[error("{place}: {message}; give it as an argument or in the messages, if this conversation should have it")]
    Undefined {
        /// Where.
        place: TemplateLocation,
        /// Which.
        message: String,
    },
    /// The template uses a function, filter, test or method that slmc's engine does not have.
    #[error(
        "{place}: {message}; slmc has those that transformers gives templates: use the model's original template, or \
         write it without"
    )]
    Unknown {
        /// Where.
        place: TemplateLocation,
        /// Which function, filter, test or method.
        message: String,
    },
    /// The template makes a value whose size slmc could not bound.
    #[error("{place}: {message}, which a template may not make; use the model's original template")]
    Unbounded {
        /// Where.
        place: TemplateLocation,
        /// The value.
        message: String,
    },
    /// The template takes more than a real one.
    #[error(
        "{place}: stopped, since it does not end or makes too long a text; shorten the conversation, if that is long"
    )]
    Exhausted {
        /// Where.
        place: TemplateLocation,
    },
    /// The template takes longer than a real one.
    #[error("{place}: stopped after {seconds} seconds; use the model's original template")]
    Slow {
        /// Which template.
        place: TemplateLocation,
        /// How long it ran.
        seconds: u64,
    },
    /// Some other step of the template failed.
    #[error("{place}: {message}; check that the conversation's messages have the form that the template expects")]
    Render {
        /// Where.
        place: TemplateLocation,
        /// The fault.
        message: String,
    },
    /// The engine failed, whatever the template.
    #[error("{place}: the template engine panicked; use the model's original template, and report this one")]
    Panicked {
        /// Which template.
        place: TemplateLocation,
    },
    /// The engine's thread could not be started.
    #[error("{place}: no thread to render it in; free memory")]
    Thread {
        /// Which template.
        place: TemplateLocation,
        /// Why.
        source: std::io::Error,
    },
}

impl ChatTemplateError {
    /// A failure of the engine on the template `name` of `path`.
    pub(super) fn from_failure(failure: Failure, path: &Path, name: &str) -> Self {
        let mut place = TemplateLocation { path: path.to_owned(), template: name.to_owned(), line: None };
        let raised = failure.cause().map(|Raised(message)| printable(message));
        let unbounded = failure.cause().map(|Unbounded(message)| message.clone());
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
