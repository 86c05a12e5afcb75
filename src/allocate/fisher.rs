//! The predicted cost of storing matrices otherwise, for all matrices and codings from one pass of gradients. With
//! log p(y) the log likelihood of a sequence of labels y that the model itself draws, the expected divergence of a small
//! change ΔW is the Fisher form
//!
//! ```text
//! KL(p ‖ p') ≈ ½ · E[⟨∇ log p(y), ΔW⟩²]
//! ```
//!
//! which is exact to second order and needs no factors: labels of different positions are drawn independently, so the
//! cross terms of a sequence have mean zero, and one inner product per sequence, matrix and coding estimates the whole
//! form, errors that compensate each other within a row included. Bare encoders have no labels: their cost is 1 − cosine
//! of the normalised pooled state e, ½·|Je·ΔW|², and a random direction r gives it in the same way as ½·E[⟨∇(r·e), ΔW⟩²].

use super::database::Database;
use super::items::Item;
use crate::calibrate::probe::ProbeError;
use crate::model::forward::{Batch, Forward, Unobserved};
use crate::model::id::{ParameterId, Part};
use crate::model::matrix::view_rows;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::train::parameters::{Leaves, Parameters, TrainedId, normals};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;
use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest sequence of the gradient pass: many short ones say more than few long ones, since each gives one draw.
const LONGEST: usize = 64;
/// Sequences of the gradient pass: the standard error of a cost is √(2 / 256) = 9 % of it.
const SEQUENCES: usize = 256;
/// Streams of label draws begin here, away from those of calibration and training.
const FIRST_STREAM: u64 = 1 << 40;

/// Predicted cost of every item alone in each of its codings: `[item][coding]`, in the unit of the probe.
pub fn predict(
    model: &Model,
    items: &[Item],
    database: &Database,
    sequences: &[Vec<u32>],
    seed: u64,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>, ProbeError> {
    let spec = &model.spec;
    let pieces = pieces(spec, sequences);
    let mut parameters = Parameters::new();
    for parameter in spec.parameters() {
        parameters.insert(TrainedId::Parameter(parameter.id), model.values_f32(parameter.id)?);
    }
    let recording = device.clone().autodiff();
    progress.begin("gradients of every matrix", pieces.len() as u64, "sequences");
    // [sequence] of predictions counted, and the inner products [item][coding].
    let project = |(number, tokens): (usize, &Vec<u32>)| {
        let batch = Batch::new(spec, tokens.clone(), 1)?;
        // Made for every sequence: graphs that share leaves share locks, and the device's own threads would wait on them.
        let leaves = Leaves::new(spec, &parameters, [0, 0], &recording);
        let logits = Forward::new(spec, &leaves, &recording).run(&batch, &mut Unobserved).logits;
        let stream = FIRST_STREAM.wrapping_add(seed).wrapping_add(number as u64);
        let (score, predictions) = score(spec, logits, stream, &recording)?;
        let recorded = score.backward();
        let gradients = leaves.gradients(&recorded).map_err(ProbeError::Device)?;
        let of_item = |item: &Item| -> Vec<f64> {
            let mut products = vec![0.0; item.codings.len()];
            for id in &item.members {
                let weight = TrainedId::Parameter(ParameterId::Linear(*id, Part::Weight));
                let Some(gradient) = gradients.get(&weight) else { continue };
                let columns = database.whole(*id, item.codings[0].scheme.of_row(0)).columns();
                let [gradient, weights] = [gradient, &parameters[&weight]].map(|values| view_rows(values, columns));
                // By row, once for every scheme that a coding has for some rows.
                let mut changes: BTreeMap<QuantScheme, Vec<f64>> = BTreeMap::new();
                for (product, coding) in products.iter_mut().zip(&item.codings) {
                    let of_part = |(rows, scheme): (Range<usize>, QuantScheme)| -> f64 {
                        let all = || change(gradient, weights, database.whole(*id, scheme));
                        changes.entry(scheme).or_insert_with(all)[rows].iter().sum()
                    };
                    *product += coding.scheme.parts(weights.nrows()).map(of_part).sum::<f64>();
                }
            }
            products
        };
        let products: Vec<Vec<f64>> = items.iter().map(of_item).collect();
        progress.advance(1);
        Ok((predictions, products))
    };
    let projected = pieces.par_iter().enumerate().map(project).collect::<Result<Vec<_>, ProbeError>>()?;
    progress.finish();
    let predictions: f64 = projected.iter().map(|(count, _)| *count as f64).sum();
    let cost = |item: usize, coding: usize| {
        let squares: f64 = projected.iter().map(|(_, products)| products[item][coding].powi(2)).sum();
        0.5 * squares / predictions.max(1.0)
    };
    Ok(items.iter().enumerate().map(|(n, item)| (0..item.codings.len()).map(|c| cost(n, c)).collect()).collect())
}

/// Sequences of the calibration cut short, each opening as the model's texts do.
fn pieces(spec: &ModelSpec, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    if spec.kind == ModelKind::Encoder {
        return sequences.iter().filter(|tokens| !tokens.is_empty()).take(SEQUENCES).cloned().collect();
    }
    let length = LONGEST.min(spec.context);
    let cut = sequences.iter().flat_map(|tokens| tokens.chunks(length)).filter(|piece| piece.len() > 1);
    let opened = cut.map(|piece| {
        let mut piece = piece.to_vec();
        // A piece from the middle of a sequence begins as a text does; its own tokens there give way.
        let opening = spec.opening.iter().take(piece.len() - 1);
        piece.iter_mut().zip(opening).for_each(|(token, opening)| *token = *opening);
        piece
    });
    opened.take(SEQUENCES).collect()
}

/// The differentiable number whose gradient's square is the Fisher form, and how many predictions it sums over.
fn score(spec: &ModelSpec, logits: Tensor<3>, stream: u64, device: &Device) -> Result<(Tensor<1>, usize), ProbeError> {
    let [_, length, width] = logits.dims();
    let rows = logits.reshape([length, width]);
    if let Head::Hidden = spec.head {
        let pooled = rows.mean_dim(0);
        let normalised = pooled.clone() / pooled.square().sum_dim(1).sqrt();
        let direction = TensorData::new(normals(stream, width, 1.0), [1, width]);
        return Ok(((normalised * Tensor::<2>::from_data(direction, device)).sum(), 1));
    }
    let values =
        rows.clone().into_data().try_to_vec::<f32>().map_err(|error| ProbeError::Device(format!("{error:?}")))?;
    let labels: Vec<i32> =
        values.chunks_exact(width).enumerate().map(|(position, row)| draw(row, stream, position as u64)).collect();
    let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [length, 1]), device);
    Ok((log_softmax(rows, 1).gather(1, labels).sum(), length))
}

/// A label drawn from the softmax of a row, in f64.
fn draw(row: &[f32], stream: u64, position: u64) -> i32 {
    let top = row.iter().fold(f32::NEG_INFINITY, |top, &value| top.max(value));
    let weights: Vec<f64> = row.iter().map(|&value| libm::exp(f64::from(value - top))).collect();
    let unit = (random_u64(stream, position) >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = unit * weights.iter().sum::<f64>();
    for (label, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return label as i32;
        }
    }
    row.len() as i32 - 1
}

/// ⟨gradient, Ŵ − W⟩ of every row, in f64.
fn change(gradient: ArrayView2<'_, f32>, weights: ArrayView2<'_, f32>, matrix: &QuantizedMatrix) -> Vec<f64> {
    let mut rounded = vec![0.0; matrix.columns()];
    let rows = gradient.outer_iter().zip(weights.outer_iter()).enumerate();
    let of_row = |(row, (gradient, weights)): (usize, (ArrayView1<'_, f32>, ArrayView1<'_, f32>))| -> f64 {
        matrix.read_row(row, &mut rounded);
        let columns = gradient.iter().zip(weights).zip(&rounded);
        columns.map(|((gradient, weight), rounded)| f64::from(*gradient) * f64::from(rounded - weight)).sum()
    };
    rows.map(of_row).collect()
}
