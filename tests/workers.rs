//! Training on workers of the loopback address: the same bytes for any number of them and as by the same operations here,
//! pieces of a killed worker computed elsewhere, a run without workers that goes on from its checkpoint, and clients and
//! workers that are refused. Built with the cargo feature `workers` alone.

use crate::fixture::{self, Family, Size};
use crate::support::{one_line, slmc, states, stderr};
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use serde_json::Value;
use slmc::model::device::WORKERS_VARIABLE;
use slmc::progress::Silent;
use slmc::stages::arguments::scope::LoraOutput;
use slmc::stages::training::{Start, TrainOptions, train};
use slmc::text::form::TextForm;
use slmc::text::reasoning::ReasoningForm;
use slmc::train::samples::Data;
use slmc::train::scope::ScopeSettings;
use slmc::train::settings::Settings;
use slmc::workers::TrainingDevices;
use slmc::workers::identity::{Identity, TOKEN_VARIABLE, Token};
use slmc::workers::pool::Workers;
use slmc::workers::server::serve;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TOKEN: &str = "a token that is nowhere else";
const TEXT: &str = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. \
    a small dog came by and asked them both to play a game in the sun. they ran and ran until the moon came up. ";
/// Some twenty steps of four pieces.
const TRAINING: &str = "--data text.txt --window 32 --batch 4 --pieces 4 --tokens 2500 --checkpoint-every 3";

/// A worker of this machine, ended with the value.
struct Started {
    child: Child,
    address: String,
}

impl Started {
    fn new(directory: &Path, threads: usize) -> Self {
        let mut command = slmc(directory, &format!("worker --listen 0 --json --threads {threads}"));
        command.env(TOKEN_VARIABLE, TOKEN).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the worker starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout"))
            .read_line(&mut line)
            .expect("it says where it listens");
        let report: Value = serde_json::from_str(&line).expect("one JSON line");
        assert_eq!((&report["schema"], &report["backend"]), (&"slmc.worker/1".into(), &"flex".into()));
        Started { child, address: report["address"].as_str().expect("an address").to_owned() }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it ends");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}

fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::TiedLlama, Size::SMALL);
    fs::write(directory.path().join("text.txt"), TEXT.repeat(12)).expect("the text can be written");
    directory
}

/// `--backend` with these workers.
fn backend(workers: &[&Started]) -> String {
    let addresses: Vec<&str> = workers.iter().map(|worker| worker.address.as_str()).collect();
    format!("--backend remote:{}", addresses.join(","))
}

fn client(directory: &Path, line: &str) -> Command {
    let mut command = slmc(directory, line);
    command.env(TOKEN_VARIABLE, TOKEN).env_remove(WORKERS_VARIABLE);
    command
}

fn ended(directory: &Path, line: &str, code: i32) -> Output {
    let output = client(directory, line).output().expect("slmc starts");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "slmc {line}: {said}");
    assert!(!said.contains("panicked"), "slmc {line}: {said}");
    output
}

fn refused(directory: &Path, line: &str, expected: &[&str]) {
    let said = stderr(&ended(directory, line, 2));
    for expected in expected {
        assert!(said.contains(expected), "slmc {line}: expected {expected:?} in {said}");
    }
    assert!(!said.contains(TOKEN), "the token is in {said}");
}

/// Names and content of a directory's files.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("the output is there").map(|entry| entry.expect("an entry").path());
    let of = |path: std::path::PathBuf| {
        (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("a file"))
    };
    let mut files: Vec<_> = entries.map(of).collect();
    files.sort();
    assert!(files.len() > 2, "{}", directory.display());
    files
}

fn same(path: &Path, one: &str, other: &str) {
    let (one_files, other_files) = (files(&path.join(one)), files(&path.join(other)));
    for ((name, bytes), (other_name, other_bytes)) in one_files.iter().zip(&other_files) {
        assert!(name == other_name && bytes == other_bytes, "{name} of {one} and {other} differs");
    }
    assert_eq!(one_files.len(), other_files.len());
}

/// The same training by the same operations in this process, in the place of one worker.
fn trained_here(path: &Path, out: &str) {
    let pick = Settings { window: 32, batch: 4, pieces: 4, tokens: 2500, checkpoint_every: 3, ..Settings::TRAIN };
    let options = TrainOptions {
        start: Start::Path(path.join("m")),
        teachers: Vec::new(),
        cache: None,
        layer_map: None,
        tokenizer: None,
        data: Data {
            files: vec![path.join("text.txt")],
            form: TextForm::default(),
            label_field: "label".to_owned(),
            reasoning: ReasoningForm::default(),
        },
        on_policy: None,
        task: None,
        settings: pick,
        exits: None,
        scope: ScopeSettings::default(),
        lora_output: LoraOutput::default(),
        privacy: None,
        out: path.join(out),
        metrics: None,
        invocation: Default::default(),
        max_ram: None,
    };
    let workers = Workers::new([("here:1".to_owned(), Device::flex())]);
    let devices = TrainingDevices { device: Device::flex(), workers: Some(workers) };
    train(&options, &devices, &Silent).expect("it trains");
}

#[test]
fn one_two_and_four_workers_give_the_same_bytes() {
    let directory = workplace();
    let path = directory.path();
    let workers: Vec<Started> = (0..4).map(|number| Started::new(path, 1 + number % 2)).collect();
    let all: Vec<&Started> = workers.iter().collect();
    for (out, count) in [("one", 1), ("two", 2), ("four", 4)] {
        ended(path, &format!("train m {TRAINING} {} -o {out}", backend(&all[..count])), 0);
    }
    same(path, "one", "two");
    same(path, "one", "four");
    trained_here(path, "here");
    let weights = |name: &str| fs::read(path.join(name).join("model.safetensors")).expect("weights");
    assert!(weights("one") == weights("here"), "a worker computes other bits than the same operations here");
    // The number of pieces is the user's, and decides the bits.
    let two_pieces = TRAINING.replace("--pieces 4", "--pieces 2");
    ended(path, &format!("train m {two_pieces} {} -o pieces", backend(&all[..2])), 0);
    assert!(weights("one") != weights("pieces"));
    // What is recorded has neither addresses nor the token.
    let record = fs::read_to_string(path.join("four/slmc.json")).expect("slmc.json");
    let record_json: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record_json["options"]["backend"], "remote", "{record}");
    assert_ne!(record_json["numerics"], "portable", "{record}");
    for worker in &workers {
        assert!(!record.contains(&worker.address) && !record.contains(TOKEN), "{record}");
    }
}

#[test]
fn every_training_runs_on_workers() {
    let directory = workplace();
    let path = directory.path();
    let (first, second) = (Started::new(path, 1), Started::new(path, 2));
    let quantize = "quantize m --scheme w4 --calibration text.txt --calibration-tokens 512 --qat";
    for (name, line) in [
        ("distilled", "distill --teacher m --layers 0 --kl 0.5 --hidden 0.5".to_owned()),
        ("pruned", "prune m --pattern 2:4 --method magnitude --only ffn --recover".to_owned()),
        ("adapted", "train m --lora-rank 2".to_owned()),
        ("rounded", quantize.to_owned()),
    ] {
        let (one, two) = (format!("{name}-1"), format!("{name}-2"));
        ended(path, &format!("{line} {TRAINING} {} -o {one}", backend(&[&first])), 0);
        // The variable of the environment in the place of addresses on the command line.
        let mut command = client(path, &format!("{line} {TRAINING} --backend remote -o {two}"));
        command.env(WORKERS_VARIABLE, format!("{},{}", second.address, first.address));
        let output = command.output().expect("slmc starts");
        assert!(output.status.success(), "{}", stderr(&output));
        same(path, &one, &two);
    }
}

/// Waits until a run has its first checkpoint.
fn wait_for_checkpoint(path: &Path, out: &str) {
    let (checkpoint, started) = (path.join(format!("{out}.checkpoint")), Instant::now());
    while !checkpoint.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "{out} has no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lost_worker_s_pieces_are_computed_by_another_and_without_one_the_checkpoint_stays() {
    let directory = workplace();
    let path = directory.path();
    let long = TRAINING.replace("--tokens 2500", "--tokens 12000");
    let (mut first, mut second) = (Started::new(path, 1), Started::new(path, 1));
    ended(path, &format!("train m {long} {} -o whole", backend(&[&first])), 0);

    let line = format!("train m {long} {}", backend(&[&first, &second]));
    let running = client(path, &format!("{line} -o lost")).stderr(Stdio::piped()).spawn().expect("slmc starts");
    wait_for_checkpoint(path, "lost");
    second.kill();
    let output = running.wait_with_output().expect("it ends");
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("panicked"), "{said}");
    let expected = format!("worker {} is lost", second.address);
    assert!(said.contains(&expected) && said.contains("computed by the 1 of 2 workers"), "{said}");
    same(path, "whole", "lost");

    let mut second = Started::new(path, 1);
    let line = format!("train m {long} {}", backend(&[&first, &second]));
    let running = client(path, &format!("{line} -o none")).stderr(Stdio::piped()).spawn().expect("slmc starts");
    wait_for_checkpoint(path, "none");
    first.kill();
    second.kill();
    let output = running.wait_with_output().expect("it ends");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in ["no worker is left", "the checkpoint of step ", "is kept", "run the same command again"] {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
    assert!(!said.contains("panicked") && !path.join("none").exists(), "{said}");
    // Another worker at another address: the run is the same.
    let third = Started::new(path, 2);
    let output = ended(path, &format!("train m {long} {} -o none --json", backend(&[&third])), 0);
    assert!(one_line(&output)["resumed_from"].as_u64().is_some_and(|step| step >= 3), "{}", one_line(&output));
    same(path, "whole", "none");
}

/// A worker of this process that says of itself what it is told to.
fn pretender(identity: Identity) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || serve(listener, identity, Token::new(TOKEN), |_| {}));
    address
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let directory = workplace();
    let path = directory.path();
    let own = Identity::own();
    let run = |address: &str| format!("train m {TRAINING} --backend remote:{address} -o out");
    let older = Identity { version: "0.0.9".to_owned(), ..own.clone() };
    let this = format!("has version 0.0.9, and this slmc {}", own.version);
    refused(path, &run(&pretender(older)), &[&this, "install the same slmc on both"]);
    let class = Identity { numerics: "x86-64-v1".to_owned(), ..own.clone() };
    let this = format!("has numerics class x86-64-v1, and this slmc {}", own.numerics);
    refused(path, &run(&pretender(class)), &[&this, "use machines of one class"]);
    let backend = Identity { backend: "ndarray".to_owned(), ..own };
    refused(path, &run(&pretender(backend)), &["has backend ndarray, and this slmc flex"]);

    let worker = Started::new(path, 1);
    let mut command = client(path, &run(&worker.address));
    let output = command.env(TOKEN_VARIABLE, "another").output().expect("slmc starts");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("refuses the token in SLMC_WORKER_TOKEN") && said.contains(&worker.address), "{said}");
    let output = client(path, &run(&worker.address)).env_remove(TOKEN_VARIABLE).output().expect("slmc starts");
    let said = stderr(&output);
    assert!(output.status.code() == Some(2) && said.contains("holds no token"), "{said}");

    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    refused(path, &run(&free.to_string()), &["cannot be reached", &free.to_string(), "start `slmc worker"]);

    // A server of burn's that is no `slmc worker`.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let server = RemoteServer::new([Device::flex()]);
        runtime.block_on(server.serve_async(WebSocketTransport::from_listener(listener)))
    });
    refused(path, &run(&address), &["not as a `slmc worker`", &address]);
    assert!(!path.join("out").exists() && !path.join("out.checkpoint").exists());

    for line in ["eval m --data text.txt", "prune m --pattern 2:4 --method magnitude -o out"] {
        refused(path, &format!("{line} --backend remote:{}", worker.address), &["--backend remote is for training"]);
    }
    let fused = format!("{} --recompute", run(&worker.address));
    refused(path, &fused, &["--recompute is for fused operations"]);
    let private = "train m --data text.txt --window 32 --batch 4 --tokens 2500 --dp-epsilon 8 --dp-delta 1e-3 -o out";
    refused(
        path,
        &format!("{private} --backend remote:{}", worker.address),
        &["--dp-epsilon computes gradients sample by sample"],
    );
    let portable = format!("{} --numerics portable", run(&worker.address));
    refused(path, &portable, &["training on workers", "take --backend flex"]);
}

#[test]
fn a_worker_needs_a_token_and_a_place() {
    let directory = workplace();
    let path = directory.path();
    let without = slmc(path, "worker --listen 0").env_remove(TOKEN_VARIABLE).output().expect("slmc starts");
    assert_eq!(without.status.code(), Some(2));
    assert!(stderr(&without).contains("SLMC_WORKER_TOKEN of the environment holds no token"), "{}", stderr(&without));
    refused(path, "worker --token-env NO_SUCH_VARIABLE", &["the variable NO_SUCH_VARIABLE"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    refused(path, &format!("worker --listen {address}"), &[&address, "cannot be listened at"]);
    refused(path, "worker --listen nowhere", &["nowhere: cannot be listened at"]);
}

/// A recipe's results are found again whichever workers computed them.
#[test]
fn a_stage_s_key_has_no_addresses() {
    let recipe = |address: &str| {
        format!(
            "version = 1\n[model]\npath = \"model\"\n[stages.tuned]\nkind = \"train\"\ninput = \"model\"\ndata = \"text.txt\"\n\
             window = 32\nbatch = 4\npieces = 2\ntokens = 600\nbackend = \"remote:{address}\"\n"
        )
    };
    let (first, second) = (Started::new(Path::new("."), 1), Started::new(Path::new("."), 1));
    let directory = fixture::workshop("chain.toml", &recipe(&first.address));
    let path = directory.path();
    let report = one_line(&ended(path, "run chain.toml --json", 0));
    assert_eq!(states(&report), ["done"]);
    fs::write(path.join("chain.toml"), recipe(&format!("{},{}", second.address, first.address))).expect("written");
    let report = one_line(&ended(path, "run chain.toml --json", 0));
    assert_eq!(states(&report), ["cached"], "{report}");
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    assert!(!lock.contains("127.0.0.1") && !lock.contains(TOKEN), "{lock}");
}
