//! Makes the new artifact in the slot that is not active.
//!
//! 1. The package's head, the new header page (trusted, its counter not below the device's nor the active artifact's, of the
//!    same product line) and the chunk list are checked: a refused update costs these bytes and writes nothing.
//! 2. What the slot holds already is hashed: the leaves that are there are kept, which makes an interrupted update go on. An
//!    erase block with anything else in it, or that cannot be read, is erased, and all that lies in it is written again.
//! 3. The chunk list is written, and its root compared as it stands in flash: the package may answer otherwise when it is read
//!    again. Then leaf by leaf what the records give: a leaf is made in memory, compared with its digest, written and read
//!    back; one that was kept is compared too. Then comes the header page.
//! 4. The slot record names the slot as a trial.

use super::error::UpdateError;
use super::flash::{Flash, Package, Protected, Slot};
use super::geometry::{Extent, Geometry};
use super::leaves::{Base, make_leaf};
use super::memory::Workspace;
use super::package::{Head, RecordHead};
use super::slots::{Slots, Trial, Trust};
use crate::format::chunks::{ENTRY_BYTES, Leaf};
use crate::format::header::{HEADER_BYTES, Header};
use crate::format::tree::{leaf_digest, root};
use crate::layout::ALIGNMENT;
use crate::sha256::{Digest, Software};

/// What an update needs of the device.
pub struct Device<'d> {
    /// The package.
    pub package: &'d mut dyn Package,
    /// The slots.
    pub flash: &'d mut dyn Flash,
    /// Slot record and counter.
    pub protected: &'d mut dyn Protected,
    /// Whether the new header page is trusted.
    pub trust: &'d mut Trust<'d>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The slot on trial from the next boot on.
    pub slot: Slot,
    /// Leaves of the new artifact.
    pub leaves: u32,
    /// How many of these the slot held already.
    pub kept: u32,
    /// Length of the new artifact.
    pub bytes: u64,
}

/// Bytes of memory that [`apply`] takes for a package, starting anywhere: two header pages, a leaf, the contexts and a bit for
/// every leaf. The memory of a session serves, while none runs.
pub fn required_bytes(package: &mut dyn Package) -> Result<usize, UpdateError> {
    Ok(Workspace::bytes(&read_head(package)?))
}

fn read_head(package: &mut dyn Package) -> Result<Head, UpdateError> {
    let mut start = [0; Head::BYTES];
    let bytes = package.bytes();
    if bytes < start.len() as u64 {
        return Err(UpdateError::Length { expected: start.len() as u64, actual: bytes });
    }
    package.read(0, &mut start)?;
    Head::read(&start, bytes)
}

/// Applies a package. After an error or a loss of power the same call goes on where it ended.
pub fn apply(device: Device<'_>, memory: &mut [u8]) -> Result<Applied, UpdateError> {
    let Device { package, flash, protected, trust } = device;
    let head = read_head(package)?;
    let Workspace { page, base_page, leaf: buffer, priors, contexts, dirty } = Workspace::new(memory, &head)?;
    let slots = Slots::read(protected)?;
    if slots.trial == Trial::Running {
        return Err(UpdateError::TrialRuns);
    }

    let active = slots.active;
    flash.read(active, 0, base_page)?;
    let digest = Header::from_bytes(base_page).device_digest;
    if !slots.holds(active, &digest) {
        return Err(UpdateError::OtherArtifact);
    }
    if digest != head.base {
        return Err(UpdateError::OtherBase);
    }
    let base = Base { slot: active, geometry: Geometry::read(base_page, Some(head.chunk_shift))? };

    if head.prior_bytes > 0 {
        package.read(Head::BYTES as u64, priors.as_flattened_mut())?;
    } else {
        *priors = super::contexts::Contexts::EVEN;
    }
    package.read(head.page_start(), page)?;
    let new = Geometry::read(page, None)?;
    let header = *new.header();
    let require = |holds: bool, field| if holds { Ok(()) } else { Err(UpdateError::Package(field)) };
    require(header.chunk_shift == head.chunk_shift, "`chunk_shift`")?;
    require(new.leaves() == head.leaves, "`leaves`")?;
    let list = new.chunk_list()?;
    if !trust(page) {
        return Err(UpdateError::Untrusted);
    }
    // The active artifact is confirmed, also where its counter has not reached the device yet.
    let counter = protected.counter()?.max(base.geometry.header().security_counter);
    if header.security_counter < counter {
        return Err(UpdateError::Rollback { device: counter, artifact: header.security_counter });
    }
    let line = base.geometry.header().model_id;
    if line != [0; 16] && line != header.model_id {
        return Err(UpdateError::OtherModel);
    }
    let slot_bytes = flash.slot_bytes();
    if header.device_bytes > slot_bytes {
        return Err(UpdateError::Slot { needed: header.device_bytes, there: slot_bytes });
    }
    check_list_root(package, &head, &header.chunks_root)?;

    let slots = slots.without_trial(protected)?;
    let slot = active.other();
    let mut writer = Writer { flash, slot, new, list };
    let kept = writer.find_dirty(package, &head, page, buffer, dirty)?;
    writer.erase_dirty(dirty)?;
    if is_dirty(dirty, writer.unit_of_list()) {
        writer.write_list(package, &head, buffer)?;
    }
    writer.check_list(&header.chunks_root)?;
    let mut at = head.records_start();
    for index in new.order() {
        let mut start = [0; RecordHead::BYTES];
        let rest = head.package_bytes.saturating_sub(at);
        require(rest >= start.len() as u64, "a record")?;
        package.read(at, &mut start)?;
        let record = RecordHead::from_bytes(&start);
        let data = at + start.len() as u64;
        require(u64::from(record.bytes) <= head.package_bytes - data, "a record's length")?;
        let leaf = new.leaf(index).ok_or(UpdateError::Package("`leaves`"))?;
        if is_dirty(dirty, writer.unit_of_leaf(index)) {
            let made = &mut buffer[..leaf.bytes as usize];
            let tables = (&*priors, &mut *contexts);
            make_leaf(package, data, &record, (writer.flash, &base), (&new, &leaf), tables, made)?;
            if leaf_digest(&Software, made) != writer.digest(index)? {
                return Err(UpdateError::Leaf(index));
            }
            writer.write(leaf.offset, leaf.bytes as usize, buffer)?;
        } else if !writer.holds_leaf(&leaf, index, buffer)? {
            return Err(UpdateError::Leaf(index));
        }
        at = data + u64::from(record.bytes);
    }
    require(at == head.package_bytes, "the last record")?;
    if is_dirty(dirty, PAGE) {
        writer.write_checked(0, page)?;
        writer.write_zeros(HEADER_BYTES as u64)?;
    }
    slots.with_trial(&header.device_digest, protected)?;
    Ok(Applied { slot, leaves: new.leaves(), kept, bytes: header.device_bytes })
}

/// Compares the root over the package's chunk list with the one that the page states.
fn check_list_root(package: &mut dyn Package, head: &Head, stated: &Digest) -> Result<(), UpdateError> {
    let mut failed = false;
    let digests = (0..head.leaves).map(|index| {
        let mut digest = [0; ENTRY_BYTES];
        failed |= package.read(head.list_start() + u64::from(index) * ENTRY_BYTES as u64, &mut digest).is_err();
        digest
    });
    let found = root(digests, &Software);
    if failed {
        return Err(UpdateError::Device);
    }
    if found == *stated { Ok(()) } else { Err(UpdateError::ChunkList) }
}

/// Units of a slot in the order of their addresses: the header page, the leaves, the chunk list. Each has a bit.
const PAGE: usize = 0;

fn is_dirty(dirty: &[u8], unit: usize) -> bool {
    dirty[unit / 8] >> (unit % 8) & 1 == 1
}

fn mark(dirty: &mut [u8], unit: usize) {
    dirty[unit / 8] |= 1 << (unit % 8);
}

/// The slot that is written.
struct Writer<'w> {
    flash: &'w mut dyn Flash,
    slot: Slot,
    new: Geometry<'w>,
    list: Extent,
}

impl Writer<'_> {
    fn unit_of_leaf(&self, index: u32) -> usize {
        PAGE + 1 + index as usize
    }

    fn unit_of_list(&self) -> usize {
        self.unit_of_leaf(self.new.leaves())
    }

    /// Where a unit's bytes and the zeros after them lie.
    fn extent(&self, unit: usize) -> (Extent, u64) {
        let extent = match unit.checked_sub(PAGE + 1) {
            None => Extent { offset: 0, bytes: HEADER_BYTES as u64 },
            Some(index) => match self.new.leaf(index as u32) {
                Some(leaf) => Extent { offset: leaf.offset, bytes: leaf.bytes.into() },
                None => self.list,
            },
        };
        (extent, self.new.padded_end(extent.end()))
    }

    /// The digest of a leaf by the chunk list that was written.
    fn digest(&mut self, index: u32) -> Result<Digest, UpdateError> {
        let mut digest = [0; ENTRY_BYTES];
        self.flash.read(self.slot, self.list.offset + u64::from(index) * ENTRY_BYTES as u64, &mut digest)?;
        Ok(digest)
    }

    /// Marks every unit that is not there, and every one that shares an erase block with such a one. Returns how many leaves
    /// are kept.
    fn find_dirty(
        &mut self,
        package: &mut dyn Package,
        head: &Head,
        page: &[u8; HEADER_BYTES],
        buffer: &mut [u8],
        dirty: &mut [u8],
    ) -> Result<u32, UpdateError> {
        dirty.fill(0);
        let units = self.unit_of_list() + 1;
        for unit in 0..units {
            if !self.is_there(unit, package, head, page, buffer)? {
                mark(dirty, unit);
                // A page whose artifact is not whole must not stand.
                mark(dirty, PAGE);
            }
        }
        let block = u64::from(self.flash.erase_block_bytes());
        let mut end = 0;
        for unit in 0..units {
            let (extent, padded) = self.extent(unit);
            if is_dirty(dirty, unit) || extent.offset < end {
                mark(dirty, unit);
                end = padded.next_multiple_of(block);
            }
        }
        let mut start = u64::MAX;
        for unit in (0..units).rev() {
            let (extent, padded) = self.extent(unit);
            if is_dirty(dirty, unit) || padded > start {
                mark(dirty, unit);
                start = extent.offset / block * block;
            }
        }
        let leaves = (0..self.new.leaves()).filter(|&index| !is_dirty(dirty, self.unit_of_leaf(index)));
        Ok(leaves.count() as u32)
    }

    /// Whether the slot holds a unit, and zeros after it.
    fn is_there(
        &mut self,
        unit: usize,
        package: &mut dyn Package,
        head: &Head,
        page: &[u8; HEADER_BYTES],
        buffer: &mut [u8],
    ) -> Result<bool, UpdateError> {
        let (extent, padded) = self.extent(unit);
        let same = if unit == self.unit_of_list() {
            self.list_is_there(package, head)?
        } else if unit == PAGE {
            self.holds(0, page)
        } else {
            let found = &mut buffer[..extent.bytes as usize];
            let mut digest = [0; ENTRY_BYTES];
            let index = (unit - PAGE - 1) as u64;
            package.read(head.list_start() + index * ENTRY_BYTES as u64, &mut digest)?;
            self.flash.read(self.slot, extent.offset, found).is_ok() && leaf_digest(&Software, found) == digest
        };
        let mut at = extent.end();
        while same && at < padded {
            let piece = (padded - at).min(ALIGNMENT as u64) as usize;
            if !self.holds(at, &[0; ALIGNMENT][..piece]) {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(same)
    }

    fn list_is_there(&mut self, package: &mut dyn Package, head: &Head) -> Result<bool, UpdateError> {
        for index in 0..head.leaves {
            let mut digest = [0; ENTRY_BYTES];
            package.read(head.list_start() + u64::from(index) * ENTRY_BYTES as u64, &mut digest)?;
            if self.digest(index) != Ok(digest) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares the root over the chunk list in flash with the one that the page states.
    fn check_list(&mut self, stated: &Digest) -> Result<(), UpdateError> {
        let mut failed = false;
        let digests = (0..self.new.leaves()).map(|index| {
            let digest = self.digest(index);
            failed |= digest.is_err();
            digest.unwrap_or_default()
        });
        let found = root(digests, &Software);
        match (failed, found == *stated) {
            (true, _) => Err(UpdateError::Device),
            (false, true) => Ok(()),
            (false, false) => Err(UpdateError::ChunkList),
        }
    }

    /// Whether the leaf in flash is that of the chunk list in flash.
    fn holds_leaf(&mut self, leaf: &Leaf, index: u32, buffer: &mut [u8]) -> Result<bool, UpdateError> {
        let found = &mut buffer[..leaf.bytes as usize];
        self.flash.read(self.slot, leaf.offset, found)?;
        Ok(leaf_digest(&Software, found) == self.digest(index)?)
    }

    /// Whether flash holds these bytes: not where they cannot be read, as flash with error correction answers where power
    /// failed in a write.
    fn holds(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let mut found = [0; ALIGNMENT];
        bytes.chunks(ALIGNMENT).enumerate().all(|(n, piece)| {
            let found = &mut found[..piece.len()];
            self.flash.read(self.slot, offset + (n * ALIGNMENT) as u64, found).is_ok() && found == piece
        })
    }

    /// Erases every block that a dirty unit lies in, once.
    fn erase_dirty(&mut self, dirty: &[u8]) -> Result<(), UpdateError> {
        let block = u64::from(self.flash.erase_block_bytes());
        let mut erased = 0;
        for unit in 0..=self.unit_of_list() {
            if !is_dirty(dirty, unit) {
                continue;
            }
            let (extent, padded) = self.extent(unit);
            erased = erased.max(extent.offset / block * block);
            while erased < padded {
                self.flash.erase(self.slot, erased)?;
                erased += block;
            }
        }
        Ok(())
    }

    fn write_list(&mut self, package: &mut dyn Package, head: &Head, buffer: &mut [u8]) -> Result<(), UpdateError> {
        let mut at = 0;
        // Once also where the list is empty, for the zeros after it.
        loop {
            let piece = (self.list.bytes - at).min(buffer.len() as u64) as usize;
            package.read(head.list_start() + at, &mut buffer[..piece])?;
            self.write(self.list.offset + at, piece, buffer)?;
            at += piece as u64;
            if at >= self.list.bytes {
                return Ok(());
            }
        }
    }

    /// Writes the first `length` bytes of a buffer, which is a multiple of 64, and where a unit ends there the zeros after it;
    /// then reads all of it back.
    fn write(&mut self, offset: u64, length: usize, buffer: &mut [u8]) -> Result<(), UpdateError> {
        let whole = length.next_multiple_of(ALIGNMENT);
        buffer[length..whole].fill(0);
        self.write_checked(offset, &buffer[..whole])?;
        self.write_zeros(offset + whole as u64)
    }

    /// Writes the zeros that follow the end of a section, if it is one.
    fn write_zeros(&mut self, end: u64) -> Result<(), UpdateError> {
        for offset in (end..self.new.padded_end(end)).step_by(ALIGNMENT) {
            self.write_checked(offset, &[0; ALIGNMENT])?;
        }
        Ok(())
    }

    fn write_checked(&mut self, offset: u64, bytes: &[u8]) -> Result<(), UpdateError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.flash.write(self.slot, offset, bytes)?;
        if self.holds(offset, bytes) { Ok(()) } else { Err(UpdateError::Written { offset }) }
    }
}
