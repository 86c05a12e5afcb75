//! Every weight of a model as fused operations read it.

use crate::model::forward::{DenseWeights, WeightSource};
use crate::model::id::{Class, LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, ModelError};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};
use slm_fused::node::tensor;
use slm_fused::weights::Weight;
use std::collections::BTreeMap;

/// Every weight of a model, for a forward of fused operations.
#[derive(Clone, Debug)]
pub struct FusedWeights {
    weights: BTreeMap<ParameterId, Weight>,
    tied_head: bool,
}

impl FusedWeights {
    /// Weights that are trained or not, by parameter.
    pub(crate) fn new(spec: &ModelSpec, weights: BTreeMap<ParameterId, Weight>) -> Self {
        FusedWeights { weights, tied_head: spec.tied_head() }
    }

    /// Shares the tensors of dense weights, all or the part there is; `None` where they are not on the flex device.
    pub fn of(spec: &ModelSpec, source: &DenseWeights) -> Option<Self> {
        fn primitive<const D: usize>(tensor: Tensor<D>) -> Option<FlexTensor> {
            let tensor = tensor.try_into_primitive::<Flex>().ok()?;
            Some(if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
        }
        let mut weights = BTreeMap::new();
        for parameter in spec.parameters().into_iter().filter(|parameter| source.contains(parameter.id)) {
            let tensor = match parameter.id {
                ParameterId::Linear(id, Part::Weight) => primitive(source.matrix(id))?,
                id => primitive(source.vector(id))?,
            };
            weights.insert(parameter.id, Weight::frozen(tensor));
        }
        Some(FusedWeights::new(spec, weights))
    }

    /// The first layer with a trained weight where none before the layers is trained: their number, where only heads are.
    pub(crate) fn first_trained(&self, spec: &ModelSpec) -> Option<usize> {
        let before = |id: &ParameterId| match id {
            ParameterId::Linear(linear, _) => linear.role.class() == Class::Embedding,
            ParameterId::Norm(None, site, _) => *site == NormSite::Embedding,
            _ => false,
        };
        let trained = || self.weights.iter().filter(|(_, weight)| weight.is_trained()).map(|(id, _)| id);
        if trained().any(before) {
            return None;
        }
        let of_exit =
            |id: &&ParameterId| matches!(id, ParameterId::Linear(linear, _) if linear.role.class() == Class::Exit);
        let layers = trained().filter(|id| !of_exit(id)).filter_map(|id| id.layer()).map(usize::from).min();
        Some(layers.unwrap_or(spec.layers.len()))
    }

    fn stored(&self, id: LinearId) -> LinearId {
        if self.tied_head && id.role == Role::LmHead { LinearId::global(Role::TokenEmbedding) } else { id }
    }

    /// The weights of a model, converted once.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of_model(model: &Model) -> Result<Self, ModelError> {
        let mut weights = BTreeMap::new();
        for parameter in model.spec.parameters() {
            let values = tensor(model.values_f32(parameter.id)?, &parameter.shape);
            weights.insert(parameter.id, Weight::frozen(values));
        }
        Ok(FusedWeights::new(&model.spec, weights))
    }

    /// Values by parameter, none of which is trained.
    pub fn frozen(spec: &ModelSpec, values: impl Iterator<Item = (ParameterId, Vec<f32>)>) -> Self {
        let shapes: BTreeMap<ParameterId, Vec<usize>> =
            spec.parameters().into_iter().map(|parameter| (parameter.id, parameter.shape)).collect();
        let frozen = |(id, values)| Some((id, Weight::frozen(tensor(values, shapes.get(&id)?))));
        FusedWeights::new(spec, values.filter_map(frozen).collect())
    }

    /// A matrix; a tied head is the token table.
    pub(crate) fn matrix(&self, id: LinearId) -> &Weight {
        &self.weights[&ParameterId::weight(self.stored(id))]
    }

    /// A bias, a norm or a kernel.
    pub(crate) fn vector(&self, id: ParameterId) -> &Weight {
        &self.weights[&id]
    }
}
