//! What reading several tokens together takes: a pass of k positions with the logits of each, for k = 1, 2, …, as a step
//! of speculative decoding reads them; and decoding with drafts of a known quality, beside the same without. Passes of
//! different sizes take turns, so that a change of the machine's speed is in all of them, and the best of each counts.

use super::{BenchError, milliseconds, prompt};
use crate::artifact::host::{ArtifactFile, SessionMemory};
use crate::machine::kernels::kernels_for;
use crate::progress::Progress;
use crate::report::{Align, Table};
use serde::Serialize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::spec::{MAX_CHUNK, Output};
use slm_runtime::kernels::pool::Pool;
use slm_runtime::sample::{Sampling, choose, random_u64};
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::speculate::{Drafter, Draws, MAX_DRAFTS, Source, round};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is measured beside prompts and tokens.
#[derive(Clone, Copy, Debug)]
pub struct RowsOptions {
    /// Most positions of a pass.
    pub rows: usize,
    /// Share of drafts that are right, in 1/65536; absent where nothing is drafted.
    pub right: Option<u32>,
    /// Tokens to decode with drafts.
    pub decode: usize,
    /// Rounds.
    pub rounds: NonZeroUsize,
    /// Tokens of the prompt.
    pub prefill: NonZeroUsize,
    /// Number of threads.
    pub threads: NonZeroUsize,
}

/// A pass of several positions.
#[derive(Clone, Debug, Serialize)]
pub struct Pass {
    /// Positions.
    pub rows: usize,
    /// Best time.
    pub ms: f64,
    /// In times of one position.
    pub steps: f64,
    /// In times of as many positions of a prompt with all logits: above 1 is slower than that.
    pub of_prefill: f64,
}

/// Decoding with drafts, each of which is right independently of the others.
#[derive(Clone, Debug, Serialize)]
pub struct DraftedDecode {
    /// Share of drafts that are right.
    pub right: f64,
    /// Tokens decoded.
    pub tokens: usize,
    /// Passes that took.
    pub passes: usize,
    /// Rate of the best round.
    pub tokens_per_s: f64,
    /// Rate of the best round without drafts, of the same tokens.
    pub plain_tokens_per_s: f64,
    /// The first divided by the second.
    pub ratio: f64,
}

/// What passes of several positions take.
#[derive(Clone, Debug, Serialize)]
pub struct RowsReport {
    /// Prefill rate with all logits, divided by the decode rate.
    pub prefill_by_decode: f64,
    /// Passes of 1, 2, … positions.
    pub passes: Vec<Pass>,
    /// Decoding with drafts, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafted: Option<DraftedDecode>,
}

impl RowsReport {
    /// As a table, after the one of the other figures.
    pub fn text(&self) -> String {
        let mut table = Table::new(["rows", "ms", "steps", "of prefill"].map(|name| (name, Align::Right)));
        for pass in &self.passes {
            let Pass { rows, ms, steps, of_prefill } = pass;
            table.row([&rows.to_string(), &format!("{ms:.3}"), &format!("{steps:.3}"), &format!("{of_prefill:.3}")]);
        }
        let mut text = format!("{table}\nprefill / decode  {:.2}", self.prefill_by_decode);
        if let Some(drafted) = &self.drafted {
            let DraftedDecode { right, tokens, passes, tokens_per_s, plain_tokens_per_s, ratio } = drafted;
            text += &format!(
                "\ndrafts right with {right:.2}: {tokens_per_s:.1} tokens/s, {plain_tokens_per_s:.1} without, ratio \
                 {ratio:.2} ({tokens} tokens in {passes} passes)"
            );
        }
        text
    }
}

/// Measures passes of several positions of a decoder with logits.
pub(super) fn measure(
    file: &ArtifactFile,
    options: &RowsOptions,
    pool: &Pool,
    progress: &dyn Progress,
) -> Result<RowsReport, BenchError> {
    let view = file.view()?;
    let path = file.path();
    let stopped = |error| BenchError::Session { path: path.to_owned(), error };
    // As many rows as a prompt's chunk, so that its logits too are computed together.
    let extent = Extent { workers: options.threads.get(), rows: MAX_CHUNK };
    let mut memory = SessionMemory::for_extent(&view, extent);
    let kernels = kernels_for(view.layout());
    let mut session =
        Session::with_workers(&view, kernels, pool, extent.rows, memory.as_mut_slice()).map_err(stopped)?;
    let prompt = prompt(view.opening_tokens().iter().next(), view.spec().vocabulary, options.prefill.get());
    // A small board's plan may have fewer tokens together than were asked for.
    let most = options.rows.clamp(1, session.rows());
    // Any tokens will do.
    let drafts: Vec<u32> = prompt.iter().copied().cycle().take(most).collect();
    let rounds = options.rounds.get();
    progress.begin("measuring passes of several tokens", (rounds * most) as u64, "passes");
    let mut best = vec![Duration::MAX; most];
    let mut prefill = Duration::MAX;
    for _ in 0..rounds {
        session.reset();
        let start = Instant::now();
        session.run(&prompt, &mut |_, _| {}).map_err(stopped)?;
        prefill = prefill.min(start.elapsed());
        for _ in 0..TURNS {
            for (further, best) in best.iter_mut().enumerate() {
                let start = Instant::now();
                session.verify(drafts[0], &drafts[1..=further], &mut |_| None).map_err(stopped)?;
                *best = (*best).min(start.elapsed());
                session.truncate(prompt.len()).map_err(stopped)?;
            }
        }
        progress.advance(most as u64);
    }
    progress.finish();
    let step = best[0].as_secs_f64().max(1e-9);
    let of_prompt = prefill.as_secs_f64() / prompt.len() as f64;
    let passes: Vec<Pass> = best
        .iter()
        .enumerate()
        .map(|(further, time)| {
            let (rows, seconds) = (further + 1, time.as_secs_f64());
            let of_prefill = seconds / (rows as f64 * of_prompt).max(1e-12);
            Pass { rows, ms: milliseconds(*time), steps: seconds / step, of_prefill }
        })
        .collect();
    let drafted = match options.right {
        Some(right) => Some(decode_drafted(
            &mut session,
            options,
            right,
            (&prompt, view.spec().vocabulary),
            &passes,
            path,
            progress,
        )?),
        None => None,
    };
    Ok(RowsReport { prefill_by_decode: step / of_prompt.max(1e-12), passes, drafted })
}

/// Passes of every size within a round.
const TURNS: usize = 4;

/// Checks that the model has logits to verify drafts by, and that the passes fit the context.
pub(super) fn check(path: &Path, view: &ArtifactView<'_>, options: &RowsOptions) -> Result<(), BenchError> {
    if view.spec().output != Output::LanguageModel as u8 {
        return Err(BenchError::NoLogits(path.to_owned()));
    }
    let (prefill, context) = (options.prefill.get(), view.spec().context as usize);
    let decode = options.rows.max(if options.right.is_some() { options.decode } else { 0 });
    match prefill + decode > context {
        true => Err(BenchError::Context { path: path.to_owned(), prefill, decode, context }),
        false => Ok(()),
    }
}

/// Drafts the tokens that come, or now and then others.
struct Knowing<'k> {
    /// What comes after the prompt.
    tokens: &'k [u32],
    prompt: usize,
    /// Share of drafts that are right, in 1/65536.
    right: u32,
    vocabulary: u32,
}

impl Drafter for Knowing<'_> {
    fn draft(&mut self, sequence: &[u32], _: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let next = sequence.len() - self.prompt;
        let coming = &self.tokens[next.min(self.tokens.len())..];
        let count = drafts.len().min(coming.len());
        for (number, (draft, &token)) in drafts.iter_mut().zip(coming).enumerate() {
            let right = random_u64(0, (next + number) as u64) >> 48 < u64::from(self.right);
            *draft = if right { token } else { (token + 1) % self.vocabulary };
        }
        Ok(count)
    }
}

fn decode_drafted(
    session: &mut Session<'_, '_>,
    options: &RowsOptions,
    right: u32,
    (prompt, vocabulary): (&[u32], u32),
    passes: &[Pass],
    path: &Path,
    progress: &dyn Progress,
) -> Result<DraftedDecode, BenchError> {
    let stopped = |error| BenchError::Session { path: path.to_owned(), error };
    let rounds = options.rounds.get();
    progress.begin("decoding with drafts", (2 * rounds * options.decode) as u64, "tokens");
    let choose = |logits: &[f32]| choose(logits, &Sampling::GREEDY, 0, 0);
    let (mut plain, mut drafted) = (Duration::MAX, Duration::MAX);
    let (mut tokens, mut count) = (Vec::new(), 0);
    for _ in 0..rounds {
        session.reset();
        let mut token = choose(session.step(prompt).map_err(stopped)?);
        let first = token;
        tokens.clear();
        let start = Instant::now();
        for _ in 0..options.decode {
            tokens.push(token);
            token = choose(session.step(&[token]).map_err(stopped)?);
        }
        plain = plain.min(start.elapsed());
        tokens.push(token);
        progress.advance(options.decode as u64);

        let mut knowing = Knowing { tokens: &tokens, prompt: prompt.len(), right, vocabulary };
        let mut source = Source::new(&mut knowing, 0.0);
        passes.iter().take(MAX_DRAFTS + 1).for_each(|pass| source.pace.note_rows(pass.rows, pass.steps as f32));
        let mut sources = [source];
        let most = passes.len().saturating_sub(1);
        session.reset();
        session.step(prompt).map_err(stopped)?;
        let mut sequence = [prompt, &[first]].concat();
        let draws = Draws { sampling: Sampling::GREEDY, seed: 0, index: 0, seen: &[] };
        count = 0;
        let start = Instant::now();
        while sequence.len() - prompt.len() <= options.decode {
            let mut added = Vec::with_capacity(MAX_DRAFTS + 1);
            let left = options.decode + prompt.len() - sequence.len();
            round(session, &mut sources, most.min(left), &sequence, &draws, &mut |logits| {
                added.push(choose(logits));
                added.last().copied()
            })
            .map_err(stopped)?;
            sequence.extend(added);
            count += 1;
        }
        drafted = drafted.min(start.elapsed());
        progress.advance(options.decode as u64);
        let same = sequence[prompt.len()..] == tokens;
        if !same {
            return Err(BenchError::Differs(path.to_owned()));
        }
    }
    progress.finish();
    let rate = |time: Duration| options.decode as f64 / time.as_secs_f64().max(1e-9);
    Ok(DraftedDecode {
        right: f64::from(right) / 65_536.0,
        tokens: options.decode,
        passes: count,
        tokens_per_s: rate(drafted),
        plain_tokens_per_s: rate(plain),
        ratio: plain.as_secs_f64() / drafted.as_secs_f64().max(1e-9),
    })
}
