//! Packages that lie: refused by name, within the memory that was lent, and without a byte in the active slot or the record.

use super::device::{Chip, Vault};
use super::packer::package;
use super::*;
use crate::update::contexts::Contexts;
use crate::update::package::{Head, Op, RecordHead};
use proptest::prelude::*;

const SLOT_BYTES: usize = 96 << 10;
const LAYOUT: Layout = Layout::R8K8;

struct Bench {
    old: Vec<u8>,
    new: Vec<u8>,
    package: Vec<u8>,
}

fn bench() -> Bench {
    let old = artifact(LAYOUT, &sections(LAYOUT, 2, 0), 1);
    let new = artifact(LAYOUT, &sections(LAYOUT, 2, 1), 1);
    let package = package(&old, &new, |n| Op::ALL[n as usize % 4]);
    Bench { old, new, package }
}

impl Bench {
    /// Applies a package on a new device whose counter is 1.
    fn apply(&self, package: &[u8], trusted: bool) -> Result<Applied, UpdateError> {
        let (mut chip, mut vault) = (Chip::new(SLOT_BYTES, 1024, 8), Vault::new(4));
        vault.counter = 1;
        chip.put(Slot::A, &self.old);
        install(&mut vault, Slot::A, &Header::from_bytes(&self.old).device_digest).expect("a record");
        let before = (chip.slots[0].clone(), vault.clone());
        let mut source = package;
        let needed = required_bytes(&mut source)?;
        assert!(needed <= 2 * HEADER_BYTES + 2 * Contexts::BYTES + (1 << 20) + (1 << 17) + 1, "{needed} bytes");
        let mut memory = vec![0; needed];
        // As a signature would: this page, and no other.
        let mut trust = |page: &[u8; HEADER_BYTES]| trusted && self.new.starts_with(page);
        let device = Device { package: &mut source, flash: &mut chip, protected: &mut vault, trust: &mut trust };
        let result = apply(device, &mut memory);
        assert_eq!(chip.slots[0], before.0, "the active slot was written");
        match result {
            Ok(applied) => assert!(chip.slots[applied.slot as usize].starts_with(&self.new), "another artifact"),
            Err(_) => assert_eq!(vault.records, before.1.records, "the record was written"),
        }
        result
    }
}

/// A package whose chunk list is another from the second time on that it is read.
struct TwoFaced<'p> {
    first: &'p [u8],
    then: &'p [u8],
    list: core::ops::Range<u64>,
    reads: u64,
}

impl Package for TwoFaced<'_> {
    fn bytes(&self) -> u64 {
        self.first.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let entries = (self.list.end - self.list.start) / 32;
        let mut from = self.first;
        if self.list.contains(&offset) {
            self.reads += 1;
            from = if self.reads > entries { self.then } else { self.first };
        }
        from.read(offset, into)
    }
}

#[test]
fn a_list_that_is_another_when_it_is_read_again_is_refused() {
    let bench = bench();
    let head = Head::from_bytes(&bench.package);
    let list = head.list_start()..head.list_start() + u64::from(head.leaves) * 32;
    let mut forged = bench.package.clone();
    forged[list.start as usize] ^= 1;
    let (mut chip, mut vault) = (Chip::new(SLOT_BYTES, 1024, 8), Vault::new(4));
    chip.put(Slot::A, &bench.old);
    install(&mut vault, Slot::A, &Header::from_bytes(&bench.old).device_digest).expect("a record");
    let records = vault.records;
    let mut package = TwoFaced { first: &bench.package, then: &forged, list, reads: 0 };
    let mut memory = vec![0; required_bytes(&mut package).expect("a sound head")];
    let device = Device {
        package: &mut package,
        flash: &mut chip,
        protected: &mut vault,
        trust: &mut |_: &[u8; HEADER_BYTES]| true,
    };
    assert_eq!(apply(device, &mut memory), Err(UpdateError::ChunkList));
    assert_eq!(vault.records, records, "a trial was recorded");
}

fn changed(bytes: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// The records of a package: where each begins.
fn records(package: &[u8]) -> Vec<usize> {
    let head = Head::from_bytes(package);
    let mut at = head.records_start() as usize;
    let mut starts = Vec::new();
    while at < package.len() {
        starts.push(at);
        at += RecordHead::BYTES + RecordHead::from_bytes(&package[at..]).bytes as usize;
    }
    starts
}

#[test]
fn lies_are_named() {
    let bench = bench();
    let good = &bench.package;
    let head = Head::from_bytes(good);
    let (page, list) = (head.page_start() as usize, head.list_start() as usize);
    let starts = records(good);
    let of = |op: Op| starts.iter().copied().find(|&at| good[at] == op as u8).expect("every op is used");
    assert!(bench.apply(good, true).is_ok());
    assert_eq!(bench.apply(good, false), Err(UpdateError::Untrusted));
    let other = artifact(LAYOUT, &sections(LAYOUT, 3, 0), 1);
    let older = artifact(LAYOUT, &sections(LAYOUT, 2, 1), 0);
    let plain = package(&bench.old, &older, |_| Op::Raw);
    let foreign = package(&other, &bench.new, |_| Op::Delta);
    let mut longer = good.clone();
    longer.push(0);
    let cut = changed(&good[..good.len() - 1], 16, &(good.len() as u64 - 1).to_le_bytes());
    let delta = of(Op::Delta) + RecordHead::BYTES;
    let cases: Vec<(&str, Vec<u8>, UpdateError)> = vec![
        ("nothing", vec![], UpdateError::Length { expected: 64, actual: 0 }),
        ("another file", bench.new.clone(), UpdateError::NotAPackage),
        ("a later version", changed(good, 8, &[2]), UpdateError::Version(2)),
        ("cut", good[..good.len() / 2].to_vec(), {
            UpdateError::Length { expected: good.len() as u64, actual: good.len() as u64 / 2 }
        }),
        ("longer", longer, UpdateError::Length { expected: good.len() as u64, actual: good.len() as u64 + 1 }),
        ("cut, and says so", cut, UpdateError::Package("a record's length")),
        ("too many leaves", changed(good, 12, &[0xff; 4]), UpdateError::Package("`leaves`")),
        ("fewer leaves", changed(good, 12, &(head.leaves - 1).to_le_bytes()), UpdateError::Package("`leaves`")),
        ("another leaf size", changed(good, 24, &[13]), UpdateError::Package("`chunk_shift`")),
        ("no leaf size", changed(good, 24, &[99]), UpdateError::Place("chunk_shift")),
        ("reserved", changed(good, 25, &[1]), UpdateError::Package("`reserved`")),
        ("half the priors", changed(good, 28, &[2, 0, 0, 0]), UpdateError::Package("`prior_bytes`")),
        ("another base", foreign, UpdateError::OtherBase),
        ("a changed list", changed(good, list, &[1, 2, 3, 4]), UpdateError::ChunkList),
        ("an unknown op", changed(good, starts[1], &[9]), UpdateError::Package("an op")),
        ("an old leaf that is not", changed(good, of(Op::Bitmap) + 1, &[0xff; 4]), UpdateError::Package("an old leaf")),
        ("another old leaf", changed(good, of(Op::Delta) + 1, &[7]), {
            UpdateError::Leaf(leaf_of(&bench, &starts, of(Op::Delta)))
        }),
        ("a changed delta", changed(good, delta, &[good[delta] ^ 1]), {
            UpdateError::Leaf(leaf_of(&bench, &starts, of(Op::Delta)))
        }),
    ];
    let older = Bench { old: bench.old.clone(), new: older, package: Vec::new() };
    assert_eq!(older.apply(&plain, true), Err(UpdateError::Rollback { device: 1, artifact: 0 }));
    for (what, bytes, expected) in cases {
        assert_eq!(bench.apply(&bytes, true), Err(expected), "{what}");
    }
    let refused = bench.apply(&changed(good, 64 + 300, &[0; 400]), true);
    assert!(matches!(refused, Err(UpdateError::Leaf(_))), "{refused:?}");
    let refused = bench.apply(&changed(good, page, &[0]), true);
    assert!(matches!(refused, Err(UpdateError::Page(_))), "{refused:?}");
}

/// The leaf of the record that begins at a place.
fn leaf_of(bench: &Bench, starts: &[usize], at: usize) -> u32 {
    let geometry = geometry::Geometry::read(bench.new.first_chunk().expect("a page"), None).expect("sound");
    let position = starts.iter().position(|&start| start == at).expect("a record");
    geometry.order().nth(position).expect("a leaf")
}

#[test]
fn too_little_memory_and_a_small_slot_are_named() {
    let bench = bench();
    let (mut chip, mut vault) = (Chip::new(16 << 10, 1024, 8), Vault::new(4));
    chip.put(Slot::A, &bench.old[..16 << 10]);
    install(&mut vault, Slot::A, &Header::from_bytes(&bench.old).device_digest).expect("a record");
    let mut source = &bench.package[..];
    let needed = required_bytes(&mut source).expect("sound");
    for (length, expected) in [
        (needed - 1, UpdateError::Memory { needed }),
        (needed, UpdateError::Slot { needed: bench.new.len() as u64, there: 16 << 10 }),
    ] {
        let device = Device { package: &mut source, flash: &mut chip, protected: &mut vault, trust: &mut |_| true };
        assert_eq!(apply(device, &mut vec![0; length]), Err(expected));
    }
}

#[test]
fn another_product_line_is_refused() {
    let bench = bench();
    let with_id = |bytes: &[u8], id: u8| {
        let mut bytes = changed(bytes, 224, &[id; 16]);
        let digest = device_digest(&bytes, &bytes[HEADER_BYTES..]);
        bytes[DEVICE_DIGEST].copy_from_slice(&digest);
        bytes
    };
    for (old, new, expected) in [(0, 7, true), (7, 7, true), (7, 8, false), (7, 0, false)] {
        let (old, new) = (with_id(&bench.old, old), with_id(&bench.new, new));
        let bytes = package(&old, &new, |_| Op::Delta);
        let bench = Bench { old, new, package: Vec::new() };
        let found = bench.apply(&bytes, true);
        assert_eq!(found.is_ok(), expected, "{found:?}");
        assert!(expected || found == Err(UpdateError::OtherModel), "{found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_change_is_refused_or_harmless(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        whole_head: bool,
    ) {
        let bench = bench();
        let mut bytes = bench.package.clone();
        // Half of the changes where the decisions are.
        let head = Head::BYTES + Contexts::BYTES + 256 + 32 * 9;
        for (n, (place, byte)) in places.iter().enumerate() {
            let end = if whole_head && n % 2 == 0 { head } else { bytes.len() };
            let at = place.index(end);
            bytes[at] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            if bytes.len() >= 24 {
                let length = bytes.len() as u64;
                bytes[16..24].copy_from_slice(&length.to_le_bytes());
            }
        }
        let _ = bench.apply(&bytes, true);
    }
}
