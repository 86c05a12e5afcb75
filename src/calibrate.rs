//! Statistics of a model's activations over calibration sequences, collected layer by layer as the f32 forward halts at
//! the inputs of linears ([`layerwise`]). Sums are taken on the host in f64 in a fixed order, so they do not depend on
//! threads.

pub(crate) mod batches;
pub mod continuations;
pub mod input_error;
pub mod layerwise;
pub mod linear_algebra;
pub mod lookups;
pub mod moments;
pub mod probe;
pub mod samples;

use crate::model::forward::{BatchError, Observer};
use crate::model::id::LinearId;
use crate::model::matrix::from_rows;
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use batches::with_values;
use burn::tensor::{Device, Tensor};
use layerwise::{Change, Changed, Layerwise};
use moments::Moments;
use ndarray::Array2;
use rayon::prelude::*;
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

/// Runs the sequences through the f32 model and collects statistics of every linear and of keys.
///
/// # Errors
/// [`CalibrateError`].
pub fn collect(
    model: &Model,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<Statistics, CalibrateError> {
    /// Leaves every matrix as it is, and asks for no moments.
    struct Unchanged;
    impl Change for Unchanged {
        type Error = CalibrateError;

        fn kept(&mut self, _ids: &[LinearId]) -> Result<Option<Changed>, CalibrateError> {
            Ok(Some(Changed::new()))
        }

        fn change(&mut self, _ids: &[LinearId], _moments: Option<Moments>) -> Result<Changed, CalibrateError> {
            Ok(Changed::new())
        }
    }
    let pass = Layerwise { model, sequences, device, with_original: false, with_lookups: false };
    pass.run(&mut Unchanged, progress, "calibrating")
}

/// Sums of values and of squares by channel.
#[derive(Clone, Default)]
struct Sums {
    sum: Vec<f64>,
    squares: Vec<f64>,
    rows: u64,
}

/// Channels that one task sums.
const CHANNELS: usize = 64;

impl Sums {
    /// Adds rows of `width`, every channel's values in their order.
    fn add(&mut self, rows: &[f32], width: usize) {
        self.sum.resize(width, 0.0);
        self.squares.resize(width, 0.0);
        let sums = self.sum.par_chunks_mut(CHANNELS).zip(self.squares.par_chunks_mut(CHANNELS)).enumerate();
        sums.for_each(|(task, (sums, squares))| {
            for row in rows.chunks_exact(width) {
                let values = &row[task * CHANNELS..][..sums.len()];
                for ((sum, square), &value) in sums.iter_mut().zip(squares.iter_mut()).zip(values) {
                    *sum += f64::from(value);
                    *square += f64::from(value) * f64::from(value);
                }
            }
        });
        self.rows += (rows.len() / width.max(1)) as u64;
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

impl Collector {
    /// Takes the input, (batch, length, in), of linears that share it.
    fn input(&mut self, ids: &[LinearId], input: &Tensor<3>) -> Result<(), CalibrateError> {
        let Some((first, others)) = ids.split_first() else { return Ok(()) };
        let width = input.dims()[2];
        let sums = self.linears.entry(*first).or_default();
        with_values(input, |values| sums.add(values, width))?;
        let sums = sums.clone();
        self.linears.extend(others.iter().map(|id| (*id, sums.clone())));
        Ok(())
    }
}

impl Observer for Collector {
    fn sees_linears(&self) -> bool {
        false
    }

    fn attention(&mut self, layer: usize, query: &Tensor<4>, key: &Tensor<4>) {
        let head_dim = key.dims()[3];
        for (tensor, sums) in [(key, &mut self.keys[layer]), (query, &mut self.queries[layer])] {
            let [_, heads, length, _] = tensor.dims();
            let key_heads = sums.len();
            let seen = with_values(tensor, |values| {
                for (index, rows) in values.chunks_exact(length * head_dim).enumerate() {
                    sums[index % heads * key_heads / heads].add(rows, head_dim);
                }
            });
            if let Err(error) = seen {
                self.failure = Some(error.to_string());
            }
        }
    }
}
