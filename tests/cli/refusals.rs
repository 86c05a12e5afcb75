//! Bad input: an error that names the file, tensor or key and the remedy, exit code 2, and nothing written.

use super::decoder::with_decoder;
use crate::fixture::{Family, Size, letters, write};
use serde_json::{Value, json};

#[test]
fn of_models_options_and_schemes() {
    let mut transcript = with_decoder("refusals-quantize", Family::TiedLlama);
    for line in [
        "quantize nowhere --scheme w8 -o out/q",
        "quantize model --scheme w8 --target cortex-m5 -o out/q",
        "quantize model --scheme w8 --backend cuda -o out/q",
        "quantize model --scheme w8 --backend remote:127.0.0.1:3000 -o out/q",
        "quantize model --scheme w8 --keep layers.7.*=w4 -o out/q",
        "quantize model --scheme w8 --keep embedding=w4 --keep head=w8 -o out/q",
        "quantize model --scheme w4 --keep embedding=w8:100+w4 -o out/q",
        "quantize model --scheme w4 --keep embedding=w8:64+w4 -o out/q",
        "quantize model --scheme w4 --keep ffn=w8:64+w4 -o out/q",
        "quantize model --scheme auto --bits-per-weight 8 --keep ffn=w8:64+w4 -o out/q",
        "quantize model --scheme w8 --max-ram 1KiB -o out/q",
        "quantize model --scheme w5 -o out/q",
        "quantize model --scheme auto -o out/q",
        "quantize model --scheme w8 --tune 0 --budget 1MiB -o out/q",
        "quantize model --scheme auto --budget 8000 -o out/q",
        "quantize model --scheme auto --ram 8000 -o out/q",
        "quantize model --scheme auto --ram 8000 --target cortex-m55 --context 16 -o out/q",
        "quantize model --scheme auto --ram 1MiB --context 0 -o out/q",
        "quantize model --scheme auto --latency 1e-6 --target cortex-a76 -o out/q",
        "quantize model --scheme auto --latency 0 --target cortex-a76 -o out/q",
        "quantize model --scheme auto --latency 1 -o out/q",
        "quantize model --scheme w4 --latency 1 -o out/q",
        "quantize model --scheme auto --budget 1MiB --context 16 -o out/q",
        "quantize model --scheme w8 --method rtn --tune 4 -o out/q",
        "quantize model --scheme auto --bits-per-weight 0 -o out/q",
        "quantize model --scheme auto --bits-per-weight 5 --keep head=w8 -o out/q",
        "quantize model --scheme auto --bits-per-weight 8 --keep *.q=w8 --keep *.k=w4 -o out/q",
        "quantize model --scheme w8 --tune 0 --calibration nowhere.txt -o out/q",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o done");
    transcript.run("quantize done --scheme w4 -o out/q");
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}

#[test]
fn of_damaged_checkpoints() {
    let mut transcript = with_decoder("refusals-checkpoint", Family::Llama);
    let weights = std::fs::read(transcript.path("model/model.safetensors")).expect("the fixture's weights");
    let config = std::fs::read_to_string(transcript.path("model/config.json")).expect("the fixture's config");
    let header = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes")) as usize;
    let mut nan = weights.clone();
    nan[8 + header + 400..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut infinite = weights.clone();
    let end = infinite.len();
    infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let text = String::from_utf8(weights[8..8 + header].to_vec()).expect("JSON");
    let lying = |from: &str, to: &str| {
        let header = text.replacen(from, to, 1);
        assert_ne!(header, text, "{from}");
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &weights[8 + header.len().min(text.len())..]].concat()
    };
    let renamed = {
        let header = text.replacen("model.norm.weight", "model.norm.wait", 1);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &weights[8 + text.len()..]].concat()
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("cut short", weights[..weights.len() - 100].to_vec()),
        ("shorter than its length field", weights[..5].to_vec()),
        ("NaN", nan),
        ("infinite", infinite),
        ("another data type", lying("F32", "F64")),
        ("another shape, as many values", lying("[32,40]", "[40,32]")),
        ("a tensor renamed", renamed),
    ];
    for (what, bytes) in cases {
        transcript.note(what);
        transcript.file("model/model.safetensors", bytes);
        for line in [
            "quantize model --scheme w8 --tune 0 --calibration text.txt -o out/q",
            "eval model --data text.txt --window 16",
        ] {
            assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line} with weights: {what}");
        }
    }
    transcript.file("model/model.safetensors", &weights);
    for (key, value) in [
        ("model_type", json!("mamba")),
        ("hidden_act", json!("relu6")),
        ("vocab_size", json!(33)),
        ("num_hidden_layers", json!(3)),
        ("rope_scaling", json!({"rope_type": "ntk", "factor": 2.0})),
    ] {
        let mut changed: Value = serde_json::from_str(&config).expect("JSON");
        changed[key] = value.clone();
        transcript.note(&format!("config.json with {key} = {value}"));
        transcript.file("model/config.json", changed.to_string());
        assert_eq!(transcript.run("estimate model").status.code(), Some(2), "{key} = {value}");
    }
    transcript.note("config.json that is no JSON");
    transcript.file("model/config.json", "{\"model_type\": ");
    assert_eq!(transcript.run("estimate model").status.code(), Some(2));
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}

#[test]
fn of_tokenizers_and_texts() {
    let mut transcript = with_decoder("refusals-text", Family::Llama);
    transcript.file("empty.txt", " \n\n");
    transcript.file("latin.txt", b"caf\xe9\n");
    transcript.file("short.txt", "fox");
    transcript.file("lines.jsonl", "{\"story\": \"a fox\"}\n{\"tale\": \"a dog\"}\n");
    for line in [
        "eval model --data empty.txt",
        "eval model --data latin.txt",
        "eval model --data short.txt --window 16",
        "eval model --data text.txt --window 97",
        "eval model --data text.txt --window 1",
        "eval model --data text.txt --window 16 --max-windows 0",
        "eval model --data lines.jsonl --window 16",
        "eval model --data lines.jsonl --window 16 --field story",
        "eval model --data text.txt --window 16 --task classify",
        "quantize model --scheme w8 --tune 0 --calibration empty.txt -o out/q",
        "quantize model --scheme w8 --tune 0 --calibration short.txt -o out/q",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o q");
    let mut larger = letters();
    larger["model"]["vocab"]["zz"] = json!(40);
    transcript.file("q/tokenizer.json", larger.to_string());
    transcript.note("a tokenizer with more ids than the model has rows");
    transcript.run("compile q --target generic -o out/q.slm");
    transcript.file("model/tokenizer.json", larger.to_string());
    transcript.run("quantize model --scheme w8 --tune 0 --calibration text.txt -o out/q");
    transcript.run("eval model --data text.txt --window 16");
    transcript.note("a model with another vocabulary as the reference");
    write(&transcript.path("bert"), Family::Bert, Size::SMALL);
    transcript.run("eval q --data text.txt --window 16 --reference bert");
    transcript.note("a tokenizer that is none, and none at all");
    transcript.file("q/tokenizer.json", "{}");
    transcript.run("compile q --target generic -o out/q.slm");
    std::fs::remove_file(transcript.path("q/tokenizer.json")).expect("it is there");
    transcript.run("compile q --target generic -o out/q.slm");
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}

#[test]
fn of_compilation() {
    let mut transcript = with_decoder("refusals-compile", Family::Llama);
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o q");
    for line in [
        "compile model --target generic -o out/a.slm",
        "compile q --target cortex-m5 -o out/a.slm",
        "compile q --target boards/mine.toml -o out/a.slm",
        "compile q --target generic --context 97 -o out/a.slm",
        "compile q --target generic --context 0 -o out/a.slm",
        "compile q --target generic --max-ram 1MB -o out/a.slm",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    let base = "name = 'mine'\ndescription = 'a test'\nlayout = 'r4k4.2c.d16.g32'\npage_bytes = 64\n";
    for (what, more) in [
        ("a key that is none", "flash_byte = 1\n"),
        ("schemes it does not run", "[required]\nschemes = ['w4']\n"),
        ("sparsity it insists on", "[required]\nsparsity = '2:4'\n"),
        ("a vocabulary it does not take", "[max]\nvocabulary = 31\n"),
    ] {
        transcript.note(&format!("a target with {what}"));
        transcript.file("mine.toml", format!("{base}{more}"));
        assert_eq!(transcript.run("compile q --target mine.toml -o out/a.slm").status.code(), Some(2), "{what}");
    }
    transcript.note("a scheme that the target's kernels lack; a target without kernels of its own takes it");
    transcript.prepare("quantize model --scheme w8 --keep ffn=w3.g32 --tune 0 --calibration text.txt -o q3");
    for line in ["compile q3 --target cortex-m4 -o out/a.slm", "estimate q3 --target x86-64-v3"] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
    transcript.prepare("compile q3 --target generic -o a.slm");
}

#[test]
fn of_artifacts() {
    let mut transcript = with_decoder("refusals-artifact", Family::Llama);
    transcript.prepare("quantize model --scheme w8 --tune 0 --calibration text.txt -o q");
    transcript.prepare("compile q --target generic -o a.slm");
    transcript.prepare("compile q --target generic --device-only -o device.slm");
    let artifact = std::fs::read(transcript.path("a.slm")).expect("it was written");
    transcript.file("cut.slm", &artifact[..artifact.len() - 64]);
    transcript.file("stub.slm", &artifact[..100]);
    transcript.file("long.slm", [&artifact[..], &[0; 64]].concat());
    transcript.file("empty.slm", "");
    let mut changed = artifact.clone();
    changed[artifact.len() / 2] ^= 1;
    transcript.file("changed.slm", &changed);
    for line in [
        "verify nowhere.slm",
        "verify text.txt",
        "verify model",
        "verify empty.slm",
        "verify stub.slm",
        "verify cut.slm",
        "verify long.slm",
        "verify changed.slm",
        "inspect changed.slm",
        "eval changed.slm --data text.txt --window 16",
        "generate changed.slm --prompt a",
        "generate a.slm --prompt 'the quick brown fox jumps over the lazy dog. the quick brown fox jumps over the lazy dog. once more'",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    transcript.note("without a tokenizer, then with one");
    transcript.run("generate device.slm --prompt a --tokens 3 --tokenizer model");
    transcript.run("eval device.slm --data text.txt --window 16");
    transcript.run("generate device.slm --prompt a --tokens 3");
    transcript.run("eval device.slm --data text.txt --window 16 --tokenizer model");
    transcript.run("eval device.slm --data text.txt --window 16 --reference model");
}
