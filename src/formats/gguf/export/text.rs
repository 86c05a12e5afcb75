//! Tokenizer, special tokens and chat templates as keys. A tokenizer is read as transformers uses it, with the opening token
//! that tokenizer_config.json asks for; special tokens have the names of tokenizer_config.json, special_tokens_map.json and the
//! configuration, in this order. A model without a tokenizer is written as `none`, which says so.
//!
//! llama.cpp ends a text at `eos`, `eot`, `eom` and at tokens that are spelled as one of [`END_SPELLINGS`]: those of the model's
//! end tokens that are neither become `eot` and `eom`.

use super::super::companions::{END_SPELLINGS, TEMPLATE};
use super::super::tokenizer::{Written, written};
use super::NAME;
use super::keys::Keys;
use crate::disk::{Config, ConfigError};
use crate::formats::ModelFormatError;
use crate::formats::export::ExportError;
use crate::model::companions::{
    Companion, Companions, LEGACY_TEMPLATE_FILE, SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TEMPLATE_FOLDER,
    TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use crate::model::spec::ModelSpec;
use crate::model::special_tokens::tokenizer_json;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is said of the tokenizer in the report.
pub(super) const NO_TOKENIZER: &str = "there is no tokenizer, so the file has none: its readers take tokens alone";

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

fn refused(companions: &Companions, problem: impl Into<String>) -> ModelFormatError {
    let (file, problem) = (companions.place(TOKENIZER_FILE), problem.into());
    ExportError::Tokenizer { format: NAME, file, problem }.into()
}

/// A file that is there, as a configuration.
fn config(companions: &Companions, name: &str) -> Result<Option<Config>, ConfigError> {
    companions.find(name).filter(|companion| companion.exists()).map(Companion::config).transpose()
}

/// Writes the keys; whether there is a tokenizer.
///
/// # Errors
/// A tokenizer that the keys cannot say, files that are not what they should be.
pub(super) fn add(
    companions: &Companions,
    configuration: &Config,
    spec: &ModelSpec,
    gemma: bool,
    keys: &mut Keys,
) -> Result<bool, ModelFormatError> {
    let Some(bytes) = tokenizer_json(companions)? else {
        keys.text(&key("model"), "none");
        for (name, id) in [("bos", spec.opening.first()), ("eos", spec.ends.first())] {
            if let Some(&id) = id {
                keys.size(&key(&format!("{name}_token_id")), id as usize);
            }
        }
        return Ok(false);
    };
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| refused(companions, format!("it is not JSON: {error}")))?;
    let written = written(&json, spec.vocabulary, gemma).map_err(|problem| refused(companions, problem))?;
    let Written { model, pre, rows, scores, merges, before, after, unknown, space_before, lowercase } = &written;
    keys.text(&key("model"), model);
    if let Some(pre) = pre {
        keys.text(&key("pre"), pre);
    }
    keys.texts(&key("tokens"), &rows.tokens);
    keys.integers(&key("token_type"), &rows.kinds.iter().map(|&kind| kind as i32).collect::<Vec<_>>());
    if let Some(scores) = scores {
        keys.numbers(&key("scores"), scores);
    }
    if let Some(merges) = merges {
        keys.texts(&key("merges"), merges);
    }
    let special = Special::of(companions, configuration, &json, spec.vocabulary)?;
    let word_piece = *model == "bert";
    let mut put = |name: &str, id: Option<u32>| {
        if let Some(id) = id {
            keys.size(&key(name), id as usize);
        }
    };
    put("bos_token_id", before.or(special.id("cls_token").filter(|_| word_piece)).or(special.id("bos_token")));
    let end = spec.ends.first().copied().or(special.id("eos_token"));
    match word_piece {
        true => put("seperator_token_id", after.or(special.id("sep_token"))),
        false => put("eos_token_id", after.or(end)),
    }
    put("unknown_token_id", unknown.or(special.id("unk_token")));
    put("padding_token_id", special.id("pad_token"));
    put("mask_token_id", special.id("mask_token"));
    let first = after.or(end);
    let is_spelled =
        |id: &u32| rows.tokens.get(*id as usize).is_some_and(|token| END_SPELLINGS.contains(&token.as_str()));
    let mut further = spec.ends.iter().filter(|id| Some(**id) != first && !is_spelled(id)).copied();
    put("eot_token_id", further.next());
    put("eom_token_id", further.next());
    keys.flag(&key("add_bos_token"), before.is_some());
    match word_piece {
        true => keys.flag(&key("add_sep_token"), after.is_some()),
        false => keys.flag(&key("add_eos_token"), after.is_some()),
    }
    if let Some(space) = space_before {
        keys.flag(&key("add_space_prefix"), *space);
    }
    if *lowercase == Some(false) {
        keys.flag(&key("normalizer.lowercase"), false);
    }
    templates(companions, keys)?;
    Ok(true)
}

/// Special tokens by their names.
struct Special(BTreeMap<String, u32>);

impl Special {
    fn of(
        companions: &Companions,
        configuration: &Config,
        tokenizer: &Value,
        vocabulary: usize,
    ) -> Result<Self, ConfigError> {
        let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
        let id = |spelling: &str| {
            let added = added.clone().find(|token| token["content"] == spelling).map(|token| &token["id"]);
            added.unwrap_or(&tokenizer["model"]["vocab"][spelling]).as_u64().and_then(|id| u32::try_from(id).ok())
        };
        let mut special = BTreeMap::new();
        for name in [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE] {
            let Some(config) = config(companions, name)? else { continue };
            for (key, value) in config.map().iter().filter(|(key, _)| key.ends_with("_token")) {
                let spelling = value.as_str().or_else(|| value.get("content")?.as_str());
                if let Some(id) = spelling.and_then(id) {
                    special.entry(key.clone()).or_insert(id);
                }
            }
        }
        for name in ["bos_token", "eos_token", "pad_token"] {
            if let Some(&id) = configuration.tokens(&format!("{name}_id"), vocabulary)?.first() {
                special.entry(name.to_owned()).or_insert(id);
            }
        }
        special.retain(|_, id| (*id as usize) < vocabulary);
        Ok(Special(special))
    }

    fn id(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }
}

/// Chat templates as transformers finds them: files of their own, else `chat_template` of tokenizer_config.json, else that of
/// processors.
fn templates(companions: &Companions, keys: &mut Keys) -> Result<(), ModelFormatError> {
    let mut found: Vec<(String, String)> = Vec::new();
    let read = |companion: &Companion| -> Result<String, ModelFormatError> {
        let bytes = companion.read_bounded()?;
        String::from_utf8(bytes).map_err(|_| {
            let (file, problem) = (companion.path().to_owned(), "a chat template is not UTF-8".to_owned());
            ExportError::Tokenizer { format: NAME, file, problem }.into()
        })
    };
    if let Some(template) = companions.find(TEMPLATE_FILE).filter(|companion| companion.exists()) {
        found.push(("default".to_owned(), read(template)?));
    }
    for (name, companion) in companions.iter() {
        let own = name.strip_prefix(TEMPLATE_FOLDER).and_then(|name| name.strip_prefix('/')?.strip_suffix(".jinja"));
        if let Some(own) = own.filter(|own| !own.is_empty()) {
            found.push((own.to_owned(), read(companion)?));
        }
    }
    for name in [TOKENIZER_CONFIG_FILE, LEGACY_TEMPLATE_FILE] {
        if found.is_empty()
            && let Some(config) = config(companions, name)?
        {
            found.extend(listed(config.value("chat_template").unwrap_or(&Value::Null)));
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, template) in &found {
        if name == "default" {
            keys.text(TEMPLATE, template);
        } else if !names.contains(&name.as_str()) {
            keys.text(&format!("{TEMPLATE}.{name}"), template);
            names.push(name);
        }
    }
    if !names.is_empty() {
        keys.texts("tokenizer.chat_templates", &names);
    }
    Ok(())
}

/// A text, or a list of `{name, template}`.
fn listed(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::String(text) => vec![("default".to_owned(), text.clone())],
        Value::Array(items) => {
            let pair = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["template"].as_str()?.to_owned()));
            items.iter().filter_map(pair).collect()
        }
        _ => Vec::new(),
    }
}
