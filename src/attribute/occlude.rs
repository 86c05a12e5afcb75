//! Occlusion: the log-probability of a choice with all its input, less that with one token replaced,
//!
//! ```text
//! change[i] = ln p(choice | x) − ln p(choice | x with x[i] replaced)    share[i] = change[i] / Σ_i |change[i]|
//! ```
//!
//! on the integer runtime, in a session of its own for every replacement. Positions stay: a token that is taken out would
//! move all that follow. Positive: the token spoke for the choice; negative: against it.

use super::AttributeError;
use crate::artifact::host::SessionMemory;
use crate::divergence::nll;
use crate::machine::kernels::kernels_for;
use crate::progress::Progress;
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::spec::Output;
use slm_runtime::session::{Session, SessionError};

/// Choices of one sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices<'a> {
    /// Tokens read.
    pub(super) tokens: &'a [u32],
    /// The position after which the first choice is made; those of a decoder follow one by one.
    pub(super) from: usize,
    /// Columns of the output that were chosen.
    pub(super) chosen: &'a [usize],
}

/// ln p of every choice where position `replaced.0` has token `replaced.1`, in nats.
fn log_probabilities(
    session: &mut Session<'_, '_>,
    decoder: bool,
    choices: &Choices<'_>,
    replaced: Option<(usize, u32)>,
) -> Result<Vec<f64>, SessionError> {
    let mut tokens = choices.tokens.to_vec();
    if let Some((position, token)) = replaced {
        tokens[position] = token;
    }
    session.reset();
    let start = if decoder { choices.from } else { 0 };
    if start > 0 {
        session.read(&tokens[..start])?;
    }
    let mut out = Vec::with_capacity(choices.chosen.len());
    session.run(&tokens[start..], &mut |_, row| {
        if let Some(&chosen) = choices.chosen.get(out.len()) {
            out.push(-nll(row, chosen));
        }
    })?;
    Ok(out)
}

/// What replacing each of `positions` by `token` does to every choice: (positions, choices), in nats.
///
/// # Errors
/// [`AttributeError`]: the runtime stopped.
pub(super) fn occlude(
    view: &ArtifactView<'_>,
    choices: &Choices<'_>,
    positions: &[usize],
    token: u32,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>, AttributeError> {
    // A classifier reads its text from the beginning each time.
    let decoder = view.spec().is_decoder() && view.spec().output != Output::Classifier as u8;
    let kernels = kernels_for(view.layout());
    progress.begin("occluding", positions.len() as u64, "tokens");
    let part = |positions: &[usize]| -> Result<Vec<Vec<f64>>, SessionError> {
        let mut memory = SessionMemory::for_artifact(view);
        let mut session = Session::new(view, kernels, memory.as_mut_slice())?;
        let full = log_probabilities(&mut session, decoder, choices, None)?;
        let one = |&position: &usize| {
            let without = log_probabilities(&mut session, decoder, choices, Some((position, token)))?;
            progress.advance(1);
            Ok(full.iter().zip(without).map(|(full, without)| full - without).collect())
        };
        positions.iter().map(one).collect()
    };
    let at_once = positions.len().div_ceil(rayon::current_num_threads()).max(1);
    let parts: Result<Vec<Vec<Vec<f64>>>, SessionError> = positions.par_chunks(at_once).map(part).collect();
    progress.finish();
    Ok(parts?.concat())
}

/// The shares of changes, signs kept: their magnitudes sum to 1, or all are 0.
pub(super) fn shares(changes: &[f64]) -> Vec<f64> {
    let sum: f64 = changes.iter().map(|change| change.abs()).sum();
    changes.iter().map(|change| if sum > 0.0 { change / sum } else { 0.0 }).collect()
}
