//! A model whose integers have become the floating-point values that they stand for, decoded row by row when they are asked
//! for. What only slmc's own directory has, the section of its quantization and key maps, is gone.

use crate::disk::tensor::Rows;
use crate::disk::{Config, DenseTensor, DenseType};
use crate::formats::slmc_quantized::layout::KEY;
use crate::model::id::ParameterId;
use crate::model::quantized::QuantizedMatrix;
use crate::model::weights::{Model, Parameter};
use std::path::Path;
use std::sync::Arc;

/// The rows of a quantized matrix in f32, which holds row_scale · (multiplier · integer) as the model computes it.
#[derive(Debug)]
struct Dequantized(Arc<QuantizedMatrix>);

impl Rows for Dequantized {
    fn read(&self, row: usize, out: &mut [f32]) {
        self.0.read_row(row, out);
    }

    fn file(&self) -> Option<&Path> {
        None
    }
}

/// A configuration without the section that says how slmc has quantized the model.
pub(in crate::formats) fn plain_config(config: &Config) -> Config {
    let mut map = config.map().clone();
    map.shift_remove(KEY);
    Config::from_map(config.file(), map)
}

/// The matrix in floating point.
pub(in crate::formats) fn dense(id: ParameterId, matrix: Arc<QuantizedMatrix>) -> DenseTensor {
    let shape = vec![matrix.rows(), matrix.columns()];
    DenseTensor::in_rows(&id.to_string(), shape, DenseType::F32, Arc::new(Dequantized(matrix)))
}

/// The model in floating point.
pub(in crate::formats) fn dense_model(model: Model) -> Model {
    let config = plain_config(&model.config);
    let parameters = model.parameters.into_iter().filter(|(id, _)| !matches!(id, ParameterId::KeyMap(..)));
    let parameters = parameters.map(|(id, parameter)| match parameter {
        Parameter::Quantized(matrix) => (id, Parameter::Dense(dense(id, Arc::new(matrix)))),
        floating => (id, floating),
    });
    Model { config, parameters: parameters.collect(), ..model }
}
