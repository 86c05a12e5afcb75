//! A tokenizer.json as the keys of a GGUF file: the other way of [`super::rebuild`]. What a reader of the keys would cut or
//! merge otherwise is refused, by the part of tokenizer.json that says it.
//!
//! Every row of the token table has a token: rows without one are spelled `[PADn]` and of the kind that is not used. Tokens
//! that are matched whole, `added_tokens`, are control tokens where they are special, else those that users define.

use super::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use super::{byte_level, sentence_piece, word_piece};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A vocabulary by its rows.
#[derive(Debug)]
pub(in crate::formats::gguf) struct Rows {
    /// Spellings by id, all of them different.
    pub(in crate::formats::gguf) tokens: Vec<String>,
    /// Kinds by id.
    pub(in crate::formats::gguf) kinds: Vec<u64>,
}

/// The keys of a tokenizer.
#[derive(Debug)]
pub(in crate::formats::gguf) struct Written {
    /// `tokenizer.ggml.model`.
    pub(in crate::formats::gguf) model: &'static str,
    /// `tokenizer.ggml.pre`.
    pub(in crate::formats::gguf) pre: Option<&'static str>,
    /// Tokens and their kinds.
    pub(in crate::formats::gguf) rows: Rows,
    /// What merges are sorted by, of models whose merges are not stored.
    pub(in crate::formats::gguf) scores: Option<Vec<f32>>,
    /// Merges, the two parts with a space between them.
    pub(in crate::formats::gguf) merges: Option<Vec<String>>,
    /// The token that opens a text, by the tokenizer itself.
    pub(in crate::formats::gguf) before: Option<u32>,
    /// The token that it ends a text with.
    pub(in crate::formats::gguf) after: Option<u32>,
    /// The token of what has none.
    pub(in crate::formats::gguf) unknown: Option<u32>,
    /// Whether a space is put before a text.
    pub(in crate::formats::gguf) space_before: Option<bool>,
    /// Whether text is made small.
    pub(in crate::formats::gguf) lowercase: Option<bool>,
}

/// tokenizer.json, parsed as far as its parts.
pub(super) struct File<'f> {
    pub(super) json: &'f Value,
    pub(super) model: &'f Value,
    /// Ids by their spelling, the added tokens among them.
    pub(super) ids: BTreeMap<&'f str, u32>,
}

impl<'f> File<'f> {
    fn of(json: &'f Value) -> Result<Self, String> {
        let model = &json["model"];
        let vocabulary = model["vocab"].as_object().ok_or("`model.vocab` is not an object of tokens and their ids")?;
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let mut ids = BTreeMap::new();
        for (token, number) in vocabulary {
            ids.insert(token.as_str(), id(number).ok_or_else(|| format!("`model.vocab` gives {token:?} no id"))?);
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let found = added["content"].as_str().zip(id(&added["id"]));
            let (token, id) = found.ok_or("`added_tokens` has an entry without `content` and `id`")?;
            ids.insert(token, id);
        }
        Ok(File { json, model, ids })
    }

    /// Refuses a setting of the model that is other than usual.
    pub(super) fn require(&self, key: &str, usual: &[Value]) -> Result<(), String> {
        match &self.model[key] {
            Value::Null => Ok(()),
            found if usual.contains(found) => Ok(()),
            found => Err(format!("`model.{key}` is {found}, which it has no key for")),
        }
    }

    /// Merges by their rank, as pairs.
    pub(super) fn merges(&self) -> Result<Vec<(&'f str, &'f str)>, String> {
        let list = self.model["merges"].as_array().ok_or("`model.merges` is not a list")?;
        let pair = |merge: &'f Value| match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => match parts.as_slice() {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        list.iter().map(|merge| pair(merge).ok_or_else(|| format!("`model.merges` has {merge}, not a pair"))).collect()
    }

    /// The tokens by row, spelled by a function of id, kind and spelling.
    pub(super) fn rows(
        &self,
        count: usize,
        kind_of: impl Fn(&str) -> u64,
        spelled: impl Fn(u64, &str) -> String,
    ) -> Result<Rows, String> {
        let mut special = BTreeMap::new();
        for added in self.json["added_tokens"].as_array().into_iter().flatten() {
            if let Some(token) = added["content"].as_str() {
                special.insert(token, added["special"].as_bool().unwrap_or(false));
            }
        }
        let mut named: Vec<Option<(String, u64)>> = vec![None; count];
        for (token, id) in &self.ids {
            // What has no row the model cannot read or write.
            let Some(place) = named.get_mut(*id as usize) else { continue };
            let kind = match (kind_of(token), special.get(token)) {
                (NORMAL, Some(true)) => CONTROL,
                (NORMAL, Some(false)) => USER_DEFINED,
                (kind, _) => kind,
            };
            let spelling = spelled(kind, token);
            if let Some((other, _)) = place.replace((spelling.clone(), kind)) {
                return Err(format!("id {id} has two tokens, {other:?} and {spelling:?}"));
            }
        }
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for (token, _) in named.iter().flatten() {
            if !taken.insert(token.clone()) {
                return Err(format!("two tokens would both be spelled {token:?}"));
            }
        }
        let (mut tokens, mut kinds) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (id, named) in named.into_iter().enumerate() {
            let (token, kind) = named.unwrap_or_else(|| {
                let mut filler = format!("[PAD{id}]");
                while !taken.insert(filler.clone()) {
                    filler.push('_');
                }
                (filler, UNUSED)
            });
            tokens.push(token);
            kinds.push(kind);
        }
        Ok(Rows { tokens, kinds })
    }

    /// The tokens that the post-processor puts before and after one text.
    pub(super) fn around(&self) -> Result<(Option<u32>, Option<u32>), String> {
        let mut around = (None, None);
        self.add_around(&self.json["post_processor"], &mut around)?;
        Ok(around)
    }

    fn add_around(&self, processor: &Value, around: &mut (Option<u32>, Option<u32>)) -> Result<(), String> {
        let kind = processor["type"].as_str().unwrap_or_default();
        let id = |token: Option<&str>| {
            token.and_then(|token| self.ids.get(token).copied()).ok_or("`post_processor` names a token without an id")
        };
        match kind {
            "" | "ByteLevel" => {}
            "Sequence" => {
                for part in processor["processors"].as_array().into_iter().flatten() {
                    self.add_around(part, around)?;
                }
            }
            "BertProcessing" | "RobertaProcessing" => {
                *around = (Some(id(processor["cls"][0].as_str())?), Some(id(processor["sep"][0].as_str())?));
            }
            "TemplateProcessing" => {
                let (mut seen, mut before, mut after) = (false, Vec::new(), Vec::new());
                for part in processor["single"].as_array().into_iter().flatten() {
                    match part["SpecialToken"]["id"].as_str() {
                        Some(token) => if seen { &mut after } else { &mut before }.push(id(Some(token))?),
                        None => seen = true,
                    }
                }
                if before.len() > 1 || after.len() > 1 {
                    return Err(
                        "`post_processor` puts several tokens before or after a text, it has one of each".to_owned()
                    );
                }
                *around = (before.first().copied(), after.first().copied());
            }
            _ => return Err(format!("`post_processor` is {kind}, which it has no key for")),
        }
        Ok(())
    }
}

/// The keys of a tokenizer.json, for a table of `rows` tokens; `gemma` where the architecture is one of Gemma's.
///
/// # Errors
/// What the keys cannot say.
pub(in crate::formats::gguf) fn written(json: &Value, rows: usize, gemma: bool) -> Result<Written, String> {
    let file = File::of(json)?;
    let kind = file.model["type"].as_str().unwrap_or("BPE");
    match kind {
        "WordPiece" => word_piece::written(&file, rows),
        "BPE" if is_byte_level(&json["pre_tokenizer"]) => byte_level::written(&file, rows),
        "BPE" => sentence_piece::written(&file, rows, gemma),
        "Unigram" => {
            Err("`model.type` is Unigram, which slmc does not write; export the model as safetensors".to_owned())
        }
        _ => Err(format!("`model.type` is {kind}; it has byte-level BPE, sentencepiece's BPE and WordPiece")),
    }
}

fn is_byte_level(pre_tokenizer: &Value) -> bool {
    let parts = pre_tokenizer["pretokenizers"].as_array();
    pre_tokenizer["type"] == "ByteLevel"
        || parts.is_some_and(|parts| parts.iter().any(|part| part["type"] == "ByteLevel"))
}

/// The kind of a token of a vocabulary with bytes: `<0x0A>`.
pub(super) fn byte_kind(token: &str) -> Option<u64> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok()).then_some(BYTE)
}

/// Likewise of the one token that stands for what has none.
pub(super) fn unknown_kind(token: &str, unknown: Option<&str>) -> Option<u64> {
    (Some(token) == unknown).then_some(UNKNOWN)
}
