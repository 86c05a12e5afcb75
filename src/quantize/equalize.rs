//! Equalisation (Xiao et al. 2023; Lin et al. 2024): the columns of matrices are multiplied by s and the origin of
//! their input is divided by it, which changes nothing in exact arithmetic and moves outliers from where they cost most.
//! Legal where the input has no other reader and every step on its way is linear:
//!
//! ```text
//! norm before a layer's part → the matrices that read it      gain and offset / s   (not where norms stand after sums)
//! up → down of a gated network                                rows / s
//! value → output                                              rows / s, one s for all query heads of a key head
//! last norm → an LM head of its own                           gain and offset / s   (never a tied one)
//! ```
//!
//! s are powers of two, so weights keep their data type and the f32 model its outputs to the bit. For every place the
//! candidate is taken, none among them, with which rounded weights and 8-bit inputs come closest to the outputs.

use super::error::RoundingError;
use super::search;
use crate::calibrate::CalibrateError;
use crate::model::forward::{Batch, DenseWeights, Observer, StagedForward, Step};
use crate::model::graph::{Graph, Input, Origin};
use crate::model::id::{LinearId, NormSite, ParameterId, Part};
use crate::model::matrix::{into_values, row_major, view_rows};
use crate::model::scheme::{Assignment, QuantScheme};
use crate::model::size::scheme_of;
use crate::model::spec::{ModelSpec, NormKind};
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};
use ndarray::{Array1, Array2, ArrayView2, s};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Sequences that inputs are looked at in, and inputs of each that errors are measured on.
const SEQUENCES: usize = 32;
const ROWS_PER_SEQUENCE: usize = 8;
/// Rows of a matrix that errors are measured on.
const MATRIX_ROWS: usize = 256;
/// Shares of an input's range that are moved into the weights.
const SHARES: [f32; 3] = [0.25, 0.5, 0.75];
/// A channel this many times above or below the median is an outlier.
const OUTLIER: f32 = 4.0;
/// A candidate has to lower the error by this share.
const LEAST_GAIN: f64 = 0.2;

/// Report of one place.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Equalized {
    /// The first matrix whose columns were multiplied.
    pub name: String,
    /// Squared error of the outputs, as a share of them, before.
    pub error_before: f64,
    /// And after.
    pub error_after: f64,
    /// The largest factor.
    pub largest_factor: f32,
}

/// The source of outliers, which is divided by s.
enum OutlierSource {
    /// Gain and offset of a norm.
    Norm(Option<u16>, NormSite, NormKind),
    /// Rows of a matrix and its bias.
    Rows(LinearId),
}

/// A place where s can go: the source that is divided, and the matrices whose columns are multiplied.
struct EqualizePair {
    source: OutlierSource,
    readers: Vec<LinearId>,
    /// Channel of the source by column of the readers.
    channels: Vec<usize>,
}

fn pairs(spec: &ModelSpec) -> Vec<EqualizePair> {
    let graph = Graph::new(spec);
    graph.inputs().filter_map(pair).collect()
}

/// The place of an input, where its origin can be divided. A tied head's columns are the token table's; the norm in
/// the head of a masked language model is left alone.
fn pair(input: &Input) -> Option<EqualizePair> {
    let source = match input.origin {
        Origin::Norm { site: NormSite::MlmTransform, .. } => return None,
        Origin::Norm { layer, site, kind } => OutlierSource::Norm(layer, site, kind),
        Origin::Mean { of, .. } | Origin::Gated { of } => OutlierSource::Rows(of),
        Origin::Residual | Origin::Convolution | Origin::Function => return None,
    };
    let own = input.readers.iter().all(|linear| linear.weight == linear.id);
    let channels = (0..input.width).map(|column| input.origin.channel(column)).collect();
    own.then(|| EqualizePair { source, readers: input.ids(), channels })
}

/// Some inputs of a matrix, (rows, columns), and the largest of every channel over all tokens looked at.
struct Seen {
    rows: Array2<f32>,
    largest: Vec<f32>,
}

#[derive(Default)]
struct Look {
    seen: BTreeMap<LinearId, Seen>,
    failure: Option<String>,
}

impl Observer for Look {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let [tokens, columns] = input.dims();
        let values = match input.to_data().try_to_vec::<f32>() {
            Ok(values) => values,
            Err(error) => return self.failure = Some(format!("{error:?}")),
        };
        let nothing = || Seen { rows: Array2::zeros((0, columns)), largest: vec![0.0; columns] };
        let seen = self.seen.entry(id).or_insert_with(nothing);
        let inputs = view_rows(&values, columns);
        for row in inputs.outer_iter() {
            seen.largest.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
        }
        let every = tokens.div_ceil(ROWS_PER_SEQUENCE);
        for row in inputs.outer_iter().step_by(every) {
            seen.rows.push_row(row).expect("inputs of one linear have one width");
        }
    }
}

/// The model with its outliers moved, and a report of every place.
///
/// # Errors
/// [`RoundingError`].
pub fn equalize(
    model: Model,
    assignment: &Assignment,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<(Model, Vec<Equalized>), RoundingError> {
    let spec = model.spec.clone();
    let looked = look(&model, sequences, device, progress)?;
    let pairs = pairs(&spec);
    progress.begin("equalizing", pairs.len() as u64, "places");
    let (mut model, mut reports) = (model, Vec::new());
    // Readers before sources: once the rows of a matrix are even, no outlier among them decides for its columns.
    for pair in pairs.iter().rev() {
        progress.advance(1);
        let Some(seen) = looked.get(&pair.readers[0]) else { continue };
        let mut weights = Vec::new();
        for id in &pair.readers {
            let scheme = scheme_of(assignment, *id).map_err(ModelError::from)?;
            weights.push((scheme, model.matrix(*id)?));
        }
        let Some((factors, report)) = best(pair, seen, &weights) else { continue };
        let mut changed = BTreeMap::new();
        let by_column = by_column(pair, &factors);
        for (&id, (_, values)) in pair.readers.iter().zip(weights) {
            changed.insert(ParameterId::weight(id), into_values(values * &by_column));
        }
        divide(&model, &pair.source, &factors, &mut changed)?;
        model = model.with_values(changed)?;
        reports.push(report);
    }
    reports.reverse();
    progress.finish();
    Ok((model, reports))
}

fn look(
    model: &Model,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<BTreeMap<LinearId, Seen>, RoundingError> {
    let weights = DenseWeights::new(model, device)?;
    let forward = StagedForward::new(&model.spec, &weights, device);
    let mut look = Look::default();
    let sequences: Vec<&Vec<u32>> = sequences.iter().filter(|sequence| !sequence.is_empty()).take(SEQUENCES).collect();
    progress.begin("looking for outliers", sequences.len() as u64, "sequences");
    for sequence in sequences {
        let batch = Batch::new(&model.spec, sequence.clone(), 1).map_err(CalibrateError::from)?;
        let context = forward.context(&batch);
        let mut hidden = forward.embed(&batch);
        for layer in 0..model.spec.layers.len() {
            let mut halted = forward.enter(layer, hidden, &context);
            for step in Step::ALL {
                halted = forward.step(layer, step, halted, &context, &mut look);
            }
            hidden = halted.hidden;
        }
        forward.head(hidden, &mut look);
        progress.advance(1);
    }
    progress.finish();
    match look.failure {
        Some(failure) => Err(CalibrateError::Device(failure).into()),
        None => Ok(look.seen),
    }
}

/// Divides gain and offset, or rows and bias, by the factors.
fn divide(
    model: &Model,
    source: &OutlierSource,
    factors: &[f32],
    changed: &mut BTreeMap<ParameterId, Vec<f32>>,
) -> Result<(), ModelError> {
    match source {
        OutlierSource::Norm(layer, site, kind) => {
            let one = if *kind == NormKind::RmsOnePlus { 1.0 } else { 0.0 };
            let id = ParameterId::Norm(*layer, *site, Part::Weight);
            let gain = model.values_f32(id)?.into_iter().zip(factors).map(|(gain, s)| (gain + one) / s - one);
            changed.insert(id, gain.collect());
            if *kind == NormKind::Layer {
                let id = ParameterId::Norm(*layer, *site, Part::Bias);
                let offset = model.values_f32(id)?.into_iter().zip(factors).map(|(offset, s)| offset / s);
                changed.insert(id, offset.collect());
            }
        }
        OutlierSource::Rows(id) => {
            let mut weights = model.matrix(*id)?;
            for (mut row, s) in weights.outer_iter_mut().zip(factors) {
                row.mapv_inplace(|weight| weight / s);
            }
            changed.insert(ParameterId::weight(*id), into_values(weights));
            if model.spec.has_bias(*id) {
                let bias = model.values_f32(ParameterId::bias(*id))?.into_iter().zip(factors).map(|(bias, s)| bias / s);
                changed.insert(ParameterId::bias(*id), bias.collect());
            }
        }
    }
    Ok(())
}

/// The factors by channel that bring the outputs closest, where any does.
fn best(pair: &EqualizePair, seen: &Seen, weights: &[(QuantScheme, Array2<f32>)]) -> Option<(Vec<f32>, Equalized)> {
    let channels = pair.channels.iter().max()? + 1;
    let (mut inputs, mut largest) = (vec![0.0f32; channels], vec![0.0f32; channels]);
    for (column, channel) in pair.channels.iter().enumerate() {
        inputs[*channel] = inputs[*channel].max(seen.largest[column]);
        let of_column = weights.iter().flat_map(|(_, values)| values.column(column));
        largest[*channel] = of_column.fold(largest[*channel], |most, value| most.max(value.abs()));
    }
    let measure = |factors: &[f32]| -> f64 { output_error(pair, seen, weights, factors) };
    let before = measure(&vec![1.0; channels]);
    let mut candidates = vec![outliers(&inputs, &largest)];
    candidates.extend(SHARES.iter().map(|share| balanced(&inputs, &largest, *share)));
    let measured = candidates.into_iter().map(|factors| (measure(&factors), factors));
    let (error, factors) = measured.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (error < (1.0 - LEAST_GAIN) * before).then(|| {
        let report = Equalized {
            name: pair.readers[0].to_string(),
            error_before: before,
            error_after: error,
            largest_factor: factors.iter().copied().fold(0.0, f32::max),
        };
        (factors, report)
    })
}

/// The power of two nearest to values over their median; 1 where a value is 0 or not finite.
fn powers(values: Vec<f32>, unless: impl Fn(f32) -> bool) -> Vec<f32> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite() && *value > 0.0).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else { return vec![1.0; values.len()] };
    let power = |value: f32| {
        let ratio = value / median;
        if !(ratio.is_finite() && ratio > 0.0) || unless(ratio) {
            1.0
        } else {
            libm::exp2f(libm::log2f(ratio).round().clamp(-16.0, 16.0))
        }
    };
    values.into_iter().map(power).collect()
}

/// Inputs and weights of every channel brought to equal ranges in the given share.
fn balanced(inputs: &[f32], weights: &[f32], share: f32) -> Vec<f32> {
    powers(
        inputs.iter().zip(weights).map(|(x, w)| libm::powf(*x, share) / libm::powf(*w, 1.0 - share)).collect(),
        |_| false,
    )
}

/// The same of channels far from the median; the others are left alone.
fn outliers(inputs: &[f32], weights: &[f32]) -> Vec<f32> {
    let near = |ratio: f32| ratio < OUTLIER && ratio > 1.0 / OUTLIER;
    powers(inputs.iter().zip(weights).map(|(x, w)| (x / w).sqrt()).collect(), near)
}

/// Factors of the channels by column of the readers.
fn by_column(pair: &EqualizePair, factors: &[f32]) -> Array1<f32> {
    pair.channels.iter().map(|channel| factors[*channel]).collect()
}

/// Squared error of the outputs over their square: weights times s rounded to their scheme, inputs over s to 8 bits.
fn output_error(pair: &EqualizePair, seen: &Seen, weights: &[(QuantScheme, Array2<f32>)], factors: &[f32]) -> f64 {
    let by_column = by_column(pair, factors);
    let mut inputs = &seen.rows / &by_column;
    let mut importance = vec![0.0f64; inputs.ncols()];
    for mut row in inputs.outer_iter_mut() {
        importance.iter_mut().zip(&row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
        let scale = row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
        if scale > 0.0 {
            row.mapv_inplace(|x| (x / scale).round_ties_even() * scale);
        }
    }
    let (mut miss, mut size) = (0.0, 0.0);
    for (scheme, values) in weights {
        let every = values.nrows().div_ceil(MATRIX_ROWS);
        let rows = values.slice(s![..;every, ..]).as_standard_layout().into_owned();
        let scaled = &rows * &by_column;
        let rounded = search::quantize_matrix(scaled.view(), *scheme, Some(&importance)).dequantize();
        for (misses, sizes) in errors([inputs.view(), seen.rows.view()], [rounded.view(), rows.view()]) {
            miss += misses;
            size += sizes;
        }
    }
    if size > 0.0 { miss / size } else { 0.0 }
}

/// Σ (ŷ − y)² and Σ y² of the outputs by row of the inputs; of both the inputs and the weights the changed ones come first.
fn errors(
    [inputs, originals]: [ArrayView2<'_, f32>; 2],
    [changed, weights]: [ArrayView2<'_, f32>; 2],
) -> Vec<(f64, f64)> {
    let columns = inputs.ncols();
    let (inputs, originals) = (row_major(inputs), row_major(originals));
    let (changed, weights) = (row_major(changed), row_major(weights));
    let tokens = inputs.par_chunks_exact(columns).zip(originals.par_chunks_exact(columns));
    let of_token = |(input, original): (&[f32], &[f32])| {
        let pairs = changed.chunks_exact(columns).zip(weights.chunks_exact(columns)).map(|(changed, row)| {
            let (is, was) = (product(changed, input), product(row, original));
            (f64::from(is - was).powi(2), f64::from(was).powi(2))
        });
        pairs.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
    };
    tokens.map(of_token).collect()
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        a.iter().zip(b).zip(&mut sums).for_each(|((a, b), sum)| *sum += a * b);
    }
    sums.iter().sum()
}
