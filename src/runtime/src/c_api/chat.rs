//! `slm_chat_*`: the chat frame, with which a program makes the prompt of a conversation without the chat template.

use super::model::{Model, opened, write_list};
use super::pointers::{array, place};
use super::{Status, guarded};
use crate::format::chat_frame::{ChatFrame, FRAME_PARTS, FramePart, Role};
use core::ffi::c_char;

/// `slm_chat_facts`: the facts of a chat frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ChatFacts {
    /// 5, or 0 where the artifact has no frame.
    pub parts: u32,
    /// 1 where the parts have tokens.
    pub has_tokens: u32,
    /// 1 where the template takes a system message.
    pub has_system: u32,
}

/// The frame of an opened model and one of its parts.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn part_of(model: *const Model, part: u32) -> Result<(ChatFrame<'static>, FramePart), Status> {
    // SAFETY: as the caller says.
    let frame = unsafe { opened(model) }?.chat_frame().ok_or(Status::Argument)?;
    let part = FramePart::ALL.into_iter().find(|known| *known as u32 == part);
    let part = part.filter(|part| frame.has_system() || !part.of_system()).ok_or(Status::Argument)?;
    Ok((frame, part))
}

/// The facts of a model's chat frame; all zero where it has none.
///
/// # Safety
/// `model` is an `slm_model`, `facts` an `slm_chat_facts`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_chat_describe(model: *const Model, facts: *mut ChatFacts) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, facts) = (unsafe { opened(model) }?, unsafe { place(facts) }?);
        *facts = view.chat_frame().map_or_else(ChatFacts::default, |frame| ChatFacts {
            parts: FRAME_PARTS as u32,
            has_tokens: frame.has_tokens().into(),
            has_system: frame.has_system().into(),
        });
        Ok(())
    })
}

/// The text of a part; it lies in the artifact.
///
/// # Safety
/// `model` is an `slm_model`; `text` and `length` are places for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_chat_text(
    model: *const Model,
    part: u32,
    text: *mut *const c_char,
    length: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (text, length) = (unsafe { place(text) }?, unsafe { place(length) }?);
        (*text, *length) = (core::ptr::null(), 0);
        // SAFETY: as the caller says.
        let (frame, part) = unsafe { part_of(model, part) }?;
        let found = frame.text(part);
        (*text, *length) = (found.as_ptr().cast(), found.len());
        Ok(())
    })
}

/// The tokens of a part.
///
/// # Safety
/// `model` is an `slm_model`; `tokens` has `capacity` places; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_chat_tokens(
    model: *const Model,
    part: u32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    let list = || {
        // SAFETY: as the caller says.
        let (frame, part) = unsafe { part_of(model, part) }?;
        if frame.has_tokens() { Ok(frame.tokens(part)) } else { Err(Status::Empty) }
    };
    // SAFETY: as the caller says.
    unsafe { write_list(list, tokens, capacity, count) }
}

/// Cuts a message's text to what the template writes of it: without the white space around it, where the template removes
/// it from the texts of a role.
///
/// # Safety
/// `model` is an `slm_model`; `text` and `length` are places with a text of that length.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_chat_message(
    model: *const Model,
    role: u32,
    text: *mut *const c_char,
    length: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (text, length) = (unsafe { place(text) }?, unsafe { place(length) }?);
        // SAFETY: as the caller says.
        let frame = unsafe { opened(model) }?.chat_frame().ok_or(Status::Argument)?;
        let role = Role::ALL.into_iter().find(|known| *known as u32 == role).ok_or(Status::Argument)?;
        // SAFETY: as the caller says.
        let bytes = unsafe { array(text.cast::<u8>(), *length) }?;
        let message = frame.message(role, core::str::from_utf8(bytes).map_err(|_| Status::Utf8)?);
        (*text, *length) = (message.as_ptr().cast(), message.len());
        Ok(())
    })
}
