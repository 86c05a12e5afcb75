//! The whole way of a decoder: quantize, compile, look at it, measure it, let it write.

use super::harness::Transcript;
use crate::fixture::{Family, Size, write};

/// A transcript in whose directory a decoder stands, as `model`, and a text, as `text.txt`.
pub(super) fn with_decoder(name: &str, family: Family) -> Transcript {
    let transcript = Transcript::new(name);
    write(&transcript.path("model"), family, Size::SMALL);
    transcript.file("text.txt", "the quick brown fox jumps over the lazy dog. a fox is no dog.\n".repeat(12));
    transcript
}

#[test]
fn from_checkpoint_to_artifact_in_words() {
    let mut transcript = with_decoder("decoder", Family::Llama);
    transcript.run("inspect model");
    transcript.run("estimate model");
    transcript.run("quantize model --scheme w8 --tune 0 -o out/w8");
    transcript.run(
        "quantize model --scheme mixed --tune 0 --keep head=w4 --keep layers.1.ffn.*=w8 --calibration text.txt -o out/mixed",
    );
    transcript.run("estimate out/mixed --target cortex-m4 --context 40");
    transcript.run("compile out/mixed --target cortex-m4 --context 40 -o out/mixed.slm");
    transcript.run("compile out/mixed --target cortex-m4 --context 40 --device-only -o out/device.slm");
    transcript.run("inspect out/mixed.slm");
    transcript.run("inspect out/device.slm");
    transcript.run("verify out/mixed.slm");
    transcript.run("verify out/device.slm");
    transcript.run("eval model --data text.txt --window 16");
    transcript.run("eval out/mixed --data text.txt --window 16 --reference model");
    transcript.run("eval out/mixed.slm --data text.txt --window 16 --max-windows 3 --reference model");
    transcript.run("generate out/mixed.slm --prompt 'the fox' --tokens 12");
    transcript.file(
        "answers.jsonl",
        "{\"prompt\": \"the fox\", \"label\": \"runs\"}\n{\"prompt\": \"a\", \"label\": \"dog\"}\n",
    );
    transcript.run("eval out/mixed.slm --task generate --data answers.jsonl --answer-tokens 8 --reference model");
    transcript.run("eval out/mixed.slm --task mlm --data text.txt");
    transcript.run("generate model --prompt 'the fox' --tokens 4");
    transcript
        .run("generate out/mixed.slm --prompt 'the fox' --tokens 12 --temperature 0.9 --top-k 8 --top-p 0.9 --seed 7");
    transcript.note("the context holds 40 positions");
    transcript.run("generate out/mixed.slm --prompt 'the quick brown fox jumps' --tokens 100 --temperature 2 --seed 4");
}

#[test]
fn every_result_is_one_json_line() {
    let mut transcript = with_decoder("decoder-json", Family::TiedLlama);
    transcript.json("estimate model --target cortex-m55", "slmc.estimate/1");
    transcript.json("quantize model --scheme w4 --tune 0 --seed 5 -o out/w4", "slmc.quantize/1");
    transcript.json("compile out/w4 --target wasm32 -o out/w4.slm", "slmc.compile/1");
    transcript.json("inspect out/w4.slm", "slmc.inspect/1");
    transcript.json("verify out/w4.slm", "slmc.verify/1");
    let lm = transcript.json("eval out/w4.slm --data text.txt --window 16 --reference model", "slmc.eval/1");
    for key in ["tokens", "windows", "perplexity", "reference_perplexity", "kld_mean", "kld_stderr", "kld_p99"] {
        assert!(lm[key].is_number(), "{key} in {lm}");
    }
    for key in ["top1_agreement", "weight_bytes", "file_bytes", "parameters", "bits_per_weight"] {
        assert!(lm[key].is_number(), "{key} in {lm}");
    }
    assert_eq!(lm["logits_sha256"].as_str().map(str::len), Some(64));
    transcript.json("generate out/w4.slm --prompt 'the fox' --tokens 5", "slmc.generate/1");
    transcript.json("targets cortex-m4", "slmc.targets/1");
    transcript.json("targets", "slmc.targets/1");
    // What doctor reports is the machine's.
    let doctor = transcript.silent("doctor --json --threads 1");
    let line = String::from_utf8(doctor.stdout).expect("UTF-8");
    assert!(line.starts_with("{\"schema\":\"slmc.doctor/1\",") && line.lines().count() == 1, "{line}");
    let doctor: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    for key in ["version", "architecture", "cpu_features", "kernel", "threads", "read_bandwidth_bytes_per_s", "devices"]
    {
        assert!(!doctor[key].is_null(), "{key} in {line}");
    }
    let words = String::from_utf8(transcript.silent("doctor --threads 1").stdout).expect("UTF-8");
    for row in ["slmc", "architecture", "CPU features", "kernel", "read bandwidth", "f32 backends"] {
        assert!(words.lines().any(|line| line.starts_with(row)), "{row} in {words}");
    }
}

#[test]
fn speed_is_measured_on_artifacts_and_on_shapes() {
    let mut transcript = with_decoder("bench", Family::TiedLlama);
    transcript.prepare("quantize model --scheme w4 --tune 0 --calibration text.txt -o out/w4");
    transcript.prepare("compile out/w4 --target generic --context 24 -o out/w4.slm");
    let measured = |transcript: &Transcript, line: &str| -> serde_json::Value {
        let output = transcript.silent(&format!("bench {line} --json"));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["schema"], "slmc.bench/1");
        for key in ["first_token_ms", "token_ms_p50", "token_ms_p99", "prefill_tokens_per_s", "decode_tokens_per_s"] {
            assert!(report[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {report}");
        }
        assert!(report["read_bandwidth_fraction"].is_number() && report["kernel"].is_string(), "{report}");
        report
    };
    let report = measured(&transcript, "out/w4.slm --prefill 16 --decode 8 --rounds 2 --threads 1");
    assert_eq!((&report["weights"], &report["head_scheme"]), (&"mapped".into(), &"w4.g32".into()));
    assert_eq!((&report["threads"], &report["rounds"]), (&1.into(), &2.into()));
    // What one token reads: every matrix once, the tied token table being the head.
    let inspected: serde_json::Value =
        serde_json::from_slice(&transcript.silent("inspect out/w4.slm --json").stdout).expect("JSON");
    assert_eq!(report["bytes_per_token"], inspected["weight_bytes"]);
    for (line, head) in [("", "w8"), (" --head w4", "w4.g32"), (" --sparsity 2:4", "w8")] {
        let report = measured(&transcript, &format!("--shape 15m{line} --prefill 2 --decode 2 --rounds 1"));
        assert_eq!(report["head_scheme"], head, "{line}");
    }
    transcript.run("bench out/w4.slm --prefill 16 --decode 9");
    transcript.run("bench out/w4.slm --shape 15m");
    transcript.run("bench");
    transcript.run("bench --shape 2b");
    transcript.run("bench --shape 15m --sparsity 4:8");
    transcript.run("bench missing.slm");
}

#[test]
fn an_estimate_is_what_compiling_takes() {
    let transcript = with_decoder("", Family::TiedLlama);
    let json = |line: &str| -> serde_json::Value {
        serde_json::from_slice(&transcript.silent(&format!("{line} --json")).stdout).expect("JSON")
    };
    for (target, context) in [("generic", 96), ("cortex-m4", 33), ("cortex-m55", 1)] {
        let estimate = json(&format!("estimate model --target {target} --context {context}"));
        for row in estimate["schemes"].as_array().expect("rows") {
            let scheme = row["scheme"].as_str().expect("a name");
            transcript.prepare(&format!("quantize model --scheme {scheme} --tune 0 --calibration text.txt -o out/q"));
            let compiled = json(&format!("compile out/q --target {target} --context {context} -o out/q.slm"));
            let quantized = json(&format!("estimate out/q --target {target} --context {context}"));
            for key in ["weight_bytes", "parameters", "bits_per_weight", "flash_bytes", "ram_bytes"] {
                assert_eq!(row[key], compiled[key], "{key} of {scheme} on {target}, estimated and compiled");
                assert_eq!(quantized["schemes"][0][key], compiled[key], "{key} of {scheme} on {target}, quantized");
            }
        }
    }
}
