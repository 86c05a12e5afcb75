//! Packages made plainly: for each leaf the op that is asked for, where it can make it.

use crate::format::header::{HEADER_BYTES, Header};
use crate::update::coder::{Encoder, Tally};
use crate::update::contexts::{Contexts, Probabilities};
use crate::update::delta::code_leaf;
use crate::update::geometry::Geometry;
use crate::update::package::{Head, MAGIC, Op, RecordHead, VERSION};
use crate::update::surroundings::Surroundings;
use crate::update::{DeviceFailed, Flash, Slot};
use std::boxed::Box;
use std::vec::Vec;

/// An old and a new artifact to be read.
pub(super) struct Pair<'a>(pub(super) &'a [u8], pub(super) &'a [u8]);

impl Flash for Pair<'_> {
    fn slot_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn erase_block_bytes(&self) -> u32 {
        64
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let bytes = if slot == Slot::A { self.0 } else { self.1 };
        into.copy_from_slice(&bytes[offset as usize..][..into.len()]);
        Ok(())
    }

    fn erase(&mut self, _: Slot, _: u64) -> Result<(), DeviceFailed> {
        Err(DeviceFailed)
    }

    fn write(&mut self, _: Slot, _: u64, _: &[u8]) -> Result<(), DeviceFailed> {
        Err(DeviceFailed)
    }
}

/// A package in which leaf n is made by `op(n)`, or by an op that can make it.
pub(super) fn package(old: &[u8], new: &[u8], op: impl Fn(u32) -> Op) -> Vec<u8> {
    let (old_page, new_page) = (old.first_chunk().expect("a page"), new.first_chunk().expect("a page"));
    let geometry = Geometry::read(new_page, None).expect("a sound page");
    let shift = geometry.header().chunk_shift;
    let base = Geometry::read(old_page, Some(shift)).expect("a sound page");
    let mut counts = Box::new([[0; 2]; Contexts::COUNT]);
    records([old, new], [&base, &geometry], &op, &Contexts::EVEN, Some(&mut counts));
    let priors = Contexts::priors(&counts);
    let records = records([old, new], [&base, &geometry], &op, &priors, None);
    let list = geometry.chunk_list().expect("a list");
    let mut head = Head {
        magic: MAGIC,
        version: VERSION,
        leaves: geometry.leaves(),
        package_bytes: 0,
        chunk_shift: shift,
        reserved: [0; 3],
        prior_bytes: Contexts::BYTES as u32,
        base: Header::from_bytes(old).device_digest,
    };
    head.package_bytes = head.records_start() + records.len() as u64;
    let list = &new[list.offset as usize..list.end() as usize];
    [&head.to_bytes(), priors.as_flattened(), &new[..HEADER_BYTES], list, &records].concat()
}

type Counts = [[u32; 2]; Contexts::COUNT];

fn records(
    [old, new]: [&[u8]; 2],
    [base, geometry]: [&Geometry<'_>; 2],
    op: &impl Fn(u32) -> Op,
    priors: &Probabilities,
    mut tally: Option<&mut Counts>,
) -> Vec<u8> {
    let mut all = Vec::new();
    for index in geometry.order() {
        let leaf = geometry.leaf(index).expect("a leaf");
        let content = &new[leaf.offset as usize..][..leaf.bytes as usize];
        let Some(from) = base.leaf_of(leaf.kind, leaf.within).filter(|_| op(index) != Op::Raw) else {
            all.extend(record(Op::Raw, 0, content));
            continue;
        };
        let old_leaf = base.leaf(from).expect("a leaf");
        let before = &old[old_leaf.offset as usize..][..old_leaf.bytes as usize];
        all.extend(match op(index) {
            Op::Copy if before == content => record(Op::Copy, from, &[]),
            Op::Bitmap if before.len() == content.len() => record(Op::Bitmap, from, &bitmap(before, content)),
            _ => {
                let mut pair = Pair(old, new);
                let mut around = Surroundings::new(&mut pair, Slot::A, (geometry, &leaf), (base, &old_leaf));
                let (mut out, mut probabilities, mut content) = (Vec::new(), *priors, content.to_vec());
                let mut contexts = Contexts::new(&mut probabilities);
                match &mut tally {
                    Some(counts) => code_leaf(&mut Tally { counts }, &mut contexts, &mut content, &mut around),
                    None => {
                        let mut encoder = Encoder::new(|byte| out.push(byte));
                        code_leaf(&mut encoder, &mut contexts, &mut content, &mut around);
                        encoder.finish();
                    }
                }
                record(Op::Delta, from, &out)
            }
        });
    }
    all
}

fn record(op: Op, old: u32, data: &[u8]) -> Vec<u8> {
    let head = RecordHead { op: op as u8, old, bytes: data.len() as u32 };
    [&head.to_bytes()[..], data].concat()
}

fn bitmap(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (old, new) in old.chunks(8).zip(new.chunks(8)) {
        let mask = out.len();
        out.push(0);
        for (n, (old, new)) in old.iter().zip(new).enumerate() {
            if old != new {
                out[mask] |= 1 << n;
                out.push(*new);
            }
        }
    }
    out
}
