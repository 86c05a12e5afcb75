//! Data files that cannot be read: refused with file, line or column and the remedy, in every stage, before anything is
//! written. And what no output may replace.

use super::{STAGES, TRAINING, decoder, of_stage};
use crate::conversations::workplace;
use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, root, run, stderr, succeed};
use serde_json::json;
use std::fs;
use std::io::Write;

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
    refused(
        directory,
        "eval m --data one.json --separator x",
        "one.json: its texts are rows, and --separator `x` stands",
    );
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
