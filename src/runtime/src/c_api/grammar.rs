//! `slm_grammar_*`: which tokens a grammar allows next, and which it leaves no choice about.

use super::model::{Model, opened};
use super::pointers::{array, array_mut, check_pointer, place};
use super::{Status, guarded};
use crate::format::grammar::GrammarTables;
use crate::grammar::{Grammar, State};
use core::ffi::c_void;

/// Size of [`OpenGrammar`] in `slm.h`, in 64-bit words.
pub const GRAMMAR_WORDS: usize = 32;
/// Size of a [`State`] in `slm.h`, in 16-bit numbers.
pub const GRAMMAR_STATE_NUMBERS: usize = 19;

/// Mark of an opened grammar.
const OPEN: u64 = 0x534C_4D47_5241_4D31;

/// `slm_grammar`: an opened grammar, in [`GRAMMAR_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct OpenGrammar {
    mark: u64,
    grammar: Grammar<'static>,
}

const _: () = assert!(size_of::<OpenGrammar>() <= GRAMMAR_WORDS * 8 && align_of::<OpenGrammar>() == 8);
const _: () = assert!(size_of::<State>() == GRAMMAR_STATE_NUMBERS * 2 && align_of::<State>() == 2);

/// An opened grammar.
///
/// # Safety
/// `grammar` is null or points to memory of an `slm_grammar`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn opened_grammar<'c>(grammar: *const OpenGrammar) -> Result<&'c Grammar<'static>, Status> {
    check_pointer(grammar, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*grammar).mark).read() } != OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_grammar_open` wrote the whole structure.
    Ok(&unsafe { &*grammar }.grammar)
}

/// A state of the caller; any numbers are one.
///
/// # Safety
/// `state` is null or has the numbers of an `slm_grammar_state`.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn state_of(state: *const State) -> Result<State, Status> {
    check_pointer(state, 1)?;
    // SAFETY: checked above; the state consists of numbers.
    Ok(unsafe { state.read() })
}

/// Opens the grammar of an artifact, or of a section that the caller has.
///
/// # Safety
/// `grammar` has the size of an `slm_grammar`; `model` is an `slm_model`; `section` is null or has `length` bytes that stay
/// as they are while the grammar is used.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_open(
    grammar: *mut OpenGrammar,
    model: *const Model,
    section: *const c_void,
    length: usize,
) -> Status {
    guarded(|| {
        check_pointer(grammar, 1)?;
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        let tables = match section.is_null() {
            true => view.grammar().ok_or(Status::NoGrammar)?,
            // SAFETY: as the caller says.
            false => GrammarTables::read(unsafe { array(section.cast::<u8>(), length) }?, view.spec().vocabulary)?,
        };
        let opened = Grammar::new(tables, view.tokens(), view.end_tokens());
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { grammar.write(OpenGrammar { mark: OPEN, grammar: opened }) };
        Ok(())
    })
}

/// Words of a set of tokens; 0 where the grammar is not open.
///
/// # Safety
/// `grammar` is an `slm_grammar`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_words(grammar: *const OpenGrammar) -> usize {
    // SAFETY: as the caller says.
    unsafe { opened_grammar(grammar) }.map_or(0, Grammar::words)
}

/// The start of a text.
///
/// # Safety
/// `grammar` is an `slm_grammar`, `state` an `slm_grammar_state`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_start(grammar: *const OpenGrammar, state: *mut State) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (grammar, state) = (unsafe { opened_grammar(grammar) }?, unsafe { place(state) }?);
        *state = grammar.start();
        Ok(())
    })
}

/// Fills the set of the tokens that may come next.
///
/// # Safety
/// `grammar` is an `slm_grammar`, `state` an `slm_grammar_state`; `allowed` has `words` words; `count` is a place for the
/// result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_allowed(
    grammar: *const OpenGrammar,
    state: *const State,
    allowed: *mut u32,
    words: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (grammar, count) = (unsafe { opened_grammar(grammar) }?, unsafe { place(count) }?);
        // SAFETY: as the caller says.
        let (state, allowed) = (unsafe { state_of(state) }?, unsafe { array_mut(allowed, words) }?);
        let set = allowed.get_mut(..grammar.words()).ok_or(Status::Capacity)?;
        *count = grammar.allowed(&state, set);
        Ok(())
    })
}

/// Goes on by a token.
///
/// # Safety
/// As for [`slm_grammar_start`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_advance(grammar: *const OpenGrammar, state: *mut State, token: u32) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (grammar, state) = (unsafe { opened_grammar(grammar) }?, unsafe { place(state) }?);
        grammar.advance(state, token).map_err(|_| Status::Refused)
    })
}

/// Goes on by the tokens without an alternative.
///
/// # Safety
/// As for [`slm_grammar_start`]; `tokens` has `capacity` places; `count` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_forced(
    grammar: *const OpenGrammar,
    state: *mut State,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (grammar, count) = (unsafe { opened_grammar(grammar) }?, unsafe { place(count) }?);
        // SAFETY: as the caller says.
        let (state, tokens) = (unsafe { place(state) }?, unsafe { array_mut(tokens, capacity) }?);
        *count = grammar.forced(state, tokens);
        Ok(())
    })
}

/// 1 where the text may end, else 0.
///
/// # Safety
/// As for [`slm_grammar_start`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_accepts(grammar: *const OpenGrammar, state: *const State) -> u32 {
    // SAFETY: as the caller says.
    let (grammar, state) = (unsafe { opened_grammar(grammar) }, unsafe { state_of(state) });
    grammar.and_then(|grammar| Ok((grammar, state?))).is_ok_and(|(grammar, state)| grammar.is_accepting(&state)).into()
}

/// 1 where the text may end and nothing else can follow, else 0.
///
/// # Safety
/// As for [`slm_grammar_start`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_grammar_complete(grammar: *const OpenGrammar, state: *const State) -> u32 {
    // SAFETY: as the caller says.
    let (grammar, state) = (unsafe { opened_grammar(grammar) }, unsafe { state_of(state) });
    grammar.and_then(|grammar| Ok((grammar, state?))).is_ok_and(|(grammar, state)| grammar.is_complete(&state)).into()
}
