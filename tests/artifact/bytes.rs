//! Damage without intent: a byte changed, the end missing, something appended.

use super::{exercise, judged, tiny, tiny_exits};
use crate::fixture::Family;
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{HEADER_BYTES, SectionKind};
use std::process::Command;

/// One bit, the sign bit, all bits.
const PATTERNS: [u8; 3] = [0x01, 0x80, 0xff];

#[test]
fn every_changed_byte_is_noticed() {
    let files = [Family::TiedLlama, Family::BertClassifier].map(|family| (family.name(), tiny(family)));
    for (name, compiled) in files.into_iter().chain([("exits", tiny_exits())]) {
        let device_part = compiled.footprint.flash_bytes as usize;
        for (what, whole) in [("whole", &compiled.bytes[..]), ("device", &compiled.bytes[..device_part])] {
            assert_eq!(judged(whole), Ok(()));
            let unnoticed: Vec<String> = (0..whole.len())
                .into_par_iter()
                .flat_map_iter(|at| PATTERNS.map(|pattern| (at, pattern)))
                .filter(|&(at, pattern)| {
                    let mut changed = whole.to_vec();
                    changed[at] ^= pattern;
                    judged(&changed).is_ok()
                })
                .map(|(at, pattern)| format!("byte {at} ^ {pattern:#04x}"))
                .collect();
            assert!(
                unnoticed.is_empty(),
                "{} {what}: {} unnoticed: {:?}",
                name,
                unnoticed.len(),
                &unnoticed[..unnoticed.len().min(20)]
            );
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    let compiled = tiny(Family::Llama);
    let (bytes, device_part) = (&compiled.bytes, compiled.footprint.flash_bytes as usize);
    let view = ArtifactView::open(bytes).expect("it is sound");
    let weights = view.section_records().find(|record| record.kind == SectionKind::Weights as u32).expect("required");
    // Every length within the header, the specification and the tables before the weights; a prime step in the rest.
    let dense = 0..weights.offset as usize;
    let lengths = dense.clone().chain((dense.end..bytes.len()).step_by(97)).chain(bytes.len() - 64..bytes.len());
    let lengths = lengths.chain(device_part - 70..device_part + 70).filter(|&length| length < bytes.len());
    let accepted: Vec<usize> = lengths.filter(|&length| judged(&bytes[..length]).is_ok()).collect();
    assert!(accepted.iter().all(|&length| length == device_part) && !accepted.is_empty(), "{accepted:?} are accepted");
    // The device part alone is an artifact; it runs, and knows that the rest is gone.
    let device = ArtifactView::open(&bytes[..device_part]).expect("complete for a device");
    assert!(device.device_only() && !view.device_only());
    assert!(device.section(SectionKind::Names).is_none() && view.section(SectionKind::Names).is_some());
    assert_eq!(exercise(&device), Ok(()));
    for appended in [1, 63, 64, 4096] {
        for fill in [0, 0xa5] {
            let longer = [&bytes[..], &vec![fill; appended]].concat();
            assert!(judged(&longer).is_err(), "{appended} bytes of {fill} were appended unnoticed");
            let longer = [&bytes[..device_part], &vec![fill; appended]].concat();
            assert!(judged(&longer).is_err(), "{appended} bytes of {fill} after the device part went unnoticed");
        }
    }
}

#[test]
fn the_command_refuses_changed_bytes_of_every_section() {
    let compiled = tiny(Family::Llama);
    let view = ArtifactView::open(&compiled.bytes).expect("it is sound");
    // Header fields, the section table and its padding; the first, a middle and the last byte of every section.
    let mut places =
        vec![0, 8, 12, 16, 24, 40, 63, 64, 95, 96, 127, 128, 159, 160, 200, 256, 260, 300, HEADER_BYTES - 1];
    for record in view.section_records() {
        let (start, bytes) = (record.offset as usize, record.bytes as usize);
        places.extend([start, start + bytes / 2, start + bytes - 1]);
    }
    places.push(compiled.bytes.len() - 1);
    assert!(places.len() >= 30);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.slm");
    let verify = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file in a fresh directory can be written");
        Command::new(env!("CARGO_BIN_EXE_slmc")).arg("verify").arg(&path).output().expect("the program starts")
    };
    let sound = verify(&compiled.bytes);
    assert_eq!(sound.status.code(), Some(0), "{}", String::from_utf8_lossy(&sound.stderr));
    for at in places {
        let mut changed = compiled.bytes.clone();
        changed[at] ^= 0x10;
        let output = verify(&changed);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "byte {at}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("a.slm") && output.stdout.is_empty(),
            "byte {at}: {stderr}"
        );
    }
}
