//! `slmc plan`: what a run would take, what it needs, and every mistake, without computing.

use super::{CHAIN, workshop};
use crate::support::{json_with_code, one_line, refused, run, slmc, stderr};
use serde_json::{Value, json};
use std::fs;

fn stage<'r>(plan: &'r Value, label: &str) -> &'r Value {
    let stages = plan["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["stage"] == label).unwrap_or_else(|| panic!("no {label} in {plan}"))
}

#[test]
fn a_plan_says_what_every_stage_will_take_and_comes_near_it() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    let plan = json_with_code(path, "plan chain.toml", 0);
    assert_eq!(plan["schema"], "slmc.plan/2");
    let same = json_with_code(path, "run chain.toml --plan", 0);
    assert_eq!(same["stages"].as_array().map(Vec::len), plan["stages"].as_array().map(Vec::len));
    assert!(!path.join("out").exists() && !path.join("chain.lock").exists(), "a plan writes nothing");
    let figure = |label: &str, name: &str| stage(&plan, label)["estimate"][name].as_f64().unwrap_or(-1.0);
    for label in ["student", "sparse", "small", "artifact.generic", "artifact.cortex-m55", "quality"] {
        assert!(figure(label, "peak_memory_bytes") > 1e6, "{label}: {plan}");
        assert!(figure(label, "seconds") > 0.0, "{label}: {plan}");
        assert_eq!(stage(&plan, label)["estimate"]["seconds_by"], "product", "{label}: {plan}");
    }
    assert_eq!((&plan["to_do"]["stages"], &plan["fits"]), (&json!(6), &json!(true)));
    let run_report = json_with_code(path, "run chain.toml", 0);
    // The device's bytes are exact, those of directories near.
    for target in ["generic", "cortex-m55"] {
        let label = format!("artifact.{target}");
        let device = &stage(&plan, &label)["estimate"]["device"];
        let made = &stage(&run_report, &label)["report"];
        assert_eq!(device["flash_bytes"], made["flash_bytes"], "{label}");
        assert_eq!(device["ram_bytes"], made["ram_bytes"], "{label}");
        let predicted = figure(&label, "output_bytes");
        let file = made["file_bytes"].as_f64().expect("bytes");
        assert!((0.5..2.0).contains(&(predicted / file)), "{label}: {predicted} and {file}");
    }
    for label in ["student", "sparse", "small"] {
        let weights = path.join(format!("out/chain/{label}/model.safetensors"));
        let there = fs::metadata(weights).expect("weights").len() as f64;
        let predicted = figure(label, "output_bytes");
        assert!((0.7..1.4).contains(&(predicted / there)), "{label}: {predicted} and {there}");
    }
    let again = json_with_code(path, "plan chain.toml", 0);
    let made = stage(&again, "student");
    assert_eq!((&made["cached"], &again["to_do"]["stages"]), (&json!(true), &json!(0)));
    assert!(made["made_in"]["seconds"].as_f64().is_some(), "{made}");
    // What ran here is the measure from now on.
    fs::write(path.join("chain.toml"), CHAIN.replace("tokens = 4000", "tokens = 8000")).expect("written");
    let changed = json_with_code(path, "plan chain.toml", 0);
    let student = stage(&changed, "student");
    assert_eq!(student["why"], "option `tokens` was 4000, is 8000");
    let text = String::from_utf8(run(path, "plan chain.toml").stdout).expect("UTF-8");
    assert!(text.contains("to do: 6 of 6 stages, about ") && text.contains("MiB of memory"), "{text}");
    assert!(text.contains("artifact.cortex-m55: ") && text.contains(" of RAM on cortex-m55"), "{text}");
}

#[test]
fn what_does_not_fit_is_exit_code_1_before_anything_is_computed() {
    let directory = workshop(&CHAIN.replace("\"cortex-m55\"]", "\"board.toml\"]"));
    let path = directory.path();
    let board = "name = 'board'\ndescription = 'too small'\nlayout = 'r8k4.off8.d16.g32'\npage_bytes = 64\nflash_bytes = 1000\n";
    fs::write(path.join("board.toml"), board).expect("written");
    let plan = json_with_code(path, "plan chain.toml", 1);
    assert_eq!(plan["fits"], false);
    let device = &stage(&plan, "artifact.board")["estimate"]["device"];
    assert!(
        device["does_not_fit"].as_str().is_some_and(|why| why.starts_with("does not fit board: flash needs")),
        "{device}"
    );
    let output = slmc(
        path,
        "plan chain.toml --report github --report markdown=plan.md --report json=plan.json --report text=plan.txt",
    )
    .env("GITHUB_STEP_SUMMARY", path.join("summary.md"))
    .env("GITHUB_OUTPUT", path.join("outputs.txt"))
    .output()
    .expect("it starts");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("::error file=chain.toml,line=28,col=1,"), "{said}");
    assert!(said.contains("does not fit board"), "{said}");
    let read = |name: &str| fs::read_to_string(path.join(name)).expect("it was written");
    assert_eq!(read("summary.md"), read("plan.md"));
    assert!(read("plan.md").starts_with("<!-- slmc plan -->\n## Plan of chain\n"), "{}", read("plan.md"));
    assert!(read("outputs.txt").starts_with("fits=false\nto_do=student,sparse,"), "{}", read("outputs.txt"));
    assert!(read("plan.json").starts_with("{\"schema\":\"slmc.plan/2\"") && read("plan.txt").starts_with("stage "));
    refused(path, "plan chain.toml --report html=a.html", "junit and html are for the results of `slmc run`");
    refused(path, "plan chain.toml --json --report github", "--report github writes to stdout");
    // A report of a run is not replaced by one of a plan.
    fs::write(path.join("plan.json"), "{\"schema\":\"slmc.run/2\"}").expect("written");
    refused(path, "plan chain.toml --report json=plan.json", "plan.json");
}

#[test]
fn conversations_for_a_model_without_a_chat_template_are_found_by_the_plan() {
    let recipe = CHAIN.replace("calibration = \"text.txt\"", "calibration = \"chat.jsonl\"");
    let recipe = recipe.replace("data = \"text.txt\"\nwindow = 32\nmax", "data = \"chat.jsonl\"\nwindow = 32\nmax");
    let recipe = recipe.replace("data = [\"text.txt\"]", "data = [\"text.txt\", \"chat.jsonl\"]");
    let directory = workshop(&recipe);
    let path = directory.path();
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    fs::write(path.join("chat.jsonl"), format!("{row}\n{row}\n")).expect("written");
    let found = super::mistakes(path, "plan chain.toml");
    let said: Vec<&String> = found.iter().filter(|said| said.contains("has no chat template")).collect();
    let lines: Vec<&str> = said.iter().filter_map(|said| said.split(':').nth(1)).collect();
    assert_eq!((lines, found.len()), (vec!["10", "26", "37"], 3), "{found:#?}");
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    fs::write(path.join("model/chat_template.jinja"), template).expect("written");
    json_with_code(path, "plan chain.toml", 0);
}

#[test]
fn credentials_of_caches_are_named_and_not_told() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    let output = slmc(path, "plan chain.toml --json --cache https://127.0.0.1:9/none --cache-mode read-write")
        .env("SLMC_CACHE_TOKEN", "never-to-be-seen")
        .output()
        .expect("it starts");
    let plan = one_line(&output);
    let environment = plan["environment"].as_array().expect("a list");
    let token = environment.iter().find(|own| own["name"] == "SLMC_CACHE_TOKEN").expect("named");
    assert_eq!((&token["set"], &token["secret"]), (&json!(true), &json!(true)));
    assert!(environment.iter().any(|own| own["name"] == "SLMC_CACHE_KEY" && own["set"] == false), "{plan}");
    let said = format!("{plan}{}", stderr(&output));
    assert!(!said.contains("never-to-be-seen"), "{said}");
}

#[test]
fn a_lock_that_names_inputs_alone_says_what_to_do() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json_with_code(path, "run chain.toml --only student", 0);
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    let inputs = lock.split("\n[stages.").next().expect("the start");
    fs::write(path.join("chain.lock"), inputs).expect("written");
    let said = stderr(&run(path, "run chain.toml --locked"));
    assert!(said.contains("chain.lock: names inputs alone"), "{said}");
    assert!(said.contains("run once without it on this class of machine, and commit the lock"), "{said}");
}

/// A lock of the recipe as it was, or of one with some of its stages, is not followed in silence.
#[test]
fn a_lock_that_was_written_for_another_recipe_is_said() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    let first = stderr(&run(path, "run chain.toml"));
    fs::write(
        path.join("chain.toml"),
        CHAIN.replace("stages.quality", "stages.told").replace("\"quality\"", "\"told\""),
    )
    .expect("written");
    let second = stderr(&run(path, "run chain.toml"));
    assert!(
        second
            .contains("chain.lock was written for the recipe as it was before, with `quality`; it follows the recipe"),
        "{second}"
    );
    for quiet in [first, stderr(&run(path, "run chain.toml"))] {
        assert!(!quiet.contains("as it was before"), "{quiet}");
    }
}
