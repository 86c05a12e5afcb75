//! `slm_model`: opening an artifact, checking it, and describing it.

use super::pointers::{array, array_mut, check_pointer, place, write_error};
use super::{Status, guarded};
#[cfg(not(feature = "signed"))]
use crate::format::FormatError as OpenError;
use crate::format::artifact::ArtifactView;
use crate::format::header::SectionKind;
use crate::format::special_tokens::TokenList;
#[cfg(feature = "seal")]
use crate::seal::SealError as OpenError;
#[cfg(all(feature = "signed", not(feature = "seal")))]
use crate::trust::TrustError as OpenError;
use core::ffi::{c_char, c_void};

/// Size of [`Model`] in `slm.h`, in 64-bit words.
pub const MODEL_WORDS: usize = 320;

/// Marks of a model that opened and of one that did not; any other value was never passed to [`slm_open`].
const OPEN: u64 = 0x534C_4D4F_5045_4E31;
const FAILED: u64 = 0x534C_4D46_4149_4C31;

/// `slm_model`: an opened artifact, in [`MODEL_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct Model {
    mark: u64,
    /// Leaves of the weights that have to be checked before a session may begin.
    #[cfg(feature = "signed")]
    pub(super) unchecked: u64,
    content: Result<ArtifactView<'static>, OpenError>,
}

const _: () = assert!(size_of::<Model>() <= MODEL_WORDS * 8 && align_of::<Model>() == 8);

/// `slm_facts`: the properties of a model that a program needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Facts {
    /// 1 decoder, 2 encoder.
    pub kind: u32,
    /// 1 hidden states, 2 next-token logits, 3 masked-token logits, 4 one row of label logits, 5 one row, the embedding of
    /// the text.
    pub output: u32,
    /// Tokens.
    pub vocabulary: u32,
    /// Positions.
    pub context: u32,
    /// Values of an output row.
    pub output_width: u32,
    /// The first token that opens a text, or 0xffffffff; [`slm_opening_tokens`] gives all.
    pub bos: u32,
    /// The first token that ends a text, or 0xffffffff; [`slm_is_end`] covers all.
    pub eos: u32,
    /// 1 where `slm_encode` works.
    pub has_tokenizer: u32,
    /// Bound on the stack of a step.
    pub stack_bytes: u64,
}

/// `output` of [`Facts`] where hidden states are pooled.
const EMBEDDING: u32 = 5;

/// `slm_embedding_facts`: how the hidden states of a text become its embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EmbeddingFacts {
    /// 0 not pooled, 1 the first token's, 2 the mean, 3 the largest of each column, 4 the last token's.
    pub pooling: u32,
    /// 1 where the embedding has length one.
    pub normalized: u32,
}

/// An opened model.
///
/// # Safety
/// `model` is null or points to memory of an `slm_model`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn opened<'c>(model: *const Model) -> Result<&'c ArtifactView<'static>, Status> {
    check_pointer(model, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*model).mark).read() } != OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_open` wrote the whole structure.
    unsafe { &*model }.content.as_ref().map_err(|_| Status::NotOpen)
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
        check_pointer(model, 1)?;
        // SAFETY: as the caller says.
        let bytes: &'static [u8] = unsafe { array(bytes.cast::<u8>(), length) }?;
        let opened = ArtifactView::open(bytes);
        // SAFETY: checked above.
        unsafe { put_result(model, opened.map(|view| (view, 0))) }
    })
}

/// Writes what came of opening, with the number of leaves that are still to be checked.
///
/// # Safety
/// `model` is not null, is aligned and has the size of an `slm_model`.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn put_result(
    model: *mut Model,
    opened: Result<(ArtifactView<'static>, u64), impl Into<OpenError>>,
) -> Result<(), Status> {
    let mark = if opened.is_ok() { OPEN } else { FAILED };
    let model_now = Model {
        mark,
        #[cfg(feature = "signed")]
        unchecked: opened.as_ref().map_or(0, |(_, unchecked)| *unchecked),
        content: opened.map(|(view, _)| view).map_err(Into::into),
    };
    let status = model_now.content.as_ref().map(|_| ()).map_err(|error| Status::from(*error));
    // SAFETY: as the caller says; the structure need not be set up before.
    unsafe { model.write(model_now) };
    status
}

/// An opened model all of whose bytes may be used.
///
/// # Safety
/// As for [`opened`].
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn usable<'c>(model: *const Model) -> Result<&'c ArtifactView<'static>, Status> {
    // SAFETY: as the caller says.
    let view = unsafe { opened(model) }?;
    // SAFETY: an open model is set up.
    #[cfg(feature = "signed")]
    if unsafe { (*model).unchecked } > 0 {
        return Err(Status::Unchecked);
    }
    Ok(view)
}

/// Writes an opened model to its place.
///
/// # Safety
/// `model` has the size of an `slm_model`.
#[expect(unsafe_code, reason = "structures of the caller")]
#[cfg(feature = "speculation")]
pub(super) unsafe fn put(model: *mut Model, view: ArtifactView<'static>) -> Result<(), Status> {
    check_pointer(model, 1)?;
    // SAFETY: checked above; the structure need not be set up before.
    unsafe { put_result(model, Ok::<_, OpenError>((view, 0))) }
}

/// Message of the error that [`slm_open`] returned.
///
/// # Safety
/// `model` was given to [`slm_open`]; `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_model_error(model: *const Model, buffer: *mut c_char, capacity: usize) -> usize {
    let mut error = None;
    // SAFETY: checked first; the mark is valid for any content of the memory.
    if check_pointer(model, 1).is_ok() && unsafe { (&raw const (*model).mark).read() } == FAILED {
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

/// The properties of a model that a program needs.
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
            output: if spec.pooling().is_some() { EMBEDDING } else { spec.output.into() },
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

/// How hidden states become an embedding.
///
/// # Safety
/// `model` is an `slm_model`, `facts` an `slm_embedding_facts`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_embedding_describe(model: *const Model, facts: *mut EmbeddingFacts) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, facts) = (unsafe { opened(model) }?, unsafe { place(facts) }?);
        let spec = view.spec();
        *facts = EmbeddingFacts { pooling: spec.pooling.into(), normalized: spec.normalize.into() };
        Ok(())
    })
}

/// The tokens before a text, as the tokenizer adds them.
///
/// # Safety
/// `model` is an `slm_model`; `tokens` has `capacity` places; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_opening_tokens(
    model: *const Model,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { write_tokens(model, ArtifactView::opening_tokens, tokens, capacity, count) }
}

/// The tokens that end a text.
///
/// # Safety
/// `model` is an `slm_model`; `tokens` has `capacity` places; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_end_tokens(
    model: *const Model,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { write_tokens(model, ArtifactView::end_tokens, tokens, capacity, count) }
}

/// 1 where a token ends a text, else 0; 0 where the model is not open.
///
/// # Safety
/// `model` is an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_is_end(model: *const Model, token: u32) -> u32 {
    // SAFETY: as the caller says.
    unsafe { opened(model) }.is_ok_and(|view| view.end_tokens().contains(token)).into()
}

/// Writes a list of the model into the caller's array; `count` is its length, also where the array is too short.
///
/// # Safety
/// As for [`slm_opening_tokens`].
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn write_tokens(
    model: *const Model,
    list: fn(&ArtifactView<'static>) -> TokenList<'static>,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { write_list(|| Ok(list(opened(model)?)), tokens, capacity, count) }
}

/// Writes a list of an artifact likewise.
///
/// # Safety
/// `tokens` has `capacity` places; `count` is a place for the result.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn write_list(
    list: impl FnOnce() -> Result<TokenList<'static>, Status>,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let count = unsafe { place(count) }?;
        *count = 0;
        let list = list()?;
        // SAFETY: as the caller says.
        let tokens = unsafe { array_mut(tokens, capacity) }?;
        *count = list.len();
        tokens.iter_mut().zip(list.iter()).for_each(|(place, token)| *place = token);
        if list.len() > tokens.len() { Err(Status::Capacity) } else { Ok(()) }
    })
}
