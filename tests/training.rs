//! Training end to end on a tiny fixture: the same bytes for any number of threads and for a run that was killed,
//! equality of what was trained on the grid and what the artifact holds, masks held, and inputs refused.

use crate::fixture::{self, Family, Size};
use crate::support::{all_refused, not_run, one_line, refused, root, run, slmc, stderr, succeed};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::scalar;
use slm_runtime::layout::Layout;
use slmc::formats::{open, open_model};
use slmc::model::device::device;
use slmc::model::id::{LinearId, ParameterId, Role};
use slmc::model::scheme::Preset;
use slmc::model::size::tensor_key;
use slmc::model::transform::{HeldMasks, Transform};
use slmc::model::weights::Parameter;
use slmc::progress::Silent;
use slmc::quantize::quantize;
use slmc::quantize::tune::OnGrid;
use slmc::target::Target;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const TEXT: &str = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. \
    a small dog came by and asked them both to play a game in the sun. they ran and ran until the moon came up. ";

/// A directory with a model `m` of the family and a text of some thousand tokens.
fn workplace(family: Family) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), family, Size::SMALL);
    fs::write(directory.path().join("text.txt"), TEXT.repeat(12)).expect("the text can be written");
    directory
}

fn weights(directory: &Path, name: &str) -> Vec<u8> {
    fs::read(directory.join(name).join("model.safetensors")).expect("the output has weights")
}

#[test]
fn threads_and_a_killed_run_give_the_same_bytes() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    let train = "train m --data text.txt --window 32 --batch 4 --pieces 2 --tokens 10000 --checkpoint-every 20 -q";
    succeed(path, &format!("{train} --threads 1 -o one"));
    succeed(path, &format!("{train} --threads 2 -o two"));
    assert!(weights(path, "one") == weights(path, "two"), "threads change the weights");

    let mut killed = slmc(path, &format!("{train} -o three")).spawn().expect("slmc starts");
    let started = Instant::now();
    while !path.join("three.checkpoint").exists() && started.elapsed() < Duration::from_secs(120) {
        if killed.try_wait().expect("it can be waited for").is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = killed.kill();
    killed.wait().expect("it ends");
    assert!(!path.join("three").exists() || weights(path, "three") == weights(path, "one"));
    // Wherever that was, the run is then ended at a step that is known.
    refused(path, &format!("{train} -o three --stop-after-step 60"), "stopped after step 60");
    succeed(path, &format!("{train} -o three"));
    assert!(weights(path, "three") == weights(path, "one"), "a resumed run gives other weights");
    assert!(!path.join("three.checkpoint").exists(), "the checkpoint is left behind");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_with_the_remedy() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    let train = "train m --data text.txt --window 32 --batch 4 --tokens 4000 --checkpoint-every 20 -q -o out";
    refused(path, &format!("{train} --stop-after-step 20"), "stopped after step 20");
    let other = run(path, &format!("{train} --learning-rate 0.01"));
    let message = stderr(&other);
    assert_eq!(other.status.code(), Some(2), "{message}");
    assert!(message.contains("other settings") && message.contains("remove"), "{message}");
}

#[test]
fn what_was_trained_on_the_grid_is_what_the_artifact_holds() {
    let directory = workplace(Family::TiedLlama);
    let mut model = open_model(&directory.path().join("m")).expect("the fixture opens");
    let assignment = Preset::W4.assign(&model.spec);
    let (rounded, _) = quantize(&model, &assignment, None, &Silent).expect("it rounds");
    let grid = OnGrid::new(&rounded, HeldMasks::default());
    let mut trained = std::collections::BTreeMap::new();
    for (id, rows, columns) in model.spec.matrices() {
        let start = grid.start(id).expect("every matrix is rounded");
        let as_rounded = rounded.values_f32(ParameterId::weight(id)).expect("it reads");
        assert!(grid.apply(id, &start) == as_rounded, "{id} changes before training");
        // Integers past the end of the range among them, and scales.
        let moved: Vec<f32> = start.iter().enumerate().map(|(n, v)| v + 0.05 * ((n % 7) as f32 - 3.0)).collect();
        let seen = grid.apply(id, &moved);
        assert!(seen != as_rounded, "{id} did not move");
        assert_eq!(grid.pull_back(id, &moved, vec![1.0; rows * columns]).len(), moved.len());
        trained.insert(id, seen);
        let matrix = grid.matrix(id, &moved).expect("every matrix is rounded");
        model.parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
    }
    for layout in Layout::ALL {
        let compiled = fixture::compiled(&model, &Target::unlimited("test", layout), None);
        let view = ArtifactView::open(&compiled.bytes).expect("it reads back");
        for (id, rows, columns) in model.spec.matrices() {
            let stored =
                view.matrix(tensor_key(ParameterId::weight(id)).expect("artifacts hold it")).expect("it is there");
            let mut row = vec![0.0; columns];
            for n in 0..rows {
                scalar::row(&stored, n, &mut row);
                assert!(row == trained[&id][n * columns..(n + 1) * columns], "{id} row {n} {}", layout.name());
            }
        }
    }
}

#[test]
fn tuning_brings_a_rounded_model_nearer_to_the_original_for_any_number_of_threads() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    // A model that predicts something: of random weights, noise costs as much as training gains.
    succeed(path, "train m --data text.txt --window 32 --batch 4 --tokens 30000 --learning-rate 5e-3 -q -o trained");
    let quantize = "quantize trained --scheme w4 --calibration text.txt --json -q";
    let judged = |threads: usize| -> serde_json::Value {
        let output = run(path, &format!("{quantize} --tune 8 --threads {threads} -o tuned{threads}"));
        assert!(output.status.success(), "{}", stderr(&output));
        one_line(&output)["tuning"].clone()
    };
    let one = judged(1);
    assert_eq!(one, judged(2));
    assert!(weights(path, "tuned1") == weights(path, "tuned2"), "two threads give other bytes");
    assert!(one["taken"] == true && one["after"].as_f64() < one["before"].as_f64(), "{one}");
    succeed(path, &format!("{quantize} --tune 0 -o plain"));
    assert!(weights(path, "plain") != weights(path, "tuned1"), "tuning changed nothing");
}

#[test]
fn masks_hold_through_recovery_and_quantization() {
    let directory = workplace(Family::Llama);
    let path = directory.path();
    let recover = "prune m --pattern 2:4 --method magnitude --only ffn --recover --data text.txt --tokens 3000";
    succeed(path, &format!("{recover} --window 32 --batch 4 -q -o sparse"));
    let dense = open_model(&path.join("m")).expect("the fixture opens");
    let sparse = open_model(&path.join("sparse")).expect("the output opens");
    for (id, _, columns) in sparse.spec.matrices() {
        let (before, after) = (dense.values_f32(ParameterId::weight(id)), sparse.values_f32(ParameterId::weight(id)));
        let (before, after) = (before.expect("it reads"), after.expect("it reads"));
        assert_ne!(before, after, "{id} was not trained");
        if matches!(id.role, Role::Gate | Role::Up | Role::Down) {
            let full = |group: &[f32]| group.iter().filter(|w| **w != 0.0).count() > 2;
            assert!(!after.chunks(columns).flat_map(|row| row.chunks(4)).any(full), "{id} is not 2:4");
        }
    }
    let up = ParameterId::weight(LinearId::layer(0, Role::Up));
    assert!(sparse.values_f32(up).expect("it reads").contains(&0.0));
}

#[test]
fn both_devices_give_the_same_losses_and_gradients() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    let train = "distill --teacher m --layers 0 --data text.txt --window 32 --batch 4 --tokens 700 --kl 0.5 -q";
    let log = |name: &str| -> Vec<serde_json::Value> {
        succeed(path, &format!("{train} --backend {name} --metrics {name}.jsonl -o {name}"));
        let lines = fs::read_to_string(path.join(format!("{name}.jsonl"))).expect("the log is there");
        lines.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
    };
    let (flex, ndarray) = (log("flex"), log("ndarray"));
    assert!(flex.len() > 3 && flex.len() == ndarray.len());
    for (ours, theirs) in flex.iter().zip(&ndarray) {
        for key in ["loss", "cross_entropy", "divergence", "hidden", "gradient_norm"] {
            let (a, b) = (ours[key].as_f64().expect("a number"), theirs[key].as_f64().expect("a number"));
            assert!((a - b).abs() <= 2e-3 * a.abs().max(1e-3), "{key}: {a} and {b}");
        }
    }
    device("flex").expect("known");
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    fixture::write(&path.join("encoder"), Family::BertClassifier, Size::SMALL);
    fs::write(path.join("short.txt"), "a fox").expect("it can be written");
    fs::write(path.join("labels.jsonl"), "{\"text\": \"a fox\", \"label\": \"nonsense\"}\n")
        .expect("it can be written");
    let cases = [
        ("distill --teacher m --layers 0,9 --data text.txt -o out", "layer 9 is not there"),
        ("distill --teacher m --layers 1,0 --data text.txt -o out", "must ascend"),
        ("distill --teacher encoder --student m --data text.txt -o out", "different vocabularies"),
        ("train m --data short.txt -o out", "tokens and one window needs"),
        ("train m --data text.txt --task mlm -o out", "can be trained for clm"),
        ("train encoder --data labels.jsonl -o out", "label `nonsense`"),
        ("train m --data text.txt --tokens 0 -o out", "`tokens` is 0"),
        ("train m --data text.txt --kl 1 -o out", "needs a teacher"),
        ("train m --data text.txt --window 32 --learning-rate 1e30 --tokens 9000 -o out", "is not finite"),
        ("quantize m --scheme w8 --qat -o out", "--data"),
        ("quantize encoder --scheme w8 --qat --data self -o out", "encoder"),
    ];
    all_refused(path, cases);
}

/// What was pruned stays pruned: training and distillation hold the zeros of a 2:4 directory, and their output says so.
#[test]
fn a_pruned_directory_stays_pruned() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    succeed(path, "prune m --pattern 2:4 --method magnitude -o sparse -q");
    let settings = "--data text.txt --window 32 --batch 4 --tokens 2000 -q";
    succeed(path, &format!("train sparse {settings} -o trained"));
    succeed(path, &format!("distill --student sparse --teacher sparse {settings} -o distilled"));
    succeed(path, &format!("distill --layers 1 --teacher sparse {settings} -o shorter"));
    let before = open(&path.join("sparse")).expect("opens").recorded_sparsity();
    let before = before.expect("it is recorded");
    assert!(!before.is_empty());
    for (name, layers) in [("trained", 2), ("distilled", 2), ("shorter", 1)] {
        let model = open_model(&path.join(name)).expect("opens");
        let sparsity = open(&path.join(name)).expect("opens").recorded_sparsity().expect("it is recorded");
        assert_eq!(sparsity.len(), before.len() * layers / 2, "{name}");
        model.check_sparsity(&sparsity).expect("the zeros are where the pattern wants them");
        assert!(weights(path, name) != weights(path, "sparse"), "{name} was trained");
    }
}

/// The need that a run states, from the events of its progress.
fn stated_bytes(output: &std::process::Output) -> u64 {
    let text = stderr(output);
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let needs: Vec<u64> =
        events.filter(|event| event["event"] == "memory").filter_map(|event| event["bytes"].as_u64()).collect();
    *needs.last().unwrap_or_else(|| panic!("no need is stated: {text}"))
}

/// The band of docs/training.md.
#[test]
fn the_predicted_peak_holds_against_the_measured_one() {
    if cfg!(not(target_os = "linux")) {
        return not_run("the peak of a process is measured on Linux alone");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1280, "hidden_size": 256,
        "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    fs::write(path.join("config.json"), config.to_string()).expect("writes");
    fs::write(path.join("text.txt"), TEXT.repeat(20)).expect("writes");
    let teacher = root("recipes/quickstart/teacher");
    let train = format!(
        "train config.json --tokenizer {} --data text.txt --window 128 --tokens 1000 --json --progress json",
        teacher.display()
    );
    let mut kept = Vec::new();
    for options in ["--batch 16 --pieces 1", "--batch 16 --pieces 1 --recompute", "--batch 16 --pieces 8"] {
        let output = run(path, &format!("{train} {options} -o out"));
        assert!(output.status.success(), "{}", stderr(&output));
        let measured = one_line(&output)["peak_memory_bytes"].as_u64().expect("a peak");
        let stated = stated_bytes(&output);
        let ratio = measured as f64 / stated as f64;
        assert!((0.75..=1.05).contains(&ratio), "{options}: {measured} bytes, {stated} were stated");
        kept.push((weights(path, "out"), stated));
    }
    assert!(kept[0].0 == kept[1].0, "recomputation changes the weights");
    let needs: Vec<u64> = kept.iter().map(|(_, stated)| *stated).collect();
    assert!(3 * needs[1] < 2 * needs[0] && 3 * needs[2] < 2 * needs[0], "an option saves too little: {needs:?}");
}

/// A run that compares hidden states needs no more for more steps.
#[test]
fn memory_does_not_grow_with_the_steps() {
    if cfg!(not(target_os = "linux")) {
        return not_run("the peak of a process is measured on Linux alone");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("text.txt"), TEXT.repeat(20)).expect("writes");
    let teacher = root("recipes/quickstart/teacher");
    let distill = format!("distill --teacher {} --layers 0 --data text.txt --window 64 --json -q", teacher.display());
    let peak = |tokens: u64, batch: usize| {
        let line = format!("{distill} --hidden 1 --batch {batch} --pieces 1 --tokens {tokens} -o out{tokens}");
        let output = run(path, &line);
        assert!(output.status.success(), "{}", stderr(&output));
        one_line(&output)["peak_memory_bytes"].as_u64().expect("a peak")
    };
    let (short, long) = (peak(2_000, 4), peak(60_000, 4));
    assert!(long < short + (8 << 20), "{short} bytes in 8 steps, {long} in 234");
}

#[test]
fn a_run_that_needs_more_memory_than_allowed_is_refused_with_what_fits() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    let train = "train m --data text.txt --window 32 --batch 512 --pieces 1 --tokens 10 --json --progress json";
    let output = run(path, &format!("{train} -o out"));
    assert!(output.status.success(), "{}", stderr(&output));
    let stated = stated_bytes(&output);
    let limit = stated - stated / 20;
    let output = run(path, &format!("{train} --max-ram {limit} -o refused"));
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let start = format!("training needs about {stated} bytes of memory, --max-ram allows {limit}; ");
    assert!(message.contains(&start), "{message}");
    for option in ["--recompute (about ", "--pieces 2 (about ", "--batch "] {
        assert!(message.contains(option), "{option} in {message}");
    }
    assert!(!path.join("refused").exists());
    succeed(path, &format!("{train} --max-ram {limit} --recompute -q -o again"));
    assert!(weights(path, "again") == weights(path, "out"), "recomputation changes the weights");
    refused(path, &format!("{train} --max-ram 1MiB -o refused"), "the least is about");
    refused(path, &format!("{train} --recompute --backend ndarray -o out2"), "--recompute is for fused operations");
    refused(
        path,
        &format!("{train} --numerics x86-64-v2 --backend ndarray -o out3"),
        "--numerics x86-64-v2 cannot be kept",
    );
}
