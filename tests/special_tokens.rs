//! Opening and end tokens through the whole program: what a prompt and a window begin with, where an answer ends, what an
//! artifact says of both on the host and in C, and what is refused. The inputs are those of public bug reports: an opening
//! token that only config.json names, end tokens that only generation_config.json lists, records without an end between.

use crate::c_interface;
use crate::fixture::{self, Family, Size, letters};
use crate::support::{json as json_line, refused, run, stderr};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A decoder `m`, a text, and a tokenizer with this post-processor.
fn workplace(processor: Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("m");
    fixture::write(&model, Family::TiedLlama, Size::SMALL);
    let mut tokenizer = letters();
    tokenizer["post_processor"] = processor;
    write(&model, "tokenizer.json", &tokenizer);
    fs::write(directory.path().join("text.txt"), "the fox ran over the hill. ".repeat(80)).expect("writes");
    directory
}

fn write(directory: &Path, name: &str, content: &Value) {
    fs::write(directory.join(name), content.to_string()).expect("writes");
}

/// A post-processor that opens with these tokens.
fn opening_with(tokens: &[&str]) -> Value {
    let ids = json!({"<unk>": 0, "<s>": 1, "</s>": 2});
    let special = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let single: Vec<Value> =
        tokens.iter().map(special).chain([json!({"Sequence": {"id": "A", "type_id": 0}})]).collect();
    let named =
        tokens.iter().map(|&token| (token.to_owned(), json!({"id": token, "ids": [ids[token]], "tokens": [token]})));
    json!({"type": "TemplateProcessing", "single": single, "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
           "special_tokens": Value::Object(named.collect())})
}

/// An artifact of `m`, rounded alone: what is compared does not depend on how good the integers are.
fn artifact(directory: &Path, name: &str) -> PathBuf {
    json_line(directory, &format!("quantize m --scheme w8 --method rtn -o {name}-w8"));
    json_line(directory, &format!("compile {name}-w8 --target x86-64-v3 -o {name}.slm"));
    directory.join(format!("{name}.slm"))
}

#[test]
fn a_prompt_opens_as_its_tokenizer_says() {
    // config.json of the fixture has bos_token_id 1 in every case.
    let adds = json!({"add_bos_token": true, "bos_token": "<s>"});
    for (processor, config, opening) in [
        (Value::Null, None, vec![]),
        (Value::Null, Some(json!({"add_bos_token": false, "bos_token": "<s>"})), vec![]),
        (Value::Null, Some(adds), vec![1]),
        (opening_with(&["<s>"]), None, vec![1]),
        (opening_with(&["</s>", "<s>"]), None, vec![2, 1]),
    ] {
        let workplace = workplace(processor);
        let directory = workplace.path();
        if let Some(config) = config {
            write(&directory.join("m"), "tokenizer_config.json", &config);
        }
        let of_directory = json_line(directory, "generate m --prompt fox --tokens 4");
        assert_eq!(of_directory["prompt_tokens"], 4 + opening.len(), "▁ f o x after {opening:?}");
        let artifact = artifact(directory, "a");
        assert_eq!(json_line(directory, "inspect a.slm")["opening_tokens"], json!(opening));
        assert_eq!(json_line(directory, "generate a.slm --prompt fox --tokens 4")["prompt_tokens"], 4 + opening.len());
        // The device's tokenizer and the host's agree on what stands around a text.
        json_line(directory, "verify a.slm");
        c_interface::generates_as_slmc_does(&artifact, "fox", 8);
    }
}

#[test]
fn a_window_opens_as_its_tokenizer_says() {
    let windows = |processor| {
        let workplace = workplace(processor);
        json_line(workplace.path(), "eval m --data text.txt --window 9 --max-windows 1000")["windows"].as_u64()
    };
    let text = 27 * 80 + 1;
    assert_eq!(windows(Value::Null), Some(text / 9));
    assert_eq!(windows(opening_with(&["<s>"])), Some(text / 8));
    assert_eq!(windows(opening_with(&["</s>", "<s>"])), Some(text / 7));
}

#[test]
fn an_answer_ends_at_any_of_the_end_tokens() {
    let workplace = workplace(opening_with(&["<s>"]));
    let directory = workplace.path();
    let model = directory.join("m");
    let free = json_line(directory, "generate m --prompt fox --tokens 12")["tokens"].clone();
    artifact(directory, "free");
    let free_integers = json_line(directory, "generate free.slm --prompt fox --tokens 12")["tokens"].clone();
    for (name, model_file, free) in [("m", "m", free), ("w8", "free-w8", free_integers)] {
        let tokens: Vec<u64> =
            free.as_array().expect("tokens").iter().map(|id| id.as_u64().expect("a token")).collect();
        let end = tokens[4];
        let first = tokens.iter().position(|&token| token == end).expect("it is there");
        write(&directory.join(model_file), "generation_config.json", &json!({"eos_token_id": [2, end]}));
        let subject = if name == "m" {
            "m".to_owned()
        } else {
            json_line(directory, "compile free-w8 --target x86-64-v3 -o w8.slm");
            assert_eq!(json_line(directory, "inspect w8.slm")["end_tokens"], json!([2, end]));
            c_interface::generates_as_slmc_does(&directory.join("w8.slm"), "fox", 12);
            "w8.slm".to_owned()
        };
        let ended = json_line(directory, &format!("generate {subject} --prompt fox --tokens 12"));
        assert_eq!((&ended["tokens"], &ended["stop"]), (&json!(tokens[..first]), &json!("end")), "{subject}");
    }
    // Rounding and pruning keep the file.
    fs::remove_file(model.join("generation_config.json")).expect("it is there");
    write(&model, "generation_config.json", &json!({"eos_token_id": [3, 2]}));
    json_line(directory, "prune m --pattern 2:4 --method magnitude -o sparse");
    artifact(directory, "listed");
    assert_eq!(json_line(directory, "inspect listed.slm")["end_tokens"], json!([3, 2]));
    let kept = fs::read_to_string(directory.join("sparse/generation_config.json")).expect("it travels with the model");
    assert_eq!(kept, json!({"eos_token_id": [3, 2]}).to_string());
}

#[test]
fn a_model_trained_on_records_ends_after_one() {
    let workplace = workplace(opening_with(&["<s>"]));
    let directory = workplace.path();
    let record = |n: usize| format!("{}\n", json!({"text": format!("the fox ran {}.", ["up", "on", "by"][n % 3])}));
    fs::write(directory.join("t.jsonl"), (0..600).map(record).collect::<String>()).expect("writes");
    let train = "train m --data t.jsonl --field text --window 32 --tokens 60000 --learning-rate 5e-3 -o trained";
    json_line(directory, train);
    let written = json_line(directory, "generate trained --prompt the --tokens 60");
    assert_eq!(written["stop"], "end", "{written}");
    let text = written["text"].as_str().expect("a text");
    assert!(text.starts_with("the fox ran ") && text.ends_with('.') && text.len() < 20, "{text:?}");
    // Without an end token the records are joined, and the report says so.
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(directory.join("m/config.json")).expect("reads")).expect("JSON");
    config["eos_token_id"] = Value::Null;
    write(&directory.join("m"), "config.json", &config);
    let output = run(directory, "eval m --data t.jsonl --field text --window 16");
    let stderr = stderr(&output);
    assert!(output.status.success() && stderr.contains("the model states no end token"), "{stderr}");
}

#[test]
fn files_that_cannot_be_are_refused_and_nothing_is_written() {
    let commands = ["generate m --prompt fox", "quantize m --scheme w8 -o out", "eval m --data text.txt --window 8"];
    let missing = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": [{"SpecialToken": {"id": "<z>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    let cases = [
        (missing, "generation_config.json", json!({}), "tokenizer.json: `post_processor` is {"),
        (
            Value::Null,
            "generation_config.json",
            json!({"eos_token_id": [2, "</s>"]}),
            "generation_config.json: `eos_token_id` is [2,\"</s>\"], expected a token id, or a list of them",
        ),
        (
            Value::Null,
            "tokenizer_config.json",
            json!({"add_bos_token": true, "bos_token": "<none>"}),
            "tokenizer_config.json: `bos_token` is `<none>`, expected a token that",
        ),
        (
            Value::Null,
            "tokenizer_config.json",
            json!({"add_bos_token": true}),
            "tokenizer_config.json: `bos_token` is absent",
        ),
    ];
    for (processor, name, content, expected) in cases {
        let workplace = workplace(processor);
        write(&workplace.path().join("m"), name, &content);
        for command in commands {
            refused(workplace.path(), command, expected);
        }
        assert!(!workplace.path().join("out").exists());
    }
}

#[test]
fn a_trained_tokenizer_says_what_it_opens_with() {
    let workplace = workplace(Value::Null);
    let directory = workplace.path();
    json_line(directory, "tokenizer train --vocab 300 --data text.txt -o tok");
    let written = fs::read_to_string(directory.join("tok/tokenizer.json")).expect("it is written");
    let written: Value = serde_json::from_str(&written).expect("JSON");
    let opening = slmc::model::special_tokens::around_text(&written["post_processor"]);
    assert_eq!(opening, Some((vec![0], vec![])), "<s> before a text, nothing after it");
}

#[test]
fn an_end_token_that_a_record_has_stands_once() {
    let workplace = workplace(Value::Null);
    let directory = workplace.path();
    let tokens = |record: &str| {
        fs::write(directory.join("t.jsonl"), format!("{}\n", json!({"text": record})).repeat(40)).expect("writes");
        json_line(directory, "eval m --data t.jsonl --field text --window 2 --max-windows 10000")["tokens"].clone()
    };
    assert_eq!(tokens("the fox"), tokens("the fox</s>"));
}
