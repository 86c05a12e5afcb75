//! What a session has beyond one token after another: several in one pass, a sequence taken back, saved and taken up, a
//! grammar. Tokens and logits must be those of the plain way; one digest of all of it is compared between devices.

use core::fmt::Write;

use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::grammar::Grammar;
use slm_runtime::kernels::{Kernels, best};
use slm_runtime::sample::{Sampling, choose, choose_among, random_u64};
use slm_runtime::session::{Extent, Session, snapshot_bytes};
use slm_runtime::sha256::Sha256;
use slm_runtime::speculate::{Draws, Repeats, Source, round};

use crate::{Failure, line, update};

/// Positions verified together.
const ROWS: usize = 4;
/// Tokens read before the first is chosen, and positions at the end.
const PROMPT: usize = 12;
const LENGTH: usize = 60;
/// Positions that the snapshot holds.
const SAVED: usize = 30;
/// Tokens chosen by a grammar at most.
const CONSTRAINED: usize = 80;
/// Words of a set of tokens: 8,192 tokens.
const MOST_WORDS: usize = 256;

/// Bytes of memory that [`further`] needs: a session, then a snapshot.
#[inline(never)]
pub fn further_bytes(artifact: &[u8]) -> Result<usize, Failure> {
    let view = ArtifactView::open(artifact)?;
    Ok(session_bytes(&view) + saved_bytes(&view))
}

fn session_bytes(view: &ArtifactView<'_>) -> usize {
    Session::required_bytes_for(view, Extent { workers: 1, rows: ROWS }) as usize
}

fn saved_bytes(view: &ArtifactView<'_>) -> usize {
    snapshot_bytes(view.spec(), (0..view.spec().layers as usize).map(|index| view.layer(index)), SAVED) as usize
}

/// Generates by passes of several tokens, from a snapshot and by the artifact's grammar, where it has one.
#[inline(never)]
pub fn further(out: &mut dyn Write, artifact: &[u8], memory: &mut [u8]) -> Result<(), Failure> {
    let view = ArtifactView::open(artifact)?;
    let kernels = best(view.layout());
    writeln!(out, "kernel {}", kernels.name)?;
    let (session, snapshot) = memory.split_at_mut(session_bytes(&view));
    let mut hash = Sha256::new();
    let plain = one_by_one(&view, kernels, session, &mut hash)?;
    let (together, passes) = several(&view, kernels, session)?;
    if together != plain {
        return Err(Failure::Speculation);
    }
    writeln!(out, "passes {passes}")?;
    from_snapshot(&view, kernels, (&mut *session, snapshot), &plain, &mut hash)?;
    by_grammar(&view, kernels, session, &mut hash)?;
    line(out, "further", &hash.finish())?;
    Ok(())
}

/// Sampled tokens repeat themselves less, greedy ones more: half of the draws each.
fn sampling(index: usize) -> Sampling {
    if index < LENGTH / 2 { Sampling::GREEDY } else { Sampling { temperature: 0.9, ..Sampling::GREEDY } }
}

fn prompt(view: &ArtifactView<'_>) -> [u32; LENGTH] {
    let mut sequence = [0; LENGTH];
    for (index, token) in sequence[..PROMPT].iter_mut().enumerate() {
        // The second half repeats the first, so that there is something to guess.
        let place = (index % (PROMPT / 2)) as u64;
        *token = (random_u64(3, place) % u64::from(view.spec().vocabulary)) as u32;
    }
    sequence
}

#[inline(never)]
fn one_by_one(
    view: &ArtifactView<'_>,
    kernels: &'static Kernels,
    memory: &mut [u8],
    hash: &mut Sha256,
) -> Result<[u32; LENGTH], Failure> {
    let mut session = Session::with_rows(view, kernels, ROWS, memory)?;
    let mut sequence = prompt(view);
    session.read(&sequence[..PROMPT - 1])?;
    for index in PROMPT..LENGTH {
        let logits = session.step(&[sequence[index - 1]])?;
        update(hash, logits);
        sequence[index] = choose(logits, &sampling(index), 5, index as u64);
    }
    Ok(sequence)
}

/// The same sequence with drafts; returns the number of passes too.
#[inline(never)]
fn several(
    view: &ArtifactView<'_>,
    kernels: &'static Kernels,
    memory: &mut [u8],
) -> Result<([u32; LENGTH], usize), Failure> {
    let mut session = Session::with_rows(view, kernels, ROWS, memory)?;
    let mut sequence = prompt(view);
    session.read(&sequence[..PROMPT - 1])?;
    let (mut repeats, mut table) = (Repeats, view.continuations());
    let mut first = [Source::new(&mut repeats, 0.0)];
    let mut second = table.as_mut().map(|table| Source::new(table, 0.0));
    let (mut length, mut passes) = (PROMPT, 0);
    while length < LENGTH {
        let draws = Draws { sampling: sampling(length), seed: 5, index: length as u64, seen: &[] };
        // Passes take turns, so that both sources are asked.
        let sources = match &mut second {
            Some(second) if passes % 2 == 1 => core::slice::from_mut(second),
            _ => &mut first[..],
        };
        let known = length;
        let mut chosen = [0; ROWS];
        let mut count = 0;
        round(&mut session, sources, LENGTH - 1 - known, &sequence[..known], &draws, &mut |logits| {
            let token = choose(logits, &sampling(known + count), 5, (known + count) as u64);
            chosen[count] = token;
            count += 1;
            Some(token)
        })?;
        sequence[known..known + count].copy_from_slice(&chosen[..count]);
        length += count;
        passes += 1;
    }
    Ok((sequence, passes))
}

/// Reads a part, saves it, reads on, goes back to the part in two ways: each must give the same logits.
fn from_snapshot(
    view: &ArtifactView<'_>,
    kernels: &'static Kernels,
    (memory, snapshot): (&mut [u8], &mut [u8]),
    sequence: &[u32; LENGTH],
    hash: &mut Sha256,
) -> Result<(), Failure> {
    let mut session = Session::with_rows(view, kernels, ROWS, memory)?;
    session.read(&sequence[..SAVED])?;
    session.save(snapshot).map_err(|_| Failure::Snapshot)?;
    session.mark();
    let mut digests = [[0; 32]; 3];
    for (attempt, digest) in digests.iter_mut().enumerate() {
        let mut one = Sha256::new();
        for token in &sequence[SAVED..SAVED + ROWS - 1] {
            update(&mut one, session.step(core::slice::from_ref(token))?);
        }
        *digest = one.finish();
        match attempt {
            0 => session.truncate(SAVED)?,
            _ => session.restore(snapshot).map_err(|_| Failure::Snapshot)?,
        }
    }
    hash.update(&digests[0]);
    // Without the model's identity, which has the layout of its weights in it, and the digest at the end.
    hash.update(&snapshot[48..snapshot.len() - 32]);
    if digests[0] == digests[1] && digests[0] == digests[2] { Ok(()) } else { Err(Failure::Snapshot) }
}

fn by_grammar(
    view: &ArtifactView<'_>,
    kernels: &'static Kernels,
    memory: &mut [u8],
    hash: &mut Sha256,
) -> Result<(), Failure> {
    let Some(grammar) = Grammar::of(view) else { return Ok(()) };
    let mut allowed = [0; MOST_WORDS];
    let allowed = allowed.get_mut(..grammar.words()).ok_or(Failure::Grammar)?;
    let mut session = Session::with_rows(view, kernels, ROWS, memory)?;
    let mut state = grammar.start();
    let mut pending = [1; CONSTRAINED];
    let mut count = 1;
    for drawn in 0..CONSTRAINED as u64 {
        count += grammar.forced(&mut state, &mut pending[count..]);
        let full = session.positions() + count >= view.spec().context as usize;
        if grammar.is_complete(&state) || count == pending.len() || full {
            break;
        }
        if grammar.allowed(&state, allowed) == 0 {
            return Err(Failure::Grammar);
        }
        let logits = session.step_allowed(&pending[..count], allowed)?;
        let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let token = choose_among(logits, allowed, &[], &sampling, 9, drawn).ok_or(Failure::Grammar)?;
        grammar.advance(&mut state, token).map_err(|_| Failure::Grammar)?;
        pending[..count].iter().for_each(|token| hash.update(&token.to_le_bytes()));
        (pending[0], count) = (token, 1);
    }
    Ok(())
}
