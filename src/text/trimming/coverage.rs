//! How well a trimmed vocabulary spells a text: tokens before and after, the share of the tokens that were kept, and the share
//! of the text that fell back to bytes or to the unknown token.

use super::vocabulary::{Model, Vocabulary};
use super::{KeptIds, TrimError};
use crate::progress::Progress;
use crate::text::documents::read_documents;
use crate::text::form::TextForm;
use crate::text::tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use std::path::PathBuf;

/// The texts that a vocabulary is trimmed by, as the tokens that they have before.
#[derive(Clone, Debug)]
pub struct Counts {
    texts: Vec<(String, Vec<u32>)>,
    /// Occurrences by id.
    pub counts: Vec<u64>,
}

/// How a text is spelled before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Bytes of text.
    pub text_bytes: u64,
    /// Tokens before.
    pub tokens_before: u64,
    /// Tokens after.
    pub tokens_after: u64,
    /// Share of the tokens before that are kept.
    pub kept: f64,
    /// Share of the text's bytes that are spelled byte by byte before; `None` where bytes have no tokens.
    pub bytes_before: Option<f64>,
    /// Likewise after: tokens of one byte in the place of longer ones.
    pub bytes_after: Option<f64>,
    /// Share of the tokens that are the unknown one before; `None` where there is none.
    pub unknown_before: Option<f64>,
    /// Likewise after.
    pub unknown_after: Option<f64>,
}

impl Counts {
    /// Reads texts and counts their tokens.
    ///
    /// # Errors
    /// Text that cannot be read or encoded.
    pub fn read(
        files: &[PathBuf],
        form: &TextForm,
        tokenizer: &Tokenizer,
        vocabulary: &Vocabulary,
        progress: &dyn Progress,
    ) -> Result<Self, TrimError> {
        let mut texts = Vec::new();
        for file in files {
            let documents = read_documents(file, form)?;
            documents.notes.warn(progress);
            texts.extend(documents.texts);
        }
        progress.begin("counting tokens", texts.len() as u64, "texts");
        let encode = |text: String| {
            let ids = tokenizer.encode_plain(&text)?;
            progress.advance(1);
            Ok::<_, TrimError>((text, ids))
        };
        let texts: Vec<(String, Vec<u32>)> = texts.into_par_iter().map(encode).collect::<Result<_, _>>()?;
        progress.finish();
        let mut counts = vec![0; vocabulary.rows()];
        for id in texts.iter().flat_map(|(_, ids)| ids) {
            counts[*id as usize] += 1;
        }
        Ok(Counts { texts, counts })
    }

    /// Compares with the tokens of the trimmed tokenizer.
    ///
    /// # Errors
    /// Text that cannot be encoded.
    pub fn coverage(
        &self,
        vocabulary: &Vocabulary,
        kept: &KeptIds,
        trimmed: &Tokenizer,
        progress: &dyn Progress,
    ) -> Result<Coverage, TrimError> {
        progress.begin("comparing tokens", self.texts.len() as u64, "texts");
        let spelled = |(text, before): &(String, Vec<u32>)| {
            let after: Option<Vec<u32>> =
                trimmed.encode_plain(text)?.into_iter().map(|id| kept.ids().get(id as usize).copied()).collect();
            progress.advance(1);
            Ok::<_, TrimError>(Spelled::of(vocabulary, before, &after.unwrap_or_default()))
        };
        let each: Vec<Spelled> = self.texts.par_iter().map(spelled).collect::<Result<_, _>>()?;
        progress.finish();
        let sum = each.into_iter().fold(Spelled::default(), Spelled::plus);
        let text_bytes: u64 = self.texts.iter().map(|(text, _)| text.len() as u64).sum();
        let total: u64 = self.counts.iter().sum();
        let of_kept: u64 = kept.ids().iter().map(|&id| self.counts[id as usize]).sum();
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let bytes = (!vocabulary.bytes.is_empty()).then_some(text_bytes);
        let unknown =
            vocabulary.unknown.filter(|_| !matches!(vocabulary.model, Model::Bpe(_)) || !vocabulary.byte_level);
        Ok(Coverage {
            text_bytes,
            tokens_before: total,
            tokens_after: sum.tokens,
            kept: share(of_kept, total),
            bytes_before: bytes.map(|bytes| share(sum.bytes_before, bytes)),
            bytes_after: bytes.map(|bytes| share(sum.bytes_after, bytes)),
            unknown_before: unknown.map(|_| share(sum.unknown_before, total)),
            unknown_after: unknown.map(|_| share(sum.unknown_after, sum.tokens)),
        })
    }
}

/// Counts of one text, all by old ids.
#[derive(Clone, Copy, Debug, Default)]
struct Spelled {
    tokens: u64,
    bytes_before: u64,
    bytes_after: u64,
    unknown_before: u64,
    unknown_after: u64,
}

impl Spelled {
    fn of(vocabulary: &Vocabulary, before: &[u32], after: &[u32]) -> Self {
        let is_byte = |id: &u32| vocabulary.bytes.contains(id);
        let count = |ids: &[u32], what: &dyn Fn(&u32) -> bool| ids.iter().filter(|id| what(id)).count() as u64;
        let is_unknown = |id: &u32| vocabulary.unknown == Some(*id);
        let (bytes_before, bytes_after) = match vocabulary.byte_level {
            // A letter is a token of one byte in any text: only those count that were part of a longer token.
            true => (0, broken_up(vocabulary, before, after)),
            false => (count(before, &is_byte), count(after, &is_byte)),
        };
        Spelled {
            tokens: after.len() as u64,
            bytes_before,
            bytes_after,
            unknown_before: count(before, &is_unknown),
            unknown_after: count(after, &is_unknown),
        }
    }

    fn plus(self, other: Spelled) -> Spelled {
        Spelled {
            tokens: self.tokens + other.tokens,
            bytes_before: self.bytes_before + other.bytes_before,
            bytes_after: self.bytes_after + other.bytes_after,
            unknown_before: self.unknown_before + other.unknown_before,
            unknown_after: self.unknown_after + other.unknown_after,
        }
    }
}

/// Tokens of one byte after, at places where a longer token stood before.
fn broken_up(vocabulary: &Vocabulary, before: &[u32], after: &[u32]) -> u64 {
    let mut before = before.iter();
    // Places in bytes: where the token before that is looked at begins and ends, and where the token after begins.
    let (mut start, mut end, mut place, mut broken) = (0, 0, 0, 0);
    for id in after {
        while end <= place {
            let Some(next) = before.next() else { return broken };
            (start, end) = (end, end + vocabulary.length(*next));
        }
        if vocabulary.bytes.contains(id) && end - start > 1 {
            broken += 1;
        }
        place += vocabulary.length(*id);
    }
    broken
}
