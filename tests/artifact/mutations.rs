//! Damage with intent: fields set to extreme values, sections resized, records moved, with the digests recomputed and,
//! where a case says so, the plan and the tensor table made consistent with the lie.

use super::sections::{SPEC, Sections, TENSORS, WEIGHTS};
use super::{exercise, tiny, tiny_in_parts, tiny_pooled};
use crate::fixture::{Family, letters};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{HEADER_BYTES, SECTION_TABLE_OFFSET, SectionKind, SectionRecord};
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::format::tensor::TensorRecord;
use slm_runtime::layout::Layout;
use slmc::model::spec::Pooling;

/// Cases per family.
const CASES: u32 = 3000;

#[derive(Clone, Debug)]
enum Mutation {
    /// A number of one to eight bytes somewhere in a section, at a multiple of its width.
    Field { section: usize, at: usize, width: usize, value: u64 },
    /// A number somewhere in the fixed part of the header.
    Header { at: usize, width: usize, value: u64 },
    /// A number in the section table, after the file was laid out.
    Table { at: usize, width: usize, value: u64 },
    /// A field of a tensor's shape: rows or columns.
    Shape { record: usize, columns: bool, value: u32 },
    /// Another layout, in the header and in every record.
    Layout(u8),
    /// A section made longer or shorter.
    Resize { section: usize, by: isize },
    /// A record of the tensor table left out, doubled, or exchanged with the next.
    Record { record: usize, what: u8 },
    /// f32 in the weights: scales, norms, biases, key maps.
    Float { at: usize, value: f32 },
    /// A run of equal bytes in the weights: integers the writer never stores.
    Fill { at: usize, length: usize, value: u8 },
    /// A section left out, or exchanged with the next.
    Section { section: usize, exchange: bool },
}

fn number() -> impl Strategy<Value = u64> {
    let extremes = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        15,
        16,
        31,
        32,
        33,
        63,
        64,
        65,
        127,
        128,
        255,
        256,
        4095,
        4096,
        65_535,
        65_536,
        133_000,
        133_001,
        16_640,
        16_641,
        1 << 20,
        (1 << 24) - 1,
        1 << 24,
        (1 << 24) + 1,
        1 << 30,
        (1 << 31) - 1,
        1 << 31,
        u64::from(u32::MAX) - 1,
        u64::from(u32::MAX),
        1 << 32,
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 63,
        u64::MAX,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0000_0001,
        0x3f80_0000,
        0x5880_0000,
        0x7149_f2ca,
    ];
    prop_oneof![4 => proptest::sample::select(extremes.to_vec()), 1 => any::<u64>()]
}

fn float() -> impl Strategy<Value = f32> {
    let extremes = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        1e15,
        1.2e15,
        1e30,
        -1e30,
        1e-30,
        1e-16,
        9e-16,
    ];
    prop_oneof![4 => proptest::sample::select(extremes.to_vec()), 1 => any::<u32>().prop_map(f32::from_bits)]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let width = proptest::sample::select(vec![1usize, 2, 4, 8]);
    let section = prop_oneof![4 => Just(SPEC), 3 => Just(TENSORS), 1 => 2..9usize];
    prop_oneof![
        8 => (section, any::<u16>(), width.clone(), number()).prop_map(|(section, at, width, value)| {
            Mutation::Field { section, at: at.into(), width, value }
        }),
        1 => (0..176usize, width.clone(), number()).prop_map(|(at, width, value)| Mutation::Header { at, width, value }),
        1 => (0..10 * SectionRecord::BYTES, width, number()).prop_map(|(at, width, value)| Mutation::Table { at, width, value }),
        2 => (any::<u8>(), any::<bool>(), number()).prop_map(|(record, columns, value)| {
            Mutation::Shape { record: record.into(), columns, value: value as u32 }
        }),
        1 => (0..10u8).prop_map(Mutation::Layout),
        1 => (0..9usize, -70..70isize).prop_map(|(section, by)| Mutation::Resize { section, by }),
        1 => (any::<u8>(), 0..3u8).prop_map(|(record, what)| Mutation::Record { record: record.into(), what }),
        3 => (any::<u32>(), float()).prop_map(|(at, value)| Mutation::Float { at: at as usize, value }),
        2 => (any::<u32>(), 1..400usize, any::<u8>()).prop_map(|(at, length, value)| {
            Mutation::Fill { at: at as usize, length, value }
        }),
        1 => (0..9usize, any::<bool>()).prop_map(|(section, exchange)| Mutation::Section { section, exchange }),
    ]
}

/// Writes the low bytes of a number at a multiple of its width.
fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    if bytes.len() >= width {
        let at = at % (bytes.len() / width) * width;
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

fn apply(sections: &mut Sections, mutation: &Mutation) {
    let count = sections.all.len();
    match *mutation {
        Mutation::Field { section, at, width, value } => put(&mut sections.all[section % count].2, at, width, value),
        Mutation::Header { at, width, value } => put(&mut sections.header[8..184], at, width, value),
        Mutation::Table { .. } => {}
        Mutation::Shape { record, columns, value } => {
            let table = &mut sections.all[TENSORS].2;
            let records = (table.len() / TensorRecord::BYTES).max(1);
            let start = record % records * TensorRecord::BYTES;
            if let Some(bytes) = table.get_mut(start..start + TensorRecord::BYTES) {
                let mut record = TensorRecord::from_bytes(bytes);
                *(if columns { &mut record.columns } else { &mut record.rows }) = value;
                bytes.copy_from_slice(&record.to_bytes());
            }
        }
        Mutation::Layout(layout) => {
            sections.header[40] = layout;
            for record in sections.all[TENSORS].2.chunks_exact_mut(TensorRecord::BYTES) {
                if record[5] != 0 {
                    record[5] = layout;
                }
            }
        }
        Mutation::Resize { section, by } => {
            let content = &mut sections.all[section % count].2;
            content.resize(content.len().saturating_add_signed(by), 0x3c);
        }
        Mutation::Record { record, what } => {
            let table = &mut sections.all[TENSORS].2;
            let size = TensorRecord::BYTES;
            let records = table.len() / size;
            if records < 2 {
                return;
            }
            let start = record % (records - 1) * size;
            match what {
                0 => drop(table.drain(start..start + size)),
                1 => {
                    let copy = table[start..start + size].to_vec();
                    table.splice(start..start, copy);
                }
                _ => table[start..start + 2 * size].rotate_left(size),
            }
        }
        Mutation::Float { at, value } => put(&mut sections.all[WEIGHTS].2, at, 4, value.to_bits().into()),
        Mutation::Fill { at, length, value } => {
            let weights = &mut sections.all[WEIGHTS].2;
            if !weights.is_empty() {
                let start = at % weights.len();
                let end = (start + length).min(weights.len());
                weights[start..end].fill(value);
            }
        }
        Mutation::Section { section, exchange } => {
            let section = section % count;
            if exchange {
                sections.all.swap(section, (section + 1) % count);
            } else if count > 1 {
                // Emptied, not removed: the mutations after this one find the sections where they were.
                sections.all[section].2.clear();
            }
        }
    }
}

/// How far the cases came.
#[derive(Default)]
struct Tally {
    cases: u32,
    opened: u32,
    ran: u32,
}

fn attack(artifact: &[u8]) -> Tally {
    let whole = Sections::of(artifact);
    let original = whole.clone().file(|_| {});
    assert_eq!(original, artifact, "an artifact put together again is the artifact");
    let tally = std::cell::RefCell::new(Tally::default());
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let mutations = proptest::collection::vec(mutation(), 1..4);
    let seed = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let case = |(mutations, plan, tile): (Vec<Mutation>, bool, bool)| {
        let mut sections = whole.clone();
        mutations.iter().for_each(|mutation| apply(&mut sections, mutation));
        if tile {
            sections.tile_again(1 << 18);
        }
        if plan {
            sections.plan_again();
        }
        // A page must stay one for the file to be laid out at all.
        let page = u32::from_le_bytes(sections.header[36..40].try_into().expect("four bytes"));
        if !page.is_power_of_two() || page > 1 << 16 {
            sections.header[36..40].copy_from_slice(&64u32.to_le_bytes());
        }
        let file = sections.file(|header| {
            for mutation in &mutations {
                if let Mutation::Table { at, width, value } = *mutation {
                    put(&mut header[SECTION_TABLE_OFFSET..][..10 * SectionRecord::BYTES], at, width, value);
                }
            }
        });
        assert!(file.len() >= HEADER_BYTES);
        let mut tally = tally.borrow_mut();
        tally.cases += 1;
        if let Ok(view) = ArtifactView::open(&file) {
            tally.opened += 1;
            if view.verify_digests().is_ok() && exercise(&view).is_ok() {
                tally.ran += 1;
            }
        }
        Ok(())
    };
    let strategy = (mutations, any::<bool>(), any::<bool>());
    TestRunner::new_with_rng(config, seed).run(&strategy, case).unwrap_or_else(|failure| panic!("{failure}"));
    tally.into_inner()
}

/// Whatever a decoder's or an encoder's artifact is turned into, it is refused, or runs to an answer.
#[test]
fn lies_are_refused_or_harmless() {
    let whole = Family::ALL.map(|family| (family.name().to_owned(), tiny(family)));
    let split = [Family::Llama, Family::BertMlm]
        .map(|family| (format!("{} in two parts", family.name()), tiny_in_parts(family)));
    let pooled = [("bert that pools".to_owned(), tiny_pooled(Pooling::Mean, true))];
    for (name, artifact) in whole.into_iter().chain(split).chain(pooled) {
        let tally = attack(&artifact.bytes);
        // If nothing opened, the cases would test the first check only.
        assert!(tally.opened > tally.cases / 20 && tally.ran > 0, "{name}: {} of {} opened", tally.opened, tally.cases);
        assert!(tally.opened < tally.cases, "{name}: nothing was refused");
    }
}

/// Memory nobody has: a small file that states 2^24 positions must be an error, not the end of the process.
#[test]
fn more_memory_than_there_is_is_an_error() {
    let mut sections = Sections::of(&tiny(Family::Llama).bytes);
    let spec = &mut sections.all[SPEC].2;
    let mut model = ModelRecord::from_bytes(spec);
    let mut layer = LayerRecord::from_bytes(&spec[ModelRecord::BYTES..]);
    // No rotary table, so that nothing in the file grows with the context.
    (model.context, layer.rotary) = (1 << 24, 0);
    (layer.heads, layer.key_value_heads, layer.head_dim, layer.key_map) = (1 << 14, 1 << 14, 4, 0);
    *spec = [&model.to_bytes()[..], &layer.to_bytes()[..]].concat();
    let functions = &mut sections.all[2].2;
    let curve = functions[functions.len() - 2060..].to_vec();
    *functions = [&[0, 0, 0, 0, 1, 0, 0, 0][..], &curve].concat();
    let table = &mut sections.all[TENSORS].2;
    let records: Vec<TensorRecord> = table.chunks_exact(TensorRecord::BYTES).map(TensorRecord::from_bytes).collect();
    let width = 1 << 16;
    table.clear();
    for mut record in records {
        match (record.role, record.part) {
            (0x11..=0x13, 0) => record.rows = width,
            (0x14, 0) => (record.columns, record.storage) = (width, 1),
            (0x12, _) => continue,
            _ => {}
        }
        table.extend(record.to_bytes());
    }
    sections.tile_again(1 << 23);
    sections.plan_again();
    let tokenizer = sections.all.iter_mut().find(|(kind, ..)| *kind == SectionKind::Tokenizer as u32);
    tokenizer.expect("the fixture has one").2 = letters().to_string().into_bytes();
    let file = sections.file(|_| {});
    let view = ArtifactView::open(&file).expect("its structure is sound");
    assert_eq!(view.layout(), Layout::R4K4);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("huge.slm");
    std::fs::write(&path, &file).expect("a file in a fresh directory can be written");
    for command in [&["verify"][..], &["generate", "--prompt", "a"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_slmc"))
            .args(command)
            .arg(&path)
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}");
        assert!(stderr.contains("bytes of memory"), "{command:?}: {stderr}");
    }
}

/// The special-tokens section: what it says is what the readers give, and a lie in it is refused.
#[test]
fn special_tokens_are_read_and_judged() {
    const KIND: u32 = SectionKind::SpecialTokens as u32;
    let words = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let artifact = tiny(Family::Llama);
    let with = |content: Vec<u8>, host: u32, times: usize| {
        let mut sections = Sections::of(&artifact.bytes);
        let at =
            if host == 1 { sections.all.len() } else { sections.all.iter().filter(|(_, host, _)| *host == 0).count() };
        for _ in 0..times {
            sections.all.insert(at, (KIND, host, content.clone()));
        }
        sections.file(|_| {})
    };
    // The record says bos 1 and eos 2.
    let plain = ArtifactView::open(&artifact.bytes).expect("sound");
    assert_eq!(plain.opening_tokens().iter().collect::<Vec<_>>(), [1]);
    assert_eq!(plain.end_tokens().iter().collect::<Vec<_>>(), [2]);
    let file = with(words(&[2, 3, 1, 3, 2, 5, 7]), 0, 1);
    let view = ArtifactView::open(&file).expect("sound");
    assert_eq!(view.opening_tokens().iter().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(view.end_tokens().iter().collect::<Vec<_>>(), [2, 5, 7]);
    assert!(view.end_tokens().contains(7) && !view.end_tokens().contains(1));
    let many: Vec<u32> = [17, 0].into_iter().chain([1; 17]).collect();
    for (content, host, times, fault) in [
        (words(&[1]), 0, 1, "too short"),
        (words(&[1, 1, 1]), 0, 1, "length does not match its counts"),
        (words(&[1, 1, 1, 2, 3]), 0, 1, "length does not match its counts"),
        (words(&[u32::MAX, u32::MAX, 1, 2]), 0, 1, "more tokens than a reader takes"),
        (words(&many), 0, 1, "more tokens than a reader takes"),
        (words(&[1, 2, 1, 2, 32]), 0, 1, "a token is outside the vocabulary"),
        (words(&[1, 2, 3, 2, 5]), 0, 1, "its first tokens are not those of the specification"),
        (words(&[1, 0, 1]), 0, 1, "its first tokens are not those of the specification"),
        (words(&[1, 1, 1, 2]), 0, 2, "there are two"),
        (words(&[1, 1, 1, 2]), 1, 1, "is not in the device part"),
    ] {
        let error = ArtifactView::open(&with(content, host, times)).expect_err(fault).to_string();
        assert!(error.contains("0x80000010") && error.contains(fault), "expected {fault:?}: {error}");
    }
}
