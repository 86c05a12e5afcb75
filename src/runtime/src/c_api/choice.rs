//! Choosing the next token, and how the model's makers would have it chosen.

use super::model::{Model, opened};
use super::pointers::{array, check_pointer, place};
use super::{Status, guarded};
use crate::sample::{Sampling, choose_after, choose_among, seen_words};

/// `slm_sampling`: sampling parameters without those that came later.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SamplingOptions {
    /// 0 selects the likeliest token.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// In 1/65536; 65536 keeps all.
    pub top_p: u32,
}

/// `slm_choice`: sampling parameters.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ChoiceOptions {
    /// 0 selects the likeliest token.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// In 1/65536; 65536 keeps all.
    pub top_p: u32,
    /// In 1/65536; 0 keeps all.
    pub min_p: u32,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
}

fn check(logits: &[f32], sampling: &Sampling) -> Result<(), Status> {
    if logits.is_empty() {
        return Err(Status::Empty);
    }
    let sound = sampling.is_valid() && !logits.iter().any(|logit| logit.is_nan());
    if sound { Ok(()) } else { Err(Status::Argument) }
}

fn chosen(logits: &[f32], seen: &[u32], sampling: &Sampling, seed: u64, index: u64) -> Result<u32, Status> {
    check(logits, sampling)?;
    Ok(choose_after(logits, seen, sampling, seed, index))
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
        check_pointer(sampling, 1)?;
        // SAFETY: checked above.
        let SamplingOptions { temperature, top_k, top_p } = unsafe { sampling.read() };
        let sampling = Sampling { temperature, top_k, top_p, ..Sampling::GREEDY };
        *token = chosen(logits, &[], &sampling, seed, index)?;
        Ok(())
    })
}

/// Chooses a token after a sequence.
///
/// # Safety
/// `logits` has `count` values; `choice` is an `slm_choice`; `seen` is null or has a bit for every logit; `token` is a
/// place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_choose(
    logits: *const f32,
    count: usize,
    choice: *const ChoiceOptions,
    seen: *const u32,
    seed: u64,
    index: u64,
    token: *mut u32,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (logits, token) = (unsafe { array(logits, count) }?, unsafe { place(token) }?);
        // SAFETY: as the caller says.
        let sampling = unsafe { sampling_of(choice) }?;
        // SAFETY: as the caller says.
        let seen = unsafe { seen_of(&sampling, seen, count) }?;
        *token = chosen(logits, seen, &sampling, seed, index)?;
        Ok(())
    })
}

/// Chooses a token of a set after a sequence.
///
/// # Safety
/// As for [`slm_choose`]; `allowed` has a bit for every logit.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_choose_among(
    logits: *const f32,
    count: usize,
    choice: *const ChoiceOptions,
    seen: *const u32,
    allowed: *const u32,
    seed: u64,
    index: u64,
    token: *mut u32,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (logits, token) = (unsafe { array(logits, count) }?, unsafe { place(token) }?);
        // SAFETY: as the caller says.
        let (sampling, allowed) = (unsafe { sampling_of(choice) }?, unsafe { array(allowed, seen_words(count)) }?);
        // SAFETY: as the caller says.
        let seen = unsafe { seen_of(&sampling, seen, count) }?;
        check(logits, &sampling)?;
        *token = choose_among(logits, allowed, seen, &sampling, seed, index).ok_or(Status::Empty)?;
        Ok(())
    })
}

/// The parameters of a choice.
///
/// # Safety
/// `choice` is null or an `slm_choice`.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn sampling_of(choice: *const ChoiceOptions) -> Result<Sampling, Status> {
    check_pointer(choice, 1)?;
    // SAFETY: checked above.
    let ChoiceOptions { temperature, top_k, top_p, min_p, repetition_penalty } = unsafe { choice.read() };
    Ok(Sampling { temperature, top_k, top_p, min_p, repetition_penalty })
}

/// The set of the sequence's tokens, which only a repetition penalty reads.
///
/// # Safety
/// `seen` is null or has a bit for each of `count` tokens.
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn seen_of<'c>(sampling: &Sampling, seen: *const u32, count: usize) -> Result<&'c [u32], Status> {
    if sampling.repetition_penalty == 1.0 {
        return Ok(&[]);
    }
    // SAFETY: as the caller says.
    unsafe { array(seen, seen_words(count)) }
}

/// How the model's makers have tokens chosen.
///
/// # Safety
/// `model` is an `slm_model`, `choice` an `slm_choice`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_default_choice(model: *const Model, choice: *mut ChoiceOptions) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, choice) = (unsafe { opened(model) }?, unsafe { place(choice) }?);
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = view.sampling();
        *choice = ChoiceOptions { temperature, top_k, top_p, min_p, repetition_penalty };
        Ok(())
    })
}
