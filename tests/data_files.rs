//! Data files as people have them, in every stage that reads one: documents between separators, counts of what was left out in
//! every report, conversations in recipes.

mod refused;

use crate::conversations::{TEMPLATE, workplace};
use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, root, run, stderr, succeed, without_cost};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const TRAINING: &str = "--window 32 --batch 4 --tokens 600";

/// A small decoder `m` whose end token is stated, and documents as `docs.txt`, between separators, and as `docs.jsonl`.
fn decoder() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    let documents: Vec<String> = (0..40)
        .map(|n| format!("the cat sat on the mat{} and the dog ran to the man.", " again".repeat(n % 4)))
        .collect();
    fs::write(path.join("docs.txt"), documents.join("\n--\n\n") + "\n--\n").expect("writes");
    let rows: String = documents.iter().map(|text| format!("{}\n", json!({ "text": text }))).collect();
    fs::write(path.join("docs.jsonl"), rows).expect("writes");
    directory
}

/// The stages with a file of documents; `{}` stands for the options of the file, after its name.
const STAGES: [(&str, &str); 7] = [
    ("train", "train m --data {} TRAINING -o out"),
    ("distill", "distill --teacher m --layers 0 --data {} TRAINING -o out"),
    ("quantize", "quantize m --scheme w4 --method search --calibration {} -o out"),
    ("qat", "quantize m --scheme w4 --method rtn --activations *=a8 --qat --data {} TRAINING -o out"),
    ("prune", "prune m --pattern 2:4 --method wanda --calibration {} -o out"),
    ("recover", "prune m --pattern 2:4 --method magnitude --recover --data {} TRAINING -o out"),
    ("eval", "eval m --data {} --window 32"),
];

fn of_stage(line: &str, data: &str) -> String {
    line.replace("{}", data).replace("TRAINING", TRAINING)
}

/// The weights that a stage wrote, and its report without the files it read.
fn outcome(directory: &Path, line: &str) -> (Option<Vec<u8>>, Value) {
    let mut report = without_cost(json(directory, line));
    let object = report.as_object_mut().expect("an object");
    for key in ["files_read", "calibration", "tokens_per_s"] {
        object.remove(key);
    }
    if let Some(training) = object.get_mut("training").and_then(Value::as_object_mut) {
        training.remove("files_read");
    }
    let weights = fs::read(directory.join("out/model.safetensors")).ok();
    let _ = fs::remove_dir_all(directory.join("out"));
    (weights, report)
}

#[test]
fn documents_between_separators_are_the_documents_of_rows() {
    let workplace = decoder();
    let directory = workplace.path();
    for (name, line) in STAGES {
        let rows = outcome(directory, &of_stage(line, "docs.jsonl --field text"));
        let separated = outcome(directory, &of_stage(line, r"docs.txt --separator '\n--\n'"));
        assert!(rows == separated, "{name}: {}\n{}", rows.1, separated.1);
        // As one document the text is another one.
        assert!(rows != outcome(directory, &of_stage(line, "docs.txt")), "{name}");
        refused(
            directory,
            &of_stage(line, r"docs.txt --separator '\n==\n'"),
            r"docs.txt: the separator `\n==\n` does not occur in it; correct --separator",
        );
        assert!(!directory.join("out").exists(), "{name}");
    }
    for (line, expected) in [
        ("eval m --data docs.txt --separator ''", "the separator is empty"),
        (r"eval m --data docs.txt --separator 'a\q'", r"`\q` is not an escape"),
        ("eval m --data docs.txt --separator x --field y", "cannot be used with"),
        (
            "quantize m --scheme w8 --method rtn --separator x -o out",
            "--separator says how a file is read, and no file is",
        ),
    ] {
        refused(directory, line, expected);
    }
    // In recipes, with the line breaks of TOML or with escapes.
    let measured = json(directory, r"eval m --data docs.txt --separator '\n--\n' --window 32");
    for separator in [r#""\n--\n""#, r"'\n--\n'"] {
        let recipe = format!(
            "version = 1\n[model]\npath = 'm'\n[stages.e]\nkind = 'eval'\ninput = 'model'\ndata = 'docs.txt'\nwindow = 32\n\
             separator = {separator}\n"
        );
        fs::write(directory.join("r.toml"), recipe).expect("writes");
        assert_eq!(json(directory, "run r.toml")["stages"][0]["report"]["logits_sha256"], measured["logits_sha256"]);
    }
    // One that begins as an option does.
    assert_eq!(json(directory, "eval m --data docs.txt --separator -- --window 32")["files_read"][0]["records"], 40);
}

#[test]
fn encoders_take_what_stands_between_separators_as_one_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::Bert, Size::SMALL);
    let texts = ["a quick\nbrown fox", "the\ndog", "a lazy\nfox", "brown\ndog", "the quick\ndog"];
    fs::write(path.join("t.txt"), texts.join("<end>")).expect("writes");
    let rows: String = texts.map(|text| format!("{}\n", json!({ "text": text }))).concat();
    fs::write(path.join("t.jsonl"), rows).expect("writes");
    for line in ["eval m --data {}", "quantize m --scheme w4 --method search --calibration {} -o out"] {
        let [rows, separated, lines] = ["t.jsonl --field text", "t.txt --separator <end>", "t.txt"]
            .map(|data| outcome(path, &of_stage(line, data)));
        assert!(rows == separated, "{}\n{}", rows.1, separated.1);
        assert!(rows != lines);
    }
    fixture::write(&path.join("c"), Family::BertClassifier, Size::SMALL);
    refused(
        path,
        "eval c --data t.txt --separator <end>",
        "t.txt: its texts are rows, and --separator `<end>` stands between",
    );
}

#[test]
fn every_report_says_what_was_left_out() {
    let workplace = decoder();
    let directory = workplace.path();
    let rows = fs::read_to_string(directory.join("docs.jsonl")).expect("reads");
    let marked = format!("\u{feff}{{\"text\": \" \"}}\n{rows}{{\"text\": null}}\n").replace('\n', "\r\n");
    fs::write(directory.join("docs.jsonl"), marked).expect("writes");
    let expected = json!({"file": "docs.jsonl", "records": 40, "byte_order_mark": true, "crlf": true, "blank_rows": 2,
        "first_blank_row": 1, "cut": 0, "cut_to": 0, "without_answer": 0});
    let remarks = [
        "docs.jsonl: its byte order mark is left out",
        "docs.jsonl: lines end with CR LF; they are read as LF",
        "docs.jsonl: 2 rows have no text and are left out (the first is row 1)",
    ];
    for (name, line) in STAGES {
        let line = of_stage(line, "docs.jsonl --field text");
        let report = json(directory, &line);
        let found =
            if matches!(name, "qat" | "recover") { &report["training"]["files_read"] } else { &report["files_read"] };
        assert_eq!(*found, json!([expected]), "{name}: {report}");
        let table = String::from_utf8(succeed(directory, &line)).expect("UTF-8");
        for remark in remarks {
            assert!(table.contains(&format!("  {remark}")), "{name}: {remark}: {table}");
        }
    }
    let recipe = r#"
version = 1
[model]
path = "m"
[stages.tuned]
kind = "train"
input = "model"
data = "docs.jsonl"
field = "text"
tokens = 600
window = 32
batch = 4
"#;
    fs::write(directory.join("r.toml"), recipe).expect("writes");
    for state in ["done", "cached"] {
        let report = json_with_code(directory, "run r.toml", 0);
        let stage = &report["stages"][0];
        assert_eq!((&stage["status"], &stage["report"]["files_read"][0]["blank_rows"]), (&json!(state), &json!(2)));
    }
    let table = String::from_utf8(succeed(directory, "run r.toml")).expect("UTF-8");
    for remark in remarks {
        assert!(table.contains(&format!("tuned    {remark}")), "{table}");
    }
}

#[test]
fn texts_that_are_cut_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::BertClassifier, Size::SMALL);
    let texts = ["a fox".to_owned(), "the dog ".repeat(80), "a dog ".repeat(80)];
    let rows: String = texts.iter().map(|text| format!("{}\n", json!({"text": text, "label": 1}))).collect();
    fs::write(path.join("t.jsonl"), rows).expect("writes");
    let trained = json(path, "train m --data t.jsonl --window 16 --batch 2 --tokens 200 -o out");
    let read = &trained["files_read"][0];
    assert_eq!((&read["records"], &read["cut"], &read["cut_to"]), (&json!(3), &json!(2), &json!(16)), "{trained}");
    let shown = run(path, "eval m --data t.jsonl");
    assert!(stderr(&shown).contains("t.jsonl: 2 of 3 are longer than "), "{}", stderr(&shown));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("data  t.jsonl: 2 of 3 are longer than "));
}

#[test]
fn a_recipe_trains_calibrates_and_measures_with_conversations() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    let row = |number: usize| {
        let messages = json!([{"role": "user", "content": format!("Question {number}?")},
            {"role": "assistant", "content": "It is a fox."}]);
        format!("{}\n", json!({ "messages": messages }))
    };
    fs::write(directory.join("talk.jsonl"), (0..30).map(row).collect::<String>()).expect("writes");
    let parquet = root("tests/data/parquet/conversations.parquet");
    fs::copy(parquet, directory.join("more.parquet")).expect("copies");
    let recipe = r#"
version = 1
[model]
path = "m"
[stages.tuned]
kind = "train"
input = "model"
data = ["talk.jsonl", "more.parquet"]
field = "messages"
tokens = 3000
window = 64
batch = 4
learning_rate = 3e-3
[stages.small]
kind = "quantize"
input = "tuned"
scheme = "w8"
method = "search"
calibration = "talk.jsonl"
[stages.artifact]
kind = "compile"
input = "small"
target = "generic"
[stages.before]
kind = "eval"
input = "model"
data = "talk.jsonl"
[stages.quality]
kind = "eval"
input = "artifact"
reference = "tuned"
data = "talk.jsonl"
[gates]
kld_max = { stage = "quality", value = 0.05 }
"#;
    fs::write(directory.join("talk.toml"), recipe).expect("writes");
    let report = json_with_code(directory, "run talk.toml", 0);
    let of = |stage: usize, key: &str| report["stages"][stage]["report"][key].clone();
    assert_eq!([of(3, "answers_only"), of(4, "answers_only")], [json!(true), json!(true)]);
    assert_eq!([of(3, "windows"), of(4, "windows")], [json!(30), json!(30)]);
    assert_eq!(of(3, "tokens"), of(4, "tokens"));
    let number = |value: Value| value.as_f64().expect("a number");
    assert!(number(of(4, "perplexity")) < 0.5 * number(of(3, "perplexity")), "{report}");
    assert_eq!(of(0, "files_read")[1]["blank_rows"], 2, "{report}");
    let table = String::from_utf8(succeed(directory, "run talk.toml")).expect("UTF-8");
    assert!(
        table.contains("tuned    more.parquet: 2 rows have no text and are left out (the first is row 3)"),
        "{table}"
    );
    // What was learned is what the artifact says.
    fs::write(directory.join("ask.json"), json!([{"role": "user", "content": "Question 3?"}]).to_string())
        .expect("writes");
    let answer = json(directory, "generate out/talk/artifact.generic.slm --messages ask.json --tokens 24");
    assert_eq!((&answer["text"], &answer["stop"]), (&json!("It is a fox."), &json!("end")));
}
