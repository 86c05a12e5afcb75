//! Tokenizers rebuilt from keys give the tokens that their own libraries give.

use super::data;
use super::draft::{Draft, Field};
use crate::support::root;
use serde_json::Value;
use slmc::formats;
use slmc::model::companions::{Companions, GENERATION_CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE};
use slmc::text::tokenizer::{Tokenizer, TokenizerError};

/// Tokenizers that are recorded.
const NAMES: [&str; 7] = ["bpe-gpt-2", "bpe-llama-bpe", "bpe-qwen2", "bpe-smollm", "spm", "spm-plain", "wpm"];

fn companions(name: &str) -> Companions {
    formats::companions(&data(&format!("{name}.gguf"))).expect("its keys are sound")
}

#[test]
fn tokens_are_those_of_the_library_that_made_the_tokenizer() {
    let recorded = std::fs::read_to_string(root("tests/data/gguf/tokenizers.json")).expect("it is recorded");
    let recorded: Value = serde_json::from_str(&recorded).expect("JSON");
    let recorded = recorded.as_object().expect("tokenizers by name");
    let mut names: Vec<&str> = recorded.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, NAMES);
    for name in NAMES {
        let tokenizer = Tokenizer::of(&companions(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let texts = recorded[name].as_array().expect("texts");
        assert_eq!(texts.len(), 5, "{name}");
        for entry in texts {
            let text = entry["text"].as_str().expect("a text");
            let expected: Vec<u64> =
                entry["tokens"].as_array().expect("tokens").iter().map(|id| id.as_u64().expect("an id")).collect();
            let ours = tokenizer.encode_with_specials(text).expect("it encodes");
            assert_eq!(ours.into_iter().map(u64::from).collect::<Vec<_>>(), expected, "{name}: {text:?}");
        }
        // The device has code for every part of it.
        if let Err(problem) = tokenizer.device_text() {
            panic!("{name}: {problem}");
        }
    }
}

#[test]
fn texts_come_back_from_their_tokens() {
    for name in ["bpe-gpt-2", "bpe-llama-bpe", "spm", "spm-plain"] {
        let tokenizer = Tokenizer::of(&companions(name)).expect("it is sound");
        for text in ["two  spaces, and 17.", "naïve café"] {
            let tokens = tokenizer.encode_with_specials(text).expect("it encodes");
            assert_eq!(tokenizer.decode(&tokens).expect("it decodes"), text, "{name}");
        }
    }
}

/// What a tokenizer is refused for, in words.
fn reason(draft: &Draft) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, draft.bytes()).expect("writes");
    let companions = formats::companions(&path).expect("the rest of its keys is sound");
    assert!(companions.find(TOKENIZER_FILE).is_none());
    match Tokenizer::of(&companions).err().expect("there is none") {
        error @ TokenizerError::NotRebuilt { .. } => {
            let text = error.to_string();
            assert!(text.contains("model.gguf: the tokenizer cannot be rebuilt") && text.contains("--tokenizer DIR"));
            text
        }
        other => panic!("{other}"),
    }
}

#[test]
fn what_cannot_be_rebuilt_is_named() {
    let text = |text: &str| Field::Text(text.to_owned());
    let texts = |texts: &[&str]| Field::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let bpe = || {
        Draft::llama()
            .with(&key("model"), text("gpt2"))
            .with(&key("pre"), text("gpt-2"))
            .with(&key("tokens"), texts(&["a", "b", "ab"]))
            .with(&key("merges"), texts(&["a b"]))
    };
    let spm = || Draft::llama().with(&key("model"), text("llama")).with(&key("tokens"), texts(&["a", "b", "ab"]));
    let wpm = || Draft::llama().with(&key("model"), text("bert")).with(&key("tokens"), texts(&["▁a", "b"]));
    let opens = || bpe().with(&key("add_bos_token"), Field::Flag(true));
    let cases = [
        (bpe().with(&key("model"), text("t5")), "`t5`, sentencepiece's Unigram"),
        (bpe().with(&key("model"), text("rwkv")), "`rwkv`, a kind that slmc does not know"),
        (bpe().with(&key("model"), text("none")), "so the file has no tokenizer"),
        (bpe().without(&key("model")), "the file has no `tokenizer.ggml.model`"),
        (bpe().without(&key("tokens")), "the file has no `tokenizer.ggml.tokens`"),
        (bpe().without(&key("merges")), "the file has no `tokenizer.ggml.merges`"),
        (bpe().with(&key("pre"), text("viking")), "`viking`, a way to cut text"),
        (bpe().with(&key("merges"), texts(&["a c"])), "does not make one token of two"),
        (bpe().with(&key("merges"), texts(&["ab"])), "does not make one token of two"),
        (bpe().with(&key("tokens"), texts(&["a", "a", "ab"])), "tokens 0 and 1 are both spelled"),
        (bpe().with(&key("token_type"), Field::I32s(vec![1, 1])), "has 2 entries for 3 tokens"),
        (bpe().with(&key("tokens"), texts(&["a", "b", &"x".repeat(2000)])), "token 2 has 2000 bytes"),
        (bpe().with("tokenizer.huggingface.json", text("{")), "`tokenizer.huggingface.json` is not JSON"),
        (opens(), "the file has no `tokenizer.ggml.bos_token_id`"),
        (opens().with(&key("bos_token_id"), Field::U32(7)), "is 7, beyond the 3 tokens"),
        (spm(), "the file has no `tokenizer.ggml.scores`"),
        (spm().with(&key("scores"), Field::F32s(vec![0.0, f32::NAN, 1.0])), "does not hold a number for each token"),
        (wpm(), "lacks [CLS], [SEP] or [UNK]"),
    ];
    for (draft, expected) in cases {
        let reason = reason(&draft);
        assert!(reason.contains(expected), "expected {expected:?} in {reason}");
    }
}

#[test]
fn end_tokens_and_templates_come_from_the_keys() {
    let text = |text: &str| Field::Text(text.to_owned());
    let tokens = ["a", "</s>", "<|im_end|>", "<|eot_id|>", "<|end|>"].map(str::to_owned).to_vec();
    let draft = Draft::llama()
        .with("tokenizer.ggml.tokens", Field::Texts(tokens))
        .with("tokenizer.ggml.token_type", Field::I32s(vec![1, 3, 3, 4, 1]))
        .with("tokenizer.ggml.eos_token_id", Field::U32(2))
        .with("tokenizer.chat_template", text("{{ messages[0].content }}"))
        .with("tokenizer.chat_template.tool_use", text("tools"))
        .with("tokenizer.chat_template.../../out", text("escapes"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, draft.bytes()).expect("writes");
    let companions = formats::companions(&path).expect("its keys are sound");
    let generation = companions.find(GENERATION_CONFIG_FILE).expect("it is made").config().expect("JSON");
    // The token of the key first, then by spelling; the last is spelled so and is an ordinary token.
    assert_eq!(generation.value("eos_token_id"), Some(&serde_json::json!([2, 1, 3])));
    let read = |name: &str| companions.find(name).map(|file| file.read().expect("bytes").into_owned());
    assert_eq!(read(TEMPLATE_FILE).as_deref(), Some(&b"{{ messages[0].content }}"[..]));
    assert_eq!(read("additional_chat_templates/tool_use.jinja").as_deref(), Some(&b"tools"[..]));
    assert!(companions.iter().all(|(name, _)| !name.contains("..")), "a name that leads elsewhere is left out");
    let notes = formats::notes(&path);
    assert!(notes.iter().any(|note| note.is_warning() && note.to_string().contains("not a plain word")), "{notes:?}");
}
