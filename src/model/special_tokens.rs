//! The tokens that open and end a text, by the files that come with a model, as transformers reads them.
//!
//! Opening tokens are those that the tokenizer itself puts before a text: its post-processor in tokenizer.json, else
//! `bos_token` of tokenizer_config.json where `add_bos_token` is true, else none. `bos_token_id` of config.json alone adds
//! nothing: Qwen and SmolLM state one that their tokenizers never write. End tokens are `eos_token_id` of
//! generation_config.json, else of config.json: one id or a list. Ids outside the vocabulary stand for tokens that the
//! model cannot write: they are left out, and `notes` says so, as of tokens of the tokenizer that have no row.

use super::companions::{
    Companion, Companions, GENERATION_CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use super::notes::Note;
use super::sentence;
use crate::disk::config::{brief, json as parsed};
use crate::disk::found::without_byte_order_mark;
use crate::disk::{Config, ConfigError};
use serde::Deserialize;
use serde_json::{Value, json};
use slm_runtime::format::special_tokens::{MAX_ENDS, MAX_OPENING};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `eos_token_id` of generation_config.json, else `ends`, which is the configuration's or its class's.
pub(super) fn end_tokens(
    companions: &Companions,
    config: &Config,
    ends: Vec<u32>,
    vocabulary: usize,
) -> Result<Vec<u32>, ConfigError> {
    const KEY: &str = "eos_token_id";
    let generation = companions.find(GENERATION_CONFIG_FILE).map(Companion::config).transpose()?;
    let listed = generation.as_ref().map(|config| config.tokens(KEY, vocabulary)).transpose()?;
    let (mut ends, file) = match (listed, &generation) {
        (Some(listed), Some(generation)) if !listed.is_empty() => (listed, generation.file()),
        _ => (ends, config.file()),
    };
    // An id that is listed twice counts where it stands first.
    let mut seen = BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    check_length(file, KEY, &ends, MAX_ENDS)?;
    Ok(ends)
}

/// What is said of special tokens and of the tokenizer where they do not fit a vocabulary.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub(super) fn notes(companions: &Companions, config: &Config, vocabulary: usize) -> Result<Vec<Note>, ConfigError> {
    let generation = companions.find(GENERATION_CONFIG_FILE).map(Companion::config).transpose()?;
    let mut notes = Vec::new();
    for config in [Some(config), generation.as_ref()].into_iter().flatten() {
        for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            let ids = config.tokens_outside(key, vocabulary)?;
            if !ids.is_empty() {
                let (file, key) = (config.file().to_owned(), key.to_owned());
                notes.push(Note::OutsideVocabulary { file, key, ids, vocabulary });
            }
        }
    }
    if let Some(file) = TokenizerFile::read(companions)? {
        let without_row = file.content.added_tokens.into_iter().filter(|token| token.id as usize >= vocabulary);
        let tokens: Vec<(u32, String)> = without_row.map(|token| (token.id, token.content)).collect();
        if !tokens.is_empty() {
            notes.push(Note::TokensWithoutRow { file: file.path, tokens, vocabulary });
        }
    }
    Ok(notes)
}

/// Refuses a list that is longer than an artifact can say.
fn check_length(file: &Path, key: &str, ids: &[u32], most: usize) -> Result<(), ConfigError> {
    if ids.len() <= most {
        return Ok(());
    }
    Err(ConfigError::Value {
        file: file.to_owned(),
        key: key.to_owned(),
        found: format!("a list of {} tokens", ids.len()),
        expected: format!("at most {most}, which is what an artifact can hold; leave out what is never written"),
    })
}

/// The ids that the tokenizer puts before a text; none where there is no tokenizer.
pub(super) fn opening_tokens(companions: &Companions, vocabulary: usize) -> Result<Vec<u32>, ConfigError> {
    let Some(file) = TokenizerFile::read(companions)? else { return Ok(Vec::new()) };
    let (opening, origin, key) = match file.added_by_configuration(companions)? {
        Some(added) => (vec![added.id], added.file, "bos_token"),
        None => (file.around_text()?.0, file.path.clone(), "post_processor"),
    };
    check_length(&origin, key, &opening, MAX_OPENING)?;
    if let Some(id) = opening.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(ConfigError::Value {
            file: origin,
            key: key.to_owned(),
            found: format!("opening with token {id}"),
            expected: format!(
                "an id below the model's vocabulary of {vocabulary}; use the tokenizer that belongs to this model"
            ),
        });
    }
    file.check_spelled()?;
    Ok(opening)
}

/// The token that ends the first text of a pair; tokens after it are of the second type. The tokenizer's template for pairs says
/// which it is, and where there is no tokenizer `sep_token_id` of config.json; `None` where both texts have the same type.
pub(super) fn separator(
    companions: &Companions,
    config: &Config,
    vocabulary: usize,
) -> Result<Option<u32>, ConfigError> {
    const KEY: &str = "sep_token_id";
    let Some(file) = TokenizerFile::read(companions)? else {
        return Ok(config.tokens(KEY, vocabulary)?.first().copied());
    };
    let found = second_type_after(&file.content.post_processor);
    match found.filter(|&id| id as usize >= vocabulary) {
        None => Ok(found),
        Some(id) => Err(ConfigError::Value {
            file: file.path,
            key: "post_processor".to_owned(),
            found: format!("separating texts by token {id}"),
            expected: format!("an id below the model's vocabulary of {vocabulary}"),
        }),
    }
}

/// The last token that a post-processor writes before the first piece of a pair that is of the second type.
fn second_type_after(processor: &Value) -> Option<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match processor["type"].as_str()? {
        "BertProcessing" => id(&processor["sep"][1]),
        "Sequence" => processor["processors"].as_array()?.iter().find_map(second_type_after),
        "TemplateProcessing" => {
            let pieces = processor["pair"].as_array()?;
            let kind =
                |piece: &Value| piece["SpecialToken"]["type_id"].as_u64().or(piece["Sequence"]["type_id"].as_u64());
            let second = pieces.iter().position(|piece| kind(piece) == Some(1))?;
            let name = pieces.get(second.checked_sub(1)?)?["SpecialToken"]["id"].as_str()?;
            id(processor["special_tokens"][name]["ids"].as_array()?.last()?)
        }
        _ => None,
    }
}

/// The bytes of a model's tokenizer.json; `None` where there is none. Where tokenizer_config.json adds an opening
/// token that the post-processor does not, the post-processor that does it is put in, as transformers does on loading,
/// so that whoever has the bytes alone adds it too. So is the normalizer that lower-cases, where the settings of
/// sentence-transformers ask for it.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub fn tokenizer_json(companions: &Companions) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(file) = TokenizerFile::read(companions)? else { return Ok(None) };
    let (added, lowers) = (file.added_by_configuration(companions)?, sentence::lower_cases(companions)?);
    if added.is_none() && !lowers {
        return Ok(Some(file.bytes));
    }
    let mut whole: Value = parsed(&file.path, &file.bytes)?;
    if let Some(Added { id, token, .. }) = added {
        let sequence = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
        let opening = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let template = json!({
            "type": "TemplateProcessing",
            "single": [opening, sequence("A", 0)],
            "pair": [opening, sequence("A", 0), sequence("B", 1)],
            "special_tokens": {token.as_str(): {"id": token, "ids": [id], "tokens": [token]}},
        });
        whole["post_processor"] = match whole["post_processor"].take() {
            Value::Null => template,
            processor => json!({"type": "Sequence", "processors": [processor, template]}),
        };
    }
    if lowers && !lower_cases(&whole["normalizer"]) {
        let lowercase = json!({"type": "Lowercase"});
        whole["normalizer"] = match whole["normalizer"].take() {
            Value::Null => lowercase,
            normalizer => json!({"type": "Sequence", "normalizers": [lowercase, normalizer]}),
        };
    }
    Ok(Some(whole.to_string().into_bytes()))
}

/// Whether a normalizer makes letters small.
fn lower_cases(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Lowercase") => true,
        Some("BertNormalizer") => normalizer["lowercase"] == true,
        Some("Sequence") => normalizer["normalizers"].as_array().into_iter().flatten().any(lower_cases),
        _ => false,
    }
}

/// The ids that a post-processor puts before and after one text; `None` for one that slmc does not know.
pub fn around_text(processor: &Value) -> Option<(Vec<u32>, Vec<u32>)> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let none = (Vec::new(), Vec::new());
    match processor["type"].as_str() {
        None if processor.is_null() => Some(none),
        Some("ByteLevel") => Some(none),
        Some("BertProcessing" | "RobertaProcessing") => {
            Some((vec![id(&processor["cls"][1])?], vec![id(&processor["sep"][1])?]))
        }
        Some("Sequence") => {
            let mut found = none.clone();
            for part in processor["processors"].as_array()? {
                let around = around_text(part)?;
                if found != none && around != none {
                    return None;
                }
                if around != none {
                    found = around;
                }
            }
            Some(found)
        }
        Some("TemplateProcessing") => {
            let (mut before, mut after, mut sequences) = (Vec::new(), Vec::new(), 0);
            for part in processor["single"].as_array()? {
                let Some(name) = part["SpecialToken"]["id"].as_str() else {
                    sequences += 1;
                    continue;
                };
                let ids: Vec<u32> =
                    processor["special_tokens"][name]["ids"].as_array()?.iter().map(id).collect::<Option<_>>()?;
                if sequences == 0 { before.extend(ids) } else { after.extend(ids) }
            }
            (sequences == 1).then_some((before, after))
        }
        _ => None,
    }
}

/// The ids and spellings of the tokens that a known post-processor adds to one text.
fn spelled(processor: &Value) -> Vec<(u32, String)> {
    let pair = |id: &Value, token: &Value| Some((u32::try_from(id.as_u64()?).ok()?, token.as_str()?.to_owned()));
    match processor["type"].as_str() {
        Some("BertProcessing" | "RobertaProcessing") => {
            ["cls", "sep"].iter().filter_map(|part| pair(&processor[part][1], &processor[part][0])).collect()
        }
        Some("Sequence") => processor["processors"].as_array().into_iter().flatten().flat_map(spelled).collect(),
        Some("TemplateProcessing") => {
            let names = processor["single"].as_array().into_iter().flatten();
            let of_name = |part: &Value| {
                let special = &processor["special_tokens"][part["SpecialToken"]["id"].as_str()?];
                let (ids, tokens) = (special["ids"].as_array()?, special["tokens"].as_array()?);
                Some(ids.iter().zip(tokens).filter_map(|(id, token)| pair(id, token)).collect::<Vec<_>>())
            };
            names.filter_map(of_name).flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// The part of a tokenizer.json that says what opens a text. The vocabulary is skipped: it can be of many megabytes.
struct TokenizerFile {
    path: PathBuf,
    bytes: Vec<u8>,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// The opening token that tokenizer_config.json adds.
struct Added {
    file: PathBuf,
    token: String,
    id: u32,
}

impl TokenizerFile {
    fn read(companions: &Companions) -> Result<Option<Self>, ConfigError> {
        let Some(companion) = companions.find(TOKENIZER_FILE) else { return Ok(None) };
        let (path, bytes) = (companion.path().to_owned(), companion.read_bounded()?);
        let bytes = without_byte_order_mark(&bytes).to_vec();
        let content = parsed(&path, &bytes)?;
        Ok(Some(TokenizerFile { path, bytes, content }))
    }

    fn around_text(&self) -> Result<(Vec<u32>, Vec<u32>), ConfigError> {
        let processor = &self.content.post_processor;
        around_text(processor).ok_or_else(|| ConfigError::Value {
            file: self.path.clone(),
            key: "post_processor".to_owned(),
            found: brief(processor),
            expected: "null, ByteLevel, BertProcessing, RobertaProcessing, a TemplateProcessing whose special tokens \
                       have ids, or a Sequence of which one adds tokens"
                .to_owned(),
        })
    }

    /// Refuses a post-processor whose tokens the tokenizer has not, or has under other ids.
    fn check_spelled(&self) -> Result<(), ConfigError> {
        for (id, token) in spelled(&self.content.post_processor) {
            let added = self.content.added_tokens.iter().find(|added| added.content == token).map(|added| added.id);
            let found = match added {
                Some(found) => Some(found),
                None => self.vocabulary_id(&token)?,
            };
            if found != Some(id) {
                return Err(ConfigError::Value {
                    file: self.path.clone(),
                    key: "post_processor".to_owned(),
                    found: format!("adding `{token}` as token {id}"),
                    expected: match found {
                        Some(found) => {
                            format!("{found}, the id that the tokenizer has for it; correct the one or the other")
                        }
                        None => "a token that the tokenizer has; add it to added_tokens, or take it out".to_owned(),
                    },
                });
            }
        }
        Ok(())
    }

    /// The token that `add_bos_token` adds where the post-processor adds none before a text.
    fn added_by_configuration(&self, companions: &Companions) -> Result<Option<Added>, ConfigError> {
        if !self.around_text()?.0.is_empty() {
            return Ok(None);
        }
        let Some(companion) = companions.find(TOKENIZER_CONFIG_FILE) else { return Ok(None) };
        let (file, config) = (companion.path().to_owned(), companion.config()?);
        if !config.flag_or("add_bos_token", false)? {
            return Ok(None);
        }
        let spelled = |config: &Config| {
            let token = config.value("bos_token")?;
            Some(token.as_str().or_else(|| token["content"].as_str())?.to_owned())
        };
        // The older file counts where the newer one does not have the key.
        let older = match config.map().contains_key("bos_token") {
            true => None,
            false => companions.find(SPECIAL_TOKENS_FILE).map(Companion::config).transpose()?,
        };
        let Some(token) = spelled(&config).or_else(|| spelled(older.as_ref()?)) else {
            return Err(config.wrong("bos_token", "the spelling of a token, since add_bos_token is true"));
        };
        let id = match self.content.added_tokens.iter().find(|added| added.content == token) {
            Some(added) => Some(added.id),
            None => self.vocabulary_id(&token)?,
        };
        match id {
            Some(id) => Ok(Some(Added { file, token, id })),
            None => Err(ConfigError::Value {
                file,
                key: "bos_token".to_owned(),
                found: format!("`{token}`"),
                expected: format!(
                    "a token that {} has, since add_bos_token is true; use the two files of one tokenizer",
                    self.path.display()
                ),
            }),
        }
    }

    /// The id of a token of the model's vocabulary: an object from spellings to ids, or (Unigram) a list of pairs.
    fn vocabulary_id(&self, token: &str) -> Result<Option<u32>, ConfigError> {
        let whole: Value = parsed(&self.path, &self.bytes)?;
        let id = match &whole["model"]["vocab"] {
            Value::Array(pairs) => pairs.iter().position(|pair| pair[0] == token).map(|id| id as u64),
            vocabulary => vocabulary[token].as_u64(),
        };
        Ok(id.and_then(|id| u32::try_from(id).ok()))
    }
}

#[cfg(test)]
mod tests;
