//! Rotary tables and activation curves, computed once here in f64 (by `libm`, the same on every build machine) and
//! shipped as bits, so that a device computes no cosine and no exponential.

use crate::model::spec::{Activation, RotarySpec};
use slm_runtime::format::spec::CurveId;
use slm_runtime::numerics::{CURVE_POINTS, ROTARY_BLOCK};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// One entry of the functions section: head_dim, rows of the second table, then cos and sin of 64 single steps and of
/// every 64th position below `context`, f32. A factor on cos and sin is in the second table: both are multiplied, since
/// angles add.
pub fn rotary_entry(rotary: &RotarySpec, head_dim: usize, context: usize) -> Vec<u8> {
    let frequencies = rotary.frequencies(head_dim);
    let (none, factors) = (vec![1.0; head_dim / 2], rotary.factors(head_dim));
    let high_rows = context.div_ceil(ROTARY_BLOCK);
    let mut bytes = Vec::new();
    bytes.extend((head_dim as u32).to_le_bytes());
    bytes.extend((high_rows as u32).to_le_bytes());
    let positions: [Vec<usize>; 2] =
        [(0..ROTARY_BLOCK).collect(), (0..high_rows).map(|row| row * ROTARY_BLOCK).collect()];
    for (positions, factors) in positions.into_iter().zip([none, factors]) {
        for function in [libm::cos, libm::sin] {
            for &position in &positions {
                for (frequency, factor) in frequencies.iter().zip(&factors) {
                    bytes.extend(((function(position as f64 * frequency) * factor) as f32).to_le_bytes());
                }
            }
        }
    }
    bytes
}

/// The curve that computes an activation.
pub fn curve_id(activation: Activation) -> CurveId {
    match activation {
        Activation::Silu => CurveId::Silu,
        Activation::Gelu => CurveId::Gelu,
        Activation::GeluTanh => CurveId::GeluTanh,
        Activation::Relu => CurveId::Relu,
    }
}

/// One entry of the functions section: number, k, then H(i · 2^-k) in Q24 for i = 0 … 512.
pub fn curve_entry(id: CurveId) -> Vec<u8> {
    let k = match id {
        CurveId::Silu => 5u32,
        CurveId::Gelu | CurveId::GeluTanh | CurveId::Relu => 6,
    };
    let tail = |u: f64| match id {
        CurveId::Silu => 1.0 / (1.0 + libm::exp(u)),
        // Its share is 1 above 0 and 0 below.
        CurveId::Relu => 0.0,
        CurveId::Gelu => 0.5 * libm::erfc(u * FRAC_1_SQRT_2),
        CurveId::GeluTanh => 1.0 / (1.0 + libm::exp(2.0 * libm::sqrt(FRAC_2_PI) * (u + 0.044715 * u * u * u))),
    };
    let mut bytes = Vec::new();
    bytes.extend((id as u32).to_le_bytes());
    bytes.extend(k.to_le_bytes());
    for point in 0..CURVE_POINTS {
        let value = libm::rint(16_777_216.0 * tail(point as f64 / f64::from(1 << k))) as i32;
        bytes.extend(value.to_le_bytes());
    }
    bytes
}
