//! The revisions in the keys of results are honest: what each kind of stage makes of a small model is written down beside its
//! revision, in `tests/data/revisions.json`, for every class of machine that has run this test. Another result with the same
//! revision would let older results be taken for it. Exact kinds stand under `any`: theirs are the same everywhere.

use crate::fixture::{Family, Size, write};
use crate::support::{one_line, root, run, succeed};
use serde_json::{Map, Value, json};
use slmc::disk::hash::{directory_sha256, hex, path_sha256, sha256};
use slmc::machine::numerics_class;
use slmc::stages::{Arithmetic, STAGES};
use std::fs;
use std::io::Write;
use std::path::Path;

const TRAINING: &str = "--data text.txt --window 32 --batch 4 --pieces 2 --tokens 1500";

fn made_file(path: &Path) -> String {
    hex(&path_sha256(path).expect("the output is there"))
}

/// The digest of what a kind makes.
fn digest(directory: &Path, kind: &str) -> String {
    let made = |line: &str, out: &str| {
        succeed(directory, &format!("{line} -q -o {out}"));
        hex(&path_sha256(&directory.join(out)).expect("the output is there"))
    };
    let all = match kind {
        "data" => {
            let texts =
                "data --data lines.txt --rules none --scrub all --held-out 0.2 --similarity 1 --keep-duplicates";
            succeed(directory, &format!("{texts} --quality-model m --drop-worst 0.2 -q -o prepared"));
            ["data.jsonl", "held-out.jsonl"].map(|file| made_file(&directory.join("prepared").join(file))).concat()
        }
        "trim" => made("trim m --data text.txt --characters used", "trimmed"),
        "import" => made("import m --dtype bf16", "imported"),
        "synthesize" => made("synthesize m --prompts text.txt --window 32 --prefix 8 --max-repetition 1", "text.jsonl"),
        "train" => made(&format!("train m {TRAINING}"), "trained"),
        "distill" => made(&format!("distill --teacher m --layers 0 --kl 0.5 {TRAINING}"), "student"),
        "prune" => {
            let shot = made("prune m --pattern 2:4 --method sparsegpt --calibration text.txt", "sparse");
            let recovered = format!("prune m --pattern 2:4 --method magnitude --recover {TRAINING}");
            shot + &made(&recovered, "recovered")
        }
        "quantize" => {
            let solved = "quantize m --calibration text.txt --calibration-tokens 1024";
            let qat = format!("quantize m --scheme w4 --method search --calibration text.txt --qat {TRAINING}");
            made(&format!("{solved} --scheme w4 --method gptq"), "gptq")
                + &made(&format!("{solved} --scheme mixed --method search"), "search")
                + &made(&qat, "qat")
        }
        // The device part alone: the other one names the version.
        "compile" => {
            made("quantize m --scheme mixed --method rtn", "rtn");
            ["generic", "cortex-m55"]
                .map(|target| made(&format!("compile rtn --target {target} --device-only"), target))
                .concat()
        }
        "export" => {
            made("quantize m --scheme mixed --method rtn", "rtn");
            let directories = ["compressed-tensors", "onnx", "safetensors"]
                .map(|format| made(&format!("export rtn --format {format}"), &format!("as-{format}")));
            // The file names the version; what is read of it does not.
            made("export rtn --format gguf", "as.gguf");
            directories.concat() + &made("import as.gguf", "read")
        }
        "eval" => {
            made("quantize m --scheme w8 --method rtn", "w8");
            made("compile w8 --target generic", "w8.slm");
            let report = one_line(&run(directory, "eval w8.slm --data text.txt --window 32 --max-windows 4 --json"));
            report["logits_sha256"].as_str().expect("a digest").to_owned()
        }
        "watch" => {
            made("quantize m --scheme w8 --method rtn", "w8");
            made("compile w8 --target generic", "w8.slm");
            let line = "watch w8.slm --log text.txt --data text.txt --window 32 --max-texts 8 --json";
            let report = one_line(&run(directory, line));
            let counts: Vec<&Value> =
                report["shifts"].as_array().expect("shifts").iter().map(|shift| &shift["bins"]).collect();
            json!(counts).to_string()
        }
        other => panic!("{other}: say here what this kind makes of a small model"),
    };
    hex(&sha256(all.as_bytes()))
}

#[test]
fn results_change_with_their_revision() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(&directory.join("m"), Family::TiedLlama, Size::SMALL);
    let text = "the fox ran over the hill and saw a bird in the tree. the bird sang and the fox sat down in the sun. ";
    fs::write(directory.join("text.txt"), format!("{text}\n").repeat(24)).expect("the text can be written");
    let lines: String = (0..24).map(|number| format!("{text} {number} {}\n", "and on".repeat(number % 5))).collect();
    fs::write(directory.join("lines.txt"), lines).expect("the lines can be written");
    let path = root("tests/data/revisions.json");
    let recorded: Value =
        serde_json::from_slice(&fs::read(&path).expect("it is part of the repository")).expect("JSON");
    let update = std::env::var_os("SLMC_UPDATE").is_some();
    let (mut updated, mut wrong, mut unknown) = (recorded.clone(), Vec::new(), Vec::new());
    for stage in STAGES {
        let (kind, revision) = (stage.name(), stage.revision());
        // What eval is asked here is exact.
        let class = if stage.arithmetic() == Arithmetic::Float { numerics_class() } else { "any" };
        let now = json!({"revision": revision, "digest": digest(directory, kind)});
        let before = &recorded[class][kind];
        if before.is_null() {
            unknown.push(format!("{kind} on {class}"));
        } else if *before != now && before["revision"] == now["revision"] {
            wrong.push(format!("what `{kind}` makes changed ({class}): raise REVISION in src/stages/{kind}.rs"));
        } else if *before != now && !update {
            wrong.push(format!("the revision of `{kind}` is another than the recorded one ({class})"));
        }
        if updated[class].is_null() {
            updated[class] = Value::Object(Map::new());
        }
        updated[class][kind] = now;
    }
    let remedy = "then write the results down: SLMC_UPDATE=1 cargo test --release --test integration revisions";
    assert!(wrong.is_empty(), "{}; {remedy}", wrong.join("; "));
    if update {
        let text = serde_json::to_string_pretty(&updated).expect("JSON");
        fs::write(&path, format!("{text}\n")).expect("it can be written");
    } else if !unknown.is_empty() {
        // Of another class than those that were written down, of which this machine cannot say more.
        let line = format!("not compared: nothing is recorded of {}; {remedy}\n", unknown.join(", "));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    assert!(directory_sha256(&directory.join("rtn")).is_ok(), "compile had its input");
}
