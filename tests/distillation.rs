//! Distillation end to end on a tiny fixture: losses with schedules, several teachers, and what teachers say kept in a file.

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, run, stderr, succeed};
use std::fs;
use std::path::Path;

const TEXT: &str = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. \
    a small dog came by and asked them both to play a game in the sun. they ran and ran until the moon came up. ";

/// A directory with two models of one vocabulary and a text.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    fs::write(path.join("text.txt"), TEXT.repeat(12)).expect("the text can be written");
    // Two teachers that say something, and not the same.
    let train = "train m --data text.txt --window 32 --batch 4 --tokens 6000 --learning-rate 5e-3 -q";
    succeed(path, &format!("{train} -o t1"));
    succeed(path, &format!("{train} --seed 5 -o t2"));
    directory
}

fn weights(directory: &Path, name: &str) -> Vec<u8> {
    fs::read(directory.join(name).join("model.safetensors")).expect("the output has weights")
}

fn log(directory: &Path, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(directory.join(name)).expect("the log is there");
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

const DISTILL: &str = "distill --layers 0 --data text.txt --window 32 --batch 4 --tokens 3000 -q";

#[test]
fn every_loss_is_named_in_the_log_and_follows_its_schedule() {
    let directory = workplace();
    let path = directory.path();
    let losses = "--ce 0.5 --label-smoothing 0.1 --kl 1@0.5,0@0.5 --skew-kl 0.5 --skew 0.2 --reverse-kl 0.1 --logits 0.01 \
                  --hidden 1@0.3,0@0.6 --hidden-loss cosine --relations 0.5 --relation-layers 0:1 --relation-heads 2";
    let report = json(path, &format!("{DISTILL} --teacher t1 {losses} --temperature 1.5 --metrics log.jsonl -o out"));
    let log = log(path, "log.jsonl");
    let (first, last) = (&log[0], &log[log.len() - 1]);
    for key in ["cross_entropy", "divergence", "skew_divergence", "reverse_divergence", "logits", "hidden", "relations"]
    {
        assert!(first[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {first}");
        let over = ["divergence", "hidden"].contains(&key);
        // What has no weight in a step was not computed.
        assert_eq!(last[key].is_null(), over, "{key}: {last}");
    }
    assert!(report["divergence"].is_null() && report["relations"].as_f64() > Some(0.0), "{report}");
    let record = fs::read_to_string(path.join("out/slmc.json")).expect("it is there");
    assert!(record.contains("1@0.3,0@0.6"), "{record}");
    // Every run ends nearer to its teacher than it began.
    assert!(last["skew_divergence"].as_f64() < first["skew_divergence"].as_f64());
}

#[test]
fn of_several_teachers_the_mixture_is_learned() {
    let directory = workplace();
    let path = directory.path();
    let distill = format!("{DISTILL} --ce 0 --kl 1 --hidden 0.5");
    succeed(path, &format!("{distill} --teacher t1 -o one"));
    // The same teacher twice is that teacher, but for rounding.
    succeed(path, &format!("{distill} --teacher t1 t1 --teacher-weights 1,3 --metrics twice.jsonl -o twice"));
    succeed(path, &format!("{distill} --teacher t1 t2 --metrics both.jsonl -o both"));
    let value = |name: &str| log(path, name)[0]["divergence"].as_f64().expect("a number");
    assert!((value("twice.jsonl") - value("both.jsonl")).abs() > 1e-6);
    assert!(weights(path, "both") != weights(path, "one"));
    for (options, message) in [
        ("--teacher t1 t2 --teacher-weights 1", "there are 2 teachers"),
        ("--teacher t1 t2 --teacher-weights 1,-1", "is no weight"),
        ("--teacher t1 t2 --logits 1", "compares with one teacher"),
        ("--teacher t1 t2 --relations 1 --relation-layers 7:0", "no 7"),
        ("--teacher t1 --relations 1 --relation-heads 7", "does not divide"),
        ("--teacher t1 --kl 1@0.5,0@0.1", "shares must ascend"),
        ("--teacher t1 --kl=-1", "`divergence` is -1"),
        ("--teacher t1 --ce 1 --label-smoothing 1", "label_smoothing"),
        ("--teacher t1 --ce 0 --hidden 0", "without any part"),
        ("--teacher t1 --ce 0 --hidden 1@0.5,0@0.6", "`loss` is without any part from 60 % of the steps on"),
        ("--teacher t1 --ce 0 --hidden 0@0.2,1@0.4", "`loss` is without any part in the first steps"),
        ("--teacher t1 --relations 1 --backend ndarray", "fused operations"),
    ] {
        refused(path, &format!("{DISTILL} {options} -o refused"), message);
    }
    refused(path, "train m --data text.txt --reverse-kl 1 -o refused", "--reverse-kl needs a teacher");
}

#[test]
fn what_a_teacher_says_is_kept_and_used_again() {
    let directory = workplace();
    let path = directory.path();
    let distill = format!("{DISTILL} --ce 0.2 --kl 1 --hidden 0 --teacher t1");
    let cached = format!("{distill} --teacher-cache kept --teacher-draws 64");
    succeed(path, &format!("{cached} --threads 1 --metrics cached.jsonl -o one"));
    let kept = fs::read(path.join("kept")).expect("the file is there");
    // From the file, and by a run that fills it anew with more threads: the same bytes.
    succeed(path, &format!("{cached} -o two"));
    assert!(fs::read(path.join("kept")).expect("it is there") == kept, "a full file was changed");
    succeed(path, &format!("{} --threads 2 -o three", cached.replace("kept", "again")));
    assert!(fs::read(path.join("again")).expect("it is there") == kept, "another file for other threads");
    assert!(weights(path, "one") == weights(path, "two") && weights(path, "one") == weights(path, "three"));
    // Unbiased: near the loss with the whole distribution, and near its weights.
    succeed(path, &format!("{distill} --metrics whole.jsonl -o whole"));
    let mean = |name: &str| {
        let log = log(path, name);
        log.iter().filter_map(|line| line["divergence"].as_f64()).sum::<f64>() / log.len() as f64
    };
    let (drawn, whole) = (mean("cached.jsonl"), mean("whole.jsonl"));
    assert!((drawn - whole).abs() < 0.1 * whole, "{drawn}, {whole}");
    // Other seeds, students and more tokens add what is missing alone.
    succeed(path, &format!("{} --seed 3 -o more", cached.replace("--tokens 3000", "--tokens 6000")));
    assert_eq!(fs::metadata(path.join("kept")).expect("it is there").len(), kept.len() as u64);
    // A run that is killed while it fills the file goes on, to the same bytes.
    let longer = cached.replace("kept", "killed");
    refused(path, &format!("{longer} --checkpoint-every 5 --stop-after-step 5 -o killed-out"), "stopped after step 5");
    succeed(path, &format!("{longer} --checkpoint-every 5 -o killed-out"));
    assert!(weights(path, "killed-out") == weights(path, "one"));
}

#[test]
fn a_file_of_something_else_is_refused_and_kept() {
    let directory = workplace();
    let path = directory.path();
    let distill = format!("{DISTILL} --ce 0 --kl 1 --hidden 0 --teacher-cache kept");
    succeed(path, &format!("{distill} --teacher t1 -o one"));
    let kept = fs::read(path.join("kept")).expect("the file is there");
    for (options, message) in [
        ("--teacher t2", "for another teachers"),
        ("--teacher t1 --temperature 2", "for another temperature"),
        ("--teacher t1 --teacher-draws 8", "for another draws"),
        ("--teacher t1 --window 30", "for another"),
        ("--teacher t1 --skew-kl 1", "compares whole distributions"),
        ("--teacher t1 --teacher-draws 0", "expected 1 to 4096"),
        ("--teacher t1 --backend ndarray", "fused operations"),
    ] {
        let arguments = if options.contains("--window") { distill.replace("--window 32", "") } else { distill.clone() };
        refused(path, &format!("{arguments} {options} -o refused"), message);
        assert!(fs::read(path.join("kept")).expect("it is there") == kept, "{options} changed the file");
        assert!(!path.join("refused").exists(), "{options} left an output");
    }
    refused(path, &format!("{DISTILL} --teacher t1 --teacher-draws 8 -o refused"), "is for --teacher-cache");
    refused(path, &format!("{DISTILL} --teacher t1 --kl 0 --teacher-cache other -o refused"), "which has no weight");
    for damaged in [&b""[..], b"no answers", &kept[..kept.len() - 1], &kept[..30]] {
        fs::write(path.join("kept"), damaged).expect("it can be written");
        let output = run(path, &format!("{distill} --teacher t1 -o again"));
        match damaged.is_empty() {
            true => assert!(output.status.success(), "{}", stderr(&output)),
            false => assert!(stderr(&output).contains("no file of a teacher's answers"), "{}", stderr(&output)),
        }
        let _ = fs::remove_dir_all(path.join("again"));
    }
    // A random file as long as the right one has no header of ours.
    fs::write(path.join("kept"), vec![7; kept.len()]).expect("it can be written");
    refused(path, &format!("{distill} --teacher t1 -o again"), "no file of a teacher's answers");
}
