//! The JSON Schemas: committed as the program prints them, every recipe and target of the repository valid against them, a
//! run's report too, and mistakes of each sort not.

pub(crate) mod validator;

use crate::fixture;
use crate::support::{json, root, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use validator::faults;

const DOCUMENTS: [&str; 3] = ["recipe", "target", "report"];

fn schema(document: &str) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let printed = succeed(directory.path(), &format!("schema {document}"));
    serde_json::from_slice(&printed).expect("JSON")
}

/// The TOML files of a folder, by name.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root(folder)).expect("the folder is part of the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 4, "{folder}: {files:?}");
    files
}

fn of_toml(text: &str) -> Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

fn of_file(path: &Path) -> Value {
    of_toml(&fs::read_to_string(path).expect("it can be read"))
}

#[test]
fn schemas_are_committed_as_they_are() {
    for document in DOCUMENTS {
        let path = root("docs/schema").join(format!("{document}.json"));
        let printed = format!("{}\n", serde_json::to_string_pretty(&schema(document)).expect("JSON"));
        if std::env::var_os("SLMC_UPDATE").is_some() {
            fs::write(&path, &printed).expect("written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let remedy = format!("run: slmc schema {document} > docs/schema/{document}.json");
        assert!(committed == printed, "{} differs from what the program prints; {remedy}", path.display());
        let parsed: Value = serde_json::from_str(&committed).expect("JSON");
        assert_eq!(parsed["$schema"], "http://json-schema.org/draft-07/schema#");
    }
}

#[test]
fn every_recipe_and_target_is_valid() {
    let (recipe, target) = (schema("recipe"), schema("target"));
    for path in files("recipes") {
        assert_eq!(faults(&recipe, &of_file(&path)), Vec::<String>::new(), "{}", path.display());
        let text = fs::read_to_string(&path).expect("it can be read");
        assert_eq!(text.lines().next(), Some("#:schema ../docs/schema/recipe.json"), "{}", path.display());
    }
    for path in files("targets") {
        assert_eq!(faults(&target, &of_file(&path)), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn mistakes_are_seen() {
    let recipe = schema("recipe");
    let sound = "version = 1\n[stages.a]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w4'\nkeep = ['ffn=w8']\n\
                 warm-up = 0.25\n[gates]\nkld_max = 0.1\ntop1_min = { value = 0.5, stage = 'b' }\n";
    assert_eq!(faults(&recipe, &of_toml(sound)), Vec::<String>::new());
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("version = 1\n", ""),
        ("scheme", "scheem"),
        ("'quantize'", "'quantise'"),
        ("kind = 'quantize'", "kind = 'eval'"),
        ("0.25", "'many'"),
        ("['ffn=w8']", "[true]"),
        ("kld_max = 0.1", "kld_max = 'low'"),
        ("kld_max", "kdl_max"),
        ("value = 0.5, ", ""),
        ("stages.a", "stages.model"),
        ("[gates]", "[gatse]"),
    ] {
        let wrong = sound.replace(from, to);
        assert_ne!(faults(&recipe, &of_toml(&wrong)), Vec::<String>::new(), "{wrong}");
    }
    let target = schema("target");
    let text = fs::read_to_string(root("targets/cortex-m55.toml")).expect("it can be read");
    for (from, to) in
        [("name = \"cortex-m55\"\n", ""), ("cores = 1", "cores = 0"), ("clock_hz", "clock"), ("w8 = 8", "w8 = \"8\"")]
    {
        let wrong = text.replacen(from, to, 1);
        assert!(wrong != text && !faults(&target, &of_toml(&wrong)).is_empty(), "{from} to {to}");
    }
}

#[test]
fn the_report_of_a_run_is_valid() {
    let report = schema("report");
    let chain = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                 method = 'rtn'\n[stages.artifact]\nkind = 'compile'\ninput = 'small'\ntarget = 'generic'\n[stages.quality]\n\
                 kind = 'eval'\ninput = 'artifact'\nreference = 'model'\ndata = 'text.txt'\nwindow = 32\n[gates]\n\
                 kld_max = 100\nfile_bytes_max = 1_000_000\n[sample]\nprompt = 'a cat'\ntokens = 3\n";
    let directory = fixture::workshop("chain.toml", chain);
    let run = json(directory.path(), "run chain.toml");
    assert_eq!(faults(&report, &run), Vec::<String>::new());
    for (pointer, wrong) in
        [("/schema", json!("slmc.run/1")), ("/passed", json!("yes")), ("/gates/0/limit", json!("0.1"))]
    {
        let mut other = run.clone();
        *other.pointer_mut(pointer).expect("it is there") = wrong;
        assert_ne!(faults(&report, &other), Vec::<String>::new(), "{pointer}");
    }
    let mut other = run;
    other.as_object_mut().expect("an object").remove("stages");
    assert_eq!(faults(&report, &other), [": lacks stages"]);
}
