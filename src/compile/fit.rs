//! Whether a model fits a device: flash for the file's device part; RAM for arena, key-value cache and stack. A model
//! that does not fit is reported with the limit, the bytes above it, and a context or scheme that would fit.

use super::emit::special_tokens_section;
use super::lower::{LowerError, Lowered, lower};
use super::residency::{self, ResidencyError, ResidencyPlan, Resident, Streaming};
use super::sections::SectionBytes;
use crate::model::scheme::Assignment;
use crate::model::size::{SizeError, stored_tensors};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::report::{Report, grouped};
use crate::target::Target;
use slm_runtime::format::artifact::GOLDEN_HEADER_BYTES;
use slm_runtime::format::header::{HEADER_BYTES, SectionKind};
use slm_runtime::format::sections::{SECTIONS, alignment};
use slm_runtime::format::spec::{LayerRecord, MAX_CHUNK, ModelRecord};
use slm_runtime::format::tensor::TensorRecord;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::plan::Plan;
use slm_runtime::session::{Extent, snapshot_bytes};
use std::fmt;

/// A limit of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Memory that holds the artifact.
    Flash,
    /// Memory that holds arena, cache and stack.
    Ram,
    /// Storage that an artifact is streamed from.
    Storage,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Flash => "flash",
            Limit::Ram => "RAM",
            Limit::Storage => "storage",
        })
    }
}

/// Bytes a compiled model takes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Footprint {
    /// Length of the file's device part.
    pub flash_bytes: u64,
    /// Activations and scratch.
    pub arena_bytes: u64,
    /// Keys and values at the context.
    pub cache_bytes: u64,
    /// Bound on the executor's stack.
    pub stack_bytes: u64,
    /// Logits of drafts, and the memory of a model that makes them; 0 where nothing drafts.
    #[serde(skip_serializing_if = "is_zero")]
    pub drafting_bytes: u64,
    /// What a streamed artifact has in RAM of the file; absent where weights are read where they lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<StreamingFootprint>,
    /// Positions planned for.
    pub context: usize,
    /// Tokens that go through a layer together.
    pub chunk: usize,
}

/// RAM of a streamed artifact beside arena, cache and stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StreamingFootprint {
    /// The device part without the weights: header page, records, tables of text.
    pub image_bytes: u64,
    /// Tensors that stay.
    pub resident_bytes: u64,
    /// Each of the two buffers.
    pub buffer_bytes: u64,
    /// Bytes that a token reads from the storage.
    pub bytes_per_token: u64,
    /// Bytes that could stay.
    #[serde(skip)]
    pub budget_bytes: u64,
}

impl StreamingFootprint {
    /// All of it.
    pub fn ram_bytes(&self) -> u64 {
        self.image_bytes + self.resident_bytes + 2 * self.buffer_bytes
    }
}

impl Footprint {
    /// Arena, cache, stack, what drafts take, and what a streamed artifact has in RAM of the file.
    pub fn ram_bytes(&self) -> u64 {
        let streaming = self.streaming.map_or(0, |streaming| streaming.ram_bytes());
        self.arena_bytes + self.cache_bytes + self.stack_bytes + self.drafting_bytes + streaming
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// A model that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DoesNotFit {
    /// The device.
    pub device: String,
    /// The limit it exceeds.
    pub limit: Limit,
    /// Bytes needed.
    pub needed_bytes: u64,
    /// Bytes available.
    pub available_bytes: u64,
    /// Context asked for.
    pub context: usize,
    /// The largest context that fits both limits, if any does: with these weights, or with `scheme`.
    pub largest_context: Option<usize>,
    /// The largest scheme that fits, where these weights fit at no context.
    pub scheme: Option<&'static str>,
    /// The most bytes of weights that may stay in RAM, where an artifact is streamed and fits with fewer of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_resident: Option<u64>,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DoesNotFit { device, limit, context, .. } = self;
        write!(
            f,
            "does not fit {device}: {limit} needs {} bytes at a context of {context}, {} are there, {} too many; ",
            grouped(self.needed_bytes),
            grouped(self.available_bytes),
            grouped(self.needed_bytes - self.available_bytes)
        )?;
        if let Some(resident) = self.largest_resident {
            return write!(f, "with --resident {resident} it fits");
        }
        match (self.scheme, self.largest_context) {
            (None, Some(largest)) => write!(f, "the largest context that fits is {largest} (--context {largest})"),
            (Some(scheme), Some(largest)) if largest < *context => {
                write!(f, "quantized with --scheme {scheme} it fits up to a context of {largest} (--context {largest})")
            }
            (Some(scheme), _) => write!(f, "quantized with --scheme {scheme} it fits"),
            (None, None) => write!(f, "no scheme and no context makes it fit"),
        }
    }
}

impl std::error::Error for DoesNotFit {}

impl Report for DoesNotFit {
    const SCHEMA: &'static str = "slmc.does-not-fit/1";

    fn text(&self) -> String {
        self.to_string()
    }
}

/// Everything that determines a model's bytes, except the weights themselves.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Scheme of every matrix.
    pub assignment: &'a Assignment,
    /// Pattern of every matrix that has one.
    pub sparsity: &'a Sparsity,
    /// Whether layers carry key maps.
    pub key_maps: bool,
    /// Whether a linear takes 16-bit activations.
    pub wide_activations: bool,
    /// Tokens of all golden prompts, and how many prompts.
    pub golden: (u64, u64),
    /// Sections for text.
    pub sections: SectionBytes,
}

/// Why a footprint cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The sizes of the tensors cannot be computed.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The specification cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The model does not fit the device.
    #[error(transparent)]
    DoesNotFit(#[from] Box<DoesNotFit>),
    /// Streaming it cannot be planned.
    #[error(transparent)]
    Residency(#[from] ResidencyError),
}

/// Bytes at `context` with `chunk` tokens together.
pub fn footprint(
    shape: &Shape<'_>,
    device: &Target,
    context: usize,
    chunk: usize,
) -> Result<(Footprint, Lowered), FitError> {
    let lowered =
        lower(shape.spec, context, chunk, shape.sections.asked.kv, shape.key_maps, shape.wide_activations, false)?;
    let tensors = stored_tensors(shape.spec, shape.assignment, shape.sparsity, device.layout, context, shape.key_maps)?;
    let weights: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let vocabulary = (shape.spec.vocabulary as u64 + 1) * 4 + shape.sections.vocabulary;
    let (golden_tokens, golden_prompts) = shape.golden;
    let special_tokens = special_tokens_section(&shape.spec.opening, &shape.spec.ends);
    let of_section = |kind: SectionKind, residency: Option<u64>| match kind {
        SectionKind::Spec => Some((ModelRecord::BYTES + lowered.layers.len() * LayerRecord::BYTES) as u64),
        SectionKind::Tensors => Some((tensors.len() * TensorRecord::BYTES) as u64),
        SectionKind::Functions => Some(lowered.functions.len() as u64),
        SectionKind::Weights => Some(weights),
        SectionKind::Vocabulary => Some(vocabulary),
        SectionKind::Golden => Some(GOLDEN_HEADER_BYTES as u64 + 4 * (golden_tokens + golden_prompts)),
        SectionKind::Text => shape.sections.text,
        SectionKind::SpecialTokens => special_tokens.as_ref().map(|section| section.len() as u64),
        SectionKind::ChatFrame => shape.sections.chat_frame,
        SectionKind::Sampling => shape.sections.sampling,
        SectionKind::Prefix => prefix_bytes(&lowered, shape.sections.asked.prefix_tokens),
        SectionKind::Residency => residency,
        other => shape.sections.asked.of(other),
    };
    // Length of the device part, and of its part with the weights that a streamed artifact leaves out of its RAM.
    let device_part = |residency: Option<u64>| {
        let (mut end, mut before, mut absent) = (HEADER_BYTES as u64, 0, 0);
        for section in SECTIONS.iter().filter(|section| !section.host) {
            if section.kind == SectionKind::Weights {
                before = end.next_multiple_of(ALIGNMENT as u64);
            }
            let bytes = of_section(section.kind, residency);
            if let Some(bytes) = bytes {
                end = end.next_multiple_of(alignment(section.kind as u32, device.page_bytes as u32)) + bytes;
            }
            if section.kind == SectionKind::Weights {
                absent = end - before;
            }
        }
        (end.next_multiple_of(ALIGNMENT as u64), absent)
    };
    let asked = &shape.sections.asked;
    let rows = Extent { workers: 1, rows: 1 + asked.drafts };
    let plan = Plan::new(&lowered.model, lowered.layers.iter().copied());
    let drafting = plan.and_then(|plan| plan.beyond(rows)).unwrap_or(0);
    let mut footprint = Footprint {
        drafting_bytes: drafting + asked.draft_memory,
        flash_bytes: 0,
        arena_bytes: lowered.model.arena_bytes,
        cache_bytes: lowered.model.cache_bytes,
        stack_bytes: lowered.model.stack_bytes,
        streaming: None,
        context,
        chunk: lowered.model.chunk as usize,
    };
    let mut residency = None;
    if let Some(asked) = asked.streaming {
        let layout = device.layout;
        let budget_bytes = match asked.resident {
            Resident::Bytes(bytes) => bytes,
            Resident::Least => residency::least_resident(&tensors, layout, shape.spec),
            Resident::Auto => {
                let ram = device.usable_ram_bytes();
                let ram = ram.ok_or_else(|| ResidencyError::NoRam { target: device.name.clone() })?;
                // At most: the larger of the buffers there could be, and an order with every tensor.
                let (end, absent) = device_part(Some(residency::section_bytes(tensors.len(), tensors.len())));
                let largest = residency::largest_buffer(&tensors, layout, shape.spec);
                let buffers = 2 * largest.max(asked.buffer_bytes.unwrap_or(0));
                let left = ram.saturating_sub(footprint.ram_bytes() + (end - absent) + buffers);
                left.max(residency::least_resident(&tensors, layout, shape.spec))
            }
        };
        let plan = residency::plan(&tensors, layout, shape.spec, &lowered, (budget_bytes, asked.buffer_bytes))?;
        residency = Some(plan.section_bytes());
        let (end, absent) = device_part(residency);
        footprint.streaming = Some(of_plan(&plan, end - absent, budget_bytes));
    }
    footprint.flash_bytes = device_part(residency).0;
    Ok((footprint, lowered))
}

fn of_plan(plan: &ResidencyPlan, image_bytes: u64, budget_bytes: u64) -> StreamingFootprint {
    StreamingFootprint {
        image_bytes,
        resident_bytes: plan.resident_bytes,
        buffer_bytes: plan.buffer_bytes,
        bytes_per_token: plan.bytes_per_token,
        budget_bytes,
    }
}

/// Bytes of the section with what sequences begin with.
fn prefix_bytes(lowered: &Lowered, tokens: usize) -> Option<u64> {
    let snapshot = || snapshot_bytes(&lowered.model, lowered.layers.iter().copied(), tokens);
    (tokens > 0).then(|| 4 + 4 * tokens as u64 + snapshot())
}

/// The limit a footprint breaks: (limit, needed, available).
fn broken(footprint: &Footprint, device: &Target) -> Option<(Limit, u64, u64)> {
    let over = |limit, needed, available: Option<u64>| {
        available.filter(|&available| needed > available).map(|available| (limit, needed, available))
    };
    let file = match (footprint.streaming, device.storage_bytes) {
        (Some(_), Some(bytes)) => over(Limit::Storage, footprint.flash_bytes, Some(bytes)),
        _ => over(Limit::Flash, footprint.flash_bytes, device.flash_bytes),
    };
    file.or_else(|| over(Limit::Ram, footprint.ram_bytes(), device.usable_ram_bytes()))
}

/// The footprint at `context` with the largest power-of-two chunk that fits the RAM.
fn with_largest_chunk(shape: &Shape<'_>, device: &Target, context: usize) -> Result<(Footprint, Lowered), FitError> {
    let mut chunk = MAX_CHUNK;
    loop {
        let result = footprint(shape, device, context, chunk)?;
        if chunk == 1 || !matches!(broken(&result.0, device), Some((Limit::Ram, ..))) {
            return Ok(result);
        }
        chunk /= 2;
    }
}

/// The footprint at `context` if it fits; [`FitError::DoesNotFit`] names a context or scheme that would.
pub fn fit(shape: &Shape<'_>, device: &Target, context: usize) -> Result<(Footprint, Lowered), FitError> {
    let result = with_largest_chunk(shape, device, context)?;
    let Some((limit, needed_bytes, available_bytes)) = broken(&result.0, device) else { return Ok(result) };
    // The largest context at which a shape fits, if it fits at all.
    let largest = |shape: &Shape<'_>| -> Result<Option<usize>, FitError> {
        let fits = |context| -> Result<bool, FitError> {
            Ok(broken(&with_largest_chunk(shape, device, context)?.0, device).is_none())
        };
        if fits(context)? {
            return Ok(Some(context));
        }
        if !fits(1)? {
            return Ok(None);
        }
        let (mut low, mut high) = (1, context);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle)? { low = middle } else { high = middle }
        }
        Ok(Some(low))
    };
    // With as few resident weights as there can be: how many more would fit, or at which context they do.
    let mut streamed = *shape;
    let mut largest_resident = None;
    if let Some(asked) = shape.sections.asked.streaming {
        streamed.sections.asked.streaming = Some(Streaming { resident: Resident::Least, ..asked });
        if limit == Limit::Ram && asked.resident != Resident::Least {
            let (least, _) = with_largest_chunk(&streamed, device, context)?;
            let resident = least.streaming.map_or(0, |streaming| streaming.resident_bytes);
            if broken(&least, device).is_none() {
                largest_resident = Some(resident + (available_bytes - least.ram_bytes()));
            }
        }
    }
    let shape = &streamed;
    let mut largest_context = largest(shape)?;
    let mut scheme = None;
    if largest_context.is_none() {
        for preset in crate::model::scheme::Preset::ALL {
            let assignment = preset.assign(shape.spec);
            largest_context = largest(&Shape { assignment: &assignment, ..*shape })?;
            if largest_context.is_some() {
                scheme = Some(preset.name());
                break;
            }
        }
    }
    Err(Box::new(DoesNotFit {
        device: device.name.clone(),
        limit,
        needed_bytes,
        available_bytes,
        context,
        largest_context,
        scheme,
        largest_resident,
    })
    .into())
}
