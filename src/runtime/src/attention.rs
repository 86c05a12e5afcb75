//! Attention of one query head over int8 keys and values: integer scores, two-pass softmax in base 2, probabilities of
//! 14 bits times int8 values. One layer's part of the cache is laid out
//! `keys (kv heads, context, head_dim) i8 | values likewise | key scales (kv heads, context) f32 | value scales`.

use crate::format::spec::LayerRecord;
use crate::kernels::Kernels;
use crate::memory::Memory;
use crate::numerics::{NumericRange, PROBABILITY_MAX, exp2_q24, quantize, round};
use core::ops::Range;

/// Keys and values of one layer.
pub(crate) struct Cache<'c> {
    keys: &'c mut [i8],
    values: &'c mut [i8],
    key_scales: &'c mut [f32],
    value_scales: &'c mut [f32],
    context: usize,
    head_dim: usize,
}

impl<'c> Cache<'c> {
    /// The cache of a layer in its bytes; `None` if they are too few or misaligned.
    pub(crate) fn new(bytes: &'c mut [u8], layer: &LayerRecord, context: usize) -> Option<Self> {
        let (heads, head_dim) = (layer.key_value_heads as usize, layer.head_dim as usize);
        let mut memory = Memory::new(bytes).ok()?;
        Some(Cache {
            keys: memory.i8s(heads * context * head_dim)?,
            values: memory.i8s(heads * context * head_dim)?,
            key_scales: memory.f32s(heads * context)?,
            value_scales: memory.f32s(heads * context)?,
            context,
            head_dim,
        })
    }

    pub(crate) fn write_key(&mut self, head: usize, position: usize, key: &[f32]) -> Result<(), NumericRange> {
        let at = head * self.context + position;
        self.key_scales[at] = quantize(key, &mut self.keys[at * self.head_dim..][..self.head_dim])?;
        Ok(())
    }

    pub(crate) fn write_value(&mut self, head: usize, position: usize, value: &[f32]) -> Result<(), NumericRange> {
        let at = head * self.context + position;
        self.value_scales[at] = quantize(value, &mut self.values[at * self.head_dim..][..self.head_dim])?;
        Ok(())
    }
}

/// Working memory for one head at a time.
pub(crate) struct Attention<'m> {
    /// (head_dim)
    pub(crate) query: &'m mut [i8],
    /// (head_dim): sums over at most 1024 positions.
    pub(crate) sums: &'m mut [i32],
    /// (head_dim): sums over all positions.
    pub(crate) totals: &'m mut [i64],
    /// (context): bits of the f32 score, then the weight 2^-z in Q24.
    pub(crate) scores: &'m mut [u32],
}

/// Products of a 14-bit probability and an int8 value that fit in i32: 16383 · 128 · 1024 < 2^31.
const BLOCK: usize = 1024;
/// Scores further than this below the largest weigh nothing: 2^21 in Q15 log2 units.
const DEEPEST: f32 = 2_097_152.0;

impl Attention<'_> {
    /// Replaces `query` (head_dim) by softmax(query · keys · scale) · values over the positions `seen`.
    pub(crate) fn attend(
        &mut self,
        kernels: &Kernels,
        cache: &Cache<'_>,
        head: usize,
        seen: Range<usize>,
        score_scale: f32,
        query: &mut [f32],
    ) -> Result<(), NumericRange> {
        let width = query.len();
        let integers = &mut self.query[..width];
        let scale = quantize(query, integers)? * score_scale;
        let (first, seen) = (head * cache.context + seen.start, seen.len());
        let keys = cache.keys[first * width..][..seen * width].chunks_exact(width);
        let scores = &mut self.scores[..seen];
        let mut top = f32::NEG_INFINITY;
        for ((slot, key), &key_scale) in scores.iter_mut().zip(keys).zip(&cache.key_scales[first..][..seen]) {
            let score = (kernels.dot)(integers, key) as f32 * key_scale * scale;
            top = if score > top { score } else { top };
            *slot = score.to_bits();
        }
        let value_scales = &cache.value_scales[first..][..seen];
        let (mut total, mut largest) = (0u64, 0f32);
        for (slot, &value_scale) in scores.iter_mut().zip(value_scales) {
            let weight = exp2_q24(round((top - f32::from_bits(*slot)).min(DEEPEST)) as u32);
            total += u64::from(weight);
            let product = weight as f32 * value_scale;
            largest = if product > largest { product } else { largest };
            *slot = weight;
        }
        if largest == 0.0 {
            query.fill(0.0);
            return Ok(());
        }
        let ratio = PROBABILITY_MAX as f32 / largest;
        let (sums, totals) = (&mut self.sums[..width], &mut self.totals[..width]);
        totals.fill(0);
        let values = &cache.values[first * width..][..seen * width];
        let blocks = scores.chunks(BLOCK).zip(value_scales.chunks(BLOCK)).zip(values.chunks(BLOCK * width));
        for ((weights, scales), values) in blocks {
            sums.fill(0);
            for ((&weight, &value_scale), value) in weights.iter().zip(scales).zip(values.chunks_exact(width)) {
                let probability = round(weight as f32 * value_scale * ratio) as i32;
                if probability != 0 {
                    (kernels.accumulate)(probability, value, sums);
                }
            }
            for (total, &sum) in totals.iter_mut().zip(sums.iter()) {
                *total += i64::from(sum);
            }
        }
        let back = 1.0 / (total as f32 * ratio);
        for (out, &sum) in query.iter_mut().zip(totals.iter()) {
            *out = sum as f32 * back;
        }
        Ok(())
    }
}
