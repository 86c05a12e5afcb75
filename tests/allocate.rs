//! Bit allocation through the program: never above the budget on any target, matrices of one kernel together, the same
//! result for any number of threads, and for every kind of model a cost that is measured.

use crate::fixture::{Family, Size, write};
use crate::support::{json, refused, run, without_cost};
use serde_json::Value;
use std::path::Path;

/// A checkpoint and a text for it, in `directory`.
fn material(directory: &Path, family: Family) {
    write(&directory.join("model"), family, Size::SMALL);
    let line = "the quick brown fox jumps over the lazy dog. a fox is no dog.\n";
    std::fs::write(directory.join("text.txt"), line.repeat(24)).expect("the text can be written");
}

fn report(directory: &Path, line: &str) -> Value {
    json(directory, &format!("{line} -q"))
}

/// Bytes of the weights of a model in one scheme everywhere.
fn bytes(directory: &Path, scheme: &str, target: &str) -> u64 {
    let line = format!("quantize model --scheme {scheme} --calibration text.txt --target {target} -o {scheme}");
    report(directory, &line)["weight_bytes"].as_u64().expect("a number")
}

#[test]
fn budgets_hold_and_matrices_of_one_kernel_share_a_scheme() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    material(directory, Family::TiedLlama);
    for target in ["generic", "cortex-m4"] {
        let (most, least) = (bytes(directory, "w8", target), bytes(directory, "w4", target));
        let mut costs = Vec::new();
        for budget in [least, (least + most) / 2, most] {
            let line = format!(
                "quantize model --scheme auto --budget {budget} --calibration text.txt --target {target} -o auto"
            );
            let found = report(directory, &line);
            let allocation = &found["allocation"];
            let size = found["weight_bytes"].as_u64().expect("a number");
            assert!(size <= budget, "{size} of {budget}: {allocation}");
            assert_eq!(allocation["chosen_bytes"].as_u64(), Some(size));
            assert_eq!(allocation["smallest_bytes"].as_u64(), Some(least));
            let schemes: Vec<(&str, &str)> = found["matrices"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|matrix| (matrix["name"].as_str().expect("a name"), matrix["scheme"].as_str().expect("a scheme")))
                .collect();
            let of = |name: &str| schemes.iter().find(|(other, _)| *other == name).map(|(_, scheme)| *scheme);
            for layer in 0..2 {
                let role = |role: &str| of(&format!("layers.{layer}.{role}"));
                assert!(role("attn.q").is_some());
                assert_eq!((role("attn.q"), role("attn.q")), (role("attn.k"), role("attn.v")));
                assert_eq!(role("ffn.gate"), role("ffn.up"));
            }
            if budget == least || budget == most {
                let only = if budget == least { "w4.g32" } else { "w8" };
                assert!(schemes.iter().all(|(_, scheme)| *scheme == only), "{schemes:?}");
            }
            let cost = |name: &str| allocation[name]["mean"].as_f64().expect("a cost");
            assert!(cost("improved") <= cost("knapsack") && cost("artifact") > 0.0, "{allocation}");
            costs.push(cost("improved"));
        }
        assert!(costs[0] > costs[1] && costs[1] > costs[2] && costs[2] > 0.0, "{costs:?}");
        // One byte less than the least: refused, with the least that is possible, and nothing written.
        let line = format!("quantize model --scheme auto --budget {} --target {target} -o no", least - 1);
        refused(directory, &line, &format!("takes {least} bytes"));
        assert!(!directory.join("no").exists(), "{target}");
    }
}

#[test]
fn every_kind_of_model_has_a_measured_cost() {
    for (family, unit) in [
        (Family::Llama, "KLD, nats"),
        (Family::BertMlm, "KLD, nats"),
        (Family::Bert, "1 - cosine"),
        (Family::BertClassifier, "KLD, nats"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        material(directory.path(), family);
        let line = "quantize model --scheme auto --bits-per-weight 12 --calibration text.txt -o auto";
        let found = report(directory.path(), line);
        let allocation = &found["allocation"];
        assert_eq!(allocation["unit"], unit, "{}", family.name());
        assert!(found["bits_per_weight"].as_f64().is_some_and(|bits| bits <= 12.0));
        for item in allocation["items"].as_array().expect("a list") {
            let codings = item["codings"].as_array().expect("a list");
            assert_eq!(codings.len(), 2, "{item}");
            let predicted = |coding: usize| codings[coding]["predicted"].as_f64().expect("a cost");
            let measured = codings[1]["measured"]["mean"].as_f64().expect("a cost");
            // One row of types is the same at every position: it may cost nothing at all.
            if item["name"] != "embed.type" {
                assert!(measured > 0.0 && predicted(1) > predicted(0), "{} {item}", family.name());
                let ratio = predicted(1) / measured;
                assert!((0.2..5.0).contains(&ratio), "{} predicted / measured = {ratio}: {item}", family.name());
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    material(directory.path(), Family::TiedLlama);
    let results = [1, 2, 3].map(|threads| {
        let line = format!(
            "quantize model --scheme auto --bits-per-weight 10 --calibration text.txt --threads {threads} -o q{threads}"
        );
        let report = without_cost(report(directory.path(), &line));
        let weights = std::fs::read(directory.path().join(format!("q{threads}/model.safetensors")));
        (report, weights.expect("it was written"))
    });
    assert!(results.iter().all(|result| *result == results[0]), "results differ with the number of threads");
}

#[test]
fn the_frontier_falls_and_is_drawn() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    material(directory, Family::TiedLlama);
    let line = "quantize model --sweep --calibration text.txt --method search --chart out.svg";
    let found = report(directory, line);
    assert_eq!(found["schema"], "slmc.sweep/1");
    let points = found["points"].as_array().expect("a list");
    assert!(points.len() > 5, "{points:?}");
    let bytes = |point: &Value| point["weight_bytes"].as_u64().expect("a number");
    let added = |point: &Value| point["added_up"].as_f64().expect("a number");
    let cost = |point: &Value| point["artifact"]["mean"].as_f64().expect("a number");
    assert!(points.windows(2).all(|pair| bytes(&pair[0]) < bytes(&pair[1]) && added(&pair[0]) > added(&pair[1])));
    assert!(cost(&points[0]) > 2.0 * cost(&points[points.len() - 1]));
    // No named mix is below the frontier: something on it has no more bytes and adds up to no more.
    for mix in found["mixes"].as_array().expect("a list") {
        assert!(bytes(mix) >= bytes(&points[0]) && bytes(mix) <= bytes(&points[points.len() - 1]));
    }
    let drawn = std::fs::read_to_string(directory.join("out.svg")).expect("it was drawn");
    assert!(drawn.contains("<svg") && drawn.contains("embed.token") && drawn.contains("bytes of weights"));
    // A file that slmc did not draw stays.
    std::fs::write(directory.join("mine.svg"), "<svg/>").expect("it can be written");
    refused(directory, "quantize model --sweep --calibration text.txt --chart mine.svg", "mine.svg");
    assert_eq!(std::fs::read_to_string(directory.join("mine.svg")).expect("it is there"), "<svg/>");
}

/// With everything else in 4 bits, what a budget leaves goes to the first tokens.
#[test]
fn what_is_left_goes_to_the_first_tokens() {
    let (Some(model), Some(text)) = (crate::shared("models/stories260k"), crate::shared("data/stories-calib.txt"))
    else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let (model, text) = (model.display().to_string(), text.display().to_string());
    let quantize = |scheme: &str| {
        let line = format!("quantize {model} --scheme {scheme} --method search --calibration {text}");
        report(directory, &format!("{line} --calibration-tokens 2048 --target cortex-m55 -o q"))
    };
    let bytes = |report: &Value| report["weight_bytes"].as_u64().expect("a number");
    let (least, by_hand) = (bytes(&quantize("w4")), bytes(&quantize("w4 --keep embedding=w8:448+w4")));
    assert!(by_hand > least);
    let found = quantize(&format!("auto --budget {} --keep attention=w4 --keep ffn=w4", by_hand + 63));
    let items = found["allocation"]["items"].as_array().expect("a list");
    let table = items.iter().find(|item| item["name"] == "embed.token").expect("it is an item");
    assert_eq!(table["chosen"], "w8:448+w4.g32", "{table}");
    assert_eq!((bytes(&found), found["allocation"]["chosen_bytes"].as_u64()), (by_hand, Some(by_hand)));
    // From w8 by eighths of 512 rows to w4: fewer bytes with every step, and more predicted and measured cost, but for the
    // last steps. The first 256 tokens of this vocabulary stand for bytes that no text has.
    let codings = table["codings"].as_array().expect("a list");
    let number = |coding: &Value, pointer: &str| coding.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    assert_eq!(codings.len(), 9);
    assert!(codings.windows(2).all(|pair| number(&pair[0], "/bytes") > number(&pair[1], "/bytes")), "{table}");
    for cost in ["/predicted", "/measured/mean"] {
        assert!(codings[..5].windows(2).all(|pair| number(&pair[0], cost) < number(&pair[1], cost)), "{table}");
    }
    // What was counted is what is compiled, and it says the same of itself.
    let compiled = report(directory, "compile q --target cortex-m55 -o a.slm");
    let inspected = report(directory, "inspect a.slm");
    assert_eq!((bytes(&compiled), bytes(&inspected)), (by_hand, by_hand));
    assert_eq!((&inspected["tensors"][0]["rows"], &inspected["tensors"][1]["rows"]), (&448.into(), &64.into()));
    assert_eq!(run(directory, "verify a.slm").status.code(), Some(0));
}

/// RAM and time are those that `compile` and `estimate` state of the result, and what is refused names the least that is not.
#[test]
fn memory_and_time_hold_on_the_target() {
    let (Some(model), Some(text)) = (crate::shared("models/stories260k"), crate::shared("data/stories-calib.txt"))
    else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let (model, text) = (model.display().to_string(), text.display().to_string());
    let target = "--target cortex-a76 --context 64";
    let auto = |bounds: &str| {
        let line = format!("quantize {model} --scheme auto --method search --calibration {text}");
        report(directory, &format!("{line} --calibration-tokens 1024 {bounds} -o q"))
    };
    let number = |report: &Value, pointer: &str| report.pointer(pointer).and_then(Value::as_f64).expect("a number");
    let estimated = |model: &str, target: &str| report(directory, &format!("estimate {model} {target}"));
    // What w8 and w4 take, the artifact and what a session needs.
    let presets = estimated(&model, target);
    let of = |scheme: usize, key: &str| number(&presets, &format!("/schemes/{scheme}/{key}"));
    let ram = |scheme: usize| of(scheme, "flash_bytes") + of(scheme, "ram_bytes");
    let (most, least) = (ram(0), ram(2));
    let bound = ((most + least) / 2.0) as u64;
    let found = auto(&format!("--ram {bound} {target}"));
    let planned = number(&found, "/allocation/plan/ram_bytes");
    let compiled = report(directory, &format!("compile q {target} -o a.slm"));
    assert_eq!(planned, number(&compiled, "/flash_bytes") + number(&compiled, "/ram_bytes"));
    assert!(planned <= bound as f64 && planned > 0.95 * bound as f64, "{planned} of {bound}");
    let chosen: Vec<&Value> = found["matrices"].as_array().expect("a list").iter().map(|one| &one["scheme"]).collect();
    assert!(chosen.contains(&&"w8".into()) && chosen.contains(&&"w4.g32".into()), "{chosen:?}");

    let milliseconds =
        |report: &Value, scheme: usize| 1e3 / number(report, &format!("/schemes/{scheme}/memory_tokens_per_s"));
    let bound = (milliseconds(&presets, 0) + milliseconds(&presets, 2)) / 2.0;
    let found = auto(&format!("--latency {bound} {target}"));
    let predicted = milliseconds(&estimated("q", target), 0);
    assert!((number(&found, "/allocation/plan/latency_ms") / predicted - 1.0).abs() < 1e-3, "{predicted}: {found}");
    assert!(predicted <= bound && predicted > 0.9 * bound, "{predicted} of {bound}");
    assert_eq!(found["allocation"]["activations"]["widened"].as_array().map(Vec::len), Some(0));

    // On a target with flash the weights are there, and RAM is what a session needs: enough of it leaves every bit.
    let board = "--target cortex-m55 --context 64";
    let session = of_board(&estimated(&model, board));
    let found = auto(&format!("--ram {session} {board} --activations *=a8"));
    assert!(found["matrices"].as_array().expect("a list").iter().all(|one| one["scheme"] == "w8"), "{found}");
    assert_eq!(number(&found, "/allocation/plan/ram_bytes") as u64, session);

    let refused_with = |bounds: &str, expected: &str| {
        let line = format!("quantize {model} --scheme auto {bounds} -o no");
        refused(directory, &line, expected);
        assert!(!directory.join("no").exists(), "{bounds}");
    };
    refused_with(&format!("--ram {} {target}", least as u64 - 1), &format!("the smallest allocation takes {least}"));
    refused_with(&format!("--ram {} {board}", session - 1), &format!("the smallest allocation takes {session}"));
    let fastest = milliseconds(&presets, 2);
    refused_with(&format!("--latency {} {target}", 0.99 * fastest), "by its rates the fastest allocation takes");
    refused_with(&format!("--latency 1 {board}"), "states neither flash_bandwidth_bytes_per_s nor");
    refused_with("--ram 1MiB --context 4096", "a context of 4096 is not possible");
}

/// RAM of the scheme that takes most.
fn of_board(estimated: &Value) -> u64 {
    let rows = estimated["schemes"].as_array().expect("rows");
    rows.iter().filter_map(|row| row["ram_bytes"].as_u64()).max().expect("a number")
}

#[test]
fn bounds_of_one_command_hold_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    material(directory, Family::TiedLlama);
    let (most, least) = (bytes(directory, "w8", "generic"), bytes(directory, "w4", "generic"));
    let budget = (most + least) / 2;
    // A byte a nanosecond: the milliseconds of a token are its bytes.
    let target = "name = \"board\"\ndescription = \"a byte a nanosecond\"\nlayout = \"r8k4.off8.d16.g32\"\npage_bytes = 4096\n\
                  flash_bandwidth_bytes_per_s = 1_000_000_000\n";
    std::fs::write(directory.join("board.toml"), target).expect("it can be written");
    let auto = |bounds: &str| {
        let line = format!("quantize model --scheme auto --calibration text.txt --target board.toml {bounds} -o auto");
        report(directory, &line)
    };
    let latency = |bytes: u64| bytes as f64 / 1e6;
    for (given, slack) in [(budget, most), (most, budget)] {
        let found = auto(&format!("--budget {given} --latency {}", latency(slack)));
        let size = found["weight_bytes"].as_u64().expect("a number");
        assert!(size <= budget && size > least, "{size}: {found}");
        assert!(found["allocation"]["plan"]["latency_ms"].as_f64().is_some_and(|taken| taken <= latency(slack)));
    }
    // In a recipe the keys are the options.
    let recipe = format!(
        "version = 1\n[model]\npath = \"model\"\n[stages.small]\nkind = \"quantize\"\ninput = \"model\"\nscheme = \"auto\"\n\
         calibration = \"text.txt\"\ntarget = \"board.toml\"\nlatency = {}\nram = \"16MiB\"\ncontext = 16\n",
        latency(budget)
    );
    std::fs::write(directory.join("recipe.toml"), recipe).expect("it can be written");
    let made = report(directory, "run recipe.toml");
    let plan = &made["stages"][0]["report"]["allocation"]["plan"];
    assert_eq!((&plan["context"], &plan["ram_limit_bytes"]), (&16.into(), &(16 << 20).into()), "{made}");
    refused(
        directory,
        "quantize model --scheme auto --latency 1 --budget 100 --target board.toml -o no",
        "is not possible",
    );
}
