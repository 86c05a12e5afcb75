//! The same way for encoders: sentence embeddings, a classifier, a masked language model.

use super::harness::Transcript;
use crate::fixture::{Family, Size, write};

fn with_encoder(name: &str, family: Family) -> Transcript {
    let transcript = Transcript::new(name);
    write(&transcript.path("model"), family, Size::SMALL);
    transcript
}

#[test]
fn sentence_embeddings() {
    let mut transcript = with_encoder("encoder", Family::Bert);
    transcript.file("lines.txt", "a quick fox.\n\nthe lazy dog, asleep.\nno fox\n");
    transcript
        .file("lines.jsonl", "{\"id\": 1, \"text\": \"a quick fox.\"}\n{\"id\": 2, \"text\": \"the lazy dog\"}\n");
    transcript.run("inspect model");
    transcript.run("quantize model --scheme mixed -o out/mixed");
    transcript.run("compile out/mixed --target cortex-a76 -o out/mixed.slm");
    transcript.run("inspect out/mixed.slm");
    transcript.run("verify out/mixed.slm");
    transcript.run("eval out/mixed.slm --data lines.txt --reference model");
    transcript.json("eval out/mixed.slm --data lines.jsonl --field text --reference model", "slmc.eval/1");
    transcript.run("eval out/mixed.slm --data lines.txt --task lm");
    transcript.run("generate out/mixed.slm --prompt a");
    transcript.run("bench out/mixed.slm --prefill 4");
    assert!(transcript.silent("bench out/mixed.slm --prefill 4 --decode 0 --rounds 1").status.success());
}

#[test]
fn a_classifier() {
    let mut transcript = with_encoder("classifier", Family::BertClassifier);
    let line = |text: &str, label: &str| format!("{{\"text\": \"{text}\", \"label\": \"{label}\"}}\n");
    transcript.file("labelled.jsonl", line("a fox", "yes") + &line("a dog", "no") + &line("rain", "oos"));
    transcript.file("unknown.jsonl", line("a fox", "yes") + &line("a dog", "perhaps"));
    transcript.prepare("quantize model --scheme w8 -o out/w8");
    transcript.run("compile out/w8 --target cortex-m55 -o out/w8.slm");
    transcript.run("eval model --data labelled.jsonl");
    transcript.json("eval out/w8.slm --data labelled.jsonl --reference model", "slmc.eval/1");
    transcript.run("eval out/w8.slm --data unknown.jsonl");
    transcript.run("eval out/w8.slm --data labelled.jsonl --label-field intent");
}

#[test]
fn a_masked_language_model() {
    let mut transcript = with_encoder("masked", Family::BertMlm);
    transcript.file("lines.txt", "a quick fox.\n");
    transcript.prepare("quantize model --scheme w4 -o out/w4");
    transcript.run("compile out/w4 --target generic -o out/w4.slm");
    transcript.run("verify out/w4.slm");
    transcript.run("eval out/w4.slm --data lines.txt");
    transcript.run("eval out/w4.slm --data lines.txt --task lm");
    // The same tokenizer with a token for hidden ones.
    let file = transcript.path("model/tokenizer.json");
    let text = std::fs::read_to_string(&file).expect("the fixture wrote it").replace("\",\":", "\"[MASK]\":");
    std::fs::create_dir(transcript.path("masked")).expect("a fresh directory");
    transcript.file("masked/tokenizer.json", &text);
    transcript.run("eval out/w4.slm --data lines.txt --tokenizer masked --reference model");
    transcript.json("eval out/w4.slm --data lines.txt --tokenizer masked --seed 3", "slmc.eval/1");
}
