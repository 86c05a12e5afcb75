//! The table of kernels that every instruction set fills, with the definition of each entry, and the portable table.

use super::columns::Columns;
use super::{Activations, scalar};
use crate::format::artifact::Matrix;
use crate::layout::Layout;
use crate::numerics::{self, Curve, F32Bytes, NumericRange, Rotary};
use core::ops::Range;

/// Quantizes a row, with the [`Activations::offsets`] of its groups; returns the scale.
pub type QuantizeRow = fn(&[f32], &mut [i8], &mut [i32]) -> Result<f32, NumericRange>;
/// A layer norm in place: values, weight, bias, epsilon.
pub type LayerNorm = fn(&mut [f32], F32Bytes<'_>, F32Bytes<'_>, f32) -> Result<(), NumericRange>;
/// Softmax weights: see [`Kernels::weights`].
pub type Weigh = fn(&[f32], f32, &mut [u32]) -> (u64, f32);
/// Weighted sum of values: see [`Kernels::mix`].
pub type Mix = fn(Rows<'_>, &[u32], Factors, Sums<'_>, &mut [f32]);

/// Functions of one instruction set. Every function gives the same bits in every table.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// `scalar`, `avx2`, …
    pub name: &'static str,
    /// The layout that `multiply` is written for; other layouts, and storages without a
    /// [`VectorStorage`](super::VectorStorage), go through the scalar kernel. `None`: any layout.
    pub layout: Option<Layout>,
    /// Computes the rows of `tiles` of a product, for every token: `output[t, o] = f32(A[t, o]) · row_scale[o] ·
    /// scale[t]`, each one f32 operation, with `A = Σ_i w[o, i] · a[t, i]` in i32 for 8-bit activations and 128 · Σ
    /// w·first + Σ w·second in i64, converted to f32 once, for 16-bit ones. One token is the decode case; with several,
    /// a tile is best unpacked once.
    pub multiply: fn(&Matrix<'_>, &Activations<'_>, Range<usize>, &mut Columns<'_>),
    /// Quantizes a row to 8 bits: [`numerics::quantize`], then zeros to the end of `out`, and the
    /// [`Activations::offsets`] of as many groups as fit.
    pub quantize: QuantizeRow,
    /// Quantizes a row to 16 bits: [`numerics::quantize_a16`] into the two halves of `out`, each padded with zeros, and
    /// the offsets of their groups.
    pub quantize_a16: QuantizeRow,
    /// [`numerics::rms_norm`].
    pub rms_norm: fn(&mut [f32], F32Bytes<'_>, f32) -> Result<(), NumericRange>,
    /// [`numerics::layer_norm`].
    pub layer_norm: LayerNorm,
    /// `x[i] = curve(x[i])`.
    pub activate: fn(&Curve<'_>, &mut [f32]),
    /// `gate[i] = curve(gate[i]) · up[i]`.
    pub gate: fn(&Curve<'_>, &mut [f32], &[f32]),
    /// [`Rotary::rotate`] of one head at a position.
    pub rotate: fn(&Rotary<'_>, &mut [f32], usize),
    /// `x[i] += y[i]`.
    pub add: fn(&mut [f32], &[f32]),
    /// Scores of one query head: `score[p] = f32(Σ query · key[p]) · key_scale[p] · scale` as f32 bits; returns the
    /// largest.
    pub scores: fn(Rows<'_>, &[i8], f32, &mut [u32]) -> f32,
    /// Softmax weights: `e[p] = 2^-round(min(top - score[p], 2^21))` in Q24, in place; returns Σ e and max f32(e) ·
    /// scale.
    pub weights: Weigh,
    /// Weighted sum of values: `out[i] = f32(Σ_p w[p] · value[p, i]) · back`, `w[p] = round(f32(e[p]) · value_scale[p]
    /// · ratio)`, summed in i64; up to [`scalar::BLOCK`] positions fit in i32.
    pub mix: Mix,
}

/// Factors of attention's second product.
#[derive(Clone, Copy)]
pub struct Factors {
    /// Factor from weights times value scales to 14-bit integers.
    pub ratio: f32,
    /// Factor back to f32.
    pub back: f32,
}

/// Scratch of attention's second product, (head_dim) each.
pub struct Sums<'a> {
    /// Sums over at most [`scalar::BLOCK`] positions.
    pub block: &'a mut [i32],
    /// Sums over all positions.
    pub total: &'a mut [i64],
}

/// Keys or values of one head at consecutive positions. Rows past those a function needs may follow; it may read them,
/// but they do not affect its result.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// (positions, head_dim)
    pub values: &'a [i8],
    /// (positions)
    pub scales: &'a [f32],
}

/// The portable table.
pub const SCALAR: Kernels = Kernels {
    name: "scalar",
    layout: None,
    multiply: scalar::multiply,
    quantize: numerics::quantize_row,
    quantize_a16: numerics::quantize_a16_row,
    rms_norm: numerics::rms_norm,
    layer_norm: numerics::layer_norm,
    activate: numerics::activate,
    gate: numerics::gate,
    rotate: scalar::rotate,
    add: numerics::add,
    scores: scalar::scores,
    weights: numerics::softmax_weights,
    mix: scalar::mix,
};
