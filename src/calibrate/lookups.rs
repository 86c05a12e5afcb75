//! Sensitivity of a decoder's predictions to the rows it looks up in the token table: G = Σ g gᵀ, g the gradient of a
//! sequence's log-probability by one looked-up row. Like the Gram matrix of a head's inputs it is in units of the
//! Kullback–Leibler divergence, of which both are second-order terms: an error e in the row of a token costs ½ n (eᵀ G
//! e) / N as a lookup and ½ n (eᵀ H e) / N as a row of a tied head, n how often the token occurs among N. So for a tied
//! table the two add up.

use super::CalibrateError;
use super::moments::{Moments, MomentsError};
use crate::model::forward::{Batch, DenseWeights, Forward, NoTaps};
use crate::model::id::{LinearId, Role};
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use ndarray::Array2;

/// Tokens that suffice for one channel of the table.
const TOKENS_PER_CHANNEL: usize = 16;

/// G, (hidden, hidden), over the first sequences that hold 16 tokens for every channel, scaled to `tokens`.
///
/// # Errors
/// [`CalibrateError`].
pub fn sensitivity(
    model: &Model,
    sequences: &[Vec<u32>],
    tokens: u64,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Array2<f64>, CalibrateError> {
    let spec = &model.spec;
    let recording = device.clone().autodiff();
    let weights = DenseWeights::new(model, &recording)?;
    let forward = Forward::new(spec, &weights, &recording);
    let mut sums = Moments::new(spec.hidden, false);
    let wanted = (TOKENS_PER_CHANNEL * spec.hidden) as u64;
    for sequence in sequences.iter().filter(|sequence| sequence.len() > 1) {
        if sums.rows >= wanted {
            break;
        }
        let batch = Batch::new(spec, sequence.clone(), 1)?;
        let context = forward.context(&batch);
        // A leaf of the gradient graph: gradients do not go back beyond it.
        let embedded = Tensor::from_inner(forward.embed(&batch).inner()).require_grad();
        let mut hidden = embedded.clone();
        for layer in 0..spec.layers.len() {
            hidden = forward.block(layer, hidden, &context, &mut NoTaps);
        }
        let logits = forward.head(forward.finish(hidden), &mut NoTaps);
        let (length, vocabulary) = (sequence.len(), spec.vocabulary);
        let logits = logits.reshape([length, vocabulary]).narrow(0, 0, length - 1);
        let next: Vec<i32> = sequence[1..].iter().map(|token| token.cast_signed()).collect();
        let next = Tensor::<2, Int>::from_data(TensorData::new(next, [length - 1, 1]), &recording);
        let gradients = log_softmax(logits, 1).gather(1, next).sum().backward();
        let gradient = embedded
            .grad(&gradients)
            .ok_or_else(|| CalibrateError::Device("no gradient by the looked-up rows".to_owned()))?;
        let gradient = gradient.reshape([length, spec.hidden]) * f64::from(spec.embedding_scale);
        sums.add(&gradient, None).map_err(of_table)?;
        progress.advance(0);
    }
    sums.check().map_err(of_table)?;
    let scale = tokens as f64 / sums.rows.max(1) as f64;
    Ok(sums.gram * scale)
}

fn of_table(source: MomentsError) -> CalibrateError {
    CalibrateError::Moments { id: LinearId::global(Role::TokenEmbedding), source }
}
