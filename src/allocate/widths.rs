//! Which linears read 16-bit activations. The model that is about to be written is run as an artifact, with one item at a
//! time widened; the bytes stay, the time does not. An item is widened where it pays for itself: where its share of the
//! divergence is above its share of the time, by more than the error of the measurement.
//!
//! ```text
//! gain / D > SLOWDOWN · bytes of the item / bytes of all items,   D the divergence so far
//! ```
//!
//! Beside the items of the first pass the others are tried once more: D is smaller then, and the error with it, since what
//! the widened items added to every sample is gone.

use super::cost;
use super::error::AllocationError;
use super::items::Item;
use super::probe::{Probe, Samples};
use super::report::WidthReport;
use crate::divergence::{Sample, mean_and_error};
use crate::model::id::{LinearId, ParameterId};
use crate::model::scheme::Width;
use crate::model::weights::{Model, Parameter};
use crate::progress::Progress;

/// The time that 16-bit activations add to a product where weights come from the cache (docs/benchmarks.md, "16-bit
/// activations"); from memory it is less.
const SLOWDOWN: f64 = 0.6;
/// Items up to which each is tried; of larger models all items of a kind are tried together.
const MOST_TRIALS: usize = 64;
/// Passes through the items; one that widens none is the last.
const MOST_PASSES: usize = 2;

/// Widens items of `quantized` where it pays, and reports the trials. `pinned` are the linears whose widths were asked for.
///
/// # Errors
/// [`AllocationError`].
pub fn widen(
    probe: &Probe<'_>,
    items: &[Item],
    pinned: &dyn Fn(LinearId) -> bool,
    quantized: &mut Model,
    progress: &dyn Progress,
) -> Result<WidthReport, AllocationError> {
    let mut candidates = candidates(quantized, items, pinned);
    let all: u64 = items.iter().map(bytes).sum();
    progress.begin("measuring the artifact", 1, "variants");
    let mut now = probe.artifact(quantized)?;
    progress.finish();
    let mut report = WidthReport { before: cost(&now), after: cost(&now), tried: 0, widened: Vec::new() };
    for _ in 0..MOST_PASSES {
        progress.begin("measuring 16-bit activations", candidates.len() as u64, "variants");
        let (divergence, _) = mean_and_error(&now);
        let (mut taken, mut others) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let mut wide = quantized.clone();
            set(&mut wide, &candidate.linears);
            let (gain, error) = mean_and_error(&difference(&now, &probe.artifact(&wide)?));
            let price = SLOWDOWN * candidate.bytes as f64 / all.max(1) as f64 * divergence;
            let pays = gain - error.unwrap_or(0.0) > price;
            if pays { &mut taken } else { &mut others }.push(candidate);
            report.tried += 1;
            progress.advance(1);
        }
        progress.finish();
        if taken.is_empty() {
            break;
        }
        for candidate in taken {
            set(quantized, &candidate.linears);
            report.widened.push(candidate.name);
        }
        now = probe.artifact(quantized)?;
        report.after = cost(&now);
        candidates = others;
    }
    Ok(report)
}

/// What is widened together: an item, or of many items all of one kind.
struct Candidate {
    name: String,
    linears: Vec<LinearId>,
    bytes: u64,
}

fn bytes(item: &Item) -> u64 {
    item.codings.last().map_or(0, |coding| coding.bytes)
}

fn candidates(model: &Model, items: &[Item], pinned: &dyn Fn(LinearId) -> bool) -> Vec<Candidate> {
    let mut out: Vec<Candidate> = Vec::new();
    let free = |item: &&Item| item.members.iter().all(|id| model.spec.multiplies(*id) && !pinned(*id));
    let free: Vec<&Item> = items.iter().filter(free).collect();
    for item in &free {
        let kind = |name: &str| match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((_, kind)) if free.len() > MOST_TRIALS => format!("layers.*.{kind}"),
            _ => name.to_owned(),
        };
        let name = kind(&item.name);
        match out.iter_mut().find(|other| other.name == name) {
            Some(candidate) => {
                candidate.linears.extend(&item.members);
                candidate.bytes += bytes(item);
            }
            None => out.push(Candidate { name, linears: item.members.clone(), bytes: bytes(item) }),
        }
    }
    out
}

fn set(model: &mut Model, linears: &[LinearId]) {
    for id in linears {
        if let Some(Parameter::Quantized(matrix)) = model.parameters.get_mut(&ParameterId::weight(*id)) {
            matrix.activations = Width::Bits16;
        }
    }
}

/// By sample, `before` less `after`.
fn difference(before: &[Sample], after: &[Sample]) -> Samples {
    let pairs = before.iter().zip(after);
    pairs.map(|(before, after)| Sample { sum: before.sum - after.sum, count: before.count }).collect()
}
