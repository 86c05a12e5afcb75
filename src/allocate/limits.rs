//! The bounds of an allocation as numbers that selections have: bytes of weights, and the time of a token. Memory on a target
//! becomes bytes of weights by the plan that `compile` makes: what a session needs does not depend on the schemes, and the
//! artifact lies in RAM too where the target has no flash.

use super::error::AllocationError;
use super::items::{Coding, Item, Items};
use super::report::TargetPlan;
use crate::compile::fit::{FitError, Footprint, Shape, fit, footprint};
use crate::compile::golden_size;
use crate::compile::sections::SectionBytes;
use crate::model::scheme::{Assignment, QuantScheme};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::quantize::budget::Bounds;
use crate::target::{PER_MILLISECOND, Target};
use slm_runtime::layout::ALIGNMENT;

/// What every selection that is tried keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of weights.
    pub bytes: u64,
    /// Most picoseconds of a token.
    pub time: Option<u64>,
    /// Whether linears may be given 16-bit activations afterwards, which take memory and time.
    pub wide: bool,
}

/// A target on which memory or time is bounded.
#[derive(Clone, Debug)]
pub(super) struct OnTarget {
    target: Target,
    bounds: Bounds,
    context: usize,
    sections: SectionBytes,
    sparsity: Sparsity,
}

impl OnTarget {
    pub(super) fn new(
        spec: &ModelSpec,
        bounds: Bounds,
        target: &Target,
        sections: SectionBytes,
        sparsity: &Sparsity,
    ) -> Self {
        let context = bounds.context.unwrap_or(spec.text_context());
        OnTarget { target: target.clone(), bounds, context, sections, sparsity: sparsity.clone() }
    }

    fn shape<'s>(&'s self, spec: &'s ModelSpec, assignment: &'s Assignment, wide: bool) -> Shape<'s> {
        Shape {
            spec,
            assignment,
            sparsity: &self.sparsity,
            key_maps: true,
            wide_activations: wide,
            golden: golden_size(spec, self.context),
            sections: self.sections,
        }
    }

    /// The plan of an assignment, as `compile` makes it.
    fn plan(&self, spec: &ModelSpec, assignment: &Assignment, wide: bool) -> Result<Footprint, FitError> {
        Ok(fit(&self.shape(spec, assignment, wide), &self.target, self.context)?.0)
    }

    /// The part of a plan that lies in RAM: all of it where there is no flash.
    fn ram_bytes(&self, plan: &Footprint) -> u64 {
        plan.ram_bytes() + if self.target.flash_bytes.is_none() { plan.flash_bytes } else { 0 }
    }

    /// Lowers the limits to those of the target's memory; `wide` where 16-bit activations are asked for.
    ///
    /// # Errors
    /// [`AllocationError::Ram`], or a model that fits the target in no allocation.
    pub(super) fn limit(
        &self,
        spec: &ModelSpec,
        items: &Items,
        wide: bool,
        limits: &mut Limits,
    ) -> Result<(), AllocationError> {
        let least = items.least(|coding| coding.bytes);
        let smallest = items.assignment(&least);
        let plan = self.plan(spec, &smallest, wide)?;
        // Tables in two parts have more records: whatever is chosen, nothing beside the weights takes more.
        let in_parts = |coding: &Coding| u64::from(!matches!(coding.scheme, QuantScheme::Split { .. }));
        let parts = items.least(in_parts);
        let shape = items.assignment(&parts);
        let (of_parts, _) = footprint(&self.shape(spec, &shape, wide), &self.target, self.context, plan.chunk)?;
        let beside = plan.flash_bytes.saturating_sub(items.bytes(&least));
        let beside = beside.max(of_parts.flash_bytes.saturating_sub(items.bytes(&parts))) + ALIGNMENT as u64;
        if let Some(ram) = self.bounds.ram {
            let smallest_ram = self.ram_bytes(&plan);
            if smallest_ram > ram {
                return Err(AllocationError::Ram {
                    ram,
                    smallest: smallest_ram,
                    plan: plan.ram_bytes(),
                    artifact: smallest_ram - plan.ram_bytes(),
                    target: self.target.name.clone(),
                    context: self.context,
                });
            }
            let mut session = plan.ram_bytes();
            if !wide && limits.wide {
                let widened = self.plan(spec, &smallest, true);
                let widened = widened.ok().filter(|plan| self.ram_bytes(plan) + ALIGNMENT as u64 <= ram);
                limits.wide = widened.is_some();
                session = widened.map_or(session, |plan| plan.ram_bytes());
            }
            if self.target.flash_bytes.is_none() {
                limits.bytes = limits.bytes.min(ram.saturating_sub(session + beside));
            }
        }
        if let Some(flash) = self.target.flash_bytes {
            limits.bytes = limits.bytes.min(flash.saturating_sub(beside));
        }
        // The smallest was planned as it is.
        limits.bytes = limits.bytes.max(items.bytes(&least));
        Ok(())
    }

    /// What an assignment takes.
    ///
    /// # Errors
    /// [`FitError`]; none of one that keeps the limits.
    pub(super) fn report(
        &self,
        spec: &ModelSpec,
        assignment: &Assignment,
        wide: bool,
        picoseconds: u64,
    ) -> Result<TargetPlan, FitError> {
        let plan = self.plan(spec, assignment, wide)?;
        Ok(TargetPlan {
            context: self.context,
            ram_bytes: self.ram_bytes(&plan),
            ram_limit_bytes: self.bounds.ram,
            latency_ms: self.bounds.latency_ms.map(|_| picoseconds as f64 / PER_MILLISECOND),
            latency_limit_ms: self.bounds.latency_ms,
        })
    }
}

/// Most bytes of any allocation.
pub(super) fn largest_bytes(items: &Items) -> u64 {
    let largest = |item: &Item| item.codings.iter().map(|coding| coding.bytes).max().unwrap_or(0);
    items.fixed_bytes + items.items.iter().map(largest).sum::<u64>()
}
