//! Which layers a shallower student keeps. Of up to [`MEASURED`] layers by measurement: every run of neighbouring layers that
//! could be left out, and layers left out one after the other, each time the one whose absence costs least; the set of the
//! least divergence is kept. Of more layers by how little a layer turns the residual stream, 1 − cos of its input and output.

use super::ShrinkError;
use super::measure::Bench;
use crate::disk::ConfigError;
use crate::progress::Progress;
use crate::train::start::StartError;
use std::collections::BTreeMap;

/// Most layers whose removal is measured.
pub const MEASURED: usize = 12;

/// Layers of a teacher by how many are kept, with the divergence of keeping them where it was measured.
pub type Kept = BTreeMap<usize, (Vec<usize>, Option<f64>)>;

/// The layers that students of every depth from `least` on keep.
///
/// # Errors
/// [`ShrinkError`].
pub fn choose(bench: &Bench<'_>, least: usize, progress: &dyn Progress) -> Result<Kept, ShrinkError> {
    let layers = bench.teacher.spec.layers.len();
    let all: Vec<usize> = (0..layers).collect();
    let mut kept = Kept::from([(layers, (all.clone(), Some(0.0)))]);
    if least >= layers {
        return Ok(kept);
    }
    if layers > MEASURED {
        return by_turn(bench, kept, least);
    }
    progress.begin("choosing layers", (layers - least) as u64, "depths");
    let mut chain = all;
    for count in (least..layers).rev() {
        let mut best: Option<(Vec<usize>, f64)> = None;
        let shorter = (0..chain.len()).map(|place| {
            let mut rest = chain.clone();
            rest.remove(place);
            rest
        });
        let mut next = consider(bench, shorter, None)?;
        if let Some((chosen, cost)) = next.take() {
            chain.clone_from(&chosen);
            best = Some((chosen, cost));
        }
        let out = layers - count;
        let runs = (0..=layers - out).map(|first| (0..first).chain(first + out..layers).collect::<Vec<usize>>());
        best = consider(bench, runs, best)?;
        if let Some((chosen, cost)) = best {
            kept.insert(count, (chosen, Some(cost)));
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(kept)
}

/// The set of the least divergence; sets whose layers would not be what they were are left out.
fn consider(
    bench: &Bench<'_>,
    sets: impl Iterator<Item = Vec<usize>>,
    best: Option<(Vec<usize>, f64)>,
) -> Result<Option<(Vec<usize>, f64)>, ShrinkError> {
    let mut best = best;
    for set in sets.filter(|set| !set.is_empty()) {
        let cost = match bench.without(&set) {
            Ok(cost) => cost,
            Err(ShrinkError::Start(StartError::Config(ConfigError::Layer { .. }))) => continue,
            Err(error) => return Err(error),
        };
        if best.as_ref().is_none_or(|(_, least)| cost < *least) {
            best = Some((set, cost));
        }
    }
    Ok(best)
}

/// Layers left out in the order of how little they turn the stream; the first and the last stay to the end.
fn by_turn(bench: &Bench<'_>, mut kept: Kept, least: usize) -> Result<Kept, ShrinkError> {
    let layers = bench.importance.layers.len();
    let turn = |layer: usize| bench.importance.layers[layer].turn;
    let mut order: Vec<usize> = (1..layers - 1).collect();
    order.sort_by(|&a, &b| turn(a).total_cmp(&turn(b)).then(a.cmp(&b)));
    order.extend([0, layers - 1]);
    for count in least..layers {
        let out = &order[..layers - count];
        let set: Vec<usize> = (0..layers).filter(|layer| !out.contains(layer)).collect();
        kept.insert(count, (set, None));
    }
    Ok(kept)
}
