//! `--scheme auto` on a model: the checks before any work, then the search, then the finished model on the
//! runtime's integers.

use super::Allocator;
use super::database::Database;
use super::error::AllocationError;
use super::items::{Coding, Items};
use super::knapsack::{Choice, Frontier};
use super::limits::{Limits, OnTarget, largest_bytes};
use super::probe::Probe;
use super::report::AllocationReport;
use super::widths::widen;
use crate::artifact::runner::ModelRunner;
use crate::compile::sections::SectionBytes;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::scheme::{Assignment, Width};
use crate::model::size::StoredTensor;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::model::transform::Sparsity;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::budget::{Bounds, Budget};
use crate::quantize::calibration::{Calibration, CalibrationText, held_out};
use crate::quantize::policy::Keep;
use crate::target::{PER_MILLISECOND, Pace, Target};
use burn::tensor::Device;
use std::collections::BTreeMap;

/// Sequences that costs are measured on: 8,192 tokens of a decoder's windows.
const MEASURED_WINDOWS: usize = 32;
/// Texts that costs are measured on, of an encoder.
const MEASURED_TEXTS: usize = 200;

/// What schemes are to be allocated for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Matrices that are pinned.
    pub keeps: &'a [Keep],
    /// What bounds the allocation.
    pub bounds: Bounds,
    /// Patterns of sparse matrices.
    pub sparsity: &'a Sparsity,
    /// Linears whose inputs are wider than 8 bits.
    pub widths: &'a BTreeMap<LinearId, Width>,
    /// The device that sizes and times are for.
    pub target: &'a Target,
    /// Sections of the artifact beside the weights.
    pub sections: SectionBytes,
}

/// Items, and limits that something keeps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The items that bits are allocated to.
    pub items: Items,
    /// What every selection keeps.
    pub limits: Limits,
    on_target: Option<OnTarget>,
}

impl Plan {
    /// Makes every check that needs no work.
    ///
    /// # Errors
    /// Bounds that nothing keeps, with the least that can be kept; patterns and pins that cannot be.
    pub fn new(asked: &Asked<'_>) -> Result<Self, AllocationError> {
        let Asked { spec, keeps, bounds, sparsity, widths, target, sections } = *asked;
        if let Some(Budget::BitsPerWeight(bits)) = bounds.budget
            && !(bits.is_finite() && bits > 0.0)
        {
            return Err(AllocationError::BitsPerWeight(bits));
        }
        let pace = bounds.latency_ms.map(|latency| pace(latency, spec, target)).transpose()?;
        let passes = |tensor: &StoredTensor| match tensor.id {
            ParameterId::Linear(id, Part::Weight) if widths.contains_key(&id) => 2,
            _ => 1,
        };
        let time = |tensor: &StoredTensor| pace.map_or(0, |pace| pace.picoseconds(spec, tensor, passes(tensor)));
        let items = Items::of(spec, keeps, sparsity, target.layout, &time)?;
        let (parameters, smallest) = (spec.parameter_count(), items.smallest_bytes());
        let bytes = bounds.budget.map_or(largest_bytes(&items), |budget| budget.bytes(parameters));
        let pinned = !keeps.is_empty();
        if smallest > bytes {
            let (budget, fixed, target) = (bytes, items.fixed_bytes, target.name.clone());
            return Err(AllocationError::Infeasible { budget, smallest, fixed, parameters, target, pinned });
        }
        let mut limits = Limits { bytes, time: None, wide: true };
        if let Some(latency) = bounds.latency_ms {
            let (most, least) = ((latency * PER_MILLISECOND) as u64, items.least_time());
            if least > most {
                let (least, target) = (least as f64 / PER_MILLISECOND, target.name.clone());
                return Err(AllocationError::Latency { latency, least, target, pinned });
            }
            (limits.time, limits.wide) = (Some(most), false);
        }
        let on_target = bounds.of_target().then(|| OnTarget::new(spec, bounds, target, sections, sparsity));
        if let Some(on_target) = &on_target {
            on_target.limit(spec, &items, !widths.is_empty(), &mut limits)?;
        }
        match limits.time.is_none_or(|time| possible(&items, limits.bytes, time)) {
            true => Ok(Plan { items, limits, on_target }),
            false => Err(AllocationError::Both),
        }
    }
}

/// The rates of a target, for a time that can be asked for.
fn pace(latency: f64, spec: &ModelSpec, target: &Target) -> Result<Pace, AllocationError> {
    if !(latency.is_finite() && latency > 0.0) {
        return Err(AllocationError::NoTime(latency));
    }
    if spec.kind != ModelKind::Decoder {
        return Err(AllocationError::EncoderLatency);
    }
    target.pace().ok_or_else(|| AllocationError::NoPace(target.name.clone()))
}

/// Whether some selection keeps both limits.
fn possible(items: &Items, bytes: u64, time: u64) -> bool {
    let choice = |coding: &Coding| Choice { bytes: coding.bytes, time: coding.time, cost: 0.0 };
    let choices = items.items.iter().map(|item| item.codings.iter().map(choice).collect());
    let (bytes, time) = (bytes.saturating_sub(items.fixed_bytes), time.saturating_sub(items.fixed_time));
    Frontier::new(&choices.collect::<Vec<_>>()).best_within(bytes, time).is_some()
}

/// The probe of a model, and the name of the text it measures on.
pub fn probe<'m>(
    model: &'m Model,
    source: &CalibrationText,
    calibration: &Calibration,
    runner: &'m dyn ModelRunner,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(Probe<'m>, String), AllocationError> {
    let count = match model.spec.kind {
        ModelKind::Decoder => MEASURED_WINDOWS,
        ModelKind::Encoder | ModelKind::EncoderDecoder(_) => MEASURED_TEXTS,
    };
    let text = held_out(model, source, calibration, count, progress)?;
    progress.begin("running the original", 1, "models");
    let probe = Probe::new(model, &text.sequences, runner, device)?;
    progress.finish();
    Ok((probe, text.description))
}

/// An assignment that was found, with the probe that measures the model made by it.
pub struct Found<'m> {
    /// Scheme of every matrix.
    pub assignment: Assignment,
    /// How it was found.
    pub report: AllocationReport,
    /// Picoseconds of a token with it.
    time: u64,
    probe: Probe<'m>,
}

impl<'m> Found<'m> {
    /// Searches. `database` holds every matrix in every coding of the plan's items.
    #[expect(clippy::too_many_arguments, reason = "the inputs of one command, each used once")]
    pub fn search(
        plan: &Plan,
        model: &'m Model,
        source: &CalibrationText,
        calibration: &Calibration,
        database: &Database,
        seed: u64,
        runner: &'m dyn ModelRunner,
        device: &Device,
        progress: &dyn Progress,
    ) -> Result<Self, AllocationError> {
        let (probe, measured_on) = probe(model, source, calibration, runner, device, progress)?;
        let items = &plan.items;
        let allocator =
            Allocator { model, items, calibration, probe: &probe, measured_on: &measured_on, database, seed, device };
        let (selection, report) = allocator.allocate(&plan.limits, progress)?;
        let (assignment, time) = (items.assignment(&selection), items.time(&selection));
        Ok(Found { assignment, report, time, probe })
    }

    /// Gives the model that was made 16-bit activations where they pay and the limits leave them room, except in linears whose
    /// width is `pinned`, measures it as an artifact, and completes the report.
    pub fn complete(
        mut self,
        plan: &Plan,
        pinned: &dyn Fn(LinearId) -> bool,
        quantized: &mut Model,
        progress: &dyn Progress,
    ) -> Result<AllocationReport, AllocationError> {
        let pinned = |id| !plan.limits.wide || pinned(id);
        let widths = widen(&self.probe, &plan.items.items, &pinned, quantized, progress)?;
        if let Some(on_target) = &plan.on_target {
            let wide = !quantized.activations().is_empty();
            self.report.plan = Some(on_target.report(&quantized.spec, &self.assignment, wide, self.time)?);
        }
        self.report.artifact = Some(widths.after);
        self.report.activations = Some(widths);
        Ok(self.report)
    }
}
