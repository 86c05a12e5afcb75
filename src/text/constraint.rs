//! What an output must be: a JSON schema, a regular expression, rules or a list of choices, compiled for the tokens of a
//! model to the section that `slm_runtime::grammar` follows.

use super::tokenizer::Tokenizer;
use slm_grammar::{GrammarError, Limits, Separators, Source, Vocabulary};
use std::io;
use std::path::{Path, PathBuf};

/// A grammar as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A file of rules in the manner of GBNF.
    Rules(PathBuf),
    /// A file with a JSON schema.
    Schema(PathBuf),
    /// A regular expression that the whole output matches.
    Expression(String),
    /// A file of choices: one a line, or a JSON list.
    Choices(PathBuf),
}

/// Why an output cannot be constrained.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    /// The file cannot be read.
    #[error("{}: cannot be read as text", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The grammar is refused.
    #[error("{origin}: {error}")]
    Grammar {
        /// The file, or the option.
        origin: String,
        /// The reason.
        error: Box<GrammarError>,
    },
}

/// A grammar compiled for a model's tokens.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The section.
    pub section: Vec<u8>,
    /// What its author should know.
    pub notes: Vec<String>,
}

impl Constraint {
    /// The file it is in, where it is in one.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Constraint::Rules(path) | Constraint::Schema(path) | Constraint::Choices(path) => Some(path),
            Constraint::Expression(_) => None,
        }
    }

    /// What it is, for messages and provenance.
    pub fn kind(&self) -> &'static str {
        match self {
            Constraint::Rules(_) => "grammar",
            Constraint::Schema(_) => "json_schema",
            Constraint::Expression(_) => "regex",
            Constraint::Choices(_) => "choices",
        }
    }

    /// Compiles it for a model with these tokens, `ends` of which end a text.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn compile(
        &self,
        tokenizer: &Tokenizer,
        tokens: &[Vec<u8>],
        ends: &[u32],
    ) -> Result<Compiled, ConstraintError> {
        let specials = tokenizer.special_ids().into_iter().filter(|&id| (id as usize) < tokens.len());
        let excluded: Vec<u32> = specials.chain(ends.iter().copied()).collect();
        let encode = |bytes: &[u8]| tokenizer.encode_plain(std::str::from_utf8(bytes).ok()?).ok();
        let text = self.text()?;
        let source = match self {
            Constraint::Rules(_) => Source::Rules(&text),
            Constraint::Schema(_) => Source::Schema(&text, Separators::Compact),
            Constraint::Expression(_) => Source::Expression(&text),
            Constraint::Choices(_) => Source::Choices(&text),
        };
        let refuse = |error| ConstraintError::Grammar { origin: self.origin(), error: Box::new(error) };
        let grammar = source.compile(&Limits::default()).map_err(refuse)?;
        let notes = grammar.notes().iter().map(|note| {
            let place = if note.pointer.is_empty() { "/" } else { &note.pointer };
            format!("{}, at {place}: {}", self.origin(), note.text)
        });
        let notes = notes.collect();
        let vocabulary = Vocabulary { tokens, excluded: &excluded, encode: Some(&encode) };
        Ok(Compiled { section: grammar.section(&vocabulary).map_err(refuse)?, notes })
    }

    /// Where it comes from.
    fn origin(&self) -> String {
        self.path().map_or_else(|| "--regex".to_owned(), |path| path.display().to_string())
    }

    fn text(&self) -> Result<String, ConstraintError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| ConstraintError::Read { path: path.to_owned(), source })
        };
        match self {
            Constraint::Expression(text) => Ok(text.clone()),
            Constraint::Rules(path) | Constraint::Schema(path) | Constraint::Choices(path) => read(path),
        }
    }
}
