//! A real instruct model, SmolLM2-135M-Instruct, from its directory to artifacts: what it answers is compared with the
//! tokens that transformers gives for the same weights, recorded in tests/data/smollm2/reference.json (reference.py beside
//! it makes that file). `SLMC_SMOLLM2` names the directory, which `.ci/run` fetches by tests/data/smollm2/fetch.

use crate::support::{json, outside, root, shared, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use slmc::disk::hash::{hex, sha256};
use slmc::formats;
use slmc::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// Most tokens of an answer, as recorded.
const TOKENS: &str = "64";
/// Prompts of which the w8 artifact must begin the answer with the same sentence.
const SAME_SENTENCES: usize = 4;
/// Relative difference of the perplexity.
const PERPLEXITY_TOLERANCE: f64 = 1e-4;

/// The directory of the model; without it, a skip that says so, or a failure where outside material is required.
fn model() -> Option<PathBuf> {
    let path = std::env::var_os("SLMC_SMOLLM2").map(PathBuf::from);
    outside(path.unwrap_or_else(|| "a directory that SLMC_SMOLLM2 names".into()))
}

fn reference() -> Value {
    let text = std::fs::read_to_string(root("tests/data/smollm2/reference.json"));
    let text = text.expect("tests/data/smollm2/reference.json is part of the repository");
    serde_json::from_str(&text).expect("the recorded values are JSON")
}

fn slmc(arguments: &[&str]) -> Value {
    json(Path::new("."), arguments)
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list of tokens").iter().map(|id| id.as_u64().expect("a token")).collect()
}

/// Up to the first full stop, question mark, exclamation mark or line break.
fn first_sentence(text: &str) -> &str {
    text.split_inclusive(['.', '!', '?', '\n']).next().unwrap_or("").trim()
}

#[test]
fn a_directory_answers_with_the_tokens_of_transformers() {
    let Some(model) = model() else { return };
    let model = model.display().to_string();
    let reference = reference();
    let chats = reference["chats"].as_array().expect("chats");
    assert_eq!(chats.len(), 5, "five questions are recorded");
    for chat in chats {
        let prompt = chat["question"].as_str().expect("a question");
        let ours = slmc(&["generate", &model, "--chat", prompt, "--tokens", TOKENS]);
        assert_eq!(ours["prompt_tokens"], ids(&chat["prompt_tokens"]).len(), "{prompt}");
        let mut expected = ids(&chat["answer"]);
        if chat["ended"] == true {
            expected.pop();
        }
        assert_eq!(ids(&ours["tokens"]), expected, "{prompt}: {}", ours["text"]);
        assert_eq!(ours["text"], chat["text"], "{prompt}");
        assert_eq!(ours["stop"] == "end", chat["ended"] == true, "{prompt}");
    }
}

/// The file that it was published as, beside the directory.
fn published() -> Option<(PathBuf, PathBuf)> {
    let model = model()?;
    Some((outside(model.parent()?.join("smollm2.gguf"))?, model))
}

/// llama_cpp.py in tests/data/smollm2 records its answers on the values of the same file, in f32.
#[test]
fn the_published_file_answers_with_the_tokens_of_llama_cpp() {
    let Some((file, _)) = published() else { return };
    let recorded = std::fs::read_to_string(root("tests/data/smollm2/llama_cpp.json"));
    let recorded: Value = serde_json::from_str(&recorded.expect("it is part of the repository")).expect("JSON");
    let chats = recorded["chats"].as_array().expect("chats");
    assert_eq!(chats.len(), 5, "five questions are recorded");
    for chat in chats {
        let question = chat["question"].as_str().expect("a question");
        let ours = slmc(&["generate", &file.display().to_string(), "--chat", question, "--tokens", TOKENS]);
        assert_eq!(ids(&ours["tokens"]), ids(&chat["answer"]), "{question}: {}", ours["text"]);
    }
}

/// tests/data/smollm2/gguf.json, which dequantize.py beside it makes by gguf-py.
fn gguf_reference() -> Value {
    let text = std::fs::read_to_string(root("tests/data/smollm2/gguf.json"));
    serde_json::from_str(&text.expect("it is part of the repository")).expect("the recorded values are JSON")
}

#[test]
fn the_published_file_imports_to_the_directory_bit_for_bit() {
    let Some((file, model)) = published() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = file.display().to_string();
    succeed(directory.path(), &["import", &file, "--dtype", "f16", "-o", "half"]);
    let read = |path: &Path| std::fs::read(path.join("model.safetensors")).expect("weights");
    let (ours, theirs) = (read(&directory.path().join("half")), read(&model));
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).expect("sound"), SafeTensors::deserialize(&theirs).expect("sound"));
    assert_eq!((ours.len(), theirs.len()), (272, 272));
    for (name, tensor) in theirs.iter() {
        let imported = ours.tensor(name).unwrap_or_else(|_| panic!("{name} is missing"));
        assert_eq!((imported.dtype(), imported.shape()), (tensor.dtype(), tensor.shape()), "{name}");
        assert!(imported.data() == tensor.data(), "{name}: the values differ");
    }
    let config = |path: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(path.join("config.json")).expect("a configuration")).expect("JSON")
    };
    let (ours, theirs) = (config(&directory.path().join("half")), config(&model));
    for (key, value) in theirs.as_object().expect("an object") {
        assert_eq!(&ours[key], value, "{key}");
    }
}

#[test]
fn the_published_file_is_its_own_import() {
    let (Some((file, _)), Some(text)) = (published(), shared("data/stories-valid.txt")) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = file.display().to_string();
    succeed(directory.path(), &["import", &file, "-o", "single"]);
    let single = directory.path().join("single");
    let bytes = std::fs::read(single.join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("sound");
    let mut names = tensors.names();
    names.sort_unstable();
    let digests: String = names
        .iter()
        .map(|name| format!("{name} {}\n", hex(&sha256(tensors.tensor(name).expect("it is listed").data()))))
        .collect();
    assert_eq!(hex(&sha256(digests.as_bytes())), gguf_reference()["values_sha256"], "gguf-py has other values");
    let (single, text) = (single.display().to_string(), text.display().to_string());
    // Every logit of 2 × 255 positions is in it.
    let measured = |model: &str| slmc(&["eval", model, "--data", &text, "--window", "256", "--max-windows", "2"]);
    assert_eq!(measured(&file)["perplexity"], measured(&single)["perplexity"]);
    let of_reference = slmc(&["eval", &file, "--data", &text, "--max-windows", "1", "--reference", &single]);
    assert_eq!((&of_reference["kld_mean"], &of_reference["top1_agreement"]), (&0.0.into(), &1.0.into()));
}

#[test]
fn the_tokenizer_of_the_published_file_gives_the_same_tokens() {
    let Some((file, model)) = published() else { return };
    let tokenizer = |path: &Path| Tokenizer::of(&formats::companions(path).expect("sound")).expect("a tokenizer");
    let (ours, theirs) = (tokenizer(&file), tokenizer(&model));
    let texts = ["data/stories-valid.txt", "data/tales-valid.txt", "data/stories-calib.txt", "README.md"];
    let mut tokens = 0;
    for path in texts.into_iter().filter_map(shared) {
        let text = std::fs::read_to_string(&path).expect("reads");
        let ids = ours.encode_plain(&text).expect("it encodes");
        assert!(ids == theirs.encode_plain(&text).expect("it encodes"), "{}", path.display());
        tokens += ids.len();
    }
    assert!(tokens > 100_000, "the texts are long enough to say something: {tokens} tokens");
    for chat in reference()["chats"].as_array().expect("chats") {
        let prompt = chat["prompt"].as_str().expect("a prompt");
        let expected: Vec<u32> = ids(&chat["prompt_tokens"]).into_iter().map(|id| id as u32).collect();
        assert_eq!(ours.encode_plain(prompt).expect("it encodes"), expected, "{prompt}");
    }
}

#[test]
fn its_perplexity_is_that_of_transformers() {
    let (Some(model), Some(text)) = (model(), shared("data/stories-valid.txt")) else { return };
    let reference = &reference()["text"];
    let ours = slmc(&[
        "eval",
        &model.display().to_string(),
        "--data",
        &text.display().to_string(),
        "--window",
        "256",
        "--max-windows",
        "64",
        "--windows",
        "first",
    ]);
    assert_eq!(ours["windows"], reference["windows"]);
    let (ours, expected) =
        (ours["perplexity"].as_f64().expect("a number"), reference["perplexity"].as_f64().expect("one"));
    assert!((ours / expected - 1.0).abs() <= PERPLEXITY_TOLERANCE, "{ours}, transformers {expected}");
}

#[test]
fn its_artifacts_answer_alike_on_every_target() {
    let (Some(model), Some(text)) = (model(), shared("data/stories-valid.txt")) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (model, text) = (model.display().to_string(), text.display().to_string());
    slmc(&["quantize", &model, "--scheme", "w8", "--method", "rtn", "-o", &path("w8")]);
    let mut digests = Vec::new();
    for target in ["x86-64-v3", "cortex-a76"] {
        let artifact = path(&format!("{target}.slm"));
        let compiled = slmc(&["compile", &path("w8"), "--target", target, "--context", "512", "-o", &artifact]);
        digests.push(compiled["golden_sha256"].clone());
        slmc(&["verify", &artifact]);
    }
    assert_eq!(digests[0], digests[1], "the logits do not depend on the target");
    let artifact = path("x86-64-v3.slm");
    let inspected = slmc(&["inspect", &artifact]);
    assert_eq!(inspected["opening_tokens"], serde_json::json!([]), "its tokenizer opens a text with nothing");
    assert_eq!((&inspected["end_tokens"], &inspected["chat_template"]), (&serde_json::json!([2]), &true.into()));
    let measured =
        slmc(&["eval", &artifact, "--data", &text, "--max-windows", "4", "--windows", "first", "--reference", &model]);
    let kld = measured["kld_mean"].as_f64().expect("a number");
    assert!(kld < 0.02, "w8 is near its original: KLD {kld}");
    let reference = reference();
    let mut same = 0;
    for chat in reference["chats"].as_array().expect("chats") {
        let prompt = chat["question"].as_str().expect("a question");
        let ours = slmc(&["generate", &artifact, "--chat", prompt, "--tokens", TOKENS]);
        let (ours, theirs) = (ours["text"].as_str().expect("text"), chat["text"].as_str().expect("text"));
        same += usize::from(first_sentence(ours) == first_sentence(theirs));
    }
    assert!(same >= SAME_SENTENCES, "{same} of 5 first sentences equal transformers'");
}
