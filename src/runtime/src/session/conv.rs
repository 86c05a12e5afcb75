//! The gated short convolution: (b, c, x) = in(norm(h)); h += out(c · conv(b · x)). The convolution is depthwise,
//! causal and f32, a fixed sequence of multiplications and additions per output, oldest tap first:
//!
//! ```text
//! u[t] = b[t] · x[t]
//! y[t] = ((k[0] · u[t-L+1] + k[1] · u[t-L+2]) + … + k[L-1] · u[t]) + bias,   u = 0 before the first position
//! ```
//!
//! A layer keeps the last L − 1 rows of u as f32, so that a sequence read in pieces gives the same bits.

use super::history::Before;
use super::linear::{Destination, Finish, Input};
use super::{Placed, Session, SessionError, range};
use crate::format::spec::LayerRecord;
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::memory::Memory;
use crate::numerics::F32Bytes;

impl Session<'_, '_> {
    /// Runs a convolution layer and its feed-forward network over residual rows, the first in memory.
    pub(super) fn convolve(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        (cache_start, before): (usize, Before),
        Placed { count, first, .. }: Placed,
    ) -> Result<(), SessionError> {
        let hidden = self.scratch[0].row.len();
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let input = Input::Residual(self.norm_before(index, layer, TensorRole::ConvNorm)?, 0);
        let into = [self.product(key(TensorRole::ConvIn), Destination::A)?];
        self.linear(input, &into, count, Finish::None).map_err(|stop| stop.at(index))?;
        let kernel = self.vector(key(TensorRole::ConvKernel))?;
        let bias = self.optional_vector(TensorKey { part: TensorPart::Bias, ..key(TensorRole::ConvKernel) })?;
        let out = [self.product(key(TensorRole::ConvOut), Destination::B)?];
        let cache_end = cache_start + self.cache_bytes(layer);
        let taps = layer.taps as usize;
        let mut state =
            Memory::new(&mut self.cache[cache_start..cache_end]).map_err(|_| SessionError::MemoryAlignment)?;
        let state = state.f32s((taps - 1) * hidden).ok_or(range(index))?;
        if first == 0 {
            state.fill(0.0);
        }
        let rows = &mut self.buffers.scratch_a[..count * 3 * hidden];
        if let Some(inputs) = self.history.places(before, (taps - 1, hidden), (first, count)) {
            note_inputs(rows, inputs, hidden);
        }
        convolve_rows(rows, state, kernel, bias, hidden);
        self.linear(Input::ScratchA(hidden), &out, count, Finish::None).map_err(|stop| stop.at(index))?;
        self.add_residual(index, layer, (TensorRole::ConvNorm, TensorRole::ConvNorm), 0, count)?;
        self.feed_forward(index, layer, 0, count)
    }
}

/// Writes u = b · x of rows of (b, c, x), (count, 3 · hidden), to `inputs` (count, hidden).
fn note_inputs(rows: &[f32], inputs: &mut [f32], hidden: usize) {
    for (row, inputs) in rows.chunks_exact(3 * hidden).zip(inputs.chunks_exact_mut(hidden)) {
        for (input, (gate, value)) in inputs.iter_mut().zip(row.iter().zip(&row[2 * hidden..])) {
            *input = gate * value;
        }
    }
}

/// Replaces rows of (b, c, x), (count, 3 · hidden), by rows of c · conv(b · x), (count, hidden), at the front; `state`
/// (taps - 1, hidden) advances by as many rows.
fn convolve_rows(rows: &mut [f32], state: &mut [f32], kernel: F32Bytes<'_>, bias: Option<F32Bytes<'_>>, hidden: usize) {
    let taps = state.len() / hidden + 1;
    for token in 0..rows.len() / (3 * hidden) {
        let start = token * 3 * hidden;
        for channel in 0..hidden {
            let (gate, factor) = (rows[start + channel], rows[start + hidden + channel]);
            let newest = gate * rows[start + 2 * hidden + channel];
            let weights = kernel.slice(channel * taps, taps).iter();
            let (mut sum, mut earlier) = (0.0, None);
            for (tap, weight) in weights.enumerate() {
                let value = if tap + 1 == taps { newest } else { state[tap * hidden + channel] };
                let product = weight * value;
                sum = if tap == 0 { product } else { sum + product };
                // The previous value moves up by one position after its use.
                if let Some(earlier) = earlier.replace(tap * hidden + channel) {
                    state[earlier] = value;
                }
            }
            if let Some(bias) = bias {
                sum += bias.slice(channel, 1).iter().next().unwrap_or(0.0);
            }
            // Rows already read are overwritten: token · hidden + channel never exceeds the offset of this token's
            // values.
            rows[token * hidden + channel] = factor * sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::random_u64;
    use std::vec;
    use std::vec::Vec;

    fn draw(seed: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|n| (random_u64(seed, n) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn little_endian(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The definition at the head of this file over a whole sequence, one channel and position at a time.
    fn oracle(rows: &[f32], kernel: &[f32], bias: Option<&[f32]>, hidden: usize, taps: usize) -> Vec<f32> {
        let part = |t: usize, n: usize, channel: usize| rows[(3 * t + n) * hidden + channel];
        let mut out = Vec::new();
        for t in 0..rows.len() / (3 * hidden) {
            for channel in 0..hidden {
                let input = |tap: usize| match (t + tap + 1).checked_sub(taps) {
                    Some(t) => part(t, 0, channel) * part(t, 2, channel),
                    None => 0.0,
                };
                let terms = (0..taps).map(|tap| kernel[channel * taps + tap] * input(tap));
                let sum = terms.reduce(|sum, term| sum + term).expect("at least one tap");
                let sum = bias.map_or(sum, |bias| sum + bias[channel]);
                out.push(part(t, 1, channel) * sum);
            }
        }
        out
    }

    #[test]
    fn pieces_of_any_length_give_the_bits_of_the_definition() {
        let (hidden, tokens) = (5, 13);
        for taps in [1, 2, 3, 7] {
            let (rows, kernel, bias) = (draw(1, tokens * 3 * hidden), draw(2, hidden * taps), draw(3, hidden));
            for bias in [None, Some(&bias[..])] {
                let expected = oracle(&rows, &kernel, bias, hidden, taps);
                let (kernel, bias) = (little_endian(&kernel), bias.map(little_endian));
                for piece in [1, 2, 4, tokens] {
                    let (mut state, mut found) = (vec![0.0; (taps - 1) * hidden], Vec::new());
                    for rows in rows.chunks(piece * 3 * hidden) {
                        let mut rows = rows.to_vec();
                        let bias = bias.as_deref().map(F32Bytes::new);
                        convolve_rows(&mut rows, &mut state, F32Bytes::new(&kernel), bias, hidden);
                        found.extend_from_slice(&rows[..rows.len() / 3]);
                    }
                    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|value| value.to_bits()).collect() };
                    assert_eq!(bits(&found), bits(&expected), "{taps} taps, pieces of {piece}");
                }
            }
        }
    }
}
