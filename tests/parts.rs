//! Training of a part of a model: parameters by pattern, and adapters of low rank, merged or written as PEFT has them. What is not
//! trained stays to the bit, an adapter that is written and merged by the command gives the bytes of the merged model, and neither
//! threads nor a kill change anything.

use crate::fixture::{self, Family, Size};
use crate::support::{golden, json, one_line, refused, root, run, stderr, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use slm_runtime::sample::random_u64;
use slmc::disk::DenseType;
use slmc::formats::adapter::{AdapterSource, NewAdapter, Weighted, write};
use slmc::formats::{self, ModelSource, hugging_face, open_model};
use slmc::model::id::{LinearId, ParameterId};
use slmc::progress::Silent;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const TEXT: &str =
    "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. ";

fn workplace(family: Family) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), family, Size::SMALL);
    fs::write(directory.path().join("text.txt"), TEXT.repeat(24)).expect("the text can be written");
    let records: String = (0..60)
        .map(|index| {
            format!(
                "{{\"text\": \"a fox saw {} birds\", \"label\": \"{}\"}}\n",
                "b".repeat(index % 9 + 1),
                ["no", "yes", "oos"][index % 3]
            )
        })
        .collect();
    fs::write(directory.path().join("labels.jsonl"), records).expect("the records can be written");
    directory
}

fn tensors(directory: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(directory.join(name).join("model.safetensors")).expect("the output has weights");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

/// The tensors in which two directories differ.
fn changed(directory: &Path, before: &str, after: &str) -> BTreeSet<String> {
    let (before, after) = (tensors(directory, before), tensors(directory, after));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    before.into_iter().filter(|(name, bytes)| after[name] != *bytes).map(|(name, _)| name).collect()
}

const TRAIN: &str = "train m --data text.txt --window 32 --batch 4 --pieces 2 --tokens 4000 -q";

#[test]
fn what_is_not_named_stays_to_the_bit() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    let report = json(path, &format!("{TRAIN} --train-only layers.1.* final.norm -o part"));
    let found = changed(path, "m", "part");
    assert!(found.iter().all(|name| name.contains("layers.1.") || name == "model.norm.weight"), "{found:?}");
    assert_eq!(found.len(), 10, "{found:?}");
    let trained = report["trained"].as_u64().expect("a number");
    let count: usize =
        tensors(path, "m").iter().filter(|(name, _)| found.contains(*name)).map(|(_, bytes)| bytes.len() / 4).sum();
    assert_eq!(trained, count as u64);
    // Threads, a kill and burn's own operations.
    succeed(path, &format!("{TRAIN} --train-only layers.1.* final.norm --threads 1 -o single"));
    assert!(changed(path, "part", "single").is_empty(), "threads change the weights");
    let again = format!("{TRAIN} --train-only layers.1.* final.norm --checkpoint-every 10 -o again");
    refused(path, &format!("{again} --stop-after-step 20"), "stopped after step 20");
    succeed(path, &again);
    assert!(changed(path, "part", "again").is_empty(), "a resumed run gives other weights");
    succeed(path, &format!("{TRAIN} --train-only layers.1.* final.norm --backend ndarray -o other"));
    assert_eq!(changed(path, "m", "other"), found);
}

#[test]
fn an_adapter_that_is_written_merges_to_the_bytes_of_the_merged_model() {
    let lora = "--lora-rank 4 --lora-alpha 6 --learning-rate 0.01";
    let classify = "train m --data labels.jsonl --window 32 --batch 4 --tokens 3000 -q";
    for (family, train) in [(Family::Llama, TRAIN), (Family::TiedLlama, TRAIN), (Family::BertClassifier, classify)] {
        let directory = workplace(family);
        let path = directory.path();
        let report = json(path, &format!("{train} {lora} -o merged"));
        assert!(report["trained"].as_u64() < report["parameters"].as_u64(), "{report}");
        let of_run = changed(path, "m", "merged");
        let in_layer =
            |name: &String| name.contains(".layer") || name.contains("pooler") || name.contains("classifier");
        assert!(!of_run.is_empty() && of_run.iter().all(in_layer), "{of_run:?}");
        assert!(of_run.iter().any(|name| name.contains("classifier")) == (family == Family::BertClassifier));
        succeed(path, &format!("{train} {lora} --lora-output adapter -o adapter"));
        assert!(path.join("adapter/slmc.json").is_file() && !path.join("adapter/model.safetensors").exists());
        succeed(path, "merge m adapter -o again -q");
        assert!(changed(path, "merged", "again").is_empty(), "{}", family.name());
        // The adapter is a model beside its base, for every command that takes one.
        let inspected = json(path, "inspect adapter");
        assert_eq!(inspected["format"], "adapter on its base");
        let config = fs::read(path.join("adapter/adapter_config.json")).expect("it is there");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!((&config["r"], &config["lora_alpha"], &config["peft_type"]), (&4.into(), &6.into(), &"LORA".into()));
        succeed(path, &format!("{train} {lora} --threads 1 -o single"));
        assert!(changed(path, "merged", "single").is_empty(), "threads change the weights");
    }
}

#[test]
fn distillation_trains_adapters_and_a_kill_changes_nothing() {
    let directory = workplace(Family::Llama);
    let path = directory.path();
    let distill = "distill --teacher m --layers 0 --data text.txt --window 32 --batch 4 --tokens 3000 --kl 1 -q --lora-rank 2 \
                   --lora-targets attention --train-only head --checkpoint-every 5";
    succeed(path, &format!("{distill} -o once"));
    refused(path, &format!("{distill} -o killed --stop-after-step 10"), "stopped after step 10");
    succeed(path, &format!("{distill} -o killed"));
    assert!(changed(path, "once", "killed").is_empty(), "a resumed run gives other weights");
    refused(path, &format!("{distill} --lora-output adapter -o out"), "some layers of the teacher");
}

/// Fused and transposed tensors among them, whose matrices have one adapter together.
#[test]
fn adapters_of_every_layout_read_back_bit_for_bit() {
    for name in [
        "gpt2",
        "phi3-fused-qkv",
        "llama-gqa-tied",
        "qwen2-qkv-bias",
        "bert-classifier",
        "bert-encoder",
        "lfm2-short-conv",
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("base");
        let model = open_model(&golden(name)).expect("a golden checkpoint opens");
        // Values of f32, so that what is merged is not rounded.
        let made = serde_json::json!({"schema": "slmc.provenance/1"});
        hugging_face::Directory(&base)
            .write_as(&model, &made, Some(DenseType::F32), &Silent)
            .expect("it can be written");
        let model = open_model(&base).expect("it opens");
        let (rank, alpha) = (3, 4.5);
        let draw = |stream: u64, count: usize| -> Vec<f32> {
            (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
        };
        let matrices = model.spec.matrices().into_iter().enumerate();
        // Of query, key and value not all: their one tensor has rows without a change.
        let adapted: BTreeMap<LinearId, (usize, [Vec<f32>; 2])> = matrices
            .filter(|(number, (id, ..))| id.role.in_layer() && number % 5 != 0)
            .map(|(number, (id, rows, columns))| {
                (id, (columns, [draw(2 * number as u64, rank * columns), draw(2 * number as u64 + 1, rows * rank)]))
            })
            .collect();
        let pairs = adapted.iter().map(|(id, (_, [a, b]))| (*id, [a.as_slice(), b.as_slice()])).collect();
        let whole = BTreeSet::new();
        let new = NewAdapter { base: &base, model: &model, rank, alpha, pairs, whole: &whole, companions: None };
        let out = directory.path().join("adapter");
        write(&out, &new, &made).expect("it can be written");
        let adapters = [Weighted { path: out, weight: 1.0 }];
        let source = AdapterSource::open(formats::open(&base).expect("it opens"), &adapters);
        let merged = source.and_then(|source| source.model()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let scale = (alpha / rank as f64) as f32;
        for parameter in model.spec.parameters() {
            let (before, after) =
                (model.values_f32(parameter.id).expect("values"), merged.values_f32(parameter.id).expect("values"));
            let of_adapter = match parameter.id {
                ParameterId::Linear(id, slmc::model::id::Part::Weight) => adapted.get(&id),
                _ => None,
            };
            let Some((columns, [a, b])) = of_adapter else {
                assert_eq!(before, after, "{name}: {}", parameter.id);
                continue;
            };
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                let (row, column) = (index / columns, index % columns);
                let sum = (0..rank).fold(0.0f32, |sum, k| b[row * rank + k].mul_add(a[k * columns + column], sum));
                assert_eq!((before + sum * scale).to_bits(), after.to_bits(), "{name}: {} at {index}", parameter.id);
            }
        }
    }
}

#[test]
fn parts_that_are_not_there_are_refused_by_name() {
    let directory = workplace(Family::TiedLlama);
    let path = directory.path();
    fixture::write(&path.join("encoder"), Family::Bert, Size::SMALL);
    succeed(path, "prune m --pattern 2:4 --method magnitude -o sparse -q");
    for (arguments, expected) in [
        (
            "--train-only layers.9.*",
            "--train-only layers.9.* selects no parameter of this model; it has embed.token.weight, layers.",
        ),
        ("--train-only head", "selects the head, which in this model is the token table; select `embed.token`"),
        ("--lora-rank 4 --lora-targets q_proj", "--lora-targets q_proj selects no matrix of this model"),
        ("--lora-rank 4 --lora-targets attention nothing", "--lora-targets nothing selects no matrix"),
        (
            "--lora-rank 4 --lora-targets embedding",
            "takes no adapter here; train it whole with --train-only embed.token",
        ),
        ("--lora-rank 0", "--lora-rank is 0"),
        ("--lora-rank 40", "--lora-rank 40 is not below the size of layers.0."),
        ("--lora-rank 4 --lora-alpha 0", "--lora-alpha is 0"),
        ("--lora-output adapter", "add --lora-rank"),
    ] {
        refused(path, &format!("{TRAIN} {arguments} -o out"), expected);
    }
    let of = |model: &str, rest: &str| format!("train {model} {rest} --window 32 --tokens 100 --lora-rank 2 -o out");
    refused(path, &of("sparse", "--data text.txt"), "is pruned: an adapter would fill its zeros");
    let encoder = of("encoder", "--task classify --data labels.jsonl --lora-output adapter");
    refused(path, &encoder, "an encoder that is given its classifier here");
    let config = of("m/config.json", "--data text.txt --lora-output adapter");
    fs::rename(path.join("m/model.safetensors"), path.join("weights")).expect("it can be moved");
    refused(path, &config, "a configuration without weights");
    // Before the data is read: no tokenizer is there that could.
    let factors = format!("train {} --data text.txt --lora-rank 2", golden("granite-multipliers").display());
    let unwritten = "an adapter of `model.layers.0.mlp.down_proj` cannot be written";
    refused(path, &format!("{factors} --lora-output adapter -o out"), unwritten);
    assert!(!path.join("out").exists());
}

/// The band of docs/training.md, for a model most of which is frozen.
#[test]
fn the_predicted_memory_knows_what_is_frozen() {
    if cfg!(not(target_os = "linux")) {
        return crate::support::not_run("the peak of a process is measured on Linux alone");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1280, "hidden_size": 512,
        "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    fs::write(path.join("config.json"), config.to_string()).expect("writes");
    fs::write(path.join("text.txt"), TEXT.repeat(40)).expect("writes");
    let teacher = root("recipes/quickstart/teacher");
    let train = format!(
        "train config.json --tokenizer {} --data text.txt --window 64 --batch 4 --pieces 1 --tokens 600 --json --progress json",
        teacher.display()
    );
    let mut needs = Vec::new();
    for options in ["", "--train-only layers.5.*", "--lora-rank 4", "--lora-rank 4 --lora-targets attention"] {
        let output = run(path, &format!("{train} {options} -o out"));
        assert!(output.status.success(), "{}", stderr(&output));
        let measured = one_line(&output)["peak_memory_bytes"].as_u64().expect("a peak");
        let events = stderr(&output);
        let mut events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let stated = events.find(|event| event["event"] == "memory").and_then(|event| event["bytes"].as_u64());
        let stated = stated.expect("a need is stated");
        let ratio = measured as f64 / stated as f64;
        assert!((0.7..=1.1).contains(&ratio), "{options}: {measured} bytes, {stated} were stated");
        needs.push(stated);
    }
    assert!(needs[1] < needs[0] / 3 * 2 && needs[3] < needs[2] && needs[2] < needs[0], "{needs:?}");
}
