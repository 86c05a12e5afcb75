//! Defaults of generation_config.json through the whole program: a directory, its artifact on the host and in C choose
//! tokens as the file says; options go before it; what is not followed is named, what cannot be is refused.

use crate::c_interface;
use crate::fixture::{self, Family, Size};
use crate::support::{json as json_line, refused, run, stderr};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const DRAWS: &str = "--temperature 1.4 --top-k 9 --top-p 0.9 --min-p 0.02 --repetition-penalty 1.3";

fn draws() -> Value {
    json!({"do_sample": true, "temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3,
           "eos_token_id": [2]})
}

/// A decoder `m` with this generation_config.json.
fn workplace(generation: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::TiedLlama, Size::SMALL);
    write(directory.path(), generation);
    directory
}

fn write(directory: &Path, generation: &Value) {
    fs::write(directory.join("m/generation_config.json"), generation.to_string()).expect("writes");
}

fn compile(directory: &Path, name: &str) {
    json_line(directory, &format!("quantize m --scheme w8 --method rtn -o {name}-w8"));
    json_line(directory, &format!("compile {name}-w8 --target x86-64-v3 -o {name}.slm"));
}

#[test]
fn a_directory_and_its_artifact_choose_as_the_file_says() {
    let workplace = workplace(&json!({}));
    let directory = workplace.path();
    compile(directory, "plain");
    write(directory, &draws());
    compile(directory, "a");
    for (own, plain) in [("m", "m"), ("a.slm", "plain.slm")] {
        for seed in ["0", "7"] {
            let prompt = format!("--prompt fox --tokens 30 --seed {seed}");
            let of_file = json_line(directory, &format!("generate {own} {prompt}"));
            write(directory, &json!({"eos_token_id": [2]}));
            let by_options = json_line(directory, &format!("generate {plain} {prompt} {DRAWS}"));
            let greedy = json_line(directory, &format!("generate {plain} {prompt}"));
            write(directory, &draws());
            assert_eq!(of_file["tokens"], by_options["tokens"], "{own} {seed}");
            assert_ne!(of_file["tokens"], greedy["tokens"], "{own} {seed}");
            assert_eq!(of_file["sampling"], by_options["sampling"]);
            let temperature = |line: &Value| line["sampling"]["temperature"].clone();
            assert_eq!((temperature(&of_file), temperature(&greedy)), (json!(1.4), json!(0.0)));
            // An option goes before the file; the others stay.
            let over = json_line(directory, &format!("generate {own} {prompt} --temperature 0 --repetition-penalty 1"));
            assert_eq!(over["tokens"], greedy["tokens"], "{own} {seed}");
            assert_eq!(over["sampling"]["top_k"], 9);
        }
    }
    let inspected = json_line(directory, "inspect a.slm");
    assert_eq!((&inspected["version"], &inspected["sampling"]["top_k"]), (&json!("1.6"), &json!(9)));
    assert_eq!(json_line(directory, "inspect plain.slm")["version"], "1.1");
    json_line(directory, "verify a.slm");
    // On a device: the defaults are in its part of the file.
    c_interface::generates_as_slmc_does(&directory.join("a.slm"), "fox", 30);
    json_line(directory, "compile a-w8 --target x86-64-v3 --device-only -o device.slm");
    c_interface::generates_as_slmc_does_with(
        &directory.join("device.slm"),
        "fox",
        30,
        &["--tokenizer", &directory.join("m").display().to_string()],
    );
    let shown = stderr(&run(directory, "generate a.slm --prompt fox --tokens 3"));
    assert!(
        shown.contains("note: tokens are chosen as the model's generation_config.json says: temperature 1.4, top-k 9"),
        "{shown}"
    );
    let shown = stderr(&run(directory, "generate a.slm --prompt fox --tokens 3 --top-k 4"));
    assert!(
        shown.contains("by the options over the model's generation_config.json: temperature 1.4, top-k 4"),
        "{shown}"
    );
    let shown = stderr(&run(directory, "generate plain.slm --prompt fox --tokens 3"));
    assert!(!shown.contains("chosen"), "{shown}");
}

#[test]
fn a_penalty_counts_without_draws_and_the_prompt_counts_too() {
    let workplace = workplace(&json!({"repetition_penalty": 5.0}));
    let directory = workplace.path();
    let tokens = |options: &str| -> Vec<u64> {
        let line = json_line(directory, &format!("generate m --prompt fox --tokens 12 {options}"));
        line["tokens"].as_array().expect("tokens").iter().map(|id| id.as_u64().expect("an id")).collect()
    };
    let (with, without) = (tokens(""), tokens("--repetition-penalty 1"));
    assert_ne!(with, without);
    // With so large a penalty a token comes back only where all others are less likely still.
    let distinct = |tokens: &[u64]| tokens.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(&with) > distinct(&without), "{with:?} {without:?}");
}

#[test]
fn a_conversation_begins_with_the_same_defaults() {
    let workplace = workplace(&draws());
    let directory = workplace.path();
    let template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}.\n{% endfor %}a ";
    fs::write(directory.join("m/tokenizer_config.json"), json!({"chat_template": template}).to_string())
        .expect("writes");
    let asked = json_line(directory, &["generate", "m", "--chat", "fox", "--tokens", "9"]);
    fs::write(directory.join("questions.txt"), "fox\n").expect("writes");
    let output = crate::support::slmc(directory, "chat m --tokens 9 --json")
        .stdin(fs::File::open(directory.join("questions.txt")).expect("it is there"))
        .output()
        .expect("the program starts");
    let turn = crate::support::one_line(&output);
    assert_eq!((&turn["tokens"], &turn["sampling"]), (&asked["tokens"], &asked["sampling"]));
    assert!(stderr(&output).contains("as the model's generation_config.json says"), "{}", stderr(&output));
}

#[test]
fn what_is_not_followed_is_named_and_what_cannot_be_is_refused() {
    let workplace = workplace(&json!({"num_beams": 4, "no_repeat_ngram_size": 3}));
    let directory = workplace.path();
    for command in ["generate m --prompt fox --tokens 2", "quantize m --scheme w8 --method rtn -o q"] {
        let output = run(directory, command);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("warning: m/generation_config.json: `num_beams` is 4; slmc does not choose tokens by it"),
            "{said}"
        );
        assert!(said.contains("`no_repeat_ngram_size` is 3"), "{said}");
    }
    write(directory, &json!({"do_sample": true, "temperature": "hot"}));
    for command in ["generate m --prompt fox", "quantize m --scheme w8 -o out", "inspect m"] {
        refused(directory, command, "m/generation_config.json: `temperature` is \"hot\", expected a number");
    }
    assert!(!directory.join("out").exists());
    write(directory, &json!({}));
    for (option, expected) in [
        ("--min-p 1.5", "a number from 0 to 1"),
        ("--repetition-penalty 0", "a number from 0.01 to 100"),
        ("--temperature -1", "0, or a number from 0.001 to 1000"),
        ("--top-p 0", "a number above 0, up to 1"),
    ] {
        refused(directory, &format!("generate m --prompt fox {}", option.replace(' ', "=")), expected);
    }
}
