//! What an artifact may need and a build of the runtime may lack: features of the crate (Cargo.toml). An artifact with a
//! section whose meaning would be lost is refused by the feature's name. Drafts change no token: without `speculation`
//! their sections are left unread.

use super::FormatError;
use super::artifact::ArtifactView;
use super::header::SectionKind;

/// Sections that change what a model says, the feature that reads each, and whether it is there.
const SECTIONS: [(SectionKind, &str, bool); 4] = [
    (SectionKind::Grammar, "grammar", cfg!(feature = "grammar")),
    (SectionKind::Prefix, "snapshots", cfg!(feature = "snapshots")),
    (SectionKind::Chunks, "signed", cfg!(any(test, feature = "signed"))),
    (SectionKind::Seal, "seal", cfg!(feature = "seal")),
];

impl ArtifactView<'_> {
    /// Refuses an artifact with a section that this build cannot read.
    pub(super) fn refuse_what_is_lacking(&self) -> Result<(), FormatError> {
        for (kind, feature, there) in SECTIONS {
            if !there && self.section(kind).is_some() {
                return Err(FormatError::Feature(feature));
            }
        }
        if self.header.encryption != 0 && !cfg!(feature = "seal") {
            return Err(FormatError::Feature("seal"));
        }
        Ok(())
    }
}
