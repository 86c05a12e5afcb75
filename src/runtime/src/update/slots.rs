//! Which slot runs. Two copies of a record of 64 bytes are written in turn; of those that are sound, the one with the higher
//! sequence holds, so that a write that power interrupts leaves the other.
//!
//! ```text
//! apply     writes the other slot                            trial = pending, 3 tries
//! boot      pending ─> running, running with tries left      tries − 1, the trial runs
//!           running without                                  trial = none, the active slot runs
//! confirm   after the self-test and the health check         active = the trial's slot; then the counter advances
//! ```
//!
//! The security counter moves nowhere else: before confirmation the way back is always open, after it never. Where the second
//! step of a confirmation failed or power did before it, [`confirm`] again or the next boot repeats it; until then an update
//! must not be older than the active artifact, whatever the counter says.

use super::error::UpdateError;
use super::flash::{Flash, Protected, RECORD_BYTES, Slot};
use crate::format::artifact::ArtifactView;
use crate::format::header::{DEVICE_DIGEST, HEADER_BYTES, Header};
use crate::format::record::record;
use crate::kernels::Kernels;
use crate::self_test::golden_digest;
use crate::sha256::{Digest, Sha256};

/// First bytes of a record.
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"SLMR");
/// Boots that a trial has to be confirmed in.
pub const TRIES: u8 = 3;
/// Bytes of a digest that a record keeps.
const PREFIX: usize = 16;
/// Bytes of a record that its own digest covers.
const COVERED: usize = RECORD_BYTES - PREFIX;
/// Copies of the record.
const COPIES: usize = 2;

record! {
    /// The state of the slots.
    SlotRecord: 64 bytes {
        /// [`RECORD_MAGIC`]
        magic: u32,
        /// One more for every record written.
        sequence: u32,
        /// The slot that runs unless there is a trial: a [`Slot`].
        active: u8,
        /// A [`Trial`] of the other slot.
        trial: u8,
        /// Boots that the trial still has.
        tries_left: u8,
        /// Zero.
        reserved: [u8; 5],
        /// The first 16 bytes of the device digest of the artifact in each slot; zeros for none.
        artifacts: [u8; 32],
        /// The first 16 bytes of SHA-256 of the 48 bytes before.
        check: [u8; 16],
    }
}

/// Whether the slot that is not active is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Trial {
    /// It is not.
    None = 0,
    /// From the next boot on.
    Pending = 1,
    /// It was booted, and not yet confirmed.
    Running = 2,
}

/// The slots, as the newest sound record has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slots {
    /// The slot that runs unless there is a trial.
    pub active: Slot,
    /// Whether the other slot is tried.
    pub trial: Trial,
    /// Boots that the trial still has.
    pub tries_left: u8,
    /// Starts of the device digests of the artifacts in slot A and B.
    artifacts: [[u8; PREFIX]; 2],
    sequence: u32,
    /// The copy that holds this.
    copy: usize,
}

/// What a boot runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The slot.
    pub slot: Slot,
    /// Whether it is on trial, and waits for [`confirm`].
    pub trial: bool,
}

/// Whether a header page is one that the device trusts: signed by its keys, of its product line.
pub type Trust<'t> = dyn FnMut(&[u8; HEADER_BYTES]) -> bool + 't;

fn check_of(covered: &[u8]) -> [u8; PREFIX] {
    let digest = Sha256::digest(covered);
    let mut check = [0; PREFIX];
    check.copy_from_slice(&digest[..PREFIX]);
    check
}

fn prefix(digest: &Digest) -> [u8; PREFIX] {
    let mut start = [0; PREFIX];
    start.copy_from_slice(&digest[..PREFIX]);
    start
}

impl Slots {
    /// The newest sound record. A copy that cannot be read, as flash with error correction answers where power failed in a
    /// write, is like one that is not sound.
    pub fn read(protected: &mut dyn Protected) -> Result<Slots, UpdateError> {
        let (mut newest, mut fault) = (None::<Slots>, UpdateError::NoRecord);
        for copy in 0..COPIES {
            let mut bytes = [0; RECORD_BYTES];
            if let Err(unreadable) = protected.read_record(copy, &mut bytes) {
                fault = unreadable.into();
                continue;
            }
            let Some(found) = Slots::from_bytes(&bytes, copy) else { continue };
            // Sequences wrap: the later of two neighbours is the one that is less than half of all ahead.
            let later = |than: &Slots| (found.sequence.wrapping_sub(than.sequence) as i32) > 0;
            if newest.as_ref().is_none_or(later) {
                newest = Some(found);
            }
        }
        newest.ok_or(fault)
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES], copy: usize) -> Option<Slots> {
        let record = SlotRecord::from_bytes(bytes);
        let sound = record.magic == RECORD_MAGIC && record.reserved == [0; 5] && record.tries_left <= TRIES;
        if !sound || record.check != check_of(&bytes[..COVERED]) {
            return None;
        }
        let trial = [Trial::None, Trial::Pending, Trial::Running].into_iter().find(|&one| one as u8 == record.trial)?;
        let mut artifacts = [[0; PREFIX]; 2];
        for (start, bytes) in artifacts.iter_mut().zip(record.artifacts.chunks_exact(PREFIX)) {
            start.copy_from_slice(bytes);
        }
        let (active, tries_left) = (Slot::from_number(record.active)?, record.tries_left);
        Some(Slots { active, trial, tries_left, artifacts, sequence: record.sequence, copy })
    }

    /// Writes this over the older copy.
    fn write(mut self, protected: &mut dyn Protected) -> Result<Slots, UpdateError> {
        self.copy = (self.copy + 1) % COPIES;
        self.sequence = self.sequence.wrapping_add(1);
        let mut artifacts = [0; 2 * PREFIX];
        artifacts[..PREFIX].copy_from_slice(&self.artifacts[0]);
        artifacts[PREFIX..].copy_from_slice(&self.artifacts[1]);
        let record = SlotRecord {
            magic: RECORD_MAGIC,
            sequence: self.sequence,
            active: self.active as u8,
            trial: self.trial as u8,
            tries_left: self.tries_left,
            reserved: [0; 5],
            artifacts,
            check: [0; PREFIX],
        };
        let record = SlotRecord { check: check_of(&record.to_bytes()[..COVERED]), ..record };
        protected.write_record(self.copy, &record.to_bytes())?;
        Ok(self)
    }

    /// Whether a slot's artifact has this device digest.
    pub fn holds(&self, slot: Slot, digest: &Digest) -> bool {
        self.artifacts[slot as usize] == prefix(digest)
    }

    /// Ends a trial, or forgets one that has not begun.
    pub(super) fn without_trial(self, protected: &mut dyn Protected) -> Result<Slots, UpdateError> {
        if self.trial == Trial::None {
            return Ok(self);
        }
        Slots { trial: Trial::None, tries_left: 0, ..self }.write(protected)
    }

    /// The slot that is not active, to be tried from the next boot on.
    pub(super) fn with_trial(mut self, digest: &Digest, protected: &mut dyn Protected) -> Result<Slots, UpdateError> {
        self.artifacts[self.active.other() as usize] = prefix(digest);
        Slots { trial: Trial::Pending, tries_left: TRIES, ..self }.write(protected)
    }
}

/// Writes the first record of a device: the slot that its first artifact lies in, and that artifact's device digest. Of a device
/// that had records before, they are older than this one.
pub fn install(protected: &mut dyn Protected, slot: Slot, device_digest: &Digest) -> Result<Slots, UpdateError> {
    let mut artifacts = [[0; PREFIX]; 2];
    artifacts[slot as usize] = prefix(device_digest);
    let (sequence, copy) = Slots::read(protected).map_or((0, 1), |before| (before.sequence, before.copy));
    Slots { active: slot, trial: Trial::None, tries_left: 0, artifacts, sequence, copy }.write(protected)
}

/// Chooses the slot to run, and takes one of a trial's tries. `page` is memory for a header page. What lies in the slot is
/// then opened and verified by the caller; where that fails for a trial, [`reject`] it and boot again.
pub fn boot(
    flash: &mut dyn Flash,
    protected: &mut dyn Protected,
    trust: &mut Trust<'_>,
    page: &mut [u8; HEADER_BYTES],
) -> Result<Boot, UpdateError> {
    let mut slots = Slots::read(protected)?;
    if slots.trial != Trial::None {
        let slot = slots.active.other();
        let is_there = digest_in(flash, slot).is_ok_and(|digest| slots.holds(slot, &digest));
        if slots.tries_left > 0 && is_there {
            slots.trial = Trial::Running;
            slots.tries_left -= 1;
            slots.write(protected)?;
            return Ok(Boot { slot, trial: true });
        }
        slots = slots.without_trial(protected)?;
    }
    let slot = slots.active;
    flash.read(slot, 0, page)?;
    let header = Header::from_bytes(page);
    if !slots.holds(slot, &header.device_digest) {
        return Err(UpdateError::OtherArtifact);
    }
    // A confirmation that power interrupted. Only a page that is trusted may move the counter.
    if header.security_counter > protected.counter()? {
        if !trust(page) {
            return Err(UpdateError::Untrusted);
        }
        protected.advance_counter(header.security_counter)?;
    }
    Ok(Boot { slot, trial: false })
}

/// The device digest that a slot's header page states.
fn digest_in(flash: &mut dyn Flash, slot: Slot) -> Result<Digest, UpdateError> {
    let mut digest = [0; 32];
    flash.read(slot, DEVICE_DIGEST.start as u64, &mut digest)?;
    Ok(digest)
}

/// Confirms the trial that runs: `artifact` is what lies in its slot, opened and verified. First the golden prompts are run, in
/// the memory of a session, then the caller's own check; where both hold, the trial's slot becomes the active one and the
/// security counter advances to the artifact's. Where one fails, nothing changed: [`reject`] the trial, or try again. Where the
/// counter could not be advanced the slot is the active one already: the same call, or the next boot, advances it.
pub fn confirm(
    protected: &mut dyn Protected,
    artifact: &ArtifactView<'_>,
    kernels: &'static Kernels,
    memory: &mut [u8],
    healthy: &mut dyn FnMut() -> bool,
) -> Result<Slots, UpdateError> {
    if let Some(slots) = advanced(protected, artifact.header())? {
        return Ok(slots);
    }
    let slots = trial_of(protected, artifact.header())?;
    if golden_digest(artifact, kernels, memory) != Ok(artifact.golden_digest()) {
        return Err(UpdateError::SelfTest);
    }
    if !healthy() {
        return Err(UpdateError::Health);
    }
    settle(protected, slots, artifact.header().security_counter)
}

/// Advances the counter to that of the active artifact, where a confirmation of it ended before that; `None` where nothing was
/// left to do.
pub(super) fn advanced(protected: &mut dyn Protected, header: &Header) -> Result<Option<Slots>, UpdateError> {
    let slots = Slots::read(protected)?;
    let confirmed = slots.trial == Trial::None && slots.holds(slots.active, &header.device_digest);
    if !confirmed || header.security_counter <= protected.counter()? {
        return Ok(None);
    }
    protected.advance_counter(header.security_counter)?;
    Ok(Some(slots))
}

/// The slots, where an artifact with this header runs on trial.
pub(super) fn trial_of(protected: &mut dyn Protected, header: &Header) -> Result<Slots, UpdateError> {
    let slots = Slots::read(protected)?;
    if slots.trial != Trial::Running {
        return Err(UpdateError::NoTrial);
    }
    if !slots.holds(slots.active.other(), &header.device_digest) {
        return Err(UpdateError::OtherArtifact);
    }
    Ok(slots)
}

/// Makes the trial's slot the active one, then advances the counter.
pub(super) fn settle(protected: &mut dyn Protected, slots: Slots, counter: u64) -> Result<Slots, UpdateError> {
    let active = slots.active.other();
    let slots = Slots { active, trial: Trial::None, tries_left: 0, ..slots }.write(protected)?;
    if counter > protected.counter()? {
        protected.advance_counter(counter)?;
    }
    Ok(slots)
}

/// Ends the trial: the next boot runs the active slot.
pub fn reject(protected: &mut dyn Protected) -> Result<Slots, UpdateError> {
    Slots::read(protected)?.without_trial(protected)
}
