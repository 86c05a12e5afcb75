//! Sealed artifacts: the same logits as before, in memory at once, leaf by leaf and through a reader; keys, stanzas, tags and
//! bytes that are not the right ones, refused by name; the commands around them.

use crate::fixture::{self, Family, Size};
use crate::support::{json, not_run, refused, slmc, stderr, succeed};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaves;
use slm_runtime::format::header::{HEADER_BYTES, Header, SIGNATURE_AREA, SectionKind};
use slm_runtime::format::seal::{STANZA_BYTES, SealCipher};
use slm_runtime::format::signature::{SignatureAlgorithm, SignatureSlot, signed_bytes};
use slm_runtime::kernels::best;
use slm_runtime::seal::{DeviceKey, SealError, SoftwareCipher, Unsealing};
use slm_runtime::self_test::golden_digest;
use slm_runtime::session::Session;
use slm_runtime::trust::{Check, Key, Signed, SignedStream, Software, Trust, TrustError, bitmap_bytes};
use slmc::artifact::host::SessionMemory;
use slmc::seal::layout::{assembled, sections};
use slmc::seal::sealing::{further_stanza, seal};
use slmc::trust::{Algorithm, DeviceKey as StoredKey, SecretKey};
use std::fs;
use std::path::Path;
use std::process::Command;

const CIPHERS: [SealCipher; 2] = [SealCipher::ChaCha20Poly1305, SealCipher::Aes256Gcm];

/// An artifact of a small decoder.
fn artifact(directory: &Path) -> Vec<u8> {
    fixture::write(&directory.join("model"), Family::TiedLlama, Size::SMALL);
    succeed(directory, "quantize model --scheme w8 --method rtn -o q");
    succeed(directory, "compile q --target generic -o plain.slm");
    fs::read(directory.join("plain.slm")).expect("reads")
}

/// The file signed by a key, with its digests: what `slmc sign` makes of it.
fn signed(bytes: &[u8], key: &SecretKey) -> Vec<u8> {
    let view = ArtifactView::open(bytes).expect("sound");
    let header = Header { signature: 1, ..*view.header() };
    let mut bytes = assembled(header, &sections(&view)).expect("fits");
    let message = signed_bytes(&bytes[..HEADER_BYTES]).concat();
    let slot = SignatureSlot {
        algorithm: SignatureAlgorithm::Ed25519 as u8,
        reserved: [0; 31],
        key_id: key.public().id(),
        signature: key.sign(&message).expect("a key that is here").to_bytes(),
    };
    bytes[SIGNATURE_AREA.start..SIGNATURE_AREA.start + SignatureSlot::BYTES].copy_from_slice(&slot.to_bytes());
    bytes
}

/// A key that signs, with its public bytes.
fn signer() -> (SecretKey, [u8; 32]) {
    let key = SecretKey::generate(Algorithm::Ed25519).expect("random bytes");
    let public = key.public().to_raw().try_into().expect("32 bytes");
    (key, public)
}

fn with_trust<T>(public: &[u8; 32], body: impl FnOnce(&Trust<'_>) -> T) -> T {
    let keys = [Key::ed25519(public)];
    body(&Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software })
}

/// Memory that starts on 64 bytes.
struct Ram(Vec<u8>);

impl Ram {
    fn new(length: usize) -> Self {
        Ram(vec![0x5a; length + 64])
    }

    fn memory(&mut self, length: usize) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(64);
        &mut self.0[start..start + length]
    }
}

fn weights_bytes(bytes: &[u8]) -> usize {
    let view = ArtifactView::open(bytes).expect("sound");
    view.section(SectionKind::Weights).expect("weights").len()
}

fn golden(view: &ArtifactView<'_>) -> [u8; 32] {
    let mut memory = SessionMemory::for_artifact(view);
    golden_digest(view, best(view.layout()), memory.as_mut_slice()).expect("runs")
}

fn unsealing<'u>(key: &'u DeviceKey<'u>, stanza: Option<&'u [u8; STANZA_BYTES]>) -> Unsealing<'u> {
    Unsealing { keys: key, cipher: &SoftwareCipher, stanza }
}

#[test]
fn sealed_artifacts_have_the_logits_of_the_open_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = artifact(directory.path());
    let (key, public) = signer();
    let device = StoredKey::generate().expect("random bytes");
    let open = ArtifactView::open(&plain).expect("sound");
    let expected = golden(&open);
    assert_eq!(expected, open.golden_digest());
    for (cipher, shift) in [(CIPHERS[0], 12), (CIPHERS[0], 16), (CIPHERS[1], 12), (CIPHERS[1], 20)] {
        let keys = [StoredKey::generate().expect("random bytes"), read_again(&device, directory.path())];
        let sealed = seal(&open, cipher, &keys, Some(shift)).expect("sealed");
        let file = signed(&sealed.bytes, &key);
        let length = weights_bytes(&file);
        assert_eq!(sealed.leaves as usize, length.div_ceil(1 << shift));
        let stored = ArtifactView::open(&file).expect("sound");
        let [closed, plaintext] = [&stored, &open].map(|view| view.section(SectionKind::Weights).expect("weights"));
        assert!(closed.len() == plaintext.len() && stored.is_sealed());
        let equal = closed.iter().zip(plaintext).filter(|(a, b)| a == b).count();
        assert!(equal < closed.len() / 50, "{equal} of {} bytes are the plain ones", closed.len());
        // Nothing runs on weights in cipher, whoever opened the file.
        let mut memory = SessionMemory::for_artifact(&stored);
        let refused = Session::new(&stored, best(stored.layout()), memory.as_mut_slice()).err().expect("refused");
        assert!(refused.to_string().contains("sealed"), "{refused}");
        let own = DeviceKey::new(device.bytes());
        with_trust(&public, |trust| {
            let mut ram = Ram::new(length);
            let checked = ArtifactView::open_signed(&file, trust, Check::Everything).expect("signed");
            let view = checked.unseal(&unsealing(&own, None), ram.memory(length)).expect("opens");
            assert!(!view.is_sealed());
            assert_eq!(golden(&view), expected, "{} with leaves of 2^{shift}", cipher.name());
            view.verify_tensors().expect("the tensors are those that were compiled");
            // Leaves are checked as they are opened.
            let mut seen = vec![0; bitmap_bytes(&file)];
            let mut ram = Ram::new(length);
            let checked = ArtifactView::open_signed(&file, trust, Check::AllButWeights(&mut seen)).expect("signed");
            let view = checked.unseal(&unsealing(&own, None), ram.memory(length)).expect("opens");
            assert_eq!(golden(&view), expected);
            leaf_by_leaf(&file, trust, &own, plaintext);
        });
    }
}

/// The same key in another value: it is not copied.
fn read_again(key: &StoredKey, directory: &Path) -> StoredKey {
    let path = directory.join("again.key");
    fs::write(&path, key.bytes()).expect("written");
    StoredKey::read(&path.display().to_string()).expect("a key")
}

/// Every leaf opened alone, from memory and through a reader, the last first.
fn leaf_by_leaf(file: &[u8], trust: &Trust<'_>, device: &DeviceKey<'_>, plaintext: &[u8]) {
    let mut seen = vec![0; bitmap_bytes(file)];
    let mut checked: Signed<'_, '_> =
        ArtifactView::open_signed(file, trust, Check::AllButWeights(&mut seen)).expect("signed");
    let key = checked.file_key(&unsealing(device, None)).expect("opens");
    let mut memory = vec![0; file.len()];
    let mut source = file;
    let stream = SignedStream::open(&mut source, &mut memory, trust).expect("signed");
    let most = stream.leaves().most_bytes();
    let (mut out, mut buffer) = (vec![0; most], vec![0; most]);
    let streamed = stream.file_key(&mut source, &unsealing(device, None), &mut buffer).expect("opens");
    let leaves = checked.weight_leaves();
    let count = leaves.end - leaves.start;
    for leaf in (0..count).rev() {
        let bytes = checked.leaf_bytes(leaf).expect("there is one");
        let start = leaf as usize * most;
        let mut own = vec![0; bytes];
        checked.unseal_leaf(&key, &SoftwareCipher, leaf, &mut own).expect("opens");
        assert_eq!(own, plaintext[start..start + bytes]);
        let pair = (&streamed, &SoftwareCipher as &dyn slm_runtime::seal::Cipher);
        let read = stream.read_unsealed(&mut source, pair, leaf, &mut out, &mut buffer).expect("opens");
        assert_eq!(read, &plaintext[start..start + bytes]);
    }
    assert_eq!(checked.unchecked(), 0);
    assert_eq!(checked.unseal_leaf(&key, &SoftwareCipher, count, &mut []), Err(SealError::Range));
    // What is read is checked each time, whatever the source did since.
    let mut changed = file.to_vec();
    let place = Leaves::of(file, &Header::from_bytes(file)).get(leaves.start).expect("a leaf").offset as usize;
    changed[place + 3] ^= 1;
    let mut source = &changed[..];
    let pair = (&streamed, &SoftwareCipher as &dyn slm_runtime::seal::Cipher);
    let error = stream.read_unsealed(&mut source, pair, 0, &mut out, &mut buffer).expect_err("changed");
    assert!(matches!(error, SealError::Trust(TrustError::Leaf { .. })), "{error}");
}

#[test]
fn wrong_keys_stanzas_tags_and_leaves_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = artifact(directory.path());
    let (key, public) = signer();
    let (device, stranger) = (StoredKey::generate().expect("bytes"), StoredKey::generate().expect("bytes"));
    let open = ArtifactView::open(&plain).expect("sound");
    let keys = [read_again(&device, directory.path())];
    let sealed = seal(&open, CIPHERS[0], &keys, Some(12)).expect("sealed").bytes;
    let length = weights_bytes(&sealed);
    let opened = |file: &[u8], device: &StoredKey, stanza: Option<&[u8; STANZA_BYTES]>| {
        with_trust(&public, |trust| {
            let checked = ArtifactView::open_signed(file, trust, Check::Everything)?;
            let (mut ram, device) = (Ram::new(length), DeviceKey::new(device.bytes()));
            let memory = ram.memory(length);
            let result = checked.unseal(&unsealing(&device, stanza), memory).map(|_| ());
            if matches!(result, Err(SealError::Tag { .. })) {
                assert!(memory.iter().all(|byte| *byte == 0), "nothing that did not open whole is left");
            }
            result
        })
    };
    let file = signed(&sealed, &key);
    assert_eq!(opened(&file, &device, None), Ok(()));
    assert_eq!(opened(&file, &stranger, None), Err(SealError::NoStanza { stanzas: 1 }));
    // A stanza beside the file.
    let view = ArtifactView::open(&file).expect("sound");
    let stanza = further_stanza(&view, &device, &stranger).expect("made");
    assert_eq!(opened(&file, &stranger, Some(&stanza)), Ok(()));
    assert_eq!(opened(&file, &device, Some(&stanza)), Ok(()), "its own is in the file");
    let mut changed = stanza;
    changed[40] ^= 1;
    assert_eq!(opened(&file, &stranger, Some(&changed)), Err(SealError::Stanza));
    let other = seal(&open, CIPHERS[0], &keys, Some(12)).expect("sealed").bytes;
    assert_eq!(opened(&signed(&other, &key), &stranger, Some(&stanza)), Err(SealError::Stanza), "of another sealing");
    assert!(further_stanza(&view, &stranger, &device).is_err());
    // Nothing of two sealings is the same: keys and salts are drawn.
    let seals = [&sealed, &other].map(|bytes| ArtifactView::open(bytes).expect("sound").seal().expect("a seal"));
    assert_ne!(seals[0].salt, seals[1].salt);
    assert_ne!(seals[0].tag(0), seals[1].tag(0));
    // Signed by somebody who has no key of the file, with the tags of another sealing, a changed tag, or leaves that changed
    // places: the signature holds, the weights stay closed.
    let change = |body: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
        let view = ArtifactView::open(&sealed).expect("sound");
        let mut parts = sections(&view);
        let place = |kind: SectionKind| parts.iter().position(|part| part.kind == kind as u32).expect("there");
        let (weights, seal) = (place(SectionKind::Weights), place(SectionKind::Seal));
        let mut both = [weights, seal].map(|index| parts[index].bytes.to_vec());
        let [weights_content, seal_content] = &mut both;
        body(weights_content, seal_content);
        let [weights_content, seal_content] = both;
        parts[weights].bytes = weights_content.into();
        parts[seal].bytes = seal_content.into();
        signed(&assembled(*view.header(), &parts).expect("fits"), &key)
    };
    let tags = 32 + STANZA_BYTES;
    let tag = change(&|_, seal| seal[tags + 16] ^= 1);
    assert_eq!(opened(&tag, &device, None), Err(SealError::Tag { leaf: 1 }));
    let swapped_tags = change(&|_, seal| seal[tags..tags + 32].rotate_left(16));
    assert_eq!(opened(&swapped_tags, &device, None), Err(SealError::Tag { leaf: 0 }));
    let swapped = change(&|weights, seal| {
        weights[..8192].rotate_left(4096);
        seal[tags..tags + 32].rotate_left(16);
    });
    assert_eq!(opened(&swapped, &device, None), Err(SealError::Tag { leaf: 0 }));
    let byte = change(&|weights, _| weights[5000] ^= 1);
    assert_eq!(opened(&byte, &device, None), Err(SealError::Tag { leaf: 1 }));
    let salt = change(&|_, seal| seal[3] ^= 1);
    assert_eq!(opened(&salt, &device, None), Err(SealError::Stanza));
    let none = change(&|_, seal| {
        seal[16] = 0;
        seal.drain(32..tags);
    });
    assert_eq!(opened(&none, &device, None), Err(SealError::NoStanza { stanzas: 0 }));
    // Too little memory, and memory that does not start right.
    with_trust(&public, |trust| {
        let own = DeviceKey::new(device.bytes());
        let mut ram = Ram::new(length);
        let open = |memory: &mut [u8]| {
            let checked = ArtifactView::open_signed(&file, trust, Check::Everything).expect("signed");
            checked.unseal(&unsealing(&own, None), memory).map(|_| ())
        };
        let needed = length as u64;
        assert_eq!(open(&mut ram.memory(length)[1..]), Err(SealError::Memory { needed, given: length - 1 }));
        let mut longer = Ram::new(length + 1);
        assert_eq!(open(&mut longer.memory(length + 1)[1..]), Err(SealError::Alignment));
        // What was never sealed.
        let plain = signed(
            &assembled(Header { chunk_shift: 12, minor: 8, ..*view_of(&plain).header() }, &sections(&view_of(&plain)))
                .expect("fits"),
            &key,
        );
        let checked = ArtifactView::open_signed(&plain, trust, Check::Everything).expect("signed");
        assert_eq!(checked.unseal(&unsealing(&own, None), ram.memory(length)).err(), Some(SealError::NotSealed));
    });
}

fn view_of(bytes: &[u8]) -> ArtifactView<'_> {
    ArtifactView::open(bytes).expect("sound")
}

#[test]
fn every_changed_byte_of_the_device_part_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = artifact(directory.path());
    let (key, public) = signer();
    let device = StoredKey::generate().expect("bytes");
    let own = DeviceKey::new(device.bytes());
    let keys = [read_again(&device, directory.path())];
    let sealed = seal(&view_of(&plain), CIPHERS[0], &keys, Some(12)).expect("sealed").bytes;
    let file = signed(&sealed, &key);
    let length = weights_bytes(&file);
    let (end, mut ram, mut refusals) = (Header::from_bytes(&file).device_bytes as usize, Ram::new(length), 0);
    with_trust(&public, |trust| {
        let mut refuse = |bytes: &[u8], what: usize| {
            let checked = ArtifactView::open_signed(bytes, trust, Check::Everything).map_err(SealError::from);
            let result =
                checked.and_then(|checked| checked.unseal(&unsealing(&own, None), ram.memory(length)).map(|_| ()));
            let error = result.err().unwrap_or_else(|| panic!("{what} is not seen"));
            assert!(!error.to_string().is_empty());
            refusals += 1;
        };
        // Around every section's start and end each byte, between them one of seven.
        let table = view_of(&file).section_records().collect::<Vec<_>>();
        let near = |at: usize| {
            table.iter().any(|record| {
                [record.offset, record.offset + record.bytes].into_iter().any(|edge| (edge as usize).abs_diff(at) < 80)
            })
        };
        for at in (0..end).filter(|at| *at < HEADER_BYTES || at % 7 == 0 || near(*at)) {
            let mut changed = file.clone();
            changed[at] ^= 1 << (at % 8);
            refuse(&changed, at);
        }
        for cut in (0..end).step_by(97) {
            refuse(&file[..cut], cut);
        }
    });
    assert!(refusals > HEADER_BYTES, "{refusals}");
}

#[test]
fn the_commands_seal_open_and_refuse() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let plain = artifact(path);
    for name in ["one", "two", "new"] {
        succeed(path, &format!("keygen --type device -o {name}"));
    }
    let report =
        json(path, "seal plain.slm --device-key one.key --device-key file:two.key --chunk-bytes 4096 -o s.slm");
    assert_eq!((&report["schema"], &report["devices"]), (&"slmc.seal/1".into(), &2.into()), "{report}");
    assert_eq!((&report["cipher"], &report["signature_dropped"]), (&"ChaCha20-Poly1305".into(), &false.into()));
    // Whoever has no key can look at it, and run nothing.
    let inspected = json(path, "inspect s.slm");
    assert_eq!(inspected["tensors"], json(path, "inspect plain.slm")["tensors"]);
    refused(path, "generate s.slm --prompt a --tokens 1", "the weights are sealed");
    refused(path, "seal s.slm --device-key one.key -o t.slm", "is sealed already");
    for key in ["one.key", "two.key"] {
        let report = json(path, &format!("unseal s.slm --device-key {key} -o open.slm"));
        assert_eq!(report["schema"], "slmc.unseal/1", "{report}");
        let opened = fs::read(path.join("open.slm")).expect("reads");
        for kind in [SectionKind::Weights, SectionKind::Tokenizer, SectionKind::Provenance, SectionKind::Golden] {
            assert_eq!(view_of(&opened).section(kind), view_of(&plain).section(kind), "{kind:?}");
        }
        assert!(view_of(&opened).seal().is_none());
        let of = |file: &str| json(path, &format!("generate {file} --prompt 'the cat' --tokens 8"))["tokens"].clone();
        assert_eq!(of("open.slm"), of("plain.slm"));
        succeed(path, "verify open.slm");
    }
    refused(path, "unseal s.slm --device-key new.key -o o.slm", "none of 2 stanzas is for this device's key");
    refused(path, "unseal plain.slm --device-key one.key -o o.slm", "the weights are not sealed");
    // Signed, it is checked without a key, and with one as a whole; another device's key opens nothing.
    succeed(path, "keygen -o release");
    succeed(path, "sign s.slm --key release.pem --counter 2 -o signed.slm");
    let closed = json(path, "verify signed.slm --key release.pub --min-counter 2");
    assert_eq!((&closed["sealed"], &closed["unsealed"]), (&"ChaCha20-Poly1305".into(), &false.into()), "{closed}");
    let open = json(path, "verify signed.slm --key release.pub --device-key two.key");
    assert_eq!((&open["unsealed"], &open["golden_sha256"]), (&true.into(), &closed["golden_sha256"]), "{open}");
    refused(path, "verify signed.slm --device-key new.key", "none of 2 stanzas");
    refused(path, "sign s.slm --key release.pem --chunk-bytes 8192", "sealed in leaves of 4096 bytes");
    // A further device.
    succeed(path, "key-stanza s.slm --owner-key two.key --device-key new.key -o new.stanza");
    assert_eq!(fs::read(path.join("new.stanza")).expect("reads").len(), STANZA_BYTES);
    succeed(path, "unseal s.slm --device-key new.key --stanza new.stanza -o o.slm");
    refused(
        path,
        "key-stanza s.slm --owner-key two.key --device-key new.key -o new.stanza",
        "stanzas are not replaced",
    );
    refused(path, "key-stanza s.slm --owner-key new.key --device-key one.key -o x.stanza", "none of 2 stanzas");
    refused(path, "unseal s.slm --device-key new.key --stanza one.key -o p.slm", "has 32 bytes, and a stanza has 48");
    assert!(!path.join("p.slm").exists() && !path.join("x.stanza").exists());
    // The other cipher; keys that are not, or twice the same.
    let report = json(path, "seal plain.slm --device-key one.key --cipher aes-256-gcm -o a.slm");
    assert_eq!((&report["cipher"], &report["chunk_bytes"]), (&"AES-256-GCM".into(), &65_536.into()));
    succeed(path, "unseal a.slm --device-key one.key -o b.slm");
    refused(path, "seal plain.slm --device-key plain.slm -o c.slm", "longer than any key");
    refused(path, "seal plain.slm --device-key one.key --device-key one.key -o c.slm", "two of the keys are the same");
    refused(path, "seal plain.slm --device-key one.key --chunk-bytes 5000 -o c.slm", "is not a power of two");
    refused(path, "seal plain.slm -o c.slm", "--device-key");
    fs::write(path.join("notes.txt"), "mine").expect("written");
    refused(path, "seal plain.slm --device-key one.key -o notes.txt", "was not made by slmc");
    to_age(path);
    // A draft model would stay readable.
    succeed(path, "compile q --target generic --draft plain.slm -o drafting.slm");
    refused(path, "seal drafting.slm --device-key one.key -o c.slm", "carries a draft model");
    assert!(!path.join("c.slm").exists());
}

/// The copy that age opens is the open file. Without age its form alone is looked at.
fn to_age(path: &Path) {
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    succeed(path, &format!("unseal s.slm --device-key one.key --to-age {recipient} -o c.age"));
    assert!(fs::read(path.join("c.age")).expect("reads").starts_with(b"age-encryption.org/v1\n-> X25519 "));
    refused(path, "unseal s.slm --device-key one.key --to-age age1zzz -o d.age", "not a recipient of age");
    let Ok(made) = Command::new("age-keygen").args(["-o", "k.txt"]).current_dir(path).output() else {
        return not_run("age is not installed");
    };
    assert!(made.status.success());
    let key = fs::read_to_string(path.join("k.txt")).expect("reads");
    let own = key.split_whitespace().find(|word| word.starts_with("age1")).expect("the public key is in a comment");
    succeed(path, &format!("unseal s.slm --device-key one.key --to-age {own} -o own.age"));
    let opened =
        Command::new("age").args(["-d", "-i", "k.txt", "own.age"]).current_dir(path).output().expect("age starts");
    assert!(opened.status.success(), "{}", stderr(&opened));
    assert_eq!(opened.stdout, fs::read(path.join("open.slm")).expect("reads"));
}

const RECIPE: &str = r#"version = 1

[model]
path = "model"

[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"

[stages.artifact]
kind = "compile"
input = "small"
target = "generic"

[gates]
file_bytes_max = 1_000_000

[sign]
key = "env:SLMC_SIGN_KEY"
chunk_bytes = 4096
device_keys = ["env:SLMC_DEVICE_KEY", "spare.key"]
cipher = "aes-256-gcm"
"#;

#[test]
fn a_recipe_seals_what_it_signs() {
    let directory = fixture::workshop("r.toml", RECIPE);
    let path = directory.path();
    for line in ["keygen -o own", "keygen --type device -o device", "keygen --type device -o spare"] {
        succeed(path, line);
    }
    let plan = json(path, "run r.toml --plan");
    let places: Vec<&str> =
        plan["keys"].as_array().expect("keys").iter().filter_map(|key| key["place"].as_str()).collect();
    assert!(places.contains(&"$SLMC_DEVICE_KEY") && places.iter().any(|place| place.ends_with("spare.key")), "{plan}");
    let secret = fs::read_to_string(path.join("own.pem")).expect("there");
    let device: String =
        fs::read(path.join("device.key")).expect("there").iter().map(|byte| format!("{byte:02x}")).collect();
    let run = |device: Option<&str>| {
        let mut command = slmc(path, "run r.toml --json");
        command.env("SLMC_SIGN_KEY", &secret);
        if let Some(key) = device {
            command.env("SLMC_DEVICE_KEY", key);
        }
        command.output().expect("it starts")
    };
    // Every key is asked for before anything runs.
    let output = run(None);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("$SLMC_DEVICE_KEY: is not set"),
        "{}",
        stderr(&output)
    );
    assert!(!path.join("out/r/small").exists());
    let output = run(Some(&device));
    assert!(output.status.success(), "{}", stderr(&output));
    let line = "verify out/r/artifact.generic.signed.slm --key own.pub";
    let closed = json(path, line);
    assert_eq!((&closed["sealed"], &closed["unsealed"]), (&"AES-256-GCM".into(), &false.into()), "{closed}");
    for key in ["device.key", "spare.key"] {
        let open = json(path, &format!("{line} --device-key {key}"));
        assert_eq!((&open["unsealed"], &open["golden_prompts"].is_u64()), (&true.into(), &true), "{open}");
    }
    refused(path, &format!("{line} --device-key own.pem"), "is not a device's key");
    let lock = fs::read_to_string(path.join("r.lock")).expect("the lock");
    assert!(!lock.contains(&device) && !lock.contains("SLMC_DEVICE_KEY"), "{lock}");
    for (change, with, said) in [
        ("cipher = \"aes-256-gcm\"", "cipher = \"rot13\"", "neither chacha20-poly1305 nor aes-256-gcm"),
        ("device_keys = [\"env:SLMC_DEVICE_KEY\", \"spare.key\"]", "", "there are no `device_keys`"),
        ("[\"env:SLMC_DEVICE_KEY\", \"spare.key\"]", "[]", "nobody could open the weights"),
        ("[\"env:SLMC_DEVICE_KEY\", \"spare.key\"]", "\"spare.key\"", "not a list of places"),
    ] {
        fs::write(path.join("r.toml"), RECIPE.replace(change, with)).expect("writes");
        refused(path, "run r.toml --plan", said);
    }
}
