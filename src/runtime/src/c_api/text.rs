//! Text to tokens and tokens to text.

use super::model::{Model, opened};
use super::pointers::{array, array_mut, check_pointer, place};
use super::{Status, guarded};
use crate::layout::ALIGNMENT;
use crate::text::token_text;
use crate::tokenizer::Tokenizer;
use core::ffi::{c_char, c_void};

/// `slm_decoder`: a text being written.
#[repr(C)]
pub struct Decoder {
    pub(super) model: *const Model,
    pub(super) at_start: u32,
}

/// Bytes of memory that suffice to encode any text of `length` bytes; 0 where the artifact has no tokenizer.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_encode_bytes(model: *const Model, length: usize) -> usize {
    // SAFETY: as the caller says.
    let tokenizer = unsafe { opened(model) }.ok().and_then(Tokenizer::of);
    // At least one unit, also for a tokenizer that needs no memory: 0 means that there is no tokenizer.
    tokenizer.and_then(|tokenizer| tokenizer.required_bytes(length)).map_or(0, |bytes| bytes.max(ALIGNMENT))
}

/// Tokens of a text.
///
/// # Safety
/// `model` is an `slm_model`; `text` has `length` bytes, `memory` `memory_length`, `tokens` `capacity` places; `count`
/// is a place for the result. Nothing else uses `memory` and `tokens` meanwhile.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_encode(
    model: *const Model,
    text: *const c_char,
    length: usize,
    specials: u32,
    memory: *mut c_void,
    memory_length: usize,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let count = unsafe { place(count) }?;
        *count = 0;
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        // SAFETY: as the caller says.
        let (text, memory) =
            (unsafe { array(text.cast::<u8>(), length) }?, unsafe { array_mut(memory.cast::<u8>(), memory_length) }?);
        // SAFETY: as the caller says.
        let tokens = unsafe { array_mut(tokens, capacity) }?;
        let tokenizer = Tokenizer::of(view).ok_or(Status::NoTokenizer)?;
        let text = core::str::from_utf8(text).map_err(|_| Status::Utf8)?;
        if specials > 1 {
            return Err(Status::Argument);
        }
        if memory.is_empty() {
            return Err(Status::Memory);
        }
        tokenizer.encode(text, specials == 1, memory, &mut |token| {
            if let Some(place) = tokens.get_mut(*count) {
                *place = token;
            }
            *count += 1;
        })?;
        if *count > tokens.len() { Err(Status::Capacity) } else { Ok(()) }
    })
}

/// Begins a text.
///
/// # Safety
/// `decoder` is an `slm_decoder`; `model` is an `slm_model` that stays where it is while the decoder is used.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_decode_begin(decoder: *mut Decoder, model: *const Model, at_start: u32) -> Status {
    guarded(|| {
        check_pointer(decoder, 1)?;
        // SAFETY: as the caller says.
        unsafe { opened(model) }?;
        if at_start > 1 {
            return Err(Status::Argument);
        }
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { decoder.write(Decoder { model, at_start }) };
        Ok(())
    })
}

/// The bytes that a token adds to a text; they lie in the artifact.
///
/// # Safety
/// `decoder` was given to [`slm_decode_begin`]; `bytes` and `length` are places for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_decode(
    decoder: *mut Decoder,
    token: u32,
    bytes: *mut *const c_char,
    length: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (decoder, bytes, length) =
            (unsafe { place(decoder) }?, unsafe { place(bytes) }?, unsafe { place(length) }?);
        // SAFETY: as the caller says.
        let view = unsafe { opened(decoder.model) }?;
        if token >= view.spec().vocabulary {
            return Err(Status::Token);
        }
        let mut at_start = decoder.at_start == 1;
        let text = token_text(view, token, &mut at_start);
        decoder.at_start = at_start.into();
        (*bytes, *length) = (text.as_ptr().cast(), text.len());
        Ok(())
    })
}
