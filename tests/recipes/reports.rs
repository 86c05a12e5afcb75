//! Reports of a run in every format, and comparisons of what runs leave.

use super::{CHAIN, workshop};
use crate::support::{json, json_with_code, refused, run, slmc, stderr};
use serde_json::Value;
use std::fs;

#[test]
fn a_run_writes_every_format_and_replaces_only_its_own() {
    let directory = workshop(&CHAIN.replace("file_bytes_max = 1_000_000", "file_bytes_max = 10"));
    let path = directory.path();
    let kinds = ["text=r/a.txt", "json=r/a.json", "markdown=r/a.md", "junit=r/a.xml", "html=r/a.html", "github"];
    let line = kinds.map(|kind| format!("--report {kind}")).join(" ");
    for _ in 0..2 {
        // The second time they are all there.
        let mut command = slmc(path, &format!("run chain.toml {line}"));
        command.env("GITHUB_STEP_SUMMARY", path.join("summary.md")).env("GITHUB_OUTPUT", path.join("outputs"));
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(
            stdout.lines().filter(|line| line.starts_with("::error file=chain.toml,line=")).count(),
            2,
            "{stdout}"
        );
    }
    let read = |name: &str| fs::read_to_string(path.join(name)).expect(name);
    let report: Value = serde_json::from_str(&read("r/a.json")).expect("JSON");
    assert_eq!((&report["schema"], &report["file"]), (&Value::from("slmc.run/2"), &Value::from("chain.toml")));
    let inputs: Vec<&str> =
        report["inputs"].as_array().expect("inputs").iter().filter_map(|i| i["path"].as_str()).collect();
    assert_eq!(inputs, ["model", "text.txt"]);
    assert!(read("r/a.txt").starts_with("stage ") && read("r/a.txt").contains("MISSED by"));
    let page = read("r/a.html");
    assert!(page.len() < 1 << 20 && page.matches("<svg").count() > 5, "{} bytes", page.len());
    for expected in ["Skip to the results", "loss by step", "relative error of rounding", "keys and values", "text.txt"]
    {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"), "nothing is loaded");
    assert_eq!(read("r/a.xml").matches("<failure ").count(), 2);
    assert_eq!(read("summary.md").matches("<!-- slmc run -->").count(), 2, "a summary is appended to");
    assert!(read("outputs").ends_with("passed=false\nfailed_gates=file_bytes_max,file_bytes_max\n"));
    fs::write(path.join("mine.html"), "<p>mine</p>").expect("written");
    refused(path, "run chain.toml --report html=mine.html", "mine.html");
    assert_eq!(read("mine.html"), "<p>mine</p>");
    refused(path, "run chain.toml --report pdf=a.pdf", "`pdf` is not a report");
    refused(path, "run chain.toml --json --report github", "pass --report json=FILE instead");
}

#[test]
fn what_differs_between_two_results_is_named() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json(path, "run chain.toml --report json=a.json");
    fs::write(path.join("other.toml"), CHAIN.replace("scheme = \"mixed\"", "scheme = \"w8\"")).expect("written");
    json(path, "run other.toml --report json=b.json");
    let same =
        json_with_code(path, "diff out/chain/artifact.generic.slm out/chain/artifact.generic.slm --exit-code", 0);
    assert_eq!((&same["schema"], &same["same"]), (&Value::from("slmc.diff/1"), &Value::Bool(true)));
    let named = |report: &Value, name: &str| {
        let all = report["differences"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["path"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
    };
    let recipes = json_with_code(path, "diff chain.toml other.toml --exit-code", 1);
    let scheme = named(&recipes, "stages.small.scheme");
    assert_eq!((&scheme["a"], &scheme["b"]), (&Value::from("mixed"), &Value::from("w8")));
    let artifacts = json(path, "diff out/chain/artifact.generic.slm out/other/artifact.generic.slm");
    named(&artifacts, "tensors.layers.0.ffn.up.weight.storage");
    named(&artifacts, "weight_bytes");
    let models = json(path, "diff out/chain/small out/other/small");
    assert!(models["matrices"].as_array().is_some_and(|matrices| !matrices.is_empty()), "{models}");
    assert_eq!(named(&models, "schemes.layers.0.ffn.up")["b"], "w8");
    let reports = json(path, "diff a.json b.json");
    named(&reports, "stages.quality.report.kld_mean");
    let text = run(path, "diff chain.toml other.toml").stdout;
    assert!(String::from_utf8(text).expect("UTF-8").contains("stages.small.scheme"));
    refused(path, "diff chain.toml a.json", "chain.toml is a recipe and a.json is a report");
    refused(path, "diff chain.toml none.toml", "none.toml: cannot be read");
}
