//! Sequences saved and taken up again, and what an artifact's sequences begin with.

use super::model::{Model, opened};
use super::pointers::{array, array_mut, place};
use super::session::{State, started};
use super::{Status, guarded};
use crate::session::SnapshotError;
use core::ffi::c_void;

impl From<SnapshotError> for Status {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Length { .. } => Status::Capacity,
            SnapshotError::Interrupted => Status::Interrupted,
            _ => Status::Snapshot,
        }
    }
}

/// Bytes of a snapshot of the sequence; 0 for a session that was never started, or of an encoder.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_snapshot_bytes(session: *mut State) -> usize {
    // SAFETY: as the caller says.
    let bytes = unsafe { started(session) }.map_or(0, |state| state.session().snapshot_bytes());
    usize::try_from(bytes).unwrap_or(0)
}

/// Writes a snapshot of the sequence.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`; `snapshot` has `length` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_save(session: *mut State, snapshot: *mut c_void, length: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, out) = (unsafe { started(session) }?, unsafe { array_mut(snapshot.cast::<u8>(), length) }?);
        Ok(state.session().save(out)?)
    })
}

/// Takes up the sequence of a snapshot.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`; `snapshot` has `length` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_restore(session: *mut State, snapshot: *const c_void, length: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, bytes) = (unsafe { started(session) }?, unsafe { array(snapshot.cast::<u8>(), length) }?);
        state.forget();
        Ok(state.session().restore(bytes)?)
    })
}

/// Takes up what the artifact's sequences begin with.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`; `positions` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_restore_prefix(session: *mut State, positions: *mut usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, positions) = (unsafe { started(session) }?, unsafe { place(positions) }?);
        state.forget();
        *positions = state.session().restore_prefix()?;
        Ok(())
    })
}

/// The tokens that the artifact's sequences begin with.
///
/// # Safety
/// `model` is an `slm_model`; `tokens` has room for `capacity`; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_prefix_tokens(
    model: *const Model,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, count) = (unsafe { opened(model) }?, unsafe { place(count) }?);
        let prefix = view.prefix();
        *count = prefix.map_or(0, |prefix| prefix.tokens.len());
        if *count > capacity {
            return Err(Status::Capacity);
        }
        // SAFETY: as the caller says.
        let out = unsafe { array_mut(tokens, capacity) }?;
        if let Some(prefix) = prefix {
            out.iter_mut().zip(prefix.tokens.iter()).for_each(|(out, token)| *out = token);
        }
        Ok(())
    })
}
