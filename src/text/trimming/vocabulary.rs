//! The table of a tokenizer.json as trimming sees it: the spelling of every id, what tokens are merged from, and which always
//! stay.

use super::{KeptIds, TrimError};
use crate::disk::ConfigError;
use crate::disk::found::without_byte_order_mark;
use crate::text::vocabulary::byte_alphabet;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A tokenizer's tokens for which the model has rows.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    pub(super) path: PathBuf,
    /// tokenizer.json.
    pub(super) file: Value,
    /// Spelling of each id that has a row; `None` for rows without a token.
    pub(super) spellings: Vec<Option<String>>,
    pub(super) ids: BTreeMap<String, u32>,
    pub(super) model: Model,
    /// Special and added tokens, the unknown token, and what the post-processor adds.
    pub(super) special: BTreeSet<u32>,
    /// Tokens of one byte each: GPT-2's alphabet, or `<0x41>`.
    pub(super) bytes: BTreeSet<u32>,
    /// Tokens of one character that no bytes spell.
    pub(super) characters: BTreeSet<u32>,
    /// What stands for unknown text.
    pub(super) unknown: Option<u32>,
    /// Whether tokens are spelled in GPT-2's alphabet of bytes.
    pub(super) byte_level: bool,
}

/// How tokens are found.
#[derive(Clone, Debug)]
pub(super) enum Model {
    /// By merging: (left, right) by product, in the order of ranks. A token may have several.
    Bpe(BTreeMap<u32, Vec<(u32, u32)>>),
    /// By the longest piece; pieces within a word begin with this.
    WordPiece(String),
    /// By scores, of which this piece has the lowest: it decides what unknown characters cost.
    Unigram(Option<u32>),
}

impl Vocabulary {
    /// Reads a tokenizer.json, of whose tokens those below `rows` have one in the model.
    ///
    /// # Errors
    /// [`TrimError::Kind`], [`TrimError::Files`].
    pub fn read(path: &Path, bytes: &[u8], rows: usize) -> Result<Self, TrimError> {
        let file: Value = serde_json::from_slice(without_byte_order_mark(bytes))
            .map_err(|source| ConfigError::Json { file: path.to_owned(), source })?;
        let model = &file["model"];
        let (ids, kind) = match kind(model) {
            Some("Unigram") => (pairs(model), "Unigram"),
            Some(kind @ ("BPE" | "WordPiece")) => (spelled(model), kind),
            other => {
                let found = other.map_or_else(|| model["type"].to_string(), str::to_owned);
                return Err(TrimError::Kind { path: path.to_owned(), found });
            }
        };
        let mut vocabulary = Vocabulary {
            path: path.to_owned(),
            spellings: vec![None; rows],
            model: match kind {
                "BPE" => Model::Bpe(merges(model, &ids)),
                "WordPiece" => Model::WordPiece(model["continuing_subword_prefix"].as_str().unwrap_or("##").to_owned()),
                _ => Model::Unigram(lowest(model)),
            },
            special: BTreeSet::new(),
            bytes: BTreeSet::new(),
            characters: BTreeSet::new(),
            unknown: match &model["unk_id"] {
                Value::Null => model["unk_token"].as_str().and_then(|token| ids.get(token)).copied(),
                id => id.as_u64().and_then(|id| u32::try_from(id).ok()),
            },
            byte_level: mentions(&file["pre_tokenizer"], "ByteLevel") || mentions(&file["decoder"], "ByteLevel"),
            ids,
            file,
        };
        vocabulary.fill(rows);
        Ok(vocabulary)
    }

    /// Spellings, and which tokens are special, bytes or characters.
    fn fill(&mut self, rows: usize) {
        let has_row = |id: &u32| (*id as usize) < rows;
        let added = self.file["added_tokens"].as_array().into_iter().flatten();
        for token in added {
            let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok()).filter(has_row);
            if let (Some(id), Some(content)) = (id, token["content"].as_str()) {
                self.ids.insert(content.to_owned(), id);
                self.special.insert(id);
            }
        }
        self.ids.retain(|_, id| has_row(id));
        for (spelling, id) in &self.ids {
            self.spellings[*id as usize] = Some(spelling.clone());
        }
        self.special.extend(self.unknown);
        self.special.extend(ids_of_processor(&self.file["post_processor"]));
        self.special.extend(self.file["padding"]["pad_id"].as_u64().and_then(|id| u32::try_from(id).ok()));
        self.special.retain(has_row);
        let alphabet = byte_alphabet();
        let fallback = self.file["model"]["byte_fallback"] == true;
        let prefix = self.file["model"]["continuing_subword_prefix"].as_str().unwrap_or("");
        for (spelling, &id) in &self.ids {
            if self.special.contains(&id) {
                continue;
            }
            let single = |text: &str| Some(text.chars().next()?).filter(|first| first.len_utf8() == text.len());
            let stem = spelling.strip_prefix(prefix).unwrap_or(spelling);
            if fallback && is_byte_token(spelling) {
                self.bytes.insert(id);
            } else if let Some(character) = single(spelling).or_else(|| single(stem)) {
                match self.byte_level && alphabet.contains_key(&character) {
                    true => self.bytes.insert(id),
                    false => self.characters.insert(id),
                };
            }
        }
    }

    /// Rows of the model.
    pub fn rows(&self) -> usize {
        self.spellings.len()
    }

    /// How many special tokens, bytes and characters are kept.
    pub fn kept_counts(&self, kept: &KeptIds) -> (usize, usize, usize) {
        let count = |ids: &BTreeSet<u32>| ids.iter().filter(|&&id| kept.new_id(id).is_some()).count();
        (count(&self.special), count(&self.bytes), count(&self.characters))
    }

    /// Merges of each product.
    pub(super) fn merges_of(&self, id: u32) -> &[(u32, u32)] {
        match &self.model {
            Model::Bpe(merges) => merges.get(&id).map_or(&[], Vec::as_slice),
            Model::WordPiece(_) | Model::Unigram(_) => &[],
        }
    }

    /// The spelling of an id, for messages.
    pub(super) fn spelling(&self, id: u32) -> &str {
        self.spellings.get(id as usize).and_then(Option::as_deref).unwrap_or_default()
    }

    /// Bytes of normalized text that a token stands for, where tokens are spelled by their text.
    pub(super) fn length(&self, id: u32) -> usize {
        let spelling = self.spelling(id);
        match self.bytes.contains(&id) {
            true => 1,
            false if self.byte_level && !self.special.contains(&id) => spelling.chars().count(),
            false => spelling.len(),
        }
    }
}

/// The type of a tokenizer's model; older files do not name it.
fn kind(model: &Value) -> Option<&str> {
    match &model["type"] {
        Value::String(kind) => Some(kind.as_str()),
        _ if model["merges"].is_array() => Some("BPE"),
        _ if model["vocab"].is_array() => Some("Unigram"),
        _ if model["max_input_chars_per_word"].is_u64() => Some("WordPiece"),
        _ => None,
    }
}

fn spelled(model: &Value) -> BTreeMap<String, u32> {
    let tokens = model["vocab"].as_object().into_iter().flatten();
    tokens.filter_map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?))).collect()
}

/// (piece, score) by id.
fn pairs(model: &Value) -> BTreeMap<String, u32> {
    let pieces = model["vocab"].as_array().into_iter().flatten().enumerate();
    pieces.filter_map(|(id, pair)| Some((pair[0].as_str()?.to_owned(), u32::try_from(id).ok()?))).collect()
}

fn lowest(model: &Value) -> Option<u32> {
    let scores = model["vocab"].as_array().into_iter().flatten().enumerate();
    let scores = scores.filter_map(|(id, pair)| Some((u32::try_from(id).ok()?, pair[1].as_f64()?)));
    scores.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// The two parts of a merge: a pair, or in older files a text with a space.
pub(super) fn parts_of(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        pair => Some((pair[0].as_str()?, pair[1].as_str()?)),
    }
}

/// What a merge makes; `prefix` stands before tokens that continue a word, and once in the product.
pub(super) fn product_of(left: &str, right: &str, prefix: &str) -> String {
    format!("{left}{}", right.strip_prefix(prefix).unwrap_or(right))
}

fn merges(model: &Value, ids: &BTreeMap<String, u32>) -> BTreeMap<u32, Vec<(u32, u32)>> {
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
    let mut merges: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let Some((left, right)) = parts_of(merge) else { continue };
        let product = product_of(left, right, prefix);
        if let (Some(&left), Some(&right), Some(&product)) = (ids.get(left), ids.get(right), ids.get(&product)) {
            merges.entry(product).or_default().push((left, right));
        }
    }
    merges
}

/// `<0x41>`
fn is_byte_token(spelling: &str) -> bool {
    let digits = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether a part of a tokenizer, or a part of its sequence, is of a type.
fn mentions(part: &Value, kind: &str) -> bool {
    part["type"] == kind
        || ["pretokenizers", "decoders"]
            .iter()
            .any(|key| part[*key].as_array().into_iter().flatten().any(|part| mentions(part, kind)))
}

/// Ids that a post-processor states.
fn ids_of_processor(processor: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor["type"].as_str() {
        Some("BertProcessing" | "RobertaProcessing") => {
            ["cls", "sep"].iter().filter_map(|part| id(&processor[part][1])).collect()
        }
        Some("Sequence") => {
            processor["processors"].as_array().into_iter().flatten().flat_map(ids_of_processor).collect()
        }
        Some("TemplateProcessing") => {
            let tokens = processor["special_tokens"].as_object().into_iter().flatten();
            tokens.flat_map(|(_, token)| token["ids"].as_array().into_iter().flatten().filter_map(id)).collect()
        }
        _ => Vec::new(),
    }
}
