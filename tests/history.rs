//! `slmc report` over runs and locks, its table of artifacts, and `slmc gates suggest`.

use crate::fixture;
use crate::support::{json, json_with_code, refused, run, slmc, stderr, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Two targets, one measured; without gates.
const CHAIN: &str = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                     method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = ['generic', 'cortex-m55']\n\
                     [stages.quality]\nkind = 'eval'\ninput = 'artifact.generic'\nreference = 'model'\ndata = 'text.txt'\n\
                     window = 32\n";

/// Runs the recipe with another scheme, and keeps the report under a name.
fn run_as(directory: &Path, scheme: &str, name: &str) {
    fs::write(directory.join("chain.toml"), CHAIN.replace("w8", scheme)).expect("written");
    fs::create_dir_all(directory.join("reports")).expect("a directory");
    succeed(directory, &format!("run chain.toml --report json=reports/{name}.json"));
}

fn course<'r>(report: &'r Value, stage: &str, figure: &str) -> &'r Value {
    let courses = report["courses"].as_array().expect("courses");
    courses.iter().find(|course| course["stage"] == stage && course["figure"] == figure).expect("it was measured")
}

#[test]
fn runs_are_compared_in_their_order() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    for (scheme, name) in [("w8", "1"), ("mixed", "2"), ("w4", "3")] {
        run_as(path, scheme, name);
    }
    fs::write(path.join("reports/notes.json"), "{\"schema\": \"other/1\"}").expect("written");
    let report = json(
        path,
        "report reports --report html=h.html --report markdown=h.md --report json=h.json --report text=h.txt",
    );
    assert_eq!(report["schema"], "slmc.history/1");
    let names: Vec<&Value> = report["runs"].as_array().expect("runs").iter().map(|run| &run["name"]).collect();
    assert_eq!(names, ["reports/1.json", "reports/2.json", "reports/3.json"]);
    let bytes = course(&report, "artifact.generic", "weight_bytes");
    let values: Vec<f64> =
        bytes["values"].as_array().expect("values").iter().map(|v| v.as_f64().expect("a number")).collect();
    assert!(values[0] > values[1] && values[1] > values[2], "{values:?}");
    assert!((bytes["change"].as_f64().expect("a change") - (values[2] / values[1] - 1.0)).abs() < 1e-12);
    assert_eq!(bytes["better"], true);
    assert!(course(&report, "quality", "kld_mean")["values"].as_array().is_some_and(|values| values.len() == 3));
    let page = fs::read_to_string(path.join("h.html")).expect("the page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && !page.contains("<script"));
    for (file, words) in [("h.md", "| quality | kld"), ("h.txt", "weight_bytes"), ("h.json", "slmc.history/1")] {
        let text = fs::read_to_string(path.join(file)).expect("written");
        assert!(text.contains(words), "{file}: {text}");
    }
    // The same files may be written again, others may not.
    succeed(path, "report reports --report html=h.html");
    refused(path, "report reports --report html=chain.toml", "chain.toml");
    // The order is that of the arguments.
    let back = json(path, "report reports/3.json reports/1.json");
    assert_eq!(course(&back, "artifact.generic", "weight_bytes")["values"][0], values[2]);
}

#[test]
fn a_lock_knows_its_results_through_the_cache() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    run_as(path, "w8", "1");
    fs::copy(path.join("chain.lock"), path.join("before.lock")).expect("copied");
    run_as(path, "w4", "2");
    let report = json(path, "report before.lock chain.lock");
    let values = course(&report, "quality", "kld_mean")["values"].as_array().expect("values").clone();
    let of_runs = json(path, "report reports");
    assert_eq!(values.len(), 2);
    assert_eq!(&values, course(&of_runs, "quality", "kld_mean")["values"].as_array().expect("values"), "{report}");
    assert_eq!(report["runs"][0]["passed"], Value::Null);
    // Without the cache the hashes are known, and no figures.
    let output =
        slmc(path, "report before.lock --json").env("SLMC_CACHE", "none").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bare: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(bare["courses"].as_array().is_some_and(Vec::is_empty), "{bare}");
    assert!(bare["runs"][0]["stages"][0]["sha256"].is_string());
}

#[test]
fn the_table_has_a_row_for_every_artifact() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    run_as(path, "w8", "1");
    run_as(path, "w4", "2");
    let table = json(path, "report reports --table --instructions artifact.cortex-m55=1154170");
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!((rows.len(), &table["schema"]), (2, &"slmc.table/1".into()), "the last run alone: {table}");
    assert_eq!((&rows[0]["target"], &rows[1]["target"]), (&"generic".into(), &"cortex-m55".into()));
    assert!(rows[0]["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0), "measured here: {table}");
    assert_eq!(rows[1]["instructions_per_token"], 1_154_170);
    assert!(rows[1].get("latency_ms").is_none(), "this machine is not the device: {table}");
    assert!(rows[0]["quality"]["kld_mean"].is_number(), "{table}");
    for row in rows {
        assert_eq!(row["power"], "not measured");
        assert!(row["parameters"].is_u64() && row["file_bytes"].is_u64() && row["ram_bytes"].is_u64(), "{row}");
    }
    let text = String::from_utf8(succeed(path, "report reports --table")).expect("UTF-8");
    assert!(text.contains("another machine (thumbv8m.main-none-eabihf); pass --instructions"), "{text}");
    // What lies there now is of another run than the first.
    let first = json(path, "report reports/1.json --table");
    assert_eq!(first["rows"][0]["latency_note"], "another artifact is in its place now", "{first}");
    refused(path, "report reports --table --instructions none=3", "no artifact is called so");
    refused(path, "report reports --table --instructions artifact", "is not STAGE=N");
}

#[test]
fn what_is_not_a_run_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::create_dir(path.join("empty")).expect("a directory");
    for (name, content) in [
        ("a.json", "{\"schema\":\"slmc.run/1\"}"),
        ("b.json", "{"),
        ("c.json", "[]"),
        ("d.json", "{\"schema\":\"slmc.run/2\",\"recipe\":3}"),
        ("e.lock", "version = 2\n"),
        ("f.lock", "version = 2\ntool = 't'\nrecipe = 'r'\n[stages.x86-64-v3]\na = { key = 'sha256:zz' }\n"),
    ] {
        fs::write(path.join(name), content).expect("written");
    }
    for (paths, expected) in [
        ("none", "none: does not exist; pass a directory of reports"),
        ("empty", "holds no report of a run"),
        ("a.json", "is a report of schema slmc.run/1; this slmc reads slmc.run/2"),
        ("b.json", "is not JSON"),
        ("c.json", "is neither a report"),
        ("d.json", "is not a report of slmc.run/2"),
        ("e.lock", "is not a lock of slmc"),
    ] {
        refused(path, &format!("report {paths}"), expected);
    }
    // A hash that is none is a stage that nothing is known of.
    let report = json(path, "report f.lock");
    assert_eq!(report["runs"][0]["stages"], serde_json::json!([]));
    refused(path, "report", "required arguments were not provided");
    refused(path, "report empty --report pdf=a.pdf", "`pdf` is not a form of this report");
}

#[test]
fn suggested_limits_are_held_by_the_run_they_come_from() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    refused(path, "gates suggest chain.toml", "has no result in the caches; run `slmc run chain.toml` first");
    run_as(path, "w8", "1");
    let suggested = json(path, "gates suggest chain.toml");
    assert_eq!((&suggested["schema"], &suggested["has_gates"]), (&"slmc.gates/1".into(), &false.into()));
    let names: Vec<&str> =
        suggested["gates"].as_array().expect("gates").iter().filter_map(|gate| gate["gate"].as_str()).collect();
    assert_eq!(names, ["kld_max", "perplexity_ratio_max", "top1_min", "file_bytes_max", "ram_bytes_max"]);
    for gate in suggested["gates"].as_array().expect("gates") {
        let (limit, value) = (gate["limit"].as_f64().expect("a limit"), gate["value"].as_f64().expect("a value"));
        let holds = if gate["gate"] == "top1_min" { limit <= value } else { limit >= value };
        assert!(holds, "{gate}");
        let statistical = !gate["gate"].as_str().expect("a name").contains("bytes");
        assert_eq!(gate["needed"].is_u64() && gate["samples"].is_u64(), statistical, "{gate}");
    }
    // As the help says: appended to the recipe.
    let text = succeed(path, "gates suggest chain.toml");
    let recipe = fs::read(path.join("chain.toml")).expect("the recipe");
    fs::write(path.join("chain.toml"), [recipe, text].concat()).expect("written");
    let report = json(path, "run chain.toml");
    assert_eq!(report["gates"].as_array().map(Vec::len), Some(7), "one for each artifact of the bytes: {report}");
    assert_eq!(report["passed"], true, "{report}");
    let again = json(path, "gates suggest chain.toml");
    assert_eq!(again["has_gates"], true);
    assert_eq!(again["gates"], suggested["gates"]);
    let text = String::from_utf8(succeed(path, "gates suggest chain.toml")).expect("UTF-8");
    assert!(!text.lines().any(|line| line == "[gates]"), "it would be there twice: {text}");
    // A model that is clearly worse does not hold them.
    let recipe = fs::read_to_string(path.join("chain.toml")).expect("the recipe").replace("w8", "w4");
    fs::write(path.join("chain.toml"), recipe).expect("written");
    let worse = json_with_code(path, "run chain.toml", 1);
    let missed =
        worse["gates"].as_array().expect("gates").iter().find(|gate| gate["gate"] == "kld_max").expect("a gate");
    assert_ne!(missed["verdict"], "passed", "{missed}");
}

#[test]
fn a_recipe_that_measures_nothing_gets_no_limits() {
    let recipe = "version = 1\n[model]\npath = 'model'\n[stages.copy]\nkind = 'import'\ninput = 'model'\n";
    let directory = fixture::workshop("copy.toml", recipe);
    refused(directory.path(), "gates suggest copy.toml", "no stage measures anything that a gate limits");
    assert_eq!(run(directory.path(), "gates").status.code(), Some(2));
}

#[test]
fn runs_of_different_recipes_are_told_apart() {
    let directory = fixture::workshop("chain.toml", CHAIN);
    let path = directory.path();
    run_as(path, "w8", "1");
    fs::write(path.join("other.toml"), CHAIN.replace("w8", "w4")).expect("written");
    succeed(path, "run other.toml --report json=reports/2.json");
    let report = json(path, "report reports --report markdown=h.md --report html=h.html --report text=h.txt");
    let bytes = course(&report, "artifact.generic", "weight_bytes");
    assert_eq!((bytes["values"].as_array().map(Vec::len), bytes.get("change")), (Some(2), None), "{bytes}");
    for file in ["h.md", "h.html", "h.txt"] {
        let text = fs::read_to_string(path.join(file)).expect("written");
        assert!(text.contains("runs of different recipes (chain, other)"), "{file}: {text}");
    }
    let table = json(path, "report reports --table --instructions artifact.cortex-m55=3");
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["recipe"], &rows[3]["recipe"]), (4, &"chain".into(), &"other".into()));
    let text = String::from_utf8(succeed(path, "report reports --table")).expect("UTF-8");
    assert!(text.starts_with("recipe ") && text.contains("\nother "), "{text}");
    // A lock whose results are in no cache has nothing to say.
    let output = slmc(path, "report chain.lock").env("SLMC_CACHE", "none").output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("nothing was measured in these runs"), "{text}");
}
