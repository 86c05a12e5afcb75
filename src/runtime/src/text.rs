//! Token ids to text without allocation: the compiler stored the bytes of every token, and a sequence may begin with a
//! space that is not part of its text.

use crate::format::artifact::ArtifactView;

/// Decodes a sequence token by token.
#[derive(Clone, Copy, Debug)]
pub struct TextDecoder<'a> {
    artifact: ArtifactView<'a>,
    at_start: bool,
}

impl<'a> TextDecoder<'a> {
    /// A decoder at the start of a text.
    pub fn new(artifact: &ArtifactView<'a>) -> Self {
        TextDecoder { artifact: *artifact, at_start: true }
    }

    /// The bytes the next token adds; a multi-byte character may be spread over several tokens.
    pub fn next(&mut self, token: u32) -> &'a [u8] {
        token_text(&self.artifact, token, &mut self.at_start)
    }
}

/// The bytes a token adds to a text; `at_start` says whether the text is still empty.
pub(crate) fn token_text<'a>(artifact: &ArtifactView<'a>, token: u32, at_start: &mut bool) -> &'a [u8] {
    let bytes = artifact.token_bytes(token);
    let strip = *at_start && artifact.spec().strip_leading_space == 1;
    *at_start &= bytes.is_empty();
    match bytes.split_first() {
        Some((b' ', rest)) if strip => rest,
        _ => bytes,
    }
}
