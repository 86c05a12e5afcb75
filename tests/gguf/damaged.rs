//! Damaged, lying and foreign files: each is refused with an error that names the file, the key or the tensor, and none makes
//! the reader panic.

use super::draft::{Draft, DraftTensor, Field, HIDDEN};
use super::{EQUAL, data};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use slmc::formats::{open_model, open_outline};
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// Opens and reads every value; the error in words.
fn read(path: &Path) -> Result<(), String> {
    let model = open_model(path).map_err(|error| error.to_string())?;
    for id in model.parameters.keys() {
        model.values_f32(*id).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn refused(draft: &Draft) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    fs::write(&path, draft.bytes()).expect("writes");
    let error = read(&path).expect_err("it is refused");
    assert!(error.contains("model.gguf"), "{error}");
    error
}

fn expect(cases: Vec<(Draft, &[&str])>) {
    for (draft, expected) in cases {
        let error = refused(&draft);
        for part in expected {
            assert!(error.contains(part), "expected {part:?} in {error}");
        }
    }
}

#[test]
fn the_draft_itself_is_sound() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    for version in [2, 3] {
        fs::write(&path, Draft { version, ..Draft::llama() }.bytes()).expect("writes");
        read(&path).expect("it opens");
    }
    // The keys say an alignment that the offsets do not have.
    let apart = Draft::llama().with("general.alignment", Field::U32(4096));
    assert!(refused(&apart).contains("each at a multiple of 4096"));
}

#[test]
fn containers_that_lie_are_refused_by_part() {
    let norm = "output_norm.weight";
    let query = "blk.0.attn_q.weight";
    let raw = |kind: u32, bytes: &[u8]| Field::Raw(kind, bytes.to_vec());
    let array = |kind: u32, count: u64| raw(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes()].concat());
    let llama = Draft::llama;
    expect(vec![
        (Draft { version: 1, ..llama() }, &["GGUF version 1; slmc reads 2 and 3"]),
        (Draft { version: 0x0300_0000, ..llama() }, &["big-endian"]),
        (Draft { counts: Some((u64::MAX, 8)), ..llama() }, &["not a valid GGUF file"]),
        (Draft { counts: Some((11, u64::MAX)), ..llama() }, &["not a valid GGUF file"]),
        (llama().with("x", array(0, u64::MAX)), &["`x`", "of which"]),
        (llama().with("x", array(12, u64::MAX)), &["`x` has 18446744073709551615 elements"]),
        (llama().with("x", array(8, u64::MAX)), &["the array `x` takes"]),
        (llama().with("x", array(9, 1)), &["`x` is an array of arrays"]),
        (llama().with("x", array(13, 1)), &["`x` is an array of type 13"]),
        (llama().with("x", raw(13, &[])), &["`x` has a value of type 13"]),
        (llama().with("x", raw(7, &[2])), &["`x` is a truth value of 2"]),
        (llama().with("x", raw(8, &u64::MAX.to_le_bytes())), &["the value of `x` takes"]),
        (llama().with("x", raw(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff])), &["the value of `x` is not UTF-8"]),
        (llama().with("", Field::U32(1)), &["has no name"]),
        (llama().with("general.alignment", Field::U32(24)), &["`general.alignment` is 24, expected a power of two"]),
        (llama().with("general.alignment", Field::U32(0)), &["`general.alignment` is 0"]),
        (llama().with("general.alignment", Field::Text("32".to_owned())), &["`general.alignment` is \"32\""]),
        (llama().changed(norm, |t| t.kind = 16), &[norm, "is stored as IQ2_XXS"]),
        (llama().changed(norm, |t| t.kind = 99), &[norm, "type 99, which is unknown"]),
        (llama().changed(norm, |t| t.dimensions = vec![]), &[norm, "has 0 dimensions"]),
        (llama().changed(norm, |t| t.dimensions = vec![1; 5]), &[norm, "has 5 dimensions"]),
        (llama().changed(norm, |t| t.dimensions = vec![0]), &[norm, "the impossible shape"]),
        (llama().changed(norm, |t| t.dimensions = vec![2, u64::MAX]), &[norm, "the impossible shape"]),
        (llama().changed(norm, |t| t.dimensions = vec![1 << 40, 1 << 20]), &[norm, "truncated"]),
        (llama().changed(norm, |t| t.offset = Some(0)), &[norm, "starts at byte 0 of the data, expected"]),
        (llama().changed(norm, |t| t.offset = Some(u64::MAX)), &[norm, "starts at byte"]),
        (llama().changed(norm, |t| t.dimensions = vec![1 << 30]), &[norm, "truncated"]),
        (llama().changed(query, |t| t.dimensions = vec![16, 64]), &[query, "rows of 16 values", "do not divide"]),
        (llama().changed(query, |t| t.kind = 12), &["blocks of 256 do not divide (Q4_K)"]),
        (llama().changed(query, |t| t.kind = 2), &["starts at byte"]),
        (llama().changed(norm, |t| t.name = "x".repeat(64)), &["has 64 bytes, expected 1 to 63"]),
        (llama().changed(norm, |t| t.name = query.to_owned()), &[query, "stands there twice"]),
    ]);
    let mut twice = llama();
    twice.keys.push(("llama.block_count".to_owned(), Field::U32(1)));
    assert!(refused(&twice).contains("key `llama.block_count` stands there twice"));
}

#[test]
fn keys_that_do_not_make_a_model_are_named() {
    let llama = Draft::llama;
    let text = |text: &str| Field::Text(text.to_owned());
    let with = |key: &str, value: Field| llama().with(&format!("llama.{key}"), value);
    expect(vec![
        (llama().with("general.architecture", text("mamba")), &["`general.architecture` is `mamba`", "llama, qwen2"]),
        (llama().without("general.architecture"), &["key `general.architecture` is missing"]),
        (llama().with("general.type", text("adapter")), &["`general.type` is `adapter`"]),
        (llama().without("llama.block_count"), &["key `llama.block_count` is missing"]),
        (with("block_count", Field::U32(70_000)), &["`llama.block_count` is 70000, expected at most 65535"]),
        (with("block_count", Field::U32(2)), &["tensor `blk.1.attn_q.weight` is missing", "[32, 32]"]),
        (with("block_count", text("1")), &["`llama.block_count` is \"1\""]),
        (with("attention.head_count", Field::U32(0)), &["`llama.attention.head_count` is 0"]),
        (with("attention.head_count", Field::U32(3)), &["llama.attention.key_length"]),
        (with("attention.head_count", Field::U32(32)), &["an even width"]),
        (with("attention.key_length", Field::U32(20)), &["blk.0.attn_q.weight", "[32, 32], expected [40, 32]"]),
        (with("attention.value_length", Field::U32(20)), &["`llama.attention.value_length` is 20, expected 16"]),
        (with("attention.head_count_kv", Field::I32s(vec![2, 1])), &["head_count_kv", "1 of them"]),
        (with("attention.layer_norm_rms_epsilon", Field::F32(f32::NAN)), &["layer_norm_rms_epsilon"]),
        (with("expert_count", Field::U32(8)), &["`llama.expert_count` is 8, expected 0"]),
        (with("logit_scale", Field::F32(2.0)), &["key `llama.logit_scale` is not one that slmc knows"]),
        (with("rope.dimension_count", Field::U32(8)), &["`llama.rope.dimension_count` is 8, expected 16"]),
        (with("rope.scaling.type", text("yarn")), &["`llama.rope.scaling.type` is \"yarn\""]),
        (with("rope.scale_linear", Field::F32(4.0)), &["`llama.rope.scale_linear` is 4"]),
        (with("vocab_size", Field::U32(9)), &["`llama.vocab_size` is 9, expected 8, the rows of"]),
        (with("attention.causal", Field::Flag(false)), &["`llama.attention.causal` is false, expected true"]),
        (with("pooling_type", Field::U32(1)), &["`llama.pooling_type` is 1, expected 0: slmc has no other pooling"]),
    ]);
}

#[test]
fn tensors_that_do_not_make_a_model_are_named() {
    let llama = Draft::llama;
    let gone = |tensor: &str| {
        let mut draft = llama();
        draft.tensors.retain(|other| other.name != tensor);
        draft
    };
    let further = |tensor: DraftTensor| {
        let mut draft = llama();
        draft.tensors.push(tensor);
        draft
    };
    let norm = llama().tensors.pop().expect("the last norm");
    let quarter = (0..HIDDEN / 4).flat_map(|n| (1.0 + n as f32 * n as f32).to_le_bytes()).collect();
    let frequencies = DraftTensor {
        name: "rope_freqs.weight".to_owned(),
        dimensions: vec![HIDDEN / 4],
        kind: 0,
        offset: None,
        data: quarter,
    };
    let up = "blk.0.ffn_up.weight";
    expect(vec![
        (gone("token_embd.weight"), &["tensor `token_embd.weight` is missing or is not a matrix, expected rows of 32"]),
        (gone("output_norm.weight"), &["tensor `output_norm.weight` is missing, expected shape [32]"]),
        (llama().changed(up, |t| t.dimensions = vec![64, 32]), &[up, "[32, 64], expected [64, 32]"]),
        (llama().changed(up, |t| t.data[..2].copy_from_slice(&[0, 0x7c])), &[up, "element ", "a finite number"]),
        (
            further(DraftTensor { name: "blk.0.attn_sinks.weight".to_owned(), ..norm }),
            &["tensor `blk.0.attn_sinks.weight` has no place in llama"],
        ),
        (further(frequencies), &["`rope_freqs.weight` holds frequencies that Llama 3's scaling does not give"]),
    ]);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    let whole = Draft::llama().bytes();
    for length in (4..whole.len()).filter(|n| *n < 1600 || n % 37 == 0) {
        fs::write(&path, &whole[..length]).expect("writes");
        let error = open_outline(&path).expect_err("truncated").to_string();
        assert!(error.contains("model.gguf"), "{length}: {error}");
    }
}

/// Whatever a few bytes become, a model or an error comes of it.
#[test]
fn mutated_files_never_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let names = EQUAL.into_iter().chain(["llama-mha", "spm", "bpe-llama-bpe", "wpm"]);
    let mut files: Vec<Vec<u8>> = names.map(|name| fs::read(data(&format!("{name}.gguf"))).expect("reads")).collect();
    files.push(Draft::llama().bytes());
    let byte = (any::<u32>(), prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0xff), any::<u8>()]);
    let mutations = (0..files.len(), proptest::collection::vec(byte, 1..5));
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    let path = directory.path().join("model.gguf");
    let (opened, failed) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&mutations, |(file, changes)| {
        let mut bytes = files[file].clone();
        // Header, keys and descriptions are in the first kilobytes.
        let most = bytes.len().min(6000);
        for (at, value) in changes {
            bytes[at as usize % most] = value;
        }
        // Anew: what still maps the one before keeps its bytes.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).expect("writes");
        let tally = if read(&path).is_ok() { &opened } else { &failed };
        tally.set(tally.get() + 1);
        let _ = slmc::formats::companions(&path);
        Ok(())
    });
    outcome.expect("nothing panics");
    let (opened, failed) = (opened.get(), failed.get());
    assert!(opened > 50 && failed > 300, "the mutations reach both ends: {opened} opened, {failed} refused");
}
