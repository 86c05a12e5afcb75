//! Artifacts in slow storage from C: a reader of the caller's, with two buffers.

use super::model::{Model, put_result};
use super::pointers::{array_mut, check_pointer, place, write_error};
use super::session::{State, put_session, session_memory, started};
use super::{Status, guarded};
use crate::kernels;
use crate::kernels::workers::Single;
use crate::self_test::golden_digest_by;
use crate::session::Session;
use crate::sha256::{Engine, Software};
use crate::streaming::{Check, Fault, OpenError, Reader, Storage, Streamed, sizes};
use core::ffi::{c_char, c_void};

/// Size of [`OpenStreamed`] in `slm.h`, in 64-bit words.
pub const STREAMED_WORDS: usize = 384;
/// What a reader returns where the storage failed.
pub const READ_FAILED: i64 = -1;
/// What a reader returns where the storage did not answer in time.
pub const READ_LATE: i64 = -2;
/// Mark of an artifact that opened.
const OPEN: u64 = 0x534C_4D53_5444_4F31;

/// `slm_storage`: reads and reads ahead; the functions get `user`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StorageFunctions {
    /// Fills a buffer from an offset of the file; returns how many bytes there were, or why there are none.
    pub read: Option<unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> i64>,
    /// Begins the same and returns 0; null, or any other result, where it cannot.
    pub begin: Option<unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> i32>,
    /// Waits for what was begun, and returns as `read` does; null where `begin` is.
    pub finish: Option<unsafe extern "C" fn(*mut c_void) -> i64>,
    /// Passed to all of them.
    pub user: *mut c_void,
    /// The two buffers, each of `buffer_bytes`.
    pub buffers: [*mut c_void; 2],
    /// Bytes of each.
    pub buffer_bytes: usize,
}

/// `slm_streamed_sizes`: memory that a streamed artifact needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StreamedSizes {
    /// For `slm_streamed_open`: the file without its weights, and the weights that stay.
    pub memory_bytes: u64,
    /// Each of the two buffers.
    pub buffer_bytes: u64,
}

/// `slm_traffic`: what a session has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TrafficCounts {
    /// Bytes.
    pub bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Of these, begun ahead and used.
    pub ahead: u64,
    /// Bytes begun ahead that were not needed next.
    pub missed_bytes: u64,
}

/// The caller's storage.
#[derive(Debug)]
struct Caller(StorageFunctions);

#[expect(unsafe_code, reason = "the caller's pointers travel with the session")]
// SAFETY: the header promises that a session and its storage are used by one thread at a time.
unsafe impl Send for Caller {}

impl Caller {
    fn count(found: i64, asked: usize) -> Result<usize, Fault> {
        match usize::try_from(found) {
            Ok(count) => Ok(count.min(asked)),
            Err(_) if found == READ_LATE => Err(Fault::Late),
            Err(_) => Err(Fault::Failed),
        }
    }
}

impl Reader for Caller {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(read) = self.0.read else { return Err(Fault::Failed) };
        // SAFETY: the buffer lives during the call.
        let found = unsafe { read(self.0.user, offset, buffer.as_mut_ptr().cast(), buffer.len()) };
        Caller::count(found, buffer.len())
    }
}

impl Storage for Caller {
    #[expect(unsafe_code, reason = "buffers of the caller")]
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        // SAFETY: checked when the storage was given, and the caller leaves the buffers alone but in a read that was begun,
        // whose buffer is not asked for before it is finished.
        unsafe { array_mut(self.0.buffers[number & 1].cast::<u8>(), self.0.buffer_bytes) }.unwrap_or_default()
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        let mut functions = Caller(self.0);
        let buffer = self.buffer(number).get_mut(..bytes).ok_or(Fault::Failed)?;
        functions.read(offset, buffer)
    }

    #[expect(unsafe_code, reason = "a function of the caller")]
    fn begin(&mut self, number: usize, offset: u64, bytes: usize) -> bool {
        let (Some(begin), Some(_)) = (self.0.begin, self.0.finish) else { return false };
        if bytes > self.0.buffer_bytes {
            return false;
        }
        // SAFETY: the buffer has as many bytes, and nothing uses it before `finish`.
        unsafe { begin(self.0.user, offset, self.0.buffers[number & 1], bytes) == 0 }
    }

    #[expect(unsafe_code, reason = "a function of the caller")]
    fn finish(&mut self, _: usize) -> Result<usize, Fault> {
        let Some(finish) = self.0.finish else { return Err(Fault::Failed) };
        // SAFETY: the caller's function, called with the pointer it gave.
        let found = unsafe { finish(self.0.user) };
        Caller::count(found, usize::MAX)
    }
}

/// `slm_streamed`: an artifact in slow storage, in [`STREAMED_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct OpenStreamed {
    mark: u64,
    storage: Caller,
    content: Result<Streamed<'static>, OpenError>,
}

const _: () = assert!(size_of::<OpenStreamed>() <= STREAMED_WORDS * 8 && align_of::<OpenStreamed>() == 8);

/// The caller's storage, checked.
///
/// # Safety
/// `storage` is null or an `slm_storage` whose buffers have what it says.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn functions(storage: *const StorageFunctions) -> Result<Caller, Status> {
    check_pointer(storage, 1)?;
    // SAFETY: checked above.
    let functions = unsafe { *storage };
    if functions.read.is_none() {
        return Err(Status::Null);
    }
    if functions.buffer_bytes > 0 {
        functions.buffers.iter().try_for_each(|buffer| check_pointer(buffer.cast::<u8>(), functions.buffer_bytes))?;
    }
    Ok(Caller(functions))
}

/// An artifact that opened.
///
/// # Safety
/// `streamed` is null or points to memory of an `slm_streamed`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn opened<'c>(streamed: *mut OpenStreamed) -> Result<(&'c Streamed<'static>, &'c mut Caller), Status> {
    check_pointer(streamed, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*streamed).mark).read() } != OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_streamed_open` wrote the whole structure, which one thread uses at a time.
    let OpenStreamed { storage, content, .. } = unsafe { &mut *streamed };
    Ok((content.as_ref().map_err(|_| Status::NotOpen)?, storage))
}

/// The memory that an artifact needs, by its header page, which is read into `page`.
///
/// # Safety
/// `storage` is an `slm_storage`, `page` memory of 4096 bytes, `needed` an `slm_streamed_sizes`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_needs(
    storage: *const StorageFunctions,
    page: *mut c_void,
    needed: *mut StreamedSizes,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (mut storage, needed) = (unsafe { functions(storage) }?, unsafe { place(needed) }?);
        // SAFETY: as the caller says.
        let page = unsafe { array_mut(page.cast::<u8>(), crate::format::header::HEADER_BYTES) }?;
        let found = sizes(&mut storage, page)?;
        *needed = StreamedSizes { memory_bytes: found.memory_bytes(), buffer_bytes: found.buffer_bytes };
        Ok(())
    })
}

/// Reads what stays in memory and checks it; `check` 1: each tensor's digest too, whenever it has been read. `trust` null: the
/// file need not be signed. `model` is then an opened model.
///
/// # Safety
/// `streamed` and `model` have the sizes of their types; `memory` has `length` bytes that stay as they are while the model is
/// used; `storage` is an `slm_storage` whose functions may be called meanwhile; `trust` is null or as for `slm_open_signed`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_open(
    streamed: *mut OpenStreamed,
    model: *mut Model,
    storage: *const StorageFunctions,
    memory: *mut c_void,
    length: usize,
    trust: *const c_void,
    check: u32,
) -> Status {
    guarded(|| {
        check_pointer(streamed, 1)?;
        check_pointer(model, 1)?;
        let check = match check {
            0 => Check::Structure,
            1 => Check::Tensors,
            _ => return Err(Status::Argument),
        };
        // SAFETY: as the caller says.
        let mut storage = unsafe { functions(storage) }?;
        // An earlier model in this place is of the memory that is written now.
        // SAFETY: checked above.
        let _ = unsafe { put_result(model, Err(crate::format::FormatError::NotAnArtifact)) };
        // SAFETY: as the caller says; the caller guarantees that the memory outlives the model.
        let memory: &'static mut [u8] = unsafe { array_mut(memory.cast::<u8>(), length) }?;
        let content = match trust.is_null() {
            true => Streamed::open(&mut storage, memory, &Software, check),
            // SAFETY: as the caller says.
            false => unsafe { open_signed(&mut storage, memory, trust, check) }?,
        };
        let result = content.as_ref().map(|_| ()).map_err(|error| Status::from(*error));
        if let Ok(view) = content.as_ref().map(|content| *content.artifact()) {
            // SAFETY: checked above.
            unsafe { put_result(model, Ok::<_, crate::format::FormatError>((view, 0))) }?;
        }
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { streamed.write(OpenStreamed { mark: OPEN, storage, content }) };
        result
    })
}

/// # Safety
/// As for [`slm_streamed_open`].
#[cfg(feature = "signed")]
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn open_signed(
    storage: &mut Caller,
    memory: &'static mut [u8],
    trust: *const c_void,
    check: Check,
) -> Result<Result<Streamed<'static>, OpenError>, Status> {
    // SAFETY: as the caller says.
    unsafe {
        super::trust::with_trust(trust.cast(), |trust, _| Ok(Streamed::open_signed(storage, memory, trust, check)))
    }
}

/// This library verifies no signature.
#[cfg(not(feature = "signed"))]
#[expect(unsafe_code, reason = "as where it does")]
unsafe fn open_signed(
    _: &mut Caller,
    _: &'static mut [u8],
    _: *const c_void,
    _: Check,
) -> Result<Result<Streamed<'static>, OpenError>, Status> {
    Err(Status::Argument)
}

/// Message of the error that [`slm_streamed_open`] returned.
///
/// # Safety
/// `streamed` was given to [`slm_streamed_open`]; `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_error(
    streamed: *const OpenStreamed,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    let mut error = None;
    // SAFETY: checked first; the mark is valid for any content of the memory.
    if check_pointer(streamed, 1).is_ok() && unsafe { (&raw const (*streamed).mark).read() } == OPEN {
        // SAFETY: the mark says that `slm_streamed_open` wrote the whole structure.
        error = unsafe { &*streamed }.content.as_ref().err();
    }
    // SAFETY: as the caller says.
    unsafe { write_error(error.map(|error| error as &dyn core::fmt::Display), buffer, capacity) }
}

/// Reads the whole file once and compares every digest.
///
/// # Safety
/// `streamed` is an `slm_streamed` without a session in use.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_verify(streamed: *mut OpenStreamed) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (content, storage) = unsafe { opened(streamed) }?;
        Ok(content.verify(storage)?)
    })
}

/// A session of a streamed artifact; `memory` as for `slm_session_init_rows`.
///
/// # Safety
/// As for `slm_session_init_rows`; `streamed` stays as it is while the session is used, and has one session at a time.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_init(
    session: *mut *mut State,
    streamed: *mut OpenStreamed,
    memory: *mut c_void,
    length: usize,
    rows: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let place = unsafe { place(session) }?;
        *place = core::ptr::null_mut();
        // SAFETY: as the caller says; the caller guarantees that both outlive the session.
        let (content, storage): (_, &'static mut Caller) = unsafe { opened(streamed) }?;
        let view = content.artifact();
        // SAFETY: as the caller says.
        let (state, own): (_, &'static mut [u8]) = unsafe { session_memory(view, rows, memory, length) }?;
        let engine: &'static (dyn Engine + Sync) = &Software;
        let by: (&'static mut dyn Storage, _) = (storage, engine);
        let session = Session::streamed_by(content, kernels::best(view.layout()), by, (const { &Single }, rows), own)?;
        // SAFETY: the memory starts on 64 bytes, and the first part of it has the size of a state.
        *place = unsafe { put_session(state, session) };
        Ok(())
    })
}

/// Runs the golden prompts of a streamed artifact; `memory` as for `slm_session_init`.
///
/// # Safety
/// As for [`slm_streamed_init`]; the memory is free again afterwards.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_self_test(
    streamed: *mut OpenStreamed,
    memory: *mut c_void,
    length: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (content, storage) = unsafe { opened(streamed) }?;
        let view = content.artifact();
        // SAFETY: as the caller says.
        let (_, own) = unsafe { session_memory(view, 1, memory, length) }?;
        let mut session = Session::streamed(content, kernels::best(view.layout()), storage, own)?;
        let digest = golden_digest_by(&mut session)?;
        if digest == view.golden_digest() { Ok(()) } else { Err(Status::SelfTest) }
    })
}

/// What a session has read; zeros where weights are in memory.
///
/// # Safety
/// `session` comes from [`slm_streamed_init`], `traffic` is an `slm_traffic`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_traffic(session: *mut State, traffic: *mut TrafficCounts) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, traffic) = (unsafe { started(session) }?, unsafe { place(traffic) }?);
        let found = state.session().traffic();
        *traffic = TrafficCounts {
            bytes: found.bytes,
            reads: found.reads,
            ahead: found.ahead,
            missed_bytes: found.missed_bytes,
        };
        Ok(())
    })
}

/// Waits until nothing is read ahead: before the buffers are used for something else, or the session is left.
///
/// # Safety
/// `session` comes from [`slm_streamed_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_streamed_settle(session: *mut State) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        unsafe { started(session) }?.session().settle();
        Ok(())
    })
}
