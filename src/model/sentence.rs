//! How a sentence encoder makes one vector of a text, by the files of sentence-transformers (read as its version 6.2 does):
//! modules.json lists what follows the network, `N_Pooling/config.json` says which hidden states count,
//! `sentence_bert_config.json` how many tokens of a text are read and whether it is lower-cased first, and
//! config_sentence_transformers.json which prompts the model was trained with. slmc does Transformer, Pooling by one mode
//! and Normalize; anything else there is refused by name, since the vectors would be others.

use super::companions::{
    Companion, Companions, MODULES_FILE, POOLING_FILE, PROMPTS_FILE, SENTENCE_FILES, TOKENIZER_CONFIG_FILE,
};
use super::notes::Note;
use super::spec::{Embedding, Pooling};
use crate::disk::config::{brief, json as parsed};
use crate::disk::{Config, ConfigError};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The package whose modules are known.
const PACKAGE: &str = "sentence_transformers.";
/// What may follow each other in modules.json.
const MODULES: &str = "Transformer, Pooling and, after them, Normalize";
/// Poolings that are done, by the names of `pooling_mode`, with the flags of older versions.
const POOLINGS: [(&str, &str, Option<Pooling>); 6] = [
    ("cls", "pooling_mode_cls_token", Some(Pooling::First)),
    ("max", "pooling_mode_max_tokens", Some(Pooling::Maximum)),
    ("mean", "pooling_mode_mean_tokens", Some(Pooling::Mean)),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", None),
    ("weightedmean", "pooling_mode_weightedmean_tokens", None),
    ("lasttoken", "pooling_mode_lasttoken", Some(Pooling::Last)),
];
const DONE: &str = "cls, max, mean, lasttoken";

/// What the files beside a bare encoder say.
#[derive(Clone, Debug, Default)]
pub struct Sentence {
    /// How hidden states become one vector; `None` without modules.json.
    pub embedding: Option<Embedding>,
    /// Most tokens of a text, special ones included; `None` where no file says.
    pub longest_text: Option<NonZeroUsize>,
    /// What was found and decided.
    pub notes: Vec<Note>,
}

/// One module of modules.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its class, without the package.
    pub class: String,
    /// Its folder in the model's directory; empty for the directory itself.
    pub folder: String,
    /// The same as the file states it.
    pub path: String,
}

/// The modules of a modules.json, in order.
///
/// # Errors
/// [`ConfigError`]: not a list of objects with `type` and `path`, or a class of another package.
pub fn modules(file: &Path, bytes: &[u8]) -> Result<Vec<Module>, ConfigError> {
    let wrong = |key: String, found: &Value, expected: &str| ConfigError::Value {
        file: file.to_owned(),
        key,
        found: if found.is_null() { "absent".to_owned() } else { brief(found) },
        expected: expected.to_owned(),
    };
    let whole: Value = parsed(file, bytes)?;
    let list = whole.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("(whole file)".to_owned(), &whole, "a list of modules"))?;
    let module = |(index, entry): (usize, &Value)| {
        let kind = entry["type"].as_str();
        let kind = kind.ok_or_else(|| wrong(format!("[{index}].type"), &entry["type"], "the name of a class"))?;
        let path = match &entry["path"] {
            Value::Null => "",
            path => path.as_str().ok_or_else(|| wrong(format!("[{index}].path"), path, "the name of a folder"))?,
        };
        let Some(class) = kind.strip_prefix(PACKAGE).and_then(|rest| rest.rsplit('.').next()) else {
            return Err(unsupported(file, format!("[{index}].type"), kind, MODULES));
        };
        // A directory that was moved may name its folders as they were: what counts is the folder's own name.
        let folder = path.split(['/', '\\']).rfind(|part| !part.is_empty() && *part != ".").unwrap_or("");
        Ok(Module { class: class.to_owned(), folder: folder.to_owned(), path: path.to_owned() })
    };
    list.iter().enumerate().map(module).collect()
}

fn unsupported(file: &Path, key: String, value: &str, supported: &str) -> ConfigError {
    ConfigError::Unsupported {
        file: file.to_owned(),
        key,
        value: value.to_owned(),
        subject: "slmc",
        supported: supported.to_owned(),
    }
}

/// The modules among a model's companions, with the file.
fn listed(companions: &Companions) -> Result<Option<(PathBuf, Vec<Module>)>, ConfigError> {
    let Some(companion) = companions.find(MODULES_FILE) else { return Ok(None) };
    let file = companion.path().to_owned();
    let modules = modules(&file, &companion.read_bounded()?)?;
    Ok(Some((file, modules)))
}

/// The name of a module's configuration among the companions.
pub fn configuration_name(module: &Module) -> String {
    format!("{}/config.json", module.folder)
}

/// Reads the files beside a bare encoder of this width.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub fn read(companions: &Companions, hidden: usize) -> Result<Sentence, ConfigError> {
    let mut sentence = Sentence::default();
    if let Some((file, modules)) = listed(companions)? {
        sentence.embedding = Some(embedding(companions, &file, &modules, hidden, &mut sentence.notes)?);
        sentence.notes.extend(prompts(companions)?);
    } else if let Some(pooling) = companions.find(POOLING_FILE) {
        sentence.notes.push(Note::PoolingNotListed { file: pooling.path().to_owned() });
    }
    sentence.longest_text = longest_text(companions, sentence.embedding.is_some())?;
    Ok(sentence)
}

/// What the modules make of hidden states.
fn embedding(
    companions: &Companions,
    file: &Path,
    modules: &[Module],
    hidden: usize,
    notes: &mut Vec<Note>,
) -> Result<Embedding, ConfigError> {
    let (mut pooling, mut normalize) = (None, false);
    for (index, module) in modules.iter().enumerate() {
        match (index, module.class.as_str()) {
            (0, "Transformer") => {}
            (1, "Pooling") => {
                let config =
                    configuration(companions, file, index, module, notes)?.ok_or_else(|| ConfigError::Value {
                        file: file.to_owned(),
                        key: format!("[{index}].path"),
                        found: format!("`{}`", module.path),
                        expected: "a folder of the model's directory with the config.json of the pooling; fetch it too"
                            .to_owned(),
                    })?;
                pooling = Some(pooling_of(&config, hidden, notes)?);
            }
            (2.., "Normalize") => {
                normalize = true;
                if let Some(config) = configuration(companions, file, index, module, notes)? {
                    for key in ["module_input_name", "module_output_name"] {
                        if config.optional_text(key)?.is_some_and(|name| name != "sentence_embedding") {
                            return Err(config.unsupported(key, "slmc", "sentence_embedding"));
                        }
                    }
                }
            }
            (_, class) => return Err(unsupported(file, format!("[{index}].type"), class, MODULES)),
        }
    }
    match pooling {
        Some(pooling) => Ok(Embedding { pooling, normalize }),
        None => Err(ConfigError::Value {
            file: file.to_owned(),
            key: "(whole file)".to_owned(),
            found: format!("a list of {} without Pooling", modules.len()),
            expected: format!("{MODULES}; without the file slmc takes the mean in `eval`"),
        }),
    }
}

/// The configuration of a module, where there is one.
fn configuration(
    companions: &Companions,
    file: &Path,
    index: usize,
    module: &Module,
    notes: &mut Vec<Note>,
) -> Result<Option<Config>, ConfigError> {
    let Some(companion) = companions.find(&configuration_name(module)) else { return Ok(None) };
    if module.path.trim_end_matches('/').trim_start_matches("./") != module.folder {
        notes.push(Note::ModuleMoved {
            file: file.to_owned(),
            key: format!("[{index}].path"),
            stated: module.path.clone(),
            folder: module.folder.clone(),
        });
    }
    companion.config().map(Some)
}

/// The one pooling of its configuration.
fn pooling_of(config: &Config, hidden: usize, notes: &mut Vec<Note>) -> Result<Pooling, ConfigError> {
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        if config.optional_size(key)?.is_some_and(|width| width != hidden) {
            return Err(config.wrong(key, &format!("{hidden}, the width of the model's hidden states")));
        }
    }
    if !config.flag_or("include_prompt", true)? {
        notes.push(Note::PromptCounts { file: config.file().to_owned() });
    }
    let mut flags = Vec::new();
    for key in config.map().keys().filter(|key| key.starts_with("pooling_mode_")) {
        if config.flag_or(key, false)? {
            match POOLINGS.iter().find(|(_, flag, _)| flag == key) {
                Some(row) => flags.push(row),
                None => return Err(config.unsupported(key, "slmc", DONE)),
            }
        }
    }
    let several = |names: &[&str]| ConfigError::Value {
        file: config.file().to_owned(),
        key: names.join("`, `"),
        found: "set together".to_owned(),
        expected: format!("one of {DONE}: slmc does not put several poolings side by side"),
    };
    let row = match config.value("pooling_mode") {
        None => match flags.as_slice() {
            // As sentence-transformers has it where no flag is set.
            [] => &POOLINGS[2],
            [one] => *one,
            more => return Err(several(&more.iter().map(|(_, flag, _)| *flag).collect::<Vec<_>>())),
        },
        Some(value) => {
            let modes: Option<Vec<&str>> = match value {
                Value::String(mode) => Some(vec![mode]),
                Value::Array(modes) => modes.iter().map(Value::as_str).collect(),
                _ => None,
            };
            let modes = modes.filter(|modes| !modes.is_empty());
            let modes = modes.ok_or_else(|| config.wrong("pooling_mode", &format!("one of {DONE}")))?;
            let [mode] = modes.as_slice() else { return Err(several(&["pooling_mode"])) };
            let row = POOLINGS.iter().find(|(name, ..)| name == mode);
            let row = row.ok_or_else(|| config.unsupported("pooling_mode", "slmc", DONE))?;
            if let Some((_, flag, _)) = flags.iter().find(|(name, ..)| name != mode) {
                return Err(ConfigError::Value {
                    file: config.file().to_owned(),
                    key: format!("pooling_mode`, `{flag}"),
                    found: format!("`{mode}`, and true"),
                    expected: "the same pooling in both; take the older key out".to_owned(),
                });
            }
            row
        }
    };
    let key = if config.value("pooling_mode").is_some() { "pooling_mode" } else { row.1 };
    row.2.ok_or_else(|| config.unsupported(key, "slmc", DONE))
}

/// Most tokens of a text: `max_seq_length`, else, where the model makes sentence vectors, the tokenizer's
/// `model_max_length`.
fn longest_text(companions: &Companions, makes_vectors: bool) -> Result<Option<NonZeroUsize>, ConfigError> {
    if let Some(config) = transformer(companions)? {
        if config.optional_text("transformer_task")?.is_some_and(|task| task != "feature-extraction") {
            return Err(config.unsupported("transformer_task", "slmc", "feature-extraction"));
        }
        let text = match config.section("modality_config")? {
            Some(modalities) => modalities.section("text")?,
            None => None,
        };
        if let Some(text) = text
            && text.optional_text("method_output_name")?.is_some_and(|name| name != "last_hidden_state")
        {
            return Err(text.unsupported("method_output_name", "slmc", "last_hidden_state"));
        }
        if let Some(longest) = config.optional_size("max_seq_length")? {
            return Ok(NonZeroUsize::new(longest));
        }
    }
    let tokenizer = companions.find(TOKENIZER_CONFIG_FILE).filter(|_| makes_vectors).map(Companion::config);
    let stated = tokenizer.transpose()?.and_then(|config| config.value("model_max_length")?.as_u64());
    Ok(stated.and_then(|longest| NonZeroUsize::new(usize::try_from(longest).ok()?)))
}

/// The settings of the Transformer module.
fn transformer(companions: &Companions) -> Result<Option<Config>, ConfigError> {
    SENTENCE_FILES.iter().find_map(|name| companions.find(name)).map(Companion::config).transpose()
}

/// Whether `max_seq_length` is stated.
///
/// # Errors
/// [`ConfigError`].
pub fn states_longest_text(companions: &Companions) -> Result<bool, ConfigError> {
    Ok(transformer(companions)?.is_some_and(|config| config.value("max_seq_length").is_some()))
}

/// Whether texts are lower-cased before the tokenizer sees them.
///
/// # Errors
/// [`ConfigError`].
pub fn lower_cases(companions: &Companions) -> Result<bool, ConfigError> {
    transformer(companions)?.map_or(Ok(false), |config| config.flag_or("do_lower_case", false))
}

/// A note on the prompt that sentence-transformers would put before every text.
fn prompts(companions: &Companions) -> Result<Option<Note>, ConfigError> {
    let Some(config) = companions.find(PROMPTS_FILE).map(Companion::config).transpose()? else { return Ok(None) };
    let Some(name) = config.optional_text("default_prompt_name")? else { return Ok(None) };
    let text = match config.section("prompts")? {
        Some(prompts) => prompts.optional_text(name)?.map(str::to_owned),
        None => None,
    };
    let text = text.ok_or_else(|| config.wrong("default_prompt_name", "the name of one of `prompts`"))?;
    let file = config.file().to_owned();
    Ok((!text.is_empty()).then(|| Note::DefaultPrompt { file, name: name.to_owned(), text }))
}

/// A note on modules that are beside a model with another output.
pub fn unused(companions: &Companions, output: &'static str) -> Option<Note> {
    let file = companions.find(MODULES_FILE)?.path().to_owned();
    Some(Note::ModulesUnused { file, output })
}

/// Whether modules.json makes one vector of a text.
///
/// # Errors
/// [`ConfigError`].
pub fn pools(companions: &Companions) -> Result<bool, ConfigError> {
    Ok(listed(companions)?.is_some_and(|(_, modules)| modules.iter().any(|module| module.class == "Pooling")))
}

/// Refuses another pooling than that of the last token, the only one that has seen the whole text of a causal model.
///
/// # Errors
/// [`ConfigError::Unsupported`].
pub fn require_last(
    companions: &Companions,
    embedding: Option<Embedding>,
    family: &'static str,
) -> Result<(), ConfigError> {
    let Some(embedding) = embedding.filter(|embedding| embedding.pooling != Pooling::Last) else { return Ok(()) };
    let file = companions.find(MODULES_FILE).map(|file| file.path().to_owned()).unwrap_or_default();
    Err(ConfigError::Unsupported {
        file,
        key: "pooling_mode".to_owned(),
        value: embedding.pooling.name().to_owned(),
        subject: family,
        supported: Pooling::Last.name().to_owned(),
    })
}

/// Refuses a decoder that makes sentence vectors.
///
/// # Errors
/// [`ConfigError::Unsupported`].
pub fn refuse_decoder(companions: &Companions, family: &'static str) -> Result<(), ConfigError> {
    let Some((file, modules)) = listed(companions)? else { return Ok(()) };
    let Some(index) = modules.iter().position(|module| module.class == "Pooling") else { return Ok(()) };
    Err(ConfigError::Unsupported {
        file,
        key: format!("[{index}].type"),
        value: modules[index].class.clone(),
        subject: family,
        supported:
            "next-token logits only, sentence vectors are made by encoders and by qwen3; without the file the model is read as \
                    one that continues text"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests;
