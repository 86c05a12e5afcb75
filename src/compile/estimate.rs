//! `slmc estimate`: memory and speed of a checkpoint on a device, from its headers alone. The ceiling of tokens per
//! second is the rate at which the weights one token needs can be read, or multiplied, whichever is lower; a real
//! device stays below it.

use super::emit::sampling_section;
use super::fit::{FitError, Limit, Shape, fit, footprint};
use super::lower::LowerError;
use crate::formats::{self, ModelFormatError, StorageRow};
use crate::model::companions::Companions;
use crate::model::generation;
use crate::model::id::{ParameterId, Part, Role};
use crate::model::scheme::{Assignment, Preset};
use crate::model::size::{SizeError, WeightSize, stored_tensors};
use crate::model::spec::{ModelKind, ModelSpec};
use crate::report::{Align, Report, Table, grouped};
use crate::target::Target;
use crate::text::chat_template::{ChatFrame, ChatTemplate};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use slm_runtime::format::spec::MAX_CHUNK;
use slm_runtime::kernels::VectorStorage;
use std::path::Path;

/// Known rates of a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Read bandwidth of the memory that holds the weights.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Multiply-accumulates per cycle of one core with 8-bit and with 4-bit weights.
    pub macs_per_cycle: Option<(Option<f64>, Option<f64>)>,
    /// Clock rate of one core.
    pub clock_hz: Option<u64>,
    /// Number of cores that share the work.
    pub cores: Option<u64>,
}

/// Estimate for one scheme.
#[derive(Clone, Debug, Serialize)]
pub struct SchemeEstimate {
    /// `w8`, `mixed`, `w4`, or `as quantized`.
    pub scheme: &'static str,
    /// Weights.
    #[serde(flatten)]
    pub size: WeightSize,
    /// The file's device part.
    pub flash_bytes: u64,
    /// Arena, cache and stack at the context.
    pub ram_bytes: u64,
    /// Whether both fit.
    pub fits: bool,
    /// The limit it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Bytes above that limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_bytes: Option<u64>,
    /// The largest context that fits, where the one asked for does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_context: Option<usize>,
    /// Weight bytes one token reads: linears and head whole, one row of each table.
    pub bytes_per_token: u64,
    /// Tokens per second that the memory allows, where its rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_tokens_per_s: Option<f64>,
    /// Tokens per second that the multipliers allow, where their rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_tokens_per_s: Option<f64>,
    /// The lower of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_tokens_per_s: Option<f64>,
}

/// Result of `slmc estimate`.
#[derive(Clone, Debug, Serialize)]
pub struct EstimateReport {
    /// `model_type`.
    pub family: &'static str,
    /// Target.
    pub target: String,
    /// Positions planned for.
    pub context: usize,
    /// Weights, a tied tensor once.
    pub parameters: u64,
    /// Multiply-accumulates per token in linears, head and convolutions.
    pub macs_per_token: u64,
    /// Matrices that are stored as 2:4.
    pub sparse_matrices: usize,
    /// How the weights are stored now, and what is exact; empty where the configuration says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StorageRow>,
    /// One row per scheme.
    pub schemes: Vec<SchemeEstimate>,
}

impl Report for EstimateReport {
    const SCHEMA: &'static str = "slmc.estimate/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("scheme", Align::Left),
            ("weight bytes", right),
            ("bits", right),
            ("flash", right),
            ("RAM", right),
            ("tokens/s at most", right),
            ("fits", Align::Left),
        ]);
        for row in &self.schemes {
            let verdict = match (row.limit, row.over_bytes, row.largest_context) {
                (Some(limit), Some(over), Some(context)) => {
                    format!("no: {limit} {} too many; context {context} fits", grouped(over))
                }
                (Some(limit), Some(over), None) => format!("no: {limit} {} too many", grouped(over)),
                _ => "yes".to_owned(),
            };
            table.row([
                row.scheme,
                &grouped(row.size.weight_bytes),
                &format!("{:.2}", row.size.bits_per_weight),
                &grouped(row.flash_bytes),
                &grouped(row.ram_bytes),
                &row.ceiling_tokens_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                &verdict,
            ]);
        }
        let mut facts = Table::pairs();
        facts.row(["model", &format!("{}, {} parameters", self.family, grouped(self.parameters))]);
        facts.row(["target", &self.target]);
        facts.row(["context", &self.context.to_string()]);
        facts.row(["MACs per token", &grouped(self.macs_per_token)]);
        if self.sparse_matrices > 0 {
            facts.row(["2:4 matrices", &self.sparse_matrices.to_string()]);
        }
        let stored = StorageRow::table(&self.stored).map_or_else(String::new, |table| format!("{table}\n\n"));
        format!("{facts}\n\n{stored}{table}")
    }
}

/// Why estimating failed.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] ModelFormatError),
    /// The sizes of its tensors cannot be computed.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Its specification cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The context is 0 or longer than the model's.
    #[error(
        "a context of {context} is not possible: the model knows positions up to {limit}; pass --context 1 to {limit}"
    )]
    Context {
        /// Asked for.
        context: usize,
        /// The model's maximum.
        limit: usize,
    },
}

/// Bytes of an artifact's sections that come from the files beside a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompanionBytes {
    /// Texts of all tokens, four bytes each where there is no tokenizer.
    pub vocabulary: u64,
    /// Tables that turn text into tokens, where the device has them.
    pub text: Option<u64>,
    /// Fixed texts around a conversation's messages, where the device has them.
    pub chat_frame: Option<u64>,
    /// Defaults of sampling, where there are any.
    pub sampling: Option<u64>,
}

impl CompanionBytes {
    /// Of the files of a model.
    ///
    /// # Errors
    /// A generation_config.json that cannot be used.
    pub fn of(companions: &Companions, spec: &ModelSpec) -> Result<Self, ModelFormatError> {
        let tokenizer = Tokenizer::of(companions).ok();
        let text = tokenizer.as_ref().and_then(|tokenizer| Some(tokenizer.device_text().ok()?.len() as u64));
        let template = (spec.kind == ModelKind::Decoder).then(|| ChatTemplate::of(companions).ok().flatten());
        let frame = template.flatten().and_then(|template| ChatFrame::of(&template).ok());
        let chat_frame = frame.zip(tokenizer.as_ref()).and_then(|(frame, tokenizer)| {
            Some(frame.with_tokens(tokenizer, spec.vocabulary).ok()?.to_section().len() as u64)
        });
        let generation = (spec.kind == ModelKind::Decoder).then(|| generation::read(companions)).transpose();
        let sampling = generation.map_err(ModelFormatError::from)?.and_then(|read| sampling_section(&read.sampling));
        let vocabulary = tokenizer
            .and_then(|tokenizer| tokenizer.vocabulary_bytes(spec.vocabulary).ok())
            .map_or(4 * spec.vocabulary as u64, |tokens| tokens.iter().map(|token| token.len() as u64).sum());
        Ok(CompanionBytes { vocabulary, text, chat_frame, sampling: sampling.map(|section| section.len() as u64) })
    }
}

/// Estimates a directory, dense or quantized.
pub fn estimate(
    path: &Path,
    device: &Target,
    rates: &Rates,
    context: Option<usize>,
) -> Result<EstimateReport, EstimateError> {
    let source = formats::open(path)?;
    let outline = source.outline();
    let spec = &outline.spec;
    let limit = spec.context;
    let context = context.unwrap_or(spec.text_context());
    if context == 0 || context > limit {
        return Err(EstimateError::Context { context, limit });
    }
    let companions = CompanionBytes::of(&outline.companions, spec)?;
    // A dense directory's sparsity as slmc.json states it; `quantize` checks it.
    let sparsity = source.recorded_sparsity().map_err(ModelFormatError::from)?;
    let assignments: Vec<(&'static str, Assignment)> = match &outline.schemes {
        Some(schemes) => vec![("as quantized", schemes.clone())],
        None => Preset::ALL.into_iter().map(|preset| (preset.name(), preset.assign(spec))).collect(),
    };
    // Key maps are part of every quantized decoder and encoder; a dense directory will have them once quantized.
    let key_maps = outline.key_maps || outline.schemes.is_none();
    let macs_per_token = macs_per_token(spec);
    let wide_activations = !outline.activations.is_empty();
    let golden = super::golden_size(spec, context);
    let mut schemes = Vec::new();
    for (scheme, assignment) in &assignments {
        let shape = Shape {
            spec,
            assignment,
            sparsity: &sparsity,
            key_maps,
            wide_activations,
            vocabulary_bytes: companions.vocabulary,
            golden,
            text_bytes: companions.text,
            chat_frame_bytes: companions.chat_frame,
            sampling_bytes: companions.sampling,
        };
        schemes.push(row(scheme, &shape, device, rates, context)?);
    }
    Ok(EstimateReport {
        family: spec.family,
        target: device.name.clone(),
        context,
        parameters: spec.parameter_count(),
        macs_per_token,
        stored: source.storage(),
        sparse_matrices: sparsity.values().filter(|pattern| pattern.is_two_of_four()).count(),
        schemes,
    })
}

/// Multiply-accumulates of one token in linears, head and the kernels of convolutions.
pub fn macs_per_token(spec: &ModelSpec) -> u64 {
    let multiplied = |id: ParameterId| match id {
        ParameterId::Linear(id, Part::Weight) => spec.multiplies(id),
        ParameterId::Kernel(_, Part::Weight) => true,
        _ => false,
    };
    let parameters = spec.parameters().into_iter().filter(|parameter| multiplied(parameter.id));
    parameters.map(|parameter| parameter.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
}

fn row(
    scheme: &'static str,
    shape: &Shape<'_>,
    device: &Target,
    rates: &Rates,
    context: usize,
) -> Result<SchemeEstimate, EstimateError> {
    let spec = shape.spec;
    let tensors = stored_tensors(spec, shape.assignment, shape.sparsity, device.layout, context, shape.key_maps)?;
    let (mut bytes_per_token, mut cycles) = (0u64, Some(0.0f64));
    for tensor in &tensors {
        let ParameterId::Linear(id, Part::Weight) = tensor.id else {
            bytes_per_token += tensor.bytes;
            continue;
        };
        // Tables are looked up, one row a token.
        if !spec.multiplies(id) {
            // The mean row of a split table.
            let rows = if id.role == Role::TokenEmbedding { spec.vocabulary } else { tensor.rows };
            bytes_per_token += tensor.bytes / rows as u64;
            continue;
        }
        bytes_per_token += tensor.bytes;
        let rate = rates.macs_per_cycle.and_then(|(w8, w4)| match VectorStorage::of(tensor.storage)? {
            VectorStorage::W8 | VectorStorage::W8S24 => w8,
            VectorStorage::W4G32 | VectorStorage::W4G32S24 => w4,
        });
        cycles = cycles.zip(rate).map(|(sum, rate)| sum + (tensor.rows * tensor.columns) as f64 / rate);
    }
    // An encoder reads its weights once a sequence, not once a token: no ceiling of this kind.
    let decoder = spec.kind == ModelKind::Decoder;
    let memory_tokens_per_s =
        rates.bandwidth_bytes_per_s.filter(|_| decoder).map(|bandwidth| bandwidth as f64 / bytes_per_token as f64);
    let compute_tokens_per_s = cycles
        .zip(rates.clock_hz)
        .filter(|&(cycles, _)| decoder && cycles > 0.0)
        .map(|(cycles, clock)| clock as f64 * rates.cores.unwrap_or(1) as f64 / cycles);
    let ceiling_tokens_per_s = match (memory_tokens_per_s, compute_tokens_per_s) {
        (Some(memory), Some(compute)) => Some(memory.min(compute)),
        (memory, compute) => memory.or(compute),
    };
    let mut estimate = SchemeEstimate {
        scheme,
        size: WeightSize::of(spec, &tensors),
        flash_bytes: 0,
        ram_bytes: 0,
        fits: true,
        limit: None,
        over_bytes: None,
        largest_context: None,
        bytes_per_token,
        memory_tokens_per_s,
        compute_tokens_per_s,
        ceiling_tokens_per_s,
    };
    let footprint = match fit(shape, device, context) {
        Ok((footprint, _)) => footprint,
        Err(FitError::DoesNotFit(answer)) => {
            estimate.fits = false;
            estimate.limit = Some(answer.limit);
            estimate.over_bytes = Some(answer.needed_bytes - answer.available_bytes);
            // A context with another scheme belongs to that scheme's own row.
            estimate.largest_context = answer.largest_context.filter(|_| answer.scheme.is_none());
            let chunk = if answer.limit == Limit::Ram { 1 } else { MAX_CHUNK };
            footprint(shape, device, context, chunk).map_err(refused)?.0
        }
        Err(error) => return Err(refused(error)),
    };
    estimate.flash_bytes = footprint.flash_bytes;
    estimate.ram_bytes = footprint.ram_bytes();
    Ok(estimate)
}

/// The errors of fitting except "does not fit", which is a result here.
fn refused(error: FitError) -> EstimateError {
    match error {
        FitError::Size(error) => error.into(),
        FitError::Lower(error) => error.into(),
        FitError::DoesNotFit(answer) => EstimateError::Lower(LowerError::Plan { context: answer.context }),
    }
}
