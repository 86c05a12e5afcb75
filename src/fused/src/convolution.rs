//! The gated short convolution between its two projections: of rows (b, c, x),
//!
//! ```text
//! g = b ∘ x        s(t) = bias + Σ_j kernel(j) ∘ g(t − taps + 1 + j)        y = c ∘ s
//! ds = c ∘ dy      dg(t) = Σ_j kernel(j) ∘ ds(t + taps − 1 − j)              dkernel(j) = Σ_t ds(t) ∘ g(t − taps + 1 + j)
//! ```
//!
//! and rows of padding made zero before it.

use crate::linear::{add_columns, add_in_order};
use crate::node::{Value, record, slice, tensor};
use crate::weights::Weight;
use rayon::prelude::*;
use std::sync::Arc;

/// A depthwise kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// (channels, taps)
    pub taps: Weight,
    /// (channels)
    pub bias: Option<Weight>,
    /// Tokens of a sequence.
    pub length: usize,
}

/// (…, channels) of (…, 3 · channels).
pub fn convolve(input: &Value, kernel: Kernel) -> Value {
    let stride = input.width();
    let channels = stride / 3;
    let x = input.tensor();
    let size = kernel.length * stride;
    let taps = kernel.taps.values().len() / channels;
    let mut out = vec![0.0; slice(&x).len() / 3];
    // s of every position, which the backward pass needs too
    let mut sums = vec![0.0; out.len()];
    let sequences = out.par_chunks_mut(kernel.length * channels).zip(sums.par_chunks_mut(kernel.length * channels));
    sequences.zip(slice(&x).par_chunks(size)).for_each(|((out, sums), x)| {
        let rows = out.chunks_exact_mut(channels).zip(sums.chunks_exact_mut(channels));
        for (t, (out, sums)) in rows.enumerate() {
            if let Some(bias) = &kernel.bias {
                sums.copy_from_slice(bias.values());
            }
            for tap in (taps - 1).saturating_sub(t)..taps {
                let row = &x[(t + tap + 1 - taps) * stride..][..stride];
                for (channel, sum) in sums.iter_mut().enumerate() {
                    let gated = row[channel] * row[2 * channels + channel];
                    *sum += gated * kernel.taps.values()[channel * taps + tap];
                }
            }
            let c = &x[t * stride + channels..][..channels];
            out.iter_mut().zip(&*sums).zip(c).for_each(|((out, sum), c)| *out = sum * c);
        }
    });
    let result = tensor(out, &input.dims_with(channels));
    record([input], result, move |gradient, [_]| {
        let (x_values, dy) = (slice(&x), slice(&gradient));
        let mut dx = vec![0.0; x_values.len()];
        let mut d_sums: Vec<f32> = vec![0.0; dy.len()];
        for ((d_sum, row), dy) in
            d_sums.chunks_exact_mut(channels).zip(x_values.chunks_exact(stride)).zip(dy.chunks_exact(channels))
        {
            d_sum.iter_mut().zip(&row[channels..2 * channels]).zip(dy).for_each(|((d, c), dy)| *d = c * dy);
        }
        let sequence = |(sequence, dx): (usize, &mut [f32])| {
            let rows = &x_values[sequence * size..][..size];
            let first = sequence * kernel.length * channels;
            let (d_sums, sums) = (&d_sums[first..][..dx.len() / 3], &sums[first..][..dx.len() / 3]);
            let dy = &dy[first..][..dx.len() / 3];
            let mut d_taps = vec![0.0f32; channels * taps];
            for (t, dx) in dx.chunks_exact_mut(stride).enumerate() {
                let row = &rows[t * stride..][..stride];
                for channel in 0..channels {
                    let gated = row[channel] * row[2 * channels + channel];
                    let mut d_gated = 0.0f32;
                    for tap in 0..taps {
                        let later = t + taps - 1 - tap;
                        if later < kernel.length {
                            let d_sum = d_sums[later * channels + channel];
                            d_gated += d_sum * kernel.taps.values()[channel * taps + tap];
                            d_taps[channel * taps + tap] += d_sum * gated;
                        }
                    }
                    dx[channel] = d_gated * row[2 * channels + channel];
                    dx[channels + channel] = dy[t * channels + channel] * sums[t * channels + channel];
                    dx[2 * channels + channel] = d_gated * row[channel];
                }
            }
            d_taps
        };
        let d_taps: Vec<Vec<f32>> = dx.par_chunks_mut(size).enumerate().map(sequence).collect();
        add_in_order(&kernel.taps, d_taps.iter().map(Vec::as_slice));
        if let Some(bias) = &kernel.bias {
            add_columns(bias, &d_sums, [channels, 0, channels]);
        }
        [Some(tensor(dx, x.layout().shape().as_ref()))]
    })
}

/// Rows where there is a token; zeros elsewhere.
pub fn without_padding(input: &Value, present: Arc<Vec<bool>>) -> Value {
    let width = input.width();
    let dims = input.dims();
    let clear = move |values: &[f32]| {
        let mut values = values.to_vec();
        for (row, present) in values.chunks_exact_mut(width).zip(present.iter()) {
            if !present {
                row.fill(0.0);
            }
        }
        tensor(values, &dims)
    };
    let result = clear(slice(&input.tensor()));
    record([input], result, move |gradient, [_]| [Some(clear(slice(&gradient)))])
}
