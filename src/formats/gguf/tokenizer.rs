//! tokenizer.json from the keys of a GGUF file. `tokenizer.ggml.model` says how tokens are spelled and made: `gpt2` is
//! byte-level BPE with its merges, `llama` sentencepiece's BPE without them, `bert` WordPiece. What cannot be rebuilt to
//! give the same tokens is named and not guessed: the model then comes without a tokenizer, with the reason. The other way is in
//! [`written`], with the same tables.

mod byte_level;
mod sentence_piece;
mod word_piece;
mod written;

pub(super) use written::{Written, written};

use super::error::GgufError;
use super::metadata::Metadata;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Kinds of tokens, as `token_type` counts them.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// Longest token, in bytes: far above that of any real vocabulary, and short enough to look at every part of one.
const LONGEST_TOKEN: usize = 1024;

/// A tokenizer that was rebuilt.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// tokenizer.json.
    pub(super) json: Value,
    /// What is uncertain about it.
    pub(super) doubt: Option<String>,
}

/// Why a tokenizer was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRebuilt {
    /// A kind of tokenizer.
    #[error("`tokenizer.ggml.model` is `{found}`, {why}")]
    Model {
        /// The kind.
        found: String,
        /// What that is.
        why: &'static str,
    },
    /// There is none.
    #[error("the file has no `{key}`")]
    Absent {
        /// The key.
        key: String,
    },
    /// A way to cut text that is not known.
    #[error("`tokenizer.ggml.pre` is `{found}`, a way to cut text that slmc does not know")]
    Splitting {
        /// The name.
        found: String,
    },
    /// Keys that do not fit together.
    #[error("{0}")]
    Inconsistent(String),
    /// A value of another type.
    #[error(transparent)]
    Key(#[from] GgufError),
}

/// The parts of a vocabulary, as the keys have them.
struct Vocabulary<'m> {
    metadata: &'m Metadata,
    /// Spellings by id.
    tokens: Vec<&'m str>,
    /// Kinds by id.
    kinds: Vec<u64>,
}

/// The full name of a key.
fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

impl<'m> Vocabulary<'m> {
    fn of(metadata: &'m Metadata) -> Result<Self, NotRebuilt> {
        let full = key("tokens");
        let tokens = metadata.optional_texts(&full)?.filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or(NotRebuilt::Absent { key: full })?;
        if let Some(id) = tokens.iter().position(|token| token.len() > LONGEST_TOKEN) {
            let problem = format!("token {id} has {} bytes, expected at most {LONGEST_TOKEN}", tokens[id].len());
            return Err(NotRebuilt::Inconsistent(problem));
        }
        let full = key("token_type");
        let kinds = match metadata.optional_numbers(&full)? {
            None => vec![NORMAL; tokens.len()],
            Some(kinds) if kinds.len() == tokens.len() => kinds.into_iter().map(|kind| kind as u64).collect(),
            Some(kinds) => {
                let problem = format!("`{full}` has {} entries for {} tokens", kinds.len(), tokens.len());
                return Err(NotRebuilt::Inconsistent(problem));
            }
        };
        Ok(Vocabulary { metadata, tokens, kinds })
    }

    /// Ids with their kinds and spellings, fillers left out.
    fn used(&self) -> impl Iterator<Item = (u32, u64, &'m str)> {
        let of_kind = self.tokens.iter().zip(&self.kinds).enumerate();
        of_kind.filter(|(_, (_, kind))| **kind != UNUSED).map(|(id, (token, kind))| (id as u32, *kind, *token))
    }

    /// The spelling of the token that a key names.
    fn special(&self, name: &str) -> Result<Option<(u32, &'m str)>, NotRebuilt> {
        let full = key(name);
        let Some(id) = self.metadata.token(&full)? else { return Ok(None) };
        let spelled = self.tokens.get(id as usize).map(|token| (id, *token));
        spelled.map(Some).ok_or_else(|| {
            NotRebuilt::Inconsistent(format!("`{full}` is {id}, beyond the {} tokens", self.tokens.len()))
        })
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, NotRebuilt> {
        Ok(self.metadata.optional_flag(&key(name))?.unwrap_or(default))
    }

    /// The vocabulary as an object from spellings to ids; `spelled` gives a token its spelling there.
    fn object(&self, spelled: impl Fn(u32, u64, &str) -> String) -> Result<Map<String, Value>, NotRebuilt> {
        let mut vocabulary = Map::new();
        for (id, kind, token) in self.used() {
            let spelling = spelled(id, kind, token);
            if let Some(other) = vocabulary.insert(spelling.clone(), json!(id)) {
                let problem = format!("tokens {other} and {id} are both spelled {spelling:?}");
                return Err(NotRebuilt::Inconsistent(problem));
            }
        }
        Ok(vocabulary)
    }

    /// `added_tokens`: those that are matched whole. Control tokens are special, those that users define are not.
    fn added(&self, spelled: impl Fn(&str) -> String) -> Vec<Value> {
        let whole = self.used().filter(|(_, kind, _)| matches!(*kind, UNKNOWN | CONTROL | USER_DEFINED));
        let entry = |(id, kind, token): (u32, u64, &str)| {
            json!({
                "id": id,
                "content": spelled(token),
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": kind != USER_DEFINED,
            })
        };
        whole.map(entry).collect()
    }

    /// The tokens around one text, and the post-processor that puts them there; null where there are none.
    fn template(&self, before: Option<(u32, &str)>, after: Option<(u32, &str)>) -> Value {
        if before.is_none() && after.is_none() {
            return Value::Null;
        }
        let special = |token: Option<(u32, &str)>, type_id: u32| {
            token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": type_id}}))
        };
        let sequence = |name: &str, type_id: u32| Some(json!({"Sequence": {"id": name, "type_id": type_id}}));
        let single = [special(before, 0), sequence("A", 0), special(after, 0)];
        let pair = [
            special(before, 0),
            sequence("A", 0),
            special(after, 0),
            special(before.filter(|_| after.is_none()), 1),
            sequence("B", 1),
            special(after, 1),
        ];
        let list = |parts: &[Option<Value>]| parts.iter().flatten().cloned().collect::<Vec<_>>();
        let tokens: BTreeMap<&str, Value> = [before, after]
            .into_iter()
            .flatten()
            .map(|(id, token)| (token, json!({"id": token, "ids": [id], "tokens": [token]})))
            .collect();
        json!({"type": "TemplateProcessing", "single": list(&single), "pair": list(&pair), "special_tokens": tokens})
    }

    /// The tokens that `add_bos_token` and `add_eos_token` ask for.
    fn around(&self, opens: bool) -> Result<Value, NotRebuilt> {
        let mut around = [None, None];
        for (place, (flag, id, default)) in
            [("add_bos_token", "bos_token_id", opens), ("add_eos_token", "eos_token_id", false)].into_iter().enumerate()
        {
            if self.flag(flag, default)? {
                let special = self.special(id)?;
                around[place] = Some(special.ok_or_else(|| NotRebuilt::Absent { key: key(id) })?);
            }
        }
        Ok(self.template(around[0], around[1]))
    }
}

/// A tokenizer.json of these parts.
struct Parts {
    added: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Value,
}

impl Parts {
    fn json(self) -> Value {
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor,
            "decoder": self.decoder,
            "model": self.model,
        })
    }
}

/// Rebuilds the tokenizer of a file.
pub(super) fn rebuild(metadata: &Metadata) -> Result<Rebuilt, NotRebuilt> {
    if let Some(whole) = metadata.optional_text("tokenizer.huggingface.json")? {
        let json = serde_json::from_str(whole);
        let problem = |error| NotRebuilt::Inconsistent(format!("`tokenizer.huggingface.json` is not JSON: {error}"));
        return Ok(Rebuilt { json: json.map_err(problem)?, doubt: None });
    }
    let full = key("model");
    let kind = metadata.optional_text(&full)?.ok_or(NotRebuilt::Absent { key: full })?;
    let refused = |why| NotRebuilt::Model { found: kind.to_owned(), why };
    match kind {
        "gpt2" => byte_level::rebuild(&Vocabulary::of(metadata)?),
        "llama" => sentence_piece::rebuild(&Vocabulary::of(metadata)?),
        "bert" => word_piece::rebuild(&Vocabulary::of(metadata)?),
        "t5" => Err(refused("sentencepiece's Unigram, which slmc does not rebuild")),
        "none" => Err(refused("so the file has no tokenizer")),
        _ => Err(refused("a kind that slmc does not know")),
    }
}
