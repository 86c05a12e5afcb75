//! Tokenizers, special tokens and templates through a GGUF file: the same tokenizer comes back. The tokenizers are those that
//! other packages made (tests/data/gguf/make.py).

use super::model;
use crate::support::root;
use serde_json::{Value, json};
use slmc::disk::DenseTensor;
use slmc::formats::{self, ModelSink, hugging_face};
use slmc::model::companions::{Companions, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use slmc::model::id::{LinearId, ParameterId, Role};
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::stages::export::export_model;
use slmc::text::tokenizer::Tokenizer;
use std::path::Path;

/// A model with as many tokens as are needed and more, and these companions, in a directory.
fn with_companions(family: &str, tokens: usize, companions: Companions, out: &Path) {
    let mut model: Model = model(family);
    let (rows, hidden) = (tokens + 3, model.spec.hidden);
    let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
    let values: Vec<f32> = (0..rows * hidden).map(|n| (n % 17) as f32 / 17.0).collect();
    let tensor = DenseTensor::from_f32(vec![rows, hidden], &values).expect("as many values");
    model.parameters.insert(table, Parameter::Dense(tensor));
    model.spec.vocabulary = rows;
    let mut map = model.config.map().clone();
    map.insert("vocab_size".to_owned(), json!(rows));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        map.insert(key.to_owned(), Value::Null);
    }
    model.config = slmc::disk::Config::from_map(Path::new("config.json"), map);
    model.companions = companions;
    hugging_face::Directory(out).write(&model, &json!({})).expect("a directory");
}

fn json_of(companions: &Companions, name: &str) -> Value {
    let companion = companions.find(name).unwrap_or_else(|| panic!("{name} is there"));
    serde_json::from_slice(&companion.read().expect("readable")).expect("JSON")
}

#[test]
fn tokenizers_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        ("bpe-gpt-2", "llama-gqa-tied"),
        ("bpe-smollm", "llama-gqa-tied"),
        ("bpe-llama-bpe", "llama-gqa-tied"),
        ("bpe-qwen2", "qwen2-qkv-bias"),
        ("spm", "llama-gqa-tied"),
        ("spm-plain", "llama-gqa-tied"),
        ("wpm", "bert-encoder"),
    ];
    let texts =
        ["Hello, world! 123 and 4567.", "  two  spaces\nand a line,\tand a tab", "it's Zoë's naïve café: 数字 и слово"];
    for (name, family) in cases {
        let theirs = formats::companions(&root("tests/data/gguf").join(format!("{name}.gguf")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let first = json_of(&theirs, TOKENIZER_FILE);
        let tokens = first["model"]["vocab"].as_object().expect("a vocabulary").len();
        let source = directory.path().join(name);
        with_companions(family, tokens, theirs.clone(), &source);
        let out = directory.path().join(format!("{name}.gguf"));
        export_model(&super::options(&source, "gguf", &out), &Silent).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = formats::companions(&out).expect("a file");
        let again = json_of(&ours, TOKENIZER_FILE);
        for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
            assert_eq!(again[part], first[part], "{name}: {part}");
        }
        assert_eq!(again["model"]["vocab"], first["model"]["vocab"], "{name}");
        if first["model"]["type"] == "BPE" && !name.starts_with("spm") {
            assert_eq!(again["model"], first["model"], "{name}");
        }
        let encoded = |companions: &Companions| {
            let tokenizer = Tokenizer::of(companions).unwrap_or_else(|error| panic!("{name}: {error}"));
            texts.map(|text| tokenizer.encode_with_specials(text).unwrap_or_else(|error| panic!("{name}: {error}")))
        };
        assert_eq!(encoded(&ours), encoded(&theirs), "{name}");
        for key in ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "mask_token"] {
            let value = |companions: &Companions| json_of(companions, TOKENIZER_CONFIG_FILE)[key].clone();
            if !value(&theirs).is_null() {
                assert_eq!(value(&ours), value(&theirs), "{name}: {key}");
            }
        }
    }
}

#[test]
fn templates_and_end_tokens_come_along_and_foreign_tokenizers_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let theirs = formats::companions(&root("tests/data/gguf/bpe-gpt-2.gguf")).expect("a tokenizer");
    let tokenizer = json_of(&theirs, TOKENIZER_FILE);
    let tokens = tokenizer["model"]["vocab"].as_object().expect("a vocabulary").len();
    let exported = |change: &dyn Fn(&mut Value), name: &str| {
        let mut changed = tokenizer.clone();
        change(&mut changed);
        let mut companions = Companions::of(Path::new("nowhere"));
        companions.add_bytes(TOKENIZER_FILE, changed.to_string().into_bytes());
        companions.add_bytes(TEMPLATE_FILE, b"{{ messages[0].content }}".to_vec());
        companions.add_bytes("additional_chat_templates/tools.jinja", b"{{ tools }}".to_vec());
        companions.add_bytes("generation_config.json", b"{\"eos_token_id\": [3, 5]}".to_vec());
        let source = directory.path().join(name);
        with_companions("llama-gqa-tied", tokens, companions, &source);
        let out = directory.path().join(format!("{name}.gguf"));
        let exported = export_model(&super::options(&source, "gguf", &out), &Silent);
        exported.map(|_| out).map_err(|error| error.to_string())
    };
    let out = exported(&|_| {}, "whole").expect("it is written");
    let ours = formats::companions(&out).expect("a file");
    assert_eq!(&*ours.find(TEMPLATE_FILE).expect("a template").read().expect("readable"), b"{{ messages[0].content }}");
    assert!(ours.find("additional_chat_templates/tools.jinja").is_some());
    // And those that llama.cpp knows by their spelling.
    let ends = json_of(&ours, "generation_config.json")["eos_token_id"].clone();
    assert_eq!(ends.as_array().expect("a list")[..2], [json!(3), json!(5)]);
    type Change<'c> = &'c dyn Fn(&mut Value);
    let refusals: [(Change<'_>, &str); 4] = [
        (&|json| json["normalizer"] = json!({"type": "Lowercase"}), "`normalizer` is"),
        (&|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true), "puts a space before a text"),
        (&|json| json["model"]["type"] = json!("Unigram"), "`model.type` is Unigram"),
        (&|json| json["model"]["continuing_subword_prefix"] = json!("##"), "`model.continuing_subword_prefix` is"),
    ];
    for (number, (change, expected)) in refusals.into_iter().enumerate() {
        let error = exported(change, &format!("refused-{number}")).expect_err("it is refused");
        assert!(
            error.contains("tokenizer.json: gguf cannot hold this tokenizer") && error.contains(expected),
            "{error}"
        );
    }
}
