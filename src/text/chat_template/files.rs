//! Finds the chat templates and special tokens among a model's companions as transformers does. Templates are in
//! `chat_template.jinja` and `additional_chat_templates/NAME.jinja`; where neither exists, in `tokenizer_config.json`
//! under `chat_template`, a text or a list of `{name, template}`; else in `chat_template.json`, the older form of
//! processors. Special tokens are in `tokenizer_config.json` and, those it does not name, in `special_tokens_map.json`.

use super::{ChatTemplateError, DEFAULT, MAX_TEMPLATE_BYTES, MAX_TEMPLATES, Named, SPECIAL_TOKENS};
use crate::disk::found::Found;
use crate::disk::{Config, ConfigError};
use crate::model::companions::{
    Companion, Companions, LEGACY_TEMPLATE_FILE, SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TEMPLATE_FOLDER,
    TOKENIZER_CONFIG_FILE,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The key of templates in JSON.
const KEY: &str = "chat_template";

/// The file or folder that decides, and its templates; `None` where there are none.
pub(super) fn templates(companions: &Companions) -> Result<Option<(PathBuf, Vec<Named>)>, ChatTemplateError> {
    let files = template_files(companions)?;
    if !files.is_empty() {
        let path = match files.as_slice() {
            [only] => only.path.clone(),
            _ => companions.origin().to_owned(),
        };
        return Ok(Some((path, files)));
    }
    for name in [TOKENIZER_CONFIG_FILE, LEGACY_TEMPLATE_FILE] {
        if let Some(config) = config(companions, name)? {
            let templates = listed_templates(&config)?;
            if !templates.is_empty() {
                return Ok(Some((config.file().to_owned(), templates)));
            }
        }
    }
    Ok(None)
}

/// Special tokens by name, in the order of [`SPECIAL_TOKENS`] and then of the files.
pub(super) fn special_tokens(companions: &Companions) -> Result<Vec<(String, String)>, ChatTemplateError> {
    let files = [config(companions, TOKENIZER_CONFIG_FILE)?, config(companions, SPECIAL_TOKENS_FILE)?];
    let mut names: Vec<String> = SPECIAL_TOKENS.map(str::to_owned).into();
    // Further tokens of one model, such as `image_token`: keys of that form, or named in `extra_special_tokens`.
    let mut found: Vec<(String, String)> = Vec::new();
    for config in files.iter().flatten() {
        let further = config.value("extra_special_tokens").and_then(Value::as_object);
        for (key, value) in
            config.map().iter().filter(|(key, _)| key.ends_with("_token")).chain(further.into_iter().flatten())
        {
            if let Some(token) = token_text(value) {
                found.push((key.clone(), token.to_owned()));
                if !names.contains(key) {
                    names.push(key.clone());
                }
            }
        }
    }
    // A key that is null in the first file stays without a value, whatever the second says.
    let null = |name: &String| files[0].as_ref().is_some_and(|config| config.map().get(name) == Some(&Value::Null));
    names.retain(|name| !null(name));
    let first = |name: String| found.iter().find(|(key, _)| *key == name).cloned();
    let tokens: Vec<_> = names.into_iter().filter_map(first).collect();
    if tokens.len() > super::MAX_TOKENS {
        return Err(shape(&companions.place(TOKENIZER_CONFIG_FILE), "extra_special_tokens", "a short list of tokens"));
    }
    Ok(tokens)
}

/// A token's text: it stands alone, or in an `AddedToken` with its properties.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn template_files(companions: &Companions) -> Result<Vec<Named>, ChatTemplateError> {
    let mut templates = Vec::new();
    if let Some(default) = existing(companions, TEMPLATE_FILE) {
        templates.push(read(default, DEFAULT)?);
    }
    if let Some(folder) = companions.find(TEMPLATE_FOLDER) {
        // It is listed as a file where its files cannot be had.
        return Err(read(folder, DEFAULT).err().unwrap_or_else(|| shape(folder.path(), KEY, "a folder of templates")));
    }
    let further = companions.iter().filter_map(|(name, companion)| {
        let name = name.strip_prefix(TEMPLATE_FOLDER)?.strip_prefix('/')?.strip_suffix(".jinja")?;
        (!name.is_empty()).then_some((name, companion))
    });
    for (number, (name, companion)) in further.enumerate() {
        if number + 1 >= MAX_TEMPLATES {
            let path = companions.place(TEMPLATE_FOLDER);
            return Err(ChatTemplateError::TooMany { path, limit: MAX_TEMPLATES });
        }
        let template = read(companion, name)?;
        templates.retain(|other: &Named| other.name != name);
        templates.push(template);
    }
    Ok(templates)
}

/// Reads a file, no further than a template may be long. Links are followed: in a cache of downloads every file is one.
fn read(companion: &Companion, name: &str) -> Result<Named, ChatTemplateError> {
    let path = companion.path().to_owned();
    let failed = |source| ChatTemplateError::Read { path: path.clone(), source };
    let bytes = companion.length().map_err(failed)?;
    if bytes > MAX_TEMPLATE_BYTES as u64 {
        return Err(ChatTemplateError::TooLong { path, bytes, limit: MAX_TEMPLATE_BYTES as u64 });
    }
    let bytes = companion.read_at_most(MAX_TEMPLATE_BYTES + 1).map_err(failed)?;
    // Any text is a template: what stands for another file must not be taken for one.
    if let Some(found @ Found::LfsPointer(_)) = Found::by_bytes(&bytes) {
        return Err(ConfigError::Found { file: path, found }.into());
    }
    let text = String::from_utf8(bytes).map_err(|_| ChatTemplateError::NotUtf8 { path: path.clone() })?;
    named(path, name, text)
}

/// A template that is not too long, without a byte order mark and with LF for line ends of any kind, as Jinja reads it.
pub(super) fn named(path: PathBuf, name: &str, text: String) -> Result<Named, ChatTemplateError> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(ChatTemplateError::TooLong { path, bytes: text.len() as u64, limit: MAX_TEMPLATE_BYTES as u64 });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    Ok(Named { path, name: name.to_owned(), text })
}

/// The templates under `chat_template`: a text, a list of `{name, template}`, or an object from names to texts.
fn listed_templates(config: &Config) -> Result<Vec<Named>, ChatTemplateError> {
    let expected = "a text or a list of objects with `name` and `template`";
    let wrong = || shape(config.file(), KEY, expected);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    match config.value(KEY) {
        None => {}
        Some(Value::String(text)) => pairs.push((DEFAULT, text)),
        Some(Value::Array(items)) => {
            for item in items {
                let text = |key| item.get(key).and_then(Value::as_str).ok_or_else(wrong);
                pairs.push((text("name")?, text("template")?));
            }
        }
        Some(Value::Object(map)) => {
            for (name, template) in map {
                pairs.push((name, template.as_str().ok_or_else(wrong)?));
            }
        }
        Some(_) => return Err(wrong()),
    }
    if pairs.len() > MAX_TEMPLATES {
        return Err(ChatTemplateError::TooMany { path: config.file().to_owned(), limit: MAX_TEMPLATES });
    }
    let mut templates: Vec<Named> = Vec::new();
    for (name, text) in pairs {
        // The last of several of one name holds, as in a Python dictionary.
        templates.retain(|template| template.name != name);
        templates.push(named(config.file().to_owned(), name, text.to_owned())?);
    }
    Ok(templates)
}

/// A file that is there; a link that leads nowhere says nothing.
fn existing<'c>(companions: &'c Companions, name: &str) -> Option<&'c Companion> {
    companions.find(name).filter(|companion| companion.exists())
}

fn config(companions: &Companions, name: &str) -> Result<Option<Config>, ChatTemplateError> {
    Ok(existing(companions, name).map(Companion::config).transpose()?)
}

fn shape(path: &Path, key: &str, expected: &'static str) -> ChatTemplateError {
    ChatTemplateError::Shape { path: path.to_owned(), key: key.to_owned(), expected }
}
