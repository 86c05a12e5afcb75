//! The tokens that open and end a text. The model record holds one of each, `bos` and `eos`; an artifact with several
//! of either has the special-tokens section, whose first tokens the record repeats for readers that do not know the
//! section:
//!
//! `opening` u32, `ends` u32, then `opening` token ids, then `ends` token ids, u32 each, little-endian.

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::header::SectionKind;
use super::spec::NONE;

/// Largest number of tokens before a text.
pub const MAX_OPENING: usize = 16;
/// Largest number of tokens that end a text.
pub const MAX_ENDS: usize = 64;
/// Bytes before the ids.
const COUNTS_BYTES: usize = 8;
/// Offsets of `bos` and `eos` in the model record.
const BOS_OFFSET: usize = 36;
const EOS_OFFSET: usize = 40;

/// Token ids stored in the artifact, four bytes each, little-endian.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenList<'a>(pub(super) &'a [u8]);

impl<'a> TokenList<'a> {
    /// The ids in these bytes; what is left of a last id is passed over.
    pub fn new(bytes: &'a [u8]) -> Self {
        TokenList(bytes)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        self.0.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
    }

    /// Whether the list contains a token.
    pub fn contains(&self, token: u32) -> bool {
        self.iter().any(|id| id == token)
    }
}

impl<'a> ArtifactView<'a> {
    /// Tokens before a text.
    pub fn opening_tokens(&self) -> TokenList<'a> {
        self.opening
    }

    /// Tokens that end a text.
    pub fn end_tokens(&self) -> TokenList<'a> {
        self.ends
    }

    /// Reads both lists, from the section if there is one, else from the model record.
    pub(super) fn read_special_tokens(&mut self) -> Result<(), FormatError> {
        let fault = |fault| FormatError::section(SectionKind::SpecialTokens, fault);
        let record = self.section(SectionKind::Spec).ok_or(FormatError::Spec("bos"))?;
        let of_record = |offset: usize| match u32_at(record, offset) {
            Some(NONE) | None => TokenList(&[]),
            Some(_) => TokenList(&record[offset..offset + 4]),
        };
        (self.opening, self.ends) = (of_record(BOS_OFFSET), of_record(EOS_OFFSET));
        let Some(content) = self.single_device_section(SectionKind::SpecialTokens)? else { return Ok(()) };
        let counts = u32_at(content, 0).zip(u32_at(content, 4)).ok_or(fault("too short"))?;
        let (opening, ends) = (counts.0 as usize, counts.1 as usize);
        if opening > MAX_OPENING || ends > MAX_ENDS {
            return Err(fault("more tokens than a reader takes"));
        }
        let ids = &content[COUNTS_BYTES..];
        if ids.len() != (opening + ends) * 4 {
            return Err(fault("length does not match its counts"));
        }
        let (opening, ends) = ids.split_at(opening * 4);
        let (opening, ends) = (TokenList(opening), TokenList(ends));
        if opening.iter().chain(ends.iter()).any(|id| id >= self.spec.vocabulary) {
            return Err(fault("a token is outside the vocabulary"));
        }
        let first = |list: TokenList<'_>| list.iter().next().unwrap_or(NONE);
        if first(opening) != self.spec.bos || first(ends) != self.spec.eos {
            return Err(fault("its first tokens are not those of the specification"));
        }
        (self.opening, self.ends) = (opening, ends);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::ModelRecord;
    use super::*;

    #[test]
    fn the_record_has_bos_and_eos_where_the_lists_look_for_them() {
        let record =
            ModelRecord { bos: 0x0102_0304, eos: 0x0506_0708, ..ModelRecord::from_bytes(&[0; ModelRecord::BYTES]) };
        let bytes = record.to_bytes();
        assert_eq!(u32_at(&bytes, BOS_OFFSET), Some(record.bos));
        assert_eq!(u32_at(&bytes, EOS_OFFSET), Some(record.eos));
    }
}
