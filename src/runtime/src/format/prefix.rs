//! Tokens that sequences begin with, and the snapshot of a session that has read them, so that they cost nothing at the
//! start. A section of the device part, little-endian:
//!
//! ```text
//! u32 number of tokens | the tokens, u32 | the snapshot, see `session/snapshot.rs`
//! ```

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::header::SectionKind;
use super::special_tokens::TokenList;

/// Tokens, and a session that has read them.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    /// The tokens.
    pub tokens: TokenList<'a>,
    /// What [`crate::session::Session::restore`] takes.
    pub snapshot: &'a [u8],
}

impl<'a> ArtifactView<'a> {
    /// What the artifact's sequences begin with, where it says so.
    pub fn prefix(&self) -> Option<Prefix<'a>> {
        self.prefix
    }

    /// Reads and checks the section; the snapshot is checked where it is taken up.
    pub(super) fn read_prefix(&mut self) -> Result<(), FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Prefix, fault);
        let Some(content) = self.single_device_section(SectionKind::Prefix)? else { return Ok(()) };
        let count = u32_at(content, 0).ok_or(fault("too short"))?;
        if count == 0 || count > self.spec.context || !self.spec.is_decoder() {
            return Err(fault("has no tokens, or more than the context"));
        }
        let rest = &content[4..];
        let (tokens, snapshot) = rest.split_at_checked(count as usize * 4).ok_or(fault("too short"))?;
        let tokens = TokenList(tokens);
        if tokens.iter().any(|token| token >= self.spec.vocabulary) {
            return Err(fault("a token is outside the vocabulary"));
        }
        self.prefix = Some(Prefix { tokens, snapshot });
        Ok(())
    }
}
