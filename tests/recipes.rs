//! Recipes: those in `recipes/` plan, a chain runs, is cached and goes on after a kill, gates decide the exit code.

mod gates;
mod lacks;
mod matrix;
mod mistakes;
mod plan;
mod reports;

use crate::fixture;
use crate::support::{CACHE, json_with_code, one_line, refused, root, run, slmc, states, stderr};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A chain over the fixture in `model/`, the text in `text.txt`: every kind of stage but train.
const CHAIN: &str = r#"
version = 1
[model]
path = "model"

[stages.student]
kind = "distill"
input = "model"
layers = [0]
data = ["text.txt"]
tokens = 4000
batch = 4
window = 32

[stages.sparse]
kind = "prune"
input = "student"
pattern = "2:4"
method = "magnitude"

[stages.small]
kind = "quantize"
input = "sparse"
scheme = "mixed"
keep = ["layers.0.attn.*=w4"]
calibration = "text.txt"

[stages.artifact]
kind = "compile"
input = "small"
target = ["generic", "cortex-m55"]

[stages.quality]
kind = "eval"
input = "artifact.generic"
reference = "model"
data = "text.txt"
window = 32
max_windows = 16

[gates]
kld_max = 100
file_bytes_max = 1_000_000
top1_min = { stage = "quality", value = 0 }

[sample]
prompt = "a cat"
tokens = 5
"#;

/// A directory with the fixture, a text and the recipe.
fn workshop(recipe: &str) -> tempfile::TempDir {
    fixture::workshop("chain.toml", recipe)
}

fn artifacts(directory: &Path) -> [Vec<u8>; 2] {
    ["generic", "cortex-m55"].map(|target| {
        fs::read(directory.join(format!("out/chain/artifact.{target}.slm"))).expect("the artifact is there")
    })
}

/// The mistakes that a command lists with `--json`: `FILE:LINE: MESSAGE; HELP`.
fn mistakes(directory: &Path, line: &str) -> Vec<String> {
    let report = json_with_code(directory, line, 2);
    assert_eq!(report["schema"], "slmc.mistakes/1");
    let text = |mistake: &Value, key: &str| mistake[key].as_str().map(str::to_owned);
    let shown = |mistake: &Value| {
        let place = format!("{}:{}", text(mistake, "file").expect("a file"), mistake["line"]);
        let help = text(mistake, "help").map_or_else(String::new, |help| format!("; {help}"));
        format!("{place}: {}{help}", text(mistake, "message").expect("a message"))
    };
    report["mistakes"].as_array().expect("a list").iter().map(shown).collect()
}

#[test]
fn every_recipe_plans_with_at_most_its_inputs_missing() {
    let recipes = root("recipes");
    let mut names: Vec<_> =
        fs::read_dir(&recipes).expect("recipes/").map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    let directory = tempfile::tempdir().expect("a directory");
    for path in names {
        let text = fs::read_to_string(&path).expect("it can be read");
        let opening: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let opening = opening.join("\n");
        for word in ["# Inputs", "# Command     slmc run", "# Result"] {
            assert!(opening.contains(word), "{}: its comment lacks `{word}`", path.display());
        }
        let output = run(directory.path(), &format!("run {} --plan --json", path.display()));
        if output.status.success() {
            assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"schema\":\"slmc.plan/2\""));
            continue;
        }
        for mistake in mistakes(directory.path(), &format!("run {} --plan", path.display())) {
            assert!(mistake.contains(" does not exist; "), "{mistake}");
        }
    }
}

#[test]
fn a_chain_runs_once_and_is_cached_with_the_same_bytes() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    let plan = json_with_code(path, "run chain.toml --plan", 0);
    assert_eq!(plan["schema"], "slmc.plan/2");
    let planned: Vec<&Value> = plan["stages"].as_array().expect("stages").iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(planned, ["student", "sparse", "small", "artifact.generic", "artifact.cortex-m55", "quality"]);
    assert!(!path.join("out").exists() && !path.join("chain.lock").exists(), "a plan writes nothing");
    let first = json_with_code(path, "run chain.toml", 0);
    assert_eq!(first["schema"], "slmc.run/2");
    assert_eq!(states(&first), ["done"; 6]);
    assert_eq!(first["passed"], true);
    assert_eq!(first["gates"].as_array().map(Vec::len), Some(4), "the bytes of both artifacts, and two of quality");
    let samples: Vec<&str> =
        first["samples"].as_array().expect("samples").iter().filter_map(|s| s["text"].as_str()).collect();
    assert!(samples.len() == 2 && samples.iter().all(|text| text.starts_with("a cat")), "{samples:?}");
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    assert!(lock.contains("\"text.txt\" = \"sha256:") && lock.contains("\"artifact.cortex-m55\" = { key = "), "{lock}");
    let bytes = artifacts(path);
    let second = json_with_code(path, "run chain.toml", 0);
    assert_eq!(states(&second), ["cached"; 6]);
    assert_eq!(first["stages"][5]["report"], second["stages"][5]["report"]);
    // What is gone or was edited is put in place again.
    fs::remove_dir_all(path.join("out/chain/small")).expect("it can be removed");
    let artifact = path.join("out/chain/artifact.generic.slm");
    let damaged = [&bytes[0][..5000], b"damaged"].concat();
    fs::write(&artifact, damaged).expect("it can be written");
    let third = json_with_code(path, "run chain.toml --threads 1", 0);
    assert_eq!(states(&third), ["cached"; 6]);
    assert!(artifacts(path) == bytes && path.join("out/chain/small/slmc.json").is_file(), "the artifacts differ");
    // Without a cache it is made again with the same bytes.
    fs::remove_dir_all(path.join(CACHE)).expect("it can be removed");
    let fourth = json_with_code(path, "run chain.toml --threads 1", 0);
    assert_eq!(states(&fourth), ["done"; 6]);
    assert!(artifacts(path) == bytes, "the artifacts differ");
    let forced = json_with_code(path, "run chain.toml --force", 0);
    assert_eq!(states(&forced), ["done"; 6]);
    assert!(artifacts(path) == bytes, "the artifacts differ");
    let table = String::from_utf8(run(path, "run chain.toml").stdout).expect("UTF-8");
    for expected in
        ["perplexity (ratio)", "distilled on", "2:4 by magnitude", "for cortex-m55", "passed", "model: a cat"]
    {
        assert!(table.contains(expected), "{table}");
    }
}

#[test]
fn a_changed_option_runs_what_depends_on_it() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json_with_code(path, "run chain.toml", 0);
    fs::write(path.join("chain.toml"), CHAIN.replace("max_windows = 16", "max_windows = 12")).expect("written");
    assert_eq!(states(&json_with_code(path, "run chain.toml", 0))[3..], ["cached", "cached", "done"]);
    fs::write(path.join("chain.toml"), CHAIN.replace("\"mixed\"", "\"w8\"")).expect("written");
    let changed = json_with_code(path, "run chain.toml", 0);
    assert_eq!(states(&changed), ["cached", "cached", "done", "done", "done", "done"]);
    assert_eq!(states(&json_with_code(path, "run chain.toml --seed 1", 0)), ["done"; 6]);
}

#[test]
fn a_missed_gate_and_a_model_that_does_not_fit_are_exit_code_1() {
    let directory = workshop(&CHAIN.replace("kld_max = 100", "kld_max = 0"));
    let path = directory.path();
    let missed = json_with_code(path, "run chain.toml", 1);
    assert_eq!((&missed["passed"], &missed["gates"][0]["passed"]), (&Value::Bool(false), &Value::Bool(false)));
    assert_eq!(missed["gates"][1]["passed"], true);
    let board = "name = 'board'\ndescription = 'too small'\nlayout = 'r8k4.off8.d16.g32'\npage_bytes = 64\nflash_bytes = 1000\n";
    fs::write(path.join("board.toml"), board).expect("written");
    let recipe = CHAIN.replace("\"cortex-m55\"", "\"board.toml\"").replace("artifact.generic\"", "artifact.board\"");
    fs::write(path.join("chain.toml"), recipe).expect("written");
    let output = run(path, "run chain.toml --json");
    // The target file is no input that the lock knows: it is part of the options.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
    assert_eq!(states(&report)[3..], ["cached", "does_not_fit", "not_run"]);
    assert!(stderr(&output).contains("does not fit board"), "{}", stderr(&output));
    assert!(report["stages"][4]["why"].as_str().is_some_and(|why| why.contains("does not fit board")), "{report}");
    // The last of several jobs has no entry of it, and reports it all the same.
    let output = run(path, "run chain.toml --cached-only --report github --report json=a.json --report junit=a.xml");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let read = |name: &str| fs::read_to_string(path.join(name)).expect(name);
    let report: Value = serde_json::from_str(&read("a.json")).expect("JSON");
    assert_eq!(states(&report)[3..], ["cached", "does_not_fit", "not_run"]);
    assert!(read("a.xml").contains("<failure type=\"does not fit\""), "{}", read("a.xml"));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("::error file=chain.toml,line=28,col=1,") && said.contains("does not fit board"), "{said}");
}

#[test]
fn recipes_extend_each_other_and_paths_are_relative_to_the_file_that_says_them() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    fs::create_dir(path.join("mine")).expect("created");
    let own = "extends = '../chain.toml'\n[stages.quality]\nmax-windows = 12\ndata = 'own.txt'\n[gates]\nkld_max = 0\n";
    fs::write(path.join("mine/own.toml"), own).expect("written");
    fs::write(path.join("mine/own.txt"), "the man sat on the cat. ".repeat(80)).expect("written");
    let report = json_with_code(path, "run mine/own.toml", 1);
    assert_eq!((&report["recipe"], &report["stages"][5]["report"]["windows"]), (&Value::from("own"), &Value::from(12)));
    assert!(path.join("out/own/artifact.generic.slm").is_file() && path.join("mine/own.lock").is_file());
    fs::write(path.join("chain.toml"), format!("extends = 'mine/own.toml'\n{CHAIN}")).expect("written");
    let cycle = mistakes(path, "run mine/own.toml").join("\n");
    assert!(cycle.contains("chain.toml:1: `extends` leads back to"), "{cycle}");
}

#[test]
fn another_input_than_the_lock_names_is_refused() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json_with_code(path, "run chain.toml", 0);
    fs::write(path.join("text.txt"), "the dog ran to the mat. ".repeat(80)).expect("written");
    for line in ["run chain.toml --json", "run chain.toml --plan"] {
        let refused = stderr(&run(path, line));
        assert!(refused.contains("chain.lock: `text.txt` has SHA-256"), "{refused}");
        assert!(refused.contains("--update-lock"), "{refused}");
    }
    assert_eq!(states(&json_with_code(path, "run chain.toml --update-lock", 0))[0], "done");
    assert_eq!(states(&json_with_code(path, "run chain.toml", 0)), ["cached"; 6]);
}

#[test]
fn locks_name_every_difference_and_keep_what_is_not_run() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    fs::copy(path.join("text.txt"), path.join("other.txt")).expect("copied");
    let recipe = CHAIN.replace("calibration = \"text.txt\"", "calibration = \"other.txt\"");
    fs::write(path.join("chain.toml"), &recipe).expect("written");
    json_with_code(path, "run chain.toml", 0);
    let read = || fs::read_to_string(path.join("chain.lock")).expect("a lock");
    let line =
        |lock: &str, stage: &str| lock.lines().find(|line| line.starts_with(&format!("{stage} = "))).map(str::to_owned);
    let before = read();
    // One stage alone leaves the lines of the others.
    json_with_code(path, "run chain.toml --only student --update-lock", 0);
    assert_eq!(read(), before);
    // The same key with another output is said, and written.
    let sparse = line(&before, "sparse").expect("a line");
    let (start, output) = sparse.rsplit_once("sha256:").expect("an output");
    let edited = before.replace(&sparse, &format!("{start}sha256:{}\" }}", "0".repeat(output.len() - 3)));
    fs::write(path.join("chain.lock"), &edited).expect("written");
    let said = stderr(&run(path, "run chain.toml"));
    assert!(said.contains("chain.lock: stage `sparse` has the key that it had and another output: 0000"), "{said}");
    assert_eq!(read(), before);
    // Both inputs are named.
    for name in ["text.txt", "other.txt"] {
        fs::write(path.join(name), "the dog ran to the mat. ".repeat(80)).expect("written");
    }
    for command in ["run chain.toml", "run chain.toml --locked"] {
        let output = run(path, command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("`text.txt` has SHA-256") && said.contains("`other.txt` has SHA-256"), "{said}");
    }
    // The lock of another recipe.
    fs::copy(path.join("chain.lock"), path.join("apart.lock")).expect("copied");
    let apart = "version = 1\n[model]\npath = 'model'\n[stages.rounded]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                 method = 'rtn'\n";
    fs::write(path.join("apart.toml"), apart).expect("written");
    refused(
        path,
        "run apart.toml",
        "apart.lock: is the lock of another recipe: it has results of artifact.cortex-m55,",
    );
    json_with_code(path, "run apart.toml --update-lock", 0);
    let lock = fs::read_to_string(path.join("apart.lock")).expect("a lock");
    assert!(lock.contains("rounded = ") && !lock.contains("sparse"), "{lock}");
}

#[test]
fn a_killed_run_goes_on() {
    let recipe = CHAIN.replace("tokens = 4000", "tokens = 40_000\ncheckpoint_every = 20");
    let (killed, whole) = (workshop(&recipe), workshop(&recipe));
    let uninterrupted = json_with_code(whole.path(), "run chain.toml", 0);
    let mut child =
        slmc(killed.path(), "run chain.toml").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let checkpoint = killed.path().join("out/chain/student.checkpoint");
    let begin = Instant::now();
    while !checkpoint.exists() && begin.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().expect("it ends");
    // Wherever that was, training is then ended at a step that is known.
    refused(killed.path(), "run chain.toml --stop-after-step 300", "stopped after step 300");
    assert!(checkpoint.exists());
    let output = run(killed.path(), "run chain.toml --json");
    assert!(stderr(&output).contains("Resuming"), "{}", stderr(&output));
    let resumed = one_line(&output);
    assert_eq!(resumed["stages"][0]["report"]["resumed_from"], 300, "{resumed}");
    let weights = |directory: &tempfile::TempDir, stage: &str| {
        fs::read(directory.path().join(format!("out/chain/{stage}/model.safetensors"))).expect("the weights are there")
    };
    for stage in ["student", "sparse", "small"] {
        assert!(weights(&killed, stage) == weights(&whole, stage), "the weights of {stage} differ");
    }
    assert!(artifacts(killed.path()) == artifacts(whole.path()), "the artifacts differ");
    let logits = |report: &Value| report["stages"][5]["report"]["logits_sha256"].clone();
    assert_eq!(logits(&resumed), logits(&uninterrupted));
}
