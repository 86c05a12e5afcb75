//! Federated rounds: two clients on split texts, averaged, end nearer to the model trained on everything than either alone; what
//! does not belong to a round is refused by name. The recipe of docs/privacy.md runs here at a reduced size.

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, root, succeed};
use slmc::formats::open_model;
use std::fs;
use std::path::Path;

const FIRST: &str = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox. ";
const SECOND: &str = "my mother put a cup of milk by the door. we sat on a bench and ate warm bread. ";

fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    fs::write(path.join("first.txt"), FIRST.repeat(24)).expect("written");
    fs::write(path.join("second.txt"), SECOND.repeat(24)).expect("written");
    let train = "--window 32 --batch 4 --pieces 1 --learning-rate 3e-4 -q";
    succeed(path, &format!("train m --data first.txt --tokens 4000 {train} -o a"));
    succeed(path, &format!("train m --data second.txt --tokens 8000 {train} -o b"));
    directory
}

/// Every value, in one order.
fn values(directory: &Path, name: &str) -> Vec<f32> {
    let model = open_model(&directory.join(name)).expect("it opens");
    model.spec.parameters().iter().flat_map(|parameter| model.values_f32(parameter.id).expect("values")).collect()
}

fn distance(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn a_round_is_the_mean_by_tokens_clipped_with_noise_where_asked_for() {
    let directory = workplace();
    let path = directory.path();
    let report = json(path, "train m --round-from a b -o mean");
    assert_eq!(report["schema"], "slmc.round/1");
    let share = |client: usize| report["clients"][client]["share"].as_f64().expect("a share");
    assert!((share(0) + share(1) - 1.0).abs() < 1e-12 && (share(1) / share(0) - 2.0).abs() < 0.1, "{report}");
    let (start, a, b, mean) = (values(path, "m"), values(path, "a"), values(path, "b"), values(path, "mean"));
    for (index, mean) in mean.iter().enumerate() {
        let expected = share(0) * f64::from(a[index]) + share(1) * f64::from(b[index]);
        assert!((f64::from(*mean) - expected).abs() < 1e-6, "{index}: {mean}, {expected}");
    }
    // Twice the same, and again from its own record.
    succeed(path, "train m --round-from a b -o again -q");
    assert!(values(path, "again") == mean);
    let even = json(path, "train m --round-from a b --round-weights 1,1 --round-clip 0.05 -o clipped");
    assert!(even["clients"][0]["clipped"] == true && even["clients"][1]["clipped"] == true, "{even}");
    let moved = distance(&values(path, "clipped"), &start);
    assert!(moved <= 0.0501 && (moved - even["update_norm"].as_f64().expect("a norm")).abs() < 1e-3, "{moved}");
    let noisy = json(path, "train m --round-from a b --round-clip 0.05 --round-noise 0.1 -o noisy");
    let deviation = noisy["noise_deviation"].as_f64().expect("it is stated");
    assert!((deviation - 0.05 * 0.1 * share(1)).abs() < 1e-9, "{noisy}");
    succeed(path, "train m --round-from a b --round-clip 0.05 -o quiet -q");
    let spread = distance(&values(path, "noisy"), &values(path, "quiet")) / (start.len() as f64).sqrt();
    assert!((spread / deviation - 1.0).abs() < 0.05, "{spread}, {deviation}");
}

#[test]
fn what_does_not_belong_to_a_round_is_refused_by_name() {
    let directory = workplace();
    let path = directory.path();
    let train = "--window 32 --batch 4 --pieces 1 --tokens 400 -q";
    // Another start, another shape, nothing that says where it began, and a quantized client.
    succeed(path, &format!("train a --data second.txt {train} -o later"));
    fixture::write(&path.join("foreign"), Family::TiedLlama, Size::SMALL);
    succeed(path, "quantize m --scheme w8 --method rtn -o small -q");
    succeed(
        path,
        "train m --data first.txt --window 32 --batch 4 --tokens 400 -q --dp-epsilon 8 --dp-delta 1e-4 -o private",
    );
    fixture::write(&path.join("wide"), Family::Llama, Size::SMALL);
    let made = fs::read(path.join("a/slmc.json")).expect("written");
    fs::write(path.join("wide/slmc.json"), made).expect("written");
    for (arguments, expected) in [
        ("--round-from a later", "later: was trained from another start: SHA-256 "),
        ("--round-from a foreign", "foreign: has no slmc.json of `slmc train`"),
        ("--round-from a small", "small: has no slmc.json of `slmc train`"),
        ("--round-from a wide", "wide: has shapes that m has not (layers.0.attn.k.weight"),
        ("--round-from a private", "private: its slmc.json has no number of tokens"),
        ("--round-from a b --round-weights 1", "1 weights for 2 clients"),
        ("--round-from a b --round-weights 1,0", "--round-weights is 0"),
        ("--round-from a b --round-noise 1", "--round-clip"),
        ("--round-from a b --tokens 100", "--tokens is for training"),
        ("--round-from a b --data first.txt", "--data is for training"),
        ("--round-from a b --lora-rank 2", "--lora-rank is for training"),
        ("--round-from a b --lora-output adapter", "--lora-output is for training"),
        ("--round-from a b --tokenizer m", "--tokenizer is for training"),
        ("--round-from a b --field text", "--field is for training"),
        ("--round-from a b --separator x", "--separator is for training"),
        ("--round-from a b --label-field class", "--label-field is for training"),
        ("--round-from a b --loss-on answer", "--loss-on is for training"),
        ("--round-from a b --without-reasoning", "--without-reasoning is for training"),
        ("--round-from a b --prompt-field question", "--prompt-field is for training"),
        ("--round-from a b --answer-field said", "--answer-field is for training"),
        ("--round-from a b --reasoning-field why", "--reasoning-field is for training"),
    ] {
        refused(path, &format!("train m {arguments} -o out"), expected);
    }
    refused(path, "train m -o out", "--data");
    succeed(path, "train m --round-from a private --round-weights 3,1 -o out -q");
}

/// Less of everything; the figures are of docs/training.md.
#[test]
fn the_recipe_ends_nearer_to_the_pooled_model_than_either_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let fewer = ["start", "first", "second", "pooled"]
        .map(|stage| format!("--set stages.{stage}.tokens={}", if stage == "pooled" { 24_000 } else { 12_000 }));
    let recipe = root("recipes/federated.toml");
    let fewer = fewer.join(" ");
    let report = json(path, &format!("run {} {fewer} --set gates.kld_max.value=1", recipe.display()));
    let stages = report["stages"].as_array().expect("stages");
    let figure = |stage: &str, key: &str| {
        let found = stages.iter().find(|own| own["stage"] == stage).unwrap_or_else(|| panic!("{stage} in {report}"));
        found["report"][key].as_f64().unwrap_or_else(|| panic!("{key} in {found}"))
    };
    for key in ["kld_mean", "perplexity"] {
        let (first, second, both) = (figure("first-alone", key), figure("second-alone", key), figure("together", key));
        assert!(both < first && both < second, "{key}: {first} and {second} alone, {both} together");
    }
    let out = path.join("out/federated");
    let [first, second, round, pooled] = ["first", "second", "round", "pooled"].map(|name| values(&out, name));
    let apart = [&first, &second, &round].map(|other| distance(other, &pooled));
    assert!(apart[2] < apart[0] && apart[2] < apart[1], "{apart:?}");
}
