//! `--scheme auto` on a model: the checks before any work, then the search, then the finished model on the
//! runtime's integers.

use super::Allocator;
use super::database::Database;
use super::error::AllocationError;
use super::items::Items;
use super::probe::Probe;
use super::report::AllocationReport;
use super::widths::widen;
use crate::artifact::runner::ModelRunner;
use crate::model::id::LinearId;
use crate::model::scheme::Assignment;
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::budget::Budget;
use crate::quantize::calibration::{Calibration, CalibrationText, held_out};
use crate::quantize::policy::Keep;
use burn::tensor::Device;
use slm_runtime::layout::Layout;

/// Sequences that costs are measured on: 8,192 tokens of a decoder's windows.
const MEASURED_WINDOWS: usize = 32;
/// Texts that costs are measured on, of an encoder.
const MEASURED_TEXTS: usize = 200;

/// Items and a budget that something fits.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The items that bits are allocated to.
    pub items: Items,
    /// Most bytes of weights.
    pub budget: u64,
}

impl Plan {
    /// Makes every check that needs no work.
    ///
    /// # Errors
    /// [`AllocationError::Infeasible`] with the smallest budget that is feasible; patterns and pins that cannot be.
    pub fn new(
        spec: &ModelSpec,
        keeps: &[Keep],
        budget: Budget,
        sparsity: &Sparsity,
        (target, layout): (&str, Layout),
    ) -> Result<Self, AllocationError> {
        if let Budget::BitsPerWeight(bits) = budget
            && !(bits.is_finite() && bits > 0.0)
        {
            return Err(AllocationError::BitsPerWeight(bits));
        }
        let items = Items::of(spec, keeps, sparsity, layout)?;
        let parameters = spec.parameter_count();
        let (budget, smallest) = (budget.bytes(parameters), items.smallest_bytes());
        if smallest > budget {
            let fixed = items.fixed_bytes;
            let (target, pinned) = (target.to_owned(), !keeps.is_empty());
            return Err(AllocationError::Infeasible { budget, smallest, fixed, parameters, target, pinned });
        }
        Ok(Plan { items, budget })
    }
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
        crate::model::spec::ModelKind::Decoder => MEASURED_WINDOWS,
        crate::model::spec::ModelKind::Encoder => MEASURED_TEXTS,
    };
    let text = held_out(model, source, calibration, count, progress)?;
    Ok((Probe::new(model, &text.sequences, runner, device)?, text.description))
}

/// An assignment that was found, with the probe that measures the model made by it.
pub struct Found<'m> {
    /// Scheme of every matrix.
    pub assignment: Assignment,
    /// How it was found.
    pub report: AllocationReport,
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
        let (assignment, report) = allocator.allocate(plan.budget, progress)?;
        Ok(Found { assignment, report, probe })
    }

    /// Gives the model that was made 16-bit activations where they pay, except in linears whose width is `pinned`, measures
    /// it as an artifact, and completes the report.
    pub fn complete(
        mut self,
        plan: &Plan,
        pinned: &dyn Fn(LinearId) -> bool,
        quantized: &mut Model,
        layout: Layout,
        progress: &dyn Progress,
    ) -> Result<AllocationReport, AllocationError> {
        let widths = widen(&self.probe, &plan.items.items, pinned, quantized, layout, progress)?;
        self.report.artifact = Some(widths.after);
        self.report.activations = Some(widths);
        Ok(self.report)
    }
}
