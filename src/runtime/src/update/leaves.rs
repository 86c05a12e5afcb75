//! A leaf made from its record, by each of the ops.

use super::coder::Decoder;
use super::contexts::{Contexts, Probabilities};
use super::delta::code_leaf;
use super::error::UpdateError;
use super::flash::{Flash, Package, Slot};
use super::geometry::Geometry;
use super::package::{Op, RecordHead};
use super::surroundings::Surroundings;
use crate::format::chunks::Leaf;

/// The artifact that is changed.
pub(super) struct Base<'b> {
    /// Where it lies.
    pub(super) slot: Slot,
    /// Its parts, cut as the new artifact's.
    pub(super) geometry: Geometry<'b>,
}

/// Makes a leaf from the record whose data begin at `data`. What comes out is compared with its digest by the caller.
pub(super) fn make_leaf(
    package: &mut dyn Package,
    data: u64,
    record: &RecordHead,
    (flash, base): (&mut dyn Flash, &Base<'_>),
    (new, leaf): (&Geometry<'_>, &Leaf),
    (priors, contexts): (&Probabilities, &mut Probabilities),
    made: &mut [u8],
) -> Result<(), UpdateError> {
    let refused = Err(UpdateError::Package("a record"));
    let op = Op::from_number(record.op).ok_or(UpdateError::Package("an op"))?;
    let mut stream = Stream::new(package, data, record.bytes);
    if op == Op::Raw {
        return if record.bytes == leaf.bytes { Ok(stream.fill(made)?) } else { refused };
    }
    let from = base.geometry.leaf(record.old).ok_or(UpdateError::Package("an old leaf"))?;
    if op == Op::Delta {
        contexts.copy_from_slice(priors);
        let mut around = Surroundings::new(flash, base.slot, (new, leaf), (&base.geometry, &from));
        // Encoder and decoder begin with the same bytes, so that nothing depends on what memory held.
        made.fill(0);
        let mut decoder = Decoder::new(|| stream.next());
        code_leaf(&mut decoder, &mut Contexts::new(contexts), made, &mut around);
        return if around.failed() || stream.failed { Err(UpdateError::Device) } else { Ok(()) };
    }
    if from.bytes != leaf.bytes || (op == Op::Copy && record.bytes != 0) {
        return refused;
    }
    flash.read(base.slot, from.offset, made)?;
    if op == Op::Bitmap {
        for eight in made.chunks_mut(8) {
            let changed = stream.next();
            let of_byte = eight.iter_mut().enumerate().filter(|(n, _)| changed >> n & 1 == 1);
            of_byte.for_each(|(_, byte)| *byte = stream.next());
        }
        if stream.failed {
            return Err(UpdateError::Device);
        }
        if stream.taken != u64::from(record.bytes) {
            return refused;
        }
    }
    Ok(())
}

const PIECE: usize = 64;

/// The data of a record, byte by byte; zeros after its end.
struct Stream<'p> {
    package: &'p mut dyn Package,
    start: u64,
    bytes: u64,
    /// Bytes taken, those after the end included.
    taken: u64,
    piece: [u8; PIECE],
    failed: bool,
}

impl<'p> Stream<'p> {
    fn new(package: &'p mut dyn Package, start: u64, bytes: u32) -> Self {
        Stream { package, start, bytes: bytes.into(), taken: 0, piece: [0; PIECE], failed: false }
    }

    fn next(&mut self) -> u8 {
        let within = self.taken as usize % PIECE;
        if within == 0 {
            let rest = self.bytes.saturating_sub(self.taken).min(PIECE as u64) as usize;
            self.piece[rest..].fill(0);
            self.failed |= self.package.read(self.start + self.taken, &mut self.piece[..rest]).is_err();
        }
        self.taken += 1;
        self.piece[within]
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), UpdateError> {
        Ok(self.package.read(self.start, into)?)
    }
}
