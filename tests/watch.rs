//! `slmc watch`, `slmc eval --log`, the stage `watch` and its gates: requests like the reference, requests that are not, and
//! what is refused. Baselines that a lock names.

use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, run, stderr, succeed, without_cost};
use serde_json::{Value, json as value};
use std::fs;

/// Sentences that differ, the same for the same numbers.
fn sentence(n: usize) -> String {
    const WHO: [&str; 5] = ["the cat", "a dog", "the man", "her hen", "an old fox"];
    const DID: [&str; 4] = ["sat on", "ran to", "saw", "hid in"];
    const WHAT: [&str; 7] = ["the mat", "a hill", "the red barn", "mud", "a tree near the sea", "the den", "it"];
    let tail = if n.is_multiple_of(3) { " and then it was late" } else { "" };
    format!("{} {} {}{tail}.", WHO[n % 5], DID[(n / 5) % 4], WHAT[(n / 20 + n) % 7])
}

fn lines(texts: impl Iterator<Item = String>) -> String {
    texts.map(|text| text + "\n").collect()
}

fn logged(texts: impl Iterator<Item = String>) -> String {
    texts.map(|text| format!("{}\n", value!({"time": "2026-11-29", "text": text}))).collect()
}

/// A directory with a model as `model` and its artifact, a reference, a log like it, and one that is not.
fn place(family: Family) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), family, Size::SMALL);
    fs::write(path.join("reference.txt"), lines((0..400).map(sentence))).expect("written");
    fs::write(path.join("same.jsonl"), logged((0..300).map(|n| sentence(7 * n + 3)))).expect("written");
    let other = (0..300).map(|n| format!("zzz qqq {} vvv www xxx {}", "jj kk ".repeat(1 + n % 6), sentence(n)));
    fs::write(path.join("other.jsonl"), logged(other)).expect("written");
    succeed(path, "quantize model --scheme w8 --method rtn -o w8");
    succeed(path, "compile w8 --target generic -o model.slm");
    directory
}

fn shift<'r>(report: &'r Value, quantity: &str) -> &'r Value {
    let shifts = report["shifts"].as_array().expect("shifts");
    shifts.iter().find(|shift| shift["quantity"] == quantity).unwrap_or_else(|| panic!("no {quantity}: {report}"))
}

#[test]
fn requests_like_the_reference_and_others_are_told_apart() {
    for family in Family::ALL {
        let directory = place(family);
        let path = directory.path();
        let of = |log: &str| json(path, &format!("watch model.slm --log {log} --log-field text --data reference.txt"));
        let (same, other) = (of("same.jsonl"), of("other.jsonl"));
        assert_eq!(
            (&same["schema"], &same["requests"], &same["reference_texts"]),
            (&"slmc.drift/1".into(), &300.into(), &400.into())
        );
        for quantity in ["length", "out_of_vocabulary"] {
            let psi = |report: &Value, key: &str| shift(report, quantity)["psi"][key].as_f64().expect("a number");
            assert!(psi(&same, "value") < 0.1, "{}: {quantity} {}", family.name(), shift(&same, quantity));
            assert!(psi(&other, "lower") > 0.25, "{}: {quantity} {}", family.name(), shift(&other, quantity));
            assert!(shift(&other, quantity)["ks"]["lower"].as_f64().expect("a number") > 0.2);
        }
        let quantities: Vec<&str> =
            same["shifts"].as_array().expect("shifts").iter().filter_map(|shift| shift["quantity"].as_str()).collect();
        assert_eq!(quantities.contains(&"confidence"), family != Family::Bert, "{}", family.name());
        assert_eq!(quantities.contains(&"label"), family == Family::BertClassifier, "{}", family.name());
        for shift in same["shifts"].as_array().expect("shifts") {
            let sum =
                |key: &str| shift["bins"][key].as_array().expect("bins").iter().filter_map(Value::as_u64).sum::<u64>();
            assert_eq!((sum("reference"), sum("log")), (400, 300), "{shift}");
        }
        // The same by `eval`.
        fs::write(path.join("reference.jsonl"), logged((0..400).map(sentence))).expect("written");
        let by_eval = json(path, "eval model.slm --log same.jsonl --data reference.jsonl --field text");
        assert_eq!(by_eval["shifts"], same["shifts"]);
        // Any number of threads.
        let one = json(path, "watch model.slm --log same.jsonl --log-field text --data reference.txt --threads 1");
        assert_eq!(without_cost(one), without_cost(same));
    }
}

const RECIPE: &str = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                      method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = 'generic'\n[stages.field]\n\
                      kind = 'watch'\ninput = 'artifact'\nlog = 'today.jsonl'\nlog_field = 'text'\ndata = 'reference.txt'\n[gates]\n\
                      length_psi_max = 0.25\nconfidence_psi_max = 0.5\nlength_ks_max = 0.2\n";

#[test]
fn a_scheduled_stage_gates_on_what_changed_and_is_in_no_lock() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    fs::write(path.join("watch.toml"), RECIPE).expect("written");
    fs::copy(path.join("same.jsonl"), path.join("today.jsonl")).expect("copied");
    let report = json(path, "run watch.toml");
    assert_eq!(report["passed"], true, "{}", report["gates"]);
    for gate in report["gates"].as_array().expect("gates") {
        assert_eq!((&gate["unit"], &gate["samples"]), (&"requests".into(), &300.into()), "{gate}");
        assert!(gate["upper"].as_f64() <= gate["limit"].as_f64(), "{gate}");
    }
    let lock = fs::read_to_string(path.join("watch.lock")).expect("the lock");
    assert!(!lock.contains("today.jsonl") && !lock.contains("field =") && lock.contains("reference.txt"), "{lock}");
    // Another day: another log, the same lock.
    fs::copy(path.join("other.jsonl"), path.join("today.jsonl")).expect("copied");
    let report = json_with_code(path, "run watch.toml --locked", 1);
    let of = |name: &str| {
        report["gates"].as_array().expect("gates").iter().find(|gate| gate["gate"] == name).expect("a gate").clone()
    };
    assert_eq!(of("length_psi_max")["verdict"], "missed", "{report}");
    assert_eq!(of("length_ks_max")["verdict"], "missed", "{report}");
    assert_eq!(fs::read_to_string(path.join("watch.lock")).expect("the lock"), lock);
    // A limit that so few requests cannot decide says how many would.
    fs::write(path.join("today.jsonl"), logged((0..12).map(sentence))).expect("written");
    let report = json_with_code(path, "run watch.toml", 1);
    let gate = &report["gates"][0];
    assert_eq!(gate["verdict"], "undecided", "{gate}");
    assert!(gate["needed"].as_u64() > Some(12), "{gate}");
}

#[test]
fn hostile_logs_are_refused_by_name() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    fs::write(path.join("empty.jsonl"), "").expect("written");
    fs::write(path.join("broken.jsonl"), "{\"text\": \"a\"}\n{\"text\": \n").expect("written");
    fs::write(path.join("other-key.jsonl"), "{\"prompt\": \"a\"}\n").expect("written");
    for (log, expected) in [
        ("none.jsonl", "none.jsonl"),
        ("empty.jsonl", "empty.jsonl"),
        ("broken.jsonl", "broken.jsonl"),
        ("other-key.jsonl", "other-key.jsonl"),
    ] {
        refused(path, &format!("watch model.slm --log {log} --log-field text --data reference.txt"), expected);
    }
    refused(path, "watch model.slm --log same.jsonl --data reference.txt", "--field");
    refused(
        path,
        "watch model.slm --log same.jsonl --log-field text --data reference.txt --max-texts 0",
        "no window was asked for",
    );
    refused(
        path,
        "eval model.slm --log same.jsonl --field text --data reference.txt --reference model",
        "cannot be used with",
    );
}

/// The eval stage against what the lock names.
const RELEASED: &str = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                        method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = 'generic'\n[stages.quality]\n\
                        kind = 'eval'\ninput = 'artifact'\nreference = 'model'\ndata = 'reference.txt'\nwindow = 32\n[gates]\n\
                        baseline = 'lock'\nkld_ratio_max = 1.5\n";

#[test]
fn the_last_release_is_that_of_the_lock() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    fs::write(path.join("r.toml"), RELEASED).expect("written");
    let first = json(path, "run r.toml");
    let gate = &first["gates"][0];
    assert_eq!(
        (&gate["verdict"], &gate["passed"]),
        (&"not_measured".into(), &true.into()),
        "nothing is released: {gate}"
    );
    assert!(gate["reason"].as_str().is_some_and(|reason| reason.contains("nothing is released yet")), "{gate}");
    fs::copy(path.join("r.lock"), path.join("v1.lock")).expect("copied");
    // The same model again: as good as the release, which is compared by a stage of its own.
    let second = json(path, "run r.toml");
    assert_eq!(
        (&second["gates"][0]["verdict"], &second["gates"][0]["value"]),
        (&"passed".into(), &1.0.into()),
        "{second}"
    );
    assert_eq!(second["gates"][0]["against"], "lock");
    let lock = fs::read_to_string(path.join("r.lock")).expect("the lock");
    assert!(!lock.contains("baseline"), "{lock}");
    json(path, "run r.toml --locked");
    // A worse one is held against the release however often it runs: what has missed a gate is no release.
    let released = fs::read_to_string(path.join("r.lock")).expect("the lock");
    fs::write(path.join("r.toml"), RELEASED.replace("w8", "w4")).expect("written");
    for _ in 0..2 {
        let output = run(path, "run r.toml --json");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let worse: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
        assert_eq!(worse["gates"][0]["verdict"], "missed", "{worse}");
        assert!(stderr(&output).contains("r.lock is left as it was"), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(path.join("r.lock")).expect("the lock"), released);
    }
    json_with_code(path, "run r.toml --update-lock", 1);
    assert_eq!(fs::read_to_string(path.join("r.lock")).expect("the lock"), released);
    // One stage alone is judged by nothing, so it is no release either.
    let line = |lock: &str| lock.lines().find(|line| line.starts_with("artifact = ")).map(str::to_owned);
    json(path, "run r.toml --only artifact");
    let lock = fs::read_to_string(path.join("r.lock")).expect("the lock");
    assert_eq!(line(&lock), line(&released), "{lock}");
    assert_eq!(json_with_code(path, "run r.toml", 1)["gates"][0]["verdict"], "missed");
    // With the limit out of the way it is.
    fs::write(path.join("r.toml"), RELEASED.replace("w8", "w4").replace("= 1.5", "= 1e9")).expect("written");
    json(path, "run r.toml");
    let lock = fs::read_to_string(path.join("r.lock")).expect("the lock");
    assert_ne!(line(&lock), line(&released), "{lock}");
    // An older lock by its path.
    fs::write(path.join("r.toml"), RELEASED.replace("w8", "w4").replace("'lock'", "'v1.lock'")).expect("written");
    assert_eq!(json_with_code(path, "run r.toml", 1)["gates"][0]["verdict"], "missed");
    fs::write(path.join("r.toml"), RELEASED.replace("'lock'", "'none.lock'")).expect("written");
    refused(path, "run r.toml --plan", "none.lock does not exist, or has no result of stage `artifact`");
    // A lock whose artifact is gone.
    fs::write(path.join("r.toml"), RELEASED).expect("written");
    let output = run(path, "run r.toml --plan --cache file:elsewhere");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is in none of the caches"), "{}", stderr(&output));
}

#[test]
fn a_recipe_that_only_watches_runs_with_locked() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    fs::copy(path.join("same.jsonl"), path.join("today.jsonl")).expect("copied");
    let recipe = "version = 1\n[model]\npath = 'model.slm'\n[stages.field]\nkind = 'watch'\ninput = 'model'\nlog = 'today.jsonl'\n\
                  log_field = 'text'\ndata = 'reference.txt'\n";
    fs::write(path.join("field.toml"), recipe).expect("written");
    json(path, "run field.toml");
    let lock = fs::read_to_string(path.join("field.lock")).expect("the lock");
    assert!(lock.contains("\"model.slm\" = ") && !lock.contains("[stages"), "{lock}");
    // Another day.
    fs::copy(path.join("other.jsonl"), path.join("today.jsonl")).expect("copied");
    json(path, "run field.toml --locked");
    fs::write(path.join("reference.txt"), lines((0..300).map(sentence))).expect("written");
    refused(path, "run field.toml --locked", "`reference.txt` has SHA-256");
}
