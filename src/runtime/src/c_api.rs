//! The C interface, `include/slm.h`: the same session, tokenizer and sampler behind functions that take pointers. Memory
//! is the caller's; every pointer is judged (null, alignment, length) before anything is read through it; errors are
//! numbers. Nothing panics across the border: with the feature `std` a defect is caught and answered as one, without it
//! a panic ends in the caller's or in this crate's panic handler (feature `panic-handler`).

mod status;
#[cfg(test)]
mod tests;

pub use status::Status;

use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::header::SectionKind;
use crate::kernels;
use crate::layout::ALIGNMENT;
use crate::sample::{Sampling, choose};
use crate::self_test::golden_digest;
use crate::session::{Session, SessionError};
use crate::text::token_text;
use crate::tokenizer::Tokenizer;
use core::ffi::{CStr, c_char, c_void};
use core::fmt::Write;

/// Changes when a program compiled against an older header would not work.
pub const ABI_VERSION: u32 = 1;
/// Size of [`Model`] in `slm.h`, in 64-bit words.
pub const MODEL_WORDS: usize = 320;

/// Marks of structures that were set up; anything else is not open.
const OPEN: u64 = 0x534C_4D4F_5045_4E31;
const FAILED: u64 = 0x534C_4D46_4149_4C31;
const STARTED: u64 = 0x534C_4D53_5441_5231;

/// `slm_model`: an opened artifact. The caller has the memory, at least [`MODEL_WORDS`] of it.
#[repr(C, align(8))]
pub struct Model {
    mark: u64,
    content: Result<ArtifactView<'static>, FormatError>,
}

const _: () = assert!(size_of::<Model>() <= MODEL_WORDS * 8 && align_of::<Model>() == 8);

/// `slm_session`: lies at the start of the session's memory, before what [`Session`] asks for.
pub struct State {
    mark: u64,
    session: Session<'static, 'static>,
    /// Of the last step.
    logits: (*const f32, usize),
    error: Option<SessionError>,
}

/// Bytes before the session's own memory.
const STATE_BYTES: usize = size_of::<State>().next_multiple_of(ALIGNMENT);

/// `slm_facts`: what a program needs to know of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Facts {
    /// 1 decoder, 2 encoder.
    pub kind: u32,
    /// 1 hidden states, 2 next-token logits, 3 masked-token logits, 4 one row of label logits.
    pub output: u32,
    /// Tokens.
    pub vocabulary: u32,
    /// Positions.
    pub context: u32,
    /// Values of an output row.
    pub output_width: u32,
    /// Token that opens a text, or 0xffffffff.
    pub bos: u32,
    /// Token that ends one, or 0xffffffff.
    pub eos: u32,
    /// 1 where `slm_encode` works.
    pub has_tokenizer: u32,
    /// Bound on the stack of a step.
    pub stack_bytes: u64,
}

/// `slm_sampling`: how to choose.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SamplingOptions {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// In 1/65536; 65536 keeps all.
    pub top_p: u32,
}

/// `slm_decoder`: a text being written.
#[repr(C)]
pub struct Decoder {
    model: *const Model,
    at_start: u32,
}

/// `slm_row`: receives one row of output.
pub type Row = unsafe extern "C" fn(user: *mut c_void, position: usize, row: *const f32, width: usize);

/// Runs a function's body; a panic is a defect, and is answered as one where it can be caught.
fn guarded(body: impl FnOnce() -> Result<(), Status>) -> Status {
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(Err(Status::Internal));
    #[cfg(not(feature = "std"))]
    let result = body();
    result.err().unwrap_or(Status::Ok)
}

/// Judges a pointer to one or several values.
fn judge<T>(pointer: *const T, count: usize) -> Result<(), Status> {
    if pointer.is_null() {
        return Err(Status::Null);
    }
    if !pointer.is_aligned() {
        return Err(Status::Alignment);
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::Argument)?;
    let end = (pointer as usize).checked_add(bytes);
    if bytes > isize::MAX as usize || end.is_none() { Err(Status::Argument) } else { Ok(()) }
}

/// The caller's array; a null one of no elements is empty.
///
/// # Safety
/// `pointer` has `count` values that nobody writes while the result lives.
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn array<'c, T>(pointer: *const T, count: usize) -> Result<&'c [T], Status> {
    if count == 0 {
        return Ok(&[]);
    }
    judge(pointer, count)?;
    // SAFETY: judged above; the caller says that the values are there and stay.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// The caller's array to write to.
///
/// # Safety
/// `pointer` has `count` values that nobody else reads or writes while the result lives.
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn array_mut<'c, T>(pointer: *mut T, count: usize) -> Result<&'c mut [T], Status> {
    if count == 0 {
        return Ok(&mut []);
    }
    judge(pointer, count)?;
    // SAFETY: judged above; the caller says that the values are there and its alone.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, count) })
}

/// A value of the caller to write to.
///
/// # Safety
/// As for [`array_mut`] of one value.
#[expect(unsafe_code, reason = "values of the caller")]
unsafe fn place<'c, T>(pointer: *mut T) -> Result<&'c mut T, Status> {
    judge(pointer, 1)?;
    // SAFETY: judged above; the caller says that the value is there and its alone.
    Ok(unsafe { &mut *pointer })
}

/// An opened model.
///
/// # Safety
/// `model` is null or points to memory of an `slm_model`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn opened<'c>(model: *const Model) -> Result<&'c ArtifactView<'static>, Status> {
    judge(model, 1)?;
    // SAFETY: judged above. Only the mark is read, which has a value in memory of any content.
    if unsafe { (&raw const (*model).mark).read() } != OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_open` wrote the whole structure.
    unsafe { &*model }.content.as_ref().map_err(|_| Status::NotOpen)
}

/// A started session.
///
/// # Safety
/// `session` is null or what `slm_session_init` gave, in memory that is there and used by one thread at a time.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn started<'c>(session: *mut State) -> Result<&'c mut State, Status> {
    judge(session, 1)?;
    // SAFETY: judged above. Only the mark is read, which has a value in memory of any content.
    if unsafe { (&raw const (*session).mark).read() } != STARTED {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_session_init` wrote the whole structure.
    Ok(unsafe { &mut *session })
}

/// Text cut to a caller's buffer, and its whole length.
struct Cut<'c> {
    buffer: &'c mut [u8],
    length: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for &byte in text.as_bytes() {
            // The last byte is for the NUL.
            if self.length + 1 < self.buffer.len() {
                self.buffer[self.length] = byte;
            }
            self.length += 1;
        }
        Ok(())
    }
}

/// Writes an error as `snprintf` would: cut to the buffer, with a NUL, the whole length answered.
///
/// # Safety
/// `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn write_error(error: Option<&dyn core::fmt::Display>, buffer: *mut c_char, capacity: usize) -> usize {
    // SAFETY: as the caller says.
    let buffer = unsafe { array_mut(buffer.cast::<u8>(), if buffer.is_null() { 0 } else { capacity }) };
    let mut cut = Cut { buffer: buffer.unwrap_or_default(), length: 0 };
    if let Some(error) = error {
        let _ = write!(cut, "{error}");
    }
    if let Some(last) = cut.buffer.len().checked_sub(1) {
        cut.buffer[cut.length.min(last)] = 0;
    }
    cut.length
}

/// Version of this interface.
#[expect(unsafe_code, reason = "a name of the C interface")]
#[unsafe(no_mangle)]
pub extern "C" fn slm_abi_version() -> u32 {
    ABI_VERSION
}

/// Words for a status.
#[expect(unsafe_code, reason = "a name of the C interface")]
#[unsafe(no_mangle)]
pub extern "C" fn slm_message(status: i32) -> *const c_char {
    Status::from_number(status).map_or(c"unknown status", |status| -> &CStr { status.message() }).as_ptr()
}

/// Checks the structure of an artifact and opens it.
///
/// # Safety
/// `bytes` has `length` bytes that stay as they are while the model and its sessions are used; `model` has the size of
/// an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_open(model: *mut Model, bytes: *const c_void, length: usize) -> Status {
    guarded(|| {
        judge(model, 1)?;
        // SAFETY: as the caller says.
        let bytes: &'static [u8] = unsafe { array(bytes.cast::<u8>(), length) }?;
        let content = ArtifactView::open(bytes);
        let mark = if content.is_ok() { OPEN } else { FAILED };
        // SAFETY: judged above; the structure need not be set up before.
        unsafe { model.write(Model { mark, content }) };
        content.map(|_| ()).map_err(Status::from)
    })
}

/// Why a model did not open.
///
/// # Safety
/// `model` was given to [`slm_open`]; `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_model_error(model: *const Model, buffer: *mut c_char, capacity: usize) -> usize {
    let mut error = None;
    // SAFETY: judged first; the mark has a value in memory of any content.
    if judge(model, 1).is_ok() && unsafe { (&raw const (*model).mark).read() } == FAILED {
        // SAFETY: the mark says that `slm_open` wrote the whole structure.
        error = unsafe { &*model }.content.as_ref().err();
    }
    // SAFETY: as the caller says.
    unsafe { write_error(error.map(|error| error as &dyn core::fmt::Display), buffer, capacity) }
}

/// Compares every digest.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_verify(model: *const Model) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        view.verify_digests().map_err(Status::from)
    })
}

/// What a program needs to know of a model.
///
/// # Safety
/// `model` is an `slm_model`, `facts` an `slm_facts`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_describe(model: *const Model, facts: *mut Facts) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, facts) = (unsafe { opened(model) }?, unsafe { place(facts) }?);
        let spec = view.spec();
        *facts = Facts {
            kind: spec.kind.into(),
            output: spec.output.into(),
            vocabulary: spec.vocabulary,
            context: spec.context,
            output_width: spec.output_width,
            bos: spec.bos,
            eos: spec.eos,
            has_tokenizer: view.section(SectionKind::Text).is_some().into(),
            stack_bytes: spec.stack_bytes,
        };
        Ok(())
    })
}

/// Bytes of memory that a session or a self-test needs; 0 for a model that is not open, or larger than this machine.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_session_bytes(model: *const Model) -> usize {
    // SAFETY: as the caller says.
    let Ok(view) = (unsafe { opened(model) }) else { return 0 };
    let required = usize::try_from(Session::required_bytes(view)).ok();
    required.and_then(|required| required.checked_add(STATE_BYTES)).unwrap_or(0)
}

/// The caller's memory: a place for the state, and the session's own, exactly as long as required.
///
/// # Safety
/// `memory` has `length` bytes that nobody else uses while the result lives.
#[expect(unsafe_code, reason = "memory of the caller")]
unsafe fn session_memory<'c>(
    view: &ArtifactView<'_>,
    memory: *mut c_void,
    length: usize,
) -> Result<(&'c mut [u8], &'c mut [u8]), Status> {
    if memory.is_null() {
        return Err(Status::Null);
    }
    if !(memory as usize).is_multiple_of(ALIGNMENT) {
        return Err(Status::Alignment);
    }
    let required = usize::try_from(Session::required_bytes(view)).map_err(|_| Status::Memory)?;
    let all = required.checked_add(STATE_BYTES).filter(|&all| all <= length).ok_or(Status::Memory)?;
    // SAFETY: as the caller says.
    Ok(unsafe { array_mut(memory.cast::<u8>(), all) }?.split_at_mut(STATE_BYTES))
}

/// Starts a session with nothing read yet.
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
    guarded(|| {
        // SAFETY: as the caller says.
        let place = unsafe { place(session) }?;
        *place = core::ptr::null_mut();
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        // SAFETY: as the caller says; the memory outlives the session by the caller's word.
        let (state, own): (_, &'static mut [u8]) = unsafe { session_memory(view, memory, length) }?;
        let session = Session::new(view, kernels::best(view.layout()), own)?;
        let state = state.as_mut_ptr().cast::<State>();
        let new = State { mark: STARTED, session, logits: (core::ptr::null(), 0), error: None };
        // SAFETY: the memory starts on 64 bytes, and the first part of it has the size of a state.
        unsafe { state.write(new) };
        *place = state;
        Ok(())
    })
}

/// Reads tokens of a decoder's sequence.
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

/// The row after the last step; it stands until the session is used again.
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

/// Runs tokens and hands out every row of output.
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
            // SAFETY: the caller's function, called as it asked.
            unsafe { row(user, position, values.as_ptr(), values.len()) };
        });
        state.error = result.err();
        Ok(result?)
    })
}

/// Forgets everything read.
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

/// Positions read so far; 0 for a session that was not started.
///
/// # Safety
/// `session` comes from [`slm_session_init`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_positions(session: *mut State) -> usize {
    // SAFETY: as the caller says.
    unsafe { started(session) }.map_or(0, |state| state.session.positions())
}

/// Why the session's last call failed.
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

/// Bytes of memory that suffice to encode any text of `length` bytes; 0 where the artifact has no tokenizer.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_encode_bytes(model: *const Model, length: usize) -> usize {
    // SAFETY: as the caller says.
    let tokenizer = unsafe { opened(model) }.ok().and_then(Tokenizer::of);
    // A tokenizer may need no memory at all: one unit, so that 0 says that there is none.
    tokenizer.and_then(|tokenizer| tokenizer.required_bytes(length)).map_or(0, |bytes| bytes.max(ALIGNMENT))
}

/// Tokens of a text.
///
/// # Safety
/// `model` is an `slm_model`; `text` has `length` bytes, `memory` `memory_length`, `tokens` `capacity` places; `count` is
/// a place for the result. Nobody else uses `memory` and `tokens` meanwhile.
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

/// Begins to write a text.
///
/// # Safety
/// `decoder` is an `slm_decoder`; `model` is an `slm_model` that stays where it is while the decoder is used.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_decode_begin(decoder: *mut Decoder, model: *const Model, at_start: u32) -> Status {
    guarded(|| {
        judge(decoder, 1)?;
        // SAFETY: as the caller says.
        unsafe { opened(model) }?;
        if at_start > 1 {
            return Err(Status::Argument);
        }
        // SAFETY: judged above; the structure need not be set up before.
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

/// Chooses a token.
///
/// # Safety
/// `logits` has `count` values; `sampling` is an `slm_sampling`; `token` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_sample(
    logits: *const f32,
    count: usize,
    sampling: *const SamplingOptions,
    seed: u64,
    index: u64,
    token: *mut u32,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (logits, token) = (unsafe { array(logits, count) }?, unsafe { place(token) }?);
        judge(sampling, 1)?;
        // SAFETY: judged above.
        let SamplingOptions { temperature, top_k, top_p } = unsafe { sampling.read() };
        if logits.is_empty() {
            return Err(Status::Empty);
        }
        let temperate = temperature == 0.0 || (0.001..=1000.0).contains(&temperature);
        if !temperate || !(1..=65_536).contains(&top_p) || logits.iter().any(|logit| logit.is_nan()) {
            return Err(Status::Argument);
        }
        *token = choose(logits, &Sampling { temperature, top_k, top_p }, seed, index);
        Ok(())
    })
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
        let view = unsafe { opened(model) }?;
        // SAFETY: as the caller says.
        let (_, own) = unsafe { session_memory(view, memory, length) }?;
        let digest = golden_digest(view, kernels::best(view.layout()), own)?;
        if digest == view.golden_digest() { Ok(()) } else { Err(Status::SelfTest) }
    })
}

/// Stops where it is: a device without an operating system has nowhere to go from a defect.
#[cfg(all(feature = "panic-handler", not(feature = "std"), not(test)))]
#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
