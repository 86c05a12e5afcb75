//! The sections from which the next tokens are guessed: a table of frequent continuations, and the device part of a
//! smaller model. That model is an artifact of its own, with an own header, sections and digests, and has the same tokens;
//! it carries no further draft model.

use super::FormatError;
use super::artifact::ArtifactView;
use super::header::SectionKind;
use super::spec::Output;
use crate::speculate::Continuations;

impl<'a> ArtifactView<'a> {
    /// What most often follows the last tokens in a text, where the artifact says so.
    pub fn continuations(&self) -> Option<Continuations<'a>> {
        self.continuations
    }

    /// The smaller model that drafts for this one.
    pub fn draft_model(&self) -> Option<ArtifactView<'a>> {
        // It was opened before, so it opens.
        ArtifactView::open(self.draft?).ok()
    }

    /// Whether another model has the same tokens and gives logits for the next one, so that one can draft for the other.
    ///
    /// # Errors
    /// What differs.
    pub fn check_draft(&self, draft: &ArtifactView<'_>) -> Result<(), &'static str> {
        let logits = |view: &ArtifactView<'_>| view.spec.output == Output::LanguageModel as u8;
        if !logits(self) || !logits(draft) {
            return Err("is no decoder with logits of the next token, or belongs to a model that is none");
        }
        if self.spec.vocabulary != draft.spec.vocabulary || self.vocabulary != draft.vocabulary {
            return Err("is of a model with other tokens");
        }
        if draft.draft.is_some() {
            return Err("is of a model that carries a draft model itself");
        }
        Ok(())
    }

    /// Reads and checks both sections.
    pub(super) fn read_drafts(&mut self) -> Result<(), FormatError> {
        if let Some(content) = self.single_device_section(SectionKind::Continuations)? {
            let table = Continuations::read(content, self.spec.vocabulary);
            let fault =
                |error: crate::speculate::ContinuationsError| FormatError::section(SectionKind::Continuations, error.0);
            self.continuations = Some(table.map_err(fault)?);
        }
        let fault = |fault| FormatError::section(SectionKind::Draft, fault);
        let Some(content) = self.single_device_section(SectionKind::Draft)? else { return Ok(()) };
        if ArtifactView::has_section(content, SectionKind::Draft) {
            return Err(fault("is of a model that carries a draft model itself"));
        }
        let draft = ArtifactView::open(content).map_err(|error| match error {
            // What this build lacks is named.
            FormatError::Feature(_) => error,
            _ => fault("is not a sound artifact"),
        })?;
        self.check_draft(&draft).map_err(fault)?;
        self.draft = Some(content);
        Ok(())
    }

    /// Whether bytes that may be an artifact name a section, before anything in it is read.
    fn has_section(bytes: &[u8], kind: SectionKind) -> bool {
        super::page::read_page(bytes, bytes.len() as u64).is_ok_and(|header| {
            let table = &bytes[super::header::SECTION_TABLE_OFFSET..];
            let records = table.chunks_exact(super::header::SectionRecord::BYTES).take(header.sections as usize);
            records.map(super::header::SectionRecord::from_bytes).any(|record| record.kind == kind as u32)
        })
    }
}
