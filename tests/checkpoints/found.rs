//! Paths that are not quite a model: each is refused with what is there, and where the model is.

use super::copied;
use crate::support::{golden, refused};
use slmc::formats::{open, open_model};
use std::fs;
use std::path::Path;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n";

fn expect(path: &Path, fragments: &[&str]) {
    let error = open(path).err().expect("refused").to_string();
    fragments.iter().for_each(|fragment| assert!(error.contains(fragment), "expected {fragment:?} in: {error}"));
}

/// A directory with a llama's config.json and these files, without weights.
fn with_files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = copied(&golden("llama-mha"));
    fs::remove_file(directory.path().join("model.safetensors")).expect("it is there");
    files.iter().for_each(|(name, content)| fs::write(directory.path().join(name), content).expect("writes"));
    directory
}

/// Files by name and content, and the parts that the message has.
type Case<'c> = (&'c [(&'c str, &'c str)], &'c [&'c str]);

#[test]
fn directories_without_a_model_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let remedy = "pass a directory with config.json and model.safetensors, or a GGUF file";
    expect(directory.path(), &["holds no file of a model;", remedy]);
    for name in ["README.md", "a.txt", "b.txt", "c.txt"] {
        fs::write(directory.path().join(name), "words").expect("writes");
    }
    expect(directory.path(), &["holds no file of a model, only `README.md`, `a.txt`, `b.txt` and 1 more", remedy]);
    for name in ["one.gguf", "two.gguf"] {
        fs::write(directory.path().join(name), "GGUF").expect("writes");
    }
    expect(
        directory.path(),
        &["`one.gguf` and `two.gguf` are", "pass the GGUF file itself, of a model in several the first"],
    );
    // An adapter's weights alone.
    let adapter = tempfile::tempdir().expect("a directory");
    fs::write(adapter.path().join("adapter_model.safetensors"), "").expect("writes");
    expect(adapter.path(), &["an adapter needs its adapter_config.json too", "--base DIR"]);
    // More models below than a message can name.
    let many = tempfile::tempdir().expect("a directory");
    for name in ["a", "b", "c", "d", "e"] {
        fs::create_dir(many.path().join(name)).expect("makes");
        fs::write(many.path().join(name).join("config.json"), "{}").expect("writes");
    }
    expect(many.path(), &["config.json is not there, but in", "and 2 more; pass that directory"]);
}

#[test]
fn weights_of_other_kinds_are_named_with_the_remedy() {
    let adapter = r#"{"base_model_name_or_path": "org/base", "peft_type": "LORA"}"#;
    let cases: [Case<'_>; 9] = [
        (&[("pytorch_model.bin", "PK")], &["`pytorch_model.bin` is", "pickled checkpoints", "save_pretrained"]),
        (
            &[("pytorch_model-00001-of-00002.bin", ""), ("pytorch_model-00002-of-00002.bin", ""), ("optimizer.pt", "")],
            &["`pytorch_model-00001-of-00002.bin` and `pytorch_model-00002-of-00002.bin` are", "pickled"],
        ),
        (&[("model-q4.gguf", "GGUF")], &["`model-q4.gguf` is", "pass the GGUF file itself"]),
        (&[("tf_model.h5", "")], &["`tf_model.h5` is", "from_tf"]),
        (&[("model.onnx", "")], &["`model.onnx` is", "exported graph"]),
        (
            &[("model-00001-of-00002.safetensors", "")],
            &["model-00001-of-00002.safetensors", "model.safetensors.index.json that lists"],
        ),
        (
            &[("adapter_config.json", adapter), ("adapter_model.safetensors", "")],
            &["an adapter of `org/base`", "--base DIR"],
        ),
        (&[("training_args.bin", "")], &["neither model.safetensors nor model.safetensors.index.json is there; save"]),
        (
            &[("model.safetensors", POINTER)],
            &["model.safetensors: a Git LFS pointer, not the file of 269060552 bytes", "git lfs pull"],
        ),
    ];
    for (files, expected) in cases {
        expect(with_files(files).path(), expected);
    }
    // An adapter has no config.json at all.
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("adapter_config.json"), adapter).expect("writes");
    expect(directory.path(), &["an adapter of `org/base`", "--base DIR"]);
    fs::remove_file(directory.path().join("adapter_config.json")).expect("removes");
    fs::write(directory.path().join("consolidated.00.pth"), "").expect("writes");
    expect(directory.path(), &["config.json is not there, but `consolidated.00.pth` is", "pickled"]);
}

#[test]
fn the_directory_of_the_model_is_named_where_it_is_near() {
    let parent = tempfile::tempdir().expect("a directory");
    let cache = parent.path().join("models--org--name");
    let snapshot = cache.join("snapshots/5cc2b4a9");
    fs::create_dir_all(&snapshot).expect("creates");
    fs::create_dir_all(cache.join("blobs")).expect("creates");
    fs::create_dir_all(snapshot.join("1_Pooling")).expect("creates");
    fs::create_dir_all(snapshot.join("onnx")).expect("creates");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden("bert-encoder").join(name), snapshot.join(name)).expect("copies");
    }
    let here = snapshot.display().to_string();
    expect(&cache, &["config.json is not there, but in", &here, "pass that directory"]);
    expect(&cache.join("snapshots"), &[&here]);
    expect(&snapshot.join("onnx"), &["but in", &here]);
    fs::write(snapshot.join("1_Pooling/config.json"), r#"{"pooling_mode_cls_token": true}"#).expect("writes");
    expect(&snapshot.join("1_Pooling"), &["a part of a model, which is in", &here]);
    expect(
        &snapshot.join("config.json"),
        &["config.json: not a directory; pass the directory with config.json", &here],
    );
    expect(&snapshot.join("model.safetensors"), &["model.safetensors: not a directory", &here]);
    open_model(&snapshot).expect("that directory is it");
    expect(&parent.path().join("none"), &["none: does not exist; pass a directory"]);
    let error = open(Path::new("Qwen/Qwen3-0.6B")).err().expect("refused").to_string();
    assert!(error.contains("does not exist") && error.contains("slmc downloads nothing"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    for name in ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json"] {
        let directory = copied(&golden("llama-mha"));
        let file = directory.path().join(name);
        let _ = fs::remove_file(&file);
        symlink("../../blobs/4d7a", &file).expect("links");
        expect(directory.path(), &[name, ": a link to ../../blobs/4d7a, which does not exist"]);
    }
    let directory = copied(&golden("llama-bf16-sharded"));
    let shard = directory.path().join("model-00002-of-00002.safetensors");
    fs::remove_file(&shard).expect("removes");
    symlink("gone", &shard).expect("links");
    expect(directory.path(), &["model-00002-of-00002.safetensors: a link to gone"]);
}

#[test]
fn files_that_are_something_else_are_named() {
    for (name, content, expected) in [
        ("config.json", POINTER, "config.json: a Git LFS pointer"),
        ("config.json", "<!DOCTYPE html><html>", "config.json: a web page"),
        ("generation_config.json", POINTER, "generation_config.json: a Git LFS pointer"),
        ("tokenizer.json", POINTER, "tokenizer.json: a Git LFS pointer"),
        ("tokenizer.json", "", "tokenizer.json: empty"),
        ("model.safetensors", "<!doctype html><title>Not found</title>", "model.safetensors: a web page"),
        ("model.safetensors", "PK\u{3}\u{4}\u{14}\0\u{8}\u{8}\u{8}\u{8}", "model.safetensors: Python objects"),
    ] {
        let directory = copied(&golden("llama-mha"));
        fs::write(directory.path().join(name), content).expect("writes");
        expect(directory.path(), &[expected]);
    }
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content, expected) in [
        ("m.gguf", "GGUF\u{3}\0\0\0", "m.gguf: not a valid GGUF file"),
        ("m.bin", "PK\u{3}\u{4}", "m.bin: Python objects"),
        ("m.slm", POINTER, "m.slm: a Git LFS pointer"),
    ] {
        fs::write(directory.path().join(name), content).expect("writes");
        expect(&directory.path().join(name), &[expected]);
        refused(directory.path(), &format!("generate {name} --prompt x"), expected);
    }
}
