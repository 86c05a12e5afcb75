//! Bytes of the sections of an artifact that come from the files beside a model, before it is compiled.

use super::emit::sampling_section;
use super::exits::section_bytes;
use super::kv::KvFormat;
use super::residency::Streaming;
use crate::disk::ConfigError;
use crate::model::companions::Companions;
use crate::model::generation;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::text::chat_template::{ChatFrame, ChatTemplate};
use crate::text::tokenizer::Tokenizer;
use slm_runtime::format::header::SectionKind;

/// Bytes of the sections for text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionBytes {
    /// All tokens' texts.
    pub vocabulary: u64,
    /// The tables that turn text into tokens, where the device has them.
    pub text: Option<u64>,
    /// The fixed texts around a conversation's messages, where the device has them.
    pub chat_frame: Option<u64>,
    /// The defaults of sampling, where the device has them.
    pub sampling: Option<u64>,
    /// What a person asks for beside the model.
    pub asked: Asked,
}

/// What a person asks of an artifact: bytes of sections, the memory that goes with them, and the format of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The grammar that outputs follow.
    pub grammar: Option<u64>,
    /// The table of frequent continuations.
    pub continuations: Option<u64>,
    /// The draft model.
    pub draft: Option<u64>,
    /// Tokens that sequences begin with and that are read before; 0 for none.
    pub prefix_tokens: usize,
    /// Heads of a classifier with exits or a temperature.
    pub exits: Option<u64>,
    /// Tokens that are drafted together; 0 where nothing drafts.
    pub drafts: usize,
    /// Memory of a session of the draft model.
    pub draft_memory: u64,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// How weights are streamed, where they are.
    pub streaming: Option<Streaming>,
}

impl Asked {
    /// Bytes of a section.
    pub fn of(&self, kind: SectionKind) -> Option<u64> {
        match kind {
            SectionKind::Grammar => self.grammar,
            SectionKind::Continuations => self.continuations,
            SectionKind::Draft => self.draft,
            SectionKind::Exits => self.exits,
            _ => None,
        }
    }
}

impl SectionBytes {
    /// By the files beside a model; four bytes a token where there is no tokenizer.
    ///
    /// # Errors
    /// A generation_config.json that cannot be read.
    pub fn of(companions: &Companions, spec: &ModelSpec) -> Result<SectionBytes, ConfigError> {
        let decoder = spec.kind == ModelKind::Decoder;
        let tokenizer = Tokenizer::of(companions).ok();
        let text = tokenizer.as_ref().and_then(|tokenizer| Some(tokenizer.device_text().ok()?.len() as u64));
        let template = decoder.then(|| ChatTemplate::of(companions).ok().flatten());
        let frame = template.flatten().and_then(|template| ChatFrame::of(&template).ok());
        let chat_frame = frame.zip(tokenizer.as_ref()).and_then(|(frame, tokenizer)| {
            Some(frame.with_tokens(tokenizer, spec.vocabulary).ok()?.to_section().len() as u64)
        });
        let generation = decoder.then(|| generation::read(companions)).transpose()?;
        let sampling = generation.and_then(|read| sampling_section(&read.sampling)).map(|section| section.len() as u64);
        let vocabulary = tokenizer
            .and_then(|tokenizer| tokenizer.vocabulary_bytes(spec.vocabulary).ok())
            .map_or(4 * spec.vocabulary as u64, |tokens| tokens.iter().map(|token| token.len() as u64).sum());
        let exits = (!spec.exits.is_empty()).then(|| section_bytes(spec.exits.len()));
        let asked = Asked { exits, ..Asked::default() };
        Ok(SectionBytes { vocabulary, text, chat_frame, sampling, asked })
    }
}
