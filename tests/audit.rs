//! Audit logs: written by `slmc generate`, `slmc chat` and a program in C, checked and replayed by `slmc audit`, tampered with,
//! and joined to texts by `slmc eval --log`. Single bytes of a chain are `src/audit/chain/tests.rs`'s.

use crate::c_interface::{builds, stdout_of};
use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, run, stderr, succeed};
use serde_json::{Value, json as value};
use slm_runtime::audit::{AuditLog, End, Outcome};
use slm_runtime::sample::Sampling;
use slmc::artifact::host::{ArtifactFile, run_sequence};
use std::fs;
use std::path::Path;
use std::process::Command;

const RECORD: usize = 160;

/// A directory with artifacts of two models, `model.slm` and `other.slm`, and keys of every kind.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), Family::TiedLlama, Size::SMALL);
    for (scheme, name) in [("w8", "model"), ("w4", "other")] {
        succeed(path, &format!("quantize model --scheme {scheme} --method rtn -o {name}-q"));
        succeed(path, &format!("compile {name}-q --target generic -o {name}.slm"));
    }
    for kind in ["ed25519", "p256", "device"] {
        succeed(path, &format!("keygen --type {kind} -o {kind}"));
    }
    directory
}

/// The rows by which the answers of [`logged`] are replayed.
const PROMPTS: &str = "{\"sequence\": 1, \"prompt\": \"the cat sat on\"}\n\
     {\"sequence\": SECOND, \"prompt\": \"a dog ran\", \"seed\": 7, \"sampling\": {\"temperature\": 0.8, \"top_p\": 0.9}}\n";

/// Two answers in a log, with a key or without; gives the head of it.
fn logged(path: &Path, log: &str, key: Option<&str>) -> String {
    let key = key.map_or(String::new(), |key| format!(" --audit-key {key}"));
    json(path, &format!("generate model.slm --prompt 'the cat sat on' --tokens 12 --audit {log}{key}"));
    let options = "--tokens 9 --seed 7 --temperature 0.8 --top-p 0.9";
    let second = json(path, &format!("generate model.slm --prompt 'a dog ran' {options} --audit {log}{key}"));
    let sequence = if key.is_empty() { 3 } else { 4 };
    assert_eq!(second["audit"]["sequence"], sequence, "{second}");
    fs::write(path.join("prompts.jsonl"), PROMPTS.replace("SECOND", &sequence.to_string())).expect("written");
    second["audit"]["head"].as_str().expect("a head").to_owned()
}

#[test]
fn answers_are_logged_checked_and_computed_again() {
    let directory = place();
    let path = directory.path();
    for (key, check) in [
        (None, None),
        (Some("ed25519.pem"), Some("ed25519.pub")),
        (Some("p256.pem"), Some("p256.pub")),
        (Some("file:device.key"), Some("device.key")),
    ] {
        let log = format!("{}.log", key.unwrap_or("plain").replace("file:", ""));
        let head = logged(path, &log, key);
        let checked = check.map_or(String::new(), |key| format!(" --log-key {key}"));
        let line = format!("audit {log} --artifact model.slm --replay prompts.jsonl --head {head}{checked}");
        let report = json(path, &line);
        let seals = if key.is_some() { 2 } else { 0 };
        assert_eq!((&report["schema"], &report["records"]), (&"slmc.audit/1".into(), &(4 + seals).into()), "{report}");
        assert_eq!((&report["inferences"], &report["head"]), (&2.into(), &head.as_str().into()));
        assert_eq!((&report["seals"], &report["checked"]), (&seals.into(), &seals.into()), "{report}");
        assert_eq!(report["unsealed_records"], if seals == 0 { 4 } else { 0 });
        assert_eq!(report["replay"], value!({"same": 2, "differing": 0, "left": []}), "{report}");
        assert_eq!((&report["passed"], &report["findings"]), (&true.into(), &value!([])));
        assert_eq!(report["artifacts"][0]["file"], "model.slm");
        // One row less is said, and is no fault.
        fs::write(path.join("one.jsonl"), PROMPTS.lines().next().expect("a row")).expect("written");
        let report = json(path, &line.replace("prompts", "one"));
        assert_eq!(report["replay"], value!({"same": 1, "differing": 0, "left": [["no row has its number", 1]]}));
        // Other questions, other settings, another seed, a row without a record.
        let second = 3 + seals / 2;
        for (row, expected) in [
            (value!({"sequence": 1, "prompt": "the cat sat in"}), "the question, its settings or its seed"),
            (
                value!({"sequence": 1, "prompt": "the cat sat on", "sampling": {"temperature": 0.1}}),
                "the question, its",
            ),
            (
                value!({"sequence": second, "prompt": "a dog ran", "seed": 8,
                "sampling": {"temperature": 0.8, "top_p": 0.9}}),
                "the question, its",
            ),
            (value!({"sequence": 0, "prompt": "the cat sat on"}), "has no inference in the log"),
            (value!({"sequence": 99, "prompt": "the cat sat on"}), "has no inference in the log"),
            (value!({"sequence": 1, "prompt": "the cat ".repeat(400)}), "cannot have been asked"),
        ] {
            fs::write(path.join("wrong.jsonl"), row.to_string()).expect("written");
            let report = json_with_code(path, &line.replace("prompts", "wrong"), 1);
            let fault = report["findings"][0]["fault"].as_str().expect("a finding");
            assert!(fault.contains(expected) && report["findings"][0]["record"] == row["sequence"], "{report}");
        }
        // Another artifact's answers, and one that nobody gave.
        let report = json_with_code(path, &line.replace("model.slm", "other.slm"), 1);
        assert_eq!(report["findings"][0]["about"], "artifact", "{report}");
        assert_eq!(report["replay"]["left"][0], value!(["its artifact was not given", 2]));
    }
}

/// A log whose every record is chained anew after a change, as whoever holds the file can.
fn chained_anew(mut log: Vec<u8>) -> Vec<u8> {
    for index in 1..log.len() / RECORD {
        let before = [&[0][..], &log[(index - 1) * RECORD..index * RECORD]].concat();
        let digest = slmc::disk::hash::sha256(&before);
        log[index * RECORD + 128..(index + 1) * RECORD].copy_from_slice(&digest);
        let number = (index as u64).to_le_bytes();
        log[index * RECORD + 8..index * RECORD + 16].copy_from_slice(&number);
    }
    log
}

#[test]
fn answers_of_a_sealed_artifact_are_computed_by_the_key_of_its_device() {
    let directory = place();
    let path = directory.path();
    logged(path, "plain.log", None);
    succeed(path, "seal model.slm --device-key device.key -o sealed.slm");
    // The device that wrote the log runs the sealed file, and names it.
    let digest =
        ArtifactFile::open(&path.join("sealed.slm")).expect("sound").view().expect("sound").header().device_digest;
    let mut log = fs::read(path.join("plain.log")).expect("reads");
    log.chunks_exact_mut(RECORD).for_each(|record| record[32..64].copy_from_slice(&digest));
    fs::write(path.join("sealed.log"), chained_anew(log)).expect("written");
    let line = "audit sealed.log --artifact sealed.slm --replay prompts.jsonl";
    refused(path, line, "sealed.slm: its weights are sealed");
    succeed(path, "keygen --type device -o strange");
    refused(path, &format!("{line} --device-key strange.key"), "none of 1 stanzas is for this device's key");
    let report = json(path, &format!("{line} --device-key strange.key --device-key device.key"));
    assert_eq!(report["replay"], value!({"same": 2, "differing": 0, "left": []}), "{report}");
    // The open file is another artifact.
    let report = json_with_code(path, &line.replace("sealed.slm", "model.slm"), 1);
    assert_eq!(report["findings"][0]["about"], "artifact", "{report}");
}

#[test]
fn tampered_logs_are_refused_by_the_number_of_the_record() {
    let directory = place();
    let path = directory.path();
    let head = logged(path, "sound.log", Some("ed25519.pem"));
    let sound = fs::read(path.join("sound.log")).expect("reads");
    let count = sound.len() / RECORD;
    let put = |bytes: &[u8]| fs::write(path.join("t.log"), bytes).expect("written");
    for index in 0..count - 1 {
        let mut bytes = sound.clone();
        bytes[index * RECORD + 100] ^= 4;
        put(&bytes);
        refused(path, "audit t.log", &format!("t.log: record {index} was changed"));
        let mut bytes = sound.clone();
        bytes.drain(index * RECORD..(index + 1) * RECORD);
        put(&bytes);
        refused(path, "audit t.log", &format!("t.log: record {index} is missing"));
        let mut bytes = sound.clone();
        bytes[index * RECORD..(index + 2) * RECORD].rotate_left(RECORD);
        put(&bytes);
        refused(path, "audit t.log", &format!("record {} stands in the place of record {index}", index + 1));
        put(&sound[..index * RECORD + 77]);
        refused(path, "audit t.log", &format!("record {index} is cut: 77 of its 160 bytes are there"));
    }
    // A cut at the end, by what is kept elsewhere.
    put(&sound[..sound.len() - RECORD]);
    json(path, "audit t.log");
    refused(path, &format!("audit t.log --head {head}"), "none of its 5 records has the head");
    refused(path, "audit t.log --records 6", "holds 5 records, and the counter says 6");
    refused(path, "audit t.log --head 12", "is not a head");
    // An earlier head holds as long as the log only grew.
    let first = json(path, "audit t.log")["head"].as_str().expect("a head").to_owned();
    let report = json(path, &format!("audit sound.log --head {first}"));
    assert_eq!(report["head_is_of"], 4, "{report}");
    // Everything chained anew: the chain is sound, the seals are not.
    let mut changed = sound.clone();
    changed[RECORD + 100] ^= 4;
    put(&chained_anew(changed));
    json(path, "audit t.log");
    refused(path, "audit t.log --log-key ed25519.pub", "the seal in record 2 is not its key's signature");
    refused(path, &format!("audit t.log --head {head}"), "none of its 6 records has the head");
    // Without its seals.
    let kept: Vec<u8> = sound.chunks(RECORD).filter(|record| record[5] != 4).flatten().copied().collect();
    put(&chained_anew(kept));
    json(path, "audit t.log");
    refused(path, "audit t.log --log-key ed25519.pub", "holds no seal by a key that was given");
    // Sealed by another key.
    refused(path, "audit sound.log --log-key p256.pub", "is sealed by the key");
    refused(path, "audit sound.log --log-key device.key", "is sealed by the key");
    refused(path, "audit sound.log --log-key ed25519.pem", "this needs the public one");
    // A byte of the last seal: only its key sees it.
    let mut changed = sound.clone();
    changed[sound.len() - 80] ^= 1;
    put(&changed);
    json(path, "audit t.log");
    refused(path, "audit t.log --log-key ed25519.pub", "the seal in record 5 is not");
    // Time that runs backwards is no damage.
    let mut changed = sound.clone();
    changed[3 * RECORD + 16..3 * RECORD + 24].copy_from_slice(&5u64.to_le_bytes());
    put(&chained_anew(changed));
    let report = json_with_code(path, "audit t.log", 1);
    assert_eq!((&report["findings"][0]["record"], &report["findings"][0]["about"]), (&3.into(), &"time".into()));
    // Nothing, and something else.
    put(b"");
    refused(path, "audit t.log", "holds no record");
    refused(path, "audit model.slm", "not an audit log");
    refused(path, "audit none.log", "none.log: cannot be read");
    refused(path, "audit sound.log --replay prompts.jsonl", "--artifact");
    // Nobody goes on with a damaged log, or logs a directory.
    put(&sound[..sound.len() - 3]);
    refused(path, "generate model.slm --prompt a --tokens 1 --audit t.log", "record 5 is cut");
    assert_eq!(fs::read(path.join("t.log")).expect("reads").len(), sound.len() - 3);
    refused(path, "generate model --prompt a --tokens 1 --audit d.log", "only artifacts are logged");
    assert!(!path.join("d.log").exists());
}

#[test]
fn a_secret_key_seals_once_with_each_of_its_steps() {
    let directory = place();
    let path = directory.path();
    logged(path, "s.log", Some("device.key"));
    let sound = fs::read(path.join("s.log")).expect("reads");
    let put = |bytes: &[u8]| fs::write(path.join("t.log"), bytes).expect("written");
    let seals: Vec<usize> = (0..sound.len() / RECORD).filter(|index| sound[index * RECORD + 5] == 4).collect();
    assert_eq!(seals.iter().map(|index| sound[index * RECORD + 24]).collect::<Vec<u8>>(), [0, 1]);
    // Keyed digests need the key, and another key makes others.
    refused(path, "audit s.log --artifact model.slm --replay prompts.jsonl", "are keyed");
    // The number of a step, and a step that was taken before.
    let last = seals[1] * RECORD;
    for (at, byte, expected) in [
        (last + 24, 0, "is by a key that had moved on before"),
        (last + 24, 9, "is not its key's"),
        (last + 27, 0x7f, "is by a key that would have moved on more than 1,048,576 times"),
        (last + 64, sound[last + 64] ^ 1, "is not its key's"),
    ] {
        let mut changed = sound.clone();
        changed[at] = byte;
        put(&changed);
        refused(path, "audit t.log --log-key device.key", &format!("the seal in record {} {expected}", seals[1]));
    }
    let mut changed = sound.clone();
    changed[last + 96] ^= 1;
    put(&changed);
    refused(path, "audit t.log", "no writer writes this value of `output`");
}

#[test]
fn a_program_in_c_writes_what_slmc_checks() {
    let directory = place();
    let path = directory.path();
    let root = fs::read(path.join("device.key")).expect("reads");
    for program in builds("tests/c/audit.c", path) {
        fs::write(path.join("root"), &root).expect("written");
        let mut command = Command::new(&program);
        command.current_dir(path).args(["model.slm", "c.log", "root", "the cat sat on", "24", "11"]);
        let head = stdout_of(&mut command);
        let rows = [(1, 11), (4, 12)].map(|(sequence, seed)| {
            let sampling = value!({"temperature": 0.75});
            let row = value!({"sequence": sequence, "prompt": "the cat sat on", "seed": seed, "sampling": sampling});
            row.to_string() + "\n"
        });
        fs::write(path.join("prompts.jsonl"), rows.concat()).expect("written");
        let line = "audit c.log --artifact model.slm --replay prompts.jsonl --log-key device.key --head";
        let report = json(path, &format!("{line} {head}"));
        assert_eq!(report["replay"], value!({"same": 2, "differing": 0, "left": []}), "{report}");
        assert_eq!((&report["records"], &report["checked"]), (&6.into(), &2.into()), "{report}");
        assert_eq!(report["times"], value!([100, 106]));
    }
}

#[test]
fn labels_are_computed_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), Family::BertClassifier, Size::SMALL);
    succeed(path, "quantize model --scheme w8 --method rtn -o q");
    succeed(path, "compile q --target generic -o model.slm");
    let file = ArtifactFile::open(&path.join("model.slm")).expect("opens");
    let view = file.view().expect("sound");
    let tokens = [1, 5, 9, 2];
    let logits = run_sequence(&view, &tokens).expect("runs");
    let label = slmc::divergence::argmax(&logits) as u32;
    let write = |label: u32| {
        let (mut log, mut bytes) = (AuditLog::new(None), Vec::new());
        let mut exchange = log.exchange(&Sampling::GREEDY, 0);
        exchange.input(&tokens);
        exchange.output(&[label]);
        let outcome = Outcome { end: End::Model, ..Outcome::default() };
        let mut append = |record: &[u8; RECORD]| {
            bytes.extend(record);
            true
        };
        log.inference(&view.header().device_digest, exchange, outcome, 0, &mut append).expect("written");
        fs::write(path.join("l.log"), bytes).expect("written");
    };
    fs::write(path.join("asked.jsonl"), value!({"sequence": 0, "tokens": tokens}).to_string()).expect("written");
    write(label);
    let report = json(path, "audit l.log --artifact model.slm --replay asked.jsonl");
    assert_eq!((&report["replay"]["same"], &report["times"]), (&1.into(), &Value::Null), "{report}");
    write(label ^ 1);
    let report = json_with_code(path, "audit l.log --artifact model.slm --replay asked.jsonl", 1);
    assert_eq!(report["findings"][0]["fault"], "the artifact answers something else (1 tokens, 1 there)");
}

#[test]
fn conversations_are_logged_turn_by_turn() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), Family::TiedLlama, Size::SMALL);
    let template = "{{ bos_token }}{% for message in messages %}{{ message['role'] }} {{ message.content }}.\n{% endfor %}\
                    {% if add_generation_prompt %}a {% endif %}";
    let config = value!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template});
    fs::write(path.join("model/tokenizer_config.json"), config.to_string()).expect("written");
    succeed(path, "quantize model --scheme w8 --method rtn -o q");
    succeed(path, "compile q --target generic -o model.slm");
    fs::write(path.join("questions"), "the fox\nthe hen\n").expect("written");
    let mut command = crate::support::slmc(path, "chat model.slm --json --tokens 6 --audit talk.log");
    command.stdin(fs::File::open(path.join("questions")).expect("opens"));
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let turns: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(turns.iter().map(|turn| turn["audit"]["sequence"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    let say = |role: &str, content: &Value| value!({"role": role, "content": content});
    let first = say("user", &"the fox".into());
    let rows = [
        value!({"sequence": 1, "messages": [first]}),
        value!({"sequence": 2, "messages": [first, say("assistant", &turns[0]["text"]), say("user", &"the hen".into())]}),
    ];
    fs::write(path.join("prompts.jsonl"), rows.map(|row| row.to_string() + "\n").concat()).expect("written");
    let report = json(path, "audit talk.log --artifact model.slm --replay prompts.jsonl");
    assert_eq!(report["replay"], value!({"same": 2, "differing": 0, "left": []}), "{report}");
}

#[test]
fn records_are_joined_to_texts_by_their_numbers() {
    let directory = place();
    let path = directory.path();
    let asked = ["the cat sat on the mat", "a dog ran to a hill", "an old fox hid in the den"];
    for prompt in asked {
        json(path, &format!("generate model.slm --prompt '{prompt}' --tokens 2 --audit asked.log"));
    }
    // Every run notes that it opened the artifact.
    let row = |index: usize| value!({"sequence": 2 * index + 1, "text": asked[index]}).to_string() + "\n";
    fs::write(path.join("texts.jsonl"), [row(2), row(0), row(1)].concat()).expect("written");
    fs::write(path.join("plain.jsonl"), asked.map(|text| value!({"text": text}).to_string() + "\n").concat())
        .expect("written");
    let line = "eval model.slm --data plain.jsonl --field text --log";
    let joined = json(path, &format!("{line} asked.log --log-texts texts.jsonl"));
    let plain = json(path, &format!("{line} plain.jsonl"));
    assert_eq!((&joined["requests"], &joined["shifts"]), (&3.into(), &plain["shifts"]), "{joined}");
    let by_watch = "watch model.slm --data plain.jsonl --field text --log asked.log --log-texts texts.jsonl";
    assert_eq!(json(path, by_watch)["shifts"], plain["shifts"]);
    // Texts that are missing are said.
    fs::write(path.join("texts.jsonl"), [row(0), row(1)].concat()).expect("written");
    let output = run(path, &format!("{line} asked.log --log-texts texts.jsonl"));
    assert!(output.status.success() && stderr(&output).contains("1 of 3 question has no text"), "{}", stderr(&output));
    refused(path, &format!("{line} asked.log"), "pass the texts with --log-texts");
    refused(path, &format!("{line} plain.jsonl --log-texts texts.jsonl"), "and this is none");
    for (sequence, expected) in
        [("0", "is not an answered question"), ("17", "is not an answered"), ("\"x\"", "is a text")]
    {
        fs::write(path.join("texts.jsonl"), format!("{{\"sequence\": {sequence}, \"text\": \"a\"}}\n"))
            .expect("written");
        refused(path, &format!("{line} asked.log --log-texts texts.jsonl"), expected);
    }
    fs::write(path.join("texts.jsonl"), [row(0), row(0)].concat()).expect("written");
    refused(path, &format!("{line} asked.log --log-texts texts.jsonl"), "has a text already, line 1");
    let mut bytes = fs::read(path.join("asked.log")).expect("reads");
    bytes[RECORD + 70] ^= 1;
    fs::write(path.join("asked.log"), bytes).expect("written");
    refused(path, &format!("{line} asked.log --log-texts texts.jsonl"), "record 1 was changed");
}
