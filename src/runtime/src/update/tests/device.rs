//! A device whose power fails after some number of writes. A write or an erasure that it interrupts leaves any bytes where it
//! was, which flash with error correction refuses to read; one that did not begin leaves what there was. Writing what is not
//! erased is a fault of the caller and ends the test.

use super::Draws;
use crate::update::{DeviceFailed, Flash, Protected, RECORD_BYTES, Slot};
use std::vec;
use std::vec::Vec;

#[derive(Clone)]
pub(super) struct Chip {
    pub(super) slots: [Vec<u8>; 2],
    /// For each 64 bytes: whether they were erased and not written since.
    erased: [Vec<bool>; 2],
    /// For each 64 bytes, with error correction: whether what is there was torn.
    torn: [Vec<bool>; 2],
    corrects: bool,
    block: usize,
    power: Power,
}

/// How long the power lasts.
#[derive(Clone)]
pub(super) struct Power {
    /// Steps until it fails; `None`: it does not.
    pub(super) left: Option<u64>,
    pub(super) off: bool,
    stream: u64,
    torn: u64,
}

impl Power {
    fn new(stream: u64) -> Self {
        Power { left: None, off: false, stream, torn: 0 }
    }

    /// A step of a write: `Ok(true)` is done, `Ok(false)` tears, an error is that the power was off before.
    fn step(&mut self) -> Result<bool, DeviceFailed> {
        if self.off {
            return Err(DeviceFailed);
        }
        match &mut self.left {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(!self.off)
    }

    /// Bytes where a write was torn: of each byte the old one, the new one or neither.
    fn tear(&mut self, old: &mut [u8], new: &[u8]) {
        self.torn += 1;
        let mut draws = Draws::new(self.stream ^ self.torn << 32);
        for (old, new) in old.iter_mut().zip(new) {
            *old = match draws.below(3) {
                0 => *old,
                1 => *new,
                _ => draws.number() as u8,
            };
        }
    }

    pub(super) fn on(&mut self, left: Option<u64>) {
        (self.left, self.off) = (left, false);
    }
}

impl Chip {
    pub(super) fn new(slot_bytes: usize, block: usize, stream: u64) -> Self {
        let garbage = |n| Draws::new(stream + n).bytes(slot_bytes);
        let none = || [vec![false; slot_bytes / 64], vec![false; slot_bytes / 64]];
        let slots = [garbage(1), garbage(2)];
        Chip { slots, erased: none(), torn: none(), corrects: false, block, power: Power::new(stream) }
    }

    /// Flash with error correction.
    pub(super) fn correcting(self) -> Self {
        Chip { corrects: true, ..self }
    }

    /// An artifact put into a slot at the factory.
    pub(super) fn put(&mut self, slot: Slot, bytes: &[u8]) {
        self.slots[slot as usize][..bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn power(&mut self) -> &mut Power {
        &mut self.power
    }
}

impl Flash for Chip {
    fn slot_bytes(&self) -> u64 {
        self.slots[0].len() as u64
    }

    fn erase_block_bytes(&self) -> u32 {
        self.block as u32
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        if self.power.off {
            return Err(DeviceFailed);
        }
        let (from, to) = (offset as usize, offset as usize + into.len());
        if self.corrects && self.torn[slot as usize][from / 64..to.div_ceil(64)].contains(&true) {
            return Err(DeviceFailed);
        }
        into.copy_from_slice(&self.slots[slot as usize][from..to]);
        Ok(())
    }

    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed> {
        let whole = self.power.step()?;
        assert!((offset as usize).is_multiple_of(self.block), "an erasure begins on a block");
        let range = offset as usize..offset as usize + self.block;
        let cleared = vec![0xff; self.block];
        let bytes = &mut self.slots[slot as usize][range.clone()];
        if whole {
            bytes.copy_from_slice(&cleared);
        } else {
            self.power.tear(bytes, &cleared);
        }
        self.erased[slot as usize][range.start / 64..range.end / 64].fill(whole);
        self.torn[slot as usize][range.start / 64..range.end / 64].fill(!whole);
        if whole { Ok(()) } else { Err(DeviceFailed) }
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed> {
        assert!(offset.is_multiple_of(64) && bytes.len().is_multiple_of(64), "writes are multiples of 64");
        for (n, piece) in bytes.chunks(64).enumerate() {
            let at = offset as usize + 64 * n;
            let whole = self.power.step()?;
            let erased = &mut self.erased[slot as usize][at / 64];
            assert!(*erased, "byte {at} is written without having been erased");
            *erased = false;
            let place = &mut self.slots[slot as usize][at..at + 64];
            if !whole {
                self.power.tear(place, piece);
                self.torn[slot as usize][at / 64] = true;
                return Err(DeviceFailed);
            }
            place.copy_from_slice(piece);
        }
        Ok(())
    }
}

/// Slot records whose writes tear, and a counter that moves at once or not at all.
#[derive(Clone)]
pub(super) struct Vault {
    pub(super) records: [[u8; RECORD_BYTES]; 2],
    pub(super) counter: u64,
    /// With error correction: copies that were torn.
    torn: [bool; 2],
    corrects: bool,
    /// Whether the counter answers that it is busy.
    pub(super) busy: bool,
    pub(super) power: Power,
}

impl Vault {
    pub(super) fn new(stream: u64) -> Self {
        let records = [[0xff; RECORD_BYTES]; 2];
        Vault { records, counter: 0, torn: [false; 2], corrects: false, busy: false, power: Power::new(stream) }
    }

    /// Memory with error correction.
    pub(super) fn correcting(self) -> Self {
        Vault { corrects: true, ..self }
    }
}

impl Protected for Vault {
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        *into = self.records[copy];
        if self.power.off || self.corrects && self.torn[copy] { Err(DeviceFailed) } else { Ok(()) }
    }

    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        let whole = self.power.step()?;
        self.torn[copy] = !whole;
        if whole {
            self.records[copy] = *record;
            return Ok(());
        }
        self.power.tear(&mut self.records[copy], record);
        Err(DeviceFailed)
    }

    fn counter(&mut self) -> Result<u64, DeviceFailed> {
        if self.power.off { Err(DeviceFailed) } else { Ok(self.counter) }
    }

    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed> {
        assert!(to > self.counter, "the counter goes from {} to {to}", self.counter);
        if self.power.step()? && !self.busy {
            self.counter = to;
            return Ok(());
        }
        Err(DeviceFailed)
    }
}
