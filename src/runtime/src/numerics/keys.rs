//! Queries and keys before their product: rotary positions and key maps.

use super::F32Bytes;

/// Positions per step of the second rotary table.
pub const ROTARY_BLOCK: usize = 64;

/// Rotary positions from two shipped f32 tables: 64 single steps and every 64th position, (rows, head_dim / 2) each.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// cos of single steps.
    pub low_cos: F32Bytes<'a>,
    /// sin of single steps.
    pub low_sin: F32Bytes<'a>,
    /// cos of every 64th position.
    pub high_cos: F32Bytes<'a>,
    /// sin of every 64th position.
    pub high_sin: F32Bytes<'a>,
    /// Half of the head's width.
    pub half: usize,
}

impl<'a> Rotary<'a> {
    /// Rotates one head in place: element i is paired with i + head_dim/2.
    ///
    /// # Panics
    /// If the tables do not reach `position`.
    #[inline(always)]
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let half = self.half;
        let (low, high) = (position % ROTARY_BLOCK * half, position / ROTARY_BLOCK * half);
        let (first, second) = head.split_at_mut(half);
        let second = &mut second[..half];
        let table = |values: F32Bytes<'a>, row: usize| &values.words()[row..][..half];
        let (low_cos, low_sin) = (table(self.low_cos, low), table(self.low_sin, low));
        let (high_cos, high_sin) = (table(self.high_cos, high), table(self.high_sin, high));
        for i in 0..half {
            let (low_cos, low_sin) = (f32::from_le_bytes(low_cos[i]), f32::from_le_bytes(low_sin[i]));
            let (high_cos, high_sin) = (f32::from_le_bytes(high_cos[i]), f32::from_le_bytes(high_sin[i]));
            let cos = high_cos * low_cos - high_sin * low_sin;
            let sin = high_sin * low_cos + high_cos * low_sin;
            let (x, y) = (first[i], second[i]);
            first[i] = x * cos - y * sin;
            second[i] = y * cos + x * sin;
        }
    }
}

/// The key map on one key: (k − mean) · balance.
pub fn map_key(key: &mut [f32], mean: F32Bytes<'_>, balance: F32Bytes<'_>) {
    for ((k, mean), balance) in key.iter_mut().zip(mean.iter()).zip(balance.iter()) {
        *k = (*k - mean) * balance;
    }
}

/// The key map on one query: q · inverse.
pub fn map_query(query: &mut [f32], inverse: F32Bytes<'_>) {
    for (q, inverse) in query.iter_mut().zip(inverse.iter()) {
        *q *= inverse;
    }
}
