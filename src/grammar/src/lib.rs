//! Grammars that the output of a language model follows: a JSON schema, a regular expression, rules or a list of choices
//! becomes a minimal automaton over bytes, and with the tokens of a model the section of an artifact that
//! `slm_runtime::grammar` reads. The crate knows bytes, automata and the bytes of tokens, and no model.
//!
//! | module | contents |
//! |---|---|
//! | [`schema`], `regular`, `gbnf`, `choices` | the four kinds of grammar |
//! | `characters`, `syntax` | classes of characters as bytes; expressions and rules |
//! | [`automaton`] | the automaton, its construction |
//! | [`tokens`] | the tokens that each state allows |
//! | `section` | the bytes of the section (docs/format.md) |
//! | [`limits`], [`error`] | what a grammar may take; why one is refused |
//!
//! ```text
//! let grammar = Source::Schema(&text, Separators::Compact).compile(&Limits::default())?;
//! let section = grammar.section(&Vocabulary { tokens: &tokens, excluded: &excluded, encode: None })?;
//! ```
//!
//! The same inputs give the same bytes.

pub mod automaton;
mod characters;
mod choices;
pub mod error;
mod gbnf;
pub mod limits;
mod regular;
pub mod schema;
mod section;
mod syntax;
pub mod tokens;

pub use automaton::Automaton;
pub use error::{GrammarError, Limit};
pub use limits::Limits;
pub use schema::{Note, Separators};
pub use tokens::{Encode, Vocabulary};

use error::Result;
use limits::{Work, check};
use syntax::Rules;

/// A grammar as its author wrote it.
#[derive(Clone, Copy, Debug)]
pub enum Source<'s> {
    /// A JSON schema, and what stands between the parts of values.
    Schema(&'s str, Separators),
    /// A regular expression that whole texts match.
    Expression(&'s str),
    /// Rules in a notation like GBNF.
    Rules(&'s str),
    /// Texts of which one is taken, one a line or a JSON list.
    Choices(&'s str),
}

/// A compiled grammar.
#[derive(Clone, Debug)]
pub struct Grammar {
    automaton: Automaton,
    notes: Vec<Note>,
    limits: Limits,
}

impl Source<'_> {
    /// Compiles the grammar to an automaton.
    pub fn compile(&self, limits: &Limits) -> Result<Grammar> {
        let mut work = Work::new(*limits);
        let text = match self {
            Source::Schema(text, _) | Source::Expression(text) | Source::Rules(text) | Source::Choices(text) => text,
        };
        check(Limit::Text, text.len(), limits.text_bytes)?;
        let (rules, notes) = match self {
            Source::Schema(text, separators) => schema::read(text, *separators, &mut work)?,
            Source::Expression(text) => (Rules::of(regular::whole(text, limits.nesting)?), Vec::new()),
            Source::Rules(text) => (gbnf::read(text, limits)?, Vec::new()),
            Source::Choices(text) => (Rules::of(choices::read(text)?), Vec::new()),
        };
        Ok(Grammar { automaton: Automaton::of(&rules, &mut work)?, notes, limits: *limits })
    }
}

impl Grammar {
    /// The automaton.
    pub fn automaton(&self) -> &Automaton {
        &self.automaton
    }

    /// What a user should know about how the grammar was read.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The section for a model's tokens.
    pub fn section(&self, vocabulary: &Vocabulary<'_>) -> Result<Vec<u8>> {
        let mut work = Work::new(self.limits);
        let masks = tokens::masks(&self.automaton, vocabulary, &mut work)?;
        section::write(&masks, vocabulary, &work.limits)
    }
}
