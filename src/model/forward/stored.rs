//! Weights in the format their directory stores them in: halves stay halves, quantized matrices integers, and the file
//! stays mapped. Every use converts to f32 what it needs, exactly, so that the model is the same as with [`DenseWeights`] up
//! to the order of sums. For generation, which uses a weight once per token and reads it from memory each time.

use super::product::product;
use super::source::{DenseWeights, WeightSource};
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::weights::{Model, ModelError, Parameter};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Every weight of a model as it is stored, but vectors and small tables as f32 tensors on a device.
#[derive(Clone, Debug)]
pub struct StoredWeights {
    /// Those that are multiplied with inputs, and the token table.
    matrices: BTreeMap<LinearId, (Parameter, [usize; 2])>,
    others: DenseWeights,
    tied_head: bool,
    device: Device,
}

impl StoredWeights {
    /// Takes the weights of a model.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn new(model: &Model, device: &Device) -> Result<Self, ModelError> {
        let spec = &model.spec;
        let kept = |id: LinearId| spec.multiplies(id) || id.role == Role::TokenEmbedding;
        let mut matrices = BTreeMap::new();
        for (id, rows, columns) in spec.matrices().into_iter().filter(|(id, ..)| kept(*id)) {
            let parameter = ParameterId::weight(id);
            let Some(stored) = model.parameters.get(&parameter) else {
                return Err(ModelError::NoParameter { path: model.path.clone(), id: parameter });
            };
            if let Parameter::Dense(tensor) = stored {
                tensor.check_finite(&parameter.to_string())?;
            }
            matrices.insert(id, (stored.clone(), [rows, columns]));
        }
        let rest = |parameter| !matches!(parameter, ParameterId::Linear(id, Part::Weight) if kept(id));
        let others = DenseWeights::part(model, device, rest)?;
        Ok(StoredWeights { matrices, others, tied_head: spec.tied_head(), device: device.clone() })
    }

    fn stored(&self, id: LinearId) -> Option<&(Parameter, [usize; 2])> {
        let table = self.tied_head && id.role == Role::LmHead;
        self.matrices.get(&if table { LinearId::global(Role::TokenEmbedding) } else { id })
    }

    fn some_rows(&self, (stored, [_, columns]): &(Parameter, [usize; 2]), rows: &[u32]) -> Tensor<2> {
        let mut values = vec![0.0; rows.len() * columns];
        values.par_chunks_mut(*columns).zip(rows).for_each(|(out, &row)| stored.read_row(row as usize, out));
        Tensor::from_data(TensorData::new(values, [rows.len(), *columns]), &self.device)
    }
}

impl WeightSource for StoredWeights {
    fn matrix(&self, id: LinearId) -> Tensor<2> {
        match self.stored(id) {
            Some(matrix) => self.some_rows(matrix, &(0..matrix.1[0] as u32).collect::<Vec<u32>>()),
            None => self.others.matrix(id),
        }
    }

    fn vector(&self, id: ParameterId) -> Tensor<1> {
        self.others.vector(id)
    }

    fn product(&self, id: LinearId, input: Tensor<2>) -> Tensor<2> {
        let Some((stored, [rows, columns])) = self.stored(id) else { return self.others.product(id, input) };
        let [inputs, _] = input.dims();
        let input = input.into_data();
        let output = product(stored, [*rows, *columns], input.as_slice().unwrap_or_default());
        Tensor::from_data(TensorData::new(output, [inputs, *rows]), &self.device)
    }

    fn rows(&self, id: LinearId, rows: &[u32]) -> Tensor<2> {
        match self.stored(id) {
            Some(matrix) => self.some_rows(matrix, rows),
            None => self.others.rows(id, rows),
        }
    }
}
