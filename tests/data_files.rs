//! Data files as people have them, in every stage that reads one: documents between separators, counts of what was left out in
//! every report, and files that cannot be read, refused with the remedy before anything is written.

use crate::conversations::{TEMPLATE, workplace};
use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, root, run, stderr, succeed};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
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
    let mut report = json(directory, line);
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
    refused(path, "eval c --data t.txt --separator <end>", "texts with labels are rows of a file");
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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn utf16(text: &str) -> Vec<u8> {
    [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

#[test]
fn files_that_cannot_be_read_are_refused_with_the_remedy() {
    let workplace = decoder();
    let directory = workplace.path();
    let rows = fs::read(directory.join("docs.jsonl")).expect("reads");
    let zstd = ruzstd::encoding::compress_to_vec(rows.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    let zip = gzip(&rows);
    let parquet = fs::read(root("tests/data/parquet/conversations.parquet")).expect("a file of this repository");
    let zstd_parquet = fs::read(root("tests/data/parquet/zstd.parquet")).expect("a file of this repository");
    let utf32: Vec<u8> = "\u{feff}the cat".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let cases: [(&str, &[u8], &str, &str); 27] = [
        (
            "a.jsonl.gz",
            &zip[..zip.len() - 9],
            "--field text",
            "a.jsonl.gz: the gzip data is cut short or damaged; download",
        ),
        (
            "a.jsonl.zst",
            &zstd[..zstd.len() - 9],
            "--field text",
            "a.jsonl.zst: the Zstandard data is cut short or damaged",
        ),
        (
            "a.parquet",
            &parquet,
            "--field day",
            "a.parquet: column `day` holds DATE, which is neither text nor a number; write",
        ),
        ("a.parquet", &parquet, "--field picture", "column `picture` holds BYTE_ARRAY, which is neither"),
        ("a.parquet", &parquet, "--field score", "a.parquet:1: `score` is a number; expected a string"),
        ("a.parquet", &parquet, "--field words", "a.parquet:1: message 1: a text, expected an object"),
        ("a.parquet", &parquet, "--field nothing", "no column `nothing`; the file has: id, messages, tools, text, day"),
        (
            "a.parquet",
            &parquet[..parquet.len() / 2],
            "--field text",
            "a.parquet: the Parquet file cannot be read; it is damaged",
        ),
        ("a.parquet", &zstd_parquet, "--field text", "write it again with compression=\"snappy\""),
        ("a.parquet", &rows, "--field text", "a.parquet: the Parquet file cannot be read"),
        (
            "a.parquet.gz",
            &zip,
            "--field text",
            "a.parquet.gz is compressed with gzip, which is not read as data; decompress",
        ),
        (
            "a.txt",
            &parquet,
            "",
            "a.txt is a Parquet file, which is not read as data; give it a name that ends in .parquet",
        ),
        (
            "a.csv",
            b"text,label\nthe cat,1\n",
            "",
            "a.csv is a table of separated values, which is not read as data; write it as",
        ),
        ("a.tsv", b"text\tlabel\nthe cat\t1\n", "--field text", "a.tsv is a table of separated values"),
        ("a.txt", &utf32, "", "a.txt: is text in UTF-32; convert it with `iconv"),
        ("a.txt", b"the cat\nsat\0\0\0", "", "a.txt:2: holds zero bytes"),
        ("a.txt", b"\x80\x04\x95\x00", "", "a.txt is a pickle of Python objects"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\n",
            "--field text",
            "a.parquet is a Git LFS pointer",
        ),
        (
            "a.txt",
            b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "",
            "fetch the file it stands for with `git lfs pull`",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"x\"}\n{\"text\": \"x\", \"score\": NaN}\n",
            "--field text",
            "a.jsonl:2: expected one JSON object per line; found at column 24: expected value (JSON has no NaN, no comma after",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"x\",}\n",
            "--field text",
            "a.jsonl:1: expected one JSON object per line; found at column 14: trailing",
        ),
        ("a.jsonl", b"{'text': 'x'}\n", "--field text", "double quotes around texts"),
        (
            "a.jsonl",
            b"{\"text\": \"x\"}\n{\"text\": \"the ca",
            "--field text",
            "a.jsonl:2: expected one JSON object per line; found at",
        ),
        (
            "a.json",
            b"[{\"text\": \"x\"},\n {\"text\": \"y\"},]",
            "--field text",
            "a.json:2: expected an array of JSON objects",
        ),
        (
            "a.jsonl",
            b"{\"text\": \"x\"}\n{\"txt\": 1}\n{}\n",
            "--field text",
            "a.jsonl:2: no key `text` in 2 rows, the first being row 2; that object has: txt; give every row the same keys",
        ),
        ("a.jsonl", b"{\"text\": [\"x\"]}\n", "--field text", "a.jsonl:1: message 1: a text, expected an object"),
        ("a.jsonl", b"\"the cat\"\n", "", "a.jsonl:1: expected one JSON object per line; found at column"),
    ];
    for (name, content, options, expected) in cases {
        fs::write(directory.join(name), content).expect("writes");
        for (stage, line) in STAGES {
            let line = of_stage(line, &format!("{name} {options}"));
            let output = run(directory, &line);
            let found = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{stage} {name}: {found}");
            assert!(found.contains(expected), "{stage}: {expected}\n{found}");
            assert!(output.stdout.is_empty() && !directory.join("out").exists(), "{stage} {name}");
        }
        fs::remove_file(directory.join(name)).expect("it is there");
    }
    // The same rows in UTF-16, and a byte order mark within an archive.
    let text = String::from_utf8(rows).expect("UTF-8");
    let hash = |name: &str| {
        json(directory, &format!("eval m --data {name} --field text --window 32"))["logits_sha256"].clone()
    };
    fs::write(directory.join("wide.jsonl"), utf16(&text)).expect("writes");
    fs::write(directory.join("marked.jsonl.gz"), gzip(format!("\u{feff}{text}").as_bytes())).expect("writes");
    assert_eq!([hash("wide.jsonl"), hash("marked.jsonl.gz")], [hash("docs.jsonl"), hash("docs.jsonl")]);
}

#[test]
#[cfg(unix)]
fn pipes_and_devices_are_no_files_and_any_name_is_a_name() {
    use std::os::unix::ffi::OsStringExt;
    let workplace = decoder();
    let directory = workplace.path();
    fs::create_dir(directory.join("folder")).expect("a directory");
    let pipe = std::process::Command::new("mkfifo").arg(directory.join("pipe.jsonl")).status().expect("mkfifo");
    assert!(pipe.success());
    for (stage, line) in STAGES {
        for (name, expected) in [
            ("/dev/zero", "/dev/zero is a pipe or a device; pass a file"),
            ("pipe.jsonl --field text", "pipe.jsonl is a pipe or a device; pass a file"),
            ("folder", "folder is a directory; pass a file"),
        ] {
            refused(directory, &of_stage(line, name), expected);
            assert!(!directory.join("out").exists(), "{stage}");
        }
    }
    let recipe = "version = 1\n[model]\npath = 'm'\n[stages.e]\nkind = 'eval'\ninput = 'model'\ndata = '/dev/zero'\nwindow = 32\n";
    fs::write(directory.join("r.toml"), recipe).expect("writes");
    refused(directory, "run r.toml", "/dev/zero: cannot be read for hashing");
    // A name that is not UTF-8 does not cost the report.
    let name = std::ffi::OsString::from_vec(b"docs-\xFF.txt".to_vec());
    fs::copy(directory.join("docs.txt"), directory.join(&name)).expect("copies");
    let arguments: Vec<std::ffi::OsString> =
        ["eval", "m", "--window", "32", "--data"].map(Into::into).into_iter().chain([name]).collect();
    assert_eq!(json(directory, arguments.as_slice())["files_read"][0]["file"], "docs-\u{fffd}.txt");
}

#[test]
fn every_missing_field_is_named_with_its_first_row() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::BertClassifier, Size::SMALL);
    let rows = "{\"text\": \"a fox\", \"label\": 0}\n{\"label\": 1}\n{\"text\": \"a dog\"}\n{\"note\": \"x\"}\n";
    fs::write(path.join("c.jsonl"), rows).expect("writes");
    for line in ["eval m --data c.jsonl".to_owned(), format!("train m --data c.jsonl {TRAINING} -o out")] {
        for part in [
            "c.jsonl:2: no key `text` in 2 rows, the first being row 2; that object has: label",
            "no key `label` in 2 rows, the first being row 3",
        ] {
            refused(path, &line, part);
        }
    }
    assert!(!path.join("out").exists());
}

#[test]
fn conversations_that_cannot_be_used_are_refused_with_their_rows() {
    let refusing = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}\
        {{ raise_exception('the role ' ~ m.role ~ ' is unknown') }}{% endif %}<s>{{ m.content }}</s>\n{% endfor %}";
    let workplace = workplace(refusing);
    let directory = workplace.path();
    let talk =
        |role: &str| json!({"messages": [{"role": role, "content": "x"}, {"role": "assistant", "content": "y"}]});
    let cases = [
        (format!("{}\n{}\n", talk("user"), talk("narrator")), "bad.jsonl:2: ", "the role narrator is unknown"),
        (
            format!("{}\n{{\"messages\": [{{\"role\": \"user\"}}]}}\n", talk("user")),
            "bad.jsonl:2: message 1: no `content`",
            "",
        ),
        (format!("{}\n{{\"messages\": \"x\"}}\n", talk("user")), "bad.jsonl:2: `messages` is not a list", ""),
        (
            json!({"messages": talk("user")["messages"], "tools": 3}).to_string(),
            "bad.jsonl:1: `tools` is not a list",
            "objects with `role` and `content`",
        ),
        ("{\"messages\": []}\n".repeat(3), "bad.jsonl holds no text", ""),
    ];
    for (content, expected, reason) in cases {
        fs::write(directory.join("bad.jsonl"), content).expect("writes");
        for line in [
            "eval m --data bad.jsonl".to_owned(),
            "eval a.slm --data bad.jsonl".to_owned(),
            format!("train m --data bad.jsonl {TRAINING} -o out"),
            "quantize m --scheme w8 --calibration bad.jsonl -o out".to_owned(),
        ] {
            refused(directory, &line, expected);
            refused(directory, &line, reason);
            assert!(!directory.join("out").exists());
        }
    }
    // Of one conversation, a file of its own.
    let one = serde_json::to_string_pretty(&talk("user")).expect("JSON");
    fs::write(directory.join("one.json"), one).expect("writes");
    let measured = json(directory, "eval m --data one.json");
    assert_eq!((&measured["windows"], &measured["answers_only"]), (&json!(1), &json!(true)));
}

#[test]
fn outputs_replace_neither_data_nor_the_model_that_is_read() {
    let workplace = decoder();
    let directory = workplace.path();
    let before = fs::read(directory.join("docs.txt")).expect("reads");
    fs::create_dir(directory.join("folder")).expect("a directory");
    for metrics in ["docs.txt", "folder"] {
        let train = format!("train m --data docs.txt {TRAINING} --metrics {metrics} -o out");
        refused(directory, &train, &format!("{metrics}: exists and was not made by slmc"));
        let recover = format!(
            "prune m --pattern 2:4 --method magnitude --recover --data docs.txt {TRAINING} --metrics {metrics} -o out"
        );
        refused(directory, &recover, &format!("{metrics}: exists and was not made by slmc"));
    }
    assert!(!directory.join("out").exists(), "it was found before the work");
    assert_eq!(fs::read(directory.join("docs.txt")).expect("reads"), before);
    // Its own it replaces.
    let train = format!("train m --data docs.txt {TRAINING} --metrics steps.jsonl -o out");
    succeed(directory, &train);
    succeed(directory, &train);
    let weights = fs::read(directory.join("out/model.safetensors")).expect("reads");
    for line in [
        "quantize out --scheme w8 --method rtn -o out".to_owned(),
        "prune out --pattern 2:4 --method magnitude -o folder/../out".to_owned(),
        format!("distill --teacher out --layers 0 --data docs.txt {TRAINING} -o out"),
        format!("train out --data docs.txt {TRAINING} -o out"),
    ] {
        refused(directory, &line, "out: is the model that is read, and would be replaced; pass another path");
    }
    assert_eq!(fs::read(directory.join("out/model.safetensors")).expect("reads"), weights);
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
