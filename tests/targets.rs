//! Every target that ships: it parses, it is listed, and small models of every kind compile for it or are refused with
//! a reason that is the target's. And `estimate`, which reads no weights.

use crate::fixture::{Family, Size, write};
use crate::support::run;
use serde_json::{Value, json};
use slmc::recipe::target::Target;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn every_target_file_is_listed_and_compiled_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("targets/")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let directory = tempfile::tempdir().expect("a directory");
    let listed: Value = serde_json::from_slice(&run(directory.path(), "targets --json").stdout).expect("JSON");
    let listed: Vec<&str> =
        listed["targets"].as_array().expect("a list").iter().filter_map(|target| target["name"].as_str()).collect();
    for family in Family::ALL {
        write(&directory.path().join(family.name()), family, Size::SMALL);
        let line = format!("quantize -q {0} --scheme w8 --tune 0 -o q-{0}", family.name());
        assert!(run(directory.path(), &line).status.success(), "{line}");
    }
    assert_eq!(files.len(), listed.len());
    for file in files {
        let target = Target::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(file.file_stem().and_then(|stem| stem.to_str()), Some(target.name.as_str()));
        assert!(listed.contains(&target.name.as_str()), "{} is not listed", target.name);
        for family in Family::ALL {
            let compile = |target: &str| format!("compile q-{0} --target {target} -o {0}.slm --json", family.name());
            let line = compile(&target.name);
            let output = run(directory.path(), &line);
            let stderr = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {
                    let verified = run(directory.path(), &format!("verify {}.slm", family.name()));
                    assert!(verified.status.success(), "{line}: {}", String::from_utf8_lossy(&verified.stderr));
                }
                Some(1) => {
                    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                    assert_eq!(answer["schema"], "slmc.does-not-fit/1", "{line}");
                }
                // An accelerator may insist on sparsity, schemes or sizes.
                Some(2) if target.required.is_some() || target.max.is_some() => {
                    assert!(stderr.contains(&format!("target {}", target.name)), "{line}: {stderr}");
                }
                other => panic!("{line}: {other:?} {stderr}"),
            }
            // A user's own copy of the file is the same target.
            let own = run(directory.path(), &compile(&file.display().to_string()));
            assert_eq!(own.status.code(), output.status.code(), "{line} by path");
        }
    }
}

/// A model of 3 billion parameters whose weights are a hole in a file: reading them would take long, and their headers
/// are all that `estimate` may look at.
#[test]
fn an_estimate_of_three_billion_parameters_takes_less_than_a_second() {
    let (hidden, ffn, layers, vocabulary, keys) = (3072usize, 8192usize, 28usize, 128_256usize, 1024usize);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    for layer in 0..layers {
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|name| (name, vec![hidden]));
        let matrices = [
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ];
        let named = norms.into_iter().chain(matrices);
        tensors.extend(named.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    let mut end = 0u64;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>() as u64;
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": vocabulary,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500000.0,
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
    });
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.json"), config.to_string()).expect("it can be written");
    let weights = directory.path().join("model.safetensors");
    std::fs::write(&weights, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
        .expect("it can be written");
    let file = std::fs::OpenOptions::new().write(true).open(&weights).expect("it is there");
    let sparse = file.set_len(8 + header.len() as u64 + end);
    sparse.expect("the temporary directory is on a file system with sparse files");
    // The best of three: other tests run beside this one.
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let output = run(directory.path(), "estimate . --target cortex-a76 --json");
        least = least.min(start.elapsed());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(report["parameters"].as_u64().is_some_and(|count| count > 3_000_000_000), "{report}");
        assert!(report["schemes"][0]["ceiling_tokens_per_s"].as_f64().is_some_and(|rate| rate > 1.0), "{report}");
    }
    assert!(least < Duration::from_secs(1), "it took {least:?}");
}
