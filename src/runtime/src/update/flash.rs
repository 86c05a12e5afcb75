//! What a device lends an update: two slots of flash, a place that only the firmware can write, and the package. All of it
//! is called with offsets and lengths that were checked; every failure is one and the same, and ends the call.

/// Something of the device could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFailed;

/// One of the two places for an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Slot {
    /// The first.
    A = 0,
    /// The second.
    B = 1,
}

impl Slot {
    /// The other one.
    pub const fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// From the byte of a record.
    pub fn from_number(number: u8) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|slot| *slot as u8 == number)
    }
}

/// The two slots. Each begins on an erase block and holds an artifact's device part from its first byte on.
pub trait Flash {
    /// Bytes of a slot: a multiple of the erase block.
    fn slot_bytes(&self) -> u64;

    /// Bytes that one erasure clears: a power of two, at least 64.
    fn erase_block_bytes(&self) -> u32;

    /// Reads from any offset. Where power failed in a write, flash with error correction may refuse: that place is written anew.
    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed>;

    /// Clears the erase block that begins at `offset`.
    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed>;

    /// Writes to bytes that were erased since they were last written. Offset and length are multiples of 64.
    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed>;
}

/// Bytes of a slot record.
pub const RECORD_BYTES: usize = 64;

/// Two places for slot records and the security counter, where only the firmware can write: one-time-programmable words, a
/// replay-protected block, a secure element, or flash behind a bootloader.
pub trait Protected {
    /// Reads one of the two copies of the slot record; any bytes where none was written.
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed>;

    /// Replaces a copy. Power may fail meanwhile and leave any bytes in this copy, never in the other one.
    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed>;

    /// The counter; 0 at first.
    fn counter(&mut self) -> Result<u64, DeviceFailed>;

    /// Raises the counter, at once or not at all. It is never called with less than [`Protected::counter`] said.
    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed>;
}

/// A package, wherever it lies. After the chunk list, which is read several times, offsets only grow, so that one that is
/// being downloaded need not be stored.
pub trait Package {
    /// Bytes of it.
    fn bytes(&self) -> u64;

    /// Reads from an offset; all of it lies within the package.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed>;
}

impl Package for &[u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let start = usize::try_from(offset).map_err(|_| DeviceFailed)?;
        let end = start.checked_add(into.len()).ok_or(DeviceFailed)?;
        into.copy_from_slice(self.get(start..end).ok_or(DeviceFailed)?);
        Ok(())
    }
}
