//! A `tokenizer.json` as the tables of the artifact's text section, with which the runtime cuts text exactly as the
//! `tokenizers` crate does, or the part of it that the runtime has no code for ([`HostOnly`]). What characters are and
//! become is asked of the same libraries that crate asks, for every character there is, and stored as ranges.

mod characters;
mod model;
mod normalizer;
mod section;
mod splitting;
#[cfg(test)]
mod tests;

use crate::model::special_tokens::around_text;
use normalizer::Normalization;
use serde_json::Value;
use slm_runtime::format::text::{STRIP_LEFT, STRIP_RIGHT};
use splitting::Splitting;
use tokenizers::{NormalizedString, Normalizer};

/// Why text becomes tokens on a host only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} `{found}`")]
pub struct HostOnly {
    /// Which part of the tokenizer.
    pub part: &'static str,
    /// What it has there.
    pub found: String,
}

/// A part of a tokenizer that only hosts have.
fn host_only(part: &'static str, found: impl ToString) -> HostOnly {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(200) {
        found.truncate(end);
        found.push('…');
    }
    HostOnly { part, found }
}

/// The type of a part, as the file names it, or the whole part.
fn type_of(part: &Value) -> String {
    part["type"].as_str().map_or_else(|| part.to_string(), str::to_owned)
}

/// Tokens by spelling, with their flags.
type Spelled = Vec<(Vec<u8>, u32, u8)>;

/// The content of the text section; added tokens beyond `rows` are left out.
pub(super) fn text_section(tokenizer: &tokenizers::Tokenizer, rows: Option<usize>) -> Result<Vec<u8>, HostOnly> {
    let written = tokenizer.to_string(false).map_err(|error| host_only("file", error))?;
    let json: Value = serde_json::from_str(&written).map_err(|error| host_only("file", error))?;
    let (raw, normalized) = added_tokens(tokenizer, rows)?;
    let mut normalization = Normalization::from_json(&json["normalizer"])?;
    let splitting = Splitting::from_json(&json["pre_tokenizer"], &mut normalization, &normalized)?;
    let processor = &json["post_processor"];
    let (before, after) = around_text(processor).ok_or_else(|| host_only("post-processor", processor))?;
    let model = model::Model::from_json(&json["model"], splitting.bytes)?;
    section::write(&section::Parts {
        normalization: &normalization,
        splitting: &splitting,
        model: &model,
        raw,
        normalized,
        before,
        after,
    })
}

/// Tokens that are cut out of the text as it is, and those that are cut out of normalised text.
fn added_tokens(tokenizer: &tokenizers::Tokenizer, rows: Option<usize>) -> Result<(Spelled, Spelled), HostOnly> {
    let (mut raw, mut normalized) = (Vec::new(), Vec::new());
    let mut tokens: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    tokens.retain(|(id, _)| rows.is_none_or(|rows| (*id as usize) < rows));
    tokens.sort_unstable_by_key(|(id, _)| *id);
    for (id, token) in tokens {
        if token.single_word {
            return Err(host_only("added token with single_word", token.content));
        }
        let flags = (u8::from(token.lstrip) * STRIP_LEFT) | (u8::from(token.rstrip) * STRIP_RIGHT);
        let mut content = NormalizedString::from(token.content.as_str());
        if token.normalized
            && let Some(normalizer) = tokenizer.get_normalizer()
        {
            normalizer.normalize(&mut content).map_err(|error| host_only("normalizer", error))?;
        }
        let content = content.get();
        if content.is_empty() {
            return Err(host_only("added token that is empty once normalised", token.content));
        }
        let list = if token.normalized { &mut normalized } else { &mut raw };
        list.push((content.as_bytes().to_vec(), id, flags));
    }
    raw.sort_unstable();
    normalized.sort_unstable();
    Ok((raw, normalized))
}
