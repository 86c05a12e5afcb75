//! The evaluated model, as every report states it: sizes, and which arithmetic computed the outputs. The numbers come
//! from whoever opened the model; absent where they mean nothing.

use crate::report::{Table, grouped};
use serde::Serialize;

/// Which arithmetic computed the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Numerics {
    /// Dense weights, f32 activations.
    Float32,
    /// Weights of a quantized directory as f32, f32 activations: not yet the arithmetic of a device.
    Dequantized,
    /// The integers of the runtime: the bits a device computes.
    Integer,
}

/// The model's sizes, as interfaces count them: packed for a target, padding, scales and norms included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subject {
    /// Arithmetic.
    pub numerics: Numerics,
    /// Packed bytes of all weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
    /// Bytes of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Weights by their unpadded shapes, a tied tensor once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// 8 · weight_bytes / parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
}

impl Subject {
    /// With `bits_per_weight` computed where both of its terms are known and there are parameters at all.
    pub fn new(
        numerics: Numerics,
        weight_bytes: Option<u64>,
        file_bytes: Option<u64>,
        parameters: Option<u64>,
    ) -> Self {
        let bits_per_weight = weight_bytes
            .zip(parameters)
            .filter(|&(_, parameters)| parameters > 0)
            .map(|(bytes, parameters)| 8.0 * bytes as f64 / parameters as f64);
        Subject { numerics, weight_bytes, file_bytes, parameters, bits_per_weight }
    }

    /// Appends its rows to a table of names and values.
    pub(super) fn rows(&self, table: &mut Table) {
        let numerics = match self.numerics {
            Numerics::Float32 => "float32",
            Numerics::Dequantized => "dequantized weights, f32 activations",
            Numerics::Integer => "integer, as on the device",
        };
        table.row(["numerics", numerics]);
        for (name, value) in
            [("weight_bytes", self.weight_bytes), ("file_bytes", self.file_bytes), ("parameters", self.parameters)]
        {
            if let Some(value) = value {
                table.row([name, &grouped(value)]);
            }
        }
        if let Some(bits) = self.bits_per_weight {
            table.row(["bits_per_weight", &format!("{bits:.3}")]);
        }
    }
}

/// Appends a number that may be absent, with `digits` after the point.
pub(super) fn number_row(table: &mut Table, name: &str, value: Option<f64>, digits: usize) {
    if let Some(value) = value {
        table.row([name, &format!("{value:.digits$}")]);
    }
}
