//! The cache of keys and values: rings of sliding windows give the bits of the whole cache, values in 4 bits give the same
//! bits on every kernel and for any chunking, and a saved sequence goes on as the one that was saved.

use crate::fixture::{self, Family, Size};
use crate::reference::quantize_model;
use crate::support::{golden, json, refused};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::{LayerCacheFormat, LayerRecord, ModelRecord};
use slm_runtime::kernels::{Kernels, SCALAR, available};
use slm_runtime::layout::Layout;
use slm_runtime::plan::Plan;
use slm_runtime::sample::random_u64;
use slm_runtime::session::{Session, SnapshotError};
use slm_runtime::sha256::Sha256;
use slmc::artifact::host::SessionMemory;
use slmc::compile::AskedSections;
use slmc::compile::kv::KvFormat;
use slmc::formats::open_model;
use slmc::model::scheme::QuantScheme;
use slmc::model::spec::{AttentionSpec, Mixer};
use slmc::target::Target;
use std::path::Path;

const CONTEXT: usize = 96;

/// The artifact of a golden checkpoint with keys and values in a format.
fn artifact(name: &str, kv: KvFormat) -> Vec<u8> {
    let model = open_model(&golden(name)).expect("it opens");
    let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
    let target = Target::unlimited("test", Layout::R8K4Offset8);
    let asked = AskedSections { kv, ..AskedSections::default() };
    fixture::compiled_with(&quantized, &target, Some(CONTEXT), asked).bytes
}

fn tokens(vocabulary: u32, count: usize) -> Vec<u32> {
    (0..count as u64).map(|n| (random_u64(11, n) % u64::from(vocabulary)) as u32).collect()
}

fn logits(artifact: &[u8], kernels: &'static Kernels, piece: usize) -> Vec<u32> {
    let view = ArtifactView::open(artifact).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, kernels, memory.as_mut_slice()).expect("the memory is the planned one");
    let mut bits = Vec::new();
    for piece in tokens(view.spec().vocabulary, CONTEXT).chunks(piece) {
        let mut keep = |_: usize, row: &[f32]| bits.extend(row.iter().map(|value| value.to_bits()));
        session.run(piece, &mut keep).expect("the tokens run");
    }
    bits
}

/// The tables that run the layout of the target.
fn tables() -> Vec<&'static Kernels> {
    available().filter(|table| table.layout.is_none_or(|layout| layout == Layout::R8K4Offset8)).collect()
}

/// The artifact with a cache that holds every position, digests aside.
fn with_whole_cache(artifact: &[u8]) -> Vec<u8> {
    let view = ArtifactView::open(artifact).expect("it is sound");
    let section = view.section_records().find(|record| record.kind == SectionKind::Spec as u32).expect("it has one");
    let layers: Vec<LayerRecord> =
        (0..view.spec().layers as usize).map(|index| LayerRecord { cache_format: 0, ..view.layer(index) }).collect();
    let plan = Plan::new(view.spec(), layers.iter().copied()).expect("a small plan");
    let model = ModelRecord { arena_bytes: plan.arena_bytes, cache_bytes: plan.cache_bytes, ..*view.spec() };
    let mut bytes = artifact.to_vec();
    let spec: Vec<u8> = model.to_bytes().into_iter().chain(layers.iter().flat_map(LayerRecord::to_bytes)).collect();
    bytes[section.offset as usize..][..spec.len()].copy_from_slice(&spec);
    bytes
}

#[test]
fn a_ring_gives_the_bits_of_the_whole_cache_in_less_memory() {
    let ring = artifact("mistral-sliding-window-8", KvFormat::Int8);
    let view = ArtifactView::open(&ring).expect("it is sound");
    let format = |index: usize| LayerCacheFormat::from_number(view.layer(index).cache_format).expect("known");
    assert!((0..view.spec().layers as usize).all(|layer| format(layer).is_ring()));
    let whole = with_whole_cache(&ring);
    let other = ArtifactView::open(&whole).expect("it is sound");
    // A window of 8 and chunks of 64: 71 of 96 positions.
    let (held, all) = (view.spec().cache_bytes as f64, other.spec().cache_bytes as f64);
    assert!(held < 0.8 * all, "{held} of {all} bytes");
    let expected = logits(&whole, &SCALAR, CONTEXT);
    for kernels in tables() {
        for piece in [1, 5, 64, CONTEXT] {
            assert!(logits(&ring, kernels, piece) == expected, "{}, pieces of {piece}", kernels.name);
        }
    }
}

#[test]
fn values_in_four_bits_are_the_same_bits_everywhere_and_near_the_others() {
    for name in ["llama-gqa-tied", "mistral-sliding-window-8", "lfm2-short-conv"] {
        let (eight, four) = (artifact(name, KvFormat::Int8), artifact(name, KvFormat::Nibbles));
        let (of_eight, of_four) = (logits(&eight, &SCALAR, CONTEXT), logits(&four, &SCALAR, CONTEXT));
        for kernels in tables() {
            for piece in [1, 7, 64] {
                assert!(logits(&four, kernels, piece) == of_four, "{name}, {}, pieces of {piece}", kernels.name);
            }
        }
        let float = |bits: &[u32]| -> Vec<f64> { bits.iter().map(|&bits| f64::from(f32::from_bits(bits))).collect() };
        let (a, b) = (float(&of_eight), float(&of_four));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let apart = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
        assert!(apart > 0.0 && apart < 0.15, "{name}: {apart}");
        let bytes = |artifact: &[u8]| ArtifactView::open(artifact).expect("it is sound").spec().cache_bytes;
        assert!(bytes(&four) < bytes(&eight), "{name}");
    }
    // Of some layers only: between the two.
    let some = artifact("llama-gqa-tied", KvFormat::NibblesOf(0, 0));
    let view = ArtifactView::open(&some).expect("it is sound");
    let nibbles: Vec<bool> = (0..view.spec().layers as usize)
        .map(|layer| LayerCacheFormat::from_number(view.layer(layer).cache_format).expect("known").has_nibble_values())
        .collect();
    assert_eq!(nibbles, [true, false, false]);
}

/// Takes a session through some tokens and returns the bits of the last logits.
fn read(session: &mut Session<'_, '_>, tokens: &[u32]) -> Vec<u32> {
    session.step(tokens).expect("the tokens run").iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_saved_sequence_goes_on() {
    let (int8, nibbles) = (KvFormat::Int8, KvFormat::Nibbles);
    for (name, kv) in [
        ("llama-gqa-tied", int8),
        ("llama-gqa-tied", nibbles),
        ("mistral-sliding-window-8", int8),
        ("lfm2-short-conv", int8),
    ] {
        let bytes = artifact(name, kv);
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let tokens = tokens(view.spec().vocabulary, CONTEXT);
        let mut memory = [SessionMemory::for_artifact(&view), SessionMemory::for_artifact(&view)];
        let [first, second] = &mut memory;
        let mut session = Session::new(&view, &SCALAR, first.as_mut_slice()).expect("the memory is right");
        let mut other = Session::new(&view, &SCALAR, second.as_mut_slice()).expect("the memory is right");
        for length in [0, 1, 40, 80] {
            session.reset();
            if length > 0 {
                session.read(&tokens[..length]).expect("the tokens run");
            }
            let mut snapshot = vec![0; session.snapshot_bytes() as usize];
            session.save(&mut snapshot).expect("the place is right");
            let short = session.save(&mut vec![0; snapshot.len() - 1]);
            assert!(matches!(short, Err(SnapshotError::Length { .. })), "{short:?}");
            other.reset();
            other.read(&tokens[50..90]).expect("the tokens run");
            other.restore(&snapshot).expect("it is of this model");
            assert_eq!(other.positions(), length);
            let rest = &tokens[length..length + 12];
            assert_eq!(read(&mut other, rest), read(&mut session, rest), "{name} {kv} after {length}");
        }
    }
}

#[test]
fn snapshots_that_are_changed_or_of_another_model_are_refused() {
    let bytes = artifact("llama-gqa-tied", KvFormat::Int8);
    let view = ArtifactView::open(&bytes).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, &SCALAR, memory.as_mut_slice()).expect("the memory is right");
    session.read(&tokens(view.spec().vocabulary, 5)).expect("the tokens run");
    let mut snapshot = vec![0; session.snapshot_bytes() as usize];
    session.save(&mut snapshot).expect("the place is right");
    for at in 0..snapshot.len() {
        let mut changed = snapshot.clone();
        changed[at] ^= 0x41;
        assert!(session.restore(&changed).is_err(), "byte {at}");
        assert_eq!(session.positions(), 0);
        assert!(session.restore(&snapshot[..at]).is_err(), "cut to {at}");
        // Made with intent: the digest is right, and the values are refused or run.
        let content = changed.len() - 32;
        let digest = Sha256::digest(&changed[..content]);
        changed[content..].copy_from_slice(&digest);
        if session.restore(&changed).is_ok() {
            let _ = session.step(&[1, 2]);
        }
    }
    let other = artifact("llama-gqa-tied", KvFormat::Nibbles);
    let view = ArtifactView::open(&other).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, &SCALAR, memory.as_mut_slice()).expect("the memory is right");
    assert_eq!(session.restore(&snapshot), Err(SnapshotError::OtherModel));
    assert_eq!(session.restore(b"SLMC"), Err(SnapshotError::NotASnapshot));
    // The same weights and shapes, and keys turned by another table.
    let mut model = open_model(&golden("llama-gqa-tied")).expect("it opens");
    for layer in &mut model.spec.layers {
        let Mixer::Attention(AttentionSpec { rotary: Some(rotary), .. }) = &mut layer.mixer else {
            panic!("a layer without rotary positions")
        };
        rotary.theta *= 3.0;
    }
    let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
    let other = fixture::compiled(&quantized, &Target::unlimited("test", Layout::R8K4Offset8), Some(CONTEXT)).bytes;
    let view = ArtifactView::open(&other).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, &SCALAR, memory.as_mut_slice()).expect("the memory is right");
    assert_eq!(session.restore(&snapshot), Err(SnapshotError::OtherModel));
}

/// A model `q` with a chat template.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("m");
    fixture::write(&model, Family::TiedLlama, Size::SMALL);
    let template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]";
    std::fs::write(model.join("chat_template.jinja"), template).expect("writes");
    json(directory.path(), "quantize m --scheme w8 --method rtn -o q");
    directory
}

fn compile(directory: &Path, options: &str, name: &str) -> serde_json::Value {
    json(directory, &format!("compile q --target x86-64-v3 {options} -o {name}"))
}

#[test]
fn a_prefix_is_read_once_and_changes_no_token() {
    let workplace = workplace();
    let directory = workplace.path();
    std::fs::write(directory.join("prefix.txt"), "the fox and the hen ").expect("writes");
    compile(directory, "", "plain.slm");
    let report = compile(directory, "--prefix prefix.txt", "begun.slm");
    assert!(report["prefix_tokens"].as_u64().is_some_and(|tokens| tokens > 5), "{report}");
    json(directory, "verify begun.slm");
    for prompt in ["the fox and the hen ran", "the fox and a cow", "a cow"] {
        let arguments = |artifact: &str| format!("generate {artifact} --prompt '{prompt}' --tokens 20");
        let (plain, begun) = (json(directory, &arguments("plain.slm")), json(directory, &arguments("begun.slm")));
        assert_eq!(plain["tokens"], begun["tokens"], "{prompt}");
        assert!(plain.get("reused_tokens").is_none());
        // What opens every text is there for any prompt.
        let reused = begun["reused_tokens"].as_u64().expect("some");
        assert_eq!(reused > 4, prompt != "a cow", "{prompt}: {begun}");
    }
    let report = compile(directory, "--prefix chat --system 'be kind'", "chat.slm");
    assert!(report["prefix_tokens"].as_u64().is_some_and(|tokens| tokens > 8), "{report}");
    let ask = |artifact: &str| format!("generate {artifact} --chat fox --system 'be kind' --tokens 12");
    let (plain, chat) = (json(directory, &ask("plain.slm")), json(directory, &ask("chat.slm")));
    assert_eq!(plain["tokens"], chat["tokens"]);
    assert!(chat["reused_tokens"].as_u64().is_some_and(|tokens| tokens > 8), "{chat}");
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let workplace = workplace();
    let directory = workplace.path();
    std::fs::write(directory.join("long.txt"), "fox ".repeat(100)).expect("writes");
    std::fs::write(directory.join("bytes.txt"), [0xff, 0xfe]).expect("writes");
    let command = |options: &str| format!("compile q --target x86-64-v3 {options} -o x.slm");
    refused(directory, &command("--prefix long.txt"), "leave nothing of a context of 96");
    refused(directory, &command("--prefix bytes.txt"), "bytes.txt");
    refused(directory, &command("--prefix absent.txt"), "absent.txt");
    refused(directory, &command("--prefix long.txt --context 8 --system a"), "--system goes with --prefix chat");
    refused(directory, &command("--kv v5"), "one of v8, v4");
    refused(directory, &command("--kv v4:1-7"), "names layers that the model does not have: it has 0 to 1");
    std::fs::remove_file(directory.join("q/chat_template.jinja")).expect("removes");
    refused(directory, &command("--prefix chat"), "no chat template");
    assert!(!directory.join("x.slm").exists());
}
