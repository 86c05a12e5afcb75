//! Room kept for later versions of the format: any value in it is refused, the error names the field and says that a newer
//! reader is needed, and files of this version hold zeros there.

use super::sections::{SPEC, Sections};
use super::{judged, tiny, tiny_in_parts};
use crate::fixture::Family;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{Header, SIGNATURE_AREA, SectionKind};
use slm_runtime::format::sections::{NEEDED, SECTIONS, section_of};
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::format::{FormatError, Record};
use std::ops::Range;

/// Kept bytes of the header page, by the offsets of docs/format.md.
const HEADER: [(&str, Range<usize>); 4] =
    [("weight_residency", 43..44), ("reserved", 47..48), ("reserved", 56..64), ("reserved", 240..256)];
/// Bytes that only a signed file uses; `signed` has the attacks on them.
const SIGNED: [Range<usize>; 5] = [44..46, 46..47, 48..56, 192..240, 3584..4096];

/// Kept bytes of the model record.
const MODEL: [(&str, Range<usize>); 4] =
    [("stacks", 10..11), ("reserved", 11..12), ("reserved", 86..96), ("reserved", 105..124)];
/// The byte of a model record that says whether layers have heads, which decoders' do not.
const EXIT_HEADS: usize = 8;

/// Kept bytes of a layer record.
const LAYER: [(&str, Range<usize>); 2] = [("stack", 42..43), ("reserved", 47..60)];
/// The byte of a layer record that says whether it has a head.
const EXIT_HEAD: usize = 41;
/// The byte of a layer record that names how its keys and values are kept.
const CACHE_FORMAT: usize = 40;

/// The first, the last and one other byte of a range, each with a small and a large value.
fn values(range: &Range<usize>) -> impl Iterator<Item = (usize, u8)> + use<> {
    let places = [range.start, range.start + range.len() / 2, range.end - 1];
    places.into_iter().flat_map(|at| [1, 2, 0xff].map(|value| (at, value)))
}

/// The file is refused for `field` of `record`, in words that name the field and ask for a newer reader.
fn refused(file: &[u8], record: Record, field: &'static str) {
    let error = ArtifactView::open(file).expect_err("a later version's value is refused");
    assert_eq!(error, FormatError::LaterVersion(record, field));
    let text = error.to_string();
    assert!(text.contains(&format!("`{field}`")) && text.contains("later version") && text.contains("newer"), "{text}");
}

#[test]
fn kept_fields_of_the_header_are_refused_by_name() {
    let sections = Sections::of(&tiny(Family::Llama).bytes);
    for (field, range) in HEADER {
        for (at, value) in values(&range) {
            refused(&sections.clone().file(|header| header[at] = value), Record::Header, field);
        }
    }
    // Another format of keys and values is a later version's; none is a lie.
    refused(&sections.clone().file(|header| header[42] = 2), Record::Header, "cache_format");
    let file = sections.file(|header| header[42] = 0);
    assert_eq!(ArtifactView::open(&file).err(), Some(FormatError::Header("cache_format")));
}

#[test]
fn kept_fields_of_the_specification_are_refused_by_name() {
    let whole = Sections::of(&tiny(Family::Llama).bytes);
    let changed = |at: usize, value: u8| {
        let mut sections = whole.clone();
        sections.all[SPEC].2[at] = value;
        sections.file(|_| {})
    };
    for (field, range) in MODEL {
        for (at, value) in values(&range) {
            refused(&changed(at, value), Record::Model, field);
        }
    }
    assert_eq!(ArtifactView::open(&changed(EXIT_HEADS, 1)).err(), Some(FormatError::Spec("exit_head")));
    for value in [2, 0xff] {
        refused(&changed(EXIT_HEADS, value), Record::Model, "exit_head");
    }
    let layers = (whole.all[SPEC].2.len() - ModelRecord::BYTES) / LayerRecord::BYTES;
    for layer in 0..layers {
        let at = ModelRecord::BYTES + layer * LayerRecord::BYTES + EXIT_HEAD;
        let error = FormatError::Layer(layer as u32, "exit_head");
        assert_eq!(ArtifactView::open(&changed(at, 1)).err(), Some(error));
        for value in [2, 0xff] {
            refused(&changed(at, value), Record::Layer(layer as u32), "exit_head");
        }
        for value in [4, 0xff] {
            let at = ModelRecord::BYTES + layer * LayerRecord::BYTES + CACHE_FORMAT;
            refused(&changed(at, value), Record::Layer(layer as u32), "cache_format");
        }
        for (field, range) in LAYER {
            for (at, value) in values(&range) {
                let at = ModelRecord::BYTES + layer * LayerRecord::BYTES + at;
                refused(&changed(at, value), Record::Layer(layer as u32), field);
            }
        }
    }
}

/// A reader that does not know a kind skips it, but the seal comes with a field that changes what the file's bytes
/// mean: neither is without the other.
#[test]
fn a_seal_of_weights_that_are_not_in_cipher_is_refused() {
    let whole = Sections::of(&tiny(Family::Llama).bytes);
    let device = whole.all.iter().filter(|(_, host, _)| *host == 0).count();
    for host in [0, 1] {
        let (mut sections, kind) = (whole.clone(), SectionKind::Seal as u32);
        sections.all.insert(if host == 1 { sections.all.len() } else { device }, (kind, host, vec![0; 64]));
        let error = ArtifactView::open(&sections.file(|_| {})).expect_err("a seal is refused").to_string();
        assert!(error.contains(&format!("{kind:#x}")) && error.contains("`encryption` says that it is not"), "{error}");
    }
    for (value, expected) in
        [(1, FormatError::Header("encryption")), (3, FormatError::LaterVersion(Record::Header, "encryption"))]
    {
        let file = whole.clone().file(|header| header[45] = value);
        assert_eq!(ArtifactView::open(&file).err(), Some(expected), "tags are by leaves, and there is no list of them");
    }
    assert_eq!((SectionKind::Chunks as u32, SectionKind::Seal as u32), (0x8000_0006, 0x8000_0007));
    for free in [0x8000_0008, 0x8000_000f, 0x8000_001a] {
        let mut sections = whole.clone();
        sections.all.insert(device, (free, 0, vec![1; 64]));
        assert_eq!(judged(&sections.file(|_| {})), Ok(()), "{free:#x} is skipped");
    }
}

#[test]
fn files_of_this_version_hold_zeros_in_kept_room() {
    for bytes in Family::ALL.map(|family| tiny(family).bytes).into_iter().chain([tiny_in_parts(Family::Llama).bytes]) {
        let unused = HEADER.iter().map(|(_, range)| range).chain(&SIGNED);
        assert!(unused.into_iter().all(|range| bytes[range.clone()].iter().all(|&byte| byte == 0)));
        assert_eq!((SIGNATURE_AREA, Header::from_bytes(&bytes).minor <= 2), (3584..4096, true));
        let spec = &Sections::of(&bytes).all[SPEC].2;
        let (model, layers) = spec.split_at(ModelRecord::BYTES);
        let zero = |record: &[u8], kept: &[(&str, Range<usize>)]| {
            kept.iter().all(|(_, range)| record[range.clone()].iter().all(|&byte| byte == 0))
        };
        assert!(zero(model, &MODEL) && layers.chunks_exact(LayerRecord::BYTES).all(|layer| zero(layer, &LAYER)));
    }
}

/// Files are written in the order and the parts of the table that the reader checks by.
#[test]
fn sections_stand_as_the_table_says() {
    for family in Family::ALL {
        let bytes = tiny(family).bytes;
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let place = |kind: u32| SECTIONS.iter().position(|section| section.kind as u32 == kind).expect("it is named");
        let records: Vec<_> = view.section_records().collect();
        assert!(records.windows(2).all(|pair| place(pair[0].kind) < place(pair[1].kind)), "{}", family.name());
        for record in &records {
            let section = section_of(record.kind).expect("it is named");
            assert_eq!(section.host, record.host == 1);
        }
        assert!(records.iter().zip(NEEDED).all(|(record, kind)| record.kind == kind as u32));
    }
}
