//! `slmc estimate`: memory and speed of a checkpoint on a device, from its headers alone. The ceiling of tokens per
//! second is the rate at which the weights one token needs can be read, or multiplied, whichever is lower; a real
//! device stays below it.

use super::fit::{FitError, Limit, Shape, StreamingFootprint, fit, footprint};
use super::lower::LowerError;
use super::residency::{ResidencyError, Streaming};
use super::sections::SectionBytes;
use crate::formats::{self, ModelFormatError, StorageRow};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::scheme::{Assignment, Preset, QuantScheme};
use crate::model::size::{SizeError, WeightSize, stored_tensors};
use crate::model::spec::{ModelKind, ModelSpec, ParameterShape};
use crate::report::{Align, Report, Table, grouped};
use crate::target::{MacsPerCycle, Target};
use serde::Serialize;
use slm_runtime::format::spec::MAX_CHUNK;
use slm_runtime::kernels::VectorStorage;
use std::path::Path;

/// Known rates of a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Read bandwidth of the memory that holds the weights.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Multiply-accumulates per cycle of one core.
    pub macs_per_cycle: Option<MacsPerCycle>,
    /// Clock rate of one core.
    pub clock_hz: Option<u64>,
    /// Number of cores that share the work.
    pub cores: Option<u64>,
    /// Rate at which the storage is read that weights are streamed from.
    pub storage_bytes_per_s: Option<u64>,
}

impl Rates {
    /// Those of a target.
    pub fn of(target: &Target) -> Rates {
        Rates {
            bandwidth_bytes_per_s: target.flash_bandwidth_bytes_per_s,
            macs_per_cycle: target.macs_per_cycle,
            clock_hz: target.clock_hz,
            cores: target.cores,
            storage_bytes_per_s: target.storage_bandwidth_bytes_per_s,
        }
    }
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
    /// Matrices whose integers `quantize --method keep` takes over in this scheme; absent where the model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_matrices: Option<usize>,
    /// Weight bytes one token reads: linears and head whole, one row of each table.
    pub bytes_per_token: u64,
    /// Tokens per second that the memory allows, where its rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_tokens_per_s: Option<f64>,
    /// Tokens per second that the multipliers allow, where their rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_tokens_per_s: Option<f64>,
    /// Tokens per second that the storage allows, where weights are streamed and its rate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_tokens_per_s: Option<f64>,
    /// What a streamed artifact has in RAM of the file, and what a token reads of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<StreamingFootprint>,
    /// The lowest of them.
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
    /// Matrices.
    pub matrices: usize,
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
            (if self.schemes.iter().any(|row| row.streaming.is_some()) { "read a token" } else { "" }, right),
            ("tokens/s at most", right),
            ("fits", Align::Left),
            (
                if self.schemes.iter().any(|row| row.kept_matrices.is_some()) { "--method keep" } else { "" },
                Align::Left,
            ),
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
                &row.streaming.map_or_else(String::new, |streaming| grouped(streaming.bytes_per_token)),
                &row.ceiling_tokens_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                &verdict,
                &row.kept_matrices
                    .map_or_else(String::new, |kept| format!("takes over {kept} of {} matrices", self.matrices)),
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
    /// Streaming it cannot be planned.
    #[error(transparent)]
    Residency(#[from] ResidencyError),
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

/// Estimates a directory, dense or quantized.
pub fn estimate(
    path: &Path,
    device: &Target,
    rates: &Rates,
    context: Option<usize>,
    streaming: Option<Streaming>,
) -> Result<EstimateReport, EstimateError> {
    let source = formats::open(path)?;
    let outline = source.outline();
    let spec = &outline.spec;
    let limit = spec.context;
    let context = context.unwrap_or(spec.text_context());
    if context == 0 || context > limit {
        return Err(EstimateError::Context { context, limit });
    }
    let mut sections = SectionBytes::of(&outline.companions, spec).map_err(ModelFormatError::from)?;
    sections.asked.streaming = streaming;
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
    let stored = formats::storage(source.as_ref())?;
    let has_integers = stored.iter().any(|row| !row.keeps.is_empty() || row.rounded.is_some());
    let kept = |assignment: &Assignment| {
        let fits =
            |(id, scheme): &(&LinearId, &QuantScheme)| source.grid(**id).is_ok_and(|grid| grid.fit(**scheme).is_ok());
        has_integers.then(|| assignment.iter().filter(fits).count())
    };
    let mut schemes = Vec::new();
    for (scheme, assignment) in &assignments {
        let shape = Shape { spec, assignment, sparsity: &sparsity, key_maps, wide_activations, golden, sections };
        schemes
            .push(SchemeEstimate { kept_matrices: kept(assignment), ..row(scheme, &shape, device, rates, context)? });
    }
    Ok(EstimateReport {
        family: spec.family,
        target: device.name.clone(),
        context,
        parameters: spec.parameter_count(),
        macs_per_token,
        matrices: spec.matrices().len(),
        stored,
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
    let met = |parameter: ParameterShape| {
        let all = parameter.shape.iter().map(|&n| n as u64).product::<u64>();
        match parameter.id {
            ParameterId::Linear(id, _) => spec.met_by_a_token(id, all),
            _ => all,
        }
    };
    parameters.map(met).sum()
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
    let bytes_per_token: u64 = tensors.iter().map(|tensor| tensor.bytes_per_token(spec)).sum();
    let multiplied = tensors.iter().filter(|tensor| tensor.macs_per_token(spec) > 0);
    let cycles = multiplied
        .map(|tensor| {
            let rate = rates.macs_per_cycle.zip(VectorStorage::of(tensor.storage)).and_then(|(rates, of)| rates.of(of));
            rate.map(|rate| tensor.macs_per_token(spec) as f64 / rate)
        })
        .sum::<Option<f64>>();
    // An encoder reads its weights once a sequence, not once a token: no ceiling of this kind.
    let decoder = spec.kind == ModelKind::Decoder;
    let in_place = decoder && shape.sections.asked.streaming.is_none();
    let memory_tokens_per_s =
        rates.bandwidth_bytes_per_s.filter(|_| in_place).map(|bandwidth| bandwidth as f64 / bytes_per_token as f64);
    let compute_tokens_per_s = cycles
        .zip(rates.clock_hz)
        .filter(|&(cycles, _)| decoder && cycles > 0.0)
        .map(|(cycles, clock)| clock as f64 * rates.cores.unwrap_or(1) as f64 / cycles);
    let mut estimate = SchemeEstimate {
        scheme,
        size: WeightSize::of(spec, &tensors),
        flash_bytes: 0,
        ram_bytes: 0,
        fits: true,
        limit: None,
        over_bytes: None,
        largest_context: None,
        kept_matrices: None,
        bytes_per_token,
        memory_tokens_per_s,
        compute_tokens_per_s,
        storage_tokens_per_s: None,
        streaming: None,
        ceiling_tokens_per_s: None,
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
    estimate.streaming = footprint.streaming;
    let read = footprint.streaming.map(|streaming| streaming.bytes_per_token).filter(|&read| decoder && read > 0);
    estimate.storage_tokens_per_s = read.zip(rates.storage_bytes_per_s).map(|(read, rate)| rate as f64 / read as f64);
    let ceilings = [memory_tokens_per_s, compute_tokens_per_s, estimate.storage_tokens_per_s];
    estimate.ceiling_tokens_per_s = ceilings.into_iter().flatten().reduce(f64::min);
    Ok(estimate)
}

/// The errors of fitting except "does not fit", which is a result here.
fn refused(error: FitError) -> EstimateError {
    match error {
        FitError::Size(error) => error.into(),
        FitError::Lower(error) => error.into(),
        FitError::Residency(error) => error.into(),
        FitError::DoesNotFit(answer) => EstimateError::Lower(LowerError::Plan { context: answer.context }),
    }
}
