//! A signed artifact behind a reader that lies: before, after, and every second time.

use super::*;
use crate::artifact::exercise;
use slm_runtime::format::FormatError;
use slm_runtime::format::header::{HEADER_BYTES, SectionKind};
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::trust::{SignedStream, Source};

/// External flash.
struct Flash {
    bytes: Vec<u8>,
    /// Reads that succeed before all fail.
    reads: usize,
}

impl Source for Flash {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        let Some(reads) = self.reads.checked_sub(1) else { return false };
        self.reads = reads;
        (&mut &self.bytes[..]).read(offset, buffer)
    }
}

#[test]
fn every_leaf_is_checked_each_time_it_is_read() {
    let [key, _] = keys();
    let file = signed_by(&with_leaves(), &FIELDS, &[&key]);
    let view = ArtifactView::open(&file).expect("sound");
    let raw = key.public().to_raw();
    let keys = [runtime_key(key.public(), &raw).expect("a key")];
    let trust = Trust { keys: &keys, threshold: 1, model_id: Some(MODEL_ID), counter: &0, verifier: &Software };
    let mut flash = Flash { bytes: file.clone(), reads: usize::MAX };

    // Memory of one byte less than the page and the list, which the refusal states.
    let mut page = vec![0; HEADER_BYTES];
    let error = SignedStream::open(&mut flash, &mut page, &trust).expect_err("no room for the list");
    let TrustError::Memory { needed, given: HEADER_BYTES } = error else { panic!("{error:?}") };
    let mut memory = vec![0; needed as usize - 1];
    assert!(matches!(SignedStream::open(&mut flash, &mut memory, &trust), Err(TrustError::Memory { .. })));
    assert!(matches!(SignedStream::open(&mut flash, &mut [0; 100], &trust), Err(TrustError::Memory { .. })));
    let mut memory = vec![0; needed as usize];
    let stream = SignedStream::open(&mut flash, &mut memory, &trust).expect("sound");
    assert_eq!(stream.header(), view.header());

    // Any bytes of any section, whole leaves and pieces of them.
    let mut leaf = vec![0; stream.leaves().most_bytes()];
    for record in view.section_records().filter(|record| record.host == 0 && record.kind != SectionKind::Chunks as u32)
    {
        let content = &file[record.offset as usize..][..record.bytes as usize];
        let length = content.len();
        for (start, end) in [(0, length), (1, length), (0, 1), (length / 2, length), (length - 1, length), (3, 3)] {
            let mut out = vec![0; end.saturating_sub(start)];
            let end = start + out.len();
            let read = stream.read(&mut flash, record.kind, start as u64, &mut out, &mut leaf);
            assert_eq!((read, &out[..]), (Ok(()), &content[start..end]));
        }
        let mut out = [0; 2];
        let past = stream.read(&mut flash, record.kind, length as u64 - 1, &mut out, &mut leaf);
        assert_eq!(past, Err(TrustError::Range));
    }
    assert_eq!(stream.read(&mut flash, 99, 0, &mut [0], &mut leaf), Err(TrustError::Range));
    assert_eq!(stream.read(&mut flash, 4, u64::MAX, &mut [0], &mut leaf), Err(TrustError::Range));
    assert_eq!(stream.read_leaf(&mut flash, u64::MAX, &mut leaf), Err(TrustError::Range));
    assert!(matches!(stream.read(&mut flash, 4, 0, &mut [0], &mut [0; 9]), Err(TrustError::Memory { .. })));

    // The whole device part in memory, which then runs.
    let device = view.header().device_bytes as usize;
    let mut ram = vec![0xa5; device + ALIGNMENT];
    let start = ram.as_ptr().align_offset(ALIGNMENT);
    let loaded = stream.load(&mut flash, &mut ram[start..start + device]).expect("sound");
    assert_eq!((loaded.bytes() == &file[..device], exercise(&loaded)), (true, Ok(())));
    assert!(matches!(stream.load(&mut flash, &mut [0; 64]), Err(TrustError::Memory { .. })));

    // The flash is changed under it, in any leaf: what is read is refused, and does not stay in memory.
    for (number, place) in (0..).zip(stream.leaves().iter()) {
        let at = (place.offset + u64::from(place.bytes) / 2) as usize;
        flash.bytes[at] ^= 4;
        let expected = TrustError::Leaf { leaf: number, section: place.kind };
        leaf.fill(7);
        assert_eq!(stream.read_leaf(&mut flash, number, &mut leaf), Err(expected));
        assert!(leaf[..place.bytes as usize].iter().all(|&byte| byte == 0));
        assert_eq!(stream.load(&mut flash, &mut ram[start..start + device]).err(), Some(expected));
        flash.bytes[at] ^= 4;
        assert!(stream.read_leaf(&mut flash, number, &mut leaf).is_ok());
    }
    // The page and the list in memory are what counts, whatever the flash says later.
    flash.bytes[..HEADER_BYTES].fill(0);
    assert!(stream.load(&mut flash, &mut ram[start..start + device]).is_ok());
    flash.reads = 1;
    assert!(matches!(stream.load(&mut flash, &mut ram[start..start + device]), Err(TrustError::Read { .. })));
}

#[test]
fn a_reader_that_lies_at_first_opens_nothing() {
    let [key, _] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&key]);
    let list = ArtifactView::open(&file)
        .expect("sound")
        .section_records()
        .find(|record| record.kind == SectionKind::Chunks as u32);
    let list = list.expect("signed").offset as usize;
    let raw = key.public().to_raw();
    let keys = [runtime_key(key.public(), &raw).expect("a key")];
    let trust = Trust { keys: &keys, threshold: 1, model_id: Some(MODEL_ID), counter: &0, verifier: &Software };
    let mut memory = vec![0; file.len()];
    for at in (0..HEADER_BYTES).chain(list..list + 32) {
        let mut bytes = file.clone();
        bytes[at] ^= 2;
        let error = SignedStream::open(&mut Flash { bytes, reads: 9 }, &mut memory, &trust).expect_err("changed");
        assert!(at < list || error == TrustError::Format(FormatError::Digest("chunk list")), "byte {at}");
        named(error);
    }
    for reads in [0, 1] {
        let mut flash = Flash { bytes: file.clone(), reads };
        assert!(matches!(SignedStream::open(&mut flash, &mut memory, &trust), Err(TrustError::Read { .. })));
    }
}
