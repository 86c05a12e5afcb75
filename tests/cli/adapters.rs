//! Models that other tools made: adapters merged and passed in the place of a model, packed integers taken over.

use super::harness::Transcript;
use crate::support::{golden, root};
use std::fs;
use std::path::Path;

/// Copies the files of a folder into the transcript's directory.
fn copy(transcript: &Transcript, from: &Path, to: &str) {
    fs::create_dir(transcript.path(to)).expect("a fresh directory");
    for entry in fs::read_dir(from).expect("it is part of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !name.starts_with("expected") && !name.starts_with("golden") {
            fs::copy(&path, transcript.path(to).join(name)).expect("copies");
        }
    }
}

#[test]
fn adapters_are_merged_or_stand_for_a_model() {
    let mut transcript = Transcript::new("adapters");
    copy(&transcript, &golden("llama-mha"), "base");
    for name in ["patterns", "rank-32", "dora"] {
        copy(&transcript, &root("tests/data/adapters").join(name), name);
    }
    transcript.run("merge base patterns -o merged");
    transcript.json("merge base patterns=0.5 rank-32=-0.25 -o both", "slmc.merge/1");
    transcript.run("inspect patterns --base base");
    for line in [
        "inspect patterns",
        "merge base nowhere -o out",
        "merge base patterns=half -o out",
        "merge base dora -o out",
        "merge base base -o out",
        "merge patterns rank-32 -o out",
        "merge base patterns -o base",
        "merge base -o out",
        "merge merged patterns -o merged",
        "merge base patterns --max-ram 1MiB -o out",
        "merge base patterns --base base -o out",
        "inspect base --base base",
        "quantize base --scheme w8 --base base -o out",
        "generate base --base base",
        "diff base base --base base",
        "doctor --base base",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}

#[test]
fn packed_integers_are_read_and_taken_over() {
    let mut transcript = Transcript::new("packed");
    let packed = root("tests/data/packed");
    copy(&transcript, &packed.join("gptq-v1"), "gptq");
    copy(&transcript, &packed.join("ct-mixed"), "mixed");
    copy(&transcript, &golden("llama-mha"), "dense");
    transcript.run("inspect gptq");
    transcript.run("inspect mixed");
    transcript.run("estimate mixed --target cortex-m55 --context 32");
    transcript.run("quantize gptq --scheme w4 --method keep -o kept");
    transcript.json("quantize mixed --scheme w8 --method keep -o eight", "slmc.quantize/1");
    for line in [
        "quantize dense --scheme w4 --method keep -o out",
        "quantize gptq --scheme auto --bits-per-weight 5 --method keep -o out",
        "quantize gptq --scheme w4 --method keep --equalize -o out",
        "quantize gptq --scheme w8 --method keep -o out",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}
