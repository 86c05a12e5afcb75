//! The token that is put in the place of another, so that positions stay what they are: the one that the model learned to
//! read as "something is hidden", else as "something unknown". In this order: the mask, the unknown token, padding, and
//! for decoders whose vocabulary has none of these, the token that ends a text, which GPT-2 and its successors declare as
//! their unknown token too.

use super::AttributeError;
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;

/// What a token is in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `[MASK]`, `<mask>`.
    Mask,
    /// `[UNK]`, `<unk>`.
    Unknown,
    /// `[PAD]`, `<pad>` and the like.
    Padding,
    /// The model's first end token.
    End,
    /// Named by `--replace`.
    Given,
}

impl Role {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Role::Mask => "the mask token",
            Role::Unknown => "the unknown token",
            Role::Padding => "the padding token",
            Role::End => "the token that ends a text",
            Role::Given => "as --replace names it",
        }
    }
}

const SPELLINGS: [(Role, &[&str]); 3] = [
    (Role::Mask, &["[MASK]", "<mask>"]),
    (Role::Unknown, &["[UNK]", "<unk>", "<|unk|>"]),
    (Role::Padding, &["[PAD]", "<pad>", "<|pad|>"]),
];

/// The token that hides another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Its id.
    pub id: u32,
    /// Its spelling.
    pub token: String,
    /// What it is.
    pub role: Role,
}

impl Replacement {
    /// The token with a spelling, or the first that the vocabulary has.
    pub(super) fn of(tokenizer: &Tokenizer, given: Option<&str>, ends: &[u32]) -> Result<Self, AttributeError> {
        if let Some(token) = given {
            let unknown = || AttributeError::UnknownReplacement { token: token.to_owned() };
            let id = tokenizer.token_id(token).ok_or_else(unknown)?;
            return Ok(Replacement { id, token: token.to_owned(), role: Role::Given });
        }
        for (role, spellings) in SPELLINGS {
            let known = spellings.iter().find_map(|&token| Some((tokenizer.token_id(token)?, token)));
            if let Some((id, token)) = known {
                return Ok(Replacement { id, token: token.to_owned(), role });
            }
        }
        let id = *ends.first().ok_or(AttributeError::NoReplacement)?;
        Ok(Replacement { id, token: tokenizer.spelling(id), role: Role::End })
    }
}
