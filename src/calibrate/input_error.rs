//! Error of 8-bit inputs: the runtime rounds the input x of every linear to 8 bits with one scale per token, s = max
//! |x| / 127, which loses most of a token whose largest channel is far above the others. Measured for each linear as
//! ‖(x̂ − x) Wᵀ‖² / ‖x Wᵀ‖² over the tokens of one sequence, in the f32 forward, layer by layer, so that no more than
//! one layer, the token table and the head are in memory.

use super::CalibrateError;
use super::batches::with_values;
use crate::model::forward::{Batch, DenseWeights, Observer, StagedForward, Step, WeightSource};
use crate::model::id::LinearId;
use crate::model::weights::Model;
use burn::tensor::{Device, Tensor};
use slm_numerics::lanes::{dot, vectorised};
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::Scratch;

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
    let ends = StagedForward::new(spec, &around, device);
    let context = ends.context(&batch);
    let mut hidden = ends.embed(&batch);
    for layer in 0..spec.layers.len() {
        let weights = DenseWeights::part(model, device, |id| id.layer() == Some(layer as u16))?;
        let forward = StagedForward::new(spec, &weights, device);
        let mut measure = Measure { weights: &weights, sum: &mut sum };
        let mut halted = forward.enter(layer, hidden, &context);
        for step in Step::ALL {
            halted = forward.step(layer, step, halted, &context, &mut measure);
        }
        hidden = halted.hidden;
    }
    ends.head(hidden, &mut Measure { weights: &around, sum: &mut sum });
    match sum.failure {
        Some(failure) => Err(failure),
        None => Ok(sum.errors / sum.linears.max(1) as f64),
    }
}

/// Running sum of errors.
struct Sum {
    errors: f64,
    linears: usize,
    failure: Option<CalibrateError>,
}

/// Observer that adds up the error of every linear.
struct Measure<'a> {
    weights: &'a dyn WeightSource,
    sum: &'a mut Sum,
}

impl Observer for Measure<'_> {
    fn sees_attention(&self) -> bool {
        false
    }

    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let matrix = self.weights.matrix(id);
        let [_, columns] = matrix.dims();
        let energies = with_values(&matrix, |matrix| with_values(input, |input| energies(input, matrix, columns)));
        match energies.flatten() {
            Ok([error, whole]) if whole > 0.0 => {
                self.sum.errors += error / whole;
                self.sum.linears += 1;
            }
            Ok(_) => {}
            Err(failure) => self.sum.failure = Some(failure),
        }
    }
}

/// \[‖(x̂ − x) Wᵀ‖², ‖x Wᵀ‖²\] of rows of `columns` values. A token of zeros has no error: its scale is kept above zero to
/// avoid dividing by zero.
fn energies(input: &[f32], matrix: &[f32], columns: usize) -> [f64; 2] {
    let mut errors = Vec::with_capacity(input.len());
    for row in input.chunks_exact(columns) {
        let scale = (row.iter().fold(0f32, |most, x| most.max(x.abs())) / LARGEST).max(f32::MIN_POSITIVE);
        errors.extend(row.iter().map(|x| (x / scale).round_ties_even() * scale - x));
    }
    [&errors, input].map(|rows| {
        let (tokens, outputs) = (rows.len() / columns, matrix.len() / columns);
        let mut memory = Scratch::take(tokens * outputs);
        let (rows, matrix) = (Matrix::new(rows, columns), Matrix::new(matrix, columns));
        multiply(Output::over(memory.values(), outputs), Left::Rows(rows), Right::Columns(matrix));
        let square = |row: &[f32]| {
            f64::from(vectorised(
                #[inline(always)]
                || dot(row, row),
            ))
        };
        memory.values().chunks_exact(outputs.max(1)).map(square).sum()
    })
}
