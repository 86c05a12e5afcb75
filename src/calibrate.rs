//! Statistics of a model's activations over calibration sequences, collected by hooks of the f32 forward. Sums are
//! taken on the host in f64 in a fixed order, so they do not depend on threads.

pub mod input_error;
pub mod layerwise;
pub mod linear_algebra;
pub mod lookups;
pub mod moments;
pub mod probe;

use crate::model::forward::{Batch, BatchError, DenseWeights, Forward, Tap};
use crate::model::id::LinearId;
use crate::model::matrix::from_rows;
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use std::collections::BTreeMap;

/// Statistics of the inputs of one linear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearStats {
    /// Mean square of every input channel, (in).
    pub mean_square: Vec<f64>,
    /// Number of rows.
    pub rows: u64,
}

/// Statistics of the keys and queries of one layer after rotary positions, (key_value_heads, head_dim) each; (0, 0) for
/// a layer without attention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyStats {
    /// Mean of keys.
    pub key_mean: Array2<f64>,
    /// Mean square of keys about their mean.
    pub key_variance: Array2<f64>,
    /// Mean square of the queries of all heads that share the key head.
    pub query_mean_square: Array2<f64>,
}

/// Statistics of a whole model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// By linear; a tied head's are under `head.lm`.
    pub linears: BTreeMap<LinearId, LinearStats>,
    /// By layer; empty for one without attention.
    pub keys: Vec<KeyStats>,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of sequences.
    pub sequences: u64,
}

/// Why calibration stopped.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// No sequences.
    #[error("there is nothing to calibrate with: the text gives no sequence; pass more with --calibration")]
    Nothing,
    /// A sequence does not suit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The weights cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The second moments of a group's inputs cannot be taken.
    #[error("`{id}`: {source}")]
    Moments {
        /// The first of the matrices.
        id: LinearId,
        /// The fault.
        source: moments::MomentsError,
    },
    /// The device gave tensors of another type back.
    #[error("the device did not return f32 values: {0}")]
    Device(String),
}

/// Runs the sequences, each on its own, through the f32 model and collects statistics of every linear and of keys.
pub fn collect(
    model: &Model,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<Statistics, CalibrateError> {
    if sequences.iter().all(Vec::is_empty) {
        return Err(CalibrateError::Nothing);
    }
    let weights = DenseWeights::new(model, device)?;
    let forward = Forward::new(&model.spec, &weights, device);
    let mut collector = Collector::new(&model.spec);
    progress.begin("calibrating", sequences.len() as u64, "sequences");
    for sequence in sequences.iter().filter(|sequence| !sequence.is_empty()) {
        forward.run(&Batch::new(&model.spec, sequence.clone(), 1)?, &mut collector);
        collector.tokens += sequence.len() as u64;
        collector.sequences += 1;
        if let Some(error) = collector.failure.take() {
            return Err(CalibrateError::Device(error));
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(collector.finish())
}

/// Sums of values and of squares by channel.
#[derive(Clone, Default)]
struct Sums {
    sum: Vec<f64>,
    squares: Vec<f64>,
    rows: u64,
}

impl Sums {
    fn add(&mut self, row: &[f32]) {
        self.sum.resize(row.len(), 0.0);
        self.squares.resize(row.len(), 0.0);
        for ((sum, square), &value) in self.sum.iter_mut().zip(&mut self.squares).zip(row) {
            *sum += f64::from(value);
            *square += f64::from(value) * f64::from(value);
        }
        self.rows += 1;
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.rows.max(1) as f64).collect()
    }

    fn mean_square(&self) -> Vec<f64> {
        self.squares.iter().map(|sum| sum / self.rows.max(1) as f64).collect()
    }
}

/// The rows `of` gives, one for every head.
fn by_head(heads: &[Sums], of: impl Fn(&Sums) -> Vec<f64>) -> Array2<f64> {
    let width = heads.first().map_or(0, |head| head.sum.len());
    from_rows(heads.iter().flat_map(of).collect(), width)
}

struct Collector {
    linears: BTreeMap<LinearId, Sums>,
    /// By layer and key head.
    keys: Vec<Vec<Sums>>,
    queries: Vec<Vec<Sums>>,
    tokens: u64,
    sequences: u64,
    failure: Option<String>,
}

impl Collector {
    fn new(spec: &ModelSpec) -> Self {
        let heads = spec.layers.iter().map(|layer| layer.attention().map_or(0, |attention| attention.key_value_heads));
        let per_head: Vec<Vec<Sums>> = heads.map(|heads| vec![Sums::default(); heads]).collect();
        Collector {
            linears: BTreeMap::new(),
            keys: per_head.clone(),
            queries: per_head,
            tokens: 0,
            sequences: 0,
            failure: None,
        }
    }

    fn values<const D: usize>(&mut self, tensor: &Tensor<D>) -> Vec<f32> {
        tensor.to_data().try_to_vec::<f32>().unwrap_or_else(|error| {
            self.failure = Some(format!("{error:?}"));
            Vec::new()
        })
    }

    fn finish(self) -> Statistics {
        let stats = |sums: &Sums| LinearStats { mean_square: sums.mean_square(), rows: sums.rows };
        let keys = self.keys.iter().zip(&self.queries).map(|(keys, queries)| {
            let key_mean = by_head(keys, Sums::mean);
            let mean_square = by_head(keys, Sums::mean_square);
            let key_variance = ndarray::Zip::from(&mean_square)
                .and(&key_mean)
                .map_collect(|square, mean| (square - mean * mean).max(0.0));
            KeyStats { key_mean, key_variance, query_mean_square: by_head(queries, Sums::mean_square) }
        });
        Statistics {
            keys: keys.collect(),
            linears: self.linears.iter().map(|(id, sums)| (*id, stats(sums))).collect(),
            tokens: self.tokens,
            sequences: self.sequences,
        }
    }
}

impl Tap for Collector {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let width = input.dims()[1];
        let values = self.values(input);
        let sums = self.linears.entry(id).or_default();
        values.chunks_exact(width).for_each(|row| sums.add(row));
    }

    fn attention(&mut self, layer: usize, query: &Tensor<4>, key: &Tensor<4>) {
        let head_dim = key.dims()[3];
        for tensor in [key, query] {
            let [batch, heads, length, _] = tensor.dims();
            let values = self.values(tensor);
            let key_heads = self.keys[layer].len();
            let sums = if std::ptr::eq(tensor, key) { &mut self.keys[layer] } else { &mut self.queries[layer] };
            for (index, rows) in values.chunks_exact(length * head_dim).take(batch * heads).enumerate() {
                let head = index % heads * key_heads / heads;
                rows.chunks_exact(head_dim).for_each(|row| sums[head].add(row));
            }
        }
    }
}
