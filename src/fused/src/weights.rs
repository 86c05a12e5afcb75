//! The weights that fused operations read, shared by all parts of a batch, and the memory where their gradients are summed:
//! by one operation after the other, in the order of the backward pass, each in place.

use crate::node::slice;
use burn_flex::FlexTensor;
use std::sync::{Arc, Mutex};

/// Where values are.
#[derive(Clone, Debug)]
enum Values {
    Shared(Arc<Vec<f32>>),
    Tensor(FlexTensor),
}

/// The sum of a weight's gradients so far.
#[derive(Debug, Default)]
pub struct GradientSum(Mutex<Summed>);

#[derive(Debug, Default)]
struct Summed {
    values: Vec<f32>,
    /// Whether `values` are a sum and not of an earlier step.
    begun: bool,
}

impl GradientSum {
    /// A sum of nothing, in the memory of an earlier one.
    pub fn reusing(values: Vec<f32>) -> Self {
        GradientSum(Mutex::new(Summed { values, begun: false }))
    }

    /// The sum; nothing where nothing was added, and the memory in any case.
    pub fn into_values(self) -> (bool, Vec<f32>) {
        let summed = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        (summed.begun, summed.values)
    }
}

/// One weight.
#[derive(Clone, Debug)]
pub struct Weight {
    values: Values,
    gradient: Option<Arc<GradientSum>>,
}

impl Weight {
    /// A weight that is trained.
    pub fn trained(values: Arc<Vec<f32>>, gradient: Arc<GradientSum>) -> Self {
        Weight { values: Values::Shared(values), gradient: Some(gradient) }
    }

    /// A weight that is not.
    pub fn frozen(tensor: FlexTensor) -> Self {
        Weight { values: Values::Tensor(tensor), gradient: None }
    }

    /// A weight that is not, lent by others.
    pub fn fixed(values: Arc<Vec<f32>>) -> Self {
        Weight { values: Values::Shared(values), gradient: None }
    }

    /// Row-major.
    pub fn values(&self) -> &[f32] {
        match &self.values {
            Values::Shared(values) => values,
            Values::Tensor(tensor) => slice(tensor),
        }
    }

    /// Lets `add` add a gradient, as long as the weight: it is told whether to add to what is there or to write over it.
    pub fn add_gradient(&self, add: impl FnOnce(&mut [f32], bool)) {
        let Some(gradient) = &self.gradient else { return };
        let mut summed = gradient.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let begun = std::mem::replace(&mut summed.begun, true);
        summed.values.resize(self.values().len(), 0.0);
        add(&mut summed.values, begun);
    }

    /// Whether it is trained.
    pub fn is_trained(&self) -> bool {
        self.gradient.is_some()
    }
}
