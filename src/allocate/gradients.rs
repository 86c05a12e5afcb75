//! Gradients of −log p(y) by every matrix, one sequence at a time, y labels that the model itself draws; of bare encoders
//! gradients of r·e, e the normalised pooled state and r a random direction. On fused operations where the device has
//! them, each by all threads; their memory is that of the weights, and serves one sequence after the other.

use crate::calibrate::probe::ProbeError;
use crate::model::forward::{Batch, Forward, FusedForward, FusedWeights, Unobserved};
use crate::model::id::{LinearId, ParameterId};
use crate::model::spec::{Head, ModelSpec};
use crate::model::weights::Model;
use crate::train::parameters::{Leaves, Parameters, TrainedId, normals};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use rayon::prelude::*;
use slm_fused::head::{Weighting, losses};
use slm_fused::linear::linear;
use slm_fused::node::Value;
use slm_fused::weights::{GradientSum, Weight};
use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A model's weights and their gradients of the sequence before.
pub(super) struct Gradients<'m> {
    spec: &'m ModelSpec,
    device: Device,
    /// In the order of the specification.
    values: BTreeMap<ParameterId, Arc<Vec<f32>>>,
    gradients: BTreeMap<ParameterId, Vec<f32>>,
}

impl<'m> Gradients<'m> {
    /// Reads the weights.
    pub(super) fn new(model: &'m Model, device: &Device) -> Result<Self, ProbeError> {
        let parameters = model.spec.parameters();
        let value = |id: ParameterId| Ok((id, Arc::new(model.values_f32(id)?)));
        let values = parameters.into_iter().map(|parameter| value(parameter.id)).collect::<Result<_, ProbeError>>()?;
        Ok(Gradients { spec: &model.spec, device: device.clone(), values, gradients: BTreeMap::new() })
    }

    /// Values and gradient of a matrix, row-major; `None` for one that the sequence does not reach.
    pub(super) fn matrix(&self, id: LinearId) -> Option<(&[f32], &[f32])> {
        let id = ParameterId::weight(id);
        Some((self.values.get(&id)?, self.gradients.get(&id)?))
    }

    /// Gradients of a batch of one sequence; how many predictions they are summed over.
    pub(super) fn of(&mut self, batch: Batch, stream: u64) -> Result<usize, ProbeError> {
        let recording = self.device.clone().autodiff();
        match Value::of(Tensor::<1>::zeros([1], &recording).require_grad()) {
            Some(root) => self.fused(&batch, &root, stream),
            None => self.plain(&batch, stream, &recording),
        }
    }

    fn fused(&mut self, batch: &Batch, root: &Value, stream: u64) -> Result<usize, ProbeError> {
        let sums: BTreeMap<ParameterId, Arc<GradientSum>> = self
            .values
            .keys()
            .map(|id| (*id, Arc::new(GradientSum::reusing(self.gradients.remove(id).unwrap_or_default()))))
            .collect();
        let weight =
            |(id, values): (&ParameterId, &Arc<Vec<f32>>)| (*id, Weight::trained(values.clone(), sums[id].clone()));
        let weights = FusedWeights::new(self.spec, self.values.iter().map(weight).collect());
        let forward = FusedForward::new(self.spec, &weights, false);
        let states = forward.states(batch, root, &mut Unobserved);
        let [_, length] = batch.dims();
        let predictions = match forward.head() {
            None => {
                let rows = states.last.into_tensor::<3>().reshape([length, self.spec.hidden]);
                along(rows, stream).backward();
                1
            }
            Some(head) => {
                let count = if self.spec.is_classifier() { 1 } else { length };
                let all: Vec<i32> = (0..count as i32).collect();
                let rows = forward.head_rows(states.last, batch, &all, &mut Unobserved);
                let logits = linear(&Value::Plain(rows.tensor()), vec![head.clone()], None);
                let labels = labels(values(logits.into_tensor::<2>())?, self.spec.output_width(), stream);
                let weighting = Weighting { cross_entropy: count as f64, ..Weighting::NONE };
                losses(&rows, &head, &labels, None, weighting).0.into_tensor::<1>().backward();
                count
            }
        };
        drop(weights);
        for (id, sum) in sums {
            let Ok(sum) = Arc::try_unwrap(sum) else { continue };
            if let (true, values) = sum.into_values() {
                self.gradients.insert(id, values);
            }
        }
        Ok(predictions)
    }

    /// The same on the operations of burn.
    fn plain(&mut self, batch: &Batch, stream: u64, recording: &Device) -> Result<usize, ProbeError> {
        let parameters = self.values.par_iter().map(|(id, values)| (TrainedId::Parameter(*id), values.to_vec()));
        let parameters: Parameters = parameters.collect();
        let leaves = Leaves::new(self.spec, &parameters, |_| true, recording);
        let logits = Forward::new(self.spec, &leaves, recording).run(batch, &mut Unobserved).logits;
        let [_, length, width] = logits.dims();
        let rows = logits.reshape([length, width]);
        let (score, predictions) = match self.spec.head {
            Head::Hidden => (along(rows, stream), 1),
            _ => {
                let labels = labels(values(rows.clone())?, width, stream);
                let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [length, 1]), recording);
                (log_softmax(rows, 1).gather(1, labels).sum().neg(), length)
            }
        };
        let gradients = leaves.gradients(&score.backward()).map_err(ProbeError::Device)?;
        self.gradients = gradients
            .into_iter()
            .filter_map(|(id, values)| match id {
                TrainedId::Parameter(id) => Some((id, values)),
                TrainedId::Projection(_) | TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => None,
            })
            .collect();
        Ok(predictions)
    }
}

fn values(rows: Tensor<2>) -> Result<Vec<f32>, ProbeError> {
    rows.into_data().try_to_vec::<f32>().map_err(|error| ProbeError::Device(format!("{error:?}")))
}

/// A random direction along the normalised mean of rows.
fn along(rows: Tensor<2>, stream: u64) -> Tensor<1> {
    let pooled = rows.mean_dim(0);
    let normalised = pooled.clone() / pooled.square().sum_dim(1).sqrt();
    let width = normalised.dims()[1];
    let direction = TensorData::new(normals(stream, width, 1.0), [1, width]);
    let direction = Tensor::<2>::from_data(direction, &normalised.device());
    (normalised * direction).sum()
}

/// A label for every row of logits, drawn from its softmax.
fn labels(logits: Vec<f32>, width: usize, stream: u64) -> Vec<i32> {
    logits.par_chunks_exact(width).enumerate().map(|(position, row)| draw(row, stream, position as u64)).collect()
}

/// A label drawn from the softmax of a row, in f64.
fn draw(row: &[f32], stream: u64, position: u64) -> i32 {
    let top = row.iter().fold(f32::NEG_INFINITY, |top, &value| top.max(value));
    let weights: Vec<f64> = row.iter().map(|&value| libm::exp(f64::from(value - top))).collect();
    let unit = (random_u64(stream, position) >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = unit * weights.iter().sum::<f64>();
    for (label, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return label as i32;
        }
    }
    row.len() as i32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::model::device::device;
    use std::path::Path;

    /// The largest difference from the operations of burn, over the largest gradient.
    fn difference(model: &Model, tokens: &[u32]) -> f64 {
        let of = |name: &str| {
            let mut gradients = Gradients::new(model, &device(name).expect("a device")).expect("readable weights");
            let batch = |tokens: &[u32]| Batch::new(&model.spec, tokens.to_vec(), 1).expect("a batch");
            // The memory of one sequence serves the next.
            let more: Vec<u32> = tokens.iter().rev().copied().collect();
            gradients.of(batch(&more), 1).expect("gradients");
            let predictions = gradients.of(batch(tokens), 2).expect("gradients");
            let matrices = model.spec.matrices().into_iter();
            let values =
                matrices.flat_map(|(id, ..)| gradients.matrix(id).map(|(_, g)| g.to_vec()).unwrap_or_default());
            (predictions, values.collect::<Vec<f32>>())
        };
        let ((count, fused), (expected_count, plain)) = (of("flex"), of("ndarray"));
        assert_eq!((count, fused.len()), (expected_count, plain.len()));
        let largest = plain.iter().fold(0.0f32, |largest, g| largest.max(g.abs()));
        assert!(largest > 0.0);
        let apart = fused.iter().zip(&plain).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
        f64::from(apart / largest)
    }

    #[test]
    fn fused_gradients_are_those_of_plain_operations() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        for name in ["llama-gqa-tied", "gpt2", "lfm2-short-conv", "bert-encoder", "bert-mlm", "bert-classifier"] {
            let model = open_model(&golden.join(name)).expect("a golden checkpoint opens");
            let found = difference(&model, &[3, 1, 4, 1, 5, 9, 2, 6]);
            assert!(found < 5e-4, "{name}: {found}");
        }
    }
}
