//! `slmc attribute`: shares against a naive occlusion, attention against its own integers and the session's outputs, pages
//! that load and run nothing, and what is refused.

use crate::fixture::{self, Family, Size};
use crate::reference::quantize_model;
use crate::support::{golden, json, refused, run, stderr, succeed};
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::sample::random_u64;
use slmc::artifact::host::{ArtifactFile, run_sequence};
use slmc::attribute::observe::observe;
use slmc::formats::open_model;
use slmc::model::scheme::QuantScheme;
use slmc::target::Target;
use std::fs;
use std::path::Path;

/// A directory with `model.slm` of a family.
fn place(family: Family) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), family, Size::SMALL);
    succeed(path, "quantize model --scheme w8 --method rtn -o q");
    succeed(path, "compile q --target generic --context 48 -o model.slm");
    directory
}

/// ln softmax, without the program's own.
fn log_probability(row: &[f32], column: usize) -> f64 {
    let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
    let top = row.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = row.iter().map(|value| (value - top).exp()).sum();
    row[column] - top - sum.ln()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

/// Compares every share of a report with replacing tokens one by one.
fn check_shares(path: &Path, report: &Value, classifier: bool) {
    let file = ArtifactFile::open(&path.join("model.slm")).expect("it opens");
    let view = file.view().expect("it is sound");
    let inputs = report["inputs"].as_array().expect("inputs");
    let tokens: Vec<u32> = inputs.iter().map(|input| number(&input["id"]) as u32).collect();
    let replacement = number(&report["replacement"]["id"]) as u32;
    let width = view.spec().output_width as usize;
    for choice in report["choices"].as_array().expect("choices") {
        let (id, position) = (number(&choice["id"]) as usize, number(&choice["position"]) as usize);
        let row = if classifier { 0 } else { position };
        let read = if classifier { tokens.len() } else { position + 1 };
        let of =
            |tokens: &[u32]| log_probability(&run_sequence(&view, tokens).expect("runs")[row * width..][..width], id);
        let full = of(&tokens[..read]);
        assert!((full - number(&choice["log_probability"])).abs() < 1e-9, "{full}: {choice}");
        let shares = choice["shares"].as_array().expect("shares");
        let expected = inputs.iter().take(read).filter(|input| input["special"] == false).count();
        assert_eq!(shares.len(), expected);
        let (mut magnitudes, mut sum) = (0.0, 0.0);
        for share in shares {
            let mut changed = tokens[..read].to_vec();
            changed[number(&share["position"]) as usize] = replacement;
            let change = full - of(&changed);
            assert!((change - number(&share["change"])).abs() < 1e-9, "{change}: {share}");
            magnitudes += change.abs();
            sum += number(&share["share"]).abs();
            assert_eq!(number(&share["share"]) < 0.0, change < 0.0, "the sign is kept: {share}");
        }
        assert!((sum - 1.0).abs() < 1e-9 && magnitudes > 0.0, "{sum} of {magnitudes}");
    }
}

#[test]
fn shares_of_next_tokens_are_those_of_a_naive_occlusion() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    let report = json(path, "attribute model.slm --prompt 'the cat sat on' --tokens 3 --matrices");
    assert_eq!((&report["schema"], &report["chooses"]), (&"slmc.attribute/1".into(), &"next token".into()));
    assert_eq!(report["choices"].as_array().expect("choices").len(), 3);
    check_shares(path, &report, false);
    // What is chosen is what `generate` writes.
    let generated = json(path, "generate model.slm --prompt 'the cat sat on' --tokens 3 --temperature 0");
    let chosen: Vec<&Value> =
        report["choices"].as_array().expect("choices").iter().map(|choice| &choice["id"]).collect();
    assert_eq!(generated["tokens"].as_array().expect("tokens").iter().collect::<Vec<_>>(), chosen);
    // Rows of every position, layer and head, of as many weights as are seen, with their sum.
    let rows = report["matrices"].as_array().expect("matrices");
    assert_eq!(rows.len(), report["inputs"].as_array().expect("inputs").len() * 2 * 4);
    for row in rows {
        let weights = row["weights"].as_array().expect("weights");
        assert_eq!(weights.len() as f64, number(&row["position"]) + 1.0);
        assert_eq!(weights.iter().map(number).sum::<f64>(), number(&row["total"]), "{row}");
        assert_eq!(weights.iter().map(number).fold(0.0, f64::max), f64::from(1 << 24), "the largest score has 2^24");
    }
    let other = json(path, "attribute model.slm --prompt 'the cat sat on' --replace .");
    assert_eq!((&other["replacement"]["token"], &other["replacement"]["role"]), (&".".into(), &"given".into()));
    assert!(other.get("matrices").is_none());
    check_shares(path, &other, false);
}

#[test]
fn shares_of_a_label_are_those_of_a_naive_occlusion() {
    let directory = place(Family::BertClassifier);
    let path = directory.path();
    let report = json(path, "attribute model.slm --prompt 'book a table, now.'");
    assert_eq!(report["chooses"], "label");
    let inputs = report["inputs"].as_array().expect("inputs");
    assert_eq!((&inputs[0]["special"], &inputs[inputs.len() - 1]["special"]), (&true.into(), &true.into()));
    check_shares(path, &report, true);
    // The first position decides, and sees all.
    for row in report["choices"][0]["attention"].as_array().expect("attention") {
        let weights = row["weights"].as_array().expect("weights");
        assert_eq!((number(&row["position"]), weights.len()), (0.0, inputs.len()));
        assert_eq!(weights.iter().map(number).sum::<f64>(), number(&row["total"]));
    }
}

/// Watching changes no output bit, and rows are whole where positions wrap around a ring.
#[test]
fn observed_sessions_give_the_same_bits_and_whole_rows() {
    for name in ["llama-gqa-tied", "mistral-sliding-window-8", "gpt2", "lfm2-short-conv", "bert-classifier", "bert-mlm"]
    {
        let model = open_model(&golden(name)).expect("it opens");
        let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
        let context = model.spec.context.min(96);
        let target = Target::unlimited("test", Layout::R8K4Offset8);
        let bytes = fixture::compiled(&quantized, &target, Some(context)).bytes;
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let vocabulary = u64::from(view.spec().vocabulary);
        let tokens: Vec<u32> = (0..context as u64).map(|n| (random_u64(3, n) % vocabulary) as u32).collect();
        let observed = observe(&view, &tokens, &|_| true).expect("runs");
        let bits = |rows: &[f32]| rows.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let plain = run_sequence(&view, &tokens).expect("runs");
        assert_eq!(bits(&observed.outputs.concat()), bits(&plain), "{name}");
        assert!(!observed.rows.is_empty(), "{name}");
        for row in &observed.rows {
            let layer = view.layer(row.layer);
            let seen = match (view.spec().is_decoder(), layer.window as usize) {
                (false, _) => context,
                (true, 0) => row.position + 1,
                (true, window) => window.min(row.position + 1),
            };
            assert_eq!(row.weights.len(), seen, "{name}, layer {} head {}", row.layer, row.head);
            let sum: u64 = row.weights.iter().map(|&weight| u64::from(weight)).sum();
            assert_eq!(sum, row.total, "{name}, layer {} head {} at {}", row.layer, row.head, row.position);
        }
    }
}

#[test]
fn a_page_stands_by_itself() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    succeed(path, "attribute model.slm --prompt 'a fox' --tokens 2 --report html=page.html");
    let page = fs::read_to_string(path.join("page.html")).expect("it is written");
    for part in ["<!DOCTYPE html><!-- slmc.attribute -->", "default-src 'none'", "color-scheme", "width=device-width"] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["<script", "http://", "https://", "@import", "onclick", "src="] {
        assert!(!page.contains(part), "{part}");
    }
    // A button, a picture and a rule for each of two layers of four heads.
    assert_eq!(page.matches("type=\"radio\"").count(), 8);
    assert_eq!(page.matches("data:image/png;base64,").count(), 8);
    // Again, and over its own; never over another's.
    succeed(path, "attribute model.slm --prompt 'a fox' --tokens 2 --report html=page.html");
    assert_eq!(fs::read_to_string(path.join("page.html")).expect("it is there"), page);
    fs::write(path.join("other.html"), "<!DOCTYPE html>mine").expect("written");
    refused(path, "attribute model.slm --prompt fox --report html=other.html", "other.html");
    assert_eq!(fs::read_to_string(path.join("other.html")).expect("it is there"), "<!DOCTYPE html>mine");
}

#[test]
fn what_chooses_nothing_is_refused_by_name() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    refused(path, "attribute model.slm", "the prompt is empty");
    refused(path, "attribute model.slm --prompt ''", "the prompt is empty");
    let long = "a fox ".repeat(20);
    refused(path, &format!("attribute model.slm --prompt '{long}'"), "the context holds 48");
    refused(path, "attribute model.slm --prompt fox --tokens 0", "--tokens 0 chooses nothing");
    refused(path, "attribute model.slm --prompt fox --replace [NONE]", "`[NONE]` is not a token");
    refused(path, "attribute model.slm --chat fox", "holds no chat template");
    refused(path, "attribute model --prompt fox", "model");
    refused(path, "attribute model.slm --prompt fox --report pdf=x", "`pdf` is not a form of this report");
    succeed(path, "compile q --target generic --context 48 --device-only -o bare.slm");
    refused(path, "attribute bare.slm --prompt fox", "holds no tokenizer");
    succeed(path, "attribute bare.slm --prompt fox --tokenizer model");
    // Cut at any length it is refused before anything is computed.
    let whole = fs::read(path.join("model.slm")).expect("it is there");
    for cut in [0, 7, 64, whole.len() / 2, whole.len() - 1] {
        fs::write(path.join("cut.slm"), &whole[..cut]).expect("written");
        let output = run(path, "attribute cut.slm --prompt fox --report html=cut.html");
        assert_eq!(output.status.code(), Some(2), "{cut}: {}", stderr(&output));
        assert!(!path.join("cut.html").exists());
    }

    for (family, text) in [(Family::Bert, "hidden states"), (Family::BertMlm, "logits of masked tokens")] {
        refused(place(family).path(), "attribute model.slm --prompt fox", text);
    }
    let classifier = place(Family::BertClassifier);
    refused(classifier.path(), "attribute model.slm --prompt fox --tokens 2", "this model is a classifier");
    refused(classifier.path(), "attribute model.slm --chat fox", "this model is a classifier");
}
