//! Where results are written: what is replaced, what is refused, and what too big a model leaves behind.

use super::decoder::with_decoder;
use crate::fixture::Family;
use std::fs;

#[test]
fn foreign_paths_are_refused_and_own_ones_replaced() {
    let mut transcript = with_decoder("outputs", Family::Llama);
    fs::create_dir(transcript.path("mine")).expect("a directory");
    transcript.file("mine/notes.txt", "not to be lost");
    transcript.file("notes.slm", "not to be lost");
    let quantize = "quantize --quiet model --scheme w8 --tune 0 --calibration text.txt -o";
    for line in [
        format!("{quantize} mine"),
        format!("{quantize} notes.slm"),
        format!("{quantize} model"),
        format!("{quantize} ."),
        format!("{quantize} /"),
    ] {
        assert_eq!(transcript.run(&line).status.code(), Some(2), "slmc {line}");
    }
    transcript.prepare(&format!("{quantize} q"));
    let first = fs::read(transcript.path("q/model.safetensors")).expect("it was written");
    transcript.file("q/leftover", "of the first");
    transcript.note("an output of its own, replaced");
    transcript.prepare(&quantize.replace("w8", "w4").replace("-o", "-o q"));
    assert!(!transcript.path("q/leftover").exists(), "the directory was not replaced whole");
    assert_ne!(first, fs::read(transcript.path("q/model.safetensors")).expect("it was written"));
    transcript.prepare(&format!("{quantize} q"));
    assert_eq!(first, fs::read(transcript.path("q/model.safetensors")).expect("it was written"));

    for out in ["notes.slm", "mine", "text.txt"] {
        let line = format!("compile -q q --target generic -o {out}");
        assert_eq!(transcript.run(&line).status.code(), Some(2), "slmc {line}");
    }
    transcript.prepare("compile q --target generic -o a.slm");
    transcript.prepare("compile q --target cortex-m4 -o a.slm");
    let verified = transcript.silent("verify a.slm --json");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("\"target\":\"cortex-m4\""), "it was not replaced");
    for (file, content) in [("mine/notes.txt", "not to be lost"), ("notes.slm", "not to be lost")] {
        assert_eq!(fs::read_to_string(transcript.path(file)).expect("it is there"), content);
    }
    let left: Vec<_> = fs::read_dir(transcript.path("")).expect("the directory").flatten().collect();
    let hidden: Vec<_> =
        left.iter().map(fs::DirEntry::file_name).filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "temporary siblings were left: {hidden:?}");
}

#[test]
fn too_big_is_exit_code_1_with_all_numbers() {
    let mut transcript = with_decoder("does-not-fit", Family::Llama);
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o q");
    let base = "name = 'mine'\ndescription = 'a test'\nlayout = 'r4k4.2c.d16.g32'\npage_bytes = 64\n";
    for (what, limits) in [
        ("too little RAM for the whole context", "ram_bytes = 30_000\n"),
        ("too little RAM for any context", "ram_bytes = 20_000\nram_reserved_bytes = 10_000\n"),
        ("too little flash for w8", "flash_bytes = 55_000\n"),
        ("too little flash for any scheme", "flash_bytes = 10_000\n"),
    ] {
        transcript.note(what);
        transcript.file("mine.toml", format!("{base}{limits}"));
        assert_eq!(transcript.run("compile q --target mine.toml -o out/a.slm").status.code(), Some(1), "{what}");
        let line = "compile q --target mine.toml -o out/a.slm";
        let answer = transcript.json(line, "slmc.does-not-fit/1");
        let (needed, available) = (answer["needed_bytes"].as_u64(), answer["available_bytes"].as_u64());
        assert!(needed > available && available.is_some(), "{answer}");
        // What the answer promises holds: that scheme, or the one there is, at that context and no longer one.
        let model = match answer["scheme"].as_str() {
            Some(scheme) => {
                transcript
                    .prepare(&format!("quantize model --scheme {scheme} --tune 0 --calibration text.txt -o other"));
                "other"
            }
            None => "q",
        };
        if let Some(largest) = answer["largest_context"].as_u64() {
            let compile = |context| format!("compile {model} --target mine.toml --context {context} -o fits.slm");
            transcript.prepare(&compile(largest));
            let more = transcript.silent(&compile(largest + 1)).status.code();
            assert_eq!(more, Some(if largest < 96 { 1 } else { 2 }), "a context above the largest fits too");
        }
        transcript.run("estimate q --target mine.toml");
        transcript.run("estimate model --target mine.toml");
    }
    assert!(!transcript.path("out").exists(), "something was written that does not fit");
}
