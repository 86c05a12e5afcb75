//! Recipes: those in `recipes/` plan, a chain runs, is cached and goes on after a kill, gates decide the exit code, and
//! every mistake is reported at once with its line.

use crate::fixture::{Family, Size, write};
use crate::support::{json_with_code, one_line, refused, root, run, slmc, stderr};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
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
max_windows = 8

[gates]
kld_max = 100
file_bytes_max = 1_000_000
top1_min = { stage = "quality", value = 0 }

[sample]
prompt = "a cat"
tokens = 5
"#;

/// A directory with the fixture, a text and a recipe.
fn workshop(recipe: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("model"), Family::TiedLlama, Size::SMALL);
    let text = "the cat sat on the mat and the dog ran to the man. ".repeat(60);
    fs::write(directory.path().join("text.txt"), text).expect("the text can be written");
    fs::write(directory.path().join("chain.toml"), recipe).expect("the recipe can be written");
    directory
}

/// How every stage ended.
fn states(report: &Value) -> Vec<&str> {
    report["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["status"].as_str()).collect()
}

fn artifacts(directory: &Path) -> [Vec<u8>; 2] {
    ["generic", "cortex-m55"].map(|target| {
        fs::read(directory.join(format!("out/chain/artifact.{target}.slm"))).expect("the artifact is there")
    })
}

/// The mistakes that a recipe's refusal lists.
fn mistakes(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(2), "{}", stderr(output));
    stderr(output).lines().map(|line| line.trim_start_matches("error: ").trim().to_owned()).collect()
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
            assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"schema\":\"slmc.plan/1\""));
            continue;
        }
        for mistake in mistakes(&output) {
            assert!(mistake.ends_with(" does not exist"), "{mistake}");
        }
    }
}

#[test]
fn a_chain_runs_once_and_is_cached_with_the_same_bytes() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    let plan = json_with_code(path, "run chain.toml --plan", 0);
    assert_eq!(plan["schema"], "slmc.plan/1");
    let planned: Vec<&Value> = plan["stages"].as_array().expect("stages").iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(planned, ["student", "sparse", "small", "artifact.generic", "artifact.cortex-m55", "quality"]);
    assert!(!path.join("out").exists() && !path.join("chain.lock").exists(), "a plan writes nothing");
    let first = json_with_code(path, "run chain.toml", 0);
    assert_eq!(first["schema"], "slmc.run/1");
    assert_eq!(states(&first), ["done"; 6]);
    assert_eq!(first["passed"], true);
    assert_eq!(first["gates"].as_array().map(Vec::len), Some(4), "the bytes of both artifacts, and two of quality");
    let samples: Vec<&str> =
        first["samples"].as_array().expect("samples").iter().filter_map(|s| s["text"].as_str()).collect();
    assert!(samples.len() == 2 && samples.iter().all(|text| text.starts_with("a cat")), "{samples:?}");
    assert!(fs::read_to_string(path.join("chain.lock")).expect("a lock").contains("student.data"));
    let bytes = artifacts(path);
    let second = json_with_code(path, "run chain.toml", 0);
    assert_eq!(states(&second), ["cached"; 6]);
    assert_eq!(first["stages"][5]["report"], second["stages"][5]["report"]);
    // What is gone is made again with the same bytes, so that what follows stays.
    fs::remove_dir_all(path.join("out/chain/small")).expect("it can be removed");
    fs::write(path.join("out/chain/artifact.generic.slm"), b"SLMC damaged").expect("it can be written");
    fs::remove_file(path.join("out/chain/artifact.generic.slm")).expect("it can be removed");
    let third = json_with_code(path, "run chain.toml --threads 1", 0);
    assert_eq!(states(&third), ["cached", "cached", "done", "done", "cached", "cached"]);
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
    fs::write(path.join("chain.toml"), CHAIN.replace("max_windows = 8", "max_windows = 4")).expect("written");
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
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let recipe = r#"version = 1
descripton = "x"
[model]
path = "model"
[stages.a]
kind = "quantise"
input = "model"
[stages.b]
kind = "quantize"
input = "modle"
scheme = "w9"
keep = ["embedding=w8", "foo"]
calibration = "none.txt"
max-windows = 3
[stages.c]
kind = "compile"
input = "d"
target = ["generic", "cortex-m5"]
context = "many"
[stages.d]
kind = "distill"
input = "b"
data = ["text.txt", 4]
qat = 1
[stages.e]
kind = "eval"
data = "text.txt"
task = "lmm"
[gates]
kld_mx = 1
cosine_min = 0.5
weight_bytes_max = { stage = "bb", value = 3 }
"#;
    let directory = workshop(recipe);
    let found = mistakes(&run(directory.path(), "run chain.toml"));
    let expected = [
        "chain.toml:2: unknown key `descripton`; did you mean `description`?",
        "chain.toml:6: unknown kind `quantise`; did you mean `quantize`?",
        "chain.toml:10: unknown stage `modle`; did you mean `model`?",
        "chain.toml:11: `scheme` is `w9`: unknown scheme",
        "chain.toml:12: `keep` is `foo`: `foo` is not PATTERN=SCHEME",
        "chain.toml:13: none.txt does not exist",
        "chain.toml:14: unknown key `max-windows`; keys of quantize: ",
        "chain.toml:17: stage `c` (compile) takes a quantized model, and `d` (distill) makes a dense model",
        "chain.toml:18: unknown target `cortex-m5`, did you mean `cortex-m4`?",
        "chain.toml:19: `context` is a string; expected a number",
        "chain.toml:20: stage `d` (distill) needs the key `student`",
        "chain.toml:22: stage `d` (distill) takes a dense model, and `b` (quantize) makes a quantized model",
        "chain.toml:23: `data` is an integer; expected a string",
        "chain.toml:24: unknown key `qat`; keys of distill: ",
        "chain.toml:25: stage `e` has no `input`; name a stage, or \"model\"",
        "chain.toml:28: `task` is `lmm`; did you mean `lm`?",
        "chain.toml:30: unknown key `kld_mx`; did you mean `kld_max`?",
        "chain.toml:31: `cosine_min` compares with a reference, and stage `e` has none",
        "chain.toml:32: unknown stage `bb`; did you mean `b`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    assert!(!directory.path().join("out").exists(), "nothing ran");
}

#[test]
fn configurations_tell_what_cannot_be_before_anything_runs() {
    let cases = [
        (
            CHAIN.replace("layers = [0]", "layers = [0, 7]"),
            "chain.toml:9: `layers`: layer 7 is not there: the teacher has layers 0 to 1",
        ),
        (
            CHAIN.replace("layers.0.attn.*=w4", "layers.5.*=w4"),
            "--keep layers.5.*=w4.g32: the pattern matches no matrix",
        ),
        (CHAIN.replace("method =", "only = ['layers.9.*']\nmethod ="), "layers.9.*"),
        (CHAIN.replace("batch = 4", "batch = 4\npieces = 9"), "`pieces` is 9; expected 1 to the batch"),
        (CHAIN.replace("input = \"student\"", "input = \"sparse\""), "stages wait for each other: sparse needs sparse"),
        (CHAIN.replace("reference = \"model\"", "reference = \"other\""), "different vocabularies: 32 and 58"),
        (
            CHAIN.replace("artifact.generic", "artifact"),
            "stage `artifact` makes several artifacts; name one: `artifact.generic`",
        ),
        (
            CHAIN.replace("[gates]", "[gates]\naccuracy_ratio_min = { stage = 'small', value = 1 }"),
            "is not measured by stage `small`",
        ),
        (CHAIN.replace("data = [\"text.txt\"]", ""), "stage `student` (distill) needs the key `data`"),
        (CHAIN.replace("version = 1", "version = 3"), "chain.toml:2: `version` is not 1"),
        ("version = 1".to_owned(), "the recipe has no stages"),
    ];
    for (recipe, expected) in cases {
        let directory = workshop(&recipe);
        write(&directory.path().join("other"), Family::BertMlm, Size::SMALL);
        let found = mistakes(&run(directory.path(), "run chain.toml")).join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
        assert!(!directory.path().join("out").exists(), "{expected}: nothing ran");
    }
}

#[test]
fn what_no_stage_can_do_is_found_in_all_stages_at_once_before_any_runs() {
    let recipe = r#"version = 1
[model]
path = "model"
[stages.fresh]
kind = "train"
input = "model"
data = "text.txt"
tokens = 0
batch = 70_000
learning_rate = -1
kl = 1
window = 4096
device = "cuda"
[stages.student]
kind = "distill"
input = "model"
layers = [0, 7]
data = "text.txt"
ce = 0
hidden = 0
device = "tpu"
[stages.sparse]
kind = "prune"
input = "model"
pattern = "2:4"
method = "magnitude"
only = ["layers.0.*"]
warm_up = 0.5
[stages.recovered]
kind = "prune"
input = "model"
pattern = "1:4"
method = "wanda"
most_missed = 1.5
recover = true
data = "self"
warm_up = 2
checkpoint_every = 0
[stages.small]
kind = "quantize"
input = "sparse"
scheme = "mixed"
keep = ["layers.9.*=w8"]
device = "cuda"
[stages.tiny]
kind = "quantize"
input = "sparse"
scheme = "mixed"
[stages.artifact]
kind = "compile"
input = "tiny"
target = ["generic-npu-2to4", "board.toml"]
context = 4096
[stages.quality]
kind = "eval"
input = "artifact.board"
data = "text.txt"
task = "classify"
device = "cuda"
[sample]
prompt = "a cat"
device = "gpu"
"#;
    let directory = workshop(recipe);
    let board = "name = 'board'\ndescription = 'w8 alone'\nlayout = 'r8k4.off8.d16.g32'\npage_bytes = 64\n\
                 [required]\nschemes = ['w8']\n[max]\nlayers = 1\n";
    fs::write(directory.path().join("board.toml"), board).expect("written");
    let expected = ["4: `batch`"];
    for line in ["run chain.toml --max-ram 1MiB", "run chain.toml --max-ram 1MiB --plan"] {
        let found = mistakes(&run(directory.path(), line));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&format!("chain.toml:{expected}")), "{found}\nexpected {expected}");
        }
        assert!(!directory.path().join("out").exists(), "nothing ran");
    }
}

#[test]
fn recipes_extend_each_other_and_paths_are_relative_to_the_file_that_says_them() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    fs::create_dir(path.join("mine")).expect("created");
    let own = "extends = '../chain.toml'\n[stages.quality]\nmax-windows = 2\ndata = 'own.txt'\n[gates]\nkld_max = 0\n";
    fs::write(path.join("mine/own.toml"), own).expect("written");
    fs::write(path.join("mine/own.txt"), "the man sat on the cat. ".repeat(20)).expect("written");
    let report = json_with_code(path, "run mine/own.toml", 1);
    assert_eq!((&report["recipe"], &report["stages"][5]["report"]["windows"]), (&Value::from("own"), &Value::from(2)));
    assert!(path.join("out/own/artifact.generic.slm").is_file() && path.join("mine/own.lock").is_file());
    fs::write(path.join("chain.toml"), format!("extends = 'mine/own.toml'\n{CHAIN}")).expect("written");
    let cycle = mistakes(&run(path, "run mine/own.toml")).join("\n");
    assert!(cycle.contains("chain.toml:1: `extends` leads back to"), "{cycle}");
}

#[test]
fn another_input_than_the_lock_names_is_refused() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json_with_code(path, "run chain.toml", 0);
    fs::write(path.join("text.txt"), "the dog ran to the mat. ".repeat(80)).expect("written");
    for line in ["run chain.toml --json", "run chain.toml --plan"] {
        let refused = mistakes(&run(path, line)).join("\n");
        assert!(refused.contains("chain.lock: `text.txt` (quality.data) has SHA-256"), "{refused}");
        assert!(refused.contains("--update-lock"), "{refused}");
    }
    assert_eq!(states(&json_with_code(path, "run chain.toml --update-lock", 0))[0], "done");
    assert_eq!(states(&json_with_code(path, "run chain.toml", 0)), ["cached"; 6]);
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
