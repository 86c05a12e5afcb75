//! Artifacts of random weights in the shapes of well-known small llamas, for `slmc bench --shape`. Speed does not
//! depend on the values, so that no checkpoint of that size is needed. The weights have the standard deviation
//! 0.7 / sqrt(columns) in every scheme, which keeps activations of any depth in range.

use crate::disk::DenseTensor;
use crate::disk::config::Config;
use crate::model::companions::Companions;
use crate::model::families;
use crate::model::id::{Class, ParameterId, Part, Role};
use crate::model::matrix::from_rows;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{Preset, QuantScheme, SchemeDef};
use crate::model::transform::NmPattern;
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Sizes of a llama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Name for `--shape`.
    pub name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    ffn_width: usize,
    vocabulary: usize,
    tied: bool,
}

impl Shape {
    /// Every shape, smallest first: those of stories15M, SmolLM2-135M and TinyLlama-1.1B.
    pub const ALL: [Shape; 3] = [
        Shape {
            name: "15m",
            hidden: 288,
            layers: 6,
            heads: 6,
            key_value_heads: 6,
            ffn_width: 768,
            vocabulary: 32_000,
            tied: false,
        },
        Shape {
            name: "135m",
            hidden: 576,
            layers: 30,
            heads: 9,
            key_value_heads: 3,
            ffn_width: 1536,
            vocabulary: 49_152,
            tied: true,
        },
        Shape {
            name: "1.1b",
            hidden: 2048,
            layers: 22,
            heads: 32,
            key_value_heads: 4,
            ffn_width: 5632,
            vocabulary: 32_000,
            tied: false,
        },
    ];

    /// By its name.
    pub fn named(name: &str) -> Option<Shape> {
        Shape::ALL.into_iter().find(|shape| shape.name == name)
    }

    fn config(&self, context: usize) -> Config {
        let value = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "max_position_embeddings": context,
            "vocab_size": self.vocabulary,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
        });
        let map: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
        Config::from_map(Path::new("config.json"), map)
    }
}

/// How the random weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Schemes of every matrix but the token embedding and the head.
    pub preset: Preset,
    /// Scheme of the head, and of the token embedding.
    pub head: QuantScheme,
    /// Whether every linear but the head keeps two of four weights.
    pub two_of_four: bool,
}

/// As it stands in the name of a file: `w4-head-w8`, `w8-head-w8-2of4`.
impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head.to_string().replace(".g32", "").replace(':', "-");
        let sparsity = if self.two_of_four { "-2of4" } else { "" };
        write!(f, "{}-head-{head}{sparsity}", self.preset.name())
    }
}

/// A model of `shape` with random weights, for `context` positions.
///
/// # Errors
/// Shapes that no family has: none of [`Shape::ALL`].
pub fn random_model(
    shape: &Shape,
    weights: Weights,
    context: usize,
    progress: &dyn Progress,
) -> Result<Model, ModelError> {
    let config = shape.config(context);
    let spec = families::spec(&config)?;
    let mut parameters = BTreeMap::new();
    let shapes = spec.parameters();
    progress.begin("drawing random weights", shapes.len() as u64, "tensors");
    for (number, parameter) in shapes.into_iter().enumerate() {
        let value = match parameter.id {
            ParameterId::Linear(id, Part::Weight) => {
                let at_the_ends = matches!(id.role, Role::TokenEmbedding | Role::LmHead);
                let scheme = if at_the_ends { weights.head } else { weights.preset.scheme(id.role) };
                let two_of_four = weights.two_of_four && matches!(id.role.class(), Class::Attention | Class::Ffn);
                let (rows, columns) = (parameter.shape[0], parameter.shape[1]);
                Parameter::Quantized(random_matrix(number as u64, rows, columns, scheme, two_of_four))
            }
            _ => {
                let ones = vec![1.0; parameter.shape.iter().product()];
                Parameter::Dense(DenseTensor::from_f32(parameter.shape, &ones)?)
            }
        };
        parameters.insert(parameter.id, value);
        progress.advance(1);
    }
    progress.finish();
    Ok(Model { spec, config, parameters, companions: Companions::default(), path: PathBuf::from(shape.name) })
}

/// A matrix of even draws, in the parts that the scheme has.
fn random_matrix(seed: u64, rows: usize, columns: usize, scheme: QuantScheme, two_of_four: bool) -> QuantizedMatrix {
    let part = |rows: Range<usize>, scheme| random_rows(seed, rows.len(), columns, scheme, two_of_four);
    QuantizedMatrix::of_parts(scheme, (rows, columns), part)
}

/// Even draws over the values of the scheme; of every four columns, two drawn ones are zero where that is asked for.
fn random_rows(seed: u64, rows: usize, columns: usize, scheme: QuantScheme, two_of_four: bool) -> QuantizedMatrix {
    /// Mean of the multipliers, which are even over 64 … 127.
    const MEAN_MULTIPLIER: f32 = 95.5;
    let SchemeDef { bits, group, range: (low, high), .. } = *scheme.def();
    let multipliers = group.map_or(0, |group| columns.div_ceil(group));
    // The standard deviation of even draws over n integers is sqrt((n² − 1) / 12); halving the non-zeros takes sqrt(2)
    // off.
    let integers = f32::from(high) - f32::from(low) + 1.0;
    let deviation = ((integers * integers - 1.0) / 12.0).sqrt() * if multipliers > 0 { MEAN_MULTIPLIER } else { 1.0 };
    let deviation = if two_of_four { deviation * std::f32::consts::FRAC_1_SQRT_2 } else { deviation };
    let scale = 0.7 / (columns as f32).sqrt() / deviation;
    let mut values = vec![0i8; rows * columns];
    values.par_chunks_mut(columns).enumerate().for_each(|(row, values)| {
        let stream = seed << 32 | row as u64;
        for (n, eight) in values.chunks_mut(8).enumerate() {
            let draw = random_u64(stream, n as u64).to_le_bytes();
            for (value, byte) in eight.iter_mut().zip(draw) {
                *value = ((byte << (8 - bits)) as i8 >> (8 - bits)).max(low);
            }
            if two_of_four {
                for (four, byte) in eight.chunks_mut(4).zip(random_u64(!stream, n as u64).to_le_bytes()) {
                    let first = usize::from(byte & 3);
                    let second = (first + 1 + usize::from(byte >> 2) % 3) % 4;
                    four[first] = 0;
                    four[second] = 0;
                }
            }
        }
    });
    let multiplier = |n: usize| 64 + (random_u64(seed, n as u64) & 63) as i8;
    let multiplier = (0..rows * multipliers).map(multiplier).collect();
    QuantizedMatrix {
        sparsity: two_of_four.then_some(NmPattern::TWO_OF_FOUR),
        ..QuantizedMatrix::new(scheme, from_rows(values, columns), vec![scale; rows], multiplier)
    }
}
