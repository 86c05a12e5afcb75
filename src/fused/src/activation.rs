//! The element-wise functions of feed-forward networks, y = act(x), or gated y = act(gate) · up with gate and up side by
//! side in one row: SiLU x·σ(x), GELU x·Φ(x), its tanh form, which is x·σ(2u) with u = √(2/π) (x + 0.044715 x³), and ReLU.
//! The slopes are computed again in the backward pass and not kept. And tanh, for the pooler of classifiers, and the cap of
//! scores and logits, c · tanh(x / c), whose slope is 1 − (y / c)² of what it gives.

use crate::node::{Value, record, recycle, slice, tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, erf, exp, sigmoid, vectorised};
use slm_numerics::scratch::take;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Rows of one task.
const BLOCK: usize = 16;
/// 2 · √(2/π)
const TWICE_SLOPE: f32 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const CUBIC: f32 = 0.044_715;

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · σ(x)
    Silu,
    /// x · Φ(x)
    Gelu,
    /// Its tanh form.
    GeluTanh,
    /// max(x, 0), whose slope at 0 is 0.
    Relu,
}

/// A function with its slope.
trait Function: Copy + Send + Sync + 'static {
    /// \[f(x), f′(x)\]
    fn both(self, x: f32) -> [f32; 2];
}

#[derive(Clone, Copy)]
struct Silu;

#[derive(Clone, Copy)]
struct Gelu;

#[derive(Clone, Copy)]
struct GeluTanh;

#[derive(Clone, Copy)]
struct Relu;

impl Function for Silu {
    #[inline(always)]
    fn both(self, x: f32) -> [f32; 2] {
        let s = sigmoid(x);
        [x * s, s * (x * (1.0 - s) + 1.0)]
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn both(self, x: f32) -> [f32; 2] {
        let below = 0.5 + 0.5 * erf(x * FRAC_1_SQRT_2);
        let density = exp(-0.5 * x * x) * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
        [x * below, x.mul_add(density, below)]
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn both(self, x: f32) -> [f32; 2] {
        let square = x * x;
        let s = sigmoid(TWICE_SLOPE * x * square.mul_add(CUBIC, 1.0));
        let inner = TWICE_SLOPE * square.mul_add(3.0 * CUBIC, 1.0);
        [x * s, s * (x * (1.0 - s) * inner + 1.0)]
    }
}

impl Function for Relu {
    #[inline(always)]
    fn both(self, x: f32) -> [f32; 2] {
        if x > 0.0 { [x, 1.0] } else { [0.0, 0.0] }
    }
}

/// act(x); of rows (…, 2 · width), act of the first half times the second.
pub fn activate(input: &Value, function: Activation, gated: bool) -> Value {
    match function {
        Activation::Silu => with(Silu, input, gated),
        Activation::Gelu => with(Gelu, input, gated),
        Activation::GeluTanh => with(GeluTanh, input, gated),
        Activation::Relu => with(Relu, input, gated),
    }
}

fn with<F: Function>(function: F, input: &Value, gated: bool) -> Value {
    let stride = input.width();
    let width = if gated { stride / 2 } else { stride };
    let x = input.tensor();
    let mut out = take(slice(&x).len() / stride * width);
    let blocks = out.par_chunks_mut(BLOCK * width).zip(slice(&x).par_chunks(BLOCK * stride));
    blocks.for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                    let (gate, up) = x.split_at(width);
                    if gated {
                        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                            *out = function.both(*gate)[0] * up;
                        }
                    } else {
                        for (out, x) in out.iter_mut().zip(gate) {
                            *out = function.both(*x)[0];
                        }
                    }
                }
            },
        );
    });
    let result = tensor(out, &input.dims_with(width));
    record([input], result, move |gradient, [_]| {
        let dx = backward(function, &x, &gradient, [stride, width]);
        recycle(x);
        recycle(gradient);
        [Some(dx)]
    })
}

/// tanh x, of few values: by `libm`, one after the other.
pub fn tanh(input: &Value) -> Value {
    let y: Vec<f32> = slice(&input.tensor()).iter().map(|x| libm::tanhf(*x)).collect();
    let result = tensor(y, &input.dims());
    let kept = result.clone();
    record([input], result, move |gradient, [_]| {
        let dx = slice(&gradient).iter().zip(slice(&kept)).map(|(dy, y)| dy * (1.0 - y * y)).collect();
        [Some(tensor(dx, gradient.layout().shape().as_ref()))]
    })
}

/// x = c · tanh(x / c), in place.
#[inline(always)]
pub(crate) fn cap_all(values: &mut [f32], cap: f32) {
    let twice = 2.0 / cap;
    for value in values {
        *value = cap * (2.0 * sigmoid(twice * *value) - 1.0);
    }
}

/// 1 − (y / c)² of what [`cap_all`] gave.
#[inline(always)]
pub(crate) fn cap_slope(capped: f32, cap: f32) -> f32 {
    let share = capped / cap;
    1.0 - share * share
}

/// c · tanh(x / c), of logits.
pub fn cap(input: &Value, cap: f32) -> Value {
    let mut y = take(slice(&input.tensor()).len());
    y.copy_from_slice(slice(&input.tensor()));
    y.par_chunks_mut(BLOCK * LANES).for_each(|y| {
        vectorised(
            #[inline(always)]
            || cap_all(y, cap),
        );
    });
    let result = tensor(y, &input.dims());
    let kept = result.clone();
    record([input], result, move |gradient, [_]| {
        let dx = slice(&gradient).iter().zip(slice(&kept)).map(|(dy, y)| dy * cap_slope(*y, cap)).collect();
        [Some(tensor(dx, gradient.layout().shape().as_ref()))]
    })
}

fn backward<F: Function>(function: F, x: &FlexTensor, dy: &FlexTensor, [stride, width]: [usize; 2]) -> FlexTensor {
    let mut dx = take(slice(x).len());
    let blocks = dx.par_chunks_mut(BLOCK * stride).zip(slice(x).par_chunks(BLOCK * stride));
    blocks.zip(slice(dy).par_chunks(BLOCK * width)).for_each(|((dx, x), dy)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(stride).zip(x.chunks_exact(stride)).zip(dy.chunks_exact(width));
                for ((dx, x), dy) in rows {
                    let (gate, up) = x.split_at(width);
                    let (d_gate, d_up) = dx.split_at_mut(width);
                    if up.is_empty() {
                        for ((dx, x), dy) in d_gate.iter_mut().zip(gate).zip(dy) {
                            *dx = function.both(*x)[1] * dy;
                        }
                    } else {
                        gated_backward(function, [gate, up, dy], [d_gate, d_up]);
                    }
                }
            },
        );
    });
    tensor(dx, x.layout().shape().as_ref())
}

/// \[d_gate, d_up\] of \[gate, up, dy\], in lanes so that the compiler need not ask whether the five overlap.
#[inline(always)]
fn gated_backward<F: Function>(function: F, [gate, up, dy]: [&[f32]; 3], [d_gate, d_up]: [&mut [f32]; 2]) {
    let ((gate, gate_rest), (up, up_rest), (dy, dy_rest)) =
        (gate.as_chunks::<LANES>(), up.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
    let ((d_gate, d_gate_rest), (d_up, d_up_rest)) = (d_gate.as_chunks_mut::<LANES>(), d_up.as_chunks_mut::<LANES>());
    for (((d_gate, d_up), (gate, up)), dy) in d_gate.iter_mut().zip(d_up).zip(gate.iter().zip(up)).zip(dy) {
        let mut out = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            let [gate, up] = one_gated(function, gate[lane], up[lane], dy[lane]);
            out[0][lane] = gate;
            out[1][lane] = up;
        }
        *d_gate = out[0];
        *d_up = out[1];
    }
    let rest = d_gate_rest.iter_mut().zip(d_up_rest).zip(gate_rest.iter().zip(up_rest)).zip(dy_rest);
    for (((d_gate, d_up), (gate, up)), dy) in rest {
        [*d_gate, *d_up] = one_gated(function, *gate, *up, *dy);
    }
}

#[inline(always)]
fn one_gated<F: Function>(function: F, gate: f32, up: f32, dy: f32) -> [f32; 2] {
    let [value, slope] = function.both(gate);
    [dy * up * slope, dy * value]
}
