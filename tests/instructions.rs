//! `slmc estimate --detail`: its sums, the work that it counts, what it refuses, and the counts of whole tokens in
//! docs/devices.md, which `tests/cross/run --count` measured.

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, root, shared, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How far an estimate may be from a count: docs/devices.md states what it is.
const TOLERANCE: f64 = 0.07;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn sum(rows: &Value, key: &str) -> f64 {
    rows.as_array().expect("rows").iter().map(|row| number(&row[key])).sum()
}

/// `model.slm` for a target and its quantized directory `q`.
fn place(family: Family, target: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("model"), family, Size::SMALL);
    succeed(path, "quantize model --scheme mixed --method rtn -o q");
    succeed(path, &format!("compile q --target {target} --context 48 -o model.slm"));
    directory
}

#[test]
fn classes_layers_and_work_sum_up_to_the_token() {
    let directory = place(Family::TiedLlama, "cortex-m4");
    let path = directory.path();
    let report = json(path, "estimate model.slm --target cortex-m4 --detail --position 20");
    assert_eq!((&report["schema"], &report["estimate"]), (&"slmc.estimate-detail/1".into(), &true.into()));
    let total = number(&report["instructions_per_token"]);
    assert!(total > 0.0);
    for rows in ["classes", "layers", "work"] {
        assert_eq!(sum(&report[rows], "instructions"), total, "{rows}");
    }
    for layer in report["layers"].as_array().expect("layers") {
        assert_eq!(sum(&layer["classes"], "instructions"), number(&layer["instructions"]), "{layer}");
    }
    // Two layers of hidden 40, four query heads over two key heads of 10, ffn 72; tiles of 4 rows, columns padded to 32.
    let work = |layer: Value, unit: &str| -> (f64, f64, f64) {
        let rows = report["work"].as_array().expect("work").iter();
        let of: Vec<&Value> = rows
            .filter(|row| row["layer"] == layer && row["unit"].as_str().expect("a unit").starts_with(unit))
            .collect();
        let sum = |key: &str| of.iter().map(|row| number(&row[key])).sum();
        (sum("calls"), sum("first"), sum("second"))
    };
    for layer in [0, 1] {
        let rows = 40.0 + 20.0 + 20.0 + 40.0 + 72.0 + 72.0 + 40.0;
        assert_eq!(work(layer.into(), "product."), (7.0, rows, 264.0 * 64.0 + 40.0 * 96.0));
        assert_eq!(work(layer.into(), "scores"), (4.0, 4.0 * 21.0, 4.0 * 21.0 * 10.0));
        assert_eq!(work(layer.into(), "weights"), (4.0, 84.0, 0.0));
        assert_eq!(work(layer.into(), "mix"), (4.0, 84.0, 840.0));
        assert_eq!(work(layer.into(), "rms_norm"), (2.0, 80.0, 0.0));
        assert_eq!(work(layer.into(), "rotate"), (6.0, 60.0, 0.0));
        assert_eq!(work(layer.into(), "gate"), (1.0, 72.0, 0.0));
        assert_eq!(work(layer.into(), "add"), (2.0, 80.0, 0.0));
        // Inputs of three groups of linears and of the last, keys, values and queries.
        assert_eq!(work(layer.into(), "quantize"), (12.0, 40.0 * 3.0 + 72.0 + 80.0, 0.0));
    }
    assert_eq!(work(Value::Null, "product."), (1.0, 32.0, 32.0 * 64.0));
    assert_eq!(work(Value::Null, "choose"), (1.0, 32.0, 0.0));
    assert_eq!(work(Value::Null, "lookup."), (1.0, 40.0, 0.0));
    // Later tokens see more.
    let later = json(path, "estimate model.slm --target cortex-m4 --detail --position 47");
    assert!(number(&later["instructions_per_token"]) > total);
    // At the clock that the target states, and labelled.
    let rate = number(&report["tokens_per_s_at_one_instruction_a_cycle"]);
    assert!((rate - 25e6 / total).abs() < 1e-6 * rate);
    let text = String::from_utf8(succeed(path, "estimate model.slm --target cortex-m4 --detail")).expect("text");
    assert!(text.contains("(estimate)") && text.contains("if each took one cycle"), "{text}");
}

#[test]
fn what_has_no_measured_costs_is_refused_by_name() {
    let directory = place(Family::TiedLlama, "generic");
    let path = directory.path();
    refused(
        path,
        "estimate model.slm --target generic --detail",
        "target generic has no table of measured instructions",
    );
    refused(path, "estimate model.slm --target x86-64-v3 --detail", "none for avx2 of x86_64-unknown-linux-gnu");
    refused(path, "estimate q --target cortex-m4 --detail", "q");
    refused(path, "estimate model.slm --target cortex-m4 --detail --position 48", "outside the context of 48");
    // In another layout than its kernels', a device runs the portable ones.
    assert_eq!(json(path, "estimate model.slm --target cortex-m4 --detail")["kernel"], "scalar");
    fs::write(path.join("tables.json"), "[{}]").expect("written");
    refused(
        path,
        "estimate model.slm --target cortex-m4 --detail --instructions tables.json",
        "not instruction tables",
    );
    let embedded = fs::read_to_string(root("src/compile/detail/instructions.json")).expect("it is there");
    let mut tables: Value = serde_json::from_str(&embedded).expect("tables");
    for table in tables.as_array_mut().expect("an array") {
        table["costs"].as_object_mut().expect("costs").remove("gate").expect("it is measured");
    }
    fs::write(path.join("tables.json"), tables.to_string()).expect("written");
    refused(
        path,
        "estimate model.slm --target cortex-m4 --detail --instructions tables.json",
        "`gate` has no measured cost",
    );
    refused(
        place(Family::BertClassifier, "generic").path(),
        "estimate model.slm --target cortex-m4 --detail",
        "an encoder",
    );
    succeed(path, "compile q --target cortex-m4 --context 48 --kv v4 -o nibbles.slm");
    refused(path, "estimate nibbles.slm --target cortex-m4 --detail", "values in 4 bits");
}

/// The target whose artifacts a row of docs/devices.md is about, for the tables that are part of the program.
fn target_of(device: &str, kernel: &str) -> Option<String> {
    let own = |name: &str| root(&format!("tests/cross/targets/{name}.toml")).display().to_string();
    Some(match (device, kernel) {
        ("cortex-a76", "dotprod") | ("cortex-m4", "dsp") | ("cortex-m55", "helium") => device.to_owned(),
        ("aarch64-max", "i8mm") => own("i8mm"),
        ("riscv64-v128", "rvv") => own("rvv"),
        ("wasm-simd128", "simd128") => "wasm32".to_owned(),
        _ => return None,
    })
}

#[test]
fn whole_tokens_that_were_counted_are_estimated() {
    let Some(model) = shared("models/stories260k") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let schemes = ["w8", "w4"];
    for scheme in schemes {
        succeed(path, &format!("quantize {} --scheme {scheme} --method rtn -o {scheme}", model.display()));
    }
    let docs = fs::read_to_string(root("docs/devices.md")).expect("it is there");
    let mut compared = 0;
    for line in docs.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, device, kernel, counts @ ..] = &cells[..] else { continue };
        let Some(target) = target_of(device, kernel) else { continue };
        for (scheme, count) in schemes.into_iter().zip(counts) {
            let Ok(count) = count.replace(',', "").parse::<f64>() else { continue };
            compared += check(path, &target, scheme, count);
        }
    }
    assert_eq!(compared, 12, "two schemes on six tables");
}

/// Compares one count, whose tokens are at positions 33 to 64.
fn check(path: &Path, target: &str, scheme: &str, count: f64) -> usize {
    succeed(path, &format!("compile {scheme} --target {target} --context 256 -o model.slm"));
    let at = |position: usize| {
        let line = format!("estimate model.slm --target {target} --detail --position {position}");
        number(&json(path, &line)["instructions_per_token"])
    };
    let estimate = (at(48) + at(49)) / 2.0;
    let error = estimate / count - 1.0;
    assert!(
        error.abs() < TOLERANCE,
        "{target} {scheme}: estimated {estimate}, counted {count}, {:+.1} %",
        100.0 * error
    );
    1
}
