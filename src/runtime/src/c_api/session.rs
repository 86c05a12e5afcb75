//! `slm_session`: tokens through a model, in memory of the caller, and the self-test, which needs the same.

use super::model::{Model, opened, usable};
use super::pointers::{array, array_mut, check_pointer, place, write_error};
use super::{Status, guarded};
use crate::format::artifact::ArtifactView;
use crate::kernels;
use crate::layout::ALIGNMENT;
use crate::self_test::golden_digest;
use crate::session::{Extent, Session, SessionError};
use core::ffi::{c_char, c_void};

/// Mark of a started session.
const STARTED: u64 = 0x534C_4D53_5441_5231;

/// `slm_session`: at the start of the session's memory, before the memory of the [`Session`].
pub struct State {
    mark: u64,
    session: Session<'static, 'static>,
    /// Logits of the last step.
    logits: (*const f32, usize),
    error: Option<SessionError>,
}

impl State {
    /// The session, for what changes no sequence.
    #[cfg(any(feature = "snapshots", feature = "streaming", feature = "exits"))]
    pub(super) fn session(&mut self) -> &mut Session<'static, 'static> {
        &mut self.session
    }

    /// Forgets the logits of the last step, which are no longer there.
    #[cfg(any(feature = "snapshots", feature = "speculation"))]
    pub(super) fn forget(&mut self) {
        (self.logits, self.error) = ((core::ptr::null(), 0), None);
    }

    /// Does something with the session and keeps its error.
    #[cfg(feature = "speculation")]
    pub(super) fn change<T>(
        &mut self,
        job: impl FnOnce(&mut Session<'static, 'static>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        self.forget();
        let result = job(&mut self.session);
        self.error = result.as_ref().err().copied();
        result
    }
}

/// Bytes before the session's own memory.
const STATE_BYTES: usize = size_of::<State>().next_multiple_of(ALIGNMENT);

/// `slm_row`: receives one row of output.
pub type Row = unsafe extern "C" fn(user: *mut c_void, position: usize, row: *const f32, width: usize);

/// A started session.
///
/// # Safety
/// `session` is null or a result of `slm_session_init`, in memory that is there and used by one thread at a time.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn started<'c>(session: *mut State) -> Result<&'c mut State, Status> {
    check_pointer(session, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*session).mark).read() } != STARTED {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_session_init` wrote the whole structure.
    Ok(unsafe { &mut *session })
}

/// Bytes of memory that a session or a self-test needs; 0 for a model that is not open, or larger than this machine.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_bytes(model: *const Model) -> usize {
    // SAFETY: as the caller says.
    unsafe { slm_session_bytes_for(model, 1) }
}

/// Bytes of memory that a session of several rows needs.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_bytes_for(model: *const Model, rows: usize) -> usize {
    // SAFETY: as the caller says.
    let Ok(view) = (unsafe { opened(model) }) else { return 0 };
    let required = usize::try_from(Session::required_bytes_for(view, Extent { workers: 1, rows })).ok();
    required.and_then(|required| required.checked_add(STATE_BYTES)).unwrap_or(0)
}

/// The caller's memory: a place for the state, and the session's own, exactly as long as required.
///
/// # Safety
/// `memory` has `length` bytes that nothing else uses while the result lives.
#[expect(unsafe_code, reason = "memory of the caller")]
pub(super) unsafe fn session_memory<'c>(
    view: &ArtifactView<'_>,
    rows: usize,
    memory: *mut c_void,
    length: usize,
) -> Result<(&'c mut [u8], &'c mut [u8]), Status> {
    if memory.is_null() {
        return Err(Status::Null);
    }
    if !(memory as usize).is_multiple_of(ALIGNMENT) {
        return Err(Status::Alignment);
    }
    let required = Session::required_bytes_for(view, Extent { workers: 1, rows });
    let required = usize::try_from(required).map_err(|_| Status::Memory)?;
    let all = required.checked_add(STATE_BYTES).filter(|&all| all <= length).ok_or(Status::Memory)?;
    // SAFETY: as the caller says.
    Ok(unsafe { array_mut(memory.cast::<u8>(), all) }?.split_at_mut(STATE_BYTES))
}

/// Starts a session without tokens.
///
/// # Safety
/// `model` is an `slm_model`; `memory` has `length` bytes that are the session's alone as long as it is used.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_init(
    session: *mut *mut State,
    model: *const Model,
    memory: *mut c_void,
    length: usize,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { slm_session_init_rows(session, model, memory, length, 1) }
}

/// Starts a session that computes the logits of several positions together and can take them back.
///
/// # Safety
/// As for [`slm_session_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_init_rows(
    session: *mut *mut State,
    model: *const Model,
    memory: *mut c_void,
    length: usize,
    rows: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let place = unsafe { place(session) }?;
        *place = core::ptr::null_mut();
        // SAFETY: as the caller says.
        let view = unsafe { usable(model) }?;
        // SAFETY: as the caller says; the caller guarantees that the memory outlives the session.
        let (state, own): (_, &'static mut [u8]) = unsafe { session_memory(view, rows, memory, length) }?;
        let session = Session::with_rows(view, kernels::best(view.layout()), rows, own)?;
        // SAFETY: the memory starts on 64 bytes, and the first part of it has the size of a state.
        *place = unsafe { put_session(state, session) };
        Ok(())
    })
}

/// Writes a session to its place.
///
/// # Safety
/// `place` is the first part of a [`session_memory`].
#[expect(unsafe_code, reason = "memory of the caller")]
pub(super) unsafe fn put_session(place: &mut [u8], session: Session<'static, 'static>) -> *mut State {
    let state = place.as_mut_ptr().cast::<State>();
    let new = State { mark: STARTED, session, logits: (core::ptr::null(), 0), error: None };
    // SAFETY: as the caller says.
    unsafe { state.write(new) };
    state
}

/// Appends tokens to a decoder's sequence.
///
/// # Safety
/// `session` comes from [`slm_session_init`]; `tokens` has `count` tokens.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_step(session: *mut State, tokens: *const u32, count: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, tokens) = (unsafe { started(session) }?, unsafe { array(tokens, count) }?);
        state.logits = (core::ptr::null(), 0);
        let result = state.session.step(tokens).map(|logits| (logits.as_ptr(), logits.len()));
        state.error = result.err();
        state.logits = result?;
        Ok(())
    })
}

/// Appends tokens to a decoder's sequence, for the logits of a set of tokens.
///
/// # Safety
/// As for [`slm_step`]; `allowed` has `words` words.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_step_allowed(
    session: *mut State,
    tokens: *const u32,
    count: usize,
    allowed: *const u32,
    words: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, tokens) = (unsafe { started(session) }?, unsafe { array(tokens, count) }?);
        // SAFETY: as the caller says.
        let allowed = unsafe { array(allowed, words) }?;
        state.logits = (core::ptr::null(), 0);
        let result = state.session.step_allowed(tokens, allowed).map(|logits| (logits.as_ptr(), logits.len()));
        state.error = result.err();
        state.logits = result?;
        Ok(())
    })
}

/// The row after the last step; valid until the session is used again.
///
/// # Safety
/// `session` comes from [`slm_session_init`]; `logits` and `count` are places for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_logits(session: *mut State, logits: *mut *const f32, count: *mut usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, logits, count) =
            (unsafe { started(session) }?, unsafe { place(logits) }?, unsafe { place(count) }?);
        (*logits, *count) = state.logits;
        if state.logits.0.is_null() { Err(Status::Empty) } else { Ok(()) }
    })
}

/// Runs tokens and passes every output row to `row`.
///
/// # Safety
/// As for [`slm_step`]; `row` may be called with `user` and does not use the session.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_run(
    session: *mut State,
    tokens: *const u32,
    count: usize,
    row: Option<Row>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, tokens) = (unsafe { started(session) }?, unsafe { array(tokens, count) }?);
        let row = row.ok_or(Status::Null)?;
        state.logits = (core::ptr::null(), 0);
        let result = state.session.run(tokens, &mut |position, values| {
            // SAFETY: the caller's function, called with the pointer it gave.
            unsafe { row(user, position, values.as_ptr(), values.len()) };
        });
        state.error = result.err();
        Ok(result?)
    })
}

/// Clears the sequence.
///
/// # Safety
/// `session` comes from [`slm_session_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_reset(session: *mut State) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let state = unsafe { started(session) }?;
        state.session.reset();
        (state.logits, state.error) = ((core::ptr::null(), 0), None);
        Ok(())
    })
}

/// Positions read so far; 0 for a session that was never started.
///
/// # Safety
/// `session` comes from [`slm_session_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_positions(session: *mut State) -> usize {
    // SAFETY: as the caller says.
    unsafe { started(session) }.map_or(0, |state| state.session.positions())
}

/// Message of the error of the session's last call.
///
/// # Safety
/// `session` comes from [`slm_session_init`]; `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_error(session: *mut State, buffer: *mut c_char, capacity: usize) -> usize {
    // SAFETY: as the caller says.
    let error = unsafe { started(session) }.ok().and_then(|state| state.error);
    // SAFETY: as the caller says.
    unsafe { write_error(error.as_ref().map(|error| error as &dyn core::fmt::Display), buffer, capacity) }
}

/// Runs the golden prompts and compares the digest of their logits with the build machine's.
///
/// # Safety
/// As for [`slm_session_init`]; the memory is free again afterwards.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_self_test(model: *const Model, memory: *mut c_void, length: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let view = unsafe { usable(model) }?;
        // SAFETY: as the caller says.
        let (_, own) = unsafe { session_memory(view, 1, memory, length) }?;
        let digest = golden_digest(view, kernels::best(view.layout()), own)?;
        if digest == view.golden_digest() { Ok(()) } else { Err(Status::SelfTest) }
    })
}
