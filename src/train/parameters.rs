//! The trained tensors: every parameter of the student in f32 on the host, and the projections between hidden states of
//! different widths. The forward reads them through the transforms of the run.

use crate::model::forward::WeightSource;
use crate::model::graph::Graph;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::spec::ModelSpec;
use burn::tensor::{Device, Tensor, TensorData};
use slm_runtime::sample::random_u64;
use std::collections::{BTreeMap, BTreeSet};

/// One trained tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrainedId {
    /// A parameter of the student.
    Parameter(ParameterId),
    /// (student width, teacher width) for mapped pair number n; dropped when training ends.
    Projection(u16),
    /// A of a matrix's adapter, (rank, in).
    AdapterA(LinearId),
    /// B of a matrix's adapter, (out, rank).
    AdapterB(LinearId),
}

impl TrainedId {
    /// Whether weight decay applies: to matrices only.
    pub fn decays(self) -> bool {
        !matches!(self, TrainedId::Parameter(id) if !matches!(id, ParameterId::Linear(_, Part::Weight)))
    }
}

impl std::fmt::Display for TrainedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TrainedId::Parameter(id) => write!(f, "{id}"),
            TrainedId::Projection(pair) => write!(f, "projection.{pair}"),
            TrainedId::AdapterA(id) => write!(f, "{id}.lora_a"),
            TrainedId::AdapterB(id) => write!(f, "{id}.lora_b"),
        }
    }
}

/// Values by tensor, row-major.
pub type Parameters = BTreeMap<TrainedId, Vec<f32>>;

/// A normal draw by Box and Muller from two uniform ones; the same on every machine.
fn normal(seed: u64, index: u64) -> f64 {
    let unit = |n: u64| ((random_u64(seed, n) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (radius, angle) = (unit(2 * index), unit(2 * index + 1));
    libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(2.0 * std::f64::consts::PI * angle)
}

/// `count` normal draws of standard deviation `deviation`.
pub fn normals(seed: u64, count: usize, deviation: f64) -> Vec<f32> {
    (0..count as u64).map(|index| (normal(seed, index) * deviation) as f32).collect()
}

/// Random weights for a model trained from nothing: normal with deviation 0.02, the projections back into the residual
/// stream divided by √(2 · layers) (Radford et al. 2019); norms multiply by 1, biases are 0.
pub fn initialise(spec: &ModelSpec, seed: u64) -> BTreeMap<ParameterId, Vec<f32>> {
    let depth = (2.0 * spec.layers.len() as f64).sqrt();
    let draw = |number: usize, count, deviation| normals(random_u64(seed, number as u64), count, deviation);
    let graph = Graph::new(spec);
    let back: BTreeSet<LinearId> =
        graph.linears().filter(|linear| linear.into_residual).map(|linear| linear.id).collect();
    let mut out = BTreeMap::new();
    for (number, parameter) in spec.parameters().into_iter().enumerate() {
        let count = parameter.shape.iter().product();
        let values = match parameter.id {
            ParameterId::Linear(id, Part::Weight) => {
                draw(number, count, if back.contains(&id) { 0.02 / depth } else { 0.02 })
            }
            ParameterId::Kernel(_, Part::Weight) => draw(number, count, 0.02),
            ParameterId::Norm(.., Part::Weight) if !spec.counts_from_one(parameter.id) => vec![1.0; count],
            _ => vec![0.0; count],
        };
        out.insert(parameter.id, values);
    }
    out
}

/// What burn says of a device that gives no values, in one line: the cause, which stands last.
pub(super) fn cause(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().to_owned()
}

/// The student's weights on a device, in no graph: what the graphs of several pieces begin from.
pub(crate) struct Uploaded {
    matrices: BTreeMap<LinearId, Tensor<2>>,
    vectors: BTreeMap<ParameterId, Tensor<1>>,
    projections: BTreeMap<u16, Tensor<2>>,
    tied_head: bool,
}

impl Uploaded {
    /// Uploads what the forward sees to a device that records nothing.
    pub(crate) fn new(spec: &ModelSpec, effective: &Parameters, device: &Device) -> Self {
        let mut uploaded = Uploaded {
            matrices: BTreeMap::new(),
            vectors: BTreeMap::new(),
            projections: BTreeMap::new(),
            tied_head: spec.tied_head(),
        };
        let shapes: BTreeMap<ParameterId, Vec<usize>> =
            spec.parameters().into_iter().map(|parameter| (parameter.id, parameter.shape)).collect();
        for (id, values) in effective {
            match id {
                TrainedId::Parameter(id) => match id {
                    ParameterId::Linear(linear, Part::Weight) => {
                        let data = TensorData::new(values.clone(), shapes[id].clone());
                        uploaded.matrices.insert(*linear, Tensor::from_data(data, device));
                    }
                    _ => {
                        let data = TensorData::new(values.clone(), [values.len()]);
                        uploaded.vectors.insert(*id, Tensor::from_data(data, device));
                    }
                },
                TrainedId::Projection(pair) => {
                    let data = TensorData::new(values.clone(), [spec.hidden, values.len() / spec.hidden]);
                    uploaded.projections.insert(*pair, Tensor::from_data(data, device));
                }
                // Seen as part of their matrix.
                TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => {}
            }
        }
        uploaded
    }

    /// Leaves of a new graph, with gradients of the parameters that `needs` says.
    pub(crate) fn record(&self, needs: impl Fn(ParameterId) -> bool) -> Leaves {
        fn leaf<const D: usize>(values: &Tensor<D>, needed: bool) -> Tensor<D> {
            let tensor = Tensor::from_inner(values.clone());
            if needed { tensor.require_grad() } else { tensor }
        }
        Leaves {
            matrices: self.matrices.iter().map(|(id, v)| (*id, leaf(v, needs(ParameterId::weight(*id))))).collect(),
            vectors: self.vectors.iter().map(|(id, v)| (*id, leaf(v, needs(*id)))).collect(),
            projections: self.projections.iter().map(|(pair, v)| (*pair, leaf(v, true))).collect(),
            tied_head: self.tied_head,
        }
    }
}

/// The student's weights as leaves of one gradient graph.
pub(crate) struct Leaves {
    matrices: BTreeMap<LinearId, Tensor<2>>,
    vectors: BTreeMap<ParameterId, Tensor<1>>,
    projections: BTreeMap<u16, Tensor<2>>,
    tied_head: bool,
}

impl Leaves {
    /// Uploads what the forward sees, as leaves of a graph of their own.
    pub(crate) fn new(
        spec: &ModelSpec,
        effective: &Parameters,
        needs: impl Fn(ParameterId) -> bool,
        device: &Device,
    ) -> Self {
        Uploaded::new(spec, effective, &device.clone().inner()).record(needs)
    }

    /// The projection of a mapped pair, where widths differ.
    pub(super) fn projection(&self, pair: u16) -> Option<Tensor<2>> {
        self.projections.get(&pair).cloned()
    }

    /// Every leaf's gradient; a tensor the loss does not reach has none.
    ///
    /// # Errors
    /// Values that the device does not give: it may be that of a worker.
    pub(crate) fn gradients(&self, recorded: &burn::tensor::Gradients) -> Result<super::optimizer::Gradients, String> {
        fn values<const D: usize>(gradient: Tensor<D>) -> Result<Vec<f32>, String> {
            let data = gradient.try_into_data().map_err(|error| cause(&error))?;
            data.try_into_vec::<f32>().map_err(|error| format!("{error:?}"))
        }
        let mut out = super::optimizer::Gradients::new();
        for (id, leaf) in &self.matrices {
            if let Some(gradient) = leaf.grad(recorded) {
                out.insert(TrainedId::Parameter(ParameterId::weight(*id)), values(gradient)?);
            }
        }
        for (id, leaf) in &self.vectors {
            if let Some(gradient) = leaf.grad(recorded) {
                out.insert(TrainedId::Parameter(*id), values(gradient)?);
            }
        }
        for (pair, leaf) in &self.projections {
            if let Some(gradient) = leaf.grad(recorded) {
                out.insert(TrainedId::Projection(*pair), values(gradient)?);
            }
        }
        Ok(out)
    }
}

impl WeightSource for Leaves {
    fn matrix(&self, id: LinearId) -> Tensor<2> {
        let tied = self.tied_head && id.role == Role::LmHead;
        self.matrices[&if tied { LinearId::global(Role::TokenEmbedding) } else { id }].clone()
    }

    fn vector(&self, id: ParameterId) -> Tensor<1> {
        self.vectors[&id].clone()
    }
}
