//! Choosing the next token, and how the model's makers would have it chosen.

use super::model::{Model, opened};
use super::pointers::{array, check_pointer, place};
use super::{Status, guarded};
use crate::sample::{Sampling, choose_after, seen_words};

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

fn chosen(logits: &[f32], seen: &[u32], sampling: &Sampling, seed: u64, index: u64) -> Result<u32, Status> {
    if logits.is_empty() {
        return Err(Status::Empty);
    }
    if !sampling.is_valid() || logits.iter().any(|logit| logit.is_nan()) {
        return Err(Status::Argument);
    }
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
        check_pointer(choice, 1)?;
        // SAFETY: checked above.
        let ChoiceOptions { temperature, top_k, top_p, min_p, repetition_penalty } = unsafe { choice.read() };
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty };
        let seen = match repetition_penalty == 1.0 {
            true => &[][..],
            // SAFETY: as the caller says.
            false => unsafe { array(seen, seen_words(count)) }?,
        };
        *token = chosen(logits, seen, &sampling, seed, index)?;
        Ok(())
    })
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
