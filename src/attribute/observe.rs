//! Attention as the runtime computes it: the softmax weights of every row, read where the runtime's own kernel has just
//! made them. A table of kernels is a value; here it is the machine's own with one entry replaced,
//!
//! ```text
//! weights' = weights, then a copy of e[p] = 2^-z in Q24 and of Σ e
//! ```
//!
//! so that nothing is computed twice, every bit is the runtime's, and its code, here and on devices, knows nothing of it.
//! A session of one worker computes its rows in one order, by which each is known: a decoder's by chunk, layer, token and
//! head, an encoder's by layer, token and head.

use crate::artifact::host::SessionMemory;
use crate::machine::kernels::kernels_for;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::spec::{Block, LayerCacheFormat, LayerRecord};
use slm_runtime::kernels::{Kernels, Weigh, available};
use slm_runtime::session::{Session, SessionError};
use std::cell::RefCell;
use std::sync::OnceLock;

/// The weights of one head at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Layer, counted with those that have no attention.
    pub layer: usize,
    /// Query head.
    pub head: usize,
    /// Position that attends.
    pub position: usize,
    /// The first position that it sees; the others follow.
    pub first: usize,
    /// (seen): weights in units of 2^-24 of the largest score's.
    pub weights: Vec<u32>,
    /// Their sum as the runtime has it.
    pub total: u64,
}

/// One call of the kernel.
struct Recorder {
    base: Weigh,
    /// Which of the calls are kept, in their order.
    wanted: std::vec::IntoIter<bool>,
    kept: Vec<(Vec<u32>, u64)>,
    calls: usize,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// The entry that is put in the place of [`Kernels::weights`].
fn weigh_and_record(value_scales: &[f32], top: f32, scores: &mut [u32]) -> (u64, f32) {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else { return slm_runtime::numerics::softmax_weights(value_scales, top, scores) };
        let result = (recorder.base)(value_scales, top, scores);
        recorder.calls += 1;
        if recorder.wanted.next() == Some(true) {
            recorder.kept.push((scores.to_vec(), result.0));
        }
        result
    })
}

/// The table with that entry, made of one of the machine's.
fn recording(base: &'static Kernels) -> &'static Kernels {
    static TABLES: OnceLock<Vec<Kernels>> = OnceLock::new();
    let make = || available().map(|kernels| Kernels { weights: weigh_and_record, ..*kernels }).collect();
    let tables = TABLES.get_or_init(make);
    let own = available().position(|kernels| std::ptr::eq(kernels, base)).unwrap_or(tables.len() - 1);
    &tables[own]
}

/// One row that a session computes.
#[derive(Clone, Copy)]
struct Place {
    layer: usize,
    head: usize,
    position: usize,
}

/// The rows of a fresh session that reads `length` tokens, in the order in which it computes them.
fn order(view: &ArtifactView<'_>, length: usize) -> Vec<Place> {
    let spec = view.spec();
    let attends = |layer: &usize| view.layer(*layer).block != Block::Conv as u8;
    let layers = || (0..spec.layers as usize).filter(attends);
    let of_layer = |layer: usize, positions: std::ops::Range<usize>| {
        let heads = view.layer(layer).heads as usize;
        positions.flat_map(move |position| (0..heads).map(move |head| Place { layer, head, position }))
    };
    if !spec.is_decoder() {
        return layers().flat_map(|layer| of_layer(layer, 0..length)).collect();
    }
    let chunk = (spec.chunk as usize).max(1);
    let chunks = (0..length).step_by(chunk).map(|start| start..(start + chunk).min(length));
    chunks.flat_map(|positions| layers().flat_map(move |layer| of_layer(layer, positions.clone()))).collect()
}

/// Output rows and attention of a sequence in a fresh session.
#[derive(Debug)]
pub struct Observed {
    /// Output rows in order: one for a classifier.
    pub outputs: Vec<Vec<f32>>,
    /// Rows of attention at the positions that were asked for, by position, layer and head.
    pub rows: Vec<Row>,
}

/// Runs a sequence and keeps the attention of the positions that `keep` names.
///
/// # Errors
/// [`SessionError`].
pub fn observe(
    view: &ArtifactView<'_>,
    tokens: &[u32],
    keep: &dyn Fn(usize) -> bool,
) -> Result<Observed, SessionError> {
    let base = kernels_for(view.layout());
    let order = order(view, tokens.len());
    let wanted: Vec<bool> = order.iter().map(|place| keep(place.position)).collect();
    let places: Vec<Place> = order.iter().copied().filter(|place| keep(place.position)).collect();
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, recording(base), memory.as_mut_slice())?;
    let recorder = Recorder { base: base.weights, wanted: wanted.into_iter(), kept: Vec::new(), calls: 0 };
    RECORDER.set(Some(recorder));
    let mut outputs = Vec::new();
    let done = session.run(tokens, &mut |_, row| outputs.push(row.to_vec()));
    let recorder = RECORDER.take();
    done?;
    let Some(recorder) = recorder else { return Ok(Observed { outputs, rows: Vec::new() }) };
    assert_eq!(recorder.calls, order.len(), "the session computed other rows of attention than its order says");
    let mut rows: Vec<Row> = places
        .into_iter()
        .zip(recorder.kept)
        .map(|(place, (scores, total))| row(view, place, tokens.len(), &scores, total))
        .collect();
    rows.sort_by_key(|row| (row.position, row.layer, row.head));
    Ok(Observed { outputs, rows })
}

/// A recorded row, its slots of the cache put in the order of positions.
fn row(view: &ArtifactView<'_>, place: Place, length: usize, scores: &[u32], total: u64) -> Row {
    let (spec, record) = (view.spec(), view.layer(place.layer));
    let Place { layer, head, position } = place;
    let seen = match spec.is_decoder() {
        true if record.window > 0 => (position + 1).saturating_sub(record.window as usize)..position + 1,
        true => 0..position + 1,
        false if record.window > 0 => {
            let window = record.window as usize;
            (position + 1).saturating_sub(window)..length.min(position.saturating_add(window))
        }
        false => 0..length,
    };
    let slots = slots(&record, spec.context as usize, spec.chunk as usize);
    // Where they wrap around the ring, the kernel was given all of its slots.
    let weights = if scores.len() == seen.len() && seen.start % slots + seen.len() <= slots {
        scores.to_vec()
    } else {
        seen.clone().map(|position| scores.get(position % slots).copied().unwrap_or(0)).collect()
    };
    Row { layer, head, position, first: seen.start, weights, total }
}

/// Positions that a layer's cache holds, as docs/format.md has it.
fn slots(layer: &LayerRecord, context: usize, chunk: usize) -> usize {
    let ring = LayerCacheFormat::from_number(layer.cache_format).is_some_and(LayerCacheFormat::is_ring);
    let held = (layer.window as usize).saturating_add(chunk).saturating_sub(1);
    if ring { context.min(held) } else { context }
}
