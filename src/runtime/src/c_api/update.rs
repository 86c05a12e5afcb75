//! Updates from C: what a device lends, behind function pointers, and the steps from a package to a confirmed artifact.

use super::model::{Model, usable};
use super::pointers::{array_mut, check_pointer, place};
use super::trust::{ReadBytes, TrustOptions, with_trust};
use super::{Status, guarded};
use crate::format::header::HEADER_BYTES;
use crate::kernels;
use crate::trust::Trust;
use crate::update::{self, DeviceFailed, Flash, Package, Protected, RECORD_BYTES, Slot};
use core::ffi::c_void;

/// Fills a buffer from a slot.
pub type ReadSlot = unsafe extern "C" fn(*mut c_void, u32, u64, *mut c_void, usize) -> i32;
/// Clears an erase block of a slot.
pub type EraseBlock = unsafe extern "C" fn(*mut c_void, u32, u64) -> i32;
/// Writes to a slot.
pub type WriteSlot = unsafe extern "C" fn(*mut c_void, u32, u64, *const c_void, usize) -> i32;
/// Fills a buffer with a copy of the slot record.
pub type ReadRecord = unsafe extern "C" fn(*mut c_void, u32, *mut c_void) -> i32;
/// Writes a copy of the slot record.
pub type WriteRecord = unsafe extern "C" fn(*mut c_void, u32, *const c_void) -> i32;
/// Reads the security counter.
pub type ReadCounter = unsafe extern "C" fn(*mut c_void, *mut u64) -> i32;
/// Raises it.
pub type AdvanceCounter = unsafe extern "C" fn(*mut c_void, u64) -> i32;
/// Whether the device is well: 1.
pub type Healthy = unsafe extern "C" fn(*mut c_void) -> u32;

/// `slm_update_device`: what a device lends an update.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "`slm.h` describes the fields, and the types above")]
pub struct UpdateDevice {
    pub slot_bytes: u64,
    pub erase_block_bytes: u32,
    pub reserved: u32,
    pub read: Option<ReadSlot>,
    pub erase: Option<EraseBlock>,
    pub write: Option<WriteSlot>,
    pub read_record: Option<ReadRecord>,
    pub write_record: Option<WriteRecord>,
    pub read_counter: Option<ReadCounter>,
    pub advance_counter: Option<AdvanceCounter>,
    pub user: *mut c_void,
}

/// `slm_package`: a package, wherever it lies.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PackageSource {
    /// Length.
    pub bytes: u64,
    /// Reads it.
    pub read: Option<ReadBytes>,
    /// Passed to it.
    pub user: *mut c_void,
}

/// `slm_boot`: what a boot runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BootChoice {
    /// 0 slot A, 1 slot B.
    pub slot: u32,
    /// 1 where it is on trial.
    pub trial: u32,
}

/// 0 is success.
fn done(result: i32) -> Result<(), DeviceFailed> {
    if result == 0 { Ok(()) } else { Err(DeviceFailed) }
}

/// A device all of whose functions are there.
#[derive(Clone, Copy)]
struct Whole(UpdateDevice);

/// A device of the caller.
///
/// # Safety
/// `device` is null or an `slm_update_device` whose functions may be called with its `user`.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn whole(device: *const UpdateDevice) -> Result<Whole, Status> {
    check_pointer(device, 1)?;
    // SAFETY: checked above, and set up as the caller says.
    let given = unsafe { *device };
    let UpdateDevice { read, erase, write, read_record, write_record, read_counter, advance_counter, .. } = given;
    let there = read.is_some() && erase.is_some() && write.is_some() && read_record.is_some();
    if !there || write_record.is_none() || read_counter.is_none() || advance_counter.is_none() {
        return Err(Status::Null);
    }
    let block = u64::from(given.erase_block_bytes);
    let sound = block.is_power_of_two() && block >= 64 && given.slot_bytes.is_multiple_of(block);
    if sound && given.reserved == 0 { Ok(Whole(given)) } else { Err(Status::Argument) }
}

#[expect(unsafe_code, reason = "functions of the caller")]
impl Flash for Whole {
    fn slot_bytes(&self) -> u64 {
        self.0.slot_bytes
    }

    fn erase_block_bytes(&self) -> u32 {
        self.0.erase_block_bytes
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let read = self.0.read.ok_or(DeviceFailed)?;
        // SAFETY: the buffer lives during the call, which is all that the header promises; so below.
        done(unsafe { read(self.0.user, slot as u32, offset, into.as_mut_ptr().cast(), into.len()) })
    }

    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed> {
        let erase = self.0.erase.ok_or(DeviceFailed)?;
        // SAFETY: a function of the caller, with its own pointer.
        done(unsafe { erase(self.0.user, slot as u32, offset) })
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed> {
        let write = self.0.write.ok_or(DeviceFailed)?;
        // SAFETY: the bytes live during the call.
        done(unsafe { write(self.0.user, slot as u32, offset, bytes.as_ptr().cast(), bytes.len()) })
    }
}

#[expect(unsafe_code, reason = "functions of the caller")]
impl Protected for Whole {
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        let read = self.0.read_record.ok_or(DeviceFailed)?;
        // SAFETY: the buffer lives during the call.
        done(unsafe { read(self.0.user, copy as u32, into.as_mut_ptr().cast()) })
    }

    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        let write = self.0.write_record.ok_or(DeviceFailed)?;
        // SAFETY: the record lives during the call.
        done(unsafe { write(self.0.user, copy as u32, record.as_ptr().cast()) })
    }

    fn counter(&mut self) -> Result<u64, DeviceFailed> {
        let (read, mut counter) = (self.0.read_counter.ok_or(DeviceFailed)?, 0);
        // SAFETY: the number lives during the call.
        done(unsafe { read(self.0.user, &mut counter) })?;
        Ok(counter)
    }

    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed> {
        let advance = self.0.advance_counter.ok_or(DeviceFailed)?;
        // SAFETY: a function of the caller, with its own pointer.
        done(unsafe { advance(self.0.user, to) })
    }
}

/// A package of the caller.
///
/// # Safety
/// `package` is null or an `slm_package` whose function may be called with its `user`.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn readable(package: *const PackageSource) -> Result<PackageSource, Status> {
    check_pointer(package, 1)?;
    // SAFETY: checked above, and set up as the caller says.
    let package = unsafe { *package };
    if package.read.is_some() { Ok(package) } else { Err(Status::Null) }
}

impl Package for PackageSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    #[expect(unsafe_code, reason = "a function of the caller")]
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let read = self.read.ok_or(DeviceFailed)?;
        // SAFETY: the buffer lives during the call.
        done(unsafe { read(self.user, offset, into.as_mut_ptr().cast(), into.len()) })
    }
}

/// Writes a device's first slot record.
///
/// # Safety
/// `device` is an `slm_update_device`, `model` an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_install(device: *const UpdateDevice, slot: u32, model: *const Model) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (mut device, view) = (unsafe { whole(device) }?, unsafe { usable(model) }?);
        let slot = u8::try_from(slot).ok().and_then(Slot::from_number).ok_or(Status::Argument)?;
        update::install(&mut device, slot, &view.header().device_digest)?;
        Ok(())
    })
}

/// Bytes of memory that a package takes; 0 where its head is not sound.
///
/// # Safety
/// `package` is an `slm_package`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_bytes(package: *const PackageSource) -> usize {
    // SAFETY: as the caller says.
    unsafe { readable(package) }.map_or(0, |mut package| update::required_bytes(&mut package).unwrap_or(0))
}

/// Makes the package's artifact in the slot that is not active.
///
/// # Safety
/// `device` is an `slm_update_device`, `package` an `slm_package`, `trust` an `slm_trust`; `memory` has `length` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_apply(
    device: *const UpdateDevice,
    package: *const PackageSource,
    trust: *const TrustOptions,
    memory: *mut c_void,
    length: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (device, mut package) = (unsafe { whole(device) }?, unsafe { readable(package) }?);
        // SAFETY: as the caller says.
        let memory = unsafe { array_mut(memory.cast::<u8>(), length) }?;
        let (mut flash, mut protected) = (device, device);
        // SAFETY: as the caller says.
        unsafe {
            with_trust(trust, |trust, _| {
                let device = update::Device {
                    package: &mut package,
                    flash: &mut flash,
                    protected: &mut protected,
                    trust: &mut |page| is_trusted(trust, page),
                };
                update::apply(device, memory)?;
                Ok(())
            })
        }
    })
}

/// Whether a page is signed and of the product line; counters are compared with the device's own.
fn is_trusted(trust: &Trust<'_>, page: &[u8; HEADER_BYTES]) -> bool {
    Trust { counter: &0, ..*trust }.check_page(page).is_ok()
}

/// Chooses the slot to run, and takes one of a trial's tries.
///
/// # Safety
/// `device` is an `slm_update_device`, `trust` an `slm_trust`; `page` has 4,096 bytes; `boot` is a place.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_boot(
    device: *const UpdateDevice,
    trust: *const TrustOptions,
    page: *mut c_void,
    boot: *mut BootChoice,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (device, boot) = (unsafe { whole(device) }?, unsafe { place(boot) }?);
        // SAFETY: as the caller says.
        let page = unsafe { place(page.cast::<[u8; HEADER_BYTES]>()) }?;
        let (mut flash, mut protected) = (device, device);
        // SAFETY: as the caller says.
        let chosen = unsafe {
            with_trust(trust, |trust, _| {
                Ok(update::boot(&mut flash, &mut protected, &mut |page| is_trusted(trust, page), page)?)
            })
        }?;
        *boot = BootChoice { slot: chosen.slot as u32, trial: chosen.trial.into() };
        Ok(())
    })
}

/// Confirms the trial that runs.
///
/// # Safety
/// `device` is an `slm_update_device`, `model` an `slm_model`; `memory` has `length` bytes; `healthy` may be called with `user`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_confirm(
    device: *const UpdateDevice,
    model: *const Model,
    memory: *mut c_void,
    length: usize,
    healthy: Option<Healthy>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (mut device, view) = (unsafe { whole(device) }?, unsafe { usable(model) }?);
        let healthy = healthy.ok_or(Status::Null)?;
        // SAFETY: as the caller says.
        let (_, own) = unsafe { super::session::session_memory(view, 1, memory, length) }?;
        // SAFETY: a function of the caller, with its own pointer.
        let mut check = || unsafe { healthy(user) } == 1;
        update::confirm(&mut device, view, kernels::best(view.layout()), own, &mut check)?;
        Ok(())
    })
}

/// Ends a trial.
///
/// # Safety
/// `device` is an `slm_update_device`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_update_reject(device: *const UpdateDevice) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let mut device = unsafe { whole(device) }?;
        update::reject(&mut device)?;
        Ok(())
    })
}
