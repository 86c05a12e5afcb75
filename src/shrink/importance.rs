//! What every layer, head and channel of a model carries, measured on its forward over some text:
//!
//! ```text
//! channel i of a network   mean |x_i| · ‖column i of down‖           x the input of down
//! channel i of a convolution likewise, of its output projection
//! head h                   √ mean ‖W_h x_h‖²                         W_h its columns of the output projection
//! hidden channel i         Σ over norms of mean |norm(x)_i|
//! layer                    1 − mean cos(input, output)
//! residual stream          Σ over norms of mean x̂ x̂ᵀ, x̂ = x / rms(x)
//! ```
//!
//! Forward only. Norms count whose outputs linears read; where norms stand after the sums, these are the hidden states.

use super::ShrinkError;
use crate::calibrate::batches::{Batches, with_values};
use crate::calibrate::moments::{MomentSums, Moments};
use crate::model::forward::{DenseWeights, StagedForward, Step, Unobserved};
use crate::model::id::{LinearId, Role};
use crate::model::spec::{LayerSpec, Mixer, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use rayon::prelude::*;

/// Importance of what a layer has.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerImportance {
    /// Importance of query heads; empty for a layer of another mixer.
    pub heads: Vec<f64>,
    /// Importance of a convolution's channels; empty for attention.
    pub conv: Vec<f64>,
    /// Importance of the feed-forward network's channels.
    pub ffn: Vec<f64>,
    /// 1 − mean cosine of the layer's input and output.
    pub turn: f64,
}

/// Importance of everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// By layer.
    pub layers: Vec<LayerImportance>,
    /// Importance of hidden channels.
    pub hidden: Vec<f64>,
    /// Second moment of the residual stream, each token scaled to root mean square 1, summed over norms: (hidden, hidden).
    pub residual: Array2<f64>,
    /// Tokens measured.
    pub tokens: u64,
}

/// Mean magnitudes of channels.
struct Magnitudes {
    sums: Vec<f64>,
    rows: u64,
}

/// Channels that one task sums.
const CHANNELS: usize = 64;

impl Magnitudes {
    fn new(width: usize) -> Self {
        Magnitudes { sums: vec![0.0; width], rows: 0 }
    }

    /// Adds rows, every channel's values in their order.
    fn add(&mut self, values: &[f32]) {
        let width = self.sums.len();
        self.sums.par_chunks_mut(CHANNELS).enumerate().for_each(|(task, sums)| {
            for row in values.chunks_exact(width) {
                let values = &row[task * CHANNELS..][..sums.len()];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value.abs()));
            }
        });
        self.rows += (values.len() / width) as u64;
    }

    fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.rows.max(1) as f64).collect()
    }
}

/// Sums of one layer.
struct LayerSums {
    /// Sums over the input of the mixer's output projection.
    mixed: MomentSums,
    /// Sums over the input of down.
    inner: Magnitudes,
    cosines: f64,
}

impl LayerSums {
    fn new(spec: &ModelSpec, layer: &LayerSpec) -> Self {
        let mixed = layer.attention().map_or(spec.hidden, |attention| attention.query_width());
        LayerSums { mixed: MomentSums::new(mixed, false), inner: Magnitudes::new(layer.ffn.width), cosines: 0.0 }
    }
}

/// Measures a model over sequences.
///
/// # Errors
/// [`ShrinkError`].
pub fn measure(
    model: &Model,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<Importance, ShrinkError> {
    let spec = &model.spec;
    let weights = DenseWeights::new(model, device)?;
    let forward = StagedForward::new(spec, &weights, device);
    let batches = Batches::new(spec, sequences, &forward)?;
    progress.begin("measuring importance", batches.batches.len() as u64, "batches");
    let mut sums: Vec<LayerSums> = spec.layers.iter().map(|layer| LayerSums::new(spec, layer)).collect();
    let mut hidden_sums = Magnitudes::new(spec.hidden);
    let mut residual = MomentSums::new(spec.hidden, false);
    for batch in &batches.batches {
        let context = batches.context(batch);
        let mut hidden = forward.embed(batch);
        for (layer, sums) in sums.iter_mut().enumerate() {
            let before = hidden.clone();
            let mut halted = forward.enter(layer, hidden, context);
            for step in Step::ALL {
                match step {
                    Step::Mix | Step::Cross | Step::Ffn => {
                        with_values(&halted.input, |values| hidden_sums.add(values))?;
                        add_scaled(&mut residual, &halted.hidden)?;
                    }
                    Step::MixOutput | Step::CrossOutput => sums.mixed.add(&halted.input, None)?,
                    Step::FfnOutput => with_values(&halted.input, |values| sums.inner.add(values))?,
                }
                halted = forward.step(layer, step, halted, context, &mut Unobserved);
            }
            hidden = halted.hidden;
            sums.cosines += cosines(&before, &hidden)?;
        }
        add_scaled(&mut residual, &hidden)?;
        with_values(&forward.head_input(hidden), |values| hidden_sums.add(values))?;
        progress.advance(1);
    }
    progress.finish();
    let tokens = batches.tokens();
    let layers = sums.into_iter().enumerate().map(|(layer, sums)| finish(model, layer, sums, tokens));
    let residual = finished(residual, 0)?;
    Ok(Importance {
        layers: layers.collect::<Result<_, ShrinkError>>()?,
        hidden: hidden_sums.means(),
        residual: residual.gram / residual.rows.max(1) as f64,
        tokens,
    })
}

fn finish(model: &Model, layer: usize, sums: LayerSums, tokens: u64) -> Result<LayerImportance, ShrinkError> {
    let down = model.matrix(LinearId::layer(layer, Role::Down))?;
    let ffn = sums.inner.means().iter().zip(norms(&down)).map(|(mean, norm)| mean * norm).collect();
    let moments = finished(sums.mixed, layer)?;
    let (mut heads, mut conv) = (Vec::new(), Vec::new());
    match &model.spec.layers[layer].mixer {
        Mixer::Attention(attention) => {
            let output = model.matrix(LinearId::layer(layer, Role::Output))?;
            heads = (0..attention.heads).map(|head| through(&output, &moments, head, attention.head_dim)).collect();
        }
        Mixer::Conv(_) => {
            let output = model.matrix(LinearId::layer(layer, Role::ConvOut))?;
            let carried = moments.mean_square().into_iter().zip(norms(&output));
            conv = carried.map(|(square, norm)| square.sqrt() * norm).collect();
        }
    }
    Ok(LayerImportance { heads, conv, ffn, turn: 1.0 - sums.cosines / tokens.max(1) as f64 })
}

fn finished(sums: MomentSums, layer: usize) -> Result<Moments, ShrinkError> {
    sums.finish().map_err(|source| ShrinkError::Moments { layer, source })
}

/// Norm of every column.
fn norms(matrix: &Array2<f32>) -> Vec<f64> {
    let square = |column: ndarray::ArrayView1<'_, f32>| column.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
    matrix.columns().into_iter().map(|column| square(column).sqrt()).collect()
}

/// √ mean ‖W_h x_h‖² = √ tr(W_h G_h W_hᵀ) of a head.
fn through(output: &Array2<f32>, moments: &Moments, head: usize, width: usize) -> f64 {
    let first = head * width;
    let squares = output.rows().into_iter().map(|row| {
        let mut sum = 0.0;
        for i in 0..width {
            let own = f64::from(row[first + i]);
            for j in 0..width {
                sum += own * moments.gram[[first + i, first + j]] * f64::from(row[first + j]);
            }
        }
        sum
    });
    (squares.sum::<f64>().max(0.0) / moments.rows.max(1) as f64).sqrt()
}

/// Adds the moments of rows scaled to root mean square 1; rows of zeros stay.
fn add_scaled(sums: &mut MomentSums, hidden: &Tensor<3>) -> Result<(), ShrinkError> {
    let width = hidden.dims()[2];
    with_values(hidden, |values| {
        let mut scaled = values.to_vec();
        scaled.par_chunks_mut(width).for_each(|row| {
            let square: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
            let scale = if square > 0.0 { (width as f64 / square).sqrt() as f32 } else { 1.0 };
            row.iter_mut().for_each(|value| *value *= scale);
        });
        sums.add_values(&scaled, None);
    })?;
    Ok(())
}

/// Σ over tokens of the cosine of two states.
fn cosines(before: &Tensor<3>, after: &Tensor<3>) -> Result<f64, ShrinkError> {
    let width = before.dims()[2];
    let all = with_values(before, |before| {
        with_values(after, |after| {
            let rows = before.par_chunks_exact(width).zip(after.par_chunks_exact(width));
            let of_row = |(a, b): (&[f32], &[f32])| {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let norms = (dot(a, a) * dot(b, b)).sqrt();
                if norms > 0.0 { dot(a, b) / norms } else { 1.0 }
            };
            rows.map(of_row).collect::<Vec<f64>>().iter().sum::<f64>()
        })
    })??;
    Ok(all)
}
