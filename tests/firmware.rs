//! `slmc compile --firmware`: the folder's notes are followed word for word on this machine and say the tokens of `slmc generate`;
//! artifacts of every kind build without a warning from the compiler and run; folders that hold something else stay as they are.
//! The emulated boards are in `tests/cross/run`.

use crate::c_interface::{compiler, library, stdout_of};
use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, not_run, refused, root, run, stderr, succeed};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The quickstart's teacher in w8, as `w8` in a directory.
fn quantized(directory: &Path) {
    let model = root("recipes/quickstart/teacher").display().to_string();
    succeed(directory, &["quantize", &model, "--scheme", "w8", "--method", "rtn", "-o", "w8"]);
}

/// The commands below a heading of the notes: the indented lines, each by itself.
fn commands(folder: &Path, heading: &str) -> Vec<String> {
    let notes = fs::read_to_string(folder.join("README.md")).expect("the notes");
    let below = notes.lines().skip_while(|line| *line != format!("## {heading}")).skip(1);
    let lines = below.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<String> = lines.map(str::to_owned).collect();
    assert!(!commands.is_empty(), "{notes}");
    commands
}

/// What one command of the notes says, run in their folder by a shell.
fn follow(folder: &Path, command: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", command]).current_dir(folder).env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    stdout_of(&mut shell)
}

/// The numbers of the line `tokens`.
fn tokens(said: &str) -> Vec<u64> {
    let line =
        said.lines().find_map(|line| line.strip_prefix("tokens ")).unwrap_or_else(|| panic!("no tokens: {said}"));
    line.split(',').map(|number| number.parse().expect("a number")).collect()
}

fn generated(directory: &Path, arguments: &[&str]) -> (Vec<u64>, String) {
    let report = json(directory, &[&["generate"], arguments].concat()[..]);
    let tokens = report["tokens"].as_array().expect("tokens").iter().filter_map(Value::as_u64).collect();
    (tokens, report["text"].as_str().expect("a text").to_owned())
}

#[test]
fn the_notes_for_this_machine_hold_word_for_word() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    quantized(at);
    let report = json(at, "compile w8 --target cortex-m55 --context 128 --firmware fw -o m.slm");
    let firmware = &report["firmware"];
    assert_eq!(firmware["boards"], serde_json::json!(["host", "mps3-an547"]));
    assert_eq!(firmware["object"], "artifact/model-arm.o");
    let folder = at.join("fw");
    for file in firmware["files"].as_array().expect("files") {
        assert!(folder.join(file["path"].as_str().expect("a path")).exists(), "{file}");
    }
    if Command::new("cmake").arg("--version").output().is_err() {
        return not_run("there is no cmake");
    }
    let (expected, text) = generated(at, &["m.slm", "--prompt", "Once upon a time", "--tokens", "64"]);
    let mut runs = 0;
    for command in commands(&folder, "On this machine") {
        let said = follow(&folder, &command);
        if command.ends_with("/firmware") && !command.contains(' ') {
            assert!(said.contains("the logits are the build machine's"), "{said}");
            assert!(said.contains(&text), "{said}");
            assert_eq!(tokens(&said), expected);
            runs += 1;
        }
    }
    assert_eq!(runs, 2, "both ways end with the program");
    // What was built does not stand in the way; what somebody wrote does.
    succeed(at, "compile w8 --target cortex-m55 --context 64 --firmware fw -o m.slm");
    assert!(!folder.join("build").exists());
    let config = folder.join("include/firmware_config.h");
    let own = fs::read_to_string(&config).expect("reads").replace("Once", "Twice");
    fs::write(&config, &own).expect("writes");
    let before = fs::read(at.join("m.slm")).expect("reads");
    refused(at, "compile w8 --target cortex-m55 --firmware fw -o m.slm", "`include/firmware_config.h` was changed");
    assert_eq!(fs::read_to_string(&config).expect("reads"), own);
    assert!(fs::read(at.join("m.slm")).expect("reads") == before, "the artifact is the old one");
}

/// Builds the program of a folder against the library with every feature, all warnings being errors, and runs it.
fn program(folder: &Path, definitions: &[&str]) -> String {
    let program = folder.with_extension("program");
    let object = folder.join("artifact/model-x86_64.o");
    let artifact = if object.exists() && cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        object
    } else {
        folder.join("artifact/model.S")
    };
    let mut command = compiler();
    command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I", "include"]).args(definitions);
    command.args(["src/main.c", "src/firmware.c", "boards/host/port.c"]).arg(artifact).arg(library());
    command.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program).current_dir(folder);
    stdout_of(&mut command);
    stdout_of(&mut Command::new(&program))
}

#[test]
fn every_kind_of_artifact_builds_and_says_what_slmc_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    quantized(at);
    let schema = r#"{"type": "object", "required": ["go", "steps"], "additionalProperties": false,
        "properties": {"go": {"enum": ["left", "right"]}, "steps": {"type": "integer", "minimum": 0, "maximum": 40}}}"#;
    fs::write(at.join("schema.json"), schema).expect("writes");
    fs::write(at.join("begin.txt"), "Once upon").expect("writes");
    let compile = |name: &str, options: &str| {
        succeed(at, &format!("compile w8 {options} --firmware {name} -o {name}.slm"));
        at.join(name)
    };
    let prompt = ["--prompt", "Once upon a time", "--tokens", "64"];
    for (name, options, features) in [
        ("plain", "--target x86-64-v3", ""),
        ("assembled", "--target generic --context 32", ""),
        ("grammar", "--target x86-64-v3 --json-schema schema.json", "grammar"),
        ("prefix", "--target x86-64-v3 --prefix begin.txt --kv v4", "nibble-values,snapshots"),
    ] {
        let folder = compile(name, options);
        let (expected, _) = generated(at, &[&[&*format!("{name}.slm")], &prompt[..]].concat());
        assert_eq!(tokens(&program(&folder, &[])), expected, "{name}");
        let manifest = fs::read_to_string(folder.join("runtime/Cargo.toml")).expect("reads");
        let default = manifest.lines().find(|line| line.starts_with("default")).expect("features");
        let all: Vec<&str> =
            std::iter::once("c-api").chain(features.split(',').filter(|name| !name.is_empty())).collect();
        assert_eq!(default, format!("default = {all:?}"), "{name}");
    }
    // Draws: temperature and seed of the artifact and of the folder.
    fs::write(at.join("w8/generation_config.json"), r#"{"do_sample": true, "repetition_penalty": 1.2, "top_p": 0.9}"#)
        .expect("writes");
    let folder = compile("draws", "--target x86-64-v3");
    let (expected, _) = generated(at, &["draws.slm", "--prompt", "A fox", "--tokens", "30", "--seed", "7"]);
    let own = ["-DFIRMWARE_PROMPT=\"A fox\"", "-DFIRMWARE_TOKENS=30", "-DFIRMWARE_SEED=7"];
    assert_eq!(tokens(&program(&folder, &own)), expected);
    // A chat template that is a fixed frame: the question of the folder goes through it.
    fs::copy(root("tests/data/chat_templates/chatml.jinja"), at.join("w8/chat_template.jinja")).expect("copies");
    let folder = compile("chat", "--target x86-64-v3");
    let question = "What is the capital of France?";
    let (expected, _) = generated(at, &["chat.slm", "--chat", question, "--tokens", "64"]);
    assert_eq!(tokens(&program(&folder, &[])), expected);
}

#[test]
fn encoders_read_and_say_their_label() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    for family in [Family::BertClassifier, Family::Bert, Family::BertMlm] {
        let name = family.name();
        fs::create_dir(at.join(name)).expect("a directory");
        fixture::write(&at.join(name), family, Size::SMALL);
        succeed(at, &format!("quantize {name} --scheme w8 --method rtn -o q-{name}"));
        succeed(at, &format!("compile q-{name} --target x86-64-v3 --firmware fw-{name} -o {name}.slm"));
        // Letters are its words, so the text is short.
        let said = program(&at.join(format!("fw-{name}")), &["-DFIRMWARE_PROMPT=\"a b\""]);
        assert!(said.contains("the logits are the build machine's"), "{said}");
        let last: Vec<&str> = said.lines().skip(2).collect();
        match family {
            Family::BertClassifier => {
                assert!(["label 0 no", "label 1 yes", "label 2 oos"].contains(&last[0]), "{said}");
                assert_eq!(last[1].split(' ').count(), 4, "three logits: {said}");
            }
            // [CLS], the two words, [SEP].
            _ => assert!(last.len() == 4 && last[3].starts_with("row 3 "), "{said}"),
        }
    }
}

#[test]
fn folders_that_hold_something_else_stay_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    quantized(at);
    fs::create_dir(at.join("thesis")).expect("a directory");
    fs::write(at.join("thesis/chapter"), "one").expect("writes");
    fs::write(at.join("file"), "mine").expect("writes");
    let there = || -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(at).expect("lists").map(|entry| entry.expect("an entry").path()).collect();
        names.sort();
        names
    };
    let before = there();
    for (folder, said) in [
        ("thesis", "thesis: exists and holds no slmc.json"),
        ("w8", "w8: holds something else that slmc made"),
        ("file", "file: exists"),
    ] {
        refused(at, &format!("compile w8 --target generic --firmware {folder} -o m.slm"), said);
        assert_eq!(there(), before, "{folder}");
    }
    // It does not fit: exit code 1, and neither artifact nor folder.
    fs::write(
        at.join("small.toml"),
        "name = 'small'\ndescription = 'x'\nlayout = 'r4k4.2c.d16.g32'\npage_bytes = 64\nflash_bytes = 100_000\n\
        [sources]\npage_bytes = 'x'\nflash_bytes = 'x'\n",
    )
    .expect("writes");
    let report = json_with_code(at, "compile w8 --target small.toml --firmware fw -o m.slm", 1);
    assert_eq!(report["limit"], "flash");
    assert!(!at.join("m.slm").exists() && !at.join("fw").exists());
    // Nor where the artifact cannot be written.
    fs::write(at.join("m.slm"), "mine").expect("writes");
    refused(at, "compile w8 --target generic --firmware fw -o m.slm", "m.slm: exists");
    assert!(!at.join("fw").exists());
}

/// A stage with the folder beside its artifact, which the cache keeps as well.
const RECIPE: &str = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                      method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = 'cortex-m4'\n\
                      firmware = 'board'\n";

#[test]
fn a_recipe_keeps_the_folder() {
    let directory = fixture::workshop("board.toml", RECIPE);
    let at = directory.path();
    succeed(at, "run board.toml");
    let folder = at.join("out/board/board");
    let object = fs::read(folder.join("artifact/model-arm.o")).expect("the object");
    assert!(folder.join("boards/mps2-an386/board.ld").is_file());
    fs::remove_dir_all(at.join("out")).expect("removed");
    let output = run(at, "run board.toml");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(folder.join("artifact/model-arm.o")).expect("the object") == object);
    assert!(folder.join("runtime/src/lib.rs").is_file() && folder.join("slmc.json").is_file());
    // Taken from the cache: nothing was computed.
    assert!(!stderr(&output).contains("Compiling"), "{}", stderr(&output));
    let plan = json(at, "plan board.toml");
    assert!(plan.is_object());
}
