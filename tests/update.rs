//! `slmc update` on real artifacts: packages of every scheme and family make the new artifact's device part, byte for byte; what
//! does not fit together is refused by name; and a device with these artifacts tries, confirms and gives up.

mod device;

use crate::fixture::{self, Family, Size};
use crate::support::{json, refused, succeed};
use slm_runtime::format::header::Header;
use std::fs;
use std::path::Path;

/// A dense checkpoint, and the same after a training that moved every weight a little.
fn checkpoints(directory: &Path, family: Family) {
    let (old, new) = (directory.join("old"), directory.join("new"));
    fixture::write(&old, family, Size::SMALL);
    fixture::write(&new, family, Size::SMALL);
    let path = new.join("model.safetensors");
    let mut file = fs::read(&path).expect("written");
    let header = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
    for (n, value) in file[8 + header..].chunks_exact_mut(4).enumerate() {
        let number = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        let moved = number * (1.0 + 0.01 * ((n * 7919 % 13) as f32 - 6.0) / 6.0);
        value.copy_from_slice(&moved.to_le_bytes());
    }
    fs::write(path, file).expect("writes");
}

/// Both quantized and compiled by the same commands, the new one signed with `counter`.
fn artifacts(directory: &Path, family: Family, scheme: &str, counter: &str) {
    checkpoints(directory, family);
    for name in ["old", "new"] {
        let _ = fs::remove_dir_all(directory.join(format!("{name}-q")));
        succeed(directory, &format!("quantize {name} --scheme {scheme} --method rtn --tune 0 -o {name}-q"));
        succeed(directory, &format!("compile {name}-q --target generic -o {name}.slm"));
    }
    if !directory.join("k.pem").exists() {
        succeed(directory, "keygen -o k");
    }
    succeed(directory, &format!("sign new.slm --key k.pem --counter {counter} --chunk-bytes 4096"));
}

#[test]
fn packages_make_the_new_artifact() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    for (family, scheme) in [
        (Family::Llama, "w8"),
        (Family::TiedLlama, "mixed"),
        (Family::Llama, "w4"),
        (Family::Llama, "w4 --keep layers.*=w4.g64"),
        (Family::Llama, "w4 --keep layers.*=w3.g32"),
        (Family::Bert, "w8"),
        (Family::BertClassifier, "w4"),
    ] {
        artifacts(at, family, scheme, "1");
        let packed = json(at, "update pack old.slm new.slm -o up.slmu");
        let inspected = json(at, "update inspect up.slmu");
        for key in packed.as_object().expect("an object").keys().filter(|key| *key != "schema") {
            assert_eq!(packed[key], inspected[key], "{scheme}: {key}");
        }
        let number = |key: &str| packed[key].as_u64().expect("a number");
        assert_eq!(number("package_bytes"), fs::metadata(at.join("up.slmu")).expect("written").len());
        assert!(number("package_bytes") < number("device_bytes"), "{scheme}: {packed}");
        let ops = packed["ops"].as_array().expect("ops");
        let sum = |key: &str| ops.iter().map(|op| op[key].as_u64().expect("a number")).sum::<u64>();
        assert_eq!(sum("package_bytes") + number("overhead_bytes"), number("package_bytes"), "{scheme}");
        let delta = ops.iter().find(|op| op["op"] == "delta").expect("every op has a row");
        assert!(delta["leaves"].as_u64() > Some(0), "{scheme}: {packed}");

        let applied = json(at, "update apply old.slm up.slmu -o tried.slm");
        let (new, tried) =
            (fs::read(at.join("new.slm")).expect("there"), fs::read(at.join("tried.slm")).expect("written"));
        let device_bytes = Header::from_bytes(&new).device_bytes as usize;
        assert!(tried == new[..device_bytes], "{family:?} {scheme}");
        assert_eq!(applied["bytes"], device_bytes as u64);
        succeed(at, "verify tried.slm --key k.pub");
        // The same inputs, the same package; and a device part serves in place of the file.
        let first = fs::read(at.join("up.slmu")).expect("written");
        succeed(at, "update pack old.slm tried.slm -o up.slmu");
        assert!(fs::read(at.join("up.slmu")).expect("written") == first, "{scheme}: another package");
        // A newer package from what was made.
        succeed(at, "sign new.slm --key k.pem --counter 2");
        let small = json(at, "update pack tried.slm new.slm -o up2.slmu");
        assert!(small["package_bytes"].as_u64() < Some(8192), "only the page and the list: {small}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    artifacts(at, Family::TiedLlama, "w8", "3");
    let pack = |old: &str, new: &str| format!("update pack {old} {new} -o up.slmu");
    refused(
        at,
        &pack("new.slm", "old.slm"),
        "has no chunk list, by which a device checks what it received; `slmc sign`",
    );
    refused(at, &pack("new.slm", "new.slm"), "the same as new.slm for a device");
    refused(at, &pack("old.slm", "nothing.slm"), "cannot be read");
    succeed(at, "sign old.slm --key k.pem --counter 4 -o later.slm");
    refused(at, &pack("later.slm", "new.slm"), "its security counter, 3, is below 4; sign it with --counter 4");
    let id = "6f1d2c3b-0a4e-4c5d-9e8f-001122334455";
    succeed(at, &format!("sign old.slm --key k.pem --model-id {id} -o line.slm"));
    refused(at, &pack("line.slm", "new.slm"), "its model id is another");
    succeed(at, "compile old-q --target cortex-m4 -o board.slm");
    refused(at, &pack("board.slm", "new.slm"), "compile it for the same target");
    fs::write(at.join("notes.slmu"), "my notes").expect("writes");
    refused(at, "update pack old.slm new.slm -o notes.slmu", "exists and was not made by slmc");

    succeed(at, &pack("old.slm", "new.slm"));
    let good = fs::read(at.join("up.slmu")).expect("written");
    let apply = "update apply old.slm bad.slmu -o tried.slm";
    let bad = |bytes: &[u8]| fs::write(at.join("bad.slmu"), bytes).expect("writes");
    bad(&good[..good.len() - 7]);
    refused(at, apply, "the package is cut short or has something appended");
    refused(at, "update inspect bad.slmu", "the package is cut short");
    bad(&[]);
    refused(at, "update inspect bad.slmu", "cut short");
    bad(&fs::read(at.join("new.slm")).expect("there"));
    refused(at, apply, "not an update package");
    let mut changed = good.clone();
    *changed.last_mut().expect("bytes") ^= 0x55;
    bad(&changed);
    refused(at, apply, "becomes other bytes than the chunk list states");
    bad(&good);
    refused(at, "update apply later.slm bad.slmu -o tried.slm", "made from another artifact");
    assert!(!at.join("tried.slm").exists(), "nothing half-written");
    fs::write(at.join("notes.txt"), "my notes").expect("writes");
    refused(at, "update apply old.slm bad.slmu -o notes.txt", "exists and was not made by slmc");
}
