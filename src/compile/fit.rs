//! Whether a model fits a device: flash for the file's device part; RAM for arena, key-value cache and stack. A model
//! that does not fit is reported with the limit, the bytes above it, and a context or scheme that would fit.

use super::emit::special_tokens_section;
use super::lower::{LowerError, Lowered, lower};
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
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Flash => "flash",
            Limit::Ram => "RAM",
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
    /// Positions planned for.
    pub context: usize,
    /// Tokens that go through a layer together.
    pub chunk: usize,
}

impl Footprint {
    /// Arena, cache, stack and what drafts take.
    pub fn ram_bytes(&self) -> u64 {
        self.arena_bytes + self.cache_bytes + self.stack_bytes + self.drafting_bytes
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
    let mut end = HEADER_BYTES as u64;
    for section in SECTIONS.iter().filter(|section| !section.host) {
        let bytes = match section.kind {
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
            other => shape.sections.asked.of(other),
        };
        if let Some(bytes) = bytes {
            end = end.next_multiple_of(alignment(section.kind as u32, device.page_bytes as u32)) + bytes;
        }
    }
    let asked = &shape.sections.asked;
    let rows = Extent { workers: 1, rows: 1 + asked.drafts };
    let plan = Plan::new(&lowered.model, lowered.layers.iter().copied());
    let drafting = plan.and_then(|plan| plan.beyond(rows)).unwrap_or(0);
    let footprint = Footprint {
        drafting_bytes: drafting + asked.draft_memory,
        flash_bytes: end.next_multiple_of(ALIGNMENT as u64),
        arena_bytes: lowered.model.arena_bytes,
        cache_bytes: lowered.model.cache_bytes,
        stack_bytes: lowered.model.stack_bytes,
        context,
        chunk: lowered.model.chunk as usize,
    };
    Ok((footprint, lowered))
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
    over(Limit::Flash, footprint.flash_bytes, device.flash_bytes)
        .or_else(|| over(Limit::Ram, footprint.ram_bytes(), device.usable_ram_bytes()))
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
    })
    .into())
}
