//! Tokens guessed and confirmed several at a time, and sequences shortened.

use super::model::{Model, opened, put};
use super::pointers::{array, array_mut, place};
use super::session::{State, started};
use super::{Status, guarded};
use crate::sample::Sampling;
use crate::session::SessionError;
use crate::speculate::{Drafter, Draws, Repeats};
use core::ffi::c_void;

/// `slm_next`: chooses the token after some logits; `SLM_NO_TOKEN` ends the sequence.
pub type Next = unsafe extern "C" fn(user: *mut c_void, logits: *const f32, count: usize) -> u32;

/// No token.
const NO_TOKEN: u32 = u32::MAX;

/// Reads `token` and the drafts after it; `next` chooses after the token, and after every draft that it chose before.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`; `drafts` has `count` tokens; `next` may be called
/// with `user` and does not use the session; `confirmed` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_confirm(
    session: *mut State,
    token: u32,
    drafts: *const u32,
    count: usize,
    next: Option<Next>,
    user: *mut c_void,
    confirmed: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (state, drafts) = (unsafe { started(session) }?, unsafe { array(drafts, count) }?);
        // SAFETY: as the caller says.
        let confirmed = unsafe { place(confirmed) }?;
        let next = next.ok_or(Status::Null)?;
        let result = state.change(|session| {
            session.verify(token, drafts, &mut |logits| {
                // SAFETY: the caller's function, called with the pointer it gave.
                let chosen = unsafe { next(user, logits.as_ptr(), logits.len()) };
                (chosen != NO_TOKEN).then_some(chosen)
            })
        });
        *confirmed = result?;
        Ok(())
    })
}

/// Marks the end of the sequence, to which it can be shortened again.
///
/// # Safety
/// `session` comes from `slm_session_init` or `slm_session_init_rows`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_mark(session: *mut State) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let state = unsafe { started(session) }?;
        state.change(|session| {
            session.mark();
            Ok::<(), SessionError>(())
        })?;
        Ok(())
    })
}

/// Shortens the sequence.
///
/// # Safety
/// As for [`slm_mark`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_truncate(session: *mut State, positions: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let state = unsafe { started(session) }?;
        Ok(state.change(|session| session.truncate(positions))?)
    })
}

/// Drafts what followed the last tokens of a sequence before.
///
/// # Safety
/// `sequence` has `length` tokens; `drafts` has room for `capacity`; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_draft_repeats(
    sequence: *const u32,
    length: usize,
    drafts: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: as the caller says.
    guarded(|| unsafe { draft(&mut Repeats, (sequence, length), (drafts, capacity), count) })
}

/// Drafts what most often follows the last tokens of a sequence, by the artifact's table.
///
/// # Safety
/// `model` is an `slm_model`; else as for [`slm_draft_repeats`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_draft_continuations(
    model: *const Model,
    sequence: *const u32,
    length: usize,
    drafts: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        match view.continuations() {
            // SAFETY: as the caller says.
            Some(mut table) => unsafe { draft(&mut table, (sequence, length), (drafts, capacity), count) },
            None => {
                // SAFETY: as the caller says.
                *unsafe { place(count) }? = 0;
                Ok(())
            }
        }
    })
}

/// Asks a drafter that has no session.
///
/// # Safety
/// As for [`slm_draft_repeats`].
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn draft(
    drafter: &mut dyn Drafter,
    (sequence, length): (*const u32, usize),
    (drafts, capacity): (*mut u32, usize),
    count: *mut usize,
) -> Result<(), Status> {
    // SAFETY: as the caller says.
    let (sequence, drafts) = (unsafe { array(sequence, length) }?, unsafe { array_mut(drafts, capacity) }?);
    // SAFETY: as the caller says.
    let count = unsafe { place(count) }?;
    let draws = Draws { sampling: Sampling::GREEDY, seed: 0, index: 0, seen: &[] };
    *count = drafter.draft(sequence, &draws, drafts)?;
    Ok(())
}

/// Opens the draft model that an artifact carries, as `slm_open` opens one.
///
/// # Safety
/// `model` is an `slm_model`, `draft` a place for another.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_draft_model(model: *const Model, draft: *mut Model) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        let found = view.draft_model().ok_or(Status::NoDraft)?;
        // SAFETY: as the caller says.
        unsafe { put(draft, found) }
    })
}
