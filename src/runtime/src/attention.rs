//! Attention of one query head over int8 keys and values: integer scores, two-pass softmax in base 2, 14-bit
//! probabilities times int8 values. All sums are of integers, so the order of the slots of a ring does not matter; the
//! slots that a query does not see get the weight 0.

use crate::cache::Cache;
use crate::kernels::{Factors, Kernels, Sums};
use crate::numerics::{Curve, NumericRange, PROBABILITY_MAX, hadamard};
use core::ops::Range;

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
    /// (context, head_dim), where a layer's values are nibbles: those of one head, unpacked.
    pub(crate) values: &'m mut [i8],
}

/// A score whose weight is 0, whatever the largest score is.
const UNSEEN: u32 = f32::MIN.to_bits();

/// What becomes of q · k.
#[derive(Clone, Copy)]
pub(crate) struct Scoring<'a> {
    /// Factor.
    pub(crate) scale: f32,
    /// Bound, where there is one.
    pub(crate) cap: Option<Cap<'a>>,
}

/// x becomes c · tanh(x / c): an f32 product, the curve of the sigmoid, another f32 product.
#[derive(Clone, Copy)]
pub(crate) struct Cap<'a> {
    cap: f32,
    inverse: f32,
    curve: Curve<'a>,
}

impl<'a> Cap<'a> {
    /// The cap of a record, where it is not 0, with the curve of the sigmoid.
    pub(crate) fn new(cap: f32, curve: Curve<'a>) -> Self {
        Cap { cap, inverse: 1.0 / cap, curve }
    }

    /// One value.
    pub(crate) fn of(&self, x: f32) -> f32 {
        self.cap * self.curve.tanh(x * self.inverse)
    }

    /// Bits of scores in place; the largest of them.
    fn apply(&self, scores: &mut [u32]) -> f32 {
        let mut top = f32::MIN;
        for slot in scores {
            let score = self.of(f32::from_bits(*slot));
            top = top.max(score);
            *slot = score.to_bits();
        }
        top
    }
}

impl Attention<'_> {
    /// Replaces `query` (head_dim) by softmax(query · keys · scale) · values over the positions `seen`.
    pub(crate) fn attend(
        &mut self,
        kernels: &Kernels,
        cache: &Cache<'_>,
        head: usize,
        seen: Range<usize>,
        scoring: Scoring<'_>,
        query: &mut [f32],
    ) -> Result<(), NumericRange> {
        let width = query.len();
        let integers = &mut self.query[..width];
        let scale = (kernels.quantize)(query, integers, &mut [])? * scoring.scale;
        let [first, wrapped] = cache.shape.runs(seen);
        // One run of slots as it is; two as the whole ring, in which the slots between them are not seen.
        let slots = if wrapped.is_empty() { first.clone() } else { 0..cache.shape.slots };
        let scores = &mut self.scores[..slots.len()];
        let score = |run: &Range<usize>, scores: &mut [u32]| {
            let scores = &mut scores[run.start - slots.start..][..run.len()];
            let top = (kernels.scores)(cache.keys_from(head, run.start), integers, scale, scores);
            scoring.cap.map_or(top, |cap| cap.apply(scores))
        };
        let mut top = score(&first, scores);
        if !wrapped.is_empty() {
            top = top.max(score(&wrapped, scores));
            scores[wrapped.end..first.start].fill(UNSEEN);
        }
        let values = cache.values_of(head, slots, self.values);
        let (total, largest) = (kernels.weights)(values.scales, top, scores);
        if largest == 0.0 {
            query.fill(0.0);
            return Ok(());
        }
        let ratio = PROBABILITY_MAX as f32 / largest;
        let factors = Factors { ratio, back: 1.0 / (total as f32 * ratio) };
        let sums = Sums { block: &mut self.sums[..width], total: &mut self.totals[..width] };
        (kernels.mix)(values, scores, factors, sums, query);
        if cache.shape.nibbles() {
            hadamard(query);
        }
        Ok(())
    }
}
