//! The weights as the forward sees them, and the way of its gradients back to the trained values.
//!
//! ```text
//! trained value ── adapter ── transform ──> what the forward sees        frozen value ── transform, once ──> the same
//! ```
//!
//! Weights that nothing changes are lent from the trained values, not copied.

use super::adapter;
use super::optimizer::Gradients;
use super::parameters::{Parameters, TrainedId};
use super::scope::Scope;
use crate::model::id::{ParameterId, Part};
use crate::model::transform::Transform;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A parameter that is not trained.
struct Frozen {
    /// As it was read.
    start: Arc<Vec<f32>>,
    /// As the forward sees it; with an adapter, what that is added to.
    seen: Arc<Vec<f32>>,
}

/// What stands between the trained values and the forward.
pub(super) struct View<'v> {
    transform: &'v dyn Transform,
    scope: &'v Scope,
    frozen: BTreeMap<ParameterId, Frozen>,
}

/// The values that the forward sees of one tensor.
pub(super) struct Lent {
    pub(super) values: Arc<Vec<f32>>,
    /// Whether a gradient by them is needed.
    pub(super) trained: bool,
    /// Whether they are the trained ones themselves.
    borrowed: bool,
}

impl<'v> View<'v> {
    /// The view, and the values that are trained, of those at the start.
    pub(super) fn new(
        start: BTreeMap<ParameterId, Vec<f32>>,
        scope: &'v Scope,
        transform: &'v dyn Transform,
        seed: u64,
    ) -> (Self, Parameters) {
        let mut trained = adapter::initialise(scope, seed);
        let mut frozen = BTreeMap::new();
        for (id, values) in start {
            if scope.trains(id) {
                trained.insert(TrainedId::Parameter(id), values);
                continue;
            }
            let start = Arc::new(values);
            let seen = match id {
                ParameterId::Linear(linear, Part::Weight)
                    if transform.changes(linear) && scope.adapter(linear).is_none() =>
                {
                    Arc::new(transform.apply(linear, &start))
                }
                _ => Arc::clone(&start),
            };
            frozen.insert(id, Frozen { start, seen });
        }
        (View { transform, scope, frozen }, trained)
    }

    /// The matrix with its adapter, before the transform.
    fn adapted(&self, id: ParameterId, parameters: &Parameters) -> Option<Vec<f32>> {
        let ParameterId::Linear(linear, Part::Weight) = id else { return None };
        let shape = self.scope.adapter(linear)?;
        let (a, b) = (&parameters[&TrainedId::AdapterA(linear)], &parameters[&TrainedId::AdapterB(linear)]);
        Some(adapter::effective(&self.frozen[&id].seen, a, b, shape))
    }

    /// The matrix with its adapter as the forward sees it.
    fn seen_adapted(&self, id: ParameterId, parameters: &Parameters) -> Option<Vec<f32>> {
        let values = self.adapted(id, parameters)?;
        match id {
            ParameterId::Linear(linear, _) if self.transform.changes(linear) => {
                Some(self.transform.apply(linear, &values))
            }
            _ => Some(values),
        }
    }

    /// Copies of everything that the forward sees.
    pub(super) fn seen(&self, parameters: &Parameters) -> Parameters {
        let of_trained = |(id, values): (&TrainedId, &Vec<f32>)| match id {
            TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => None,
            TrainedId::Parameter(ParameterId::Linear(linear, Part::Weight)) => {
                Some((*id, self.transform.apply(*linear, values)))
            }
            _ => Some((*id, values.clone())),
        };
        let mut seen: Parameters = parameters.par_iter().filter_map(of_trained).collect();
        for (id, frozen) in &self.frozen {
            let values = self.seen_adapted(*id, parameters).unwrap_or_else(|| frozen.seen.to_vec());
            seen.insert(TrainedId::Parameter(*id), values);
        }
        seen
    }

    /// Whether every trained value is what the forward sees, with no transform and no adapter between.
    pub(super) fn is_plain(&self, parameters: &Parameters) -> bool {
        let changed = |id: &TrainedId| match id {
            TrainedId::Parameter(ParameterId::Linear(linear, Part::Weight)) => self.transform.changes(*linear),
            TrainedId::Parameter(_) | TrainedId::Projection(_) => false,
            TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => true,
        };
        !parameters.keys().any(changed)
    }

    /// Takes what the forward sees out of the trained values, until [`give_back`].
    pub(super) fn lend(&self, parameters: &mut Parameters) -> BTreeMap<TrainedId, Lent> {
        let mut lent = BTreeMap::new();
        for (id, frozen) in &self.frozen {
            let one = match self.seen_adapted(*id, parameters) {
                Some(values) => Lent { values: Arc::new(values), trained: true, borrowed: false },
                None => Lent { values: Arc::clone(&frozen.seen), trained: false, borrowed: false },
            };
            lent.insert(TrainedId::Parameter(*id), one);
        }
        let one = |(id, values): (&TrainedId, &mut Vec<f32>)| match id {
            TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => None,
            TrainedId::Parameter(ParameterId::Linear(linear, Part::Weight)) if self.transform.changes(*linear) => {
                let values = Arc::new(self.transform.apply(*linear, values));
                Some((*id, Lent { values, trained: true, borrowed: false }))
            }
            _ => Some((*id, Lent { values: Arc::new(std::mem::take(values)), trained: true, borrowed: true })),
        };
        lent.par_extend(parameters.par_iter_mut().filter_map(one));
        lent
    }

    /// Gradients by the trained values, from those by what the forward sees; and those of matrices with adapters, of which only
    /// the memory is of use.
    pub(super) fn pull_back(&self, parameters: &Parameters, gradients: Gradients) -> (Gradients, Gradients) {
        let (mut pulled, mut spent) = (Gradients::new(), Gradients::new());
        for (id, values) in gradients {
            let TrainedId::Parameter(ParameterId::Linear(linear, Part::Weight)) = id else {
                pulled.insert(id, values);
                continue;
            };
            let Some(shape) = self.scope.adapter(linear) else {
                pulled.insert(id, self.transform.pull_back(linear, &parameters[&id], values));
                continue;
            };
            let values = match self.transform.changes(linear) {
                true => {
                    let adapted = self.adapted(ParameterId::weight(linear), parameters).unwrap_or_default();
                    self.transform.pull_back(linear, &adapted, values)
                }
                false => values,
            };
            let (a, b) = (TrainedId::AdapterA(linear), TrainedId::AdapterB(linear));
            let (of_a, of_b) = adapter::pull_back(&values, &parameters[&a], &parameters[&b], shape);
            pulled.extend([(a, of_a), (b, of_b)]);
            spent.insert(id, values);
        }
        (pulled, spent)
    }

    /// Lets the transform settle the trained matrices after a step, `share` of the run being done.
    pub(super) fn settle(&self, parameters: &mut Parameters, share: f64) {
        parameters.par_iter_mut().for_each(|(id, values)| {
            if let TrainedId::Parameter(ParameterId::Linear(linear, Part::Weight)) = id {
                self.transform.settle(*linear, share, values);
            }
        });
    }

    /// Every parameter of the student after the run, adapters merged, and the adapters' own matrices.
    pub(super) fn finish(self, parameters: Parameters) -> (BTreeMap<ParameterId, Vec<f32>>, Parameters) {
        let mut all = BTreeMap::new();
        let adapted: Vec<ParameterId> = self.scope.adapters().keys().map(|id| ParameterId::weight(*id)).collect();
        for id in adapted {
            if let Some(values) = self.adapted(id, &parameters) {
                all.insert(id, values);
            }
        }
        for (id, Frozen { start, seen }) in self.frozen {
            drop(seen);
            all.entry(id).or_insert_with(|| Arc::try_unwrap(start).unwrap_or_else(|shared| shared.to_vec()));
        }
        let mut adapters = Parameters::new();
        for (id, values) in parameters {
            match id {
                TrainedId::Parameter(id) => drop(all.insert(id, values)),
                TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => drop(adapters.insert(id, values)),
                TrainedId::Projection(_) => {}
            }
        }
        (all, adapters)
    }
}

/// Gives back what was lent.
pub(super) fn give_back(parameters: &mut Parameters, lent: BTreeMap<TrainedId, Lent>) {
    for (id, lent) in lent.into_iter().filter(|(_, lent)| lent.borrowed) {
        let values = Arc::try_unwrap(lent.values).unwrap_or_else(|shared| shared.to_vec());
        parameters.insert(id, values);
    }
}
