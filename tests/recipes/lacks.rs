//! What a plan finds lacking in models, texts and tasks before anything runs, and recipes that look as if something lacked.

use super::{CHAIN, mistakes, workshop};
use crate::fixture::{Family, Size, write};
use crate::support::{json_with_code, run, stderr};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What the work would refuse after the stages before it is said by a plan: a model without weights or tokenizer, a text that
/// fills no window, rows that are none or lack a key, a gate on what the stage's task does not give, a prompt without a place.
#[test]
fn what_models_texts_and_tasks_lack_is_found_by_a_plan() {
    let evaluated = |with: &str| CHAIN.replace("data = \"text.txt\"\nwindow", &format!("{with}\nwindow"));
    let long_prompt = format!("prompt = \"{}\"", "a cat ".repeat(60));
    let cases = [
        (
            CHAIN.to_owned(),
            Some("model/model.safetensors"),
            "model holds a configuration and no weights, which `distill` reads",
        ),
        (CHAIN.to_owned(), Some("model/tokenizer.json"), "model/tokenizer.json does not exist"),
        (evaluated("data = \"short.txt\""), None, "37: `data`: short.txt: the text has "),
        (
            CHAIN.replace("calibration = \"text.txt\"", "calibration = \"short.txt\""),
            None,
            "26: `calibration`: short.txt: the text",
        ),
        (
            CHAIN.replace("data = [\"text.txt\"]", "data = [\"short.txt\"]"),
            None,
            "10: `data`: short.txt: the text has ",
        ),
        (
            evaluated("data = \"text.txt\"\nfield = \"text\""),
            None,
            "37: `data`: text.txt:1: expected one JSON object per line",
        ),
        (
            evaluated("data = \"long.jsonl\"\nfield = \"txt\""),
            None,
            "37: `data`: long.jsonl:1: no key `txt` in row 1; the object has: text",
        ),
        (
            evaluated("data = \"text.txt\"\ntask = \"generate\""),
            None,
            "37: `data`: text.txt:1: expected one JSON object per line",
        ),
        (
            CHAIN.replace("kld_max = 100", "accuracy_min = 0.5"),
            None,
            "`accuracy_min` limits `accuracy`, which stage `quality` does not measure: its task gives `kld_mean`, `perplexity`, \
             `top1_agreement`",
        ),
        (CHAIN.replace("prompt = \"a cat\"", &long_prompt), None, "the prompt of [sample] has "),
        (
            CHAIN.replace("layers = [0]", "layers = [0, 1]\nteacher = \"model\""),
            None,
            "9: `layers` and `input`, which is the `student`, exclude each other; keep one",
        ),
    ];
    for (recipe, gone, expected) in cases {
        let directory = workshop(&recipe);
        let path = directory.path();
        fs::write(path.join("short.txt"), "a cat sat\n").expect("written");
        fs::write(path.join("long.jsonl"), "{\"text\": \"a cat\"}\n".repeat(100_000)).expect("written");
        if let Some(gone) = gone {
            fs::remove_file(path.join(gone)).expect("it was there");
        }
        let found = mistakes(path, "plan chain.toml").join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
        assert!(!path.join("out").exists(), "{expected}: nothing ran");
    }
}

/// A stage that is not in [`CHAIN`], on its model or another one of the directory.
fn with_stage(stage: &str) -> String {
    format!("version = 1\n[model]\npath = \"model\"\n{stage}\n")
}

#[test]
fn stages_that_only_read_texts_are_looked_at_too() {
    let watch = |more: &str| with_stage(&format!("[stages.drift]\nkind = \"watch\"\ninput = \"model\"\n{more}"));
    let data = "[stages.clean]\nkind = \"data\"\ndata = [\"rows.jsonl\"]\n";
    let cases = [
        (watch("log = \"rows.jsonl\"\ndata = \"text.txt\""), "`log`: rows.jsonl is a JSONL file; name the field"),
        (watch("log = \"rows.jsonl\"\nlog_field = \"t\"\ndata = \"text.txt\""), "no key `t` in 2 rows"),
        (
            watch("log = \"text.txt\"\ndata = \"text.txt\"\n[gates]\nlabel_psi_max = 1"),
            "`label_psi_max` limits `label_psi`, which stage `drift` does not measure",
        ),
        (with_stage(&format!("{data}field = \"t\"")), "`data`: rows.jsonl:1: no key `t` in row 1"),
        (
            with_stage(&format!(
                "{data}field = \"text\"\n[stages.t]\nkind = \"eval\"\ninput = \"model\"\ndata = \"clean/held-out.jsonl\"\nfield = \"text\""
            )),
            "stage `clean` holds nothing out, so it makes no held-out.jsonl; give `clean` a share: `held_out = 0.1`",
        ),
        (
            with_stage("[stages.s]\nkind = \"synthesize\"\ninput = \"model\"\nprompts = \"rows.jsonl\"\nfield = \"t\""),
            "`prompts`: rows.jsonl:1: no key `t` in 2 rows",
        ),
        (
            CHAIN.replace("[gates]", "[gates]\nbaseline = \"text.txt\"\nkld_ratio_max = 2"),
            "chain.toml:42: text.txt is no model that slmc reads",
        ),
    ];
    for (recipe, expected) in cases {
        let directory = workshop(&recipe);
        fs::write(directory.path().join("rows.jsonl"), "{\"text\": \"a cat\"}\n{\"text\": \"a dog\"}\n")
            .expect("written");
        let found = mistakes(directory.path(), "plan chain.toml").join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
    }
}

/// A model of the fixture as a configuration alone, or without its tokenizer.
fn without(from: &Path, to: &Path, file: &str) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("a model").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().expect("a name");
        if name != file {
            fs::copy(&entry, to.join(name)).expect("copied");
        }
    }
}

/// A student takes its teacher's tokenizer, a bare encoder its labels from the data; any JSON can be a text, and rounding to the
/// nearest integer reads none.
#[test]
fn what_only_looks_as_if_it_lacked_something_is_planned() {
    let student = "[stages.s]\nkind = \"distill\"\nteacher = \"model\"\nstudent = \"config\"\ndata = \"text.txt\"\ntokens = 2000\nwindow = 32";
    let small = "[stages.small]\nkind = \"quantize\"\ninput = \"s\"\nscheme = \"w8\"\nmethod = \"search\"\ncalibration = \"text.txt\"";
    let bare = "[stages.s]\nkind = \"distill\"\nteacher = \"classifier\"\nstudent = \"bare\"\ntask = \"classify\"\ndata = \"labelled.jsonl\"\ntokens = 2000\nwindow = 32\n\
                [stages.quality]\nkind = \"eval\"\ninput = \"s\"\ndata = \"labelled.jsonl\"\n[gates]\naccuracy_min = 0.1";
    let rounded = "[stages.s]\nkind = \"quantize\"\ninput = \"model\"\nscheme = \"w8\"\nmethod = \"rtn\"\n\
                   [stages.quality]\nkind = \"eval\"\ninput = \"s\"\ntokenizer = \"./model\"\ndata = \"text.txt\"\nwindow = 32";
    let data = "[stages.clean]\nkind = \"data\"\ndata = [\"labelled.jsonl\"]\nrules = \"none\"\nkeep_duplicates = true";
    let array =
        "[stages.quality]\nkind = \"eval\"\ninput = \"model\"\ndata = \"rows.json\"\nfield = \"text\"\nwindow = 8";
    let json = "[stages.quality]\nkind = \"eval\"\ninput = \"model\"\ndata = \"text.json\"\nwindow = 8";
    for stages in [&format!("{student}\n{small}"), bare, rounded, data, array, json] {
        let mut recipe = with_stage(stages);
        if stages == rounded {
            recipe = recipe.replace("path = \"model\"", "path = \"no-tokenizer\"");
        }
        let directory = workshop(&recipe);
        let path = directory.path();
        without(&path.join("model"), &path.join("no-tokenizer"), "tokenizer.json");
        fs::create_dir(path.join("config")).expect("made");
        fs::copy(path.join("model/config.json"), path.join("config/config.json")).expect("copied");
        write(&path.join("classifier"), Family::BertClassifier, Size::SMALL);
        write(&path.join("bare"), Family::Bert, Size::SMALL);
        fs::remove_file(path.join("bare/model.safetensors")).expect("it was there");
        let row = |text: &str, label: &str| format!("{{\"text\": \"{text}\", \"label\": \"{label}\"}}\n");
        fs::write(
            path.join("labelled.jsonl"),
            (row("a cat", "no") + &row("a dog", "yes") + &row("a fox", "oos")).repeat(20),
        )
        .expect("written");
        let rows: Vec<Value> = (0..40).map(|_| serde_json::json!({"text": "the cat sat on the mat"})).collect();
        fs::write(path.join("rows.json"), Value::from(rows).to_string()).expect("written");
        fs::write(path.join("text.json"), "{\n \"a cat\": \"sat on the mat and the dog ran to the man\"\n}")
            .expect("written");
        json_with_code(path, "plan chain.toml", 0);
        json_with_code(path, "run chain.toml", 0);
    }
}

/// Outputs go to a folder of the recipe's name, so two recipes of one name take each other's place, which is said.
#[test]
fn a_recipe_of_the_same_name_is_told_of_the_other_ones_outputs() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    fs::create_dir(path.join("other")).expect("made");
    let moved = CHAIN.replace("\"model\"\n\n", "\"../model\"\n\n").replace("text.txt", "../text.txt");
    fs::write(path.join("other/chain.toml"), moved).expect("written");
    let first = stderr(&run(path, "run chain.toml"));
    let second = stderr(&run(path, "run other/chain.toml"));
    let again = stderr(&run(path, "run other/chain.toml"));
    assert!(
        second.contains("out/chain holds the outputs of ") && second.contains("a recipe of the same name"),
        "{second}"
    );
    for quiet in [first, again] {
        assert!(!quiet.contains("a recipe of the same name"), "{quiet}");
    }
}
