//! The gated short convolution: (b, c, x) = in(norm(h)); h += out(c · conv(b · x)). The convolution is depthwise, causal
//! and f32, a fixed sequence of multiplications and additions per output, oldest tap first:
//!
//! ```text
//! u[t] = b[t] · x[t]
//! y[t] = ((k[0] · u[t-L+1] + k[1] · u[t-L+2]) + … + k[L-1] · u[t]) + bias,   u = 0 before the first position
//! ```
//!
//! A layer keeps the last L − 1 rows of u as f32, so that a sequence cut in pieces gives the same bits.

use super::linear::Wide;
use super::{Session, SessionError, range};
use crate::format::spec::LayerRecord;
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::memory::Memory;
use crate::numerics::F32Bytes;

impl Session<'_, '_> {
    /// A convolution layer and its feed-forward network over `count` residual rows from the first; `fresh` where nothing
    /// was read before them.
    pub(super) fn convolve(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        count: usize,
        fresh: bool,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let hidden = self.buffers.row.len();
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        self.quantize_input(index, layer, TensorRole::ConvNorm, 0, count)?;
        self.linear(key(TensorRole::ConvIn), count, Wide::A)?;
        let kernel = artifact.vector(key(TensorRole::ConvKernel))?;
        let bias = artifact.optional_vector(TensorKey { part: TensorPart::Bias, ..key(TensorRole::ConvKernel) })?;
        let cache_end = cache_start + self.cache_bytes(layer);
        let taps = layer.taps as usize;
        let mut state =
            Memory::new(&mut self.cache[cache_start..cache_end]).map_err(|_| SessionError::MemoryAlignment)?;
        let state = state.f32s((taps - 1) * hidden).ok_or(range(index))?;
        if fresh {
            state.fill(0.0);
        }
        convolve_rows(&mut self.buffers.wide_a[..count * 3 * hidden], state, kernel, bias, hidden);
        self.quantize_wide_a(count, hidden).map_err(|_| range(index))?;
        self.linear(key(TensorRole::ConvOut), count, Wide::B)?;
        self.add_residual(index, layer, (TensorRole::ConvNorm, TensorRole::ConvNorm), 0, count)?;
        self.feed_forward(index, layer, 0, count)
    }
}

/// Replaces rows of (b, c, x), (count, 3 · hidden), by rows of c · conv(b · x), (count, hidden), at the front; `state`
/// (taps - 1, hidden) goes on by as many rows.
fn convolve_rows(rows: &mut [f32], state: &mut [f32], kernel: F32Bytes<'_>, bias: Option<F32Bytes<'_>>, hidden: usize) {
    let taps = state.len() / hidden + 1;
    for token in 0..rows.len() / (3 * hidden) {
        let start = token * 3 * hidden;
        for channel in 0..hidden {
            let (gate, factor) = (rows[start + channel], rows[start + hidden + channel]);
            let newest = gate * rows[start + 2 * hidden + channel];
            let mut weights = kernel.slice(channel * taps, taps).iter();
            let mut sum = None;
            for tap in 0..taps {
                let value = if tap + 1 == taps { newest } else { state[tap * hidden + channel] };
                let product = weights.next().unwrap_or(0.0) * value;
                sum = Some(sum.map_or(product, |sum: f32| sum + product));
            }
            for tap in 1..taps {
                let later = if tap + 1 == taps { newest } else { state[tap * hidden + channel] };
                state[(tap - 1) * hidden + channel] = later;
            }
            let mut sum = sum.unwrap_or(0.0);
            if let Some(bias) = bias {
                sum += bias.slice(channel, 1).iter().next().unwrap_or(0.0);
            }
            // Rows already read give their place: token · hidden + channel never runs ahead of this token's own values.
            rows[token * hidden + channel] = factor * sum;
        }
    }
}
