//! The two streams: a reader that goes away, `--quiet`, `--progress json`, and results that do not depend on threads.

use super::decoder::with_decoder;
use super::harness::command;
use crate::fixture::Family;
use std::io::Read;
use std::process::Stdio;

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let transcript = with_decoder("", Family::Llama);
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o q");
    transcript.prepare("compile q --target generic -o a.slm");
    for arguments in [
        &["generate", "a.slm", "--prompt", "the fox", "--tokens", "80", "--temperature", "1"][..],
        &["generate", "model", "--prompt", "the fox", "--tokens", "80", "--temperature", "1"],
        &["inspect", "a.slm"],
        &["targets", "--json"],
        &["quantize", "--help"],
    ] {
        let mut child = command(&transcript.path(""), arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdout = child.stdout.take().expect("it is piped");
        let mut start = [0; 10];
        stdout.read_exact(&mut start).expect("ten bytes come");
        drop(stdout);
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "slmc {arguments:?}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "slmc {arguments:?}: {stderr}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_stdout_is_named() {
    let transcript = with_decoder("", Family::Llama);
    for arguments in [&["targets", "--json"][..], &["eval", "model", "--data", "text.txt", "--window", "16"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let output = command(&transcript.path(""), arguments).stdout(full).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "slmc {arguments:?}: {stderr}");
        assert!(stderr.contains("the result cannot be written to standard output: No space left"), "{stderr}");
    }
}

/// A result without what a stage took, which no run repeats.
fn without_cost(stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stdout);
    let cost = ["\n\nseconds ", ",\"seconds\":"];
    cost.iter().filter_map(|cost| text.split_once(cost)).map(|(before, _)| before).next().unwrap_or(&text).to_owned()
}

#[test]
fn quiet_prints_nothing_but_the_result() {
    let transcript = with_decoder("", Family::Llama);
    for line in [
        "quantize -q model --scheme w8 --tune 0 --calibration text.txt -o q",
        "compile -q q --target generic -o a.slm",
        "verify -q a.slm",
        "inspect -q a.slm",
        "estimate -q model",
        "eval -q a.slm --data text.txt --window 16",
        "generate -q a.slm --prompt fox --tokens 90",
        "targets -q",
    ] {
        let quiet = transcript.silent(line);
        assert_eq!(String::from_utf8_lossy(&quiet.stderr), "", "slmc {line}");
        assert!(!quiet.stdout.is_empty(), "slmc {line}");
        if !line.starts_with("generate") {
            let normal = transcript.silent(&line.replace(" -q", ""));
            assert_eq!(without_cost(&quiet.stdout), without_cost(&normal.stdout), "slmc {line}");
        }
    }
}

#[test]
fn progress_is_json_lines_when_asked_for() {
    let mut transcript = with_decoder("progress", Family::Llama);
    transcript.note("steps of less than a tenth are not listed");
    for line in [
        "quantize model --scheme w8 --tune 0 --calibration text.txt --progress json --json -o q",
        "compile q --target generic --progress json --json -o a.slm",
        "eval a.slm --data text.txt --window 16 --progress json --json",
        "compile model --target generic --progress json -o b.slm",
    ] {
        let output = transcript.silent(line);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        let mut events = Vec::new();
        for event in stderr.lines() {
            let event: serde_json::Value = serde_json::from_str(event).expect("every line is an object");
            assert_eq!(event["schema"], "slmc.progress/1");
            events.push(event["event"].as_str().expect("it has a name").to_owned());
        }
        events.dedup();
        transcript.note(&format!("{line}: {}", events.join(" ")));
    }
}

#[test]
fn every_step_of_quantizing_is_counted() {
    for family in [Family::Llama, Family::TiedLlama] {
        let transcript = with_decoder("", family);
        for method in ["gptq --tune 0", "search", "rtn"] {
            let line = format!(
                "quantize model --scheme w4 --method {method} --calibration text.txt --progress json -o {}",
                method.split(' ').next().expect("a name")
            );
            let events: Vec<serde_json::Value> = transcript
                .silent(&line)
                .stderr
                .split(|byte| *byte == b'\n')
                .filter(|event| !event.is_empty())
                .map(|event| serde_json::from_slice(event).expect("every line is an object"))
                .filter(|event: &serde_json::Value| event["what"] == "quantizing")
                .collect();
            let of = |name: &str| events.iter().find(|event| event["event"] == name).expect("it is there");
            assert!(of("begin")["total"].as_u64() > Some(0), "{line}");
            assert_eq!(of("begin")["total"], of("finish")["done"], "{line}");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let transcript = with_decoder("", Family::TiedLlama);
    let quantize =
        |threads: usize| format!("quantize model --scheme mixed --tune 0 --threads {threads} -o q{threads} --json");
    let results: Vec<Vec<u8>> = [1, 2, 5]
        .map(|threads| {
            let mut all = without_cost(&transcript.prepare(&quantize(threads))).into_bytes();
            transcript.prepare(&format!("compile q{threads} --target generic --threads {threads} -o a.slm"));
            all.extend(std::fs::read(transcript.path("a.slm")).expect("it was written"));
            let eval = format!("eval a.slm --data text.txt --window 16 --reference model --threads {threads} --json");
            all.extend(without_cost(&transcript.prepare(&eval)).bytes());
            all
        })
        .into();
    assert!(results[0].len() > 10_000);
    assert!(results.iter().all(|result| *result == results[0]), "results differ with the number of threads");
}
