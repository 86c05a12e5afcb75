//! Damage and attacks on bytes: every one of them is refused by name.

use super::super::{exercise, judged};
use super::*;
use rayon::prelude::*;
use slm_runtime::format::FormatError;
use slm_runtime::format::chunks::Leaves;
use slm_runtime::format::header::{HEADER_BYTES, SectionKind};

/// One bit, the sign bit, all bits.
const PATTERNS: [u8; 3] = [0x01, 0x80, 0xff];

/// Bytes of a file that can be changed without a refusal.
fn unnoticed(file: &[u8], patterns: &[u8], judge: impl Fn(&[u8]) -> Result<(), TrustError> + Sync) -> Vec<String> {
    assert_eq!(judge(file), Ok(()));
    (0..file.len())
        .into_par_iter()
        .flat_map_iter(|at| patterns.iter().map(move |&pattern| (at, pattern)))
        .filter(|&(at, pattern)| {
            let mut changed = file.to_vec();
            changed[at] ^= pattern;
            judge(&changed).map_err(named).is_ok()
        })
        .map(|(at, pattern)| format!("byte {at} ^ {pattern:#04x}"))
        .collect()
}

#[test]
fn every_changed_byte_of_the_device_part_is_refused() {
    let [first, second] = keys();
    for family in [Family::TiedLlama, Family::BertClassifier] {
        let artifact = tiny(family).bytes;
        let one = signed_by(&artifact, &FIELDS, &[&first]);
        let device = ArtifactView::open(&one).expect("sound").header().device_bytes as usize;
        let found = unnoticed(&one[..device], &PATTERNS, |bytes| opened(bytes, &[&first], 1));
        assert!(found.is_empty(), "{}: {found:?}", family.name());
    }
    // Both slots, of which both must hold; the page alone, since P-256 takes its time.
    let both = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&first, &second]);
    let device = ArtifactView::open(&both).expect("sound").header().device_bytes as usize;
    let page = |bytes: &[u8]| {
        let whole = [bytes, &both[HEADER_BYTES..device]].concat();
        opened(&whole, &[&first, &second], 2)
    };
    let found = unnoticed(&both[..HEADER_BYTES], &PATTERNS, page);
    assert!(found.is_empty(), "both slots: {found:?}");
}

/// The host part is not a device's to check: its digest is in the signed page, and `slmc verify` compares it.
#[test]
fn every_changed_byte_of_the_host_part_is_noticed() {
    let [key, _] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&key]);
    let device = ArtifactView::open(&file).expect("sound").header().device_bytes as usize;
    assert!(file.len() > device + 100);
    for at in device..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        assert!(judged(&changed).is_err(), "byte {at}");
    }
    // Somebody who makes the digests right again has changed the signed page.
    let mut changed = file.clone();
    changed[device + 5] ^= 1;
    let host = slm_runtime::format::verify::host_digest(&changed, &changed[device..]);
    changed[slm_runtime::format::header::HOST_DIGEST].copy_from_slice(&host);
    let digest = slm_runtime::format::verify::device_digest(&changed, &changed[HEADER_BYTES..device]);
    changed[slm_runtime::format::header::DEVICE_DIGEST].copy_from_slice(&digest);
    assert_eq!(judged(&changed), Ok(()));
    assert!(matches!(opened(&changed, &[&key], 1), Err(TrustError::Signature { slot: 1, .. })));
}

#[test]
fn every_other_length_is_refused() {
    let [key, _] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&key]);
    let device = ArtifactView::open(&file).expect("sound").header().device_bytes as usize;
    let accepted: Vec<usize> = (0..file.len())
        .into_par_iter()
        .filter(|&length| opened(&file[..length], &[&key], 1).map_err(named).is_ok())
        .collect();
    assert_eq!(accepted, [device], "the device part alone keeps its signature");
    for appended in [1, 64, 4096] {
        assert!(opened(&[&file[..], &vec![0; appended]].concat(), &[&key], 1).is_err());
    }
    let view = ArtifactView::open(&file[..device]).expect("complete for a device");
    assert_eq!((judged(&file[..device]), exercise(&view)), (Ok(()), Ok(())));
}

#[test]
fn leaves_cannot_change_places() {
    let [key, _] = keys();
    let file = signed_by(&with_leaves(), &FIELDS, &[&key]);
    let view = ArtifactView::open(&file).expect("sound");
    let leaves: Vec<_> = Leaves::of(&file, view.header()).iter().collect();
    let weights = leaves.iter().filter(|leaf| leaf.kind == SectionKind::Weights as u32).count();
    assert!(weights > 4, "{weights} leaves");
    let list = view.section_records().find(|record| record.kind == SectionKind::Chunks as u32).expect("signed");
    assert_eq!((opened(&file, &[&key], 1), list.bytes), (Ok(()), leaves.len() as u64 * 32));
    let mut swapped = 0;
    for a in 0..leaves.len() {
        for b in a + 1..leaves.len() {
            let (first, second) = (leaves[a], leaves[b]);
            let place = |leaf: slm_runtime::format::chunks::Leaf| {
                leaf.offset as usize..leaf.offset as usize + leaf.bytes as usize
            };
            if first.bytes != second.bytes || file[place(first)] == file[place(second)] {
                continue;
            }
            let mut changed = file.clone();
            changed[place(first)].copy_from_slice(&file[place(second)]);
            changed[place(second)].copy_from_slice(&file[place(first)]);
            // Leaves of the metadata are checked first.
            assert!(matches!(opened(&changed, &[&key], 1), Err(TrustError::Leaf { .. })), "{a} and {b}");
            // With their digests: the list is another.
            let entry = |n: usize| list.offset as usize + n * 32..list.offset as usize + n * 32 + 32;
            changed[entry(a)].copy_from_slice(&file[entry(b)]);
            changed[entry(b)].copy_from_slice(&file[entry(a)]);
            let error = opened(&changed, &[&key], 1).expect_err("the root is another");
            assert_eq!(error, TrustError::Format(FormatError::Digest("chunk list")));
            swapped += 1;
        }
    }
    assert!(swapped >= 10, "{swapped} pairs");
}

/// Weights are checked before their first use, each leaf once.
#[test]
fn weights_are_refused_leaf_by_leaf() {
    let [key, _] = keys();
    let file = signed_by(&with_leaves(), &FIELDS, &[&key]);
    let view = ArtifactView::open(&file).expect("sound");
    let weights = view.section_records().nth(3).expect("needed");
    let raw = key.public().to_raw();
    let keys = [runtime_key(key.public(), &raw).expect("a key")];
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
    let mut seen = vec![0xff; slm_runtime::trust::bitmap_bytes(&file)];
    let mut signed = ArtifactView::open_signed(&file, &trust, Check::AllButWeights(&mut seen)).expect("sound");
    let range = signed.weight_leaves();
    let count = range.end - range.start;
    assert_eq!((signed.unchecked(), signed.artifact().err()), (count, Some(TrustError::Unchecked { leaves: count })));
    assert_eq!(signed.before_weights().header(), view.header());
    assert_eq!(signed.leaves_holding(&(0..1)), range.start..range.start + 1);
    assert_eq!(signed.leaves_holding(&(0..weights.bytes)), range);
    assert_eq!(signed.leaves_holding(&(0..weights.bytes + 1)), 0..0);
    for wrong in [range.start - 1..range.end, range.start..range.end + 1, 0..1] {
        assert_eq!(signed.verify_leaves(wrong), Err(TrustError::Range));
    }
    for leaf in range.clone().rev() {
        assert!(signed.artifact().is_err());
        assert_eq!(signed.verify_leaves(leaf..leaf + 1), Ok(()));
        assert_eq!(signed.verify_leaves(leaf..range.end), Ok(()));
    }
    assert_eq!(exercise(signed.artifact().expect("all of it is checked")), Ok(()));
    // A changed byte of the weights is found by its leaf, and by no other.
    for at in [0, 4095, 4096, weights.bytes as usize - 1] {
        let mut changed = file.clone();
        changed[weights.offset as usize + at] ^= 1;
        let mut seen = vec![0; slm_runtime::trust::bitmap_bytes(&changed)];
        let mut signed =
            ArtifactView::open_signed(&changed, &trust, Check::AllButWeights(&mut seen)).expect("weights wait");
        let bad = range.start + at as u64 / 4096;
        for leaf in range.clone() {
            let expected = if leaf == bad { Err(TrustError::Leaf { leaf, section: 4 }) } else { Ok(()) };
            assert_eq!(signed.verify_leaves(leaf..leaf + 1), expected);
        }
        assert_eq!((signed.unchecked(), signed.artifact().is_err()), (1, true));
    }
    let mut short = vec![0; slm_runtime::trust::bitmap_bytes(&file) - 1];
    let refused = ArtifactView::open_signed(&file, &trust, Check::AllButWeights(&mut short)).err();
    assert!(matches!(refused, Some(TrustError::Memory { .. })), "{refused:?}");
}
