//! `generate --chat`: the prompt that a template makes of a question, on a directory and on the artifact that carries the
//! template, and templates that cannot be used.

use crate::fixture::{self, Family, Size};
use crate::support::{json as json_line, refused, run};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

/// Longest time that a refusal of a hostile template may take.
const PATIENCE: Duration = Duration::from_secs(20);

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ message['role'] }} {{ message.content | trim }}.\n\
    {% endfor %}{% if add_generation_prompt %}a {% endif %}";

/// A decoder `m` with this template.
fn workplace(template: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("m");
    fixture::write(&model, Family::TiedLlama, Size::SMALL);
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template});
    fs::write(model.join("tokenizer_config.json"), config.to_string()).expect("writes");
    directory
}

#[test]
fn a_question_is_asked_through_the_template() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    let asked = json_line(directory, &["generate", "m", "--chat", " the fox ", "--tokens", "8"]);
    assert_eq!(asked["prompt"], "<s>user the fox.\na ");
    let system = json_line(directory, &["generate", "m", "--chat", "fox", "--system", "be a dog", "--tokens", "8"]);
    assert_eq!(system["prompt"], "<s>system be a dog.\nuser fox.\na ");
    // The template writes the opening token itself: continuing the rest of the prompt as a text gives the same tokens.
    let continued = json_line(directory, &["generate", "m", "--prompt", "user the fox.\na ", "--tokens", "8"]);
    assert_eq!(continued["tokens"], asked["tokens"]);
    assert_eq!(continued["text"], format!("user the fox.\na {}", asked["text"].as_str().expect("a text")));
    let shown = run(directory, &["generate", "m", "--chat", " the fox ", "--tokens", "8"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), format!("{}\n", asked["text"].as_str().expect("a text")));

    json_line(directory, &["quantize", "m", "--scheme", "w8", "--method", "rtn", "-o", "w8"]);
    json_line(directory, &["compile", "w8", "--target", "x86-64-v3", "-o", "a.slm"]);
    json_line(directory, &["compile", "w8", "--target", "x86-64-v3", "--device-only", "-o", "device.slm"]);
    assert_eq!(json_line(directory, &["inspect", "a.slm"])["chat_template"], true);
    let artifact = json_line(directory, &["generate", "a.slm", "--chat", "the fox", "--tokens", "8"]);
    assert_eq!((&artifact["prompt"], &artifact["prompt_tokens"]), (&asked["prompt"], &asked["prompt_tokens"]));
    let device = run(directory, &["generate", "device.slm", "--chat", "the fox"]);
    let stderr = String::from_utf8_lossy(&device.stderr);
    assert!(device.status.code() == Some(2) && stderr.contains("--tokenizer DIR"), "{stderr}");
    let elsewhere =
        json_line(directory, &["generate", "device.slm", "--chat", "the fox", "--tokens", "8", "--tokenizer", "m"]);
    assert_eq!(elsewhere["tokens"], artifact["tokens"]);
}

#[test]
fn templates_that_cannot_be_used_are_refused_in_time() {
    let huge = "x".repeat(4 << 20);
    let cases: [(&str, &str); 9] = [
        ("{{ raise_exception('no system message, please') }}", "no system message, please"),
        ("{% for a in range(100000000) %}{% for b in range(100000000) %}x{% endfor %}{% endfor %}", "m"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "m"),
        ("{{ 'x' * 1000000000 }}", "m"),
        (
            "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}",
            "m",
        ),
        ("{% for message in messages %}", "m"),
        ("{{ tools_of_the_house.first }}", "tools_of_the_house"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
        (&huge, "m"),
    ];
    for (template, expected) in cases {
        let workplace = workplace(template);
        let start = Instant::now();
        let output = run(workplace.path(), &["generate", "m", "--chat", "fox"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let shown = &template[..template.len().min(80)];
        assert_eq!(output.status.code(), Some(2), "{shown}: {stderr}");
        assert!(start.elapsed() < PATIENCE, "{shown} took {:?}", start.elapsed());
        assert!(stderr.contains("error: ") && stderr.contains(expected), "{shown}: {stderr}");
        assert!(output.stdout.is_empty() && stderr.len() < 2000, "{shown}: {stderr}");
        // Nothing is written that carries it.
        let quantized = run(workplace.path(), "quantize m --scheme w8 --method rtn -o out");
        assert_eq!(quantized.status.code(), Some(2), "{shown}: {}", String::from_utf8_lossy(&quantized.stderr));
        assert!(!workplace.path().join("out").exists(), "{shown}");
    }
}

#[test]
fn a_model_without_a_template_says_what_to_do() {
    let workplace = workplace("");
    let directory = workplace.path();
    fs::remove_file(directory.join("m/tokenizer_config.json")).expect("it is there");
    for (arguments, expected) in [
        (&["generate", "m", "--chat", "fox"][..], "m: holds no chat template"),
        (&["generate", "m", "--chat", "fox", "--prompt", "dog"], "cannot be used with"),
        (&["generate", "m", "--system", "fox"], "--chat <TEXT>"),
        (&["generate", "m", "--system", "fox", "--prompt", "dog"], "cannot be used with"),
    ] {
        let output = run(directory, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn templates_in_files_travel_with_the_model() {
    let workplace = workplace("config {{ messages[0].content }}");
    let directory = workplace.path();
    let folder = directory.join("m/additional_chat_templates");
    fs::create_dir(&folder).expect("a directory");
    fs::write(folder.join("default.jinja"), "file {{ messages[0].content }}").expect("writes");
    let asked =
        |model: &str| json_line(directory, &["generate", model, "--chat", "-x", "--tokens", "1"])["prompt"].clone();
    assert_eq!(asked("m"), "file -x");
    json_line(directory, "quantize m --scheme w8 --method rtn -o w8");
    json_line(directory, "compile w8 --target x86-64-v3 -o a.slm");
    assert_eq!((asked("w8"), asked("a.slm")), (json!("file -x"), json!("file -x")));
    // A template of another name is not the default one.
    fs::rename(folder.join("default.jinja"), folder.join("rag.jinja")).expect("renames");
    refused(directory, "generate m --chat x", "(rag) and none of them is called `default`");
    // What stands in the place of a file is not taken for its absence.
    fs::remove_dir_all(&folder).expect("it is there");
    for name in ["chat_template.jinja", "generation_config.json"] {
        fs::create_dir(directory.join("m").join(name)).expect("a directory");
        refused(directory, "quantize m --scheme w8 --method rtn -o other", name);
        fs::remove_dir(directory.join("m").join(name)).expect("it is there");
    }
    fs::write(directory.join("m/chat_template.jinja"), " \n").expect("writes");
    refused(directory, "generate m --chat x", "makes an empty text of this conversation");
}
