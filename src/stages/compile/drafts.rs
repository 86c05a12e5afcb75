//! What the artifact guesses next tokens by: a table of frequent continuations, counted in a text or in what the model
//! writes, and the device part of a smaller model.

use super::work::CompileOptions;
use crate::artifact::host::ArtifactFile;
use crate::compile::continuations::{continuations_section, most_bytes};
use crate::compile::{AskedSections, CompileError};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::calibration::{CalibrationText, calibration};
use crate::stages::StageError;
use crate::stages::arguments::OWN_SAMPLES;
use crate::text::form::TextForm;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::spec::Output;
use slm_runtime::session::{Extent, Session};
use std::path::Path;

/// Tokens that the model writes for the table.
const OWN_TOKENS: usize = 32_768;
/// Most tokens of a text that are counted.
const TEXT_TOKENS: usize = 4_000_000;

/// The sections that are asked for; `vocabulary` has the bytes of every token.
pub(super) fn asked_sections(
    options: &CompileOptions,
    model: &Model,
    vocabulary: &[Vec<u8>],
    progress: &dyn Progress,
) -> Result<AskedSections, StageError> {
    let mut asked =
        AskedSections { kv: options.additions.kv, streaming: options.additions.streaming, ..AskedSections::default() };
    if let Some(source) = &options.additions.continuations {
        asked.continuations = Some(table(options, source, model, progress)?);
    }
    if let Some(path) = &options.additions.draft {
        let file = ArtifactFile::open(path)?;
        let view = file.view()?;
        let refuse = |reason: String| CompileError::Draft { path: path.clone(), reason };
        check(&view, options, vocabulary).map_err(refuse)?;
        let context = options.context.unwrap_or(model.spec.text_context());
        if (view.spec().context as usize) < context {
            let shorter = view.spec().context;
            progress.warn(&format!(
                "{}: its context of {shorter} is shorter than {context}: beyond it nothing is drafted",
                path.display()
            ));
        }
        asked.draft_memory =
            Session::required_bytes_for(&view, Extent { workers: 1, rows: 1 + options.additions.drafts });
        asked.draft = Some(view.bytes()[..view.header().device_bytes as usize].to_vec());
    }
    if asked.continuations.is_some() || asked.draft.is_some() {
        asked.drafts = options.additions.drafts;
    }
    Ok(asked)
}

/// The table of the text that was named.
fn table(
    options: &CompileOptions,
    source: &Path,
    model: &Model,
    progress: &dyn Progress,
) -> Result<Vec<u8>, StageError> {
    let (text, tokens) = match source == Path::new(OWN_SAMPLES) {
        true => (CalibrationText::Default { seed: options.additions.seed }, OWN_TOKENS),
        false => (CalibrationText::File { path: source.to_owned(), form: TextForm::default() }, TEXT_TOKENS),
    };
    let found = calibration(model, &text, tokens, progress)?;
    found.files_read.iter().for_each(|notes| notes.warn(progress));
    let most = most_bytes(model.spec.parameter_count() / 2);
    let section = continuations_section(&found.sequences, model.spec.vocabulary, most);
    Ok(section.ok_or_else(|| CompileError::NothingFrequent { text: found.description.clone() })?)
}

/// Whether an artifact can draft for the model that is compiled.
fn check(draft: &ArtifactView<'_>, options: &CompileOptions, vocabulary: &[Vec<u8>]) -> Result<(), String> {
    if draft.is_sealed() {
        return Err(
            "its weights are sealed, and nobody opens them within another artifact; pass the open one".to_owned()
        );
    }
    if draft.header().chunk_shift != 0 {
        return Err(
            "it is signed; the artifact that carries it is what is signed: pass it as it was compiled".to_owned()
        );
    }
    if draft.spec().output != Output::LanguageModel as u8 {
        return Err("it is no decoder with logits of the next token".to_owned());
    }
    if draft.layout() != options.target.layout {
        let (found, wanted) = (draft.layout().name(), options.target.layout.name());
        return Err(format!(
            "its layout is {found}, and {} has {wanted}; compile it for that target",
            options.target.name
        ));
    }
    if draft.draft_model().is_some() {
        return Err("it carries a draft model itself; compile it without --draft".to_owned());
    }
    let count = draft.spec().vocabulary as usize;
    if count != vocabulary.len() {
        return Err(format!("it has {count} tokens, the model {}", vocabulary.len()));
    }
    let same = |(id, bytes): (usize, &Vec<u8>)| draft.token_bytes(id as u32) == bytes.as_slice();
    match vocabulary.iter().enumerate().position(|token| !same(token)) {
        Some(id) => Err(format!("its token {id} is another than the model's")),
        None => Ok(()),
    }
}
