//! The runtime's tokens beside those of the `tokenizers` crate, for tokenizers of every kind, on texts that people wrote
//! and on texts that nobody would.

use super::super::testing::{companions, shared};
use super::super::tokenizer::Tokenizer;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};
use slm_runtime::format::text_tables::TextTables;
use slm_runtime::layout::ALIGNMENT;
use std::path::{Path, PathBuf};

/// A tokenizer twice: the library's, and the tables made from it.
struct Both {
    name: String,
    library: Tokenizer,
    section: Vec<u8>,
    vocabulary: u32,
}

impl Both {
    fn new(name: &str, library: Tokenizer) -> Self {
        let section = library.device_text().unwrap_or_else(|part| panic!("{name} is host-only: {part}"));
        let vocabulary = library.vocabulary_size() as u32;
        Both { name: name.to_owned(), library, section, vocabulary }
    }

    fn open(directory: &Path) -> Self {
        Both::new(&directory.display().to_string(), Tokenizer::of(&companions(directory)).expect("opens"))
    }

    fn of(name: &str, json: &Value) -> Self {
        let library = Tokenizer::from_bytes(name.into(), json.to_string().as_bytes());
        Both::new(name, library.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn device(&self, text: &str, specials: bool) -> Vec<u32> {
        let tables = TextTables::read(&self.section, self.vocabulary).expect("sound");
        let tokenizer = slm_runtime::tokenizer::Tokenizer::new(&tables);
        let required = tokenizer.required_bytes(text.len()).expect("small");
        let mut memory = vec![0xA5u8; required + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let mut tokens = Vec::new();
        tokenizer
            .encode(text, specials, &mut memory[start..start + required], &mut |token| tokens.push(token))
            .unwrap_or_else(|error| panic!("{}: {error}: {text:?}", self.name));
        tokens
    }

    fn check(&self, text: &str) {
        let expected = self.library.encode_plain(text).expect("encodes");
        assert!(self.device(text, false) == expected, "{}: {text:?}", self.name);
        let expected = self.library.encode_with_specials(text).expect("encodes");
        assert!(self.device(text, true) == expected, "{} with special tokens: {text:?}", self.name);
    }
}

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn added(id: u32, content: &str, normalized: bool, sides: (bool, bool)) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": sides.0, "rstrip": sides.1,
           "normalized": normalized, "special": false})
}

/// A byte-level tokenizer of 256 bytes, some merges and added tokens.
fn byte_level(pre_tokenizer: Value, normalizer: Value, ignore_merges: bool) -> Value {
    let mut vocabulary = serde_json::Map::new();
    for character in super::super::vocabulary::byte_alphabet().into_keys() {
        vocabulary.insert(character.to_string(), json!(vocabulary.len()));
    }
    let mut merges = Vec::new();
    for (left, right) in [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("i", "n"),
        ("in", "g"),
        ("Ã", "©"),
        ("Ġ", "Ġ"),
        ("a", "a"),
        ("aa", "a"),
        ("a", "aa"),
        ("ĠĠ", "ĠĠ"),
        ("1", "2"),
        ("Ċ", "Ċ"),
    ] {
        let merged = format!("{left}{right}");
        if !vocabulary.contains_key(&merged) {
            vocabulary.insert(merged, json!(vocabulary.len()));
        }
        merges.push(json!([left, right]));
    }
    // A word that no merge leads to.
    vocabulary.insert("Ġwhole".to_owned(), json!(vocabulary.len()));
    let next = vocabulary.len() as u32;
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            added(next, "<s>", false, (false, false)), added(next + 1, "<mask>", false, (true, false)),
            added(next + 2, "<end>", false, (true, true)), added(next + 3, "ing<", true, (false, false)),
            added(next + 4, "<s><s>", false, (false, true)),
        ],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<s>": {"id": "<s>", "ids": [next], "tokens": ["<s>"]}}}]},
        "decoder": byte_level_step(true, true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges}
    })
}

fn byte_level_step(prefix: bool, regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex})
}

fn split(regex: &str) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    json!({"type": "Sequence", "pretokenizers": [split, byte_level_step(false, false)]})
}

/// A sentencepiece-like tokenizer over characters.
fn characters(normalizer: Value, pre_tokenizer: Value, fuse: bool, fallback: bool) -> Value {
    let mut vocabulary = serde_json::Map::new();
    let mut add = |token: &str| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(json!(id));
    };
    ["<unk>", "<s>", "</s>"].iter().for_each(|token| add(token));
    // Not every byte has a token: some characters have to be unknown.
    (0..=255).filter(|byte| fallback && byte % 7 != 6).for_each(|byte| add(&format!("<0x{byte:02X}>")));
    "▁abcdefghijklmnopqrstuvwxyzé .,日".chars().for_each(|character| add(&character.to_string()));
    let merges = [
        ("▁", "t"),
        ("h", "e"),
        ("▁t", "he"),
        ("▁", "▁"),
        ("a", "a"),
        ("aa", "a"),
        ("a", "aa"),
        ("aa", "aa"),
        ("e", "▁"),
    ];
    merges.iter().for_each(|(left, right)| add(&format!("{left}{right}")));
    let merges: Vec<Value> = merges.iter().map(|(left, right)| json!([left, right])).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": content == "</s>",
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": fuse, "byte_fallback": fallback, "ignore_merges": !fuse,
                  "vocab": vocabulary, "merges": merges}
    })
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
}

/// A BERT tokenizer over letters.
fn word_pieces(normalizer: Value, pre_tokenizer: Value) -> Value {
    let mut vocabulary = serde_json::Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(json!(id));
    };
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().for_each(|token| add((*token).to_owned()));
    for character in "abcdefghijklmnopqrstuvwxyzéßΑα日本가각0123456789.,!?-'#$".chars() {
        add(character.to_string());
        add(format!("##{character}"));
    }
    ["the", "##ing", "##in", "##ings", "un", "unt"].iter().for_each(|token| add((*token).to_owned()));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(2, "[CLS]", false, (false, false)), added(3, "[SEP]", true, (false, false))],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 12, "vocab": vocabulary}
    })
}

fn bert(clean: bool, ideographs: bool, strip: Option<bool>, lowercase: bool) -> Value {
    json!({"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": ideographs, "strip_accents": strip,
           "lowercase": lowercase})
}

/// Tokenizers made for what they use.
fn made() -> Vec<Both> {
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let qwen2 = llama3.replace("{1,3}", "");
    let digits = |alone: bool| json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": alone}, byte_level_step(false, true)]});
    let nfc = json!({"type": "NFC"});
    let llama = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let spaces =
        |behavior: &str| json!({"type": "Split", "pattern": {"String": " "}, "behavior": behavior, "invert": false});
    let sequence = |steps: Value| json!({"type": "Sequence", "normalizers": steps});
    let whitespace = json!({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Contiguous"}]});
    [
        ("gpt2", byte_level(byte_level_step(false, true), Value::Null, false)),
        ("gpt2 with a space in front", byte_level(byte_level_step(true, true), Value::Null, false)),
        ("gpt2 as a split", byte_level(split(gpt2), Value::Null, false)),
        ("bytes without words", byte_level(byte_level_step(true, false), Value::Null, false)),
        ("llama 3", byte_level(split(llama3), Value::Null, true)),
        ("qwen 2", byte_level(split(&qwen2), nfc.clone(), false)),
        ("smollm", byte_level(digits(true), Value::Null, false)),
        ("digits together", byte_level(digits(false), sequence(json!([{"type": "NFD"}, {"type": "Lowercase"}])), true)),
        ("llama", characters(llama.clone(), Value::Null, true, true)),
        ("llama without bytes", characters(llama, Value::Null, false, false)),
        ("gemma", characters(replace, spaces("MergedWithPrevious"), true, true)),
        ("always", characters(Value::Null, metaspace("always", true), true, true)),
        ("first", characters(Value::Null, metaspace("first", true), false, true)),
        ("first, whole", characters(Value::Null, metaspace("first", false), true, false)),
        ("never", characters(Value::Null, metaspace("never", true), true, true)),
        ("merged with next", characters(Value::Null, spaces("MergedWithNext"), true, true)),
        ("contiguous", characters(nfc, spaces("Contiguous"), true, true)),
        ("isolated", characters(Value::Null, spaces("Isolated"), false, true)),
        ("removed", characters(Value::Null, spaces("Removed"), false, true)),
        ("uncased", word_pieces(bert(true, true, None, true), json!({"type": "BertPreTokenizer"}))),
        ("cased", word_pieces(bert(true, true, None, false), json!({"type": "BertPreTokenizer"}))),
        ("unclean", word_pieces(bert(false, false, Some(false), true), json!({"type": "BertPreTokenizer"}))),
        ("stripped", word_pieces(bert(false, true, Some(true), false), whitespace)),
        (
            "older uncased",
            word_pieces(
                sequence(json!([{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}])),
                json!({"type": "BertPreTokenizer"}),
            ),
        ),
    ]
    .map(|(name, json)| Both::of(name, &json))
    .into()
}

/// Every tokenizer file at hand; the environment may name the directory of one more.
fn files() -> Vec<Both> {
    let mut directories = vec![root("recipes/quickstart/teacher")];
    directories.extend(["models/stories260k", "models/tales-6m"].into_iter().filter_map(shared));
    directories.extend(std::env::var_os("SLMC_TOKENIZER").map(PathBuf::from));
    directories.iter().map(|directory| Both::open(directory)).collect()
}

/// Texts with what tokenizers stumble over.
const TEXTS: &[&str] = &[
    "",
    " ",
    "   ",
    "\n",
    "a",
    "Once upon a time, there was a fox.",
    " the the  the   the\t\tthe\n\n the \r\n\r\nthe",
    "it's 'S 'RE we'Ve 'ſ ''s ' s 'llama 'lL'd",
    "1 12 123 1234567 ١٢٣ ²³ ⅷ 一二三 12a34",
    "aaa aaaa aaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "naïve café Ünïcödé ÀÉÎÕÜ İstanbul ŒUVRE Straße ǅ ΣΑΣ",
    "e\u{301} e\u{323}\u{301} e\u{301}\u{323} q\u{307}\u{323}\u{34F}\u{301} \u{301}x \u{1100}\u{1161}\u{11A8} 가각힣 \u{AC00}\u{11A8}",
    "日本語テキスト 中文，標點。 한국어 豈\u{F900} 🦊🇩🇪👩‍👩‍👧",
    "<s>a<s> b  <mask>c <mask>  <end>  d<end>e <s><s>  f ing<ing",
    "[CLS] unting untings [SEP] #### ##ing a##b [cls] [sep][SEP]",
    "</s>  x</s></s> <unk><unk> <s> </s>",
    "\u{0}\u{1}\u{7F}\u{AD}\u{200B}\u{200D}\u{FEFF}\u{FFFD}\u{E000}\u{10FFFF}\u{A0}\u{2028}\u{3000}\u{85}",
    "x\u{1D165}\u{1D16E}\u{302E}\u{302F}y \u{302F}\u{302E} \u{1D16D}\u{0334}\u{302A}z",
    "~!@#$%^&*()_+-={}[]|\\:;\"'<>?,./ «»‹›“”‘’—–…·¿¡§¶†‡•°",
    "\u{1E0A}\u{0323} \u{0344} \u{0F73} \u{2126} \u{212B} \u{1F71} \u{0958} \u{FB1D} \u{1109A} \u{11099}\u{110BA}",
];

#[test]
fn texts_that_tokenizers_stumble_over() {
    for tokenizer in made().into_iter().chain(files()) {
        TEXTS.iter().for_each(|text| tokenizer.check(text));
    }
}

/// Whether the environment asks for everything, which takes minutes.
fn everything() -> bool {
    std::env::var_os("SLMC_ALL_TEXTS").is_some()
}

/// Every character; of long blocks of characters of one kind every 61st, unless everything is asked for.
fn scalar_values() -> impl Iterator<Item = char> {
    const BLOCKS: [std::ops::RangeInclusive<u32>; 4] =
        [0x3400..=0x9FFF, 0xAC00..=0xD7A3, 0xE000..=0xF8FF, 0x2_0000..=0x10_FFFF];
    let step = if everything() { 1 } else { 61 };
    let of_block = |code: &u32| BLOCKS.iter().any(|block| block.contains(code));
    (0..=0x10_FFFF_u32).filter(move |code| code % step == 0 || !of_block(code)).filter_map(char::from_u32)
}

#[test]
fn every_character_there_is() {
    // One for each set of character classes and each map.
    const TOKENIZERS: [&str; 9] =
        ["gpt2", "llama 3", "qwen 2", "digits together", "uncased", "cased", "unclean", "stripped", "older uncased"];
    for tokenizer in made().into_iter().filter(|tokenizer| TOKENIZERS.contains(&tokenizer.name.as_str())) {
        let check = |text: &str| {
            let expected = tokenizer.library.encode_plain(text).expect("encodes");
            assert!(tokenizer.device(text, false) == expected, "{}: {text:?}", tokenizer.name);
        };
        let mut text = String::new();
        for (index, character) in scalar_values().enumerate() {
            text.push(character);
            // Alone between letters, and beside its neighbours.
            if index % 2 == 0 {
                text.push('e');
            }
            if index % 1024 == 1023 {
                check(&text);
                text.clear();
            }
        }
        check(&text);
    }
}

/// All of a shared text, in pieces that end at lines.
fn pieces(text: &str, most: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = if rest.len() <= most {
            rest.len()
        } else {
            rest[..rest.floor_char_boundary(most)].rfind('\n').map_or(rest.floor_char_boundary(most), |at| at + 1)
        };
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}

#[test]
fn texts_that_people_wrote() {
    let tokenizers = files();
    let mut names =
        vec!["recipes/quickstart/text/held-out.txt", "recipes/quickstart/text/animals.txt", "calibration/encoders.txt"];
    let mut paths: Vec<PathBuf> = names.drain(..).map(root).collect();
    paths.extend(
        [
            "stories-calib.txt",
            "stories-valid.txt",
            "tales-valid.txt",
            "tales-train.txt",
            "clinc150/train.jsonl",
            "clinc150/valid.jsonl",
            "clinc150/labels.txt",
        ]
        .into_iter()
        .filter_map(|name| shared(&format!("data/{name}"))),
    );
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("reads");
        // Of the longest text every 32nd piece, unless everything is asked for.
        let step = if text.len() > 2 << 20 && !everything() { 32 } else { 1 };
        for piece in pieces(&text, 1 << 15).into_iter().step_by(step) {
            for tokenizer in &tokenizers {
                let expected = tokenizer.library.encode_plain(piece).expect("encodes");
                assert!(tokenizer.device(piece, false) == expected, "{}: {}", tokenizer.name, path.display());
            }
        }
    }
}

/// Strings of the characters that matter, and of any characters at all.
fn texts() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{A0}",
        "\u{3000}",
        "the",
        "'s",
        "'LL",
        "'",
        "a",
        "aaaa",
        "12",
        "1",
        "é",
        "e\u{301}",
        "\u{323}",
        "\u{307}",
        "\u{34F}",
        "\u{302E}",
        "\u{1D165}",
        "ſ",
        "İ",
        "가",
        "\u{1100}",
        "\u{1161}",
        "\u{11A8}",
        "日",
        "豈",
        "▁",
        "<s>",
        "<mask>",
        "<end>",
        "<s",
        "ing<",
        "</s>",
        "<unk>",
        "[SEP]",
        "[sep]",
        "##",
        "un",
        "unt",
        "ing",
        "whole",
        ".",
        "!?",
        "\u{0}",
        "\u{200D}",
        "🦊",
        "Ġ",
        "Ċ",
    ]);
    let one = prop_oneof![8 => special.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from), 1 => "[a-zA-Z0-9 .,]{1,8}"];
    prop::collection::vec(one, 0..40).prop_map(|parts| parts.concat())
}

#[test]
fn texts_that_nobody_would_write() {
    let tokenizers: Vec<Both> = made().into_iter().chain(files()).collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..if everything() { 5000 } else { 400 } {
        let text = texts().new_tree(&mut runner).expect("a text").current();
        tokenizers.iter().for_each(|tokenizer| tokenizer.check(&text));
    }
}

#[test]
fn parts_that_only_hosts_have_are_named() {
    let with = |key: &str, value: Value| {
        let mut json = byte_level(byte_level_step(false, true), Value::Null, false);
        json.pointer_mut(key).map(|place| *place = value).expect("a part");
        json
    };
    let cases = [
        (with("/normalizer", json!({"type": "NFKC"})), "normalizer `NFKC`"),
        (
            with("/normalizer", json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})),
            "order of normalizers",
        ),
        (with("/pre_tokenizer", split(r"\p{Lu}+|\p{Ll}+")), r"\\p{Lu}+"),
        (with("/pre_tokenizer", json!({"type": "Whitespace"})), "pre-tokenizer `Whitespace`"),
        (with("/model/dropout", json!(0.1)), "dropout 0.1"),
        (with("/model/end_of_word_suffix", json!("</w>")), "end_of_word_suffix"),
        (with("/added_tokens/0/single_word", json!(true)), "single_word `<s>`"),
        (
            with(
                "/post_processor",
                json!({"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": true, "add_prefix_space": true}),
            ),
            "",
        ),
        (
            with(
                "/model",
                json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": false}),
            ),
            "model `Unigram`",
        ),
        (with("/model", json!({"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}})), "model `WordLevel`"),
    ];
    for (json, named) in cases {
        let tokenizer = Tokenizer::from_bytes("case.json".into(), json.to_string().as_bytes()).expect("a tokenizer");
        match tokenizer.device_text() {
            Ok(_) => assert!(named.is_empty(), "{named} was accepted"),
            Err(part) => assert!(!named.is_empty() && part.to_string().contains(named), "{part}"),
        }
    }
}

#[test]
fn sections_that_lie_are_refused_or_work() {
    for tokenizer in made().into_iter().step_by(3) {
        let text = TEXTS.concat();
        let mut state = 1u64;
        for round in 0..3000 {
            let mut section = tokenizer.section.clone();
            for _ in 0..1 + round % 3 {
                state = slm_runtime::sample::random_u64(state, round);
                // Half of the changes are in the record, where the counts are.
                let end = if state & 1 == 0 { 128.min(section.len()) } else { section.len() };
                let at = (state >> 8) as usize % end;
                section[at] = (state >> 3) as u8;
            }
            if round % 10 == 0 {
                section.truncate((state >> 5) as usize % section.len());
            }
            let Ok(tables) = TextTables::read(&section, tokenizer.vocabulary) else { continue };
            let lying = slm_runtime::tokenizer::Tokenizer::new(&tables);
            let required = lying.required_bytes(text.len()).unwrap_or(0).min(1 << 20);
            let mut memory = vec![0u8; required + ALIGNMENT];
            let start = memory.as_ptr().align_offset(ALIGNMENT);
            for length in [required, required / 2, 100, 0] {
                let length = length.min(required);
                let mut most = 0;
                let _ =
                    lying.encode(&text, true, &mut memory[start..start + length], &mut |token| most = most.max(token));
                assert!(most < tokenizer.vocabulary, "{}: {most}", tokenizer.name);
            }
        }
    }
}
