//! The model of a tokenizer as tables: spellings, the tokens of single bytes, and merges by pair.

use super::super::vocabulary::byte_alphabet;
use super::{HostOnly, Spelled, host_only, type_of};
use serde_json::Value;
use slm_runtime::format::spec::NONE;
use slm_runtime::format::text::TokenModel;
use std::collections::BTreeMap;

/// A tokenizer's model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) kind: TokenModel,
    pub(super) byte_fallback: bool,
    pub(super) fuse_unknown: bool,
    pub(super) whole_words: bool,
    pub(super) unknown: u32,
    pub(super) longest_word: u32,
    pub(super) continuation: String,
    /// Tokens that are looked up, ascending by spelling.
    pub(super) spellings: Spelled,
    /// Tokens of the 256 bytes or [`NONE`]; empty where bytes are not looked up.
    pub(super) byte_ids: Vec<u32>,
    /// Left, right, rank and result, ascending by pair.
    pub(super) merges: Vec<[u32; 4]>,
}

impl Model {
    /// `bytes`: whether the symbols are bytes.
    pub(super) fn from_json(model: &Value, bytes: bool) -> Result<Self, HostOnly> {
        let incomplete = || host_only("model that is not complete", type_of(model));
        let vocabulary = model["vocab"].as_object().ok_or_else(|| host_only("model", type_of(model)))?;
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: BTreeMap<&str, u32> = vocabulary
            .iter()
            .map(|(token, value)| Some((token.as_str(), id(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(incomplete)?;
        let id_of = |token: &str| ids.get(token).copied();
        let unknown = match model["unk_token"].as_str() {
            None => NONE,
            Some(token) => id_of(token).ok_or_else(|| host_only("unknown token outside the vocabulary", token))?,
        };
        match model["type"].as_str() {
            Some("BPE") => byte_pairs(model, &ids, unknown, bytes),
            Some("WordPiece") if bytes => Err(host_only("model WordPiece beside", "ByteLevel")),
            Some("WordPiece") => Ok(Model {
                kind: TokenModel::WordPieces,
                byte_fallback: false,
                fuse_unknown: false,
                whole_words: false,
                unknown,
                longest_word: model["max_input_chars_per_word"]
                    .as_u64()
                    .map_or(NONE, |most| most.min(u64::from(NONE)) as u32),
                continuation: model["continuing_subword_prefix"].as_str().ok_or_else(incomplete)?.to_owned(),
                spellings: spelled(ids.iter().map(|(token, &id)| (token.as_bytes().to_vec(), id))),
                byte_ids: Vec::new(),
                merges: Vec::new(),
            }),
            _ => Err(host_only("model", type_of(model))),
        }
    }

    /// Symbols of a character in normalised text.
    pub(super) fn symbols(&self, character: char) -> usize {
        let mut spelling = [0; 4];
        let spelling = character.encode_utf8(&mut spelling).as_bytes();
        let known = self.spellings.binary_search_by(|(text, ..)| text.as_slice().cmp(spelling)).is_ok();
        if known || !self.byte_fallback { 1 } else { spelling.len() }
    }
}

fn spelled(tokens: impl Iterator<Item = (Vec<u8>, u32)>) -> Spelled {
    let mut spelled: Spelled = tokens.filter(|(text, _)| !text.is_empty()).map(|(text, id)| (text, id, 0)).collect();
    spelled.sort_unstable();
    spelled
}

fn byte_pairs(model: &Value, ids: &BTreeMap<&str, u32>, unknown: u32, bytes: bool) -> Result<Model, HostOnly> {
    let given = |key: &str| !matches!(&model[key], Value::Null) && model[key] != "" && model[key] != 0.0;
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        if given(key) {
            return Err(host_only("BPE model with", format!("{key} {}", model[key])));
        }
    }
    let whole_words = model["ignore_merges"] == true;
    let mut byte_fallback = model["byte_fallback"] == true;
    let alphabet = byte_alphabet();
    let mut byte_ids = Vec::new();
    if bytes {
        let mut spellings = vec![String::new(); 256];
        for (character, &byte) in &alphabet {
            spellings[usize::from(byte)] = character.to_string();
        }
        byte_ids = spellings.iter().map(|token| ids.get(token.as_str()).copied().unwrap_or(NONE)).collect();
        if byte_fallback && byte_ids.contains(&NONE) {
            return Err(host_only("byte_fallback beside", "ByteLevel"));
        }
        byte_fallback = false;
    } else if byte_fallback {
        let id = |byte: u8| ids.get(format!("<0x{byte:02X}>").as_str()).copied().unwrap_or(NONE);
        byte_ids = (0..=255).map(id).collect();
    }
    let wanted = |token: &str| whole_words || token.chars().nth(1).is_none();
    let spellings = if bytes {
        let spelling = |token: &str| token.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>();
        spelled(ids.iter().filter(|_| whole_words).filter_map(|(token, &id)| Some((spelling(token)?, id))))
    } else {
        spelled(ids.iter().filter(|(token, _)| wanted(token)).map(|(token, &id)| (token.as_bytes().to_vec(), id)))
    };
    let mut merges = BTreeMap::new();
    let incomplete = || host_only("model that is not complete", "BPE");
    for (rank, pair) in model["merges"].as_array().ok_or_else(incomplete)?.iter().enumerate() {
        let (left, right) = match (pair[0].as_str().zip(pair[1].as_str()), pair.as_str()) {
            (Some(pair), _) => pair,
            (None, Some(pair)) => pair.split_once(' ').ok_or_else(incomplete)?,
            (None, None) => return Err(incomplete()),
        };
        let id = |token: &str| ids.get(token).copied().ok_or_else(incomplete);
        let merged = [id(left)?, id(right)?, rank as u32, id(&format!("{left}{right}"))?];
        // What an unknown token stands for has any length, which the order of merges would depend on.
        if unknown != NONE && [merged[0], merged[1], merged[3]].contains(&unknown) {
            return Err(host_only("merge of the unknown token", format!("{left} {right}")));
        }
        merges.insert((merged[0], merged[1]), merged);
    }
    Ok(Model {
        kind: TokenModel::Merges,
        byte_fallback,
        fuse_unknown: model["fuse_unk"] == true,
        whole_words,
        unknown,
        longest_word: 0,
        continuation: String::new(),
        spellings,
        byte_ids,
        merges: merges.into_values().collect(),
    })
}
