//! What a device lends an update, in this machine's memory: two artifacts to compare, or two slots to write.

use slm_runtime::update::{DeviceFailed, Flash, Protected, RECORD_BYTES, Slot};

/// Bytes of an erase block; memory has none.
const BLOCK_BYTES: u32 = 4096;

fn copy(from: &[u8], offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
    let start = usize::try_from(offset).map_err(|_| DeviceFailed)?;
    let end = start.checked_add(into.len()).ok_or(DeviceFailed)?;
    into.copy_from_slice(from.get(start..end).ok_or(DeviceFailed)?);
    Ok(())
}

/// The old artifact in slot A and the whole new one in slot B, to be read.
#[derive(Clone, Copy)]
pub(super) struct Artifacts<'a> {
    pub(super) old: &'a [u8],
    pub(super) new: &'a [u8],
}

impl Flash for Artifacts<'_> {
    fn slot_bytes(&self) -> u64 {
        self.old.len().max(self.new.len()) as u64
    }

    fn erase_block_bytes(&self) -> u32 {
        BLOCK_BYTES
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        copy(if slot == Slot::A { self.old } else { self.new }, offset, into)
    }

    fn erase(&mut self, _: Slot, _: u64) -> Result<(), DeviceFailed> {
        Err(DeviceFailed)
    }

    fn write(&mut self, _: Slot, _: u64, _: &[u8]) -> Result<(), DeviceFailed> {
        Err(DeviceFailed)
    }
}

/// The old artifact in slot A, and slot B to be written, which grows as it is.
pub(super) struct Growing<'a> {
    pub(super) old: &'a [u8],
    pub(super) new: Vec<u8>,
    /// Most bytes that slot B may come to.
    pub(super) slot_bytes: u64,
}

impl Flash for Growing<'_> {
    fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    fn erase_block_bytes(&self) -> u32 {
        BLOCK_BYTES
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        if slot == Slot::A {
            return copy(self.old, offset, into);
        }
        // What was never written reads as it would be after an erasure.
        into.fill(0xff);
        let there = self.new.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        Ok(())
    }

    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed> {
        let start = usize::try_from(offset).map_err(|_| DeviceFailed)?;
        let end = (start + BLOCK_BYTES as usize).min(self.new.len());
        self.new.get_mut(start..end).unwrap_or_default().fill(0xff);
        if slot == Slot::B { Ok(()) } else { Err(DeviceFailed) }
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed> {
        let start = usize::try_from(offset).map_err(|_| DeviceFailed)?;
        let end = start.checked_add(bytes.len()).filter(|&end| end as u64 <= self.slot_bytes).ok_or(DeviceFailed)?;
        if slot == Slot::A {
            return Err(DeviceFailed);
        }
        if self.new.len() < end {
            self.new.resize(end, 0xff);
        }
        self.new[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// Slot record and counter of a device that has just been set up.
#[derive(Default)]
pub(super) struct Fresh {
    records: [Option<[u8; RECORD_BYTES]>; 2],
    counter: u64,
}

impl Protected for Fresh {
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        *into = self.records[copy].unwrap_or([0xff; RECORD_BYTES]);
        Ok(())
    }

    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        self.records[copy] = Some(*record);
        Ok(())
    }

    fn counter(&mut self) -> Result<u64, DeviceFailed> {
        Ok(self.counter)
    }

    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed> {
        self.counter = to;
        Ok(())
    }
}
