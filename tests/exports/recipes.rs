//! The stage in recipes: planned with its bytes, run, cached and put in place again, as a file and as a directory.

use crate::fixture::{self, Family, Size};
use crate::support::{json_with_code, run, states, stderr};
use serde_json::Value;
use std::fs;

const RECIPE: &str = r#"
version = 1
[model]
path = "model"

[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"

[stages.file]
kind = "export"
input = "small"
format = "gguf"

[stages.packed]
kind = "export"
input = "small"
format = "compressed-tensors"
"#;

#[test]
fn exports_are_planned_run_and_cached() {
    let directory = fixture::workshop("out.toml", RECIPE);
    let path = directory.path();
    fixture::write(&path.join("model"), Family::TiedLlama, Size { hidden: 64, ffn: 96, ..Size::SMALL });
    let plan = json_with_code(path, "run out.toml --plan", 0);
    let stages = plan["stages"].as_array().expect("stages");
    let outputs: Vec<&str> = stages.iter().filter_map(|stage| stage["output"].as_str()).collect();
    assert_eq!(outputs, ["out/out/small", "out/out/file.gguf", "out/out/packed"]);
    let first = json_with_code(path, "run out.toml", 0);
    assert_eq!(states(&first), ["done"; 3]);
    let file = fs::read(path.join("out/out/file.gguf")).expect("a file");
    assert!(file.starts_with(b"GGUF") && path.join("out/out/packed/slmc.json").is_file());
    let predicted =
        stages[1]["estimate"]["predicted"]["output_bytes"].as_u64().or(stages[1]["estimate"]["output_bytes"].as_u64());
    let predicted = predicted.unwrap_or_else(|| panic!("{}", stages[1]));
    assert!((file.len() as u64 / 2..=file.len() as u64 * 2).contains(&predicted), "{predicted} of {}", file.len());
    fs::remove_file(path.join("out/out/file.gguf")).expect("it is there");
    fs::remove_dir_all(path.join("out/out/packed")).expect("it is there");
    assert_eq!(states(&json_with_code(path, "run out.toml", 0)), ["cached"; 3]);
    assert_eq!(fs::read(path.join("out/out/file.gguf")).expect("it is there again"), file);
    assert!(path.join("out/out/packed/config.json").is_file(), "it is there again");
    // What is lost is a mistake of the plan where it is known before, with its line.
    let sparse = RECIPE.replace("method = \"rtn\"", "method = \"rtn\"\nactivations = [\"*=a16\"]");
    fs::write(path.join("out.toml"), sparse).expect("written");
    let refused = run(path, "run out.toml --plan");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("16-bit inputs"), "{}", stderr(&refused));
    let lossy = fs::read_to_string(path.join("out.toml")).expect("it is there");
    fs::write(path.join("out.toml"), lossy.replace("format = \"gguf\"", "format = \"gguf\"\nlossy = true"))
        .expect("written");
    let report = json_with_code(path, "run out.toml", 0);
    let lost = &report["stages"][1]["report"]["lost"];
    assert_eq!(lost.as_array().map(Vec::len), Some(1), "{lost}");
    assert!(matches!(report["passed"], Value::Bool(true)));
}
