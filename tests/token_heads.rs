//! Models with an output for every token: classifiers of tokens and models of answers, from a checkpoint to the artifact's labels
//! and spans, and what `eval` says of them.

use crate::fixture;
use crate::support::{all_refused, golden, json, succeed};
use serde_json::{Value, json as value};
use slmc::formats::open_model;
use slmc::model::spec::Head;
use std::fs;
use std::path::Path;

const TEXT: &str = "Ada met, 'ede' in Bern.";

/// A golden checkpoint with a tokenizer beside it.
fn with_tokenizer(name: &str, directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), directory.join(file)).expect("it can be copied");
    }
    fs::write(directory.join("tokenizer.json"), fixture::word_pieces().to_string()).expect("it can be written");
}

/// The model as an artifact beside it, in w8.
fn compiled(path: &Path) {
    succeed(path, "quantize m --scheme w8 --method rtn -o small -q");
    succeed(path, "compile small --target x86-64-v3 -o a.slm -q");
}

#[test]
fn every_token_is_labelled_where_it_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    with_tokenizer("bert-tokens", &path.join("m"));
    compiled(path);
    let mut labels = Vec::new();
    for model in ["m", "a.slm"] {
        let mut command = crate::support::slmc(path, &format!("classify {model} --json"));
        let output = command.arg(TEXT).output().expect("it runs");
        assert!(output.status.success(), "{}", crate::support::stderr(&output));
        let report = crate::support::one_line(&output);
        let tokens = report["tokens"][0]["tokens"].as_array().expect("tokens").clone();
        assert!(report["answers"].as_array().expect("a list").is_empty());
        let read: Vec<&str> = tokens.iter().map(|token| token["text"].as_str().expect("text")).collect();
        // The quotation marks are unknown to the tokenizer, and stand for themselves all the same.
        assert_eq!(read.concat(), TEXT.replace(' ', ""), "{model}");
        for token in &tokens {
            let [start, end] = ["start", "end"].map(|key| token[key].as_u64().expect("a number") as usize);
            assert_eq!(TEXT.get(start..end), token["text"].as_str(), "{model}");
            assert!(token["confidence"].as_f64().expect("a number") > 1.0 / 8.0);
            assert!(token["label"].as_str().expect("a label").starts_with("LABEL_"));
        }
        labels.push(tokens.iter().map(|token| token["label"].clone()).collect::<Vec<Value>>());
    }
    let same = labels[0].iter().zip(&labels[1]).filter(|(a, b)| a == b).count();
    assert!(same + 1 >= labels[0].len(), "{labels:?}");
    let text = String::from_utf8(succeed(path, "classify a.slm ab")).expect("UTF-8");
    assert!(text.contains("bytes") && text.contains("0..1") && text.contains("1..2"), "{text}");
}

#[test]
fn labels_of_words_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    with_tokenizer("roberta-tokens", &path.join("m"));
    compiled(path);
    // What the model says of single letters, as the truth.
    let words = ["a", "b", "c", "d", "e"];
    let report = json(path, "classify m 'a b c d e'");
    let labels: Vec<Value> =
        report["tokens"][0]["tokens"].as_array().expect("tokens").iter().map(|token| token["label"].clone()).collect();
    let line = value!({"tokens": words, "label": labels}).to_string();
    let other = value!({"tokens": words, "label": vec!["LABEL_0"; 5]}).to_string();
    fs::write(path.join("own.jsonl"), format!("{line}\n")).expect("it can be written");
    fs::write(path.join("both.jsonl"), format!("{line}\n{other}\n")).expect("it can be written");
    let report = json(path, "eval m --data own.jsonl");
    assert_eq!(
        (&report["task"], &report["accuracy"], &report["labelled"]),
        (&value!("tokens"), &value!(1.0), &value!(5))
    );
    let report = json(path, "eval a.slm --data both.jsonl --reference m");
    assert_eq!(report["labelled"], 10);
    assert!(report["kld_mean"].as_f64().expect("a number") < 0.02, "{report}");
    assert!(report["top1_agreement"].as_f64().expect("a number") >= 0.8, "{report}");
    fs::write(path.join("uneven.jsonl"), "{\"tokens\": [\"a\", \"b\"], \"label\": [0]}\n").expect("it can be written");
    fs::write(path.join("text.jsonl"), "{\"tokens\": \"a b\", \"label\": [0]}\n").expect("it can be written");
    fs::write(path.join("unknown.jsonl"), "{\"tokens\": [\"a\"], \"label\": [\"B-PER\"]}\n")
        .expect("it can be written");
    all_refused(
        path,
        [
            ("eval m --data uneven.jsonl", "2 words and 1 labels"),
            ("eval m --data text.jsonl", "expected a list of words"),
            ("eval m --data unknown.jsonl", "no label `B-PER`"),
            ("eval m --data own.jsonl --task classify", "tasks that can: tokens"),
            ("classify m a --question b", "leave --question out"),
            ("classify m a --route-below 0.5", "leave it out"),
            ("train m --data own.jsonl --tokens 1000 -o out", "are not trained here"),
        ],
    );
}

#[test]
fn answers_are_found_in_texts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    with_tokenizer("bert-answers", &path.join("m"));
    compiled(path);
    // By the tokenizer's pairs, whatever config.json says.
    let spec = open_model(&path.join("m")).expect("it opens").spec;
    assert_eq!(spec.head, Head::Answers { separator: Some(3) });
    let text = "the pump is in the cellar, since monday.";
    let mut found = Vec::new();
    for model in ["m", "a.slm"] {
        let report = json(path, &format!("classify {model} '{text}' --question 'where is it'"));
        let span = report["spans"][0].clone();
        let [start, end] = ["start", "end"].map(|key| span[key].as_u64().expect("a number") as usize);
        assert_eq!(text.get(start..end), span["answer"].as_str());
        assert!(start < end, "{span}");
        found.push(span);
    }
    assert_eq!(found[0]["answer"], found[1]["answer"]);
    let apart = found[0]["confidence"].as_f64().expect("a number") - found[1]["confidence"].as_f64().expect("a number");
    assert!(apart.abs() < 0.02, "{found:?}");
    let answered =
        |answers: Value| value!({"question": "where is it", "context": text, "answers": answers}).to_string();
    let own = answered(value!({"text": ["x", found[0]["answer"]], "answer_start": [0, 0]}));
    let wrong = answered(value!(["never this"]));
    fs::write(path.join("own.jsonl"), format!("{own}\n{wrong}\n")).expect("it can be written");
    let report = json(path, "eval a.slm --data own.jsonl --reference m");
    assert_eq!((&report["task"], &report["exact_match"]), (&value!("spans"), &value!(0.5)));
    assert_eq!((&report["unanswerable"], &report["top1_agreement"]), (&value!(0), &value!(1.0)));
    let nothing = answered(value!([]));
    fs::write(path.join("nothing.jsonl"), format!("{own}\n{nothing}\n")).expect("it can be written");
    assert_eq!(json(path, "eval m --data nothing.jsonl")["unanswerable"], 1);
    fs::write(path.join("bad.jsonl"), answered(value!(7))).expect("it can be written");
    all_refused(
        path,
        [
            ("classify m text", "--question TEXT"),
            ("eval m --data bad.jsonl", "expected a string, a list of strings"),
            ("eval m --data own.jsonl --task mlm", "tasks that can: spans"),
        ],
    );
    let long = "where ".repeat(40);
    all_refused(path, [(format!("classify m text --question '{long}'").as_str(), "leaves nothing of a context")]);
}
