//! The form of a signed file: fields that need each other, the place and the length of the list, and digests that are right
//! around lies. Nothing here needs a key: any reader refuses.

use super::super::sections::Sections;
use super::super::{exercise, judged};
use super::*;
use slm_runtime::format::header::{Header, MINOR_TRUST, SectionKind};
use slm_runtime::format::{FormatError, Record};

const CHUNKS: u32 = SectionKind::Chunks as u32;

#[test]
fn fields_of_trust_need_each_other() {
    let unsigned = tiny(Family::Llama).bytes;
    let plain = Sections::of(&unsigned);
    let refused = |at: usize, value: u8| {
        ArtifactView::open(&plain.clone().file(|page| page[at] = value)).expect_err("it says what is not so")
    };
    // Without a signature there is nothing that these could be believed by.
    for (field, places) in [("security_counter", 48..56), ("model_id", 224..240), ("signature area", 3584..4096)] {
        for at in [places.start, places.end - 1] {
            assert_eq!(refused(at, 1), FormatError::Header(field), "byte {at}");
        }
    }
    assert_eq!(refused(192, 1), FormatError::Header("chunks_root"));
    assert_eq!(refused(44, 1), FormatError::Header("chunk_shift"));
    for (field, at) in [("signature", 44), ("encryption", 45), ("chunk_shift", 46)] {
        let first = match at {
            45 => 3,
            46 => 11,
            _ => 2,
        };
        for value in [first, 21, 0xff] {
            assert_eq!(refused(at, value), FormatError::LaterVersion(Record::Header, field), "{value}");
        }
    }
    let [key, _] = keys();
    let file = signed_by(&unsigned, &FIELDS, &[&key]);
    let header = Header::from_bytes(&file);
    let expected = (MINOR_TRUST, 1, 0, 12, 7, MODEL_ID);
    let found = (header.minor, header.signature, header.encryption, header.chunk_shift);
    assert_eq!((found.0, found.1, found.2, found.3, header.security_counter, header.model_id), expected);
    let signed = Sections::of(&file);
    let refused = |patch: &dyn Fn(&mut [u8])| {
        ArtifactView::open(&signed.clone().file(|page| patch(page))).expect_err("it says what is not so")
    };
    assert_eq!(refused(&|page| page[3584..3712].fill(0)), FormatError::Header("signature area"));
    // A slot with something in it that has no algorithm; the fill of a slot; the rest of the area.
    assert_eq!(refused(&|page| page[3712 + 40] = 1), FormatError::Header("signature area"));
    assert_eq!(refused(&|page| page[3584 + 9] = 1), FormatError::LaterVersion(Record::Header, "signature area"));
    assert_eq!(refused(&|page| page[3840] = 1), FormatError::LaterVersion(Record::Header, "signature area"));
    assert_eq!(refused(&|page| page[4095] = 1), FormatError::LaterVersion(Record::Header, "signature area"));
    assert_eq!(refused(&|page| page[3584] = 3), FormatError::LaterVersion(Record::Header, "signature algorithm"));
    assert_eq!(refused(&|page| page[46] = 0), FormatError::Header("chunks_root"));
}

#[test]
fn the_list_stands_last_and_has_a_digest_for_every_leaf() {
    let [key, _] = keys();
    let file = signed_by(&with_leaves(), &FIELDS, &[&key]);
    let whole = Sections::of(&file);
    let at = whole.all.iter().position(|(kind, ..)| *kind == CHUNKS).expect("signed");
    assert!(whole.all[at + 1..].iter().all(|(_, host, _)| *host == 1) && at + 1 < whole.all.len());
    let refused = |change: &dyn Fn(&mut Sections)| {
        let mut sections = whole.clone();
        change(&mut sections);
        match ArtifactView::open(&sections.file(|_| {})).expect_err("not where or what it must be") {
            FormatError::Section(CHUNKS, fault) => fault,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&|sections| drop(sections.all.remove(at))).contains("missing"));
    assert!(refused(&|sections| sections.all.swap(at, at - 1)).contains("not the last"));
    assert!(refused(&|sections| sections.all.insert(at, (0x8000_0050, 0, vec![1; 64]))).contains("length"));
    assert!(refused(&|sections| sections.all.insert(at + 1, (0x8000_0050, 0, vec![1; 64]))).contains("not the last"));
    assert!(refused(&|sections| sections.all[at].1 = 1).contains("not the last"));
    let list = whole.all[at].2.clone();
    assert!(refused(&|sections| sections.all.insert(at, (CHUNKS, 0, list.clone()))).contains("not the last"));
    assert!(refused(&|sections| sections.all.push((CHUNKS, 1, list.clone()))).contains("twice"));
    assert!(refused(&|sections| sections.all[at].2.truncate(list.len() - 32)).contains("length"));
    assert!(refused(&|sections| sections.all[at].2.extend([0; 32])).contains("length"));
    assert!(refused(&|sections| sections.all[at].2.clear()).contains("length"));
    // A shift of another size needs another list.
    let error = ArtifactView::open(&whole.clone().file(|page| page[46] = 13)).expect_err("fewer leaves");
    assert!(matches!(error, FormatError::Section(CHUNKS, _)));
    // An unsigned file does not have a list.
    let mut plain = Sections::of(&with_leaves());
    let device = plain.all.iter().filter(|(_, host, _)| *host == 0).count();
    plain.all.insert(device, (CHUNKS, 0, list));
    assert!(matches!(ArtifactView::open(&plain.file(|_| {})), Err(FormatError::Section(CHUNKS, _))));
}

#[test]
fn a_root_of_another_list_is_a_digest_that_does_not_match() {
    let [key, _] = keys();
    let file = signed_by(&with_leaves(), &FIELDS, &[&key]);
    let lie = Sections::of(&file).file(|page| page[200] ^= 1);
    assert_eq!(judged(&lie), Err(FormatError::Digest("chunk list")));
}

/// What a file computes does not depend on whether it is signed, and what is signed twice is the same file.
#[test]
fn a_signature_changes_nothing_but_the_page_and_the_list() {
    let [first, second] = keys();
    for artifact in [tiny(Family::Llama).bytes, tiny(Family::BertMlm).bytes, with_leaves()] {
        for chunk_shift in [None, Some(12), Some(20)] {
            let fields = SigningFields { chunk_shift, ..FIELDS };
            let file = signed_by(&artifact, &fields, &[&first, &second]);
            assert_eq!(file, signed_by(&artifact, &fields, &[&first, &second]));
            let (before, after) = (ArtifactView::open(&artifact).unwrap(), ArtifactView::open(&file).unwrap());
            assert_eq!((judged(&file), after.header().chunk_shift), (Ok(()), chunk_shift.unwrap_or(16)));
            assert_eq!(exercise(&after), Ok(()));
            assert_eq!(before.golden_digest(), after.golden_digest());
            let sections = |file: &[u8]| {
                let mut all = Sections::of(file).all;
                all.retain(|(kind, ..)| *kind != CHUNKS);
                all
            };
            assert!(sections(&artifact) == sections(&file));
            // Signing with other leaves makes another list; signing again the same file.
            let again = ToSign::new(&file, &SigningFields { chunk_shift: Some(13), ..FIELDS }).expect("it can be");
            assert_eq!((again.header().chunk_shift, again.dropped()), (13, &[1, 2][..]));
            assert_eq!(again.leaves() * 32, {
                let signature = first.sign(&again.message()).expect("a key that is here");
                let bytes = again.signed(Slot::FIRST, first.public(), &signature).expect("its own");
                ArtifactView::open(&bytes).unwrap().section(SectionKind::Chunks).expect("a list").len() as u64
            });
            let device = &file[..after.header().device_bytes as usize];
            let cut = ToSign::new(device, &SigningFields { counter: Some(99), ..FIELDS });
            assert!(matches!(cut, Err(slmc::trust::signing::SigningError::DeviceOnly)), "its host digest is not known");
            assert!(ToSign::new(device, &SigningFields::default()).is_ok(), "another signature of the same page is");
        }
    }
}
