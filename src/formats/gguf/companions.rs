//! The files beside a model, made of the keys of a GGUF file, by the names that transformers gives them: tokenizer.json,
//! tokenizer_config.json, generation_config.json, chat templates, and for sentence encoders the pooling.
//!
//! The file has one end token, and keys for the end of a turn and of a message; llama.cpp also ends at tokens that are
//! spelled as one of [`END_SPELLINGS`], and so does this: a model that writes `<|im_end|>` would else talk on.

use super::architecture::{Architecture, FIRST, LAST, MEAN, POOLING, Shape};
use super::error::GgufError;
use super::metadata::Metadata;
use super::tokenizer::{self, NotRebuilt, Rebuilt};
use crate::model::companions::{
    Companions, GENERATION_CONFIG_FILE, MODULES_FILE, POOLING_FILE, TEMPLATE_FILE, TEMPLATE_FOLDER,
    TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use crate::model::notes::Note;
use serde_json::{Map, Value, json};

/// Spellings of tokens that end a text or a turn.
pub(super) const END_SPELLINGS: [&str; 13] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
    "<eos>",
    "<turn|>",
];
/// Key of the default chat template; others have `.NAME` after it.
pub(super) const TEMPLATE: &str = "tokenizer.chat_template";
/// Kinds of tokens that are matched whole: control tokens and those that users define.
const WHOLE: [f64; 2] = [3.0, 4.0];

/// The files, and what is said of them.
pub(super) fn companions(
    architecture: &Architecture,
    metadata: &Metadata,
) -> Result<(Companions, Vec<Note>), GgufError> {
    let (mut companions, mut notes) = (Companions::of(metadata.file()), Vec::new());
    let file = metadata.file().to_owned();
    let put = |companions: &mut Companions, name: &str, value: &Value| {
        companions.add_bytes(name, format!("{value:#}\n").into_bytes());
    };
    match tokenizer::rebuild(metadata) {
        Ok(Rebuilt { json, doubt }) => {
            companions.add_bytes(TOKENIZER_FILE, json.to_string().into_bytes());
            notes.extend(doubt.map(|doubt| Note::Uncertain { file, doubt }));
        }
        Err(NotRebuilt::Key(error)) => return Err(error),
        Err(problem) => {
            companions.add_absent(TOKENIZER_FILE, &problem.to_string());
            notes.push(Note::NoTokenizer { file, problem: problem.to_string() });
        }
    }
    put(&mut companions, TOKENIZER_CONFIG_FILE, &Value::Object(tokenizer_config(architecture, metadata)?));
    if let Some((modules, pooling)) = pooling(architecture, metadata)? {
        put(&mut companions, MODULES_FILE, &modules);
        put(&mut companions, POOLING_FILE, &pooling);
    }
    if architecture.shape != Shape::Bert {
        put(&mut companions, GENERATION_CONFIG_FILE, &Value::Object(generation_config(metadata)?));
        notes.extend(templates(metadata, &mut companions)?);
    }
    Ok((companions, notes))
}

/// Special tokens by their spellings.
fn tokenizer_config(architecture: &Architecture, metadata: &Metadata) -> Result<Map<String, Value>, GgufError> {
    let tokens = metadata.optional_texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
        ("sep_token", "seperator_token_id"),
        ("cls_token", "cls_token_id"),
        ("mask_token", "mask_token_id"),
    ] {
        if let Some(id) = metadata.token(&format!("tokenizer.ggml.{key}"))?
            && let Some(token) = tokens.get(id as usize)
        {
            config.insert(name.to_owned(), json!(token));
        }
    }
    if let Some(context) = metadata.optional_size(&architecture.key("context_length"))? {
        config.insert("model_max_length".to_owned(), json!(context));
    }
    Ok(config)
}

/// Tokens that open and end a text.
fn generation_config(metadata: &Metadata) -> Result<Map<String, Value>, GgufError> {
    let mut config = Map::new();
    for (name, key) in [("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id")] {
        if let Some(id) = metadata.token(&format!("tokenizer.ggml.{key}"))? {
            config.insert(name.to_owned(), json!(id));
        }
    }
    let mut ends: Vec<u32> = Vec::new();
    let mut add = |id: u32| {
        if !ends.contains(&id) {
            ends.push(id);
        }
    };
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        metadata.token(&format!("tokenizer.ggml.{key}"))?.into_iter().for_each(&mut add);
    }
    let tokens = metadata.optional_texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let kinds = metadata.optional_numbers("tokenizer.ggml.token_type")?;
    for (id, token) in tokens.iter().enumerate() {
        let whole = kinds.as_ref().is_none_or(|kinds| kinds.get(id).is_some_and(|kind| WHOLE.contains(kind)));
        if whole && END_SPELLINGS.contains(token) {
            add(id as u32);
        }
    }
    match ends[..] {
        [] => {}
        [end] => drop(config.insert("eos_token_id".to_owned(), json!(end))),
        _ => drop(config.insert("eos_token_id".to_owned(), json!(ends))),
    }
    Ok(config)
}

/// Chat templates as files of their own. A name becomes that of a file, so it has to be a plain word.
fn templates(metadata: &Metadata, companions: &mut Companions) -> Result<Vec<Note>, GgufError> {
    let mut notes = Vec::new();
    if let Some(template) = metadata.optional_text(TEMPLATE)? {
        companions.add_bytes(TEMPLATE_FILE, template.as_bytes().to_vec());
    }
    let named = metadata.keys().filter_map(|key| Some((key, key.strip_prefix(TEMPLATE)?.strip_prefix('.')?)));
    for (key, name) in named {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        match plain {
            true => {
                let file = format!("{TEMPLATE_FOLDER}/{name}.jinja");
                companions.add_bytes(&file, metadata.text(key)?.as_bytes().to_vec());
            }
            false => notes.push(Note::Uncertain {
                file: metadata.file().to_owned(),
                doubt: format!("has a template under `{key}`, which is left out: the name is not a plain word"),
            }),
        }
    }
    Ok(notes)
}

/// The value of [`POOLING`], where a file has one.
pub(super) fn pooling_type(architecture: &Architecture, metadata: &Metadata) -> Result<Option<usize>, GgufError> {
    let key = architecture.key(POOLING);
    let kind = metadata.optional_count(&key)?;
    if kind.is_some_and(|kind| !architecture.poolings.contains(&kind)) {
        let known: Vec<String> = architecture.poolings.iter().map(usize::to_string).collect();
        let expected = format!("{}: slmc has no other pooling of {}", known.join(" or "), architecture.name);
        return Err(metadata.wrong(&key, &expected));
    }
    Ok(kind)
}

/// modules.json and the configuration of the pooling; `None` where every token keeps its state, and of classifiers.
fn pooling(architecture: &Architecture, metadata: &Metadata) -> Result<Option<(Value, Value)>, GgufError> {
    let kind = match pooling_type(architecture, metadata)? {
        Some(MEAN) => "mean",
        Some(FIRST) => "cls",
        Some(LAST) => "lasttoken",
        _ => return Ok(None),
    };
    let module = |index: usize, path: &str, class: &str| {
        json!({
            "idx": index,
            "name": index.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{class}"),
        })
    };
    let modules = json!([module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")]);
    let pooling = json!({
        "word_embedding_dimension": metadata.size(&architecture.key("embedding_length"))?,
        "pooling_mode_cls_token": kind == "cls",
        "pooling_mode_mean_tokens": kind == "mean",
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": kind == "lasttoken",
    });
    Ok(Some((modules, pooling)))
}
