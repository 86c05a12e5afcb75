//! A signed artifact (docs/format.md, Signature): opened at once, leaf by leaf and through a reader, which must agree. The
//! verifier takes any signature for valid, and the harness makes list and root right where they can be, so that what lies behind
//! them is reached; once more as it is, with the verifier that ships, no changed input opens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaves;
use slm_runtime::format::header::{
    HEADER_BYTES, Header, MAX_SECTIONS, SECTION_TABLE_OFFSET, SectionKind, SectionRecord,
};
use slm_runtime::format::signature::SignatureSlot;
use slm_runtime::format::tree::{leaf_digest, root};
use slm_runtime::sha256::{Digest, Engine, Software};
use slm_runtime::trust::{Check, Key, SignedStream, Trust, Verdict, Verifier, bitmap_bytes};

/// The key of the seeds: RFC 8032, 7.1, TEST 1.
const KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72,
    0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];
/// Longest input that is looked at: list and digests take time.
const LONGEST: usize = 64 << 10;

/// Hashes as it must, and takes every signature.
struct Lenient;

impl Engine for Lenient {
    fn digest(&self, pieces: &[&[u8]]) -> Digest {
        Software.digest(pieces)
    }
}

impl Verifier for Lenient {
    fn verify(&self, _: &Key<'_>, message: &[&[u8]], _: &[u8; 64]) -> Verdict {
        assert_eq!(message.concat().len(), 43 + HEADER_BYTES);
        Verdict::Valid
    }
}

/// Makes the chunk list and its root what the leaves are, as far as table and lengths allow it.
fn repair(bytes: &mut [u8]) -> Option<()> {
    let page = bytes.get(..HEADER_BYTES)?.to_vec();
    let header = Header::from_bytes(&page);
    let leaves = Leaves::of(&page, &header);
    if leaves.count() > (LONGEST >> 12) as u64 + MAX_SECTIONS as u64 {
        return None;
    }
    let mut list = Vec::new();
    for leaf in leaves.iter() {
        let start = usize::try_from(leaf.offset).ok()?;
        list.push(leaf_digest(&Software, bytes.get(start..start.checked_add(leaf.bytes as usize)?)?));
    }
    let table = page[SECTION_TABLE_OFFSET..].chunks_exact(SectionRecord::BYTES).take(header.sections as usize);
    let mut records = table.map(SectionRecord::from_bytes);
    let start = usize::try_from(records.find(|record| record.kind == SectionKind::Chunks as u32)?.offset).ok()?;
    bytes.get_mut(start..start.checked_add(list.len() * 32)?)?.copy_from_slice(&list.concat());
    bytes[192..224].copy_from_slice(&root(list.iter().copied(), &Software));
    // Slot 1 has the key's name, whatever it had.
    let slot =
        SignatureSlot { algorithm: 1, reserved: [0; 31], key_id: Key::ed25519(&KEY).id(&Software), signature: [0; 64] };
    bytes[3584..3584 + SignatureSlot::BYTES].copy_from_slice(&slot.to_bytes());
    Some(())
}

/// Opens in every way, and compares.
fn open(bytes: &[u8], verifier: &dyn Verifier) {
    let keys = [Key::ed25519(&KEY)];
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier };
    let whole = ArtifactView::open_signed(bytes, &trust, Check::Everything);
    let mut seen = vec![0xff; bitmap_bytes(bytes).min(LONGEST)];
    let lazily = ArtifactView::open_signed(bytes, &trust, Check::AllButWeights(&mut seen));
    if let Ok(signed) = &whole {
        assert!(signed.artifact().is_ok_and(|view| ArtifactView::open(view.bytes()).is_ok()));
    }
    if let Ok(mut signed) = lazily {
        let checked = signed.verify_leaves(signed.weight_leaves());
        assert_eq!(checked.is_ok(), whole.is_ok());
        assert_eq!(signed.artifact().is_ok(), whole.is_ok());
    }
    let mut memory = vec![0; bytes.len() + HEADER_BYTES];
    let mut source = bytes;
    let Ok(stream) = SignedStream::open(&mut source, &mut memory, &trust) else {
        assert!(whole.is_err(), "a reader refuses what memory opens");
        return;
    };
    let device = stream.header().device_bytes as usize;
    if device > bytes.len() {
        return;
    }
    let mut leaf = vec![0; stream.leaves().most_bytes()];
    for (number, place) in (0..).zip(stream.leaves().iter().take(64)) {
        if let Ok(read) = stream.read_leaf(&mut source, number, &mut leaf) {
            assert_eq!(read, &bytes[place.offset as usize..][..place.bytes as usize]);
        }
    }
    let mut ram = vec![0xa5; device];
    if let Ok(view) = stream.load(&mut source, &mut ram) {
        // What lies between sections is zero in memory, whatever it is behind the reader.
        assert_eq!(view.header(), stream.header());
    } else {
        assert!(whole.is_err(), "what memory opens is loaded");
    }
}

fuzz_target!(|input: &[u8]| {
    if input.len() > LONGEST {
        return;
    }
    open(input, &Software);
    let mut bytes = input.to_vec();
    if repair(&mut bytes).is_some() {
        open(&bytes, &Lenient);
    }
});
