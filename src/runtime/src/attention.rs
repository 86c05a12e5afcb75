//! Attention of one query head over int8 keys and values: integer scores, two-pass softmax in base 2, 14-bit
//! probabilities times int8 values. The layout of one layer's part of the cache is `keys (kv heads, context, head_dim)
//! i8 | values likewise | key scales (kv heads, context) f32 | value scales`.

use crate::format::spec::LayerRecord;
use crate::kernels::{Factors, Kernels, Rows, Sums};
use crate::memory::Memory;
use crate::numerics::{NumericRange, PROBABILITY_MAX};
use core::ops::Range;

/// Keys and values of one layer.
pub(crate) struct Cache<'c> {
    pub(crate) keys: &'c mut [i8],
    pub(crate) values: &'c mut [i8],
    pub(crate) key_scales: &'c mut [f32],
    pub(crate) value_scales: &'c mut [f32],
    context: usize,
    head_dim: usize,
}

impl<'c> Cache<'c> {
    /// A view of a layer's cache; `None` if the bytes are too few or misaligned.
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

    /// Keys and values of a head from a position on, to the end of the cache.
    fn rows(&self, head: usize, position: usize) -> [Rows<'_>; 2] {
        let first = head * self.context + position;
        [
            Rows { values: &self.keys[first * self.head_dim..], scales: &self.key_scales[first..] },
            Rows { values: &self.values[first * self.head_dim..], scales: &self.value_scales[first..] },
        ]
    }
}

/// Working memory for one head at a time.
#[derive(Default)]
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
        let scale = (kernels.quantize)(query, integers, &mut [])? * score_scale;
        let scores = &mut self.scores[..seen.len()];
        let [keys, values] = cache.rows(head, seen.start);
        let top = (kernels.scores)(keys, integers, scale, scores);
        let (total, largest) = (kernels.weights)(values.scales, top, scores);
        if largest == 0.0 {
            query.fill(0.0);
            return Ok(());
        }
        let ratio = PROBABILITY_MAX as f32 / largest;
        let factors = Factors { ratio, back: 1.0 / (total as f32 * ratio) };
        let sums = Sums { block: &mut self.sums[..width], total: &mut self.totals[..width] };
        (kernels.mix)(values, scores, factors, sums, query);
        Ok(())
    }
}
