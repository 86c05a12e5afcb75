//! A model as its configuration and the files beside it describe it: the specification, and what is said of files that were
//! not followed to the letter. The network is in the configuration; the tokens that open and end a text, how a text becomes
//! one vector and how long it may be are beside it.

use super::companions::Companions;
use super::notes::Note;
use super::spec::{Head, ModelKind, ModelSpec};
use super::{families, generation, sentence, special_tokens};
use crate::disk::{Config, ConfigError};

/// The specification of a model. `config` may have been changed since it was read.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub fn spec_of(companions: &Companions, config: &Config) -> Result<ModelSpec, ConfigError> {
    let mut spec = families::spec(config)?;
    if spec.kind == ModelKind::Decoder {
        spec.opening = special_tokens::opening_tokens(companions, spec.vocabulary)?;
        spec.ends = special_tokens::end_tokens(companions, config, spec.ends, spec.vocabulary)?;
        match families::makes_sentence_vectors(spec.family) && sentence::pools(companions)? {
            true => spec = families::as_encoder(spec),
            false => sentence::refuse_decoder(companions, spec.family)?,
        }
    }
    if let Head::Answers { separator } = &mut spec.head
        && spec.token_types > 1
    {
        *separator = special_tokens::separator(companions, config, spec.vocabulary)?;
    }
    if spec.stacks().is_some() {
        spec.ends = special_tokens::end_tokens(companions, config, spec.ends, spec.vocabulary)?;
    }
    if spec.head == Head::Hidden {
        let sentence = sentence::read(companions, spec.hidden)?;
        if spec.causal {
            sentence::require_last(companions, sentence.embedding, spec.family)?;
        }
        spec.embedding = sentence.embedding;
        spec.longest_text =
            sentence.longest_text.map(|longest| longest.get()).filter(|&longest| longest < spec.context);
    }
    Ok(spec)
}

/// What a person may want to know of the files beside the configuration of a model with this specification.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub fn notes(companions: &Companions, config: &Config, spec: &ModelSpec) -> Result<Vec<Note>, ConfigError> {
    let mut notes = special_tokens::notes(companions, config, spec.vocabulary)?;
    if spec.kind != ModelKind::Encoder {
        notes.extend(generation::read(companions)?.notes);
    }
    if let Some(limit) = families::context_limit(config)? {
        notes.push(Note::FewerPositions { file: config.file().to_owned(), limit });
    }
    match &spec.head {
        Head::Hidden => notes.extend(sentence::read(companions, spec.hidden)?.notes),
        Head::LanguageModel { .. } => {}
        head => notes.extend(sentence::unused(companions, head.output())),
    }
    Ok(notes)
}
