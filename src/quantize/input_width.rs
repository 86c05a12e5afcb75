//! The width of a decoder's inputs without `--activations`. 8 bits are enough where their error is at most a few times that
//! of weights in w8; trained models of some size have channels far above the others, and there they are not:
//! SmolLM2-135M in w8 has a KLD of 0.036 with 8-bit inputs and of 0.005 with 16-bit ones. `auto` decides by measuring its
//! artifact instead.

use super::calibration::sample_of_shipped_text;
use super::error::RoundingError;
use super::policy::Activations;
use crate::calibrate::input_error::mean_input_error;
use crate::model::scheme::Width;
use crate::model::spec::ModelKind;
use crate::model::weights::Model;
use burn::tensor::Device;
use serde::Serialize;

/// Mean relative output error up to which 8 bits are taken: four times that of weights in w8, about 1e-4.
const LARGEST_ERROR: f64 = 4e-4;
/// Tokens it is measured on.
const TOKENS: usize = 256;

/// The measured error, and the width that follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InputWidth {
    /// Bits of every linear's inputs.
    pub bits: u8,
    /// Mean over linears of the relative error that 8-bit inputs leave in the output.
    pub error_of_8_bits: f64,
    /// Tokens it was measured on.
    pub tokens: usize,
}

impl InputWidth {
    /// Measures a decoder on the first calibration sequence, or, where there is none, on shipped text. `None` for encoders,
    /// and for a decoder without calibration and tokenizer.
    ///
    /// # Errors
    /// [`RoundingError`].
    pub fn measure(model: &Model, sequences: &[Vec<u32>], device: &Device) -> Result<Option<Self>, RoundingError> {
        if model.spec.kind == ModelKind::Encoder {
            return Ok(None);
        }
        let sample = match sequences.iter().find(|sequence| !sequence.is_empty()) {
            Some(sequence) => Some(sequence.iter().take(TOKENS).copied().collect()),
            None => sample_of_shipped_text(model, TOKENS)?,
        };
        let Some(sample): Option<Vec<u32>> = sample.filter(|sample: &Vec<u32>| !sample.is_empty()) else {
            return Ok(None);
        };
        let error = mean_input_error(model, &sample, device)?;
        let bits = if error > LARGEST_ERROR { 16 } else { 8 };
        Ok(Some(InputWidth { bits, error_of_8_bits: error, tokens: sample.len() }))
    }

    /// The options that say the same.
    pub fn activations(&self) -> Vec<Activations> {
        let wide = Activations { pattern: "*".to_owned(), width: Width::Bits16 };
        if self.bits == 16 { vec![wide] } else { Vec::new() }
    }
}
