//! Where the forward reads weights: behind a trait, so that masks and fake quantization can stand between a parameter
//! and its use.

use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, ModelError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::collections::BTreeMap;

/// Weights as the forward uses them. Asked only for parameters that the model's specification lists, and for `head.lm`
/// of a tied head, which is the token table.
pub trait WeightSource: Sync {
    /// A matrix, (out, in).
    fn matrix(&self, id: LinearId) -> Tensor<2>;
    /// A bias, a norm's vector, or a convolution's kernel, row by row.
    fn vector(&self, id: ParameterId) -> Tensor<1>;

    /// input · matrixᵀ: (tokens, in) to (tokens, out).
    fn product(&self, id: LinearId, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.matrix(id).transpose())
    }

    /// Some rows of a matrix, (rows, in).
    fn rows(&self, id: LinearId, rows: &[u32]) -> Tensor<2> {
        let table = self.matrix(id);
        let rows: Vec<i32> = rows.iter().map(|&row| row.cast_signed()).collect();
        let count = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &table.device());
        table.select(0, rows)
    }
}

/// Every weight of a model as an f32 tensor on a device.
#[derive(Clone, Debug)]
pub struct DenseWeights {
    matrices: BTreeMap<LinearId, Tensor<2>>,
    vectors: BTreeMap<ParameterId, Tensor<1>>,
    tied_head: bool,
}

impl DenseWeights {
    /// Converts and uploads all weights; quantized ones as the values their integers stand for.
    pub fn new(model: &Model, device: &Device) -> Result<Self, ModelError> {
        Self::from_values(&model.spec, device, |id| model.values_f32(id))
    }

    /// The parameters that `wanted` selects, for a forward called part by part: one layer, the embeddings, the head.
    pub fn part(model: &Model, device: &Device, wanted: impl Fn(ParameterId) -> bool) -> Result<Self, ModelError> {
        Self::selected(&model.spec, device, wanted, |id| model.values_f32(id))
    }

    /// From row-major values by parameter, asked for in the order of the forward.
    pub fn from_values<E>(
        spec: &ModelSpec,
        device: &Device,
        values: impl FnMut(ParameterId) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        Self::selected(spec, device, |_| true, values)
    }

    /// The parameters that `wanted` selects, from row-major values asked for in the order of the forward.
    pub fn selected<E>(
        spec: &ModelSpec,
        device: &Device,
        wanted: impl Fn(ParameterId) -> bool,
        mut values: impl FnMut(ParameterId) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut weights =
            DenseWeights { matrices: BTreeMap::new(), vectors: BTreeMap::new(), tied_head: spec.tied_head() };
        for parameter in spec.parameters().into_iter().filter(|parameter| wanted(parameter.id)) {
            let values = values(parameter.id)?;
            match parameter.id {
                ParameterId::Linear(id, Part::Weight) => {
                    let data = TensorData::new(values, parameter.shape);
                    weights.matrices.insert(id, Tensor::from_data(data, device));
                }
                id => {
                    let count = values.len();
                    weights.vectors.insert(id, Tensor::from_data(TensorData::new(values, [count]), device));
                }
            }
        }
        Ok(weights)
    }

    /// The same weights on another device, which may be that of another process: values go by this one's memory.
    pub fn copied_to(&self, device: &Device) -> Self {
        fn copy<const D: usize>(tensor: &Tensor<D>, device: &Device) -> Tensor<D> {
            Tensor::from_data(tensor.to_data(), device)
        }
        DenseWeights {
            matrices: self.matrices.iter().map(|(id, matrix)| (*id, copy(matrix, device))).collect(),
            vectors: self.vectors.iter().map(|(id, vector)| (*id, copy(vector, device))).collect(),
            tied_head: self.tied_head,
        }
    }

    /// Puts another matrix in the place of one; a tied head is the token table.
    pub fn replace(&mut self, id: LinearId, matrix: Tensor<2>) {
        self.matrices.insert(self.stored(id), matrix);
    }

    /// Whether it is among the parameters that were asked for.
    pub(super) fn contains(&self, id: ParameterId) -> bool {
        match id {
            ParameterId::Linear(id, Part::Weight) => self.matrices.contains_key(&id),
            id => self.vectors.contains_key(&id),
        }
    }

    fn stored(&self, id: LinearId) -> LinearId {
        if self.tied_head && id.role == Role::LmHead { LinearId::global(Role::TokenEmbedding) } else { id }
    }
}

impl WeightSource for DenseWeights {
    fn matrix(&self, id: LinearId) -> Tensor<2> {
        self.matrices[&self.stored(id)].clone()
    }

    fn vector(&self, id: ParameterId) -> Tensor<1> {
        self.vectors[&id].clone()
    }
}
