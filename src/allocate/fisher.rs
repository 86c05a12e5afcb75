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
use super::gradients::Gradients;
use super::items::Item;
use crate::calibrate::probe::ProbeError;
use crate::model::forward::Batch;
use crate::model::matrix::view_rows;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::Device;
use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest sequence of the gradient pass: many short ones say more than few long ones, since each gives one draw.
const LONGEST: usize = 64;
/// Sequences of the gradient pass: the standard error of a cost is √(2 / 256) = 9 % of it.
const SEQUENCES: usize = 256;
/// Sequences of a model with more than [`LARGE`] parameters: 18 %. Its costs are measured too, all but those of 8 bits.
const SEQUENCES_OF_LARGE: usize = 64;
/// Parameters.
const LARGE: u64 = 32_000_000;
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
    let mut gradients = Gradients::new(model, device)?;
    progress.begin("gradients of every matrix", pieces.len() as u64, "sequences");
    // [sequence] of the inner products [item][coding].
    let mut projected: Vec<Vec<Vec<f64>>> = Vec::with_capacity(pieces.len());
    let mut predictions = 0;
    for (number, tokens) in pieces.into_iter().enumerate() {
        let stream = FIRST_STREAM.wrapping_add(seed).wrapping_add(number as u64);
        predictions += gradients.of(Batch::new(spec, tokens, 1)?, stream)?;
        projected.push(items.par_iter().map(|item| products(item, &gradients, database)).collect());
        progress.advance(1);
    }
    progress.finish();
    let cost = |item: usize, coding: usize| {
        let squares: f64 = projected.iter().map(|products| products[item][coding].powi(2)).sum();
        0.5 * squares / predictions.max(1) as f64
    };
    Ok(items.iter().enumerate().map(|(n, item)| (0..item.codings.len()).map(|c| cost(n, c)).collect()).collect())
}

/// ⟨gradient, Ŵ − W⟩ of an item in each of its codings.
fn products(item: &Item, gradients: &Gradients<'_>, database: &Database) -> Vec<f64> {
    let mut products = vec![0.0; item.codings.len()];
    for id in &item.members {
        let columns = database.whole(*id, item.codings[0].scheme.of_row(0)).columns();
        let Some((weights, gradient)) = gradients.matrix(*id) else { continue };
        let [gradient, weights] = [gradient, weights].map(|values| view_rows(values, columns));
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
}

/// Sequences of the calibration cut short, each opening as the model's texts do.
fn pieces(spec: &ModelSpec, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let count = if spec.parameter_count() > LARGE { SEQUENCES_OF_LARGE } else { SEQUENCES };
    if spec.kind == ModelKind::Encoder {
        return sequences.iter().filter(|tokens| !tokens.is_empty()).take(count).cloned().collect();
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
    opened.take(count).collect()
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
