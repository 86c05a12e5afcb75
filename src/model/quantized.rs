//! A quantized matrix in its plain form: one value per byte, unpadded, before any target's layout.
//! `w[o,i] = row_scale[o] · (multiplier[o, i/32] · values[o,i])`: the product of integers first, then one f32 multiply.

use super::scheme::{GROUP, QuantScheme};
use super::transform::NmPattern;
use slm_runtime::kernels::Width;

/// (rows, columns) integers with their scales.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Format.
    pub scheme: QuantScheme,
    /// Output dimension.
    pub rows: usize,
    /// Input dimension.
    pub columns: usize,
    /// (rows, columns): in [-127, 127] for w8, [-8, 7] for w4.g32.
    pub values: Vec<i8>,
    /// (rows): f32, finite, not negative.
    pub row_scale: Vec<f32>,
    /// (rows, ceil(columns / 32)): in [-127, 127], never 0; empty for w8.
    pub multiplier: Vec<i8>,
    /// What the zeros among its values satisfy, where that is known: 2:4, the one pattern artifacts compress.
    pub sparsity: Option<NmPattern>,
    /// Bits of the inputs it is multiplied with on a device.
    pub activations: Width,
}

impl QuantizedMatrix {
    /// Multipliers per row: 0 for w8.
    pub fn groups(&self) -> usize {
        match self.scheme {
            QuantScheme::W8 => 0,
            QuantScheme::W4G32 => self.columns.div_ceil(GROUP),
        }
    }

    /// The integer that multiplies the row scale at (row, column).
    pub fn integer(&self, row: usize, column: usize) -> i32 {
        let value = i32::from(self.values[row * self.columns + column]);
        match self.scheme {
            QuantScheme::W8 => value,
            QuantScheme::W4G32 => value * i32::from(self.multiplier[row * self.groups() + column / GROUP]),
        }
    }

    /// f32 weights, (rows, columns): exactly what the runtime's integers stand for.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.rows * self.columns);
        for row in 0..self.rows {
            let scale = self.row_scale[row];
            out.extend((0..self.columns).map(|column| self.integer(row, column) as f32 * scale));
        }
        out
    }
}
