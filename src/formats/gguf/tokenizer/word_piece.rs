//! `bert`: WordPiece. A token that begins a word is stored with `▁` before it, one that goes on bare; tokenizer.json has
//! the first bare and `##` before the others.

use super::{CONTROL, NotRebuilt, Parts, Rebuilt, UNKNOWN, Vocabulary, key};
use serde_json::json;

/// What begins a word in the file.
const BEGINS: char = '▁';
/// What goes on with one in tokenizer.json.
const GOES_ON: &str = "##";
/// Longest word that is cut, in characters.
const LONGEST_WORD: usize = 100;
/// Whether text is made small, where no key says it.
const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";

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
