//! Error of 8-bit inputs: the runtime rounds the input x of every linear to 8 bits with one scale per token, s = max
//! |x| / 127, which loses most of a token whose largest channel is far above the others. Measured for each linear as
//! ‖(x̂ − x) Wᵀ‖² / ‖x Wᵀ‖² over the tokens of one sequence, in the f32 forward, layer by layer, so that no more than
//! one layer, the token table and the head are in memory.

use super::CalibrateError;
use crate::model::forward::{Batch, DenseWeights, Forward, Observer, WeightSource};
use crate::model::id::LinearId;
use crate::model::weights::Model;
use burn::tensor::{Device, Tensor};

/// Largest magnitude of an 8-bit input.
const LARGEST: f32 = 127.0;

/// Mean relative output error over all linears except token tables.
///
/// # Errors
/// [`CalibrateError`].
pub fn mean_input_error(model: &Model, tokens: &[u32], device: &Device) -> Result<f64, CalibrateError> {
    let spec = &model.spec;
    let batch = Batch::new(spec, tokens.to_vec(), 1)?;
    let mut sum = Sum { errors: 0.0, linears: 0, failure: None };
    let around = DenseWeights::part(model, device, |id| id.layer().is_none())?;
    let ends = Forward::new(spec, &around, device);
    let context = ends.context(&batch);
    let mut hidden = ends.embed(&batch);
    for layer in 0..spec.layers.len() {
        let weights = DenseWeights::part(model, device, |id| id.layer() == Some(layer as u16))?;
        let forward = Forward::new(spec, &weights, device);
        hidden = forward.block(layer, hidden, &context, &mut Measure { weights: &weights, sum: &mut sum });
    }
    ends.head(ends.finish(hidden), &mut Measure { weights: &around, sum: &mut sum });
    match sum.failure {
        Some(failure) => Err(CalibrateError::Device(failure)),
        None => Ok(sum.errors / sum.linears.max(1) as f64),
    }
}

/// Running sum of errors.
struct Sum {
    errors: f64,
    linears: usize,
    failure: Option<String>,
}

/// Observer that adds up the error of every linear.
struct Measure<'a> {
    weights: &'a dyn WeightSource,
    sum: &'a mut Sum,
}

impl Observer for Measure<'_> {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let matrix = self.weights.matrix(id).transpose();
        // A token of zeros has no error: its scale is kept above zero to avoid dividing by zero.
        let scale = (input.clone().abs().max_dim(1) / LARGEST).clamp_min(f32::MIN_POSITIVE);
        let rounded = (input.clone() / scale.clone()).round() * scale;
        let energy = |rows: Tensor<2>| rows.matmul(matrix.clone()).square().sum().into_data().try_to_vec::<f32>();
        match (energy(rounded - input.clone()), energy(input.clone())) {
            (Ok(error), Ok(whole)) if whole[0] > 0.0 => {
                self.sum.errors += f64::from(error[0]) / f64::from(whole[0]);
                self.sum.linears += 1;
            }
            (Ok(_), Ok(_)) => {}
            (Err(error), _) | (_, Err(error)) => self.sum.failure = Some(format!("{error:?}")),
        }
    }

    fn attention(&mut self, _layer: usize, _query: &Tensor<4>, _key: &Tensor<4>) {}
}
