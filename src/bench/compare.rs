//! How fast one artifact is beside another on this machine: both are run in turn, the order changing from pair to pair,
//! so that what slows the machine down slows both. A decoder's run reads a short prompt and decodes tokens, an
//! encoder's reads the prompt; each is repeated until it takes long enough to be timed.

use super::{BenchError, prompt};
use crate::artifact::host::{ArtifactFile, SessionMemory};
use crate::machine::kernels::kernels_for;
use slm_runtime::kernels::pool::Pool;
use slm_runtime::session::{Extent, Session};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Pairs of runs.
const PAIRS: usize = 16;
/// Tokens of the prompt, and decoded after it, where the context has room for both.
const TOKENS: (usize, usize) = (16, 32);
/// Least time of a run.
const LEAST: Duration = Duration::from_millis(40);

/// ln(own rate / other rate) for every pair of runs; rates in tokens per second.
///
/// # Errors
/// [`BenchError`]: an artifact that cannot be read or run, threads that cannot be started.
pub fn compare(own: &ArtifactFile, other: &ArtifactFile, threads: NonZeroUsize) -> Result<Vec<f64>, BenchError> {
    let pool = Pool::new(threads.get()).map_err(BenchError::Threads)?;
    let (mut own, mut other) = (Runner::of(own, &pool, threads)?, Runner::of(other, &pool, threads)?);
    // The work of a run is the same for both.
    let context = own.context.min(other.context);
    let prefill = TOKENS.0.min(context / 2).max(1);
    let decode = if own.decodes && other.decodes { TOKENS.1.min(context - prefill) } else { 0 };
    let mut repeats = 1u32;
    while repeats < 1 << 16 && own.time(prefill, decode, repeats)?.min(other.time(prefill, decode, repeats)?) < LEAST {
        repeats *= 2;
    }
    let mut ratios = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS {
        let (first, second) = if pair % 2 == 0 { (&mut own, &mut other) } else { (&mut other, &mut own) };
        let times = (first.time(prefill, decode, repeats)?, second.time(prefill, decode, repeats)?);
        let ratio = (times.1.as_secs_f64().max(1e-9) / times.0.as_secs_f64().max(1e-9)).ln();
        ratios.push(if pair % 2 == 0 { ratio } else { -ratio });
    }
    Ok(ratios)
}

/// An artifact ready to run.
struct Runner<'r> {
    file: &'r ArtifactFile,
    pool: &'r Pool,
    threads: NonZeroUsize,
    context: usize,
    decodes: bool,
}

impl<'r> Runner<'r> {
    fn of(file: &'r ArtifactFile, pool: &'r Pool, threads: NonZeroUsize) -> Result<Self, BenchError> {
        let view = file.view()?;
        let (context, decodes) = (view.spec().context as usize, view.spec().is_decoder());
        Ok(Runner { file, pool, threads, context, decodes })
    }

    /// How long it takes to read `prefill` tokens and decode `decode` after them, `repeats` times.
    fn time(&mut self, prefill: usize, decode: usize, repeats: u32) -> Result<Duration, BenchError> {
        let path = self.file.path().to_owned();
        let stopped = |error| BenchError::Session { path: path.clone(), error };
        let view = self.file.view()?;
        let mut memory = SessionMemory::for_extent(&view, Extent::of_workers(self.threads.get()));
        let memory = memory.as_mut_slice();
        let mut session =
            Session::with_workers(&view, kernels_for(view.layout()), self.pool, 1, memory).map_err(&stopped)?;
        let prompt = prompt(view.opening_tokens().iter().next(), view.spec().vocabulary, prefill);
        let start = Instant::now();
        for _ in 0..repeats {
            session.reset();
            if self.decodes {
                session.step(&prompt).map_err(&stopped)?;
            } else {
                session.run(&prompt, &mut |_, _| {}).map_err(&stopped)?;
            }
            for token in 0..decode as u32 {
                session.step(&[(300 + token) % view.spec().vocabulary]).map_err(&stopped)?;
            }
        }
        Ok(start.elapsed())
    }
}
