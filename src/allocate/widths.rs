//! Which linears read 16-bit activations. The model that is about to be written is run as an artifact, with one item at a
//! time widened; the bytes stay, the time does not. An item is widened where it pays for itself: where its share of the
//! divergence is above its share of the time, by more than the error of the measurement.
//!
//! ```text
//! gain / D > SLOWDOWN · bytes of the item / bytes of all items,   D the divergence with 8-bit activations throughout
//! ```

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
    let candidates = candidates(quantized, items, pinned);
    progress.begin("measuring 16-bit activations", candidates.len() as u64 + 1, "variants");
    let narrow = probe.artifact(quantized)?;
    progress.advance(1);
    let all: u64 = items.iter().map(bytes).sum();
    let (divergence, _) = mean_and_error(&narrow);
    let mut report =
        WidthReport { before: cost(&narrow), after: cost(&narrow), tried: candidates.len(), widened: Vec::new() };
    let mut widened = Vec::new();
    for (name, members, bytes) in candidates {
        let mut wide = quantized.clone();
        set(&mut wide, &members);
        let gain = difference(&narrow, &probe.artifact(&wide)?);
        let (gain, error) = mean_and_error(&gain);
        let price = SLOWDOWN * bytes as f64 / all.max(1) as f64 * divergence;
        if gain - error.unwrap_or(0.0) > price {
            report.widened.push(name);
            widened.extend(members);
        }
        progress.advance(1);
    }
    progress.finish();
    if !widened.is_empty() {
        set(quantized, &widened);
        report.after = cost(&probe.artifact(quantized)?);
    }
    Ok(report)
}

fn bytes(item: &Item) -> u64 {
    item.codings.last().map_or(0, |coding| coding.bytes)
}

/// Name, linears and bytes of each candidate: an item, or of many items all of one kind.
fn candidates(model: &Model, items: &[Item], pinned: &dyn Fn(LinearId) -> bool) -> Vec<(String, Vec<LinearId>, u64)> {
    let mut out: Vec<(String, Vec<LinearId>, u64)> = Vec::new();
    let free = |item: &&Item| item.members.iter().all(|id| model.spec.multiplies(*id) && !pinned(*id));
    let free: Vec<&Item> = items.iter().filter(free).collect();
    for item in &free {
        let kind = |name: &str| match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((_, kind)) if free.len() > MOST_TRIALS => format!("layers.*.{kind}"),
            _ => name.to_owned(),
        };
        let name = kind(&item.name);
        match out.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, members, sum)) => {
                members.extend(&item.members);
                *sum += bytes(item);
            }
            None => out.push((name, item.members.clone(), bytes(item))),
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
