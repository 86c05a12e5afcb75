//! Speculative decoding without loss: drafters guess the next tokens, and one pass over the weights confirms as many as
//! are right. The logits of a position do not depend on what is read with it and a draw belongs to its number in the
//! sequence, so the tokens are those of decoding one by one, greedy or sampled; only the time differs.
//!
//! A round, with t the last token, which is not yet read:
//!
//! ```text
//! drafts     d1 … dk                     from the drafter that promises most (pace.rs), none where none pays
//! verify     logits after t, d1 … dk     one pass (session/verify.rs)
//! choose     x0 after t; x1 after d1 if x0 = d1; …   until a choice differs from its draft
//! ```
//!
//! | file | drafts |
//! |---|---|
//! | `repeats` | what followed the last tokens where they stood before |
//! | `continuations` | what most often follows them in a text, from a table of the artifact |
//! | `model` | what a smaller model of the same tokens chooses |

mod continuations;
mod model;
mod pace;
mod repeats;

pub use continuations::{Continuations, ContinuationsError, MOST_TOKENS};
pub use model::ModelDrafter;
pub use pace::{MAX_DRAFTS, Pace, Promise, READING};
pub use repeats::Repeats;

use crate::sample::Sampling;
use crate::session::{Session, SessionError};

/// How the tokens of a sequence are drawn, for drafters that draw as the model does.
#[derive(Clone, Copy, Debug)]
pub struct Draws<'s> {
    /// Parameters.
    pub sampling: Sampling,
    /// Stream of the draws.
    pub seed: u64,
    /// Number of the next draw.
    pub index: u64,
    /// The set of the sequence's tokens, as [`crate::sample::mark`] makes it; read where there is a repetition penalty.
    pub seen: &'s [u32],
}

/// A source of guesses.
pub trait Drafter {
    /// Writes tokens that may follow `sequence` to the front of `drafts` and returns their number, 0 where it has none.
    /// Whatever they are, the output stays the same.
    ///
    /// # Errors
    /// A drafter's own session may stop.
    fn draft(&mut self, sequence: &[u32], draws: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError>;

    /// Tokens of a sequence of this length that it would have to read before.
    fn behind(&self, length: usize) -> usize {
        let _ = length;
        0
    }
}

/// A drafter and how well it does.
pub struct Source<'d> {
    drafter: &'d mut dyn Drafter,
    /// How many drafts of it pay.
    pub pace: Pace,
}

impl<'d> Source<'d> {
    /// A drafter each of whose tokens takes `cost` of the time of a model's step.
    pub fn new(drafter: &'d mut dyn Drafter, cost: f32) -> Self {
        Source { drafter, pace: Pace::new(cost) }
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The source asked, by its place in the list; `None` where no draft was made.
    pub source: Option<usize>,
    /// Tokens drafted.
    pub drafted: usize,
    /// Drafts that were right; the session has read as many tokens and the last one.
    pub confirmed: usize,
}

/// Reads the last token of `sequence` and at most `most` tokens that the sources guess after it. `choose` receives the
/// logits after the token, then after every draft that it returned; `None` ends the sequence. The caller appends what it
/// chose.
///
/// # Errors
/// [`SessionError`].
pub fn round(
    session: &mut Session<'_, '_>,
    sources: &mut [Source<'_>],
    most: usize,
    sequence: &[u32],
    draws: &Draws<'_>,
    choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
) -> Result<Round, SessionError> {
    let &last = sequence.last().ok_or(SessionError::Empty)?;
    let most = most.min(MAX_DRAFTS).min(session.rows() - 1);
    let mut drafts = [0; MAX_DRAFTS];
    let mut asked = [false; MAX_SOURCES];
    let (mut round, mut behind) = (Round::default(), 0);
    // The most promising source first, then those that may have a guess where it has none.
    while let Some((index, wanted)) = best(sources, &asked, most, sequence.len()) {
        asked[index] = true;
        behind = sources[index].drafter.behind(sequence.len());
        let found = sources[index].drafter.draft(sequence, draws, &mut drafts[..wanted])?;
        if found > 0 {
            round = Round { source: Some(index), drafted: found, confirmed: 0 };
            break;
        }
    }
    round.confirmed = session.verify(last, &drafts[..round.drafted], choose)?;
    for (index, source) in sources.iter_mut().enumerate() {
        match round.source == Some(index) {
            true => source.pace.note(round.drafted, round.confirmed, behind),
            false => source.pace.rest(),
        }
    }
    Ok(round)
}

/// Sources that are asked at most.
pub const MAX_SOURCES: usize = 4;

/// The source that has not been asked and promises most, with the drafts it should make.
fn best(sources: &[Source<'_>], asked: &[bool; MAX_SOURCES], most: usize, length: usize) -> Option<(usize, usize)> {
    let left = sources.iter().zip(asked).enumerate().filter(|(_, (_, asked))| !**asked);
    let promises = left.map(|(index, (source, _))| (index, source.pace.promise(most, source.drafter.behind(length))));
    let paying = promises.filter(|(_, promise)| promise.drafts > 0);
    paying.reduce(|a, b| if b.1.gain > a.1.gain { b } else { a }).map(|(index, promise)| (index, promise.drafts))
}
