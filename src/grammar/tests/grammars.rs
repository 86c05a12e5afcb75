//! Grammars as a whole: what follows them and what does not, by the crates that define the languages; the tokens of states;
//! hostile grammars; damaged sections.

#[path = "grammars/expressions.rs"]
mod expressions;
#[path = "grammars/hostile.rs"]
mod hostile;
#[path = "grammars/instances.rs"]
mod instances;
#[path = "grammars/rules.rs"]
mod rules;
#[path = "grammars/schemas.rs"]
mod schemas;
#[path = "grammars/sections.rs"]
mod sections;
#[path = "grammars/support.rs"]
mod support;
#[path = "grammars/vocabularies.rs"]
mod vocabularies;
