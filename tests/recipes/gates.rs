//! Gates: verdicts with bounds, too few windows refused, an earlier artifact as the baseline, speed beside it.

use super::{CHAIN, mistakes, workshop};
use crate::support::{json_with_code, run, stderr};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The chain with other gates.
fn with_gates(gates: &str) -> String {
    let (before, after) = CHAIN.split_once("[gates]").expect("the chain has gates");
    let (_, sample) = after.split_once("[sample]").expect("and a sample");
    format!("{before}[gates]\n{gates}\n[sample]{sample}")
}

fn gate<'r>(report: &'r Value, name: &str) -> &'r Value {
    let gates = report["gates"].as_array().expect("gates");
    gates.iter().find(|gate| gate["gate"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
}

fn rewritten(path: &Path, gates: &str, code: i32) -> Value {
    fs::write(path.join("chain.toml"), with_gates(gates)).expect("written");
    json_with_code(path, "run chain.toml", code)
}

#[test]
fn verdicts_state_bounds_and_what_is_missing() {
    let gates = with_gates("kld_max = 1e-9\nperplexity_ratio_max = 1e3\nram_bytes_max = 1");
    let directory = workshop(&gates);
    let path = directory.path();
    // Against the model before distillation and pruning, rounding is not what the error comes from.
    let report = json_with_code(path, "run chain.toml", 1);
    assert!(gate(&report, "kld_max").get("contributors").is_none(), "{report}");
    let value = gate(&report, "kld_max")["value"].as_f64().expect("a number");
    let of_rounding = |recipe: &str| recipe.replace("reference = \"model\"", "reference = \"sparse\"");
    fs::write(path.join("chain.toml"), of_rounding(&gates)).expect("written");
    let report = json_with_code(path, "run chain.toml", 1);
    assert_eq!(report["passed"], false);
    let missed = gate(&report, "kld_max");
    assert_eq!((&missed["verdict"], &missed["unit"]), (&Value::from("missed"), &Value::from("windows")));
    assert_eq!((&missed["samples"], &missed["draws"]), (&Value::from(16), &Value::from(16)));
    assert_eq!((&missed["file"], &missed["line"]), (&Value::from("chain.toml"), &Value::from(42)));
    let number = |key: &str| missed[key].as_f64().expect("a number");
    assert!(number("lower") < number("value") && number("value") < number("upper") && number("margin") < 0.0);
    assert_eq!(missed["contributors"].as_array().map(Vec::len), Some(5), "{missed}");
    assert_eq!(gate(&report, "perplexity_ratio_max")["verdict"], "passed");
    assert_eq!(gate(&report, "ram_bytes_max")["verdict"], "missed");
    // Two targets, a gate each.
    assert_eq!(report["gates"].as_array().map(Vec::len), Some(4));
    let output = run(path, "run chain.toml --report github");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for expected in ["MISSED by ", "the largest errors of rounding are in ", "::error file=chain.toml,line=42,col=1"] {
        assert!(text.contains(expected), "{text}");
    }
    let (stop, token) =
        text.split_once('\n').map(|(first, _)| (first, first.replace("stop-commands::", ""))).expect("lines");
    assert!(stop.starts_with("::stop-commands::slmc-") && text.contains(&format!("\n{token}::\n")), "{text}");
    // The limit at the measured value is between the bounds: more windows would tell.
    let report = rewritten(path, &format!("kld_max = {value}\ntop1_min = 0"), 1);
    let undecided = gate(&report, "kld_max");
    assert_eq!((&undecided["verdict"], &undecided["passed"]), (&Value::from("undecided"), &Value::Bool(false)));
    let near = format!("kld_max = {}", value * 1.001);
    let report = rewritten(path, &near, 1);
    assert!(gate(&report, "kld_max")["needed"].as_u64().is_some_and(|needed| needed > 16), "{report}");
    let report = rewritten(path, &format!("undecided = 'pass'\n{near}"), 0);
    assert_eq!(gate(&report, "kld_max")["passed"], true);
}

#[test]
fn too_few_windows_are_refused_and_the_number_is_said() {
    let directory = workshop(&CHAIN.replace("max_windows = 16", "max_windows = 7"));
    let path = directory.path();
    let found = mistakes(path, "run chain.toml --plan");
    let expected =
        "cannot be decided on 7 windows or texts of stage `quality`; at least 8 are needed, and 16 or more are better";
    assert!(found.len() == 2 && found.iter().all(|mistake| mistake.contains(expected)), "{found:?}");
    // A text that is as short is found while running, whatever `undecided` says.
    fs::write(path.join("short.txt"), "the cat sat on the mat and the dog ran to the man. ".repeat(3))
        .expect("written");
    let short = CHAIN.replace("data = \"text.txt\"\nwindow = 32", "data = \"short.txt\"\nwindow = 32");
    fs::write(path.join("chain.toml"), short.replace("[gates]", "[gates]\nundecided = 'pass'")).expect("written");
    let report = json_with_code(path, "run chain.toml", 1);
    let refused = gate(&report, "kld_max");
    assert_eq!((&refused["verdict"], &refused["passed"]), (&Value::from("undecided"), &Value::Bool(false)));
    assert!(refused["needed"].as_u64().is_some_and(|needed| needed >= 8), "{refused}");
    assert!(refused["reason"].as_str().is_some_and(|reason| reason.contains("too few")), "{refused}");
}

#[test]
fn an_earlier_artifact_is_the_baseline_on_the_same_windows() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    json_with_code(path, "run chain.toml", 0);
    fs::copy(path.join("out/chain/artifact.generic.slm"), path.join("released.slm")).expect("copied");
    let gates = "baseline = 'released.slm'\nkld_ratio_max = 1\ntop1_drop_max = 0\n\
                 perplexity_ratio_max = { value = 1, against = 'baseline' }\n\
                 speed_min = { stage = 'artifact.generic', value = 0.01 }";
    fs::write(path.join("chain.toml"), with_gates(gates)).expect("written");
    let report = json_with_code(path, "run chain.toml --update-lock", 0);
    for name in ["kld_ratio_max", "top1_drop_max", "perplexity_ratio_max", "speed_min"] {
        let gate = gate(&report, name);
        assert_eq!(
            (&gate["verdict"], &gate["against"]),
            (&Value::from("passed"), &Value::from("released.slm")),
            "{gate}"
        );
    }
    assert_eq!(gate(&report, "perplexity_ratio_max")["value"], 1.0, "the same bytes");
    assert_eq!(report["stages"][6]["stage"], "quality.baseline");
    assert_eq!(gate(&report, "speed_min")["samples"], 16);
    let report = rewritten(path, &gates.replace("value = 0.01", "value = 100"), 1);
    assert_eq!(gate(&report, "speed_min")["verdict"], "missed");
    let wrong = [
        ("kld_ratio_max = 1", "`kld_ratio_max` compares with an artifact, and none is named"),
        ("baseline = 'none.slm'\nkld_ratio_max = 1", "none.slm does not exist, or is not a file"),
        ("kld_max = { value = 1, against = 'released.slm' }", "`kld_max` compares with the reference only"),
        ("file_bytes_max = { value = 1, against = 'released.slm' }", "`file_bytes_max` compares with nothing"),
        ("confidence = 1.5\nkld_max = 1", "`confidence` is 1.5; expected a share between 0.5 and 1"),
        ("undecided = 'fial'\nkld_max = 1", "`undecided` is `fial`; did you mean `fail`?"),
        ("perplexity_ratio_max = 0", "`perplexity_ratio_max` is 0; expected a ratio above 0"),
    ];
    for (gates, expected) in wrong {
        fs::write(path.join("chain.toml"), with_gates(gates)).expect("written");
        let found = mistakes(path, "run chain.toml --plan");
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}\nexpected {expected}");
    }
}

#[test]
fn another_model_in_the_place_of_the_baseline_is_refused() {
    let directory = workshop(CHAIN);
    let path = directory.path();
    fs::write(path.join("other.slm"), b"not an artifact").expect("written");
    fs::write(path.join("chain.toml"), with_gates("baseline = 'other.slm'\nkld_ratio_max = 1")).expect("written");
    let output = run(path, "run chain.toml");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("other.slm"), "{}", stderr(&output));
}

#[test]
fn gates_that_conditions_leave_out_are_listed_and_not_passed() {
    let chain = CHAIN.replace("[stages.quality]\n", "[stages.quality]\nwhen = \"env:MEASURED\"\n");
    let directory = workshop(&chain);
    let path = directory.path();
    // Those on artifacts are left.
    let report = json_with_code(path, "run chain.toml", 0);
    assert_eq!((&report["verdict"], &report["passed"]), (&Value::from("passed"), &Value::Bool(true)));
    let not_judged = report["not_judged"].as_array().expect("gates without a stage");
    let names: Vec<&str> = not_judged.iter().filter_map(|gate| gate["gate"].as_str()).collect();
    assert_eq!((names, &not_judged[1]["stage"]), (vec!["kld_max", "top1_min"], &Value::from("quality")), "{report}");
    assert_eq!(report["left_out"][0]["stage"], "quality");
    fs::write(path.join("chain.toml"), chain.replace("file_bytes_max = 1_000_000\n", "")).expect("written");
    let kinds = ["text=a.txt", "json=a.json", "markdown=a.md", "junit=a.xml", "html=a.html", "github"];
    let line = kinds.map(|kind| format!("--report {kind}")).join(" ");
    let output = run(path, format!("run chain.toml {line}").as_str());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(stdout.matches("::warning file=chain.toml,line=").count(), 2, "{stdout}");
    let read = |name: &str| fs::read_to_string(path.join(name)).expect(name);
    let report: Value = serde_json::from_str(&read("a.json")).expect("JSON");
    assert_eq!((&report["verdict"], &report["passed"]), (&Value::from("not_judged"), &Value::Bool(false)));
    for expected in ["left out: quality: `when` does not hold", "not judged: top1_min on quality: "] {
        assert!(read("a.txt").contains(expected), "{}", read("a.txt"));
    }
    assert!(!read("a.md").contains("✅") && read("a.md").contains("not judged"), "{}", read("a.md"));
    assert_eq!((read("a.xml").matches("<skipped ").count(), read("a.xml").matches("<testcase ").count()), (3, 8));
    assert!(read("a.html").contains("not judged, no gate is judged") && read("a.html").contains("Left out"));
}
