//! `bert`: WordPiece. A token that begins a word is stored with `▁` before it, one that goes on bare; tokenizer.json has
//! the first bare and `##` before the others.

use super::written::{File, Written, unknown_kind};
use super::{CONTROL, NORMAL, NotRebuilt, Parts, Rebuilt, UNKNOWN, USER_DEFINED, Vocabulary, key};
use serde_json::json;

/// What begins a word in the file.
const BEGINS: char = '▁';
/// What goes on with one in tokenizer.json.
const GOES_ON: &str = "##";
/// Longest word that is cut, in characters.
const LONGEST_WORD: usize = 100;
/// Whether text is made small, where no key says it.
const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";

/// The keys of a WordPiece tokenizer.json.
///
/// # Errors
/// What they cannot say.
pub(super) fn written(file: &File<'_>, rows: usize) -> Result<Written, String> {
    file.require("continuing_subword_prefix", &[json!(GOES_ON)])?;
    file.require("max_input_chars_per_word", &[json!(LONGEST_WORD)])?;
    let normalizer = &file.json["normalizer"];
    let flag = |key: &str| normalizer[key].as_bool();
    let usual = normalizer["type"] == "BertNormalizer" && flag("clean_text") != Some(false);
    if !usual || flag("handle_chinese_chars") == Some(false) {
        return Err(format!("`normalizer` is {normalizer}, and it has BertNormalizer as it is by default"));
    }
    let lowercase = flag("lowercase").unwrap_or(true);
    if flag("strip_accents").is_some_and(|strips| strips != lowercase) {
        return Err("`normalizer.strip_accents` is not as `lowercase`, which it follows there".to_owned());
    }
    if file.json["pre_tokenizer"]["type"] != "BertPreTokenizer" {
        return Err(format!("`pre_tokenizer` is {}, expected BertPreTokenizer", file.json["pre_tokenizer"]));
    }
    let (before, after) = file.around()?;
    if before.is_none() || after.is_none() {
        return Err("`post_processor` puts no token before and after a text, which its readers do".to_owned());
    }
    let unknown = file.model["unk_token"].as_str();
    let spelled = |kind: u64, token: &str| match token.strip_prefix(GOES_ON) {
        _ if matches!(kind, CONTROL | UNKNOWN | USER_DEFINED) => token.to_owned(),
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => format!("{BEGINS}{token}"),
    };
    Ok(Written {
        model: "bert",
        pre: None,
        rows: file.rows(rows, |token| unknown_kind(token, unknown).unwrap_or(NORMAL), spelled)?,
        scores: None,
        merges: None,
        before,
        after,
        unknown: unknown.and_then(|token| file.ids.get(token).copied()),
        space_before: None,
        lowercase: Some(lowercase),
    })
}

pub(super) fn rebuild(vocabulary: &Vocabulary<'_>) -> Result<Rebuilt, NotRebuilt> {
    let tokens = vocabulary.object(|_, kind, token| match (kind, token.strip_prefix(BEGINS)) {
        (CONTROL | UNKNOWN, _) => token.to_owned(),
        (_, Some(word)) => word.to_owned(),
        // Special tokens of files that do not tell kinds apart.
        (_, None) if token.starts_with('[') && token.ends_with(']') => token.to_owned(),
        (_, None) => format!("{GOES_ON}{token}"),
    })?;
    // Older files have a key of its own for the first token, newer ones the opening token's.
    let opening = match vocabulary.special("cls_token_id")? {
        Some(token) => Some(token),
        None => vocabulary.special("bos_token_id")?,
    };
    let named = |spelling: &str| {
        let id = vocabulary.tokens.iter().position(|token| *token == spelling)?;
        Some((id as u32, vocabulary.tokens[id]))
    };
    let opening = opening.or_else(|| named("[CLS]"));
    let closing = vocabulary.special("seperator_token_id")?.or_else(|| named("[SEP]"));
    let unknown = vocabulary.special("unknown_token_id")?.or_else(|| named("[UNK]"));
    let (Some(opening), Some(closing), Some((_, unknown))) = (opening, closing, unknown) else {
        let problem = format!("`{}` lacks [CLS], [SEP] or [UNK], and no key names them", key("tokens"));
        return Err(NotRebuilt::Inconsistent(problem));
    };
    let lowercase = vocabulary.metadata.optional_flag(LOWERCASE)?.unwrap_or(true);
    let mut added = vocabulary.added(str::to_owned);
    // Tokens that keys name are matched whole, whatever their kind.
    for name in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        let Some((id, token)) = named(name) else { continue };
        if added.iter().all(|entry| entry["id"] != id) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
    }
    let parts = Parts {
        added,
        normalizer: json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": null,
            "lowercase": lowercase,
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        post_processor: vocabulary.template(Some(opening), Some(closing)),
        decoder: json!({"type": "WordPiece", "prefix": GOES_ON, "cleanup": true}),
        model: json!({
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": GOES_ON,
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": tokens,
        }),
    };
    Ok(Rebuilt { json: parts.json(), doubt: None })
}
