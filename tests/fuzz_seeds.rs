//! What coverage-guided fuzzing begins with (fuzz/README.md): small inputs that their parsers take. With
//! `SLMC_FUZZ_SEEDS=DIR` they are written to DIR, a folder for each fuzz target; without it to a temporary directory.
//! Either way each is read.

use crate::fixture::{
    self, Family, Size, compiled, compiled_with, letters, quantized, quantized_with_exits, with_tokens, word_pieces,
};
use crate::gguf::draft::Draft;
use crate::support::{name, root};
use slm_runtime::audit::{AuditLog, AuditRecord, Event, LogKey, Outcome};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::seal::{Seal, SealCipher};
use slm_runtime::layout::Layout;
use slm_runtime::sample::Sampling;
use slm_runtime::seal::DeviceKey;
use slmc::audit::chain::{Chain, Start};
use slmc::compile::AskedSections;
use slmc::compile::continuations::continuations_section;
use slmc::compile::exits::exits_section;
use slmc::compile::kv::KvFormat;
use slmc::compile::residency::{Resident, Streaming};
use slmc::formats::{open_model, open_outline};
use slmc::model::companions::{Companions, TEMPLATE_FILE};
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::store::Entry;
use slmc::target::Target;
use slmc::text::chat_template::ChatTemplate;
use slmc::text::tokenizer::Tokenizer;
use slmc::trust::SecretKey;
use slmc::trust::bundle;
use slmc::trust::signing::{SigningFields, Slot, ToSign};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest seed. libFuzzer mutates short inputs many times faster than long ones.
const LONGEST: usize = 32 << 10;

struct Seeds {
    directory: PathBuf,
}

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert!(bytes.len() <= LONGEST, "the seed {target}/{name} has {} bytes", bytes.len());
        let directory = self.directory.join(target);
        fs::create_dir_all(&directory).expect("the directory can be made");
        fs::write(directory.join(name), bytes).expect("the seed can be written");
    }

    /// A configuration, a zero byte, the header of the tensors, a zero byte, the first of their values.
    fn with_values(&self, target: &str, directory: &Path, [config, weights]: [&str; 2]) {
        const VALUES: usize = 4 << 10;
        let config = fs::read(directory.join(config)).expect("there is a configuration");
        let file = fs::read(directory.join(weights)).expect("there are weights");
        let header = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
        let values = &file[8 + header..][..VALUES.min(file.len() - 8 - header)];
        self.put(target, name(directory), [&config, &b"\0"[..], &file[8..8 + header], b"\0", values].concat());
    }

    /// A model directory as one file: config.json, a zero byte, the header of model.safetensors.
    fn checkpoint(&self, name: &str, model: &Path) {
        let config = fs::read(model.join("config.json")).expect("there is a configuration");
        let file = fs::read(model.join("model.safetensors")).expect("there are weights");
        let header = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
        self.put("checkpoint", name, [&config, &b"\0"[..], &file[8..8 + header]].concat());
        self.put("config", name, config);
        self.put("safetensors", name, file);
    }
}

/// A log with every kind of record.
fn audit_log() -> Vec<u8> {
    let (mut log, mut bytes) = (AuditLog::new(Some(LogKey::new(&[7; 32]))), Vec::new());
    let mut append = |record: &[u8; AuditRecord::BYTES]| {
        bytes.extend(record);
        true
    };
    log.event(&[1; 32], Event::Opened(0), 1, &mut append).expect("written");
    let mut exchange = log.exchange(&Sampling::GREEDY, 3);
    exchange.input(&[1, 2, 3]);
    exchange.output(&[4]);
    log.inference(&[1; 32], exchange, Outcome::default(), 2, &mut append).expect("written");
    log.event(&[2; 32], Event::Update(1, [1; 32]), 3, &mut append).expect("written");
    log.event(&[0; 32], Event::Note(1, [9; 32]), 0, &mut append).expect("written");
    log.seal(4, &mut append).expect("written");
    Chain::check(&bytes, Start::default()).expect("it is sound");
    bytes
}

/// The file signed by the key of RFC 8032, 7.1, TEST 1, whose public half the fuzz target has.
fn signed(artifact: &[u8], directory: &Path) -> Vec<u8> {
    let path = directory.join("rfc8032.pem");
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    fs::write(&path, pem).expect("the key can be written");
    let key = SecretKey::read(path.to_str().expect("a path in UTF-8")).expect("a key");
    let fields = SigningFields { counter: Some(1), model_id: Some([7; 16]), chunk_shift: Some(12) };
    let to_sign = ToSign::new(artifact, &fields).expect("it is sound");
    let signature = key.sign(&to_sign.message()).expect("a key that is here");
    to_sign.signed(Slot::FIRST, key.public(), &signature).expect("its own")
}

#[test]
fn seeds_of_the_fuzz_targets_are_sound() {
    let temporary = tempfile::tempdir().expect("a directory");
    let chosen = std::env::var_os("SLMC_FUZZ_SEEDS").map(PathBuf::from);
    let seeds = Seeds { directory: chosen.unwrap_or_else(|| temporary.path().join("seeds")) };
    let generic = |layout| Target { page_bytes: 64, ..Target::unlimited("tiny", layout) };
    for family in Family::ALL {
        let name = family.name();
        let directory = temporary.path().join(name);
        fixture::write(&directory, family, Size::TINY);
        open_outline(&directory).expect("the checkpoint is sound");
        seeds.checkpoint(name, &directory);
        for (layout, preset) in [(Layout::R4K4, Preset::Mixed), (Layout::R8K4, Preset::W4)] {
            let artifact = compiled(&quantized(family, Size::TINY, preset), &generic(layout), None).bytes;
            ArtifactView::open(&artifact).expect("it is sound").verify_digests().expect("its digests hold");
            seeds.put("signed", &format!("{name}-{preset:?}").to_lowercase(), signed(&artifact, temporary.path()));
            seeds.put("artifact", &format!("{name}-{preset:?}").to_lowercase(), artifact);
        }
    }
    let parts =
        with_tokens(quantized(Family::TiedLlama, Size::TINY, Preset::W4), 72, QuantScheme::Split { wide_rows: 64 });
    let model = quantized(Family::TiedLlama, Size::TINY, Preset::Mixed);
    let small = compiled(&model, &generic(Layout::R4K4), None).bytes;
    let device = ArtifactView::open(&small).expect("it is sound").header().device_bytes as usize;
    let asked = AskedSections {
        continuations: continuations_section(&[vec![1, 2, 3, 1, 2, 3, 1, 2]], model.spec.vocabulary, 1 << 10),
        draft: Some(small[..device].to_vec()),
        prefix: vec![1, 2, 3],
        kv: KvFormat::Nibbles,
        ..AskedSections::default()
    };
    let whole = compiled_with(&model, &generic(Layout::R4K4), None, asked).bytes;
    ArtifactView::open(&whole).expect("it is sound").verify_digests().expect("its digests hold");
    seeds.put("artifact", "drafts-and-prefix", whole);
    for resident in [Resident::Least, Resident::Bytes(1 << 14)] {
        let streaming = Some(Streaming { resident, buffer_bytes: None });
        let planned = AskedSections { streaming, ..AskedSections::default() };
        let planned = compiled_with(&model, &generic(Layout::R4K4), None, planned).bytes;
        for (way, file) in [(0u8, planned.clone()), (1, signed(&planned, temporary.path())), (42, planned)] {
            seeds.put("streamed", &format!("{resident}-{way}"), [&[way][..], &file].concat());
        }
    }
    let size = Size { layers: 2, ..Size::TINY };
    let model = quantized_with_exits(Family::BertClassifier, size, Preset::Mixed, &[1]);
    let exits = Some(exits_section(&[1], 2, &[1 << 15], &[0.5, 2.0]));
    let whole =
        compiled_with(&model, &generic(Layout::R4K4), None, AskedSections { exits, ..AskedSections::default() }).bytes;
    ArtifactView::open(&whole).expect("it is sound").verify_digests().expect("its digests hold");
    seeds.put("artifact", "exits", whole);
    seeds.put("artifact", "two-parts", compiled(&parts, &generic(Layout::R4K4), None).bytes);

    for entry in fs::read_dir(root("tests/data/chat_templates")).expect("a folder of this repository") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "jinja") {
            let mut companions = Companions::of(temporary.path());
            companions.add_bytes(TEMPLATE_FILE, fs::read(&path).expect("reads"));
            ChatTemplate::of(&companions).expect("it opens").expect("a template").check(None).expect("it compiles");
            let talk = br#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]"#;
            seeds.put("chat_template", name(&path), [&fs::read(&path).expect("reads"), &b"\0"[..], talk].concat());
        }
    }

    for cipher in [SealCipher::ChaCha20Poly1305, SealCipher::Aes256Gcm] {
        let stanza = DeviceKey::new(&[7; 32]).stanza(cipher, &[3; 16], &[5; 16]).expect("the cipher is there");
        let seal = [&[5; 16][..], &1u32.to_le_bytes(), &[0; 12], &stanza, &[6; 32]].concat();
        Seal::read(&seal, 2).expect("it is sound");
        seeds.put("seal", &format!("{cipher:?}").to_lowercase(), [&[2, cipher as u8 - 1][..], &seal].concat());
    }
    seeds.put("audit_log", "sealed", [&[200, 1, 5][..], &audit_log()].concat());

    let dense = temporary.path().join(Family::Llama.name());
    let slmc = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slmc"));
        let output = command.arg("-q").args(arguments).current_dir(temporary.path()).output().expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let dense = dense.to_str().expect("a path in UTF-8");
    slmc(&["prune", dense, "--pattern", "2:4", "--method", "magnitude", "-o", "sparse"]);
    slmc(&["quantize", "sparse", "--scheme", "mixed", "--tune", "0", "-o", "rounded"]);
    slmc(&["compile", "rounded", "--target", "generic", "-o", "sparse.slm"]);
    let rounded = temporary.path().join("rounded");
    open_model(&rounded).expect("the directory is sound");
    seeds.checkpoint("quantized", &rounded);
    seeds.put("artifact", "sparse", fs::read(temporary.path().join("sparse.slm")).expect("the artifact is there"));

    slmc(&["keygen", "-o", "k"]);
    let small = temporary.path().join("old.slm");
    for (name, preset) in [("same-storage", Preset::Mixed), ("other-storage", Preset::W8)] {
        let old = compiled(&quantized(Family::TiedLlama, Size::TINY, preset), &generic(Layout::R4K4), None).bytes;
        fs::write(&small, &old).expect("writes");
        let new = compiled(&quantized(Family::TiedLlama, Size::TINY, Preset::Mixed), &generic(Layout::R4K4), Some(8));
        fs::write(temporary.path().join("new.slm"), new.bytes).expect("writes");
        slmc(&["sign", "new.slm", "--key", "k.pem", "--counter", "1", "--chunk-bytes", "4096"]);
        slmc(&["update", "pack", "old.slm", "new.slm", "-o", "up.slmu"]);
        let package = fs::read(temporary.path().join("up.slmu")).expect("written");
        seeds.put("update", name, [&(old.len() as u32).to_le_bytes()[..], &old, &package].concat());
    }

    for (variant, model) in [("onnxruntime", "rounded"), ("standard", "rounded"), ("standard", "llama")] {
        let out = format!("{model}-{variant}");
        slmc(&["export", model, "--format", "onnx", "--variant", variant, "--lossy", "-o", &out]);
        let directory = temporary.path().join(&out);
        open_model(&directory).expect("the directory is sound");
        let read = |file: &str| fs::read(directory.join(file)).expect("it was exported");
        seeds.put("onnx", &out, [&read("config.json"), &b"\0"[..], &read("model.onnx")].concat());
    }
    for draft in ["spm", "spm-plain", "bpe-llama-bpe", "bpe-smollm", "wpm"] {
        seeds.put("gguf", draft, fs::read(root("tests/data/gguf").join(format!("{draft}.gguf"))).expect("reads"));
    }
    let drafted = temporary.path().join("draft.gguf");
    fs::write(&drafted, Draft::llama().bytes()).expect("writes");
    open_model(&drafted).expect("the draft is sound");
    seeds.put("gguf", "llama", Draft::llama().bytes());
    for entry in fs::read_dir(root("tests/data/packed")).expect("a folder of this repository") {
        let path = entry.expect("an entry").path();
        if path.join("config.json").is_file() {
            seeds.with_values("packed", &path, ["config.json", "model.safetensors"]);
        }
    }
    for entry in fs::read_dir(root("tests/data/adapters")).expect("a folder of this repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            seeds.with_values("adapter", &path, ["adapter_config.json", "adapter_model.safetensors"]);
        }
    }
    let recipe = format!(
        "version = 1\n[stages.s]\nkind = 'prune'\ninput = 'model'\npattern = '2:4'\nmethod = 'magnitude'\n[model]\npath = '{dense}'\n"
    );
    fs::write(temporary.path().join("r.toml"), recipe).expect("the recipe can be written");
    slmc(&["run", "r.toml", "--cache", "file:cache"]);
    let shards = fs::read_dir(temporary.path().join("cache/ac")).expect("there is an entry");
    for shard in shards.map(|shard| shard.expect("a shard").path()) {
        let entry = fs::read_dir(shard).expect("it lists").next().expect("an entry").expect("an entry").path();
        let bytes = fs::read(entry).expect("reads");
        Entry::parse(&bytes).expect("it is sound");
        seeds.put("cache_entry", "prune", bytes);
    }

    slmc(&["keygen", "--type", "p256", "-o", "key"]);
    slmc(&["attest", "sparse.slm", "--key", "key.pem"]);
    for part in ["provenance.sigstore.json", "intoto.jsonl"] {
        let bytes = fs::read(temporary.path().join(format!("sparse.slm.{part}"))).expect("it was attested");
        assert_eq!(bundle::envelopes(&bytes).expect("it is sound").len(), 1);
        seeds.put("bundle", part, bytes);
    }

    for (name, json) in [("letters", letters()), ("word-pieces", word_pieces())] {
        let text = json.to_string();
        let tokenizer = Tokenizer::from_bytes(name.into(), text.as_bytes()).expect("it is sound");
        let section = tokenizer.device_text().expect("the device has every part of it");
        let sample = "a quick brown fox.";
        seeds.put("text_section", name, [&[sample.len() as u8], sample.as_bytes(), &section].concat());
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/tokenizers").join(format!("{name}.json"));
        let kept = fs::read_to_string(kept).expect("the fuzz target `text` has this tokenizer");
        assert_eq!(kept.trim_end(), text, "fuzz/tokenizers/{name}.json is no longer the tests' tokenizer");
        seeds.put("tokenizer", name, text);
    }
}
