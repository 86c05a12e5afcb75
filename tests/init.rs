//! `slmc init`: for every priority and several targets a recipe that plans, and runs; what it says of a licence; what it
//! refuses.

use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, run, slmc, stderr, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

const PRIORITIES: [&str; 6] = ["size", "quality", "latency", "time", "power", "compliance"];
/// One without limits, one with rates and schemes of its own, one that insists on zeros, a small one.
const TARGETS: [&str; 4] = ["generic", "cortex-m55", "generic-npu-2to4", "cortex-m4"];

/// A directory with a model in `model/` and a text in `text.txt`.
fn place(family: Family) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("model"), family, Size::SMALL);
    let sentence = "the cat sat on the mat and the dog ran to the man. ";
    fs::write(directory.path().join("text.txt"), sentence.repeat(60)).expect("written");
    let row = |label| format!("{{\"text\": \"{sentence}\", \"label\": \"{label}\"}}\n");
    fs::write(directory.path().join("labelled.jsonl"), (row("no") + &row("yes")).repeat(60)).expect("written");
    directory
}

/// The text that an evaluation of a family takes.
fn data(family: Family) -> &'static str {
    if family == Family::BertClassifier { "labelled.jsonl" } else { "text.txt" }
}

fn recipe(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).expect("the recipe is there")
}

/// Value of a key of a stage.
fn chosen<'r>(report: &'r Value, stage: &str, key: &str) -> Option<&'r str> {
    let choices = report["choices"].as_array().expect("choices");
    choices.iter().find(|choice| choice["stage"] == stage && choice["key"] == key)?["value"].as_str()
}

#[test]
fn every_priority_gives_a_recipe_that_plans() {
    for (number, family) in Family::ALL.into_iter().enumerate() {
        let directory = place(family);
        let path = directory.path();
        fs::write(path.join("model/LICENSE"), "Apache License\nVersion 2.0, January 2004\n").expect("written");
        for (nth, target) in TARGETS.into_iter().enumerate() {
            for (other, priority) in PRIORITIES.into_iter().enumerate() {
                // All pairs of one family; of every other three, each another three.
                let all = family == Family::Llama;
                if !all && (4 * other + nth + number) % 8 != 0 {
                    continue;
                }
                let name = format!("{target}-{priority}.toml");
                let data = if priority == "time" { String::new() } else { format!(" --data {}", data(family)) };
                let report = json(path, &format!("init model --target {target} --priority {priority}{data} -o {name}"));
                assert_eq!((&report["schema"], &report["fits"]), (&"slmc.init/1".into(), &true.into()), "{report}");
                let planned = json(path, &format!("run {name} --plan"));
                let stages = planned["stages"].as_array().expect("stages").len();
                let expected = 2 + usize::from(target == "generic-npu-2to4") + usize::from(priority != "time");
                assert_eq!(stages, expected, "{}", recipe(path, &name));
                for choice in report["choices"].as_array().expect("choices") {
                    assert!(choice["why"].as_str().is_some_and(|why| why.len() > 10), "{choice}");
                }
                let text = recipe(path, &name);
                for word in
                    ["# Inputs", "# Command     slmc run", "# Result", "# Licence     Apache-2.0", "gates suggest"]
                {
                    assert!(text.contains(word), "{name} lacks {word}: {text}");
                }
                assert_eq!(text.contains("[sample]"), family.decoder(), "{text}");
                assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            }
        }
    }
}

#[test]
fn priorities_differ_in_what_they_choose() {
    let directory = place(Family::Llama);
    let path = directory.path();
    let scheme = |target: &str, priority: &str| {
        let report = json_with_code(
            path,
            &format!("init model --target {target} --priority {priority} -o r.toml --force"),
            i32::from(priority == "compliance"),
        );
        ["scheme", "method", "keep", "numerics"].map(|key| chosen(&report, "small", key).map(str::to_owned))
    };
    let all = |words: [&str; 4]| words.map(|word| (!word.is_empty()).then(|| word.to_owned()));
    assert_eq!(scheme("generic", "quality"), all(["\"w8\"", "\"gptq\"", "", ""]));
    assert_eq!(scheme("generic", "size"), all(["\"w4\"", "\"gptq\"", "", ""]));
    assert_eq!(scheme("generic", "time"), all(["\"mixed\"", "\"rtn\"", "", ""]));
    assert_eq!(scheme("generic", "power"), all(["\"w4\"", "\"gptq\"", "[\"embedding=w8\"]", ""]));
    assert_eq!(scheme("generic", "compliance"), all(["\"w8\"", "\"gptq\"", "", "\"portable\""]));
    // Its multipliers have a rate for 8 bits alone.
    assert_eq!(scheme("cortex-m55", "latency")[0].as_deref(), Some("\"w8\""));
}

#[test]
fn flash_and_ram_that_are_too_small_are_met() {
    let directory = place(Family::Llama);
    let path = directory.path();
    let sizes = json(path, "estimate model --target generic");
    let of = |scheme: &str, key: &str| {
        let rows = sizes["schemes"].as_array().expect("schemes");
        rows.iter().find(|row| row["scheme"] == scheme).expect("a row")[key].as_u64().expect("a number")
    };
    let target = |flash: u64, ram: u64| {
        let text = format!(
            "name = \"board\"\ndescription = \"a board\"\nlayout = \"r4k16.2c.d16.g32\"\npage_bytes = 64\nflash_bytes = {flash}\n\
             ram_bytes = {ram}\n[sources]\nflash_bytes = \"a test\"\nram_bytes = \"a test\"\npage_bytes = \"a test\"\n"
        );
        fs::write(path.join("board.toml"), text).expect("written");
    };
    // Between the presets: bits are allocated.
    target((of("w8", "flash_bytes") + of("w4", "flash_bytes")) / 2, 1 << 30);
    let report = json(path, "init model --target board.toml --priority quality -o a.toml");
    assert_eq!(chosen(&report, "small", "scheme"), Some("\"auto\""));
    json(path, "run a.toml --plan");
    // Too little RAM for the model's own context.
    let least = ["w8", "mixed", "w4"].map(|scheme| of(scheme, "ram_bytes")).into_iter().min().expect("three");
    // A smaller chunk of tokens saves some; below that the context is shortened, and below that nothing fits.
    let shortened = |sixteenths: &u64| {
        target(1 << 30, least * sixteenths / 16);
        let output = run(path, "init model --target board.toml --data text.txt -o b.toml --force --json");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        chosen(&report, "artifact", "context")
            .is_some_and(|context| context.parse().is_ok_and(|n: usize| n > 0 && n < 96))
    };
    assert!((1..16).rev().any(|sixteenths| shortened(&sixteenths)), "no RAM shortens the context");
    json(path, "run b.toml --plan");
    // Nothing fits: the recipe is there all the same, and the answer is no.
    target(64, 1 << 30);
    let report = json_with_code(path, "init model --target board.toml --priority size -o c.toml", 1);
    assert_eq!(report["fits"], false);
    assert!(recipe(path, "c.toml").contains("# Fit         NOT"), "{}", recipe(path, "c.toml"));
}

#[test]
fn the_recipe_runs_as_it_is() {
    let directory = place(Family::TiedLlama);
    let path = directory.path();
    fs::create_dir(path.join("recipes")).expect("a directory");
    succeed(path, "init model --priority time --data text.txt -o recipes/mine.toml");
    let report = json(path, "run recipes/mine.toml");
    assert_eq!(report["passed"], true);
    assert!(path.join("out/mine/artifact.generic.slm").is_file());
}

#[test]
fn a_licence_that_is_missing_or_restricts_is_said() {
    let directory = place(Family::Llama);
    let path = directory.path();
    let output = run(path, "init model --priority size -o a.toml");
    assert_eq!(output.status.code(), Some(0), "only a warning");
    assert!(stderr(&output).contains("warning: licence: no licence file"), "{}", stderr(&output));
    let output = run(path, "init model --priority compliance -o b.toml");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("settled before anything else"), "{}", stderr(&output));
    assert!(recipe(path, "b.toml").contains("SETTLE THE LICENCE FIRST"));
    json(path, "run b.toml --plan");
    fs::write(path.join("model/README.md"), "---\nlicense: cc-by-nc-4.0\n---\n").expect("written");
    let report = json_with_code(path, "init model --priority compliance -o c.toml", 1);
    assert_eq!(
        (&report["licence"]["terms"], &report["licence"]["name"]),
        (&"restricted".into(), &"cc-by-nc-4.0".into())
    );
    fs::write(path.join("model/README.md"), "---\nlicense: mit\n---\n").expect("written");
    let report = json(path, "init model --priority compliance -o d.toml");
    assert_eq!(report["licence"]["terms"], "permissive");
    assert!(report["next"].as_array().expect("next").iter().any(|command| command == "slmc run d.toml --locked"));
}

#[test]
fn nothing_is_replaced_or_written_by_halves() {
    let directory = place(Family::Llama);
    let path = directory.path();
    succeed(path, "init model");
    let before = recipe(path, "model.toml");
    refused(path, "init model", "model.toml: is there already; --force replaces it");
    succeed(path, "init model --priority size --force");
    assert_ne!(recipe(path, "model.toml"), before);
    fs::write(path.join("notes.toml"), "not TOML at all {").expect("written");
    refused(path, "init model -o notes.toml --force", "notes.toml: is not a recipe, and is not replaced");
    assert_eq!(recipe(path, "notes.toml"), "not TOML at all {");
    fs::write(path.join("other.toml"), "version = 1\n[package]\n").expect("written");
    refused(path, "init model -o other.toml --force", "other.toml: is not a recipe, and is not replaced");
    fs::create_dir(path.join("texts")).expect("a directory");
    refused(path, "init model --data texts -o r.toml", "texts: is a directory; --data names one file");
    refused(path, "init model -o recipe.txt", "a recipe's name ends in .toml");
    refused(path, "init none -o r.toml", "does not exist");
    refused(path, "init model --target cortex-m5 -o r.toml", "did you mean `cortex-m4`?");
    refused(path, "init model --data none.txt -o r.toml", "none.txt: does not exist");
    refused(path, "init model --priority smallest -o r.toml", "invalid value 'smallest'");
    fs::remove_file(path.join("model/tokenizer.json")).expect("removed");
    refused(path, "init model -o r.toml", "tokenizer.json");
    assert!(!path.join("r.toml").exists());
    let left = fs::read_dir(path).expect("a directory").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_file())
    });
    assert_eq!(left.count(), 0, "files of the check are left");
}

#[test]
fn a_model_that_is_quantized_already_is_refused() {
    let directory = place(Family::Llama);
    let path = directory.path();
    succeed(path, "quantize model --scheme w8 --method rtn -o small");
    refused(path, "init small -o r.toml", "is quantized already");
}

#[test]
fn names_that_would_be_toml_or_commands_are_text() {
    let directory = place(Family::Llama);
    let path = directory.path();
    let name = "a\"]\n[gates]\nkld_max = 0 # \u{1b}[31m 'x";
    fs::rename(path.join("model"), path.join(name)).expect("renamed");
    let output = slmc(path, &["init", name, "-o", "r.toml"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = recipe(path, "r.toml");
    let parsed: toml::Table = text.parse().expect("TOML");
    assert_eq!(parsed["model"]["path"].as_str(), Some(name));
    assert!(!parsed.contains_key("gates"), "{text}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains('\u{1b}'));
    json(path, "run r.toml --plan");
}
