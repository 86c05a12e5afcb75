//! The weights that fused operations read, shared by all parts of a batch, and the memory where their gradients are summed:
//! by one operation after the other, in the order of the backward pass, each in place. Where gradients are wanted sample by
//! sample, operations leave the terms of the sum instead, row by row ([`KeptTerms`]).

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

/// What some rows of an operation's input add to a weight's gradient.
#[derive(Debug)]
pub struct Terms {
    /// Number of the first row.
    pub first: usize,
    /// How many rows.
    pub rows: usize,
    /// Rows of the whole operation.
    pub of: usize,
    /// The terms.
    pub kind: TermKind,
}

/// The terms of a gradient.
#[derive(Debug)]
pub enum TermKind {
    /// Row r adds dy_rᵀ · x_r, (out, in).
    Products {
        /// (rows, out)
        dy: Vec<f32>,
        /// (rows, in)
        x: Vec<f32>,
        /// Width of x.
        inputs: usize,
    },
    /// Row r adds its values.
    Vectors(Vec<f32>),
    /// An operation that keeps no terms has a part in this gradient.
    Unknown,
}

/// The terms of a weight's gradient from every operation that reads it, in the order of the backward pass.
#[derive(Debug, Default)]
pub struct KeptTerms(Mutex<Vec<Terms>>);

impl KeptTerms {
    /// The terms.
    pub fn into_terms(self) -> Vec<Terms> {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps the terms of `rows` rows from number `first` on, of the `of` that the operation has.
    pub(crate) fn keep(&self, [first, rows, of]: [usize; 3], kind: TermKind) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Terms { first, rows, of, kind });
    }
}

/// Where a gradient goes.
#[derive(Clone, Debug)]
enum Gradient {
    Sum(Arc<GradientSum>),
    Terms(Arc<KeptTerms>),
}

/// One weight.
#[derive(Clone, Debug)]
pub struct Weight {
    values: Values,
    gradient: Option<Gradient>,
}

impl Weight {
    /// A weight that is trained.
    pub fn trained(values: Arc<Vec<f32>>, gradient: Arc<GradientSum>) -> Self {
        Weight { values: Values::Shared(values), gradient: Some(Gradient::Sum(gradient)) }
    }

    /// A weight whose gradient is left as terms.
    pub fn by_terms(values: Arc<Vec<f32>>, terms: Arc<KeptTerms>) -> Self {
        Weight { values: Values::Shared(values), gradient: Some(Gradient::Terms(terms)) }
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
        let sum = match &self.gradient {
            None => return,
            Some(Gradient::Terms(terms)) => return terms.keep([0; 3], TermKind::Unknown),
            Some(Gradient::Sum(sum)) => sum,
        };
        let mut summed = sum.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let begun = std::mem::replace(&mut summed.begun, true);
        summed.values.resize(self.values().len(), 0.0);
        add(&mut summed.values, begun);
    }

    /// Where the terms of its gradient are left, if they are.
    pub(crate) fn terms(&self) -> Option<&KeptTerms> {
        match &self.gradient {
            Some(Gradient::Terms(terms)) => Some(terms),
            _ => None,
        }
    }

    /// Whether it is trained.
    pub fn is_trained(&self) -> bool {
        self.gradient.is_some()
    }
}
