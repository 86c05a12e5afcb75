//! Runs that end right after a state was saved, as a kill would end them (`--stop-after-step`), and go on: each result equals,
//! byte for byte and file for file, that of the run that nothing ended. Kills at random moments are in `interrupt`, `training`
//! and `recipes`.

use crate::fixture::{self, Family, Size};
use crate::support::{refused, run, stderr, succeed};
use std::fs;
use std::path::Path;

const TEXT: &str = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. \
    a small dog came by and asked them both to play a game in the sun. they ran and ran until the moon came up. ";

/// Names and content of a directory's files.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("the output is there").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .map(|path| {
            (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

/// Runs `line` once whole and once in pieces that end after each of `steps`; the last piece leaves `state` in the checkpoint.
fn same_in_pieces(family: Family, line: &str, steps: &[u64], state: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    fixture::write(&directory.join("m"), family, Size::SMALL);
    fs::write(directory.join("text.txt"), format!("{TEXT}\n").repeat(12)).expect("the text can be written");
    let metrics = |name: &str| match line.contains("--tokens") {
        true => format!(" --metrics {name}.jsonl"),
        false => String::new(),
    };
    succeed(directory, &format!("{line} -q -o whole{}", metrics("whole")));
    let pieces = format!("{line} -q -o pieces{}", metrics("pieces"));
    let checkpoint = directory.join("pieces.checkpoint");
    for step in steps {
        let stopped = format!("stopped after step {step}, whose state is saved, by --stop-after-step");
        refused(directory, &format!("{pieces} --stop-after-step {step}"), &stopped);
        assert!(!directory.join("pieces").exists(), "{line}: there is an output after step {step}");
    }
    assert!(checkpoint.join(state).exists(), "{line}: {state} is not in the checkpoint");
    succeed(directory, &pieces);
    let (whole, resumed) = (files(&directory.join("whole")), files(&directory.join("pieces")));
    for ((name, expected), (other, found)) in whole.iter().zip(&resumed) {
        assert!(name == other && expected == found, "{line}: {name} differs after going on from {steps:?}");
    }
    assert!(whole.len() == resumed.len() && whole.len() > 3, "{line}: {} and {} files", whole.len(), resumed.len());
    if !metrics("").is_empty() {
        let log = |name: &str| fs::read(directory.join(name)).expect("the steps are logged");
        assert!(log("whole.jsonl") == log("pieces.jsonl"), "{line}: the logs differ");
    }
    let names = fs::read_dir(directory).expect("it lists").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("checkpoint")).collect();
    assert!(left.is_empty(), "{line}: {left:?} is left behind");
}

/// Some twenty steps.
const TRAINING: &str = "--data text.txt --window 32 --batch 4 --pieces 2 --tokens 2500 --checkpoint-every 3";

#[test]
fn train() {
    same_in_pieces(Family::TiedLlama, &format!("train m {TRAINING}"), &[3, 6, 15], "state.safetensors");
    same_in_pieces(Family::Llama, &format!("train m {TRAINING}"), &[9], "state.safetensors");
}

#[test]
fn distill() {
    let line = format!("distill --teacher m --layers 0 --kl 0.5 {TRAINING}");
    same_in_pieces(Family::TiedLlama, &line, &[3, 12], "state.safetensors");
}

#[test]
fn prune_and_recover() {
    let line = format!("prune m --pattern 2:4 --method magnitude --only ffn --recover {TRAINING}");
    same_in_pieces(Family::Llama, &line, &[6, 18], "state.safetensors");
}

#[test]
fn quantize_by_groups() {
    for family in [Family::TiedLlama, Family::Bert] {
        let line = "quantize m --scheme w4 --calibration text.txt --calibration-tokens 1024 --tune 0";
        same_in_pieces(family, line, &[1, 2, 6], "layers.0.attn.q.safetensors");
    }
}

/// What comes before the training is not done for a state that is then refused.
#[test]
fn the_state_of_another_run_is_refused_before_the_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    fixture::write(&directory.join("m"), Family::Llama, Size::SMALL);
    fs::write(directory.join("text.txt"), format!("{TEXT}\n").repeat(12)).expect("the text can be written");
    for (number, line) in [
        "train m",
        "distill --teacher m --ffn 32 --kl 0.5",
        "distill --teacher m --layers 0 --ce 0 --kl 1 --hidden 0 --teacher-cache kept",
        "prune m --pattern 2:4 --method sparsegpt --calibration text.txt --only ffn --recover",
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("{line} {TRAINING} -o out{number}");
        refused(directory, &format!("{line} -q --stop-after-step 3"), "stopped after step 3");
        // Of a file that has nothing yet every sample would be asked for.
        let other = format!("{line} --learning-rate 0.01 --progress json").replace("kept", "other");
        let output = run(directory, &other);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {message}");
        assert!(message.contains("is the checkpoint of a run with other settings"), "{line}: {message}");
        assert!(!message.contains("\"event\":\"begin\""), "{line}: {message}");
        assert!(!directory.join("other").exists(), "{line}: a file of answers was begun");
    }
}

/// A group of GPTQ is a step too: what is left after the last piece shows that training had begun.
#[test]
fn quantize_and_train_on_the_grid() {
    let line =
        "quantize m --scheme w4 --calibration text.txt --calibration-tokens 1024 --qat --data text.txt --window 32";
    let line = format!("{line} --batch 4 --pieces 2 --tokens 5000 --checkpoint-every 16");
    same_in_pieces(Family::TiedLlama, &line, &[4, 16, 32], "training.checkpoint");
}
