//! The cache of stage results: a filled one gives the outputs on an empty disk, one that lies costs a warning and no result,
//! two runs at once compute once, and signatures, locks and single stages hold what they say.

#[cfg(feature = "remote-cache")]
mod server;

use crate::fixture;
use crate::support::{json_with_code, one_line, refused, root, run, slmc, states, stderr};
use serde_json::Value;
use slmc::store::{Digest, Entry};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// From a dense model to figures, in a second.
const RECIPE: &str = r#"
version = 1
[model]
path = "model"

[stages.sparse]
kind = "prune"
input = "model"
pattern = "2:4"
method = "magnitude"

[stages.small]
kind = "quantize"
input = "sparse"
scheme = "w8"
method = "rtn"

[stages.artifact]
kind = "compile"
input = "small"
target = ["generic", "cortex-m55"]

[stages.quality]
kind = "eval"
input = "artifact.generic"
data = "text.txt"
window = 32
max_windows = 4

[gates]
file_bytes_max = 1_000_000
"#;

/// Its stages.
const STAGES: [&str; 5] = ["sparse", "small", "artifact.generic", "artifact.cortex-m55", "quality"];

/// A directory with the fixture, a text and the recipe.
fn workshop() -> tempfile::TempDir {
    fixture::workshop("r.toml", RECIPE)
}

/// The run of the recipe with a cache.
fn with_cache(cache: &Path) -> String {
    format!("run r.toml --cache file:{}", cache.display())
}

/// Every file below a directory with its content.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("it lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below it").to_owned();
                files.push((name, fs::read(&path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

/// Warnings of a run.
fn warnings(output: &std::process::Output) -> Vec<String> {
    stderr(output).lines().filter(|line| line.contains("warning")).map(str::to_owned).collect()
}

#[test]
fn a_filled_cache_gives_the_outputs_on_an_empty_disk() {
    let (here, there, cache) = (workshop(), workshop(), tempfile::tempdir().expect("a directory"));
    let line = with_cache(cache.path());
    let first = json_with_code(here.path(), &line, 0);
    assert_eq!(states(&first), ["done"; 5]);
    let outputs = files(&here.path().join("out"));
    let second = json_with_code(there.path(), &line, 0);
    assert_eq!(states(&second), ["cached"; 5]);
    assert!(files(&there.path().join("out")) == outputs, "the outputs differ");
    assert!(
        outputs.iter().any(|(name, _)| name.ends_with("small/slmc.json")),
        "directories come with their provenance"
    );
    assert_eq!(first["stages"][4]["report"], second["stages"][4]["report"]);
    // The plan says where results are, and why one would run.
    let plan = json_with_code(there.path(), &format!("{line} --plan"), 0);
    for stage in plan["stages"].as_array().expect("stages") {
        assert_eq!((&stage["from"], &stage["in_place"]), (&Value::from("local"), &Value::Bool(true)), "{stage}");
    }
    let changed = RECIPE.replace("window = 32", "window = 16").replace("\"w8\"", "\"w4\"");
    fs::write(there.path().join("r.toml"), changed).expect("written");
    let plan = json_with_code(there.path(), &format!("{line} --plan"), 0);
    let whys: Vec<&str> =
        plan["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["why"].as_str()).collect();
    assert_eq!(whys, ["option `scheme` was w8, is w4", "after `small`", "after `small`", "after `artifact.generic`"]);
    let why =
        json_with_code(there.path(), &format!("cache why r.toml small --cache file:{}", cache.path().display()), 0);
    assert_eq!((&why["cached"], &why["why"]), (&Value::Bool(false), &Value::from(whys[0])));
    assert_eq!(why["key"]["options"]["scheme"], "w4");
    // What a run sets decides the key there too.
    let set = format!("cache why r.toml small --set stages.small.scheme=w8 --cache file:{}", cache.path().display());
    assert_eq!(json_with_code(there.path(), &set, 0)["cached"], true);
    let text = why["key"].to_string();
    let place = there.path().display().to_string();
    assert!(!text.contains(&place) && !text.contains("text.txt"), "a key holds no path: {text}");
}

#[test]
fn keys_follow_from_bytes_and_options_alone() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let line = with_cache(cache.path());
    json_with_code(here.path(), &line, 0);
    // Other names, other times, another number of threads.
    fs::rename(here.path().join("text.txt"), here.path().join("other.txt")).expect("renamed");
    fs::rename(here.path().join("model"), here.path().join("the-model")).expect("renamed");
    let renamed = RECIPE.replace("text.txt", "other.txt").replace("path = \"model\"", "path = \"the-model\"");
    fs::write(here.path().join("r.toml"), renamed).expect("written");
    let report =
        json_with_code(here.path(), &format!("{line} --threads 1 --max-ram 8GiB --out elsewhere --update-lock"), 0);
    assert_eq!(states(&report), ["cached"; 5]);
    // Another slmc.json of an input is another input, though its hash is the same.
    let before = json_with_code(here.path(), &format!("{line} --plan"), 0);
    assert_eq!(before["stages"][0]["cached"], true);
    fs::write(here.path().join("the-model/slmc.json"), "{\"schema\":\"slmc.provenance/1\",\"sparsity\":{}}")
        .expect("written");
    let after = json_with_code(here.path(), &format!("{line} --plan"), 0);
    assert_eq!(
        (&after["stages"][0]["cached"], &after["stages"][0]["why"]),
        (&Value::Bool(false), &Value::from("input `model` has another slmc.json"))
    );
}

#[test]
fn one_stage_runs_by_itself_with_inputs_from_the_cache() {
    let (here, there, cache) = (workshop(), workshop(), tempfile::tempdir().expect("a directory"));
    let line = with_cache(cache.path());
    let missing = run(here.path(), &format!("{line} --only small"));
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        stderr(&missing).contains("stage `sparse` is in none of the caches")
            && stderr(&missing).contains("slmc run r.toml --only sparse"),
        "{}",
        stderr(&missing)
    );
    // The reports are written all the same.
    let cached_only = run(here.path(), &format!("{line} --cached-only --json --report junit=a.xml"));
    assert_eq!(cached_only.status.code(), Some(2), "{}", stderr(&cached_only));
    assert!(stderr(&cached_only).contains("stage `sparse` is in none of the caches"), "{}", stderr(&cached_only));
    let report: Value = serde_json::from_slice(&cached_only.stdout).expect("one JSON line");
    assert_eq!(states(&report), ["not_cached", "not_run", "not_run", "not_run", "not_run"]);
    let junit = fs::read_to_string(here.path().join("a.xml")).expect("the report");
    assert!(junit.contains("<error type=\"not cached\""), "{junit}");
    for (number, stage) in STAGES.iter().enumerate() {
        // Every stage as a job on a machine of its own, whose disk is empty.
        let machine = if number % 2 == 0 { &here } else { &there };
        drop(fs::remove_dir_all(machine.path().join("out")));
        let report = json_with_code(machine.path(), &format!("{line} --only {stage}"), 0);
        assert_eq!(states(&report), ["done"], "{stage}");
        assert_eq!(report["stages"][0]["stage"], *stage);
        assert_eq!(
            report["gates"].as_array().map(Vec::len),
            Some(usize::from(stage.starts_with("artifact"))),
            "{stage}"
        );
    }
    fs::remove_dir_all(there.path().join("out")).expect("removed");
    let last = json_with_code(there.path(), &format!("{line} --cached-only"), 0);
    assert_eq!(states(&last), ["cached"; 5]);
    let whole = workshop();
    json_with_code(whole.path(), &with_cache(&whole.path().join("own")), 0);
    assert!(
        files(&whole.path().join("out")) == files(&there.path().join("out")),
        "jobs and one run give other outputs"
    );
    refused(here.path(), &format!("{line} --only smal"), "did you mean `small`?");
}

#[test]
fn two_runs_at_once_compute_once() {
    let (one, other, cache) = (workshop(), workshop(), tempfile::tempdir().expect("a directory"));
    // A stage that takes a while.
    let recipe = RECIPE.replace(
        "method = \"magnitude\"",
        "method = \"magnitude\"\nrecover = true\ndata = [\"text.txt\"]\ntokens = 20_000\nwindow = 32\nbatch = 4",
    );
    for directory in [&one, &other] {
        fs::write(directory.path().join("r.toml"), &recipe).expect("written");
    }
    let line = format!("{} --json", with_cache(cache.path()));
    let spawn = |directory: &tempfile::TempDir| {
        slmc(directory.path(), &line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let (first, second) = (spawn(&one), spawn(&other));
    let outputs = [first, second].map(|child| child.wait_with_output().expect("it ends"));
    let reports = [&outputs[0], &outputs[1]].map(|output| {
        assert!(output.status.success(), "{}", stderr(output));
        one_line(output)
    });
    let mut done = 0;
    for (a, b) in states(&reports[0]).iter().zip(states(&reports[1])) {
        assert!(*a == "done" || b == "done", "someone must have computed it");
        assert!(!(*a == "done" && b == "done"), "both computed a stage");
        done += 1;
    }
    assert_eq!(done, 5);
    assert!(files(&one.path().join("out")) == files(&other.path().join("out")), "the outputs differ");
}

/// Stores that lie: a byte of a blob is another, a blob is short or gone, an entry is cut, foreign or of another stage.
#[test]
fn a_cache_that_lies_costs_a_warning_and_no_result() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let line = with_cache(cache.path());
    json_with_code(here.path(), &line, 0);
    let expected = files(&here.path().join("out"));
    let sound = files(cache.path());
    let of = |folder: &str| sound.iter().filter(|(name, _)| name.starts_with(folder)).collect::<Vec<_>>();
    assert!(of("ac").len() == 5 && of("cas").len() > 5);
    let mut kept = 0;
    type Lie = fn(&[u8]) -> Option<Vec<u8>>;
    let lies: [(&str, Lie); 5] = [
        ("cas", |bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            *bytes.get_mut(middle)? ^= 1;
            Some(bytes)
        }),
        ("cas", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("cas", |_| None),
        ("ac", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("ac", |_| Some(b"<html>not found</html>".to_vec())),
    ];
    for (folder, lie) in lies {
        fs::remove_dir_all(here.path().join("out")).expect("removed");
        for (name, bytes) in of(folder) {
            match lie(bytes) {
                Some(bytes) => fs::write(cache.path().join(name), bytes).expect("written"),
                None => fs::remove_file(cache.path().join(name)).expect("removed"),
            }
        }
        let output = run(here.path(), &format!("{line} --json"));
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(files(&here.path().join("out")) == expected, "the outputs differ");
        kept += states(&one_line(&output)).iter().filter(|state| **state == "cached").count();
        // What was wrong is right again.
        assert!(of("cas").iter().all(|(name, bytes)| fs::read(cache.path().join(name)).is_ok_and(|own| own == *bytes)));
    }
    assert!(kept < 25, "a result was taken from a cache that lies");
    // The entry of another stage under this one's name.
    let entries = of("ac");
    fs::write(cache.path().join(&entries[0].0), &entries[1].1).expect("written");
    fs::remove_dir_all(here.path().join("out")).expect("removed");
    let output = run(here.path(), &format!("{line} --json"));
    assert!(output.status.success() && stderr(&output).contains("is that of another key"), "{}", stderr(&output));
    assert!(files(&here.path().join("out")) == expected);
}

#[test]
fn verify_finds_damage_and_clean_removes_entries_before_blobs() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let option = format!("--cache file:{}", cache.path().display());
    json_with_code(here.path(), &with_cache(cache.path()), 0);
    let list = json_with_code(here.path(), &format!("cache list {option}"), 0);
    assert_eq!(list["entries"].as_array().map(Vec::len), Some(5));
    let verified = json_with_code(here.path(), &format!("cache verify {option}"), 0);
    assert_eq!((&verified["entries"], &verified["removed"]), (&Value::from(5), &Value::Array(Vec::new())));
    let (name, mut bytes) =
        files(&cache.path().join("cas")).into_iter().max_by_key(|(_, bytes)| bytes.len()).expect("a blob");
    bytes[0] ^= 1;
    fs::write(cache.path().join("cas").join(&name), bytes).expect("written");
    let damaged = json_with_code(here.path(), &format!("cache verify {option}"), 1);
    assert_eq!(damaged["removed"].as_array().map(Vec::len), Some(1));
    assert!(damaged["incomplete"].as_array().is_some_and(|keys| !keys.is_empty()));
    let nothing = json_with_code(here.path(), &format!("cache clean --older 1d {option}"), 0);
    assert_eq!((&nothing["entries"], &nothing["blobs"]), (&Value::from(0), &Value::from(0)), "what is new stays");
    let all = json_with_code(here.path(), &format!("cache clean --older 0s {option}"), 0);
    assert_eq!(all["entries"], 5);
    assert!(files(&cache.path().join("ac")).is_empty() && files(&cache.path().join("cas")).is_empty());
    // And the next run makes it anew.
    assert_eq!(states(&json_with_code(here.path(), &with_cache(cache.path()), 0)), ["done"; 5]);
}

/// What is not a directory is neither listed nor cleaned, and this machine's is not in its place.
#[cfg(feature = "remote-cache")]
#[test]
fn only_directories_are_looked_after() {
    let (here, home) = (workshop(), tempfile::tempdir().expect("a directory"));
    let own = |arguments: &str| {
        let mut command = slmc(here.path(), arguments);
        command.env_remove("SLMC_CACHE").env("XDG_CACHE_HOME", home.path());
        command.output().expect("the program starts")
    };
    let filled = own("run r.toml");
    assert!(filled.status.success(), "{}", stderr(&filled));
    let before = files(&home.path().join("slmc/ac"));
    assert_eq!(before.len(), 5);
    for command in ["clean --older 0s", "list", "verify"] {
        for url in ["http://127.0.0.1:9/slmc", "s3://models/slmc", "none", "file:here --cache https://127.0.0.1:9/slmc"]
        {
            let output = own(&format!("cache {command} --cache {url}"));
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{command} {url}: {said}");
            assert!(said.contains("is no directory") && said.contains("write file:DIR"), "{command} {url}: {said}");
        }
    }
    assert!(files(&home.path().join("slmc/ac")) == before, "entries were removed");
    // Shared caches of the environment are left alone, and this machine's is cleaned.
    let mut command = slmc(here.path(), "cache clean --older 0s");
    command.env("SLMC_CACHE", "https://127.0.0.1:9/slmc").env("XDG_CACHE_HOME", home.path());
    assert!(command.output().expect("the program starts").status.success());
    assert!(files(&home.path().join("slmc/ac")).is_empty());
}

/// Whatever of an entry is another, its report too, it is not used, and `verify` removes it.
#[test]
fn a_changed_report_of_an_entry_is_not_used() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let (line, option) = (with_cache(cache.path()), format!("--cache file:{}", cache.path().display()));
    let first = json_with_code(here.path(), &line, 0);
    let forge = |old: &str, new: &str| {
        let mut forged = 0;
        for (name, bytes) in files(&cache.path().join("ac")) {
            let at = bytes.windows(old.len()).position(|part| part == old.as_bytes());
            if let Some(at) = at {
                let bytes = [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat();
                fs::write(cache.path().join("ac").join(name), bytes).expect("written");
                forged += 1;
            }
        }
        assert!(forged > 0, "no entry has {old}");
        forged
    };
    // A figure of the evaluation, with as many digits as before.
    forge("\"windows\":4", "\"windows\":9");
    let output = run(here.path(), &format!("{line} --json"));
    assert!(output.status.success() && stderr(&output).contains("does not have the SHA-256"), "{}", stderr(&output));
    assert_eq!(one_line(&output)["stages"][4]["report"]["windows"], first["stages"][4]["report"]["windows"]);
    let forged = forge("\"windows\":4", "\"windows\":9");
    let verified = json_with_code(here.path(), &format!("cache verify {option}"), 1);
    assert_eq!(verified["removed"].as_array().map(Vec::len), Some(forged), "{verified}");
    // Entries of an older form are no news: they are misses, and `clean` removes them.
    json_with_code(here.path(), &line, 0);
    forge("\"schema\":\"slmc.entry/3\"", "\"schema\":\"slmc.entry/2\"");
    let output = run(here.path(), &format!("{line} --json"));
    assert!(output.status.success() && warnings(&output).is_empty(), "{}", stderr(&output));
    assert_eq!(states(&one_line(&output)), ["done"; 5]);
}

#[test]
fn a_locked_run_refuses_whatever_is_another() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let line = format!("{} --locked", with_cache(cache.path()));
    refused(here.path(), &line, "r.lock: is not there; --locked refuses that");
    json_with_code(here.path(), &with_cache(cache.path()), 0);
    let lock = fs::read_to_string(here.path().join("r.lock")).expect("a lock");
    assert_eq!(states(&json_with_code(here.path(), &line, 0)), ["cached"; 5]);
    // Computed anew, the outputs are the lock's.
    let elsewhere = format!("run r.toml --locked --cache file:{}", here.path().join("empty").display());
    assert_eq!(states(&json_with_code(here.path(), &elsewhere, 0)), ["done"; 5]);
    assert_eq!(fs::read_to_string(here.path().join("r.lock")).expect("a lock"), lock, "a locked run writes no lock");
    let class = slmc::machine::numerics_class();
    let output = lock
        .lines()
        .find(|line| line.starts_with("small"))
        .and_then(|line| line.split("sha256:").nth(2))
        .expect("an output");
    let zeros = format!("{}{}", "0".repeat(64), &output[64..]);
    let cases = [
        (lock.replace(output, &zeros), "of stage `small`, which gave"),
        (lock.replace(&format!("[stages.{class}]"), "[stages.riscv64]"), "it has: riscv64"),
        (lock.replace("\"text.txt\" =", "\"gone.txt\" ="), "knows nothing of `text.txt`"),
        (lock.replace("recipe = \"sha256:", "recipe = \"sha256:0"), "was written for another recipe"),
        (
            lock.replace("version = 2", "version = 1"),
            "is a lock of version 1, this slmc has version 2; run with --update-lock",
        ),
    ];
    for (text, expected) in cases {
        fs::write(here.path().join("r.lock"), text).expect("written");
        refused(here.path(), &line, expected);
    }
    fs::write(here.path().join("r.lock"), &lock).expect("written");
    fs::write(here.path().join("r.toml"), RECIPE.replace("1_000_000", "2_000_000")).expect("written");
    refused(here.path(), &line, "was written for another recipe");
    // A plain run takes it over.
    assert_eq!(states(&json_with_code(here.path(), &with_cache(cache.path()), 0)), ["cached"; 5]);
    assert_eq!(states(&json_with_code(here.path(), &line, 0)), ["cached"; 5]);
}

#[test]
fn two_results_of_one_key_are_shouted_about() {
    let (here, cache) = (workshop(), tempfile::tempdir().expect("a directory"));
    let line = with_cache(cache.path());
    json_with_code(here.path(), &line, 0);
    // An entry of the right key whose output is that of another stage: as a broken machine would leave it.
    let forged = run(here.path(), &format!("{line} --force --json"));
    assert!(forged.status.success() && warnings(&forged).is_empty(), "{}", stderr(&forged));
    let list = json_with_code(here.path(), &format!("cache list --cache file:{}", cache.path().display()), 0);
    let entries = list["entries"].as_array().expect("entries");
    let small = entries
        .iter()
        .find(|entry| entry["kind"] == "quantize")
        .and_then(|entry| entry["key"].as_str())
        .expect("an entry");
    let path = cache.path().join("ac").join(&small[..2]).join(small);
    let mut entry = Entry::parse(&fs::read(&path).expect("the entry")).expect("it is sound");
    let file = entry.files.iter_mut().find(|file| file.path == "output/config.json").expect("a file");
    file.digest = Digest::of(b"another");
    file.pieces[0].digest = file.digest;
    let bytes = Entry::new(entry.files, entry.about).encode();
    fs::write(&path, bytes).expect("written");
    let output = run(here.path(), &format!("{line} --force --json"));
    assert!(output.status.success());
    let said = stderr(&output);
    assert!(
        said.contains("stage `small` gave another output than before with the same key")
            && said.contains("\"kind\":\"quantize\""),
        "{said}"
    );
}

#[test]
fn an_artifact_is_made_again_from_its_provenance() {
    let here = workshop();
    // With a training stage, so that options, seed and text come from the provenance too.
    let recipe = RECIPE.replace(
        "method = \"magnitude\"",
        "method = \"magnitude\"\nseed = 3\nrecover = true\ndata = [\"text.txt\"]\ntokens = 2_000\nwindow = 32\nbatch = 4\nlearning_rate = 1e-3",
    );
    let board = fs::read_to_string(root("targets/cortex-m55.toml"))
        .expect("a target")
        .replace("\"cortex-m55\"", "\"my-board\"");
    fs::write(here.path().join("board.toml"), board).expect("written");
    fs::write(here.path().join("r.toml"), recipe.replace("\"cortex-m55\"", "\"board.toml\"")).expect("written");
    json_with_code(here.path(), "run r.toml", 0);
    fs::create_dir(here.path().join("archive")).expect("made");
    for target in ["generic", "my-board"] {
        let artifact = format!("out/r/artifact.{target}.slm");
        let again = json_with_code(here.path(), &format!("reproduce {artifact} --recipe r.toml"), 0);
        let stages: Vec<&Value> =
            again["stages"].as_array().expect("stages").iter().map(|stage| &stage["stage"]).collect();
        assert_eq!(stages, ["prune", "quantize", "compile"]);
        assert_eq!(again["same"], true);
        refused(
            here.path(),
            &format!("reproduce {artifact}"),
            "pass --inputs with a directory that has it, or --recipe",
        );
        refused(here.path(), &format!("reproduce {artifact} --inputs archive"), "nothing below archive has this hash");
    }
    // Under other names, anywhere below a directory.
    fs::rename(here.path().join("model"), here.path().join("archive/base")).expect("renamed");
    fs::create_dir(here.path().join("archive/texts")).expect("made");
    fs::rename(here.path().join("text.txt"), here.path().join("archive/texts/a.txt")).expect("renamed");
    let artifact = here.path().join("out/r/artifact.generic.slm");
    json_with_code(here.path(), "reproduce out/r/artifact.generic.slm --inputs archive", 0);
    assert!(fs::read_dir(here.path().join("archive")).expect("it lists").count() == 2, "nothing is written there");

    // The first stage that gives something else is named, with the reason.
    let provenance = slmc::artifact::inspect::inspect(&artifact).expect("sound").provenance.expect("it has one");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut provenance = provenance.clone();
        change(&mut provenance);
        let options = slmc::recipe::ReproduceOptions {
            artifact: artifact.clone(),
            provenance: Some(provenance),
            inputs: Some(here.path().join("archive")),
            ..Default::default()
        };
        let shell =
            slmc::shell::Shell::from_writers(Default::default(), Box::new(std::io::sink()), Box::new(std::io::sink()));
        let report = slmc::recipe::reproduce(&options, &shell).expect("it runs");
        assert!(!report.same);
        let last = report.stages.last().expect("a stage").clone();
        assert!(!last.same && report.stages.iter().filter(|stage| !stage.same).count() == 1);
        (last.stage, report.why.expect("a reason"))
    };
    let (stage, why) = changed(&|record| record["model"]["inputs"][0]["made"]["seed"] = Value::from(4));
    assert!(stage == "prune" && why.contains("same inputs, options, version and class"), "{why}");
    let (stage, why) = changed(&|record| {
        record["model"]["options"]["scheme"] = Value::from("w4");
        record["model"]["numerics"] = Value::from("riscv64");
    });
    assert!(
        stage == "quantize" && why.contains("class riscv64") && why.contains(slmc::machine::numerics_class()),
        "{why}"
    );
    let (stage, why) = changed(&|record| {
        record["options"]["context"] = Value::from("32");
        record["tool"] = Value::from("slmc 9");
    });
    assert!(stage == "compile" && why.contains("made by slmc 9"), "{why}");
    json_with_code(here.path(), "quantize archive/base --scheme w8 --method rtn -o q", 0);
    json_with_code(here.path(), "compile q --target generic --device-only -o d.slm", 0);
    refused(here.path(), "reproduce d.slm --inputs archive", "d.slm: carries no provenance");
}

/// Kills at growing moments, until a run ends by itself: what is there then is what one run gives.
#[test]
fn a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let (whole, killed) = (workshop(), workshop());
    json_with_code(whole.path(), "run r.toml", 0);
    let cache = killed.path().join("kept");
    let line = with_cache(&cache);
    let (mut kills, mut pause) = (0, 0.005);
    // Longer and longer, so that slow machines come to the end as well.
    while kills < 150 {
        let mut command = slmc(killed.path(), &format!("{line} -q"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs_f64(pause));
        pause *= 1.06;
        let ended = child.try_wait().expect("its state").is_some();
        drop(child.kill());
        child.wait().expect("it ends");
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 5, "it was killed {kills} times only");
    let last = json_with_code(killed.path(), &line, 0);
    assert_eq!(states(&last), ["cached"; 5]);
    assert!(files(&whole.path().join("out")) == files(&killed.path().join("out")), "the outputs differ");
    let verified = json_with_code(killed.path(), &format!("cache verify --cache file:{}", cache.display()), 0);
    assert_eq!(verified["entries"], 5);
}

#[test]
fn a_place_that_cannot_be_written_costs_a_warning() {
    let here = workshop();
    // A file where the directory should be: nobody can make it, whatever their rights.
    let output = run(here.path(), "run r.toml --json --cache file:text.txt/cache");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(states(&one_line(&output)), ["done"; 5]);
    assert!(warnings(&output).len() == 1 && stderr(&output).contains("text.txt/cache"), "{}", stderr(&output));
    let none = run(here.path(), "run r.toml --json --cache none");
    assert!(none.status.success() && warnings(&none).is_empty(), "{}", stderr(&none));
    assert_eq!(states(&one_line(&none)), ["done"; 5]);
    refused(here.path(), "run r.toml --cache somewhere", "is not a place that slmc knows; write file:PATH");
    refused(here.path(), "cache push r.toml", "names no shared cache");
}
