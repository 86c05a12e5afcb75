//! The other files of a trimmed model: ids in config.json, generation_config.json, tokenizer_config.json and
//! added_tokens.json, and the tables that older tokenizers read. A key names tokens if it ends in `token_id`, `token_ids` or
//! `token_index`; lists of tokens that generation avoids lose those that are gone.

use super::vocabulary::{Vocabulary, parts_of};
use super::{KEPT_IDS_FILE, KeptIds, TrimError, tokenizer_file};
use crate::disk::{Config, ConfigError};
use crate::model::companions::{
    Companion, Companions, GENERATION_CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Tokens that have a name in tokenizer_config.json.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of tokens, or of sequences of tokens, that are avoided.
const AVOIDED: [&str; 3] = ["suppress_tokens", "begin_suppress_tokens", "bad_words_ids"];
/// Settings of generation whose ids have places of their own.
const PLACED: [&str; 3] = ["forced_decoder_ids", "sequence_bias", "constraints"];

fn names_tokens(key: &str) -> bool {
    ["token_id", "token_ids", "token_index"].iter().any(|ending| key.ends_with(ending))
}

/// The ids that a model's configuration and the files beside it name.
///
/// # Errors
/// A file that cannot be read.
pub fn tokens_named(
    vocabulary: &Vocabulary,
    config: &Config,
    companions: &Companions,
) -> Result<BTreeSet<u32>, ConfigError> {
    let mut named = BTreeSet::new();
    let generation = companions.find(GENERATION_CONFIG_FILE).map(Companion::config).transpose()?;
    for (_, value) in [Some(config), generation.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|config| config.map().iter())
        .filter(|(key, _)| names_tokens(key))
    {
        named.extend(ids_in(value));
    }
    for file in [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE] {
        let Some(config) = companions.find(file).map(Companion::config).transpose()? else { continue };
        let additional = config.value("additional_special_tokens").and_then(Value::as_array).into_iter().flatten();
        let tokens = NAMES.iter().filter_map(|name| config.value(name)).chain(additional);
        let spelled = tokens.filter_map(|token| token.as_str().or_else(|| token["content"].as_str()));
        named.extend(spelled.filter_map(|token| vocabulary.ids.get(token)));
    }
    Ok(named)
}

fn ids_in(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

/// The configuration with `vocab_size` and the ids of a trimmed model.
///
/// # Errors
/// A configuration that states its vocabulary elsewhere, or places ids in a way that is not known.
pub fn rewritten_config(config: &Config, kept: &KeptIds) -> Result<Config, ConfigError> {
    config.size("vocab_size")?;
    let mut map = renumbered(config, kept)?;
    map.insert("vocab_size".to_owned(), json!(kept.ids().len()));
    Ok(Config::from_map(config.file(), map))
}

fn renumbered(config: &Config, kept: &KeptIds) -> Result<Map<String, Value>, ConfigError> {
    let mut map = config.map().clone();
    if let Some(key) = PLACED.iter().find(|key| config.value(key).is_some()) {
        return Err(config.unsupported(key, "trimming", "files without it; remove the key"));
    }
    let new_id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).and_then(|id| kept.new_id(id));
    for (key, value) in &mut map {
        let avoided = AVOIDED.contains(&key.as_str());
        if !names_tokens(key) && !avoided {
            continue;
        }
        *value = match value.take() {
            Value::Array(list) => {
                let sequence = |ids: &Vec<Value>| ids.iter().map(new_id).collect::<Option<Vec<u32>>>();
                list.iter()
                    .filter_map(|entry| match entry {
                        Value::Array(ids) => sequence(ids).map(|ids| json!(ids)),
                        id => new_id(id).map(|id| json!(id)),
                    })
                    .collect()
            }
            // An id that the model never had a row for stays absent.
            Value::Number(id) => json!(new_id(&Value::Number(id))),
            other => other,
        };
    }
    Ok(map)
}

/// The files that travel with a trimmed model. `tokenizer.model` is left out: transformers reads tokenizer.json.
///
/// # Errors
/// A file that cannot be read, or that is not what its name says.
pub fn rewritten_companions(
    vocabulary: &Vocabulary,
    companions: &Companions,
    kept: &KeptIds,
) -> Result<Companions, TrimError> {
    let mut trimmed = Companions::of(companions.origin());
    let tokenizer = tokenizer_file::rewritten(vocabulary, kept);
    for (name, companion) in companions.iter() {
        let bytes = match name {
            TOKENIZER_FILE => format!("{tokenizer:#}\n"),
            GENERATION_CONFIG_FILE => format!("{:#}\n", Value::Object(renumbered(&companion.config()?, kept)?)),
            TOKENIZER_CONFIG_FILE => format!("{:#}\n", Value::Object(decoder_of(companion.config()?.map(), kept))),
            "added_tokens.json" => format!("{:#}\n", Value::Object(added(companion.config()?.map(), kept))),
            "vocab.txt" => lines(vocabulary, kept),
            "vocab.json" => format!("{:#}\n", tokenizer["model"]["vocab"]),
            "merges.txt" => merges(&tokenizer["model"]["merges"]),
            "tokenizer.model" | KEPT_IDS_FILE => continue,
            _ => {
                trimmed.take(companions, name);
                continue;
            }
        };
        trimmed.add_bytes_of(name, companion.path().to_owned(), bytes.into_bytes());
    }
    trimmed.add_bytes(KEPT_IDS_FILE, kept.file().into_bytes());
    Ok(trimmed)
}

/// `added_tokens_decoder` has ids as keys.
fn decoder_of(config: &Map<String, Value>, kept: &KeptIds) -> Map<String, Value> {
    let mut config = config.clone();
    if let Some(Value::Object(decoder)) = config.get_mut("added_tokens_decoder") {
        let entries = std::mem::take(decoder).into_iter();
        let stays = |(id, token): (String, Value)| Some((kept.new_id(id.parse().ok()?)?.to_string(), token));
        *decoder = entries.filter_map(stays).collect();
    }
    config
}

/// {TOKEN: ID}
fn added(tokens: &Map<String, Value>, kept: &KeptIds) -> Map<String, Value> {
    let new = |id: &Value| kept.new_id(u32::try_from(id.as_u64()?).ok()?);
    tokens.iter().filter_map(|(token, id)| Some((token.clone(), json!(new(id)?)))).collect()
}

/// A token a line, by id.
fn lines(vocabulary: &Vocabulary, kept: &KeptIds) -> String {
    kept.ids().iter().map(|&id| format!("{}\n", vocabulary.spelling(id))).collect()
}

fn merges(merges: &Value) -> String {
    let pairs = merges.as_array().into_iter().flatten().filter_map(parts_of);
    std::iter::once("#version: 0.2\n".to_owned()).chain(pairs.map(|(a, b)| format!("{a} {b}\n"))).collect()
}
