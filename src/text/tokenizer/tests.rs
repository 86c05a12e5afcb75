//! Tokenizers of small vocabularies: texts, tables of bytes, and files that do not fit.

use super::*;
use crate::text::testing::{companions, shared};
use serde_json::json;

/// A word-piece tokenizer with [CLS] and [SEP], padding and truncation, as sentence encoders have them.
fn word_piece() -> Tokenizer {
    Tokenizer::from_bytes("word-piece.json".into(), word_piece_json().to_string().as_bytes()).expect("valid")
}

fn word_piece_json() -> serde_json::Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "book": 4, "a": 5, "table": 6, "##s": 7,
                            ".": 8, "!": 9}}
    })
}

fn concatenated(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let table = tokenizer.vocabulary_bytes(tokenizer.vocabulary_size()).expect("a known decoder");
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| table[id as usize].clone()).collect();
    let text = tokenizer.text_rules().expect("a known decoder").start_of_text(&bytes);
    String::from_utf8(text.to_vec()).expect("whole characters")
}

#[test]
fn vocabulary_bytes_spell_what_decode_says() {
    for (model, text) in [
        ("stories260k", "data/stories-valid.txt"),
        ("tales-6m", "data/tales-valid.txt"),
        ("tales-6m", "data/stories-valid.txt"),
        ("stories260k", "data/tales-valid.txt"),
    ] {
        let (Some(directory), Some(text)) = (shared(&format!("models/{model}")), shared(text)) else { return };
        let tokenizer = Tokenizer::of(&companions(&directory)).expect("opens");
        let text = std::fs::read_to_string(text).expect("reads");
        let text: String = text.chars().take(6000).chain("naïve — “quoted” 日本 🦊\tend\n".chars()).collect();
        let ids = tokenizer.encode_plain(&text).expect("encodes");
        let decoded = tokenizer.decode(&ids).expect("decodes");
        assert_eq!(decoded, text, "{model}");
        assert_eq!(concatenated(&tokenizer, &ids), decoded, "{model}");
        let from_the_middle = &ids[ids.len() / 2..ids.len() / 2 + 40];
        assert_eq!(
            concatenated(&tokenizer, from_the_middle),
            tokenizer.decode(from_the_middle).expect("decodes"),
            "{model}"
        );
        let framed = tokenizer.encode_with_specials(&text).expect("encodes");
        assert_eq!(concatenated(&tokenizer, &framed), decoded, "{model}");
    }
}

#[test]
fn word_pieces_are_joined_and_cut_inside_their_special_tokens() {
    let tokenizer = word_piece();
    let ids = tokenizer.encode_with_specials("Book a table. Tables! a book").expect("encodes");
    assert_eq!(ids, [2, 4, 5, 6, 8, 6, 7, 9, 5, 4, 3]);
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), "book a table. tables! a book");
    assert_eq!(concatenated(&tokenizer, &ids), "book a table. tables! a book");
    assert_eq!(tokenizer.encode_plain("a book").expect("encodes"), [5, 4]);
    assert_eq!(tokenizer.encode_within("a book a book", 5).expect("encodes"), (vec![2, 5, 4, 5, 3], true));
    assert_eq!(tokenizer.encode_within("a book a", 5).expect("encodes"), (vec![2, 5, 4, 5, 3], false));
    assert!(matches!(tokenizer.encode_within("a", 2), Err(TokenizerError::NoRoom { specials: 2, .. })));
}

#[test]
fn vocabularies_must_fit_and_padding_is_a_warning() {
    let mut tokenizer = word_piece();
    assert_eq!(tokenizer.vocabulary_size(), 10);
    assert_eq!(tokenizer.check(10).expect("fits"), None);
    let padded = TokenizerWarning::PaddedVocabulary { tokenizer: 10, model: 16 };
    assert_eq!(tokenizer.check(16).expect("fits"), Some(padded));
    let error = tokenizer.check(9).expect_err("too small").to_string();
    assert!(error.contains("10 ids") && error.contains("vocabulary of 9") && error.contains("`!`"), "{error}");
    let table = tokenizer.vocabulary_bytes(12).expect("a known decoder");
    assert_eq!(table[4], b" book");
    assert_eq!(table[7], b"s");
    assert_eq!(table[8], b".");
    assert!(table[0].is_empty() && table[11].is_empty() && table.len() == 12);
}

#[test]
fn added_tokens_without_a_row_are_refused_in_texts_and_left_out_of_tables() {
    let mut json = word_piece_json();
    let added = json["added_tokens"].as_array_mut().expect("a list");
    let mut image = added[0].clone();
    (image["id"], image["content"]) = (10.into(), "<image>".into());
    added.push(image);
    let text = ["\u{feff}", &json.to_string()].concat();
    let mut tokenizer = Tokenizer::from_bytes("m/tokenizer.json".into(), text.as_bytes()).expect("opens");
    assert_eq!(tokenizer.vocabulary_size(), 11);
    assert_eq!(tokenizer.check(10).expect("the token is left out"), None);
    assert_eq!((tokenizer.vocabulary_size(), tokenizer.encode_plain("a book").expect("encodes")), (10, vec![5, 4]));
    let error = tokenizer.encode_plain("a <image> book").expect_err("no row").to_string();
    assert!(error.contains("token 10 `<image>` of m/tokenizer.json") && error.contains("table of 10 rows"), "{error}");
    let plain = word_piece();
    assert!(tokenizer.device_text().expect("tables") == plain.device_text().expect("tables"));
    assert!(tokenizer.check(9).is_err());
}

#[test]
fn missing_and_damaged_files_say_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = Tokenizer::of(&companions(directory.path())).err().expect("missing").to_string();
    assert!(missing.contains("tokenizer.json does not exist; copy"), "{missing}");
    std::fs::write(directory.path().join(TOKENIZER_FILE), "{\"model\": 3}").expect("writes");
    let damaged = Tokenizer::of(&companions(directory.path())).err().expect("damaged").to_string();
    assert!(damaged.contains("is not a tokenizer"), "{damaged}");
}
