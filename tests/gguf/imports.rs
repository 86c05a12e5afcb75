//! `slmc import`: what is written equals what was opened, in every data type, and commands take the file itself.

use super::draft::{Draft, Field};
use super::{EQUAL, data, logits, same_values};
use crate::fixture::{LETTERS, letters};
use crate::support::{json, refused, succeed};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use slmc::formats::open_model;
use slmc::model::weights::Parameter;
use std::path::Path;

#[test]
fn an_import_is_the_model_that_was_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in EQUAL.into_iter().chain(["llama-mha"]) {
        let file = data(&format!("{name}.gguf"));
        let out = directory.path().join(name);
        let report = json(directory.path(), &["import", &file.display().to_string(), "-o", name]);
        assert_eq!((&report["format"], &report["dtype"]), (&json!("GGUF file"), &json!("f32")), "{name}");
        let (opened, imported) = (open_model(&file).expect("it opens"), open_model(&out).expect("it is sound"));
        assert_eq!(imported.spec, opened.spec, "{name}");
        same_values(&imported, &opened, name);
        assert!(logits(&imported) == logits(&opened), "{name}: logits differ");
        let again = json(directory.path(), &["import", &out.display().to_string(), "-o", "again"]);
        assert_eq!(again["dtype"], "f32");
        let weights = |path: &Path| std::fs::read(path.join("model.safetensors")).expect("weights");
        assert!(weights(&directory.path().join("again")) == weights(&out), "{name}: a directory imports as it is");
    }
}

/// To the nearest value of a type.
type Rounding = fn(f32) -> f32;

#[test]
fn values_are_rounded_to_the_type_that_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = data("llama-mha.gguf");
    let opened = open_model(&file).expect("it opens");
    let types: [(&str, Rounding); 3] = [
        ("f32", |value| value),
        ("f16", |value| f16::from_f32(value).to_f32()),
        ("bf16", |value| bf16::from_f32(value).to_f32()),
    ];
    for (dtype, round) in types {
        succeed(directory.path(), &["import", &file.display().to_string(), "--dtype", dtype, "-o", dtype]);
        let imported = open_model(&directory.path().join(dtype)).expect("it is sound");
        for (id, parameter) in &imported.parameters {
            let Parameter::Dense(tensor) = parameter else { panic!("{id} is dense") };
            assert_eq!(tensor.dtype().to_string().to_lowercase(), dtype, "{id}");
            let ours = imported.values_f32(*id).expect("finite");
            let expected = opened.values_f32(*id).expect("finite");
            assert!(ours.iter().zip(&expected).all(|(ours, value)| *ours == round(*value)), "{id} as {dtype}");
        }
    }
    let large = Draft::llama().changed("output_norm.weight", |t| t.data[..4].copy_from_slice(&1e6f32.to_le_bytes()));
    std::fs::write(directory.path().join("large.gguf"), large.bytes()).expect("writes");
    let expected = "has the value 1000000, which is beyond the numbers of F16";
    refused(directory.path(), "import large.gguf --dtype f16 -o large", expected);
    assert!(!directory.path().join("large").exists(), "nothing is written");
    succeed(directory.path(), "import large.gguf --dtype bf16 -o large");
}

#[test]
fn commands_take_the_file_where_they_take_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    // The letters' tokenizer as it stands, by the key for that.
    let talking = Draft::with_vocabulary(LETTERS as u64)
        .with("tokenizer.huggingface.json", Field::Text(letters().to_string()))
        .with("tokenizer.ggml.eos_token_id", Field::U32(2));
    std::fs::write(at.join("m.gguf"), talking.bytes()).expect("writes");
    std::fs::write(at.join("text.txt"), "a fox and a dog.\n".repeat(60)).expect("writes");
    let inspected = json(at, "inspect m.gguf");
    assert_eq!((&inspected["family"], &inspected["tokenizer_ids"]), (&json!("llama"), &json!(LETTERS)));
    assert_eq!(inspected["stored"][0]["stored"], "Q8_0");
    let estimated = json(at, "estimate m.gguf");
    assert_eq!(estimated["stored"], inspected["stored"]);
    succeed(at, "import m.gguf -o dense");
    for (line, same) in [
        ("eval MODEL --data text.txt --window 8", "perplexity"),
        ("generate MODEL --prompt 'a fox' --tokens 5", "tokens"),
    ] {
        let of = |model: &str| json(at, &line.replace("MODEL", model))[same].clone();
        assert_eq!(of("m.gguf"), of("dense"), "{line}");
    }
    for line in [
        "quantize MODEL --scheme w8 --tune 0 --calibration text.txt -o OUT",
        "prune MODEL --pattern 2:4 --method magnitude -o OUT",
        "train MODEL --data text.txt --tokens 64 --window 8 --batch 2 -o OUT",
    ] {
        let made = |model: &str, out: &str| {
            succeed(at, &line.replace("MODEL", model).replace("OUT", out));
            let weights = std::fs::read(at.join(out).join("model.safetensors")).expect("weights");
            std::fs::remove_dir_all(at.join(out)).expect("removes");
            weights
        };
        assert!(made("m.gguf", "of-file") == made("dense", "of-directory"), "{line}");
    }
    let recipe = r#"
version = 1

[model]
path = "m.gguf"

[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"

[stages.dense]
kind = "import"
input = "model"
dtype = "f16"
"#;
    std::fs::write(at.join("recipe.toml"), recipe).expect("writes");
    succeed(at, "run recipe.toml");
}

#[test]
fn a_tokenizer_from_elsewhere_takes_the_place_of_one_that_cannot_be_rebuilt() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let draft = Draft::llama().with("tokenizer.ggml.model", Field::Text("t5".to_owned()));
    std::fs::write(at.join("m.gguf"), draft.bytes()).expect("writes");
    // The first letters alone: the model has eight rows.
    let mut few = letters();
    let vocabulary = few["model"]["vocab"].as_object().expect("a vocabulary").iter();
    let kept: Map<String, Value> = vocabulary
        .filter(|(_, id)| id.as_u64().is_some_and(|id| id < 8))
        .map(|(token, id)| (token.clone(), id.clone()))
        .collect();
    few["model"]["vocab"] = kept.into();
    few["model"]["merges"] = json!([]);
    for (name, tokenizer) in [("few", few), ("many", letters())] {
        std::fs::create_dir(at.join(name)).expect("creates");
        std::fs::write(at.join(name).join("tokenizer.json"), tokenizer.to_string()).expect("writes");
    }
    refused(at, "generate m.gguf --prompt abc", "the tokenizer cannot be rebuilt: `tokenizer.ggml.model` is `t5`");
    succeed(at, "import m.gguf -o bare");
    assert!(!at.join("bare/tokenizer.json").exists());
    succeed(at, "import m.gguf --tokenizer few -o dense");
    assert!(at.join("dense/tokenizer.json").exists());
    succeed(at, "generate m.gguf --prompt abc --tokenizer few --tokens 2");
    refused(at, "import m.gguf --tokenizer many -o out", "has 32 ids and the model a vocabulary of 8");
    refused(at, "import m.gguf --max-ram 1MiB -o out", "importing needs about");
    assert!(!at.join("out").exists());
}
