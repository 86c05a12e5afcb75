//! Where a text left a classifier, and how sure it is of the label.

use super::session::{State, started};
use super::{Status, guarded};
use crate::session::Leaving;

/// Layers that the last text of a classifier was computed through; 0 before the first, and of a session that was never
/// started.
///
/// # Safety
/// `session` comes from [`super::slm_session_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_exit_layers(session: *mut State) -> u32 {
    // SAFETY: as the caller says.
    unsafe { started(session) }.map_or(0, |state| state.session().exit_layers() as u32)
}

/// How sure the classifier is of the last text's label, 0 to 1; 0 before the first, and of a session that was never started.
///
/// # Safety
/// As for [`slm_exit_layers`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_confidence(session: *mut State) -> f32 {
    // SAFETY: as the caller says.
    unsafe { started(session) }.map_or(0.0, |state| state.session().confidence())
}

/// Lets texts leave by the artifact's thresholds, which they do at first, or computes every layer of each.
///
/// # Safety
/// As for [`slm_exit_layers`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_set_leaving(session: *mut State, by_threshold: u32) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let state = unsafe { started(session) }?;
        state.session().set_leaving(if by_threshold == 0 { Leaving::Never } else { Leaving::ByThreshold });
        Ok(())
    })
}
