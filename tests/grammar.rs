//! Outputs that follow a grammar, through the whole program: in artifacts and beside them, on the runtime and in f32, as
//! JSON schemas, expressions, rules and choices; what cannot be followed is refused by name.

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, root, shared};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A model `m` of letters, its artifact `a.slm`, and grammars.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    json(path, "quantize m --scheme w8 --method rtn -o q");
    json(path, "compile q --target x86-64-v3 -o a.slm");
    fs::write(path.join("intents.txt"), "order food\norder drink\ncall home\n").expect("writes");
    fs::write(path.join("rules.gbnf"), "root ::= item (\" and \" item){1,2}\nitem ::= \"fox\" | \"hen\" | \"cow\"\n")
        .expect("writes");
    directory
}

/// What the model adds to a prompt.
fn added(report: &Value) -> String {
    let text = report["text"].as_str().expect("a text");
    text.strip_prefix("say ").expect("the prompt").to_owned()
}

const INTENTS: [&str; 3] = ["order food", "order drink", "call home"];

#[test]
fn outputs_follow_their_grammar_on_both_engines() {
    let workplace = workplace();
    let directory = workplace.path();
    let rules = regex::Regex::new("^(fox|hen|cow)( and (fox|hen|cow)){1,2}$").expect("an expression");
    let expression = regex::Regex::new("^[a-f]{3,6}x?$").expect("an expression");
    for model in ["a.slm", "m"] {
        for seed in 0..4 {
            let choice =
                if seed == 0 { "--temperature 0".to_owned() } else { format!("--temperature 1.2 --seed {seed}") };
            let ask = |grammar: &str| json(directory, &format!("generate {model} --prompt 'say ' {choice} {grammar}"));
            let intent = ask("--choices intents.txt");
            assert!(INTENTS.contains(&added(&intent).as_str()), "{intent}");
            assert_eq!((&intent["grammar"]["complete"], &intent["stop"]), (&true.into(), &"end".into()));
            assert!(intent["grammar"]["forced"].as_u64().is_some_and(|forced| forced > 5), "{intent}");
            let found = ask("--grammar rules.gbnf");
            assert!(rules.is_match(&added(&found)), "{found}");
            let found = ask("--regex [a-f]{3,6}x?");
            assert!(expression.is_match(&added(&found)), "{found}");
        }
    }
}

#[test]
fn an_artifact_carries_its_grammar() {
    let workplace = workplace();
    let directory = workplace.path();
    let report = json(directory, "compile q --target x86-64-v3 --choices intents.txt -o intents.slm");
    assert!(report["grammar_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
    json(directory, "verify intents.slm");
    let own = json(directory, "generate intents.slm --prompt 'say ' --temperature 1 --seed 5");
    let beside = json(directory, "generate a.slm --prompt 'say ' --temperature 1 --seed 5 --choices intents.txt");
    assert_eq!(own["tokens"], beside["tokens"]);
    let free = json(directory, "generate intents.slm --prompt 'say ' --temperature 1 --seed 5 --free");
    let plain = json(directory, "generate a.slm --prompt 'say ' --temperature 1 --seed 5");
    assert_eq!(free["tokens"], plain["tokens"]);
    assert!(free.get("grammar").is_none());
    // Cut: it says so, and what is there is the beginning of an allowed text.
    let cut = json(directory, "generate intents.slm --prompt 'say ' --tokens 3");
    assert_eq!((&cut["stop"], &cut["grammar"]["complete"]), (&"length".into(), &false.into()));
    assert!(INTENTS.iter().any(|intent| intent.starts_with(&added(&cut))), "{cut}");
    let long = "x ".repeat(45);
    let full = json(directory, &["generate", "intents.slm", "--prompt", &long]);
    assert_eq!((&full["stop"], &full["grammar"]["complete"]), (&"context".into(), &false.into()), "{full}");
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    let workplace = workplace();
    let directory = workplace.path();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("writes");
    write("left.gbnf", "root ::= root \"a\" | \"b\"\n");
    write("schema.json", r#"{"type": "string", "format": "date"}"#);
    write("empty.txt", "\n");
    write("japanese.txt", "\u{65e5}\u{672c}\n");
    let generate = |grammar: &str| format!("generate a.slm --prompt a {grammar}");
    refused(directory, &generate("--grammar left.gbnf"), "left.gbnf: rule `root` can begin with itself");
    refused(directory, &generate("--grammar absent.gbnf"), "absent.gbnf");
    refused(directory, &generate("--json-schema schema.json"), "the keyword `format` is not supported");
    refused(directory, &generate("--choices empty.txt"), "there are none");
    refused(directory, &generate("--regex (a"), "--regex");
    refused(directory, &generate("--regex a{100000}{100000}"), "exceeds");
    refused(directory, &generate("--regex a --choices empty.txt"), "cannot be used with");
    refused(
        directory,
        "compile q --target x86-64-v3 --choices japanese.txt -o x.slm",
        "no sequence of the model's tokens",
    );
    fixture::write(&directory.join("b"), Family::Bert, Size::SMALL);
    json(directory, "quantize b --scheme w8 --method rtn -o bq");
    refused(directory, "compile bq --target x86-64-v3 --regex a -o x.slm", "only decoders with logits");
    assert!(!directory.join("x.slm").exists());
}

#[test]
fn commands_for_a_robot_are_instances_of_their_schema() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory: &Path = directory.path();
    let Some(model) = shared("models/tales-6m") else { return };
    let schema = root("tests/data/robot.schema.json");
    let (model, schema) = (model.to_str().expect("UTF-8"), schema.to_str().expect("UTF-8"));
    json(directory, &["quantize", model, "--scheme", "w4", "--method", "rtn", "-o", "q"]);
    let compile = ["compile", "q", "--target", "x86-64-v3", "--context", "512", "--json-schema", schema, "-o", "r.slm"];
    json(directory, &compile);
    let text = fs::read_to_string(schema).expect("reads");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let members = schema["properties"].as_object().expect("members");
    for seed in 0..6 {
        let arguments = format!("generate r.slm --prompt Go --temperature 1 --seed {seed} --tokens 480");
        let report = json(directory, &arguments);
        let said = report["text"].as_str().expect("a text").strip_prefix("Go").expect("the prompt");
        let value: Value = serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let value = value.as_object().expect("an object");
        assert_eq!(value.keys().collect::<Vec<_>>(), members.keys().collect::<Vec<_>>());
        for (name, rule) in members {
            let found = &value[name];
            if let Some(words) = rule["enum"].as_array() {
                assert!(words.contains(found), "{name}: {found}");
            }
            if let Some(most) = rule["maximum"].as_i64() {
                let number = found.as_i64().expect("an integer");
                assert!((rule["minimum"].as_i64().unwrap_or(i64::MIN)..=most).contains(&number), "{name}: {number}");
            }
            if let Some(most) = rule["maxLength"].as_u64() {
                let length = found.as_str().expect("a string").chars().count() as u64;
                assert!((rule["minLength"].as_u64().unwrap_or(0)..=most).contains(&length), "{name}: {found}");
            }
        }
    }
}
