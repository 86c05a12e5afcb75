//! The inner loops, as a table of functions per instruction set. The scalar table is complete and is the oracle; a
//! faster one replaces entries and must give the same bits.

pub mod scalar;
#[cfg(test)]
mod tests;

use crate::format::artifact::Matrix;

/// Quantized inputs of a linear: one row and one scale per token.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// (tokens, stride): a token's values, zero from its width up to the next multiple of 32.
    pub values: &'a [i8],
    /// From one token to the next.
    pub stride: usize,
    /// (tokens)
    pub scales: &'a [f32],
}

/// Functions of one instruction set.
pub struct Kernels {
    /// `scalar`, …
    pub name: &'static str,
    /// `output[t, o] = (Σ_i w[o,i] · a[t,i] in i32) as f32 · row_scale[o] · scale[t]`, each one f32 operation, for every
    /// token; output is (tokens, matrix.rows).
    pub multiply: fn(&Matrix<'_>, Activations<'_>, &mut [f32]),
    /// Σ a · b in i32, equal lengths.
    pub dot: fn(&[i8], &[i8]) -> i32,
    /// `sums[d] += weight · row[d]` in i32; |weight| ≤ 16383 and at most 1024 additions between readings.
    pub accumulate: fn(i32, &[i8], &mut [i32]),
}

/// The portable table.
pub const SCALAR: Kernels =
    Kernels { name: "scalar", multiply: scalar::multiply, dot: scalar::dot, accumulate: scalar::accumulate };
